import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { initRepository, openRepository } from "../../src/index.ts";
import { chosenPasses, killAt, passesOf } from "../crash/rounds.ts";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { addMessages, filesIn, makeArchive, MsgvaultWriter } from "../fixtures/msgvault.ts";
import { findPeer } from "../fixtures/peers.ts";

/** Snapshots of a msgvault repository, from the command line: shown, and restored. */

let count = 0;
const fresh = (name: string): string => path.join(SCRATCH, `${name}-${count++}`);

function archive(messages: number): string {
  const home = fresh("home");
  makeArchive(home);
  addMessages(home, messages);
  return home;
}

/** A repository with two snapshots, and copies of the archive at both. */
function made(): { root: string; first: string; second: string; homes: [string, string] } {
  const home = archive(20);
  const before = fresh("home");
  fs.cpSync(home, before, { recursive: true });
  const writer = new MsgvaultWriter(fresh("repository"));
  const first = writer.add({ home, createdAt: "2026-11-20T10:00:00Z", tag: "weekly" });
  addMessages(home, 10);
  const second = writer.add({ home, createdAt: "2026-11-21T10:00:00Z", delta: true });
  return { root: writer.root, first, second, homes: [before, home] };
}

test("backup list and inspect show a msgvault repository, and its snapshots", () => {
  const { root, first, second } = made();
  const { data } = cairnOk(["backup", "list", "-r", root]);
  const snapshots = data["snapshots"] as { snapshot_id: string; created_at: string; tags: string[] }[];
  assert.deepEqual(
    snapshots.map(({ snapshot_id: id, created_at: at, tags }) => [id, at, tags]),
    [
      [first, "2026-11-20T10:00:00Z", ["weekly"]],
      [second, "2026-11-21T10:00:00Z", []],
    ],
  );
  const inspected = cairnOk(["inspect", root]).data as { format: string; content: { snapshots: { id: string }[] } };
  assert.deepEqual(
    [inspected.format, ...inspected.content.snapshots.map(({ id }) => id)],
    ["msgvault-repository", first, second],
  );
  fs.appendFileSync(path.join(root, `snapshots/${second}.mvmanifest`), "x");
  const { damaged } = cairnOk(["backup", "list", "-r", root]).data as { damaged: { snapshot_id: string }[] };
  assert.deepEqual(
    damaged.map(({ snapshot_id: id }) => id),
    [second],
  );
  cairnOk(["backup", "import-msgvault", root, first, "--to", fresh("to")]);
  const { status, error } = cairn(["backup", "import-msgvault", root, "--to", fresh("to")]);
  assert.deepEqual([status, error!.message.includes(second)], [6, true]);
});

test("import restores each snapshot, and refuses used folders, unknown and ambiguous snapshots", () => {
  const { root, first, homes } = made();
  const to = fresh("to");
  const { data } = cairnOk(["backup", "import-msgvault", root, "--to", to]);
  assert.deepEqual(filesIn(to), filesIn(homes[1]));
  assert.equal((data["database"] as { statistics: string }).statistics, "equal");
  const older = fresh("older");
  fs.mkdirSync(older);
  cairnOk(["backup", "import-msgvault", root, first.slice(0, 12), "--to", older]);
  assert.deepEqual(filesIn(older), filesIn(homes[0]));
  const refused = (...words: string[]): unknown => cairn(["backup", "import-msgvault", ...words]).error?.code;
  assert.equal(refused(root, "--to", to), "already_exists");
  assert.equal(refused(root, "--to", path.join(root, "inside")), "refused");
  assert.equal(refused(root, "--to", fresh("to"), "2030"), "not_found");
  assert.equal(refused(root, "--to", fresh("to"), "2026"), "ambiguous");
  assert.equal(refused(SCRATCH, "--to", fresh("to")), "not_found");
  for (const verb of ["verify", "init", "prune", "use"]) {
    const { error } = cairn(["backup", verb, "-r", `local:${root}`, "--password-command", "echo secret"]);
    assert.deepEqual([verb, error?.code], [verb, "unsupported"]);
  }
});

