import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import type { CairnError } from "../../src/errors.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { cairnLibrary, newFolder } from "../fixtures/work.ts";

/** Points of forks as targets, and forks that come home. */

interface Place {
  client: Client;
  folder: string;
}

async function plain(): Promise<Place> {
  const folder = newFolder("original");
  makeFirst(folder);
  return { client: await (await cairnLibrary()).init(folder), folder };
}

for (const engine of ["copy", "btrfs-snapshot"]) {
  test(`${engine}: points of a fork can be restored, and adopting the fork can be undone`, async (t) => {
    const place = engine === "copy" ? await plain() : await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    const first = readFolder(folder);
    const to = `${folder}-fork`;
    await client.fork("head", to);
    makeSecond(to);
    const second = readFolder(to);
    const fork = await (await cairnLibrary()).open(to);
    const { save_point_id: id } = await fork.save();
    const name = fork.workspace.name;
    for (const target of [id, id.slice(0, 8), `${name}:latest`, `${name}:`, `${to}:head`]) {
      assert.equal((await client.resolve(target)).save_point_id, id, target);
    }
    assert.deepEqual((await client.diff(id, `${name}:latest`)).entries, []);
    assert.notEqual((await client.show(id)).total, 0);
    await client.restore({ target: id, to: `${folder}-to` });
    assertFolder(`${folder}-to`, second, "elsewhere");
    await client.restore({ target: id });
    assertFolder(folder, second, "restored");
    await client.undo();
    assertFolder(folder, first, "undone");
    // A mark is of the workspace's own points alone.
    await assert.rejects(client.pin(id), { code: "not_found" });
    makeUnsaved(to);
    const unsaved = readFolder(to);
    for (const word of [to, name]) {
      const { warnings } = cairnOk(["diff", word, "-C", folder]);
      assert.ok(
        warnings.some((each) => each.endsWith(`to compare them: cairn save ${to}`)),
        warnings.join("\n"),
      );
    }
    await client.adoptFork(to);
    assertFolder(folder, unsaved, "adopted");
    assert.equal((await client.operations()).operations[0]!.kind, "adopt");
    assert.equal((await client.status()).clean, true);
    await client.undo();
    assertFolder(folder, first, "adoption undone");
    await client.redo();
    assertFolder(folder, unsaved, "adopted again");
    await fork.close();
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    await client.close();
  });
}

test("fork --remove saves the fork as a point of the original and removes its folder", async () => {
  const { client, folder } = await plain();
  await client.save();
  const to = `${folder}-fork`;
  await client.fork("head", to);
  fs.writeFileSync(path.join(to, "only-here"), "unsaved\n");
  const last = readFolder(to);
  const { data } = cairnOk(["-C", folder, "fork", "--remove", to]);
  assert.equal(fs.existsSync(to), false);
  await client.restore({ target: data["save_point_id"] as string, to });
  assertFolder(to, last, "the fork's last state");
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  for (const words of [
    ["adopt", to],
    ["adopt", folder],
    ["fork", "--remove", "none"],
  ])
    assert.equal(cairn(["-C", folder, ...words]).error!.code, "not_found", words.join(" "));
});

test("a killed fork --remove leaves the fork whole, or its last state as a point of the original", async () => {
  for (const failpoint of ["receive.staged", "fork.taken-over", "release.marked", "fork.released"]) {
    const { client, folder } = await plain();
    await client.save();
    const to = `${folder}-fork`;
    await client.fork("head", to);
    fs.writeFileSync(path.join(to, "only-here"), "unsaved\n");
    const last = readFolder(to);
    assert.ok(cairn(["-C", folder, "fork", "--remove", to], { failpoint }).killed || failpoint === "release.marked");
    if (fs.existsSync(to)) assertFolder(to, last, failpoint);
    assert.equal((await client.doctor({ repair: true })).healthy, true, failpoint);
  }
});

test("show, restore and adopt work on a workspace with its own store, and fork --remove refuses it", async () => {
  const { client, folder } = await plain();
  await client.save();
  const compare = { withoutRootTime: true };
  const first = readFolder(folder, compare);
  const other = newFolder("own-store");
  makeFirst(other);
  const own = await (await cairnLibrary()).init(other);
  makeSecond(other);
  fs.writeFileSync(path.join(other, "large"), Buffer.alloc(3 << 20, "only there"));
  const second = readFolder(other);
  const { save_point_id: id } = await own.save();
  const target = `${other}:latest`;
  assert.notEqual((await client.show(target)).total, 0);
  assert.deepEqual((await client.diff(target, `${other}:${id}`)).entries, []);
  assert.deepEqual(
    (await client.history()).save_points.map(({ workspace_name: name }) => name),
    ["main"],
    "what was received is no point of the history",
  );
  await client.restore({ target, to: `${folder}-to` });
  assertFolder(`${folder}-to`, second, "elsewhere");
  await client.restore({ target, paths: ["large"] });
  await client.undo();
  assertFolder(folder, first, "undone", compare);
  fs.writeFileSync(path.join(other, "large"), "changed since\n");
  const unsaved = readFolder(other);
  await assert.rejects(client.adoptFork(other), { code: "refused" });
  await client.adoptFork(other, { over: true });
  assertFolder(folder, unsaved, "adopted");
  await client.undo();
  assertFolder(folder, first, "adoption undone", compare);
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  for (const [from, gone] of [
    [folder, other],
    [other, folder],
  ] as const) {
    const { status, error } = cairn(["-C", from, "fork", "--remove", gone]);
    assert.deepEqual([status, error!.code], [7, "refused"]);
    assert.ok(fs.existsSync(gone));
  }
  const fork = `${folder}-fork`;
  await client.fork("head", fork);
  assert.equal(cairn(["-C", fork, "fork", "--remove", folder]).error!.code, "refused", "a fork removes no original");
  assert.equal(cairn(["-C", folder, "show", `${other}:nowhere`]).status, 2);
  await own.close();
});

