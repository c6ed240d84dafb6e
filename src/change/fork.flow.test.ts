import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

const FILES = { "a.txt": "a", "sub/b.txt": "b", "sub/deep/c.txt": "c" };

test("a fork is a separate workspace that equals its point and has no changes at the start", async (context) => {
  const { root, folder, client, library, write } = await testFolder(context, FILES);
  fs.linkSync(join(folder, "a.txt"), join(folder, "sub", "linked"));
  fs.symlinkSync("../a.txt", join(folder, "sub", "link"));
  fs.chmodSync(join(folder, "sub"), 0o750);
  const saved = await client.save({ message: "first" });
  const target = join(root, "elsewhere", "fork");
  const { workspace, started_from, save_point, left_out } = await client.fork("head", target);
  assert.deepEqual(left_out, []);
  assert.equal(workspace.path, target);
  assert.equal(workspace.name, "fork");
  assert.equal(started_from, saved.save_point_id);
  assert.equal(save_point.payload_root_hash, saved.payload_root_hash);
  assert.deepEqual(save_point.cause, { kind: "fork", from: saved.save_point_id, from_workspace: "main" });
  assert.equal(save_point.parent_id, null);
  assert.equal(walkDigests(target).state, saved.payload_root_hash);
  assert.equal(fs.statSync(target).mtimeMs, fs.statSync(folder).mtimeMs);
  const listed = await library.listWorkspaces();
  assert.deepEqual(
    listed.map(({ path, origin }) => [path, origin]),
    [
      [target, { workspace_id: client.workspace.id, save_point_id: saved.save_point_id }],
      [folder, undefined],
    ],
  );
  const forked = await library.open(target);
  assert.equal(forked.repoId, client.repoId);
  assert.equal((await forked.status()).clean, true);
  fs.writeFileSync(join(target, "new"), "only here");
  const next = await forked.save();
  assert.equal(next.parent_id, save_point.save_point_id);
  assert.equal(next.read_bytes, "only here".length, "the rest is known from the workspace that it came from");
  write("a.txt", "changed here");
  assert.equal((await client.save()).changes!.modified > 0, true);
  assert.equal(fs.readFileSync(join(target, "a.txt"), "utf8"), "a");
  assert.equal((await client.history()).save_points.length, 2);
});

test("a save in a fresh fork finds a changed file, even if its size and times are unchanged", async (context) => {
  const { root, client, library } = await testFolder(context, { ...FILES, gone: "gone" });
  await client.save();
  await client.fork("head", join(root, "fork"));
  const path = join(root, "fork", "sub", "b.txt");
  const { atime, mtime } = fs.statSync(path);
  fs.writeFileSync(path, "B");
  fs.utimesSync(path, atime, mtime);
  fs.rmSync(join(root, "fork", "gone"));
  fs.writeFileSync(join(root, "fork", "new"), "new");
  const forked = await library.open(join(root, "fork"));
  const saved = await forked.save();
  assert.equal(saved.payload_root_hash, walkDigests(join(root, "fork")).state);
  assert.equal(saved.read_bytes, "B".length + "new".length);
  assert.deepEqual(
    fs.readdirSync(join(client.controlDirectory, "cache")).filter((name) => name.includes("seed")),
    [],
  );
});

test("a second fork gets a unique name, and fork refuses a name or path that is taken", async (context) => {
  const { root, client, folder } = await testFolder(context, FILES);
  await client.save();
  await client.fork("head", join(root, "x", "same"));
  const second = await client.fork("head", join(root, "y", "same"));
  assert.equal(second.workspace.name, "same-2");
  await assert.rejects(client.fork("head", join(root, "x", "same")), hasCode("already_exists"));
  await assert.rejects(client.fork("head", join(root, "z"), { name: "same" }), hasCode("already_exists"));
  await assert.rejects(client.fork("head", join(folder, "inside")), hasCode("refused"));
  await assert.rejects(client.fork("head", join(client.controlDirectory, "inside")), hasCode("refused"));
  fs.rmSync(join(root, "x", "same"), { recursive: true });
  await assert.rejects(
    client.fork("head", join(root, "x", "same")),
    hasCode("already_exists"),
    "its points still belong to that path",
  );
  assert.deepEqual(fs.readdirSync(root).sort(), ["state", "work", "x", "y"], "nothing was left anywhere");
  fs.mkdirSync(join(root, "empty"));
  assert.equal((await client.fork("head", join(root, "empty"))).workspace.name, "empty");
});

test("a standalone fork works without the original", async (context) => {
  const { root, client, library, folder } = await testFolder(context, FILES);
  const saved = await client.save();
  const target = join(root, "alone");
  const { save_point } = await client.fork("head", target, { standalone: true });
  assert.equal(save_point.payload_root_hash, saved.payload_root_hash);
  const alone = await library.open(target);
  assert.notEqual(alone.repoId, client.repoId);
  fs.rmSync(client.controlDirectory, { recursive: true });
  fs.rmSync(folder, { recursive: true });
  assert.equal((await alone.status()).clean, true);
  fs.rmSync(join(target, "sub"), { recursive: true });
  await alone.restore({ target: save_point.save_point_id });
  assert.equal(walkDigests(target).state, saved.payload_root_hash);
});

