import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { LONG } from "../../../test/fixtures/long.ts";
import type { Captured } from "./captured.ts";
import { HEADER_BYTES, LOCK_BYTE_OFFSET, parseHeader } from "../../formats/sqlite-header.ts";
import { DatabaseProcess } from "./database-process.ts";
import { databaseUrl, checked } from "./image.ts";
import { commit, type JournalMode, makeDatabase, stateAfter, stateOf, Writer } from "./testing-writer.ts";

const CAPTURES = LONG ? 1000 : 200;

interface Scene {
  folder: string;
  at(name: string): string;
  /** Captures into a folder of its own; where the image lies. */
  capture(
    file: string,
    options?: { checkpoint?: boolean; integrityCheck?: boolean },
  ): Promise<Captured & { image: string }>;
}

function scene(t: TestContext): Scene {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-capture-"));
  const helper = new DatabaseProcess();
  t.after(async () => {
    await helper.close();
    fs.rmSync(folder, { recursive: true });
  });
  let count = 0;
  return {
    folder,
    at: (name) => path.join(folder, name),
    async capture(file, { checkpoint = true, integrityCheck = false } = {}) {
      const stage = path.join(folder, `stage-${count++}`);
      fs.mkdirSync(stage);
      const captured = await helper.do("capture", { path: Buffer.from(file), stage, checkpoint, integrityCheck });
      return { ...captured, image: path.join(stage, "image") };
    },
  };
}

function inImage<T>(image: string, read: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(databaseUrl(Buffer.from(image), "image"), { readOnly: true });
  try {
    return read(database);
  } finally {
    database.close();
  }
}

/** The number of commits in an image, all of whose rows are as they were after these. */
function commitsIn(image: string): number {
  return inImage(image, (database) => {
    assert.deepEqual(checked(database, true).problems, []);
    const { one, two } = stateOf(database);
    const commits = Math.max(...one);
    assert.deepEqual({ one, two }, { one: stateAfter(commits), two: stateAfter(commits) });
    return commits;
  });
}

const WAYS: readonly { name: string; mode: JournalMode; checkpoint: boolean; method: string }[] = [
  { name: "pinned on an empty log", mode: "wal", checkpoint: true, method: "pinned" },
  { name: "by SQLite's backup", mode: "wal", checkpoint: false, method: "backup" },
  { name: "under a shared lock", mode: "delete", checkpoint: true, method: "pinned" },
];

for (const { name, mode, checkpoint, method } of WAYS) {
  test(`an image is the state after one commit although another process commits all the time: ${name}`, async (t) => {
    const { at, capture } = scene(t);
    makeDatabase(at("db"), mode);
    const writer = await Writer.start(t, at("db"));
    const methods = new Map<string, number>();
    for (let i = 0; i < CAPTURES; i++) {
      const before = await writer.commits();
      const captured = await capture(at("db"), { checkpoint });
      const after = await writer.commits();
      assert.equal(captured.label, "transaction-consistent");
      methods.set(captured.method, (methods.get(captured.method) ?? 0) + 1);
      const commits = commitsIn(captured.image);
      assert.ok(commits >= before && commits <= after + 1, `${commits} of ${before} to ${after}`);
      fs.rmSync(path.dirname(captured.image), { recursive: true });
    }
    t.diagnostic(JSON.stringify([...methods]));
    assert.ok((methods.get(method) ?? 0) > 0, JSON.stringify([...methods]));
    const made = await writer.commits();
    assert.ok(made > CAPTURES, `only ${made} commits were made meanwhile`);
    await writer.stop();
    const database = new DatabaseSync(at("db"));
    assert.deepEqual(checked(database, true).problems, []);
    database.close();
    assert.deepEqual(fs.readdirSync(path.dirname(at("db"))), ["db"]);
  });
}

