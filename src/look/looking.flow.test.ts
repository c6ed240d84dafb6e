import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  closeSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
  readlinkSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { DiffEntry } from "../contract/index.ts";
import { multiplyPoints } from "../../test/fixtures/many-points.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

async function text(pieces: AsyncIterable<Uint8Array>): Promise<string> {
  const all: Uint8Array[] = [];
  for await (const piece of pieces) all.push(piece);
  return Buffer.concat(all).toString("utf8");
}

test("diff lists each changed entry with the changed aspects, and a rename as one entry", async (t) => {
  const { client, folder, write } = await testFolder(t, {
    a: "one",
    "b/c": "two",
    gone: "three",
    moved: "four",
    retyped: "x",
  });
  const first = await client.save();
  write("a", "one and more");
  chmodSync(join(folder, "b/c"), 0o600);
  rmSync(join(folder, "gone"));
  renameSync(join(folder, "moved"), join(folder, "b/there"));
  rmSync(join(folder, "retyped"));
  mkdirSync(join(folder, "retyped"));
  symlinkSync("a", join(folder, "link"));
  linkSync(join(folder, "a"), join(folder, "a2"));
  const told = ({ path, change, aspects, from_path: from }: DiffEntry): unknown[] => [
    path,
    change,
    aspects.filter((aspect) => aspect !== "times" && aspect !== "links").join(),
    from ?? "",
  ];
  const expected = [
    ["a", "modified", "content", ""],
    ["a2", "added", "", ""],
    ["b/c", "modified", "mode", ""],
    ["b/there", "renamed", "", "moved"],
    ["gone", "removed", "", ""],
    ["link", "added", "", ""],
    ["retyped", "modified", "type,mode", ""],
  ];
  const present = await client.diff("head");
  assert.deepEqual(present.entries.map(told), expected);
  assert.equal(present.to, null);
  const second = await client.save();
  const saved = await client.diff(first.save_point_id, second.save_point_id);
  assert.deepEqual([saved.entries.map(told), saved.to], [expected, second.save_point_id]);
  const part = await client.diff("head~1", "head", { paths: ["b"] });
  assert.deepEqual(
    part.entries.map(({ path }) => path).filter((path) => path !== "b"),
    ["b/c", "b/there"],
  );
  await assert.rejects(client.diff("head~1", "head", { paths: ["nowhere"] }), hasCode("not_found"));
});

test("status and diff report an entry of which only the times changed", async (t) => {
  const { client, folder } = await testFolder(t, { a: "one" });
  await client.save();
  assert.equal((await client.status()).clean, true);
  utimesSync(join(folder, "a"), 7, 7);
  const status = await client.status();
  assert.deepEqual([status.clean, status.changes], [false, { added: 0, modified: 1, removed: 0 }]);
  assert.deepEqual(
    (await client.diff("head")).entries.map(({ path, aspects }) => [path, aspects]),
    [["a", ["times"]]],
  );
});

test("status, save and diff count the same changes if a directory becomes a file", async (t) => {
  const files = { "d/1": "1", "d/2": "2", "d/deep/3": "3", "in/e/4": "4", "in/f": "f" };
  const { client, folder, write } = await testFolder(t, files);
  await client.save();
  for (const name of ["d", "in/e", "in/f"]) rmSync(join(folder, name), { recursive: true });
  write("d", "a file");
  symlinkSync("../d", join(folder, "in/e"));
  write("in/f/5", "5");
  const counted = { added: 1, modified: 4, removed: 5 };
  const { entries } = await client.diff("head");
  const listed = (wanted: DiffEntry["change"]): number => entries.filter(({ change }) => change === wanted).length;
  assert.deepEqual({ added: listed("added"), modified: listed("modified"), removed: listed("removed") }, counted);
  assert.deepEqual((await client.status()).changes, counted);
  assert.deepEqual((await client.save()).changes, counted);
});