test("a fork leaves out damaged files, lists them, and writes the rest", async (context) => {
  const { root, client, write } = await testFolder(context, FILES);
  write("large", randomBytes(100_000).toString("latin1"));
  await client.save();
  const data = join(client.controlDirectory, "store", "data");
  const packs = fs.readdirSync(data, { recursive: true, encoding: "utf8" }).map((name) => join(data, name));
  const largest = packs
    .filter((file) => fs.statSync(file).isFile())
    .toSorted((a, b) => fs.statSync(b).size - fs.statSync(a).size)[0]!;
  const bytes = fs.readFileSync(largest);
  bytes[bytes.length >> 1]! ^= 1;
  fs.writeFileSync(largest, bytes);
  assert.deepEqual(
    (await client.fork("head", join(root, "damaged"))).left_out.map(({ path, reason }) => [path, reason]),
    [["large", "damaged"]],
  );
  assert.deepEqual(fs.readdirSync(join(root, "damaged")).sort(), ["a.txt", "sub"]);
});

test("a restore into another folder changes nothing else, and can be limited to some paths", async (context) => {
  const { root, client, folder } = await testFolder(context, FILES);
  const saved = await client.save();
  fs.writeFileSync(join(folder, "a.txt"), "unsaved");
  const whole = await client.restore({ target: "head", to: join(root, "whole") });
  assert.equal(whole.undo_id, null);
  assert.equal(whole.changes!.created, saved.entries);
  assert.equal(walkDigests(join(root, "whole")).state, saved.payload_root_hash);
  const part = await client.restore({ target: "head", to: join(root, "part"), paths: ["sub/deep", "a.txt"] });
  assert.deepEqual(fs.readdirSync(join(root, "part"), { recursive: true }).sort(), [
    "a.txt",
    "sub",
    "sub/deep",
    "sub/deep/c.txt",
  ]);
  assert.equal(part.changes!.created, 4);
  assert.equal(fs.readFileSync(join(folder, "a.txt"), "utf8"), "unsaved");
  assert.equal((await client.history()).save_points.length, 1);
  await assert.rejects(client.restore({ target: "head", to: join(root, "whole") }), hasCode("already_exists"));
  await assert.rejects(
    client.restore({ target: "head", to: join(root, "n"), paths: ["no/such"] }),
    hasCode("not_found"),
  );
  await assert.rejects(client.restore({ target: "head", to: join(folder, "n") }), hasCode("refused"));
  await assert.rejects(client.restore({ target: "head", to: "relative" }), hasCode("usage"));
  assert.deepEqual(fs.readdirSync(root).sort(), ["part", "state", "whole", "work"]);
});

test("an aborted fork leaves no folder and no workspace", async (context) => {
  const { root, client } = await testFolder(context, FILES);
  await client.save();
  await assert.rejects(
    client.fork("head", join(root, "never"), { signal: AbortSignal.abort() }),
    hasCode("interrupted"),
  );
  assert.deepEqual(fs.readdirSync(root).sort(), ["state", "work"]);
  assert.deepEqual(fs.readdirSync(join(client.controlDirectory, "workspaces")), ["main"]);
});

test("an adoption by merge without a step leaves head, the operations and undo alone", async (context) => {
  const { root, client, write } = await testFolder(context, FILES);
  await client.save();
  await client.fork("head", join(root, "fork"));
  write("a.txt", "mine");
  await client.save();
  const before = [(await client.status()).head, (await client.operations()).operations];
  const { undo_id: undo, left_out: left } = await client.adoptFork(join(root, "fork"), { merge: true });
  assert.deepEqual([undo, left], [null, []]);
  assert.deepEqual([(await client.status()).head, (await client.operations()).operations], before);
  await assert.rejects(client.undo(), hasCode("nothing_to_undo"));
});

test("why compares a fork that came home whole with the folder before, and lists no fork that was merged", async (context) => {
  const { root, client, library, write } = await testFolder(context, FILES);
  await client.save({ message: "first" });
  const fork = join(root, "fork");
  await client.fork("head", fork);
  const forked = await library.open(fork);
  const why = async (path: string): Promise<string[]> =>
    (await client.why(path)).changes.map(({ change, save_point: { message } }) => `${change} ${message}`);
  fs.writeFileSync(join(fork, "a.txt"), "of the fork");
  await forked.save({ message: "one" });
  write("sub/b.txt", "changed here");
  await client.save({ message: "here" });
  await client.adoptFork(fork, { merge: true });
  assert.deepEqual(await why("sub/b.txt"), ["modified here", "added first"]);
  assert.deepEqual(await why("sub/deep/c.txt"), ["added first"]);
  await client.save({ message: "merged" });
  assert.deepEqual(await why("a.txt"), ["modified merged", "added first"]);

  fs.writeFileSync(join(fork, "new"), "of the fork");
  await forked.save({ message: "two" });
  await client.adoptFork(fork, { over: true });
  assert.deepEqual(await why("new"), ["added fork: two"]);
  assert.deepEqual(await why("sub/b.txt"), ["modified fork: two", "modified here", "added first"]);
  assert.deepEqual(await why("sub/deep/c.txt"), ["added first"]);
  await client.seal();
  const { save_points: points, changes } = await client.history(undefined, 0, { all: true, changes: true });
  const counted = points
    .map(({ message }, i) => [message, changes![i]] as const)
    .filter(([message]) => message.startsWith("fork: "));
  assert.deepEqual(counted, [
    ["fork: two", { added: 1, modified: 1, removed: 0 }],
    ["fork: one", null],
  ]);
  await forked.close();
});