test("an image of an idle database equals it byte by byte, for every page size and journal mode", async (t) => {
  const { at, capture } = scene(t);
  for (const mode of ["wal", "delete"] as const) {
    for (let pageSize = 512; pageSize <= 65_536; pageSize *= 2) {
      const file = at(`${mode}-${pageSize}`);
      makeDatabase(file, mode, pageSize);
      const database = new DatabaseSync(file);
      for (let n = 1; n <= 50; n++) commit(database, n);
      const captured = await capture(file, { integrityCheck: true });
      const bytes = fs.readFileSync(file);
      assert.equal(Buffer.compare(fs.readFileSync(captured.image), bytes), 0, file);
      database.close();
      assert.equal(captured.sha256, createHash("sha256").update(bytes).digest("hex"));
      assert.deepEqual(
        [captured.method, captured.page_size, captured.pages, captured.problems],
        ["pinned", pageSize, bytes.length / pageSize, []],
      );
      assert.deepEqual(
        captured.statistics?.tables,
        ["one", "two"].map((name) => ({ name, rows: 40 })),
      );
    }
  }
});

test("the page at 1 GiB is zeros in the image and not part of its hash", async (t) => {
  const { at, capture } = scene(t);
  const file = at("large");
  makeLarge(file);
  const fd = fs.openSync(file, "r+");
  // SQLite never writes there, so anything may lie on the disk.
  fs.writeSync(fd, Buffer.alloc(PAGE, "?"), 0, PAGE, LOCK_BYTE_OFFSET);
  fs.closeSync(fd);
  const captured = await capture(file);
  assert.deepEqual([captured.method, captured.bytes], ["pinned", fs.statSync(file).size]);
  const at1GiB = Buffer.alloc(PAGE);
  const image = fs.openSync(captured.image, "r");
  fs.readSync(image, at1GiB, 0, PAGE, LOCK_BYTE_OFFSET);
  fs.closeSync(image);
  assert.ok(at1GiB.equals(Buffer.alloc(PAGE)));
  const content = inImage(
    captured.image,
    (database) => database.prepare("SELECT content FROM large").get()!["content"],
  );
  assert.ok(Buffer.from(content as Uint8Array).equals(LARGE_CONTENT));
  const hash = createHash("sha256");
  const whole = fs.openSync(captured.image, "r");
  const room = Buffer.alloc(PAGE * 64);
  for (let at = 0; at < captured.bytes;) {
    const end = at < LOCK_BYTE_OFFSET ? LOCK_BYTE_OFFSET : captured.bytes;
    const length = fs.readSync(whole, room, 0, Math.min(room.length, end - at), at);
    hash.update(room.subarray(0, length));
    at += length + (at + length === LOCK_BYTE_OFFSET ? PAGE : 0);
  }
  fs.closeSync(whole);
  assert.equal(captured.sha256, hash.digest("hex"));
});

const PAGE = 65_536;
const LARGE_CONTENT = Buffer.alloc(PAGE * 6, "content around the page that has none. ");

/** A database of 1.1 GiB that takes up some pages: all others are free, and those around 1 GiB are taken first. */
function makeLarge(file: string): void {
  const small = new DatabaseSync(file);
  small.exec(`PRAGMA page_size = ${PAGE}; PRAGMA secure_delete = OFF; CREATE TABLE large (content)`);
  small.close();
  const lock = LOCK_BYTE_OFFSET / PAGE + 1;
  const last = Math.floor(lock * 1.1);
  const leaves = Array.from({ length: last - 4 }, (_, i) => i + 5)
    .filter((page) => page !== lock)
    .toSorted((a, b) => Math.abs(a - lock) - Math.abs(b - lock));
  const most = PAGE / 4 - 8;
  const fd = fs.openSync(file, "r+");
  const trunk = (page: number, next: number, listed: readonly number[]): void => {
    const bytes = Buffer.alloc(PAGE);
    for (const [i, value] of [next, listed.length, ...listed].entries()) bytes.writeUInt32BE(value, i * 4);
    fs.writeSync(fd, bytes, 0, PAGE, (page - 1) * PAGE);
  };
  trunk(3, 4, leaves.slice(0, most));
  trunk(4, 0, leaves.slice(most));
  const header = Buffer.alloc(12);
  for (const [i, value] of [last, 3, leaves.length + 2].entries()) header.writeUInt32BE(value, i * 4);
  fs.writeSync(fd, header, 0, 12, 28);
  fs.ftruncateSync(fd, last * PAGE);
  fs.closeSync(fd);
  const database = new DatabaseSync(file);
  database.prepare("INSERT INTO large VALUES (?)").run(LARGE_CONTENT);
  assert.deepEqual(checked(database, false).problems, []);
  database.close();
}

