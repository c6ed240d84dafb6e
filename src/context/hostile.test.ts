import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { Bundle } from "../bundle/bundle.ts";
import { listOf } from "../bundle/testing-bundle.ts";
import type { CairnError } from "../errors.ts";
import { checkConsistency, reindex } from "./consistency.ts";
import { exportBundle } from "./export-bundle.ts";
import { addFiles, readFiles, removeFiles } from "./files.ts";
import { find } from "./search.ts";
import { workOf } from "../formats/records/unfinished.ts";
import { Unfinished } from "../fs/unfinished.ts";
import { ContextStore } from "./store.ts";
import { assertRefused, backupParts, importFile, restoreFile, Scratch } from "./testing-store.ts";

/** Bundles that are made to harm, and stores in which something lies that none makes. */

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

async function refused(file: string, details: Record<string, unknown>, parent = "viking://resources"): Promise<void> {
  await using store = await scratch.store();
  await assertRefused(store, () => importFile(store, file, { parent }), { code: "damaged", details });
}

test("import refuses a manifest that is too large for the zip's members", async () => {
  const file = await scratch.bundle(
    {},
    ({ manifest }) => void (manifest["x"] = Array.from({ length: 3 << 20 }, () => 0)),
  );
  await refused(file, { field: "manifest" });
});

test("import refuses two records of one level of an entry", async () => {
  const record = (id: number, level: number): object => ({ record_id: `r${id}`, path: "a.md", kind: "file", level });
  await refused(await scratch.bundle({ records: Array.from({ length: 7 }, (_, i) => record(i, 2)) }), {
    field: "index.records.count",
  });
  await refused(await scratch.bundle({ records: [record(1, 2), record(2, 2)] }), { index: 1 });
});

test("import refuses a path with 300 names", async () => {
  const deep = Array.from({ length: 300 }, () => "d").join("/");
  await refused(await scratch.bundle({ content: { [deep]: "x" } }), { path: `docs/files/${deep}` });
});

test("import refuses an entry whose directory is not listed, and names that are equal in layout A", async () => {
  await refused(await scratch.bundle({ content: { "d/x": "x" } }), { path: "d/x" });
  await refused(await scratch.bundle({ layout: "A", content: { ".d": "x", "_._d": null, "_._d/x": "x" } }), {
    unexpected_files: [".d/x"],
  });
});

test("import refuses a scope or a user id that contradicts the bundle's URI", async () => {
  await refused(await scratch.bundle({ scope: "user" }), { field: "root.scope" });
  const foreign = await scratch.bundle(
    { uri: "viking://user/alice/memories" },
    ({ manifest }) => void ((manifest["root"] as { user_id?: string }).user_id = "bob"),
  );
  await refused(foreign, { field: "root.user_id" }, "viking://user/alice");
  const entry = await scratch.bundle(
    {},
    ({ manifest }) => void ((manifest["entries"] as { user_id?: string }[])[1]!.user_id = "alice"),
  );
  await refused(entry, { field: "entries[1].user_id" });
});

test("import refuses a directory with the name of an abstract file", async () => {
  await refused(await scratch.bundle({ content: { ".abstract.md": null } }), { path: ".abstract.md" });
});

test("convert refuses a manifest that is nested 400 levels deep", async () => {
  let nested: unknown = 1;
  for (let i = 0; i < 400; i++) nested = [nested];
  const file = await scratch.bundle({}, ({ manifest }) => void (manifest["x"] = nested));
  await using bundle = await Bundle.open(file);
  const { convertBundle } = await import("../bundle/convert.ts");
  await assert.rejects(convertBundle(bundle, { to: scratch.place(), layout: "B" }), { code: "damaged" });
});

/** A zip with one byte of the first local header of a file set. */
async function withLocal(change: (head: Buffer, at: number) => void): Promise<string> {
  const file = await scratch.bundle({});
  const bytes = fs.readFileSync(file);
  const at = bytes.indexOf("docs/files/a.md") - 30;
  change(bytes, at);
  fs.writeFileSync(file, bytes);
  return file;
}