test("history filters points by words, tags and paths, and stops at a limit", async (t) => {
  const { client, write } = await testFolder(t, { a: "one", b: "one" });
  const first = await client.save({ message: "The Beginning", tags: ["start"] });
  write("a", "two");
  const second = await client.save({ cause: { kind: "tool_call", tool: "bash" } });
  write("b", "two");
  const third = await client.save();
  const ids = async (options: object, limit = 0): Promise<string[]> =>
    (await client.history(undefined, limit, options)).save_points.map((point) => point.save_point_id);
  assert.deepEqual(await ids({}), [third.save_point_id, second.save_point_id, first.save_point_id]);
  assert.deepEqual(await ids({ grep: "beginning" }), [first.save_point_id]);
  assert.deepEqual(await ids({ grep: "BASH" }), [second.save_point_id]);
  assert.deepEqual(await ids({ tag: "start" }), [first.save_point_id]);
  assert.deepEqual(await ids({ path: "a" }), [second.save_point_id, first.save_point_id]);
  assert.deepEqual(await ids({ path: "b" }, 1), [third.save_point_id]);
  assert.deepEqual(
    [(await client.history(undefined, 2)).truncated, (await client.history(undefined, 3)).truncated],
    [true, false],
  );
  await assert.rejects(client.history(undefined, -1), hasCode("usage"));
  await assert.rejects(client.history("other"), hasCode("not_found"));
});

test("history says that the folder is in part like another point, until an undo or the next save", async (t) => {
  const { client, write } = await testFolder(t, { a: "one", b: "one" });
  const first = await client.save();
  write("a", "two");
  write("b", "two");
  await client.save();
  const inPart = async (): Promise<boolean> => (await client.history(undefined, 1)).head_in_part === true;
  const seen = [await inPart()];
  for (const step of [
    async () => client.restore({ target: first.save_point_id, paths: ["a"] }),
    async () => client.undo(),
    async () => client.redo(),
    async () => client.save(),
    async () => client.restore({ target: first.save_point_id }),
    async () => client.restore({ target: "latest", paths: ["b"] }),
    async () => client.restore({ target: "latest" }),
  ]) {
    await step();
    seen.push(await inPart());
  }
  assert.deepEqual(seen, [false, true, false, true, false, false, true, false]);
});

test("history in pages lists each point once, with or without a filter", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const first = await client.save({ message: "0" });
  for (let i = 1; i < 5; i++) {
    write("a", `turn ${i}`);
    await client.save({ message: String(i) });
  }
  await client.restore({ target: first.save_point_id });
  const pageOf = async (skip: number, options: object = {}): Promise<string> =>
    (await client.history(undefined, 2, { skip, ...options })).save_points.map(({ message }) => message).join();
  assert.deepEqual([await pageOf(0), await pageOf(2), await pageOf(4), await pageOf(9)], ["4,3", "2,1", "0", ""]);
  assert.deepEqual([await pageOf(1, { path: "a" }), await pageOf(4, { grep: "person" })], ["3,2", "0"]);
  assert.match(await pageOf(0, { all: true }), /^before restore of [0-9a-f]{8},4$/);
  const total = async (options: object): Promise<number | undefined> =>
    (await client.history(undefined, 1, options)).total;
  assert.deepEqual([await total({}), await total({ all: true }), await total({ tag: "x" })], [5, 6, undefined]);
  assert.deepEqual((await client.history(undefined, 0, { skip: 3 })).truncated, false);
  await assert.rejects(client.history(undefined, 0, { skip: -1 }), hasCode("usage"));
});

test("history in pages continues at the same point after a cleanup, also without the catalog", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  for (let i = 0; i < 6; i++) {
    write("a", `turn ${i}`);
    await client.save({ message: String(i) });
  }
  const { save_points: points } = await client.history();
  await client.runCleanup({ only: [points[1]!.save_point_id] });
  const page = async (): Promise<string> =>
    (await client.history(undefined, 2, { skip: 1 })).save_points.map(({ message }) => message).join();
  const before = await page();
  const cache = join(client.controlDirectory, "cache");
  for (const name of readdirSync(cache)) if (name.startsWith("points-")) rmSync(join(cache, name));
  assert.equal(await page(), before);
});

test("history counts the changes of each point, also if the point before it was removed", async (t) => {
  const { client, write, folder } = await testFolder(t, { a: "one", "d/b": "one" });
  await client.save();
  write("a", "two");
  write("d/c", "new");
  const removed = await client.save();
  rmSync(join(folder, "d/b"));
  await client.save();
  const counted = async (): Promise<unknown> => (await client.history(undefined, 0, { changes: true })).changes;
  const first = { added: 3, modified: 0, removed: 0 };
  const [one, two] = [
    { added: 1, modified: 1, removed: 0 },
    { added: 0, modified: 0, removed: 1 },
  ];
  assert.deepEqual(await counted(), [two, one, first]);
  await client.runCleanup({ only: [removed.save_point_id] });
  assert.deepEqual(await counted(), [{ added: 1, modified: 1, removed: 1 }, first]);
  assert.equal((await client.history()).changes, undefined);
});