test("a msgvault repository is recognised by its config, and no repository is made anywhere in one", async () => {
  const { root } = made();
  const before = filesIn(root);
  const link = fresh("link");
  fs.symlinkSync(root, link);
  for (const place of [root, `local:${root}`, link, path.join(root, "packs/below"), path.join(link, "deep/below")])
    await assert.rejects(
      initRepository({ repository: place, password: "secret" }),
      { code: "unsupported", message: /is a msgvault repository, which Cairn only reads/ },
      place,
    );
  await assert.rejects(openRepository({ repository: root, password: "secret" }), { code: "unsupported" });
  assert.deepEqual(filesIn(root), before);
  assert.equal((cairnOk(["backup", "list", "-r", `local:${root}`]).data["snapshots"] as unknown[]).length, 2);
  // Another program's folder with the same names is none.
  const other = fresh("other");
  fs.mkdirSync(path.join(other, "snapshots"), { recursive: true });
  fs.writeFileSync(path.join(other, "config.toml"), 'name = "of another program"\n');
  const repository = path.join(other, "repository");
  await (await initRepository({ repository, password: "secret" })).close();
  assert.equal(cairn(["backup", "list", "-r", other, "--password-command", "echo secret"]).error?.code, "not_found");
});

test("nothing in the repository changes: no byte, no access time, no lock", () => {
  const { root } = made();
  const facts = (): unknown[] =>
    ["", ...fs.readdirSync(root, { recursive: true, encoding: "utf8" })].map((name) => {
      const { atimeNs, mtimeNs, ctimeNs, size } = fs.statSync(path.join(root, name), { bigint: true });
      return [name, atimeNs, mtimeNs, ctimeNs, size];
    });
  for (const name of ["", ...fs.readdirSync(root, { recursive: true, encoding: "utf8" })])
    fs.utimesSync(path.join(root, name), 1, fs.statSync(path.join(root, name)).mtimeMs / 1000);
  const before = facts();
  for (const words of [
    ["list", "-r", root],
    ["import-msgvault", root, "--to", fresh("to")],
  ])
    cairnOk(["backup", ...words]);
  cairnOk(["inspect", root]);
  assert.deepEqual(facts(), before);
});

test("an import that is killed at any step leaves nothing or a complete folder, and the next one succeeds", () => {
  const { root, homes } = made();
  const line = (to: string): string[] => ["backup", "import-msgvault", root, "--to", to];
  const folder = fresh("killed");
  fs.mkdirSync(folder);
  for (const pass of chosenPasses(passesOf(line(fresh("traced"))), 8)) {
    const to = path.join(folder, String(pass));
    killAt(line(to), pass);
    if (!fs.existsSync(to)) cairnOk(line(to));
    assert.deepEqual(filesIn(to), filesIn(homes[1]), `killed at ${pass}`);
    assert.deepEqual(fs.readdirSync(folder), [String(pass)]);
    fs.rmSync(to, { recursive: true });
  }
});