test("import refuses a member whose local header differs from the central directory", async () => {
  const cases: ((bytes: Buffer, at: number) => void)[] = [
    (bytes, at) => void bytes.writeUInt16LE(bytes.readUInt16LE(at + 6) | 1, at + 6),
    (bytes, at) => void bytes.writeUInt16LE(8 - bytes.readUInt16LE(at + 8), at + 8),
    (bytes, at) => void bytes.writeUInt32LE((bytes.readUInt32LE(at + 14) ^ 1) >>> 0, at + 14),
    (bytes, at) => void bytes.writeUInt32LE(0xffff_ffff, at + 18),
    (bytes, at) => void bytes.writeUInt32LE(bytes.readUInt32LE(at + 22) + 1, at + 22),
    (bytes, at) => void bytes.write("b", at + 30 + 11),
  ];
  for (const change of cases) await refused(await withLocal(change), { path: "docs/files/a.md" });
});

const embedding = { provider: "cairn", model: "all-minilm-l6-v2-static", input: "text", dimensions: 256 };
const recordWith = (dimensions: number): object => ({
  record_id: "r1",
  path: "a.md",
  kind: "file",
  level: 2,
  vector: { dense: { offset: 0, dimensions } },
});

test("search works after an import of vectors with a wrong length, NaN or only zeros", async () => {
  await using store = await scratch.store();
  const short = await scratch.bundle({ records: [recordWith(3)], vectors: [[1, 0, 0]], embedding });
  assert.equal((await importFile(store, short, { parent: "viking://resources/a" })).vectors, "model");
  for (const [name, value] of [
    ["nan", Number.NaN],
    ["zero", 0],
  ] as const) {
    const vector = Array.from({ length: 256 }, () => value);
    const file = await scratch.bundle({ records: [recordWith(256)], vectors: [vector], embedding });
    assert.equal((await importFile(store, file, { parent: `viking://resources/${name}` })).vectors, "bundle");
  }
  await store.fill();
  const hits = await find(store, "alpha", { mode: "semantic" });
  assert.equal(hits.length, 3);
  assert.ok(hits.every(({ score }) => Number.isFinite(score)));
});

test("a directory's long text that only a record has is exported unchanged", async () => {
  await using store = await scratch.store();
  const text = "long text ".repeat(300_000);
  const records = [{ record_id: "r1", path: "", kind: "directory", level: 0, text, scalars: { abstract: "short" } }];
  await importFile(store, await scratch.bundle({ records }), { parent: "viking://resources" });
  await store.fill();
  reindex(store, "", { all: true });
  await store.fill();
  const to = scratch.place("again.ovpack");
  await exportBundle(store, { uri: "viking://resources/docs", to });
  await using bundle = await Bundle.open(to);
  const [first] = await listOf(bundle.records());
  assert.deepEqual([first!.text, first!.scalars?.["abstract"]], [text, "short"]);
  assert.equal(checkConsistency(store, "").ok, true);
});

test("an imported abstract of a file stays until the file changes", async () => {
  await using store = await scratch.store();
  const records = [{ record_id: "r1", path: "a.md", kind: "file", level: 2, scalars: { abstract: "told" } }];
  await importFile(store, await scratch.bundle({ records }), { parent: "viking://resources" });
  await store.fill();
  const abstract = (): string => [...store.index.rows("")][0]!.abstract;
  const file = path.join(store.folder, "resources/docs/a.md");
  fs.utimesSync(file, 1, 1);
  reindex(store, "", { all: true });
  await store.fill();
  assert.equal(abstract(), "told");
  fs.writeFileSync(file, "# New words");
  reindex(store, "", {});
  await store.fill();
  assert.equal(abstract(), "New words");
});