test("a commit in a fork of a git worktree or submodule does not move the original's branch", async (t) => {
  const base = newFolder("git");
  const git = (folder: string, ...args: string[]): string =>
    execFileSync("git", ["-C", folder, "-c", "protocol.file.allow=always", ...args], {
      encoding: "utf8",
      env: { ...process.env, ...IDENTITY },
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  if (spawnSync("git", ["--version"]).status !== 0) return t.skip("git is not installed");
  const [main, outer] = [path.join(base, "main"), path.join(base, "outer")];
  for (const each of [main, outer]) {
    fs.mkdirSync(each);
    git(each, "init", "-q", "-b", "trunk");
    fs.writeFileSync(path.join(each, "file"), "one\n");
    git(each, "add", ".");
    git(each, "commit", "-qm", "one");
  }
  git(main, "worktree", "add", "-q", path.join(base, "linked"), "-b", "side");
  git(outer, "submodule", "--quiet", "add", main, "inner");
  for (const folder of [path.join(base, "linked"), path.join(outer, "inner")]) {
    const client = await (await cairnLibrary()).init(folder);
    fs.writeFileSync(path.join(folder, "staged"), "staged\n");
    git(folder, "add", "staged");
    await client.save();
    const before = git(folder, "rev-parse", "HEAD");
    const fork = path.join(base, `fork-of-${path.basename(folder)}`);
    await client.fork("head", fork);
    assert.equal(git(fork, "status", "--short"), "A  staged", folder);
    git(fork, "commit", "-qm", "in the fork");
    assert.notEqual(git(fork, "rev-parse", "HEAD"), before);
    assert.equal(git(folder, "rev-parse", "HEAD"), before, "the original's branch stays");
    assert.equal(git(folder, "status", "--short"), "A  staged");
    assert.equal(path.resolve(git(fork, "rev-parse", "--show-toplevel")), fork);
    const warnings: string[] = [];
    await client.restore({ target: "head", to: `${fork}-to`, onWarning: (message) => warnings.push(message) });
    assert.match(warnings.join("\n"), /would land on its branch/);
    await client.close();
  }
  assert.match(git(main, "worktree", "list"), /fork-of-linked .*detached/);
});

const IDENTITY = Object.fromEntries(
  ["AUTHOR", "COMMITTER"].flatMap((who) => [
    [`GIT_${who}_NAME`, "a"],
    [`GIT_${who}_EMAIL`, "a@example.org"],
  ]),
);

test("adopt refuses if the original changed since the fork, and --merge keeps both sides' work", async () => {
  const folder = newFolder("merge");
  const write = (root: string, files: Record<string, string>): void => {
    for (const [name, content] of Object.entries(files)) fs.writeFileSync(path.join(root, name), content);
  };
  const lines = (first: string, last: string): string => `${[first, "b", "c", "d", "e", last].join("\n")}\n`;
  write(folder, { text: lines("a", "f"), both: "one\n", fork: "one", own: "one", gone: "one" });
  const client = await (await cairnLibrary()).init(folder);
  await client.save();
  const to = `${folder}-fork`;
  await client.fork("head", to);
  write(to, { text: lines("A", "f"), both: "fork\n", fork: "two", "new-in-fork": "new" });
  fs.rmSync(path.join(to, "gone"));
  await client.adoptFork(to);
  assert.equal(fs.readFileSync(path.join(folder, "fork"), "utf8"), "two", "the original had not changed");
  await client.undo();
  write(folder, { text: lines("a", "F"), both: "original\n", own: "two", "new-here": "new" });
  fs.chmodSync(path.join(folder, "fork"), 0o700);
  const own = { withoutRootTime: true };
  const before = readFolder(folder, own);
  await assert.rejects(client.adoptFork(to), (error: CairnError) => {
    assert.deepEqual([error.code, error.details!["changes"]], ["refused", { added: 1, modified: 4, removed: 0 }]);
    return true;
  });
  assertFolder(folder, before, "refused", own);
  const merged = await client.adoptFork(to, { merge: true });
  assert.deepEqual(
    merged.left_out.map(({ path: where, reason, detail }) => [where, reason, detail]),
    [["both", "changed_since", "both sides changed it, and it stays as it is here"]],
  );
  const content = (name: string): string => fs.readFileSync(path.join(folder, name), "utf8");
  assert.deepEqual(["text", "both", "fork", "own", "new-in-fork", "new-here"].map(content), [
    lines("A", "F"),
    "original\n",
    "two",
    "two",
    "new",
    "new",
  ]);
  assert.equal(fs.existsSync(path.join(folder, "gone")), false);
  assert.equal(fs.statSync(path.join(folder, "fork")).mode & 0o777, 0o700);
  // The store gets the merged text with the next save.
  const { save_point_id: saved } = await client.save();
  assert.deepEqual((await client.verify(saved)).problems, []);
  await client.undo();
  assertFolder(folder, before, "undone", own);
  await client.adoptFork(to, { over: true });
  assertFolder(folder, readFolder(to, own), "over", own);
});