test("each snapshot becomes a save point with its time and tag, and a backup of that point; killed imports go on", () => {
  const { root, homes } = made();
  const folder = fresh("work");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "mine"), "x");
  const line = ["save", folder, "--from-msgvault", root];
  const traced = fresh("traced");
  fs.mkdirSync(traced);
  for (const pass of chosenPasses(passesOf(["save", traced, "--from-msgvault", root]), 5)) killAt(line, pass);
  const { points } = cairnOk(line).data as { points: { created_at: string; tags: string[]; save_point_id: string }[] };
  const facts = (all: { created_at: string; tags: string[] }[]): unknown =>
    all.map(({ created_at: at, tags }) => [Date.parse(at), tags]);
  const wanted = [
    [Date.parse("2026-11-20T10:00:00Z"), ["weekly"]],
    [Date.parse("2026-11-21T10:00:00Z"), []],
  ];
  assert.deepEqual(facts(points), wanted);
  assert.equal((cairnOk(["history", "-C", folder]).data["save_points"] as unknown[]).length, 2);
  assert.deepEqual(fs.readdirSync(folder), ["mine"]);
  for (const [i, { save_point_id: id }] of points.entries()) {
    const to = fresh("restored");
    cairnOk(["restore", id, "--to", to, "-C", folder]);
    assert.deepEqual(filesIn(to), filesIn(homes[i]!));
  }
  // The folder's own saves go on as before.
  assert.equal(cairnOk(["save", folder]).data["made"], true);
  assert.equal(cairnOk(["status", "-C", folder]).data["clean"], true);
  assert.equal(cairnOk(line).data["made"], 0);
  const repository = ["-r", fresh("backups"), "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...repository]);
  const backup = ["backup", "create", folder, "--from-msgvault", root, ...repository];
  assert.equal((cairnOk(backup).data["backups"] as unknown[]).length, 2);
  assert.equal((cairnOk(backup).data["backups"] as unknown[]).length, 0);
  const listed = cairnOk(["backup", "list", ...repository]).data["snapshots"] as {
    created_at: string;
    tags: string[];
  }[];
  assert.deepEqual(facts(listed), wanted);
  assert.equal(cairn([...line, "-m", "words"]).status, 2);
  // A damaged snapshot does not hide the others.
  const manifests = fs.readdirSync(path.join(root, "snapshots"));
  fs.appendFileSync(path.join(root, "snapshots", manifests.toSorted()[1]!), "x");
  const other = fresh("work");
  fs.mkdirSync(other);
  const partly = cairn(["save", other, "--from-msgvault", root]);
  const left = partly.data["damaged"] as unknown[];
  assert.deepEqual([partly.status, left.length, (partly.data["points"] as unknown[]).length], [10, 1, 1]);
  assert.equal(cairn([...backup, "--no-save"]).status, 2);
});

const peer = findPeer("msgvault");
test(
  "snapshots that msgvault's own engine wrote are imported byte for byte",
  { skip: "reason" in peer && peer.reason },
  () => {
    if ("reason" in peer) return;
    const run = (words: string[], env: Record<string, string> = {}): string =>
      execFileSync(peer.program, words, { encoding: "utf8", env: { ...process.env, ...env } }).trim();
    for (const level of ["3", "9", "19"]) {
      const home = archive(40);
      fs.mkdirSync(path.join(home, "deletions"));
      fs.writeFileSync(path.join(home, "deletions/a.json"), "{}");
      const large = "a line of a large attachment\n".repeat(500_000);
      fs.writeFileSync(path.join(home, "large"), large);
      const root = fresh("repository");
      run(["init", root]);
      const copies: [string, Record<string, string>][] = [];
      for (let i = 0; i < 4; i++) {
        addMessages(home, 20, i === 2 ? { folder: "sms" } : {});
        const id = run(["create", root, home, i === 0 ? "first <&>" : "", level], i === 3 ? { NOTE: "of it" } : {});
        const files = filesIn(home);
        delete files["large"];
        copies.push([id, files]);
      }
      run(["verify", root]);
      for (const [id, files] of copies) {
        const to = fresh("to");
        const { data } = cairnOk(["backup", "import-msgvault", root, id, "--to", to]);
        const imported = filesIn(to);
        delete imported["auxiliary/note"];
        assert.deepEqual(imported, files);
        assert.equal((data["database"] as { statistics: string }).statistics, "equal");
      }
      assert.equal((cairnOk(["backup", "list", "-r", root]).data["snapshots"] as unknown[]).length, 4);
      const stream = run(["create", root, home, "stream", level], { STREAM: path.join(home, "large") });
      const to = fresh("to");
      cairnOk(["backup", "import-msgvault", root, stream, "--to", to]);
      assert.equal(fs.readFileSync(path.join(to, "metadata"), "utf8"), large);
    }
  },
);