test("historyDays counts points by days of the local time zone", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  for (let i = 0; i < 3; i++) {
    write("a", `turn ${i}`);
    await client.save();
  }
  const until = new Date(2026, 2, 3, 0, 30).getTime();
  multiplyPoints(client, { count: 53, stepMs: 3_600_000, until });
  const { days, total } = await client.historyDays();
  const newest = (await client.history(undefined, 1)).save_points[0]!;
  assert.deepEqual(
    days.slice(1).map(({ day, points }) => `${day} ${points}`),
    ["2026-03-03 1", "2026-03-02 24", "2026-03-01 24", "2026-02-28 1"],
  );
  assert.deepEqual([days[0]?.points, days[1]?.newest], [3, newest.save_point_id]);
  assert.equal(total, 53);
});

test("historyDays tells the size of each day's newest point, and of all points as copies", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  await client.save();
  write("a", "a longer text");
  await client.save();
  const { days, copies_bytes: copies } = await client.historyDays();
  assert.deepEqual(
    days.map(({ points, bytes }) => [points, bytes]),
    [[2, 13]],
  );
  assert.equal(copies, 26);
});

test("history lists undo points with all, and an undo point that is head also without all", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  const first = await client.save();
  assert.equal((await client.history()).undo, null);
  write("a", "two");
  const second = await client.save();
  write("a", "not saved");
  const restored = await client.restore({ target: first.save_point_id });
  const ids = async (limit = 0, options = {}): Promise<string[]> =>
    (await client.history(undefined, limit, options)).save_points.map((point) => point.save_point_id);
  const saved = [second.save_point_id, first.save_point_id];
  assert.deepEqual(await ids(), saved);
  const whole = await client.history(undefined, 2);
  assert.deepEqual([whole.undo?.save_point_id, whole.truncated], [restored.undo_id, false]);
  assert.deepEqual(await ids(0, { all: true }), [restored.undo_id, ...saved]);
  assert.deepEqual(await ids(1), [second.save_point_id]);
  const undone = await client.undo();
  assert.deepEqual(await ids(), [restored.undo_id, ...saved]);
  assert.equal((await client.history()).undo?.save_point_id, undone.undo_id);
});

test("history lists the points between since and until, both days included", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  await client.save();
  write("a", "two");
  await client.save();
  const count = async (options: object): Promise<number> =>
    (await client.history(undefined, 0, options)).save_points.length;
  assert.equal(await count({ since: "yesterday", until: "today" }), 2);
  assert.deepEqual([await count({ until: "yesterday" }), await count({ since: "1 minute ago" })], [0, 2]);
  assert.equal(await count({ since: new Date(Date.now() + 60_000).toISOString() }), 0);
  await assert.rejects(client.history(undefined, 0, { since: "some day" }), hasCode("usage"));
});

test("why lists each point's change of a path, also unsaved changes that only an undo point has", async (t) => {
  const { client, folder, write } = await testFolder(t, { other: "x" });
  await client.save({ message: "without" });
  write("d/deep/a", "one");
  await client.save({ message: "created" });
  write("other", "y");
  await client.save({ message: "elsewhere" });
  write("d/deep/a", "one and more");
  await client.save({ cause: { kind: "tool_call", tool: "bash" } });
  chmodSync(join(folder, "d/deep/a"), 0o600);
  await client.save({ message: "mode" });
  rmSync(join(folder, "d/deep/a"));
  const gone = await client.save({ message: "gone" });
  const told = async (path: string, options = {}): Promise<unknown[]> =>
    (await client.why(path, options)).changes.map(({ save_point: point, ...change }) => [
      point.message === "" ? point.cause.kind : point.message,
      change.change,
      change.aspects.filter((aspect) => aspect !== "times").join(),
      change.size_before ?? null,
      change.size_after ?? null,
    ]);
  const expected = [
    ["gone", "removed", "", 12, null],
    ["mode", "modified", "mode", 12, 12],
    ["tool_call", "modified", "content", 3, 12],
    ["created", "added", "", null, 3],
  ];
  assert.deepEqual(await told("d/deep/a"), expected);
  assert.deepEqual(await told("d/deep/a", { limit: 1 }), expected.slice(0, 1));
  assert.deepEqual(
    (await told("d")).map((each) => (each as string[]).slice(0, 3)),
    [
      ["gone", "modified", "content"],
      ["mode", "modified", "content"],
      ["tool_call", "modified", "content"],
      ["created", "added", ""],
    ],
  );
  assert.deepEqual(await told("nowhere/a"), []);
  await assert.rejects(client.why(""), hasCode("usage"));
  // What was never saved is in the undo point alone.
  write("d/deep/a", "not saved");
  await client.restore({ target: "head" });
  assert.deepEqual((await told("d/deep/a"))[0], [
    `before restore of ${gone.save_point_id.slice(0, 8)}`,
    "added",
    "",
    null,
    9,
  ]);
  // Saves alone: an undo point is passed over, and so is a parent that is gone.
  await client.undo();
  await client.save({ message: "back" });
  const changed = async (): Promise<string[]> =>
    (await client.history(undefined, 0, { path: "d/deep/a" })).save_points.map(({ message }) => message);
  assert.deepEqual(await changed(), ["back", "gone", "mode", "", "created"]);
  await client.runCleanup({ only: [gone.save_point_id] });
  assert.deepEqual(await changed(), ["back", "mode", "", "created"]);
});

