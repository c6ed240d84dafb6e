import assert from "node:assert/strict";
import { type ChildProcess, fork, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { eventually } from "../../../test/fixtures/eventually.ts";
import { asOrdinaryUser } from "../../../test/fixtures/loop-file-system.ts";
import { CairnError } from "../../errors.ts";
import { captureDatabase, listDatabases, restoreDatabase } from "./databases.ts";
import { inFile, readHeader } from "./header.ts";
import { plainCopy } from "./plain-copy.ts";
import { commit, commitsIn, type JournalMode, makeDatabase, stateOf, Writer } from "./testing-writer.ts";

function scene(t: TestContext): { folder: string; at: (name: string) => string } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-databases-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  return { folder, at: (name) => path.join(folder, name) };
}

/** A database after so many commits, closed. */
function makeAfter(file: string, commits: number, mode: JournalMode = "wal"): void {
  makeDatabase(file, mode);
  const database = new DatabaseSync(file);
  for (let n = 1; n <= commits; n++) commit(database, n);
  database.close();
}

/** A database that was not closed: its last commits lie in the log only. */
function makeUnclosed(t: TestContext, file: string, commits: number): void {
  const source = `${file}.source`;
  makeDatabase(source, "wal");
  const database = new DatabaseSync(source);
  for (let n = 1; n <= commits; n++) commit(database, n);
  for (const ending of ["", "-wal", "-shm"]) fs.copyFileSync(`${source}${ending}`, `${file}${ending}`);
  database.close();
  fs.rmSync(source);
}

function codeOf(code: string, message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError && error.code === code, String(error));
    assert.match(error.message, message);
    return true;
  };
}

/** Has another process try to write to a database without waiting; what it says. */
function othersWrite(file: string): string {
  const script = `const { DatabaseSync } = require("node:sqlite");
    try { new DatabaseSync(process.argv[1]).exec("BEGIN IMMEDIATE; ROLLBACK"); console.log("written"); }
    catch (error) { console.log(error.message); }`;
  const args = ["--disable-warning=ExperimentalWarning", "-e", script, file];
  return spawnSync(process.execPath, args, { encoding: "utf8" }).stdout.trim();
}

test("capture, list and a refused restore do not release this process's own locks on a database", async (t) => {
  const { at, folder } = scene(t);
  for (const mode of ["wal", "delete"] as const) {
    makeAfter(at(mode), 3, mode);
    const own = new DatabaseSync(at(mode));
    own.exec("BEGIN IMMEDIATE; UPDATE one SET n = 99");
    assert.match(othersWrite(at(mode)), /locked/);
    const captured = await captureDatabase(at(mode), { to: at(`${mode}.image`) });
    assert.equal(captured.method, "pinned");
    const { databases } = await listDatabases(folder);
    const found = databases.find(({ path: name }) => name === mode)!;
    assert.deepEqual(
      found.holders.map(({ pid }) => pid),
      [process.pid],
    );
    await assert.rejects(restoreDatabase(at(`${mode}.image`), { to: at(mode) }), codeOf("refused", /is open in/));
    assert.match(othersWrite(at(mode)), /locked/);
    own.exec("ROLLBACK");
    assert.equal(othersWrite(at(mode)), "written");
    own.close();
    assert.equal(commitsIn(at(`${mode}.image`)), 3);
  }
});

test("listDatabases returns each database with its log, its processes and the label of a capture", async (t) => {
  const { at, folder } = scene(t);
  fs.mkdirSync(at("deep/er"), { recursive: true });
  makeAfter(at("deep/er/a"), 2);
  makeAfter(at("b"), 2, "delete");
  fs.writeFileSync(at("none"), "SQLite format 3, says a text");
  fs.symlinkSync("b", at("link"));
  const writer = await Writer.start(t, at("deep/er/a"));
  const { databases, unread } = await listDatabases(folder);
  assert.deepEqual(unread, []);
  assert.deepEqual(
    databases.map(({ path: name, journal_mode, label, page_size, holders }) => [
      name,
      journal_mode,
      label,
      page_size,
      holders.map(({ pid }) => pid),
    ]),
    [
      ["b", "rollback", "transaction-consistent", 4096, []],
      ["deep/er/a", "wal", "transaction-consistent", 4096, [writer.child.pid]],
    ],
  );
  assert.ok(databases[1]!.wal_bytes > 0);
  const alone = await listDatabases(at("deep/er/a"));
  assert.deepEqual(
    alone.databases.map(({ path: name, holders }) => [name, holders.length]),
    [["", 1]],
  );
  await writer.stop();
});

