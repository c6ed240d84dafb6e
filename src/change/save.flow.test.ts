import assert from "node:assert/strict";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "node:test";
import { mountOf } from "../fs/linux/mounts.ts";
import { EmbeddedStore } from "../workspace/store/embedded-store.ts";
import { acquireLock } from "../repository/locks.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

test("a save after a restore of an older point has that point as its parent, or fails with onDetached: refuse", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const first = await client.save();
  write("a", "two");
  const second = await client.save();
  assert.deepEqual([second.parent_id, second.restored_from], [first.save_point_id, null]);
  await client.restore({ target: first.save_point_id });
  await assert.rejects(client.save({ onDetached: "refuse" }), hasCode("detached"));
  const third = await client.save();
  assert.deepEqual([third.parent_id, third.restored_from], [first.save_point_id, first.save_point_id]);
  const status = await client.status();
  assert.deepEqual([status.head, status.latest, status.detached], [third.save_point_id, third.save_point_id, false]);
});

test("a save of an unchanged folder stores nothing, and with skipUnchanged makes no point", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  // Within a tick of the kernel's clock it would be read again for being young.
  await sleep(60);
  const first = await client.save();
  const again = await client.save();
  assert.deepEqual([again.unchanged, again.bytes_stored, again.read_bytes], [true, 0, 0]);
  assert.notEqual(again.save_point_id, first.save_point_id);
  assert.equal((await client.save({ skipUnchanged: true })).save_point_id, again.save_point_id);
  assert.equal((await client.history()).save_points.length, 2);
});

test("save refuses an invalid tag and makes no point", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  await assert.rejects(client.save({ tags: ["good", " "] }), hasCode("usage"));
  assert.equal(await client.hasSavePoints(), false);
});

test("save refuses tags that read as other targets (latest, dates, ids, paths) or have invisible characters", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const words = ["latest", "Latest", "head", "HEAD", "head~1", "@", "@^", "undo", "now", "yesterday", "2026-11-23"];
  const ids = ["cafe", "DEADBEEF", "0".repeat(32)];
  const paths = ["../..", "/", "a/../b", "./a"];
  const unseen = ["a\nb", "\u001b[2J", "a\u200bb", "\u202estable", "stable ", " stable", "a\u2028b", "\ud800"];
  for (const tag of [...words, ...ids, ...paths, ...unseen])
    await assert.rejects(client.save({ tags: [tag] }), hasCode("usage"), JSON.stringify(tag));
  const tags = ["v1", "release/2", "latest-good", "fix: ü", "稳定", "d-2026-11-23"];
  const { save_point_id: id } = await client.save({ tags });
  for (const tag of tags) assert.equal((await client.resolve(tag)).save_point_id, id, tag);
  await assert.rejects(client.tag(id, { add: ["latest"] }), hasCode("usage"));
  await assert.rejects(client.tag(id, { add: ["a\tb"] }), hasCode("usage"));
});

test("a save by an agent may not take a person's tag, and a person's later save takes an agent's tag", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const agent = { cause: { kind: "tool_call", tool: "mcp" } };
  const early = await client.save({ tags: ["early"], ...agent });
  const first = await client.save({ tags: ["stable", "early"] });
  write("a", "two");
  await assert.rejects(client.save({ tags: ["stable"], ...agent }), hasCode("already_exists"));
  assert.equal((await client.status()).clean, false, "nothing was saved");
  const second = await client.save({ tags: ["mine"], ...agent });
  assert.equal((await client.resolve("stable")).save_point_id, first.save_point_id);
  assert.equal((await client.resolve("early")).save_point_id, first.save_point_id, "and not ambiguous");
  assert.equal((await client.resolve("mine")).save_point_id, second.save_point_id);
  // A tag that a person gave an agent's point is the person's.
  await client.tag(early.save_point_id, { add: ["good"] });
  await assert.rejects(client.save({ tags: ["good"], ...agent }), hasCode("already_exists"));
});

test("save with reread reads every file again, even if its times are unchanged", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one", b: "two two" });
  // An hour old, so that nothing is read again for being young.
  for (const name of ["a", "b"]) utimesSync(join(folder, name), 1, 1);
  await client.save();
  assert.equal((await client.save({ reread: true })).read_bytes, 10);
  write("c", "three");
  assert.equal((await client.save()).changes!.added, 1);
});

test("a restore with keepPresent keeps entries that the point lacks", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one" });
  const first = await client.save();
  write("a", "two");
  write("new", "stays");
  const restored = await client.restore({ target: first.save_point_id, keepPresent: true });
  assert.deepEqual([restored.changes!.updated, restored.changes!.deleted], [1, 0]);
  assert.deepEqual(readdirSync(folder), ["a", "new"]);
  await client.restore({ target: first.save_point_id });
  assert.equal(existsSync(join(folder, "new")), false);
});