test("a database whose log a reader keeps from being truncated is captured by SQLite's backup", async (t) => {
  const { at, capture } = scene(t);
  makeDatabase(at("db"), "wal");
  const writer = new DatabaseSync(at("db"));
  commit(writer, 1);
  const reader = new DatabaseSync(at("db"));
  reader.exec("BEGIN; SELECT * FROM one");
  commit(writer, 2);
  const captured = await capture(at("db"));
  assert.deepEqual(
    [captured.label, captured.method, commitsIn(captured.image)],
    ["transaction-consistent", "backup", 2],
  );
  assert.ok(captured.wal_bytes_before > 0 && captured.wal_bytes_after > 0);
  reader.close();
  writer.close();
});

test("capture without a checkpoint changes neither the database nor its log", async (t) => {
  const { at, capture } = scene(t);
  makeDatabase(at("db"), "wal");
  const writer = new DatabaseSync(at("db"));
  for (let n = 1; n <= 9; n++) commit(writer, n);
  // By another process: to close the files here would give up the writer's locks.
  const looks = (): string => execFileSync("sha256sum", [at("db"), at("db-wal")], { encoding: "utf8" });
  const before = looks();
  const captured = await capture(at("db"), { checkpoint: false });
  assert.equal(looks(), before);
  assert.deepEqual([captured.method, commitsIn(captured.image)], ["backup", 9]);
  writer.close();
});

for (const checkpoint of [true, false])
  test(`capture applies a log that no process has open only to the image, checkpoint ${checkpoint}`, async (t) => {
    const { at, capture } = scene(t);
    makeDatabase(at("db"), "wal");
    const writer = new DatabaseSync(at("db"));
    for (let n = 1; n <= 9; n++) commit(writer, n);
    for (const ending of ["", "-wal"]) fs.cpSync(at(`db${ending}`), at(`left${ending}`));
    writer.close();
    const looks = (): Buffer[] => ["left", "left-wal"].map((name) => fs.readFileSync(at(name)));
    const before = looks();
    const left = await capture(at("left"), { checkpoint });
    assert.deepEqual([left.label, left.method, left.sidecars], ["transaction-consistent", "copy", []]);
    assert.equal(commitsIn(left.image), 9);
    assert.deepEqual(looks(), before);
    assert.ok(!fs.existsSync(at("left-shm")));
  });

test("capture copies a database as a plain file if a process keeps it locked, and names that reason", async (t) => {
  const { at, capture } = scene(t);
  for (const mode of ["wal", "delete"] as const) {
    makeDatabase(at(mode), mode);
    const holder = new DatabaseSync(at(mode));
    holder.exec("PRAGMA locking_mode = EXCLUSIVE");
    commit(holder, 1);
    holder.exec("BEGIN EXCLUSIVE");
    const captured = await capture(at(mode));
    // Without a log, and with no journal, the lock may mean half a transaction.
    const label = mode === "wal" ? "crash-consistent" : "torn-possible";
    assert.deepEqual([captured.label, captured.method], [label, "copy"]);
    assert.match(captured.reason ?? "", /holds an exclusive lock on it/);
    // In this locking mode SQLite keeps the journal, and clears its header at the end of each transaction.
    if (mode === "delete") assert.match(captured.reason!, /the journal beside the database has no header yet/);
    holder.exec("COMMIT");
    commit(holder, 2);
    holder.close();
    const copy = new DatabaseSync(captured.image);
    assert.deepEqual(stateOf(copy).two, stateAfter(1));
    copy.close();
  }
});

