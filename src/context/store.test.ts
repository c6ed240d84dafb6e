import assert from "node:assert/strict";
import fs from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { text } from "node:stream/consumers";
import { after, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { checkConsistency, reindex } from "./consistency.ts";
import { addFiles, listFiles, readFiles, removeFiles } from "./files.ts";
import { openEmbedder } from "./open-embedder.ts";
import { find } from "./search.ts";
import { ContextStore, EMBEDDED } from "./store.ts";
import { PAIRS } from "./testing-pairs.ts";
import { Scratch, stateOf } from "./testing-store.ts";

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

const pathsOf = (store: ContextStore): string[] => [...store.index.rows("")].map((row) => row.path);

test("an added folder can be listed, read, found and removed", async () => {
  await using store = await scratch.store();
  const from = scratch.place("docs");
  fs.mkdirSync(path.join(from, "deep"), { recursive: true });
  fs.writeFileSync(path.join(from, "a.md"), "# Alpha\n\nThe first letter.\n");
  fs.writeFileSync(path.join(from, "deep/data.bin"), Buffer.from([0, 255, 1, 254]));
  const added = await addFiles(store, "viking://resources/docs", { from, abstract: "Letters" });
  assert.deepEqual(added, { uri: "viking://resources/docs", files: 3, directories: 2, bytes: 38, left_out: [] });
  await store.fill();
  assert.deepEqual(
    listFiles(store, "viking://resources/docs", { recursive: true }).map(({ uri, abstract }) => [uri, abstract]),
    [
      ["viking://resources/docs/a.md", "Alpha The first letter."],
      ["viking://resources/docs/deep", ""],
      ["viking://resources/docs/deep/data.bin", ""],
    ],
  );
  assert.deepEqual(
    listFiles(store, "viking://resources", {}).map(({ uri, abstract }) => [uri, abstract]),
    [["viking://resources/docs", "Letters"]],
  );
  assert.deepEqual(readFiles(store, "viking://resources/docs/deep/data.bin"), Buffer.from([0, 255, 1, 254]));
  assert.equal(readFiles(store, "viking://resources/docs", { level: 0 }).toString(), "Letters");
  assert.throws(() => readFiles(store, "viking://resources/docs", { level: 1 }), { code: "not_found" });
  assert.throws(() => readFiles(store, "viking://resources/docs"), { code: "usage" });
  const [hit] = await find(store, "letter");
  assert.equal(hit!.uri, "viking://resources/docs/a.md");
  await removeFiles(store, "viking://resources/docs/deep");
  assert.deepEqual(pathsOf(store), ["resources/docs", "resources/docs/a.md"]);
  assert.equal(checkConsistency(store, "").ok, true);
  await assert.rejects(removeFiles(store, "viking://resources/docs/deep"), { code: "not_found" });
});

test("addFiles replaces an existing entry only with `overwrite`", async () => {
  await using store = await scratch.store({ "resources/a": "one" });
  const before = stateOf(store);
  await assert.rejects(addFiles(store, "viking://resources/a", { from: Buffer.from("two") }), {
    code: "already_exists",
  });
  assert.deepEqual(stateOf(store), before);
  await addFiles(store, "viking://resources/a", { from: Buffer.from("two"), overwrite: true });
  assert.equal(readFiles(store, "viking://resources/a").toString(), "two");
});

test("addFiles refuses links, missing files, the store itself and invalid targets", async () => {
  await using store = await scratch.store({ "resources/a": "one" });
  const before = stateOf(store);
  const from = scratch.place("links");
  fs.mkdirSync(from);
  fs.symlinkSync("/etc/passwd", path.join(from, "link"));
  fs.writeFileSync(path.join(from, "a"), "a");
  await assert.rejects(addFiles(store, "viking://resources/x", { from: path.join(from, "link") }), {
    code: "unsupported",
  });
  const refused = async (uri: string, source: string, code: string): Promise<void> => {
    await assert.rejects(addFiles(store, uri, { from: source }), { code });
    assert.deepEqual(stateOf(store), before);
  };
  await refused("viking://resources/x", store.folder, "usage");
  await refused("viking://resources/x", path.join(from, "none"), "not_found");
  await refused("viking://resources", path.join(from, "a"), "usage");
  await refused("viking://resources/.relations.json", path.join(from, "a"), "usage");
});

test("addFiles of a folder leaves out version control, packages, credentials, links and ignored entries", async () => {
  await using store = await scratch.store();
  const from = scratch.place("project");
  const files = [
    "a.md",
    "über/b.md",
    "über/.env",
    "über/drafts/c.md",
    ".git/config",
    "node_modules/x/index.md",
    ".aws/credentials",
    "build/d.md",
  ];
  for (const name of files) {
    fs.mkdirSync(path.dirname(path.join(from, name)), { recursive: true });
    fs.writeFileSync(path.join(from, name), name);
  }
  fs.writeFileSync(path.join(from, ".cairnignore"), "/build/\n");
  fs.writeFileSync(path.join(from, "über/.cairnignore"), "drafts/\n");
  fs.symlinkSync("/etc/passwd", path.join(from, "link"));
  const { left_out: left } = await addFiles(store, "viking://resources/p", { from });
  assert.deepEqual(left, [
    { path: ".aws/credentials", reason: "rule" },
    { path: ".git", reason: "rule" },
    { path: "build", reason: "rule" },
    { path: "link", reason: "special" },
    { path: "node_modules", reason: "rule" },
    { path: "über/.env", reason: "rule" },
    { path: "über/drafts", reason: "rule" },
  ]);
  await store.fill();
  assert.deepEqual(pathsOf(store), ["resources/p/a.md", "resources/p/über/b.md"]);
  // A file that is named is added.
  await addFiles(store, "viking://resources/env", { from: path.join(from, "über/.env") });
});

test("a scope can be removed only if it is empty", async () => {
  await using store = await scratch.store({ "agent/a/skills/x.md": "x" });
  await assert.rejects(removeFiles(store, "viking://agent"), { code: "usage" });
  await removeFiles(store, "viking://agent/a");
  await removeFiles(store, "viking://agent");
  assert.ok(!fs.existsSync(path.join(store.folder, "agent")));
});

test("changes through a link to a folder outside the store are refused", async () => {
  await using store = await scratch.store({ "resources/a": "one" });
  const outside = scratch.place("outside");
  fs.mkdirSync(outside);
  fs.symlinkSync(outside, path.join(store.folder, "resources/link"));
  await assert.rejects(addFiles(store, "viking://resources/link/x", { from: Buffer.from("x") }), { code: "refused" });
  await assert.rejects(removeFiles(store, "viking://resources/link/x"), { code: "refused" });
  assert.deepEqual(fs.readdirSync(outside), []);
});

test("checkConsistency names files that were edited outside Cairn, and reindex repairs the index", async () => {
  await using store = await scratch.store({
    "resources/a.md": "one",
    "resources/b.md": "two",
    "user/x/memories/c.md": "three",
  });
  fs.writeFileSync(path.join(store.folder, "resources/a.md"), "something else");
  fs.rmSync(path.join(store.folder, "resources/b.md"));
  fs.writeFileSync(path.join(store.folder, "resources/new.md"), "new");
  const report = checkConsistency(store, "");
  assert.deepEqual(
    [report.ok, report.missing_records, report.missing_files, report.stale],
    [
      false,
      [{ uri: "viking://resources/new.md", level: 2 }],
      [{ uri: "viking://resources/b.md", level: 2 }],
      [{ uri: "viking://resources/a.md", level: 2 }],
    ],
  );
  assert.equal(checkConsistency(store, "user").ok, true);
  assert.deepEqual(reindex(store, "", {}), { added: 1, removed: 1, changed: 1 });
  await store.fill();
  assert.equal(checkConsistency(store, "").ok, true);
  assert.equal((await find(store, "something else", { mode: "words" }))[0]!.uri, "viking://resources/a.md");
});

test("reindex builds a lost index again from the files", async () => {
  const { folder } = await scratch.store({ "resources/a.md": "one" });
  for (const name of ["index.db", "index.db-wal", "index.db-shm"])
    fs.rmSync(path.join(folder, ".context", name), { force: true });
  await using store = await ContextStore.open(path.join(folder, "resources"));
  assert.equal(checkConsistency(store, "").missing_records.length, 1);
  reindex(store, "", {});
  await store.fill();
  assert.equal(checkConsistency(store, "").ok, true);
});

test("two open stores of one folder change it one after the other", async () => {
  await using store = await scratch.store();
  await using other = await ContextStore.open(store.folder);
  const adding = Array.from({ length: 20 }, (_, i) =>
    addFiles(i % 2 === 0 ? store : other, `viking://resources/f${i}`, { from: Buffer.from(`text ${i}`) }),
  );
  await Promise.all([...adding, store.fill(), other.fill()]);
  await store.fill();
  assert.equal(checkConsistency(store, "").ok, true);
  assert.equal(pathsOf(other).length, 20);
});

test("a waiting writer goes before readers that come later", async () => {
  await using store = await scratch.store();
  await using other = await ContextStore.open(store.folder);
  const order: string[] = [];
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  const first = store.reading(async () => ended);
  await setImmediate();
  const writer = other.writing(async () => void order.push("writer"));
  await setImmediate();
  const later = Array.from({ length: 10 }, () => store.reading(async () => void order.push("reader")));
  await setImmediate();
  assert.deepEqual(order, []);
  end();
  await Promise.all([first, writer, ...later]);
  assert.equal(order[0], "writer");
});

test("a search by words runs one full-text query", async (t) => {
  await using store = await scratch.store({ "resources/a/x.md": "tea", "resources/b/x.md": "tea" });
  const prepare = t.mock.method(DatabaseSync.prototype, "prepare");
  for (const under of ["viking://", "viking://resources/a"]) await find(store, "green tea", { mode: "words", under });
  const queries = prepare.mock.calls.flatMap(({ arguments: [sql] }) => (sql.includes("words MATCH") ? [sql] : []));
  assert.equal(queries.length, 2);
  using db = new DatabaseSync(path.join(store.folder, ".context/index.db"));
  for (const sql of queries) {
    const plan = db
      .prepare(`EXPLAIN QUERY PLAN ${sql}`)
      .all()
      .map(({ detail }) => String(detail));
    // "=" in the number of the table's index: a query by rowid too.
    assert.ok(
      plan.some((step) => /VIRTUAL TABLE INDEX 0:M/.test(step)),
      plan.join("; "),
    );
  }
});

test("words are found although an endpoint fails, and vectors are made when it works again", async () => {
  const server = createServer((request, response) => void answer(request, response));
  let isUp = false;
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { input } = JSON.parse(await text(request)) as { input: string[] };
    response.writeHead(isUp ? 200 : 400).end(JSON.stringify({ data: input.map(() => ({ embedding: [1, 0] })) }));
  };
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const embedding = { provider: "openai", model: "m", dimensions: 2, base_url: `http://127.0.0.1:${port}` } as const;
  await using store = await scratch.store({}, embedding);
  const from = scratch.place("tea");
  fs.mkdirSync(from);
  for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(from, `${i}.md`), "tea");
  await addFiles(store, "viking://resources/tea", { from });
  await assert.rejects(store.fill(), { code: "usage" });
  await store.fillLeft();
  assert.equal((await find(store, "tea", { mode: "words", limit: 200 })).length, 100);
  isUp = true;
  await store.fillLeft();
  assert.equal(checkConsistency(store, "").ok, true);
  await new Promise((done) => server.close(done));
});