test("a restore with keepPresent lists a folder that it keeps at a file's path once, with the reason keep_present", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one", b: "two" });
  const first = await client.save();
  for (const name of ["a", "b"]) rmSync(join(folder, name));
  write("a/inside", "stays");
  mkdirSync(join(folder, "b"));
  const restored = await client.restore({ target: first.save_point_id, keepPresent: true });
  assert.deepEqual(
    restored.left_out.map(({ path, reason }) => [path, reason]),
    [["a", "keep_present"]],
  );
  assert.equal(restored.changes!.created, 1);
  assert.deepEqual([readdirSync(join(folder, "a")), readFileSync(join(folder, "b"), "utf8")], [["inside"], "two"]);
});

test("save warns once of a new folder at the path of the saved folder, and keeps the points", async (t) => {
  const { client, library, folder, root } = await testFolder(t, { a: "one" });
  const first = await client.save();
  renameSync(folder, join(root, "aside"));
  mkdirSync(folder);
  cpSync(join(root, "aside", "a"), join(folder, "a"));
  writeFileSync(join(folder, "b"), "two");
  const warnings: string[] = [];
  for (let i = 0; i < 2; i++) {
    const saved = await (await library.open(folder)).save({ onWarning: (message) => warnings.push(message) });
    assert.equal(saved.sequence, 2 + i);
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? "", /is not the folder that was saved before/);
  assert.equal((await (await library.open(folder)).restore({ target: first.save_point_id })).changes!.deleted, 1);
});

/** The files of a workspace's store that hold content. */
function packsOf(client: { controlDirectory: string }): string[] {
  const data = join(client.controlDirectory, "store/data");
  return readdirSync(data, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/[0-9a-f]{64}$/.test(name))
    .map((name) => join(data, name));
}

test("a save succeeds if another process prevents the removal of lost blobs from the index", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  await client.save();
  const [pack] = packsOf(client);
  rmSync(pack!);
  const store = await EmbeddedStore.open(client.controlDirectory);
  const reader = await acquireLock(store.repository, { exclusive: false });
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  write("b", "two");
  try {
    const beside = await client.save({ onWarning });
    const { problems } = await client.verify(beside.save_point_id);
    // The missing pack is still named.
    assert.deepEqual(
      problems.filter(({ point }) => point !== null),
      [],
    );
  } finally {
    await reader.release();
    store.close();
  }
  assert.match(warnings.join(), /cannot be taken out of its index now; this save stores their content again: pid/);
  const saved = await client.save({ onWarning });
  assert.match(warnings.at(-1)!, /1 of the packs/);
  assert.deepEqual((await client.verify(saved.save_point_id)).problems, []);
});

test("a save succeeds although head is unreadable and the cache is missing", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  await client.save();
  packsOf(client).forEach((file) => rmSync(file));
  rmSync(join(client.controlDirectory, "cache"), { recursive: true });
  write("b", "two");
  const saved = await client.save();
  assert.equal(saved.changes, null);
  assert.deepEqual((await client.verify(saved.save_point_id)).problems, []);
});

for (const [how, lose] of [
  ["missing", rmSync],
  ["cut", (file: string) => truncateSync(file, 60)],
  ["empty", (file: string) => truncateSync(file, 0)],
] as const)
  test(`a save stores content again if its packs are ${how}`, async (t) => {
    const { client, folder, write } = await testFolder(t, { a: "one", "deep/b": "two", "deep/c": "three" });
    // Within a tick of the kernel's clock they would be read again for being young.
    await sleep(60);
    await client.save();
    packsOf(client).forEach((file) => lose(file));
    write("d", "four");
    const warnings: string[] = [];
    const saved = await client.save({ onWarning: (message) => warnings.push(message) });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] ?? "", /2 of the packs .* are missing or cut/);
    assert.deepEqual((await client.verify(saved.save_point_id)).problems, []);
    rmSync(join(folder, "deep"), { recursive: true });
    await client.restore({ target: saved.save_point_id });
    assert.equal(readFileSync(join(folder, "deep/c"), "utf8"), "three");
    await client.save({ onWarning: (message) => warnings.push(message) });
    assert.equal(warnings.length, 1);
  });