test("listDatabases shows a database that a program writes to, and one that is shorter than its header says", async (t) => {
  const { at, folder } = scene(t);
  for (const name of ["busy", "short", "whole"]) makeAfter(at(name), 2, "delete");
  fs.truncateSync(at("short"), 4096);
  const writer = new DatabaseSync(at("busy"));
  writer.exec("BEGIN IMMEDIATE");
  const states = async (): Promise<unknown> =>
    (await listDatabases(folder)).databases.map(({ path: name, locked, damaged }) => [name, locked, damaged]);
  const others = [
    ["short", false, true],
    ["whole", false, false],
  ];
  assert.deepEqual(await states(), [["busy", true, false], ...others]);
  writer.exec("COMMIT");
  writer.close();
  assert.deepEqual(await states(), [["busy", false, false], ...others]);
});

test("captureDatabase writes one file, and replaces an existing one only with `overwrite`", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("db"), 5);
  fs.chmodSync(at("db"), 0o640);
  await captureDatabase(at("db"), { to: at("image") });
  await assert.rejects(captureDatabase(at("db"), { to: at("image") }), codeOf("already_exists", /image exists/));
  fs.writeFileSync(at("image-wal"), "");
  const overwriting = { to: at("image"), overwrite: true };
  await assert.rejects(captureDatabase(at("db"), overwriting), codeOf("already_exists", /image-wal exists/));
  fs.rmSync(at("image-wal"));
  await captureDatabase(at("db"), overwriting);
  assert.equal(fs.statSync(at("image")).mode & 0o777, 0o640);
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["db", "image"]);
});

test("captureDatabase of a path that has only a log fails and makes no database", async (t) => {
  const { at, folder } = scene(t);
  makeUnclosed(t, at("db"), 3);
  fs.rmSync(at("db"));
  await assert.rejects(captureDatabase(at("db"), { to: at("image") }), codeOf("not_found", /db is not there/));
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["db-shm", "db-wal"]);
  const log = await captureDatabase(at("db-wal"), { to: at("image") });
  assert.deepEqual([log.label, log.method], ["crash-consistent", "copy"]);
});

for (const [what, read] of [
  ["a file", () => null],
  ["a database", (file: string) => inFile(Buffer.from(file), readHeader)],
] as const)
  test(`a plain copy of ${what} that changes during each attempt is labelled torn-possible`, async (t) => {
    const { at } = scene(t);
    makeAfter(at("db"), 1, "delete");
    fs.mkdirSync(at("stage"));
    const fd = fs.openSync(at("db"), "r+");
    const header = read(at("db"));
    const copied = plainCopy(fd, { path: Buffer.from(at("db")), stage: at("stage") }, { header, reason: "locked" });
    let isDone = false;
    void copied.finally(() => (isDone = true));
    for (let n = 0; !isDone; n++) {
      fs.writeSync(fd, Buffer.from([n & 0xff]), 0, 1, 9000);
      await new Promise((resolve) => setImmediate(resolve));
    }
    fs.closeSync(fd);
    assert.equal((await copied).label, "torn-possible");
    assert.match((await copied).reason ?? "", /locked; and the file was changed/);
  });

const notRoot = process.getuid?.() === 0 ? {} : { skip: "needs root to become another user" };

test("a database that this user may not write to is copied as a plain file", notRoot, (t) => {
  const { at, folder } = scene(t);
  fs.chmodSync(folder, 0o755);
  makeAfter(at("db"), 1);
  fs.chmodSync(at("db"), 0o644);
  const imports = { capture: new URL("capture.ts", import.meta.url).href, fs: "node:fs" };
  const stage = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-stage-"));
  t.after(() => fs.rmSync(stage, { recursive: true }));
  fs.chmodSync(stage, 0o777);
  const request = `{ path: Buffer.from(${JSON.stringify(at("db"))}), stage: ${JSON.stringify(stage)}, checkpoint: true, integrityCheck: false }`;
  const captured = asOrdinaryUser(imports, `return capture.capture(${request})`) as Record<string, unknown>;
  assert.deepEqual([captured["label"], captured["method"]], ["crash-consistent", "copy"]);
  assert.match(String(captured["reason"]), /may not write to it/);
  assert.deepEqual(fs.readdirSync(folder), ["db"]);
});