test("why names the earlier point whose content a restore or undo brought back", async (t) => {
  const { client, write } = await testFolder(t, { f: "one" });
  const ids: string[] = [];
  const save = async (): Promise<void> => void ids.push((await client.save()).save_point_id);
  await save();
  write("f", "two");
  await save();
  await client.restore({ target: ids[0]!, paths: ["f"] });
  await save();
  await client.undo();
  await save();
  // The same content, written anew.
  write("f", "one");
  await save();
  const back = (await client.why("f")).changes.map(({ save_point: point, change, back_to: to }) => [
    ids.indexOf(point.save_point_id),
    change,
    to === undefined ? null : ids.indexOf(to),
  ]);
  assert.deepEqual(back, [
    [4, "modified", null],
    [3, "modified", 1],
    [2, "modified", 0],
    [1, "modified", null],
    [0, "added", null],
  ]);
});

test("show lists a point's folders and read returns its files as they were saved", async (t) => {
  const { client, write } = await testFolder(t, { "src/a": "one", "src/deep/b": "two" });
  await client.save();
  write("src/a", "changed");
  const shown = await client.show("head", "src");
  assert.deepEqual(
    shown.entries.map(({ path, kind, size }) => [path, kind, size ?? null]),
    [
      ["src/a", "file", 3],
      ["src/deep", "directory", shown.entries[1]?.size ?? null],
    ],
  );
  assert.equal(await text(client.read("head", "src/a")), "one");
  await assert.rejects(client.show("head", "src/nothing"), hasCode("not_found"));
});

test("show lists a folder in pages, sorted by name, size, time or kind", async (t) => {
  const { client, folder, write } = await testFolder(t, { "d/b": "22", "d/a": "4444", "d/c": "1", "d/sub/x": "" });
  for (const [at, name] of ["c", "sub", "a", "b"].entries()) utimesSync(join(folder, "d", name), 1000 + at, 1000 + at);
  write("e", "");
  await client.save();
  const names = async (options: object): Promise<string> => {
    const { entries, total } = await client.show("head", "d", options);
    return `${entries.map(({ path }) => path.slice(2)).join()} of ${total}`;
  };
  assert.equal(await names({}), "a,b,c,sub of 4");
  assert.equal(await names({ limit: 2, skip: 1 }), "b,c of 4");
  assert.equal(await names({ limit: 2, skip: 1, reverse: true }), "c,b of 4");
  assert.equal(await names({ sort: "size" }), "sub,c,b,a of 4");
  assert.equal(await names({ sort: "size", reverse: true, limit: 1 }), "a of 4");
  assert.equal(await names({ sort: "time", limit: 3 }), "c,sub,a of 4");
  assert.equal(await names({ sort: "kind", skip: 0, limit: 2 }), "sub,a of 4");
  assert.equal(await names({ skip: 9 }), " of 4");
  assert.equal((await client.show("head", "d/a", { limit: 1 })).total, 1);
  await assert.rejects(client.show("head", "d", { limit: 1.5 }), hasCode("usage"));
});