test("a restore stores the present files again before it replaces them, if their packs are missing", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one", b: "other" });
  const read = (): string => readFileSync(join(folder, "a"), "utf8");
  const first = await client.save();
  const before = new Set(packsOf(client));
  write("a", "two");
  await client.save();
  packsOf(client)
    .filter((pack) => !before.has(pack))
    .forEach((pack) => rmSync(pack));
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const { undo_id: undoId } = await client.restore({ target: first.save_point_id, onWarning });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0] ?? "", /2 of the packs .* are missing or cut/);
  assert.equal(read(), "one");
  assert.deepEqual((await client.verify(undoId!)).problems, []);
  await client.undo();
  assert.equal(read(), "two");
});

test("a restore, undo or restoreLatest that changes nothing makes no undo point", async (t) => {
  const { client, write, folder } = await testFolder(t, { a: "none", b: "same" });
  const older = await client.save();
  write("a", "one");
  const first = await client.save();
  write("a", "an afternoon's work");
  const real = await client.restore({ target: "head" });
  assert.notEqual(real.undo_id, null);
  const points = async (): Promise<number> => (await client.history(undefined, 0, { all: true })).save_points.length;
  const before = await points();
  for (const call of [
    async () => client.restore({ target: "head" }),
    async () => client.restoreLatest(),
    async () => client.restore({ target: first.save_point_id }),
    // The folder is not as that point has it, and what is asked for is.
    async () => client.restore({ target: older.save_point_id, paths: ["b"] }),
  ]) {
    const { undo_id: undoId, changes } = await call();
    assert.deepEqual([undoId, changes], [null, { created: 0, updated: 0, deleted: 0, metadata: 0 }]);
  }
  assert.equal(await points(), before);
  // A restore that changed nothing is no operation.
  await client.undo();
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "an afternoon's work");
  await client.redo();
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "one");
  await client.restore({ target: real.undo_id! });
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "an afternoon's work");
  // A start that restores nothing is no reason to forget what was restored before.
  await client.save();
  await client.restoreLatest();
  await client.undo();
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "one");
});

test("a restore to a point that the folder already equals moves head and makes no undo point", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const first = await client.save();
  write("a", "two");
  await client.save();
  await client.restore({ target: first.save_point_id });
  const again = await client.save();
  const { undo_id: undoId } = await client.restore({ target: first.save_point_id });
  assert.equal(undoId, null);
  assert.deepEqual([(await client.status()).head, again.parent_id], [first.save_point_id, first.save_point_id]);
});

test("the first save into a file system in memory warns that a reboot deletes the points", async (t) => {
  if (mountOf("/dev/shm")?.type !== "tmpfs") return t.skip("/dev/shm is not in memory");
  const root = mkdtempSync("/dev/shm/cairn-save-");
  t.after(() => rmSync(root, { recursive: true, force: true }));
  const { folder, library, client } = await testFolder(t, { a: "one" });
  await client.release();
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const controlDirectory = join(root, "control");
  const other = await library.init(folder, { controlDirectory });
  for (let i = 0; i < 2; i++) await other.save({ onWarning });
  const said = `the save points lie in ${controlDirectory}, in memory (tmpfs): a reboot deletes them`;
  assert.deepEqual(warnings, [said]);
});

test("status, diff and save list entries that a new ignore rule leaves out as not kept, not as removed", async (t) => {
  const { folder, client } = await testFolder(t);
  mkdirSync(join(folder, "modules/deep"), { recursive: true });
  for (const name of ["modules/deep/one", "modules/two", "gone", "kept"]) writeFileSync(join(folder, name), name);
  await client.save();
  writeFileSync(join(folder, ".cairnignore"), "modules/\n");
  rmSync(join(folder, "gone"));
  const hidden = { count: 4, paths: [{ path: "modules" }] };
  const status = await client.status();
  assert.deepEqual([status.changes, status.not_kept], [{ added: 1, modified: 0, removed: 1 }, hidden]);
  const differing = (await client.diff("head")).entries.map(({ change, path }) => `${change} ${path}`);
  const below = ["", "/deep", "/deep/one", "/two"].map((each) => `not_kept modules${each}`);
  assert.deepEqual(differing, ["added .cairnignore", "removed gone", ...below]);
  const warnings: string[] = [];
  const saved = await client.save({ onWarning: (each) => void warnings.push(each) });
  assert.deepEqual(saved.changes, { added: 1, modified: 0, removed: 1 });
  assert.deepEqual(saved.not_kept, hidden);
  assert.match(warnings.join(), /^4 entries no longer saved, because a rule leaves them out: "modules"; /);
  writeFileSync(join(folder, "kept"), "other");
  assert.deepEqual((await client.save()).not_kept, { count: 0, paths: [] });
});