test("open finds a store from a folder in it, and init refuses an existing store", async () => {
  const { folder } = await scratch.store();
  await assert.rejects(ContextStore.init(folder, EMBEDDED), { code: "already_exists" });
  await assert.rejects(ContextStore.open(scratch.root), { code: "not_found" });
});

test("open refuses a store of a newer version, and one whose store.json is damaged", async () => {
  const { folder } = await scratch.store();
  const file = path.join(folder, ".context/store.json");
  const text = fs.readFileSync(file, "utf8");
  fs.writeFileSync(file, text.replace('"version": 1', '"version": 9'));
  await assert.rejects(ContextStore.open(folder), { code: "newer_version", hint: /a newer Cairn has worked here/ });
  fs.writeFileSync(file, text.replace("embedded", "other"));
  await assert.rejects(ContextStore.open(folder), { code: "damaged" });
});

/** How many of the questions have their text among the first. */
async function recall(store: ContextStore, mode: "both" | "semantic" | "words", first: number): Promise<number> {
  let found = 0;
  for (const [i, [, question]] of PAIRS.entries()) {
    const hits = await find(store, question, { mode, limit: first });
    if (hits.some(({ uri }) => uri === `viking://resources/${i}.md`)) found++;
  }
  return found / PAIRS.length;
}