test("import of a single path does not change the abstracts of its parent directories", async () => {
  await using store = await scratch.store({ "resources/docs/.abstract.md": "mine", "resources/docs/b.md": "b" });
  const records = [
    { record_id: "r1", path: "", kind: "directory", level: 0, text: "theirs", scalars: { abstract: "theirs" } },
  ];
  await importFile(store, await scratch.bundle({ records }), { parent: "viking://resources", paths: ["a.md"] });
  await store.fill();
  assert.deepEqual([...store.index.rows("")].map((row) => [row.level, row.abstract]).toSorted(), [
    [0, "mine"],
    [2, "alpha"],
    [2, "b"],
  ]);
  await assert.rejects(importFile(store, await scratch.bundle({}), { parent: "viking://resources", paths: [""] }), {
    code: "not_found",
  });
});

test("removing an abstract file removes its record", async () => {
  await using store = await scratch.store({ "resources/docs/.abstract.md": "zebra", "resources/docs/b.md": "b" });
  await removeFiles(store, "viking://resources/docs/.abstract.md");
  assert.deepEqual(await find(store, "zebra", { mode: "words" }), []);
  assert.equal(checkConsistency(store, "").ok, true);
});

test("restore keeps the record of a whole scope", async () => {
  await using store = await scratch.store();
  const records = [
    { record_id: "r1", path: "resources", kind: "directory", level: 0, text: "All", scalars: { abstract: "All" } },
  ];
  await restoreFile(store, await scratch.bundle(backupParts({ "resources/a": "a" }, { records })));
  assert.deepEqual(
    [...store.index.rows("")].map((row) => [row.path, row.level]),
    [
      ["resources", 0],
      ["resources/a", 2],
    ],
  );
});

test("a link in a store does not prevent other files from being indexed", async () => {
  await using store = await scratch.store();
  await addFiles(store, "viking://resources/a.md", { from: Buffer.from("one") });
  fs.rmSync(path.join(store.folder, "resources/a.md"));
  fs.symlinkSync("/etc/passwd", path.join(store.folder, "resources/a.md"));
  await addFiles(store, "viking://resources/b.md", { from: Buffer.from("two") });
  await store.fill();
  assert.equal((await find(store, "two"))[0]!.uri, "viking://resources/b.md");
});

test("export waits for a running change of the store, and a read does not", async (t) => {
  await using store = await scratch.store({ "resources/docs/a.md": "alpha" });
  const { promise: held, resolve: release } = Promise.withResolvers<void>();
  const { promise: begun, resolve: begin } = Promise.withResolvers<void>();
  const changing = store.writing(async (changes) => {
    changes.begin();
    begin();
    await held;
    changes.discard();
  });
  await begun;
  t.after(() => release());
  await using other = await ContextStore.open(store.folder);
  assert.equal(readFiles(other, "viking://resources/docs/a.md").toString(), "alpha");
  let isDone = false;
  const exporting = exportBundle(other, { uri: "viking://resources/docs", to: scratch.place() }).then(
    () => (isDone = true),
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(isDone, false);
  release();
  await Promise.all([changing, exporting]);
});

test("concurrent exports write equal bundles during a consistency check", async () => {
  const files = Object.fromEntries(Array.from({ length: 300 }, (_, i) => [`resources/docs/${i}.md`, `text ${i}`]));
  await using store = await scratch.store();
  const from = scratch.place("many");
  fs.mkdirSync(from);
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(from, path.basename(name)), text);
  await addFiles(store, "viking://resources/docs", { from });
  await store.fill();
  const to = [scratch.place(), scratch.place(), scratch.place()];
  await Promise.all([
    ...to.map((each) => exportBundle(store, { uri: "viking://resources/docs", to: each })),
    (async () => checkConsistency(store, ""))(),
  ]);
  const [first, ...rest] = to.map((each) => fs.readFileSync(each));
  assert.ok(rest.every((each) => each.equals(first!)));
});

/** Commits a change that is staged. */
function decide(change: string, hasRecords: boolean): void {
  const record = new Unfinished(path.join(change, "change.json"), workOf("context-change"));
  record.begin({ replaced: [], has_records: hasRecords });
}