test("a restore does not touch entries that already match, and keeps the root's inode", async (t) => {
  const { client, folder, write } = await testFolder(t, { same: "same", other: "one", "deep/same": "same" });
  const first = await client.save();
  write("other", "two");
  const facts = (): unknown[] =>
    ["same", "deep", "deep/same"].map((name) => {
      const { ino, ctimeNs, mtimeNs } = statSync(join(folder, name), { bigint: true });
      return [ino, ctimeNs, mtimeNs];
    });
  const root = statSync(folder).ino;
  const before = facts();
  const restored = await client.restore({ target: first.save_point_id });
  assert.deepEqual(
    [restored.changes!.updated, restored.changes!.created, restored.changes!.deleted, restored.method],
    [1, 0, 0, "entries"],
  );
  assert.deepEqual([facts(), statSync(folder).ino], [before, root]);
});

test("restore and planRestore count directories whose mode or time changes, but not those with changed entries", async (t) => {
  const files = { "empty/f": "one", "moded/f": "one", "timed/f": "one", "moved/goes": "one", same: "one" };
  const { client, folder, write } = await testFolder(t, files);
  rmSync(join(folder, "empty/f"));
  const { save_point_id: target } = await client.save();
  chmodSync(join(folder, "empty"), 0o700);
  chmodSync(join(folder, "moded"), 0o711);
  utimesSync(join(folder, "timed"), 7, 7);
  rmSync(join(folder, "moved/goes"));
  write("moved/new", "two");
  const { entries } = await client.planRestore({ target });
  assert.deepEqual(
    entries.map(({ action, path }) => `${action} ${path}`),
    ["metadata empty", "metadata moded", "create moved/goes", "delete moved/new", "metadata timed"],
  );
  const { changes } = await client.restore({ target });
  assert.deepEqual(changes, { created: 1, updated: 0, deleted: 1, metadata: 3 });
  assert.equal(statSync(join(folder, "moded")).mode & 0o777, 0o755);
});

test("undo of a partial restore keeps files that were edited since, unless over is set", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one", b: "one" });
  const first = await client.save();
  write("a", "two");
  write("b", "two");
  const read = async (): Promise<string[]> =>
    Promise.all(["a", "b"].map(async (name) => text(client.read(null, name))));
  await client.restore({ target: first.save_point_id, paths: ["a"] });
  assert.deepEqual(await read(), ["one", "two"]);
  write("b", "three");
  writeFileSync(join(folder, "a"), "edited since");
  const kept = await client.undo();
  assert.deepEqual(await read(), ["edited since", "three"]);
  assert.deepEqual(
    [kept.undo_id, kept.left_out.map(({ path, reason }) => [path, reason])],
    [null, [["a", "changed_since"]]],
  );
  const undone = await client.undo({ over: true });
  assert.deepEqual(await read(), ["two", "three"]);
  assert.ok(undone.undo_id !== null);
  await client.redo();
  assert.deepEqual(await read(), ["edited since", "three"]);
});

test("undo makes no directory for a path that the undo point lacks", async (t) => {
  const { client, folder } = await testFolder(t, { "inside/file": "one", "gone/file": "one" });
  const first = await client.save();
  for (const name of ["inside", "gone"]) rmSync(join(folder, name, "file"));
  await client.restore({ target: first.save_point_id, paths: ["inside/file", "gone/file"] });
  for (const name of ["inside", "gone"]) rmSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, "inside"), "a file by now");
  await client.undo();
  assert.deepEqual(readdirSync(folder), ["inside"]);
  assert.equal(readFileSync(join(folder, "inside"), "utf8"), "a file by now");
});

test("undo removes directories that a restore made above the chosen paths, unless they have other entries now", async (t) => {
  const { client, folder } = await testFolder(t, {
    "d/e/f": "one",
    "new/file": "one",
    "busy/f": "one",
    "empty/f": "one",
    "l/f": "one",
  });
  const first = await client.save();
  for (const name of ["d", "new", "busy", "empty", "l"]) rmSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, "d"), "precious");
  symlinkSync("nowhere", join(folder, "l"));
  const paths = ["d/e/f", "new/file", "busy/f", "empty/f", "l/f"];
  await client.restore({ target: first.save_point_id, paths });
  assert.equal(readFileSync(join(folder, "d/e/f"), "utf8"), "one");
  writeFileSync(join(folder, "busy/mine"), "newer");
  mkdirSync(join(folder, "empty/mine"));
  const planned = (await client.planUndo()).entries.map(({ path }) => path);
  assert.deepEqual(planned, ["busy/f", "d", "d/e", "d/e/f", "empty/f", "l", "l/f", "new", "new/file"]);
  await client.undo();
  assert.deepEqual(readdirSync(folder), ["busy", "d", "empty", "l"]);
  assert.equal(readFileSync(join(folder, "d"), "utf8"), "precious");
  assert.equal(readlinkSync(join(folder, "l")), "nowhere");
  assert.deepEqual(readdirSync(join(folder, "busy")), ["mine"]);
  await client.redo();
  const names = ["busy", "busy/f", "busy/mine", "d", "d/e", "d/e/f", "empty", "empty/f", "empty/mine"];
  names.push("l", "l/f", "new", "new/file");
  assert.deepEqual(readdirSync(folder, { recursive: true }).toSorted(), names);
});