test("a semantic search finds the same texts as an exact search of all vectors", async (t) => {
  const files = Object.fromEntries(PAIRS.map(([text], i) => [`resources/${i}.md`, text]));
  await using store = await scratch.store(files);
  const model = (await openEmbedder(EMBEDDED))!;
  const rows = [...store.index.rows("")];
  let same = 0;
  for (const [, question] of PAIRS) {
    const [asked] = await model.embed([question]);
    const near = rows
      .map(({ id, path: at }) => ({
        at,
        score: store.index.vector(id)!.reduce((sum, each, k) => sum + each * asked![k]!, 0),
      }))
      .toSorted((a, b) => b.score - a.score);
    const exact = new Set(near.slice(0, 5).map(({ at }) => `viking://${at}`));
    const hits = await find(store, question, { mode: "semantic", limit: 5 });
    same += hits.filter(({ uri }) => exact.has(uri)).length / 5 / PAIRS.length;
  }
  const [semantic, words, both] = [
    await recall(store, "semantic", 5),
    await recall(store, "words", 5),
    await recall(store, "both", 5),
  ];
  t.diagnostic(
    `recall@5 against exact search ${same.toFixed(3)}; of the labels: semantic ${semantic}, words ${words}, both ${both}`,
  );
  assert.ok(same > 0.999);
  assert.ok(semantic >= 0.9, "by meaning");
  assert.ok(both >= 0.9, "by both");
});