test("a change that an earlier release committed makes writers fail with its name, but not readers", async () => {
  const { folder } = await scratch.store({ "resources/a.md": "alpha" });
  const plan = path.join(folder, ".context/change/plan.json");
  fs.mkdirSync(path.dirname(plan));
  fs.writeFileSync(plan, JSON.stringify({ replaced: ["resources/a.md"], hasRecords: false }));
  await using store = await ContextStore.open(folder);
  assert.equal(readFiles(store, "viking://resources/a.md").toString(), "alpha");
  await assert.rejects(addFiles(store, "viking://resources/b.md", { from: Buffer.from("b") }), (error: Error) => {
    assert.ok(error.message.includes(plan), error.message);
    return (error as CairnError).code === "refused";
  });
  assert.ok(fs.existsSync(plan));
});

test("a committed change that cannot be applied makes writers fail, but not readers", async () => {
  const { folder } = await scratch.store({ "resources/a.md": "alpha" });
  const change = path.join(folder, ".context/change");
  fs.mkdirSync(path.join(change, "new/resources/a.md/x"), { recursive: true });
  fs.mkdirSync(path.join(change, "old"));
  decide(change, false);
  await using store = await ContextStore.open(folder);
  assert.equal(readFiles(store, "viking://resources/a.md").toString(), "alpha");
  await assert.rejects(addFiles(store, "viking://resources/b.md", { from: Buffer.from("b") }));
});

test("addFiles with `overwrite` replaces a dangling link", async () => {
  await using store = await scratch.store({ "resources/b.md": "b" });
  fs.symlinkSync("/nowhere", path.join(store.folder, "resources/l.md"));
  await addFiles(store, "viking://resources/l.md", { from: Buffer.from("new"), overwrite: true });
  assert.equal(readFiles(store, "viking://resources/l.md").toString(), "new");
});

test("import of a single file replaces an empty directory", async () => {
  await using store = await scratch.store();
  fs.mkdirSync(path.join(store.folder, "resources/docs/a.md"), { recursive: true });
  await importFile(store, await scratch.bundle({}), { parent: "viking://resources", paths: ["a.md"] });
  assert.equal(readFiles(store, "viking://resources/docs/a.md").toString(), "alpha");
  await addFiles(store, "viking://resources/b.md", { from: Buffer.from("b") });
});

test("index rows of a committed change are applied after another process releases the index", async () => {
  const { folder } = await scratch.store({ "resources/a.md": "alpha" });
  const change = path.join(folder, ".context/change");
  fs.mkdirSync(path.join(change, "new/resources"), { recursive: true });
  fs.mkdirSync(path.join(change, "old"));
  fs.writeFileSync(path.join(change, "new/resources/b.md"), "b");
  const row = {
    path: "resources/b.md",
    level: 2,
    isDirectory: false,
    contextType: "resource",
    name: "b.md",
    tags: "kept",
  };
  fs.writeFileSync(path.join(change, "records.jsonl"), `${JSON.stringify(row)}\n`);
  decide(change, true);
  const other = new DatabaseSync(path.join(folder, ".context/index.db"));
  other.exec("BEGIN IMMEDIATE");
  await using reader = await ContextStore.open(folder);
  assert.equal([...reader.index.rows("")].length, 1);
  other.exec("ROLLBACK");
  other.close();
  await using store = await ContextStore.open(folder);
  assert.equal([...store.index.rows("")].find((each) => each.path === "resources/b.md")?.tags, "kept");
});

test("an iteration over index rows continues while another connection writes into the index", async () => {
  await using store = await scratch.store({ "resources/docs/a.md": "alpha", "resources/docs/b.md": "beta" });
  await using other = await ContextStore.open(store.folder);
  const rows = store.index.rows("");
  rows.next();
  await find(other, "alpha", { mode: "words" });
  store.index.transaction(() => store.index.countUse([1]));
  assert.equal([...rows].length, 1);
});