test("status reports no change of a restored large file, and a save stores a large file that status has read", async (t) => {
  const { client, folder, write } = await testFolder(t, { small: "one" });
  const large = (seed: number): string =>
    Array.from({ length: 150_000 }, (_, i) => ((i * 7919 + seed) % 99_991).toString(36)).join(" ");
  write("large", large(1));
  await client.save();
  rmSync(join(folder, "large"));
  await client.restore({ target: "head" });
  assert.equal((await client.status()).clean, true);
  write("new", large(2));
  assert.deepEqual((await client.status()).changes, { added: 1, modified: 0, removed: 0 });
  await client.save();
  assert.deepEqual((await client.verify("head")).problems, []);
  assert.equal(await text(client.read("head", "new")), large(2));
});

test("a folder is clean after a restore that gave a large file another size", async (t) => {
  const { client, write } = await testFolder(t);
  write("large", "x".repeat(700_000));
  const { save_point_id: target } = await client.save();
  write("large", "small\n");
  await client.save();
  await client.restore({ target });
  assert.deepEqual((await client.planRestore({ target })).entries, []);
  assert.deepEqual([(await client.status()).clean, (await client.diff("head")).entries], [true, []]);
  write("large", "y".repeat(800_000));
  assert.equal((await client.status()).clean, false);
});

test("diff, planRestore and restore notice changed hard links of pipes", async (t) => {
  const { client, folder } = await testFolder(t);
  const pipes = ["p", "q"].map((name) => join(folder, name));
  const make = (): void => void execFileSync("mkfifo", [pipes[0]!]);
  const setTimes = (): void => pipes.forEach((pipe) => utimesSync(pipe, 1000, 1000));
  make();
  linkSync(pipes[0]!, pipes[1]!);
  setTimes();
  const { save_point_id: linked } = await client.save();
  rmSync(pipes[0]!);
  make();
  setTimes();
  const { save_point_id: apart } = await client.save();
  const changes = (entries: DiffEntry[]): string[] => entries.map(({ path, aspects }) => `${path} ${aspects.join()}`);
  assert.deepEqual(changes((await client.diff(linked, apart)).entries), ["p links", "q links"]);
  const planned = (await client.planRestore({ target: linked })).entries.map(({ path }) => path);
  assert.deepEqual(planned, ["p", "q"]);
  assert.equal((await client.restore({ target: linked })).changes!.updated, planned.length);
  assert.equal(statSync(pipes[0]!).ino, statSync(pipes[1]!).ino);
});

test("status and diff notice a large file that was changed in place with its size and time kept", async (t) => {
  const { client, folder, write } = await testFolder(t);
  const large = join(folder, "large");
  const keepTime = (): void => utimesSync(large, 1_600_000_000, 1_600_000_000);
  write("large", "x".repeat(700_000));
  keepTime();
  await client.save();
  const file = openSync(large, "r+");
  writeSync(file, "changed");
  closeSync(file);
  keepTime();
  assert.deepEqual((await client.status()).changes, { added: 0, modified: 1, removed: 0 });
  const [entry] = (await client.diff("head")).entries;
  assert.deepEqual([entry?.path, entry?.aspects.includes("content")], ["large", true]);
});

test("status gives the time of the newest save point's last verification, if any", async (t) => {
  const { client, write } = await testFolder(t, { a: "one" });
  await client.save();
  assert.equal((await client.status()).last_proof_at, null);
  const before = new Date().toISOString();
  await client.verify("latest");
  const { last_proof_at: at } = await client.status();
  assert.ok(at !== null && at >= before, String(at));
  write("a", "two");
  await client.save();
  assert.equal((await client.status()).last_proof_at, null);
});
