import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { damagePack } from "../../src/backup/testing-far.ts";
import type { DrillResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, ROOT, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newRepository, type TestRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

function backUp(place: TestRepository, name: string, content = "dear Ben", words: readonly string[] = []): string {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "letter"), content);
  cairnOk(["backup", "create", folder, ...words, ...place.options]);
  return folder;
}

function drill(place: TestRepository, words: readonly string[] = [], options: RunOptions = {}): DrillResult {
  return cairnOk(["backup", "drill", ...words, ...place.options], options).data as unknown as DrillResult;
}

/** Everything in this user's caches but the folders that were made for a list of snapshots. */
function workFolders(home: string): string[] {
  return fs.globSync("**/work/*", { cwd: path.join(home, ".cache") });
}

test("backup drill restores the newest snapshot of each host and folder, and writes a receipt for each", async () => {
  const place = await newRepository("drilled");
  const [one, two] = [backUp(place, "one"), backUp(place, "two")];
  fs.writeFileSync(path.join(one, "letter"), "dear Cleo");
  cairnOk(["backup", "create", one, ...place.options]);
  cairnOk(["backup", "create", two, "--host", "elsewhere", ...place.options]);
  const { restored, problems } = drill(place);
  const newest = cairnOk(["backup", "list", "--latest", "1", ...place.options]).data["snapshots"] as {
    snapshot_id: string;
    hostname: string;
    paths: string[];
  }[];
  assert.equal(newest.length, 3);
  assert.deepEqual(
    restored.map(({ snapshot_id, hostname, paths }) => [snapshot_id, hostname, paths]),
    newest.map(({ snapshot_id, hostname, paths }) => [snapshot_id, hostname, paths]),
  );
  assert.deepEqual(problems, []);
  for (const { receipt, state_digest: digest, snapshot_id: id } of restored) {
    const { data } = cairnOk(["receipt", "verify", receipt!]);
    const said = data["receipt"] as { state_digest: string; snapshot_id: string };
    assert.deepEqual([data["trusted"], said.state_digest, said.snapshot_id], [true, digest, id]);
  }
  assert.deepEqual(workFolders(process.env["HOME"]!), []);
  const ofTwo = drill(place, ["--path", two]).restored;
  assert.deepEqual(
    ofTwo.map(({ paths, hostname }) => [paths[0], hostname]),
    newest.filter(({ paths }) => paths[0] === two).map(({ paths, hostname }) => [paths[0], hostname]),
  );
  assert.equal(ofTwo.length, 2);
});

test("backup drill reads the index and the snapshots from the repository, not from this machine's caches", async () => {
  const place = await newRepository("cached");
  backUp(place, "cached-folder");
  drill(place);
  // The caches know the index and the snapshot. On a new machine nobody does.
  for (const kind of ["index", "snapshots"]) {
    const at = path.join(place.location, kind);
    const kept = `${at}-kept`;
    fs.cpSync(at, kept, { recursive: true });
    for (const name of fs.readdirSync(at)) fs.chmodSync(path.join(at, name), 0o600);
    for (const name of fs.readdirSync(at)) fs.writeFileSync(path.join(at, name), "damaged");
    const { status, error } = cairn(["backup", "drill", ...place.options]);
    assert.deepEqual([status, error?.code], [6, "damaged"], kind);
    fs.rmSync(at, { recursive: true });
    fs.renameSync(kept, at);
  }
  drill(place);
});

test("backup drill exits 3 without a snapshot, 6 for lost content, 10 without a receipt, 7 for a scratch folder in a workspace", async () => {
  const place = await newRepository("statuses");
  const status = (...words: string[]): number | null => cairn(["backup", "drill", ...words, ...place.options]).status;
  assert.equal(status(), 3);
  const folder = backUp(place, "statuses-folder");
  assert.equal(status("--path", `${folder}-not`), 3);
  for (const scratch of [folder, path.join(folder, "below")]) {
    assert.equal(status("--scratch", scratch), 7);
    assert.deepEqual(fs.readdirSync(folder), ["letter"]);
  }
  assert.equal(status(), 0);
  cairnOk(["backup", "rewrite", "latest", "--exclude", "letter", "--forget", ...place.options]);
  const { status: short, data } = cairn(["backup", "drill", ...place.options]);
  assert.deepEqual([short, (data as unknown as DrillResult).restored[0]!.receipt], [10, null]);
  const whole = await newRepository("lost-content");
  backUp(whole, "lost-folder", "x".repeat(100_000));
  damagePack(whole.location, (size) => size >> 1, "largest");
  const damaged = cairn(["backup", "drill", ...whole.options]);
  const { problems } = damaged.data as unknown as DrillResult;
  assert.deepEqual([damaged.status, problems.map(({ kind }) => kind)], [6, ["restore_failed"]]);
});