test("restoreDatabase writes the image, and keeps the old database with its log under the same names", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("image"), 7);
  makeUnclosed(t, at("db"), 4);
  fs.chmodSync(at("db"), 0o664);
  const old = ["db", "db-shm", "db-wal"].map((name) => fs.readFileSync(at(name)));
  const restored = await restoreDatabase(at("image"), { to: at("db"), integrityCheck: true });
  assert.ok(fs.readFileSync(at("db")).equals(fs.readFileSync(at("image"))));
  assert.equal(fs.statSync(at("db")).mode & 0o777, 0o664);
  const kept = restored.kept!;
  assert.deepEqual(fs.readdirSync(kept), ["db", "db-shm", "db-wal"]);
  assert.deepEqual(
    ["db", "db-shm", "db-wal"].map((name) => fs.readFileSync(path.join(kept, name))),
    old,
  );
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["db", path.basename(kept), "image"]);
  assert.deepEqual([commitsIn(at("db")), commitsIn(path.join(kept, "db"))], [7, 4]);
  const elsewhere = await restoreDatabase(at("image"), { to: at("new") });
  assert.deepEqual([elsewhere.kept, commitsIn(at("new"))], [null, 7]);
});

test("restoreDatabase applies the log beside a plain copy", async (t) => {
  const { at } = scene(t);
  makeUnclosed(t, at("copy"), 6);
  const restored = await restoreDatabase(at("copy"), { to: at("db") });
  assert.deepEqual([restored.recovered, fs.existsSync(at("db-wal")), commitsIn(at("db"))], [true, false, 6]);
  assert.ok(fs.statSync(at("copy-wal")).size > 0);
});

test("restoreDatabase leaves the old database unchanged if the image is damaged or not as expected", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("image"), 7);
  makeUnclosed(t, at("db"), 4);
  const looks = (): unknown => fs.readdirSync(folder).map((name) => [name, fs.readFileSync(at(name), "latin1")]);
  const bytes = fs.readFileSync(at("image"));
  const { statistics, sha256 } = await restoreDatabase(at("image"), { to: at("elsewhere") });
  fs.writeFileSync(
    at("damaged"),
    Buffer.concat([bytes.subarray(0, 4096), Buffer.alloc(4096, 1), bytes.subarray(8192)]),
  );
  fs.writeFileSync(at("cut"), bytes.subarray(0, bytes.length - 4096));
  fs.writeFileSync(at("text"), "no database");
  const before = looks();
  const to = at("db");
  await assert.rejects(restoreDatabase(at("damaged"), { to }), codeOf("damaged", /damaged/));
  await assert.rejects(restoreDatabase(at("cut"), { to }), codeOf("damaged", /./));
  await assert.rejects(restoreDatabase(at("text"), { to }), codeOf("usage", /has no header/));
  const other = { ...statistics, user_version: 3 };
  await assert.rejects(
    restoreDatabase(at("image"), { to, expected: { statistics: other } }),
    codeOf("damaged", /another schema or other rows/),
  );
  await assert.rejects(
    restoreDatabase(at("image"), { to, expected: { sha256: "0".repeat(64) } }),
    codeOf("damaged", /SHA-256/),
  );
  assert.deepEqual(looks(), before);
  assert.ok((await restoreDatabase(at("image"), { to, expected: { statistics, sha256 } })).kept !== null);
});

