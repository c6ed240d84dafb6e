import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test, type TestContext } from "node:test";
import {
  type JournalMode,
  makeDatabase,
  stateAfter,
  stateOf,
  Writer,
} from "../../src/capture/sqlite/testing-writer.ts";
import { LiveDatabases } from "../../src/capture/sqlite/live-databases.ts";
import type { Client, SavePoint } from "../../src/contract/index.ts";
import { cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { HalfWriter, makeHalfWritten } from "../fixtures/half-writer.ts";
import { assertHeldTidy, heldPlace, type HeldKind, type HoldingEngine } from "../fixtures/held-place.ts";
import { juicefsVolume } from "../fixtures/juicefs.ts";
import { firstOf, LONG } from "../fixtures/long.ts";
import { backup, repositoryPlace, tryBackup } from "../fixtures/repository.ts";
import { cairnLibrary, pauseFile } from "../fixtures/work.ts";

/** Databases whose users take locks that Cairn cannot see, and transactions without a journal. */

/** Saves and restores of each case. */
const ROUNDS = Number(process.env["CAIRN_TEST_ROUNDS"] ?? (LONG ? 20 : 3));
/** A program commits this often, so that some copies are of a quiet moment. */
const PAUSE_MS = 150;

/** The folder that the program uses, and the same folder as Cairn sees it. */
interface Views {
  program: string;
  cairn: string;
}

/** The last shows names and sizes as they were at the first look. */
const BINDFS = {
  bindfs: [],
  "bindfs with locks": ["--multithreaded", "--enable-lock-forwarding"],
  "bindfs that remembers": ["-o", "attr_timeout=3600,entry_timeout=3600"],
} as const;
type PlaceKind = keyof typeof BINDFS | "overlay" | "juicefs";
const CASES: readonly (readonly [PlaceKind, JournalMode])[] = [
  ["bindfs", "delete"],
  ["bindfs with locks", "wal"],
  ["overlay", "wal"],
  ["bindfs with locks", "persist"],
  ["bindfs", "wal"],
  ["overlay", "delete"],
  ["juicefs", "wal"],
  ["juicefs", "delete"],
  ["bindfs", "persist"],
  ["bindfs", "truncate"],
];

let count = 0;

/** Null where such a mount cannot be made: the test is skipped. */
function viewsOf(t: TestContext, kind: PlaceKind): Views | null {
  if (kind === "juicefs") {
    const volume = juicefsVolume(t, "real");
    return volume === null ? null : { program: volume.root, cairn: volume.root };
  }
  const folder = path.join(SCRATCH, `unseen-${++count}`);
  const [below, above, lower, work] = ["below", "above", "lower", "work"].map((name) => path.join(folder, name));
  for (const each of [below!, above!, lower!, work!]) fs.mkdirSync(each, { recursive: true });
  const layers = `lowerdir=${lower},upperdir=${below},workdir=${work}`;
  const [program, args] =
    kind === "overlay"
      ? ["mount", ["-t", "overlay", "overlay", "-o", layers, above!]]
      : ["bindfs", [...BINDFS[kind], below!, above!]];
  const made = spawnSync(program, args, { encoding: "utf8" });
  if (made.status !== 0) {
    t.skip(`no ${kind} here: ${made.error?.message ?? made.stderr}`);
    return null;
  }
  t.after(() => void spawnSync("umount", ["-l", above!]));
  return { program: below!, cairn: above! };
}

/** The number of commits in a database, or why it is damaged. */
function commitsIn(file: string): number | string {
  try {
    const database = new DatabaseSync(file);
    try {
      const check = String(database.prepare("PRAGMA integrity_check").get()!["integrity_check"]);
      if (check !== "ok") return check;
      const { one, two } = stateOf(database);
      const newest = Math.max(...one);
      assert.deepEqual([one, two], [stateAfter(newest), stateAfter(newest)]);
      return newest;
    } finally {
      database.close();
    }
  } catch (error) {
    return (error as Error).message;
  }
}

/** Saves, and requires that the label is true of a restored copy. Returns the label. */
async function savedTruly(client: Client, to: string): Promise<string> {
  const point: SavePoint = await client.save({ reread: true });
  const [{ label, reason }] = point.labels as [SavePoint["labels"][0]];
  assert.equal(point.complete, label !== "torn-possible", JSON.stringify(point.labels));
  await client.restore({ target: point.save_point_id, to });
  const found = commitsIn(path.join(to, "app.db"));
  if (label !== "torn-possible") assert.equal(typeof found, "number", `${label} (${reason}): ${found}`);
  fs.rmSync(to, { recursive: true });
  return label;
}

describe("a database whose program may take locks that Cairn does not see", () => {
  for (const [kind, mode] of firstOf(CASES, 4))
    test(`save never harms it, and its label is true: ${kind}, journal mode ${mode}`, async (t) => {
      const views = viewsOf(t, kind);
      if (views === null) return;
      const file = path.join(views.program, "ws", "app.db");
      const folder = path.join(views.cairn, "ws");
      fs.mkdirSync(path.dirname(file));
      makeDatabase(file, mode);
      const client = await (await cairnLibrary()).init(folder, { engineType: "copy" });
      const writer = await Writer.start(t, file, "FULL", { mode, pauseMs: PAUSE_MS });
      const to = path.join(SCRATCH, `unseen-${count}-${kind}-${mode}`);
      const busy: Record<string, number> = {};
      for (let i = 0; i < ROUNDS; i++) {
        const label = await savedTruly(client, to);
        busy[label] = (busy[label] ?? 0) + 1;
      }
      await writer.stop();
      t.diagnostic(JSON.stringify(busy));
      assert.equal(typeof commitsIn(file), "number", "the program's own database");
      // Locks that a server keeps are everybody's, but the memory of a log's index is one mount's.
      const isSeen = kind === "juicefs" || (kind === "bindfs with locks" && mode !== "wal");
      if (isSeen) assert.deepEqual(Object.keys(busy), ["transaction-consistent"]);
      else assert.equal(busy["transaction-consistent"], undefined);
      // A FUSE mount shows for a second the log that the program removed.
      const log = path.join(folder, "app.db-wal");
      const isLogThere = (): boolean => fs.existsSync(path.join(views.program, "ws", "app.db-wal"));
      if (kind.startsWith("bindfs"))
        await eventually("the mount shows the present names", () => fs.existsSync(log) === isLogThere());
      const idle = await savedTruly(client, to);
      const isOwn = isSeen || kind === "bindfs with locks";
      assert.equal(idle, isOwn ? "transaction-consistent" : "crash-consistent");
      const open = new DatabaseSync(file);
      t.after(() => open.close());
      open.exec("SELECT count(*) FROM one; UPDATE one SET n = -1 WHERE id = 0");
      await assert.rejects(client.restore({ target: "latest" }), { code: "refused" });
      assert.equal(open.prepare("SELECT n FROM one WHERE id = 0").get()!["n"], -1);
    });
});

describe("a database whose program uses it through a FUSE above the folder that Cairn sees", () => {
  for (const verb of ["save", "capture"] as const)
    test(`${verb} leaves an empty log in its place`, async (t) => {
      const views = viewsOf(t, "bindfs");
      if (views === null) return;
      const [program, folder] = [views.cairn, views.program];
      const open = new DatabaseSync(path.join(program, "app.db"));
      t.after(() => open.close());
      open.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (n); PRAGMA wal_checkpoint(TRUNCATE)");
      const to = path.join(SCRATCH, `above-${count}.db`);
      if (verb === "save") cairnOk(["save", folder]);
      else cairnOk(["database", "capture", path.join(folder, "app.db"), "--to", to]);
      assert.equal(fs.existsSync(path.join(folder, "app.db-wal")), true);
      open.exec("INSERT INTO t VALUES (1)");
      const other = new DatabaseSync(path.join(program, "app.db"));
      t.after(() => other.close());
      assert.deepEqual(other.prepare("SELECT n FROM t").all().length, 1);
    });

  test("a database whose log is gone, though the mount still shows its name, is a plain copy", async (t) => {
    const views = viewsOf(t, "bindfs that remembers");
    if (views === null) return;
    const open = new DatabaseSync(path.join(views.program, "app.db"));
    t.after(() => open.isOpen && open.close());
    open.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (n)");
    const log = path.join(views.cairn, "app.db-wal");
    assert.ok(fs.statSync(log).size > 0);
    open.close();
    assert.deepEqual([fs.existsSync(path.join(views.program, "app.db-wal")), fs.existsSync(log)], [false, true]);
    const scratch = fs.mkdtempSync(path.join(SCRATCH, "gone-"));
    const databases = new LiveDatabases();
    t.after(() => databases.close());
    const held = await databases.hold(Buffer.from(path.join(views.cairn, "app.db")), { how: "own", scratch });
    assert.deepEqual([held?.label, held?.sidecars], ["crash-consistent", []]);
    assert.equal(await held?.release(), true);
  });

  test("a journal that appears during a capture is not rolled back", async (t) => {
    const views = viewsOf(t, "bindfs");
    if (views === null) return;
    const [program, folder] = [views.cairn, views.program];
    const open = new DatabaseSync(path.join(program, "app.db"));
    t.after(() => open.close());
    open.exec(`PRAGMA cache_size = 5; CREATE TABLE t (id INTEGER PRIMARY KEY, n, padding);
      WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 400)
      INSERT INTO t SELECT x, 0, hex(randomblob(400)) FROM c`);
    const pause = pauseFile();
    const to = path.join(SCRATCH, `above-${count}.db`);
    const args = ["database", "capture", path.join(folder, "app.db"), "--to", to];
    const running = startCairn(args, { failpoint: `database.opened@${pause}` });
    await running.paused;
    open.exec("BEGIN; UPDATE t SET n = 1");
    fs.rmSync(pause);
    await running.ended;
    assert.equal(fs.existsSync(path.join(folder, "app.db-journal")), true);
    open.exec("COMMIT");
    assert.equal(open.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
    assert.equal(open.prepare("SELECT count(*) AS count FROM t WHERE n = 1").get()!["count"], 400);
  });

  test("a copy during which its file changes is not called transaction-consistent", async (t) => {
    const views = viewsOf(t, "bindfs");
    if (views === null) return;
    const [program, folder] = [views.cairn, views.program];
    const open = new DatabaseSync(path.join(program, "app.db"));
    t.after(() => open.close());
    open.exec("PRAGMA journal_mode = MEMORY; CREATE TABLE t (n)");
    const pause = pauseFile();
    const to = path.join(SCRATCH, `above-${count}.db`);
    const args = ["database", "capture", path.join(folder, "app.db"), "--to", to, "--method", "backup"];
    const running = startCairn(args, { failpoint: `database.pinned@${pause}` });
    await running.paused;
    open.exec("INSERT INTO t VALUES (1)");
    fs.rmSync(pause);
    const { data } = await running.ended;
    assert.equal(data["label"], "crash-consistent");
    assert.match(String(data["reason"]), /changed although Cairn held SQLite's lock/);
  });
});

const ENGINES: readonly (readonly [HeldKind, HoldingEngine | "copy"])[] = [
  ["btrfs", "btrfs-snapshot"],
  ["xfs", "reflink-copy"],
  ["ext4", "copy"],
];

describe("half a transaction that has no journal on the disk", () => {
  for (const [at, [kind, engine]] of ENGINES.entries())
    for (const mode of firstOf(
      (["memory", "off"] as const).toSorted(() => (at % 2 === 0 ? 1 : -1)),
      1,
    ))
      test(`save, backup create and database capture call it torn-possible and exit 10: ${engine}, ${mode}`, async (t) => {
        const place = await heldPlace(t, { kind, engine: engine as HoldingEngine });
        if (place === null) return;
        const { folder, client } = place;
        const file = path.join(folder, "app.db");
        const writer = await HalfWriter.start(t, file, mode);
        const saved = cairn(["save", folder]);
        assert.equal(saved.status, 10, saved.stdout);
        await client.seal();
        const { labels, complete } = (await client.show("latest")).save_point;
        assert.deepEqual([labels.map(({ label }) => label), complete], [["torn-possible"], false]);
        assert.match(labels[0]!.reason!, /MEMORY or OFF/);
        const { location, passwordFile } = repositoryPlace(`half-${engine}`);
        const repository = { location, passwordFile, options: ["-r", location, "--password-file", passwordFile] };
        backup(repository, "init");
        assert.equal(tryBackup(repository, "create", folder).status, 10);
        const to = path.join(SCRATCH, `half-${engine}.db`);
        const captured = cairn(["database", "capture", file, "--to", to]);
        assert.equal(captured.status, 10, captured.stdout);
        await writer.commit();
        assert.equal(cairnOk(["save", folder]).status, 0);
        await client.seal();
        const after = (await client.show("latest")).save_point;
        assert.deepEqual([after.labels.map(({ label }) => label), after.complete], [["transaction-consistent"], true]);
      });
});

describe("a transaction without a journal that begins and ends between two looks at a database's locks", () => {
  for (const mode of ["memory", "off"] as const)
    for (const known of [false, true])
      test(`no label calls half of it whole: ${mode}, ${known ? "of an earlier point" : "in the first point"}`, async (t) => {
        const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
        if (place === null) return;
        const { folder, client } = place;
        const file = path.join(folder, "app.db");
        makeHalfWritten(file).close();
        if (known) {
          await client.save();
          await client.seal();
        }
        const pause = pauseFile();
        const running = startCairn(["save", folder], { failpoint: `databases.asked@${pause}` });
        await running.paused;
        const writer = await HalfWriter.start(t, file, mode);
        fs.rmSync(pause);
        await running.ended;
        await writer.commit();
        await client.seal();
        const { labels, complete } = (await client.show("latest")).save_point;
        assert.deepEqual([labels.map(({ label }) => label), complete], [["torn-possible"], false]);
        assert.match(labels[0]!.reason!, /MEMORY or OFF/);
        await client.save();
        await client.seal();
        const after = (await client.show("latest")).save_point;
        assert.deepEqual([after.labels.map(({ label }) => label), after.complete], [["transaction-consistent"], true]);
      });

  test("a save that is killed between its two snapshots leaves nothing, and the next save is whole", async (t) => {
    const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
    if (place === null) return;
    const { folder, client } = place;
    const file = path.join(folder, "app.db");
    makeHalfWritten(file).close();
    await client.save();
    await client.seal();
    const code = `const { DatabaseSync } = require("node:sqlite");
      const database = new DatabaseSync(process.argv[1]);
      database.exec("PRAGMA journal_mode = memory; PRAGMA busy_timeout = 60000");
      process.once("SIGTERM", () => process.exit());
      const write = () => (database.exec("UPDATE t SET n = n + 1"), setImmediate(write));
      write();`;
    const writer = spawn(process.execPath, ["--no-warnings", "-e", code, file], { stdio: "inherit" });
    t.after(() => void writer.kill("SIGKILL"));
    await eventually("no save finds a changed database", () => {
      const done = cairn(["save", folder], { failpoint: "databases.taken-back" });
      return done.killed;
    });
    const ended = once(writer, "exit");
    writer.kill("SIGTERM");
    await ended;
    const [before] = (await client.history()).save_points;
    assert.equal(cairnOk(["save", folder]).status, 0);
    await client.seal();
    const [last] = (await client.history()).save_points;
    assert.notEqual(last!.save_point_id, before!.save_point_id);
    assert.equal(last!.complete, true);
    assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["findings"], []);
    assert.deepEqual(cairnOk(["-C", folder, "verify", "--all"]).data["problems"], []);
    assertHeldTidy(place, "killed between two snapshots");
  });
});