test("a search stays below its URI and returns at most `limit` hits", async () => {
  await using store = await scratch.store({
    "resources/a/x.md": "tea",
    "resources/ab/x.md": "tea",
    "user/u/memories/x.md": "tea",
  });
  const under = async (uri: string): Promise<string[]> =>
    (await find(store, "tea", { under: uri })).map((each) => each.uri).toSorted();
  assert.deepEqual(await under("viking://resources/a"), ["viking://resources/a/x.md"]);
  assert.equal((await under("viking://resources")).length, 2);
  assert.equal((await find(store, "tea", { limit: 1 })).length, 1);
  await assert.rejects(find(store, " "), { code: "usage" });
  await assert.rejects(find(store, "tea", { limit: 0 }), { code: "usage" });
  assert.deepEqual(await find(store, '"; -- NEAR( *', { mode: "words" }), []);
});

const EAST = {
  "resources/a.md": "我们把订单写入PostgreSQL数据库，每天凌晨备份。",
  "resources/b.md": "請在退款頁面輸入訂單號碼",
  "resources/c.md": "サーバーの再起動手順と、時々起きる障害",
  "resources/d.md": "결제 서버를 다시 시작한다",
};

/** Queries in scripts without spaces between words, and the files that they find. */
const EASTERN: readonly (readonly [query: string, names: string])[] = [
  ["数据库", "a"],
  ["备份", "a"],
  ["postgresql", "a"],
  ["数据库的备份", "a"],
  ["晨", "a"],
  ["份", "a"],
  ["訂單", "b"],
  ["再起動", "c"],
  ["時々", "c"],
  ["サーバー", "c"],
  ["서버", "d"],
  ["据写", ""],
];

async function findEastern(store: ContextStore): Promise<readonly (readonly [string, string])[]> {
  const found: [string, string][] = [];
  for (const [query] of EASTERN) {
    const hits = await find(store, query, { mode: "words" });
    found.push([query, hits.map(({ uri }) => path.basename(uri, ".md")).join()]);
  }
  return found;
}

test("words in Chinese, Japanese and Korean texts are found inside of sentences", async () => {
  await using store = await scratch.store(EAST);
  assert.deepEqual(await findEastern(store), EASTERN);
});

test("a store whose index has Chinese sentences as one word gets its words again, and makes only stale vectors again", async () => {
  const made = await scratch.store(EAST);
  const { folder } = made;
  await made[Symbol.asyncDispose]();
  const database = new DatabaseSync(path.join(folder, ".context/index.db"));
  database.exec("INSERT INTO words (words) VALUES ('delete-all'); PRAGMA user_version = 1");
  database.close();
  fs.writeFileSync(path.join(folder, "resources/d.md"), `${EAST["resources/d.md"]}!`);
  await using store = await ContextStore.open(folder);
  const { indexed, vectors } = await store.fill();
  assert.deepEqual([indexed >= 4, vectors], [true, 1]);
  assert.deepEqual(await findEastern(store), EASTERN);
});

test("a store without vectors searches by words", async () => {
  await using store = await scratch.store(
    { "resources/a.md": "green tea" },
    { provider: "none", model: "", dimensions: 0 },
  );
  assert.equal((await find(store, "tea"))[0]!.uri, "viking://resources/a.md");
  await assert.rejects(find(store, "tea", { mode: "semantic" }), { code: "usage" });
  assert.equal(checkConsistency(store, "").ok, true);
});