test("programs with an open database see the restored content after a restore through SQLite", async (t) => {
  const { at } = scene(t);
  for (const mode of ["wal", "delete"] as const) {
    makeAfter(at(`${mode}.image`), 9, mode === "wal" ? "delete" : "wal");
    makeAfter(at(mode), 2, mode);
    const open = new DatabaseSync(at(mode));
    const prepared = open.prepare("SELECT max(n) AS n FROM two");
    assert.equal(prepared.get()!["n"], 2);
    const to = at(mode);
    await assert.rejects(restoreDatabase(at(`${mode}.image`), { to }), codeOf("refused", /is open in/));
    const restored = await restoreDatabase(at(`${mode}.image`), { to, throughSqlite: true });
    assert.deepEqual([restored.through_sqlite, restored.kept], [true, null]);
    assert.equal(prepared.get()!["n"], 9);
    commit(open, 10);
    open.close();
    assert.equal(commitsIn(at(mode)), 10);
  }
});

test("a restore through SQLite refuses a change of the page size in WAL mode", async (t) => {
  const { at } = scene(t);
  makeDatabase(at("image"), "delete", 1024);
  makeAfter(at("db"), 2);
  const open = new DatabaseSync(at("db"));
  commit(open, 3);
  const options = { to: at("db"), throughSqlite: true };
  await assert.rejects(
    restoreDatabase(at("image"), options),
    codeOf("refused", /pages of 4096 bytes in WAL mode, .* pages of 1024/),
  );
  open.close();
  assert.equal(commitsIn(at("db")), 3);
});

test("a restore through SQLite warns if another program writes before the database is read again", async (t) => {
  const { at } = scene(t);
  makeAfter(at("image"), 9);
  makeAfter(at("db"), 2);
  const open = new DatabaseSync(at("db"));
  t.after(() => open.close());
  fs.writeFileSync(at("pause"), "");
  process.env["CAIRN_FAILPOINT"] = `database.written-through@${at("pause")}`;
  t.after(() => delete process.env["CAIRN_FAILPOINT"]);
  const warnings: string[] = [];
  const onWarning = (warning: string): void => void warnings.push(warning);
  const restoring = restoreDatabase(at("image"), { to: at("db"), throughSqlite: true, onWarning });
  await eventually("the content is there", () => Math.max(...stateOf(open).one) === 9);
  commit(open, 10);
  fs.rmSync(at("pause"));
  assert.equal((await restoring).read_again, false);
  assert.match(warnings.join(), /was written through SQLite, but it reads back different: another program wrote to it/);
  delete process.env["CAIRN_FAILPOINT"];
  const again = await restoreDatabase(at("image"), { to: at("db"), throughSqlite: true, onWarning });
  assert.deepEqual([again.read_again, warnings.length], [true, 1]);
});

test("a restore through SQLite succeeds repeatedly while another process writes", async (t) => {
  const { at } = scene(t);
  makeAfter(at("image"), 0);
  makeAfter(at("db"), 0);
  const writer = await Writer.start(t, at("db"));
  for (let i = 0; i < 5; i++) {
    const before = await writer.commits();
    await restoreDatabase(at("image"), { to: at("db"), throughSqlite: true });
    await eventually("the writer goes on", async () => (await writer.commits()) > before + 50);
  }
  await writer.stop();
  assert.ok(commitsIn(at("db")) > 0);
});

const WORKER_STEPS = "opened checkpointed pinned read released staged".split(" ");

test("a capture or restore whose helper is killed at any step leaves the database usable", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("db"), 1);
  const open = new DatabaseSync(at("db"));
  commit(open, 2);
  t.after(() => delete process.env["CAIRN_FAILPOINT"]);
  for (const [i, step] of WORKER_STEPS.entries()) {
    process.env["CAIRN_FAILPOINT"] = `database.${step}`;
    await assert.rejects(captureDatabase(at("db"), { to: at("image") }), codeOf("io", /ended without an answer/));
    assert.deepEqual(fs.readdirSync(folder).toSorted(), ["db", "db-shm", "db-wal"], step);
    commit(open, i + 3);
    assert.equal(open.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get()!["busy"], 0, step);
    assert.equal(othersWrite(at("db")), "written");
  }
  process.env["CAIRN_FAILPOINT"] = "database.write-through";
  makeAfter(at("other"), 30);
  const through = restoreDatabase(at("other"), { to: at("db"), throughSqlite: true });
  await assert.rejects(through, codeOf("io", /ended without an answer/));
  assert.deepEqual(fs.readdirSync(folder).toSorted(), ["db", "db-shm", "db-wal", "other"]);
  delete process.env["CAIRN_FAILPOINT"];
  assert.equal((await captureDatabase(at("db"), { to: at("image") })).method, "pinned");
  open.close();
  assert.equal(commitsIn(at("image")), WORKER_STEPS.length + 2);
});