test("backup drill runs probes and the checks of rows, and exits 10 or 6 as they answer", async () => {
  const place = await newRepository("probed");
  const folder = newFolder("probed-folder");
  const database = new DatabaseSync(path.join(folder, "mail.db"));
  database.exec("CREATE TABLE m (a TEXT); INSERT INTO m VALUES ('one')");
  database.close();
  const answer = path.join(SCRATCH, "answer");
  fs.writeFileSync(answer, "1\n");
  cairnOk(["backup", "create", folder, "--probe", `cat ${answer}`, ...place.options]);
  const { restored } = drill(place);
  assert.deepEqual([restored[0]!.databases.length, restored[0]!.probes.map(({ equal }) => equal)], [1, [true]]);
  fs.writeFileSync(answer, "2\n");
  const differs = cairn(["backup", "drill", ...place.options]);
  assert.equal(differs.status, 6);
  // Another machine's user has not given the command.
  const env = { XDG_STATE_HOME: path.join(SCRATCH, "other-state") };
  assert.equal(cairn(["backup", "drill", ...place.options], { env }).status, 10);
});

test("a killed drill leaves a scratch folder that the next drill removes", async () => {
  const place = await newRepository("killed");
  backUp(place, "killed-folder");
  const scratch = newFolder("drill-scratch");
  for (const failpoint of ["partial.made", "restore-check.restored"]) {
    const words = ["backup", "drill", "--scratch", scratch, ...place.options];
    assert.ok(cairn(words, { failpoint }).killed, failpoint);
    assert.equal(fs.readdirSync(scratch).length, 1);
    drill(place, ["--scratch", scratch]);
    assert.deepEqual(fs.readdirSync(scratch), []);
    assert.deepEqual(workFolders(process.env["HOME"]!), []);
  }
});

function whyNoMount(): string | false {
  const can = process.geteuid?.() === 0 && spawnSync("unshare", ["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
  return can !== false && can.status === 0 ? false : "nothing can be mounted here";
}

test("backup drill names a full disk and --scratch before it writes", { skip: whyNoMount() }, async (t) => {
  const place = await newRepository("full");
  backUp(place, "full-folder", "x".repeat(4 << 20));
  const scratch = newFolder("small-disk");
  assert.equal(spawnSync("mount", ["-t", "tmpfs", "-o", "size=2m", "none", scratch]).status, 0);
  t.after(() => spawnSync("umount", [scratch]));
  const { status, error } = cairn(["backup", "drill", "--scratch", scratch, ...place.options]);
  assert.deepEqual([status, error?.code], [8, "no_space"]);
  assert.match(error!.hint!, /--scratch DIR/);
  assert.deepEqual(fs.readdirSync(scratch), []);
});

test(
  "backup drill works for a user who may only read the repository",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const user = installForOrdinaryUser();
    t.after(user.remove);
    const place = await newRepository("read-only");
    backUp(place, "read-only-folder");
    const [location, passwordFile] = [path.join(user.place, "repository"), path.join(user.place, "password")];
    fs.cpSync(place.location, location, { recursive: true });
    fs.copyFileSync(place.passwordFile, passwordFile);
    assert.equal(spawnSync("chmod", ["-R", "a+rX,a-w", location, passwordFile]).status, 0);
    const options = ["-r", location, "--password-file", passwordFile];
    const home = user.optionsIn(path.join(user.place, "home"));
    // The user cannot give the files to root.
    assert.equal(cairn(["backup", "restore", "latest", "--to", "back", ...options], home).status, 10);
    const { restored } = drill({ location, passwordFile, options }, [], home);
    assert.ok(restored[0]!.receipt!.startsWith(path.join(user.place, "state")));
  },
);

test("the four commands of docs/new-machine.md bring a folder back in a bare home directory", async (t) => {
  const place = await newRepository("new-machine");
  const folder = backUp(place, "old-machine");
  const home = newFolder("new-home");
  const bin = newFolder("new-bin");
  fs.writeFileSync(path.join(bin, "cairn"), `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`, {
    mode: 0o755,
  });
  const page = fs.readFileSync(path.join(ROOT, "docs/new-machine.md"), "utf8");
  const lines = page
    .split("```")[1]!
    .replace(/^sh\n/, "")
    .replaceAll("/srv/backups", place.location)
    .replaceAll("/home/ann/work", folder)
    .trim()
    .split("\n");
  assert.equal(lines.length, 4);
  const env = { HOME: home, PATH: `${bin}:/usr/bin:/bin` };
  const input = fs.readFileSync(place.passwordFile);
  const times = lines.map((line) => {
    const started = performance.now();
    const ran = spawnSync("/bin/sh", ["-c", line], { cwd: home, env, input, encoding: "utf8" });
    assert.equal(ran.status, 0, `${line}\n${ran.stdout}${ran.stderr}`);
    return `${Math.round(performance.now() - started)} ms`;
  });
  t.diagnostic(`the four commands took ${times.join(", ")}`);
  assert.equal(fs.readFileSync(path.join(home, "work/letter"), "utf8"), "dear Ben");
  assert.equal(fs.statSync(path.join(home, ".backup-password")).mode & 0o777, 0o600);
  assert.equal(fs.readdirSync(path.join(home, ".local/state/cairn/receipts")).length, 1);
});