test("capture rolls back a killed writer's hot journal only in the image", async (t) => {
  const { at, capture } = scene(t);
  makeDatabase(at("db"), "delete");
  leaveHotJournal(at("db"));
  const looks = (): Buffer[] => ["db", "db-journal"].map((name) => fs.readFileSync(at(name)));
  const before = looks();
  for (const checkpoint of [true, false]) {
    const captured = await capture(at("db"), { checkpoint });
    assert.deepEqual([captured.label, captured.method, captured.sidecars], ["transaction-consistent", "copy", []]);
    assert.equal(commitsIn(captured.image), 0);
    assert.deepEqual(looks(), before);
  }
});

/** Pages of a transaction that has not ended lie in the file, and what they were in the journal. */
function leaveHotJournal(file: string): void {
  const copies = [file, `${file}-journal`];
  const database = new DatabaseSync(file);
  database.exec(
    "PRAGMA cache_size = 2; PRAGMA cache_spill = 1; BEGIN IMMEDIATE; UPDATE one SET n = 7, padding = hex(randomblob(900))",
  );
  const bytes = copies.map((each) => fs.readFileSync(each));
  database.exec("ROLLBACK");
  database.close();
  for (const [i, each] of copies.entries()) fs.writeFileSync(each, bytes[i]!);
}

test("capture copies a damaged, encrypted or empty file as it is, and names the reason", async (t) => {
  const { at, capture } = scene(t);
  fs.writeFileSync(at("encrypted"), Buffer.from(Array.from({ length: 9000 }, (_, i) => (i * i * 31) & 0xff)));
  fs.writeFileSync(at("empty"), "");
  makeDatabase(at("schema"), "delete");
  makeDatabase(at("page"), "delete");
  for (const [name, from] of [
    ["schema", HEADER_BYTES],
    ["page", 4096],
  ] as const) {
    const fd = fs.openSync(at(name), "r+");
    fs.writeSync(fd, Buffer.alloc(600, 0xee), 0, 600, from);
    fs.closeSync(fd);
  }
  for (const name of ["encrypted", "empty", "schema", "page"]) {
    const captured = await capture(at(name));
    assert.deepEqual([captured.label, captured.method], ["crash-consistent", "copy"], name);
    assert.ok(fs.readFileSync(captured.image).equals(fs.readFileSync(at(name))));
    assert.match(
      captured.reason ?? "",
      name === "encrypted" || name === "empty" ? /has no header/ : /SQLite cannot read/,
    );
  }
});

test("capture warns of tables that it cannot check because they need a program's own collation", async (t) => {
  const { at, capture } = scene(t);
  const own = new DatabaseSync(at("db"));
  own.enableDefensive(false);
  own.function("own", { deterministic: true }, (value) => value);
  own.exec(`PRAGMA writable_schema = ON; CREATE TABLE plain (a); INSERT INTO plain VALUES (1);
    CREATE TABLE computed (a); INSERT INTO computed VALUES (1), (2); CREATE INDEX i ON computed (own(a));
    CREATE TABLE ordered (a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID;
    UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'OWNCASE')`);
  own.close();
  const captured = await capture(at("db"), { integrityCheck: true });
  assert.deepEqual([captured.label, captured.problems], ["transaction-consistent", []]);
  assert.deepEqual(
    captured.statistics?.tables.map(({ name, rows }) => [name, rows]),
    [
      ["computed", 2],
      ["ordered", null],
      ["plain", 1],
    ],
  );
  assert.match(captured.warnings.join(), /cannot check computed, ordered:/);
});

test("capture warns of a WAL database that was written by an SQLite before 3.51.3", async (t) => {
  const { at, capture } = scene(t);
  makeDatabase(at("db"), "wal");
  const fd = fs.openSync(at("db"), "r+");
  fs.writeSync(fd, Buffer.from([0x00, 0x2e, 0x53, 0x81]), 0, 4, 96);
  fs.closeSync(fd);
  assert.match((await capture(at("db"))).warnings.join(), /SQLite 3\.36\.33/);
});

test("parseHeader returns null for an invalid page size", () => {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write("SQLite format 3\0", "latin1");
  const sizes = [1, 512, 513, 4096, 32_768, 256, 0].map((size) => {
    bytes.writeUInt16BE(size, 16);
    return parseHeader(bytes)?.page_size ?? null;
  });
  assert.deepEqual(sizes, [65_536, 512, null, 4096, 32_768, null, null]);
});