/** Runs a call in a process of its own. */
function callElsewhere(call: string, failpoint: string): ChildProcess {
  const module = JSON.stringify(new URL("databases.ts", import.meta.url).href);
  const script = `import(${module}).then((databases) => databases.${call}).then(() => process.send("done"))`;
  const file = path.join(os.tmpdir(), `cairn-call-${process.pid}-${Math.round(performance.now() * 1000)}.mjs`);
  fs.writeFileSync(file, script);
  const child = fork(file, {
    execArgv: ["--disable-warning=ExperimentalWarning"],
    env: { ...process.env, CAIRN_FAILPOINT: failpoint },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  child.once("exit", () => fs.rmSync(file));
  return child;
}

test("a helper whose parent was killed removes unfinished files and releases the database", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("db"), 1);
  const open = new DatabaseSync(at("db"));
  commit(open, 2);
  for (const step of [...WORKER_STEPS, "backed-up"]) {
    fs.writeFileSync(at("pause"), "");
    const options = JSON.stringify({ to: at("image"), checkpoint: step !== "backed-up" });
    const child = callElsewhere(
      `captureDatabase(${JSON.stringify(at("db"))}, ${options})`,
      `database.${step}@${at("pause")}`,
    );
    const said = await once(child.stderr!, "data");
    assert.match(String(said[0]), new RegExp(`failpoint database.${step}`));
    child.kill("SIGKILL");
    await once(child, "exit");
    fs.rmSync(at("pause"));
    await eventually(
      `nothing is left after ${step}`,
      () => fs.readdirSync(folder).toSorted().join() === "db,db-shm,db-wal",
    );
    commit(open, 3);
    await eventually("no lock is left", () => open.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get()!["busy"] === 0);
  }
  open.close();
});

test("a capture that is killed before its rename leaves no file, and after it the complete image", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("db"), 5);
  for (const [step, left] of [
    ["staged", "db"],
    ["named", "db,image"],
  ] as const) {
    const call = `captureDatabase(${JSON.stringify(at("db"))}, ${JSON.stringify({ to: at("image") })})`;
    await once(callElsewhere(call, `database-capture.${step}`), "exit");
    await eventually(`${left} is left`, () => fs.readdirSync(folder).toSorted().join() === left);
  }
  assert.equal(commitsIn(at("image")), 5);
});

test("a restore that is killed at any step leaves the complete old or new database with its log", async (t) => {
  const { at, folder } = scene(t);
  makeAfter(at("image"), 7);
  const steps = ["staged", "begun", "set-aside", "set-aside:2", "named", "exchanged"];
  for (const step of steps) {
    makeUnclosed(t, at("db"), 4);
    const call = `restoreDatabase(${JSON.stringify(at("image"))}, ${JSON.stringify({ to: at("db") })})`;
    const child = callElsewhere(call, `database-restore.${step}`);
    await once(child, "exit");
    assert.equal(child.signalCode, "SIGKILL", step);
    await eventually("the helper has ended", () => !fs.readdirSync(folder).some((name) => name.endsWith(".database")));
    assert.ok(fs.existsSync(at("db")), "there is no moment without the database");
    const isDone = step === "named" || step === "exchanged";
    const wanted = isDone ? 7 : 4;
    const captured = await captureDatabase(at("db"), { to: at("after") });
    assert.equal(captured.label, "transaction-consistent", step);
    assert.equal(commitsIn(at("after")), wanted, step);
    assert.equal(commitsIn(at("db")), wanted, step);
    const kept = fs.readdirSync(folder).filter((name) => name.startsWith("db.before-"));
    assert.equal(kept.length, isDone ? 1 : 0, step);
    if (kept.length > 0) assert.equal(commitsIn(at(`${kept[0]}/db`)), 4);
    assert.deepEqual(
      fs.readdirSync(folder).filter((name) => name.startsWith(".")),
      [],
      step,
    );
    for (const name of fs.readdirSync(folder)) if (name !== "image") fs.rmSync(at(name), { recursive: true });
  }
});
