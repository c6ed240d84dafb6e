import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { text } from "node:stream/consumers";
import { after, before, describe, test, type TestContext } from "node:test";
import { cairn, cairnOk, type Outcome, type RunOptions, SCRATCH, startCairn } from "../fixtures/command.ts";
import { DatabaseHolder, whyNoNamespaces } from "../fixtures/database-holder.ts";
import { eventually } from "../fixtures/eventually.ts";
import { makeHoldable } from "../fixtures/held-place.ts";
import { firstOf } from "../fixtures/long.ts";
import { loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Databases that a process has open which a restore cannot see, on each engine and in each journal mode. */

const MODES = ["wal", "delete"] as const;
type Engine = "copy" | "btrfs-snapshot" | "reflink-copy";
type Mode = (typeof MODES)[number];

const FAR = ["unshare", "--pid", "--mount", "--fork", "--mount-proc"];
/** Where the command runs, and the program that has the database open. */
const VIEWS = {
  "the same namespaces": { of: {}, holder: [] },
  "another PID namespace": { of: { prefix: FAR }, holder: [] },
  "another mount namespace": { of: { prefix: FAR }, holder: ["unshare", "--mount"] },
} as const;

type View = keyof typeof VIEWS;
const [SEEN, PID, MOUNT] = ["the same namespaces", "another PID namespace", "another mount namespace"] as const;
const CASES: readonly (readonly [Engine, Mode, ...View[]])[] = [
  ["copy", "wal", PID, MOUNT, SEEN],
  ["btrfs-snapshot", "delete", MOUNT, PID, SEEN],
  ["reflink-copy", "wal", PID, MOUNT, SEEN],
  ["copy", "delete", PID, MOUNT, SEEN],
  ["btrfs-snapshot", "wal", PID, MOUNT, SEEN],
  ["reflink-copy", "delete", PID, MOUNT, SEEN],
];

const skip = whyNoNamespaces() ?? false;

function makeDatabase(file: string, mode: Mode): void {
  const database = new DatabaseSync(file);
  database.exec(`PRAGMA journal_mode = ${mode}; CREATE TABLE t (v); INSERT INTO t VALUES ('saved')`);
  database.close();
}

/** A row that tells two states apart, by a program that has ended. */
function add(file: string, row: string): void {
  const database = new DatabaseSync(file);
  database.exec(`INSERT INTO t VALUES ('${row}')`);
  database.close();
}

/** The rows of a database that must be whole. */
function rowsOf(file: string): string[] {
  const database = new DatabaseSync(file);
  try {
    assert.equal(database.prepare("PRAGMA integrity_check").get()!["integrity_check"], "ok");
    return database
      .prepare("SELECT v FROM t")
      .all()
      .map(({ v }) => String(v));
  } finally {
    database.close();
  }
}

let count = 0;
function scene(t: TestContext, engine: Engine, mode: Mode): { folder: string; file: string } | null {
  const volume =
    engine === "copy"
      ? { root: path.join(SCRATCH, `held-${++count}`) }
      : loopFileSystem(t, engine === "btrfs-snapshot" ? "btrfs" : "xfs");
  if (volume === null) return null;
  fs.mkdirSync(volume.root, { recursive: true });
  const folder = path.join(volume.root, "ws");
  makeHoldable(folder, engine);
  const file = path.join(folder, "app.db");
  makeDatabase(file, mode);
  fs.writeFileSync(path.join(folder, "notes"), "one");
  cairnOk(["init", folder, "--engine", engine]);
  cairnOk(["save", folder]);
  add(file, "later");
  fs.writeFileSync(path.join(folder, "notes"), "two");
  return { folder, file };
}

function requireRefused(done: Outcome, what: string): void {
  assert.deepEqual([done.status, done.error?.code], [7, "refused"], `${what}: ${done.stdout}${done.stderr}`);
  assert.match(done.error!.message, /app\.db/, what);
  assert.match(`${done.error!.hint}`, /--through-sqlite/, what);
}

describe("a database that a process has open", { skip }, () => {
  for (const [i, [engine, mode, ...views]] of firstOf(CASES, 3).entries())
    for (const view of firstOf(views, 1))
      test(`restore refuses to replace a database that is open in ${view}: ${engine}, ${mode}`, async (t) => {
        const made = scene(t, engine, mode);
        if (made === null) return;
        const { folder, file } = made;
        const { of, holder: prefix } = VIEWS[view];
        const options: RunOptions = { ...of, cwd: folder, own: true };
        const holder = await DatabaseHolder.start(t, file, { prefix, busy: i % 2 === 1 });
        const ways = [
          ["restore", "head", "app.db"],
          ["restore", "head", "--method", "exchange"],
        ];
        for (const way of ways) {
          const inode = fs.statSync(file).ino;
          requireRefused(cairn(way, options), way.join(" "));
          assert.equal(await holder.write(), "ok", way.join(" "));
          assert.equal(fs.statSync(file).ino, inode);
          assert.equal(fs.readFileSync(path.join(folder, "notes"), "utf8"), "two");
        }
        const { changes } = cairnOk(["restore", "head", "--through-sqlite"], options).data as {
          changes: { updated: number };
        };
        assert.equal(changes.updated, 2, "the database counts");
        assert.equal(await holder.write(), "ok");
        assert.equal(fs.readFileSync(path.join(folder, "notes"), "utf8"), "one");
        // What the process has written since is an edit: the rest is undone.
        const undone = cairn(["undo"], options);
        assert.equal(undone.status, 10, undone.stdout);
        const { left_out: left, restored_to: to } = undone.data as {
          left_out: { path: string }[];
          restored_to: string;
        };
        assert.deepEqual([...new Set(left.map(({ path: name }) => name.split("-")[0]))], ["app.db"]);
        assert.equal(fs.readFileSync(path.join(folder, "notes"), "utf8"), "two");
        assert.equal(await holder.write(), "ok");
        // A process that writes beside the restore leaves pages that the undo cannot know as its own.
        cairnOk(["undo", "--over", "--through-sqlite"], options);
        assert.equal(await holder.write(), "ok");
        await holder.stop();
        assert.ok(rowsOf(file).includes("later"));
        cairnOk(["restore", to, "app.db"], options);
        assert.ok(rowsOf(file).includes("later"));
      });

  test("database restore, database capture and backup restore refuse to replace an open database", async (t) => {
    const made = scene(t, "copy", "delete");
    if (made === null) return;
    const { folder, file } = made;
    const options: RunOptions = { prefix: FAR, cwd: folder, own: true };
    const [image, repository] = [path.join(SCRATCH, "image.db"), path.join(SCRATCH, "repository")];
    cairnOk(["database", "capture", file, "--to", image]);
    const env = { CAIRN_PASSWORD: "secret", CAIRN_REPOSITORY: repository };
    cairnOk(["backup", "init"], { env });
    cairnOk(["backup", "create", folder], { env });
    add(file, "newest");
    const holder = await DatabaseHolder.start(t, file);
    const over = ["backup", "restore", "latest", "--to", folder, "--overwrite", "always"];
    for (const way of [
      ["database", "restore", image, "--to", file],
      ["database", "capture", image, "--to", file, "--overwrite"],
      ["backup", "restore", "latest", "--in-place"],
      over,
    ]) {
      const done = cairn(way, { ...options, env });
      assert.deepEqual(
        [done.status, done.error?.code],
        [7, "refused"],
        `${way.join(" ")}: ${done.stdout}${done.stderr}`,
      );
      assert.equal(await holder.write(), "ok", way.join(" "));
    }
    await holder.stop();
    cairnOk(over, { ...options, env });
    assert.ok(!rowsOf(file).includes("newest"));
  });

  test("restore keeps the journal of an open database if ignore rules hide the journal", async (t) => {
    const made = scene(t, "copy", "delete");
    if (made === null) return;
    const { folder, file } = made;
    fs.writeFileSync(path.join(folder, ".cairnignore"), "*-journal\n");
    cairnOk(["save", folder]);
    add(file, "newest");
    const database = new DatabaseSync(file);
    t.after(() => database.close());
    database.exec("PRAGMA cache_size = 1; BEGIN IMMEDIATE");
    for (let i = 0; i < 100; i++) database.exec(`INSERT INTO t VALUES ('${"x".repeat(999)}')`);
    const journal = fs.readFileSync(`${file}-journal`);
    for (const words of [
      ["restore", "head"],
      ["restore", "head", "app.db"],
    ]) {
      const done = cairn(words, { prefix: FAR, cwd: folder, own: true });
      requireRefused(done, words.join(" "));
      assert.match(done.error!.message, /is open in/);
      assert.doesNotMatch(`${done.error!.hint}`, /move/);
    }
    assert.deepEqual(fs.readFileSync(`${file}-journal`), journal);
    database.exec("COMMIT");
    cairnOk(["restore", "head", "--through-sqlite"], { prefix: FAR, cwd: folder, own: true });
    assert.deepEqual(rowsOf(file), ["saved", "later"]);
  });

  for (const way of ["restore", "database restore"] as const)
    test(`${way} puts a database back if a program opens it during the exchange`, async (t) => {
      const made = scene(t, "copy", "wal");
      if (made === null) return;
      const { folder, file } = made;
      const [image, wait] = [`${folder}.image`, `${folder}.wait`];
      cairnOk(["database", "capture", file, "--to", image]);
      add(file, "newest");
      fs.writeFileSync(wait, "");
      const { ino } = fs.statSync(file);
      const [words, failpoint, status] =
        way === "restore"
          ? [["restore", "head"], "restore.database-step", 10]
          : [["database", "restore", image, "--to", file], "database-restore.named", 7];
      const running = startCairn(words, { cwd: folder, failpoint: `${failpoint}@${wait}` });
      await running.paused;
      assert.notEqual(fs.statSync(file).ino, ino);
      // A program that found the old file waits for the lease on it.
      const found = spawnSync("find", [SCRATCH, "-inum", String(ino)], { encoding: "utf8" }).stdout.trim();
      const opener = spawn("head", ["-c", "6", found], { stdio: ["ignore", "pipe", "inherit"] });
      const said = text(opener.stdout);
      t.after(() => opener.kill("SIGKILL"));
      await eventually("the program waits", () => fs.readFileSync("/proc/locks", "utf8").includes("BREAKING"));
      fs.rmSync(wait);
      assert.equal((await running.ended).status, status);
      assert.equal(fs.statSync(file).ino, ino);
      assert.equal(await said, "SQLite");
      assert.ok(rowsOf(file).includes("newest"));
    });

  test("restore --method exchange is refused if a program opens a database during the exchange", async (t) => {
    const made = scene(t, "btrfs-snapshot", "wal");
    if (made === null) return;
    const { folder, file } = made;
    const options: RunOptions = { prefix: FAR, cwd: folder, own: true };
    const words = ["restore", "head", "--method", "exchange"];
    const wait = `${folder}.wait`;
    fs.writeFileSync(wait, "");
    const running = startCairn(words, { ...options, failpoint: `exchange.known@${wait}` });
    await running.paused;
    const opening = DatabaseHolder.start(t, file);
    await eventually("the program waits", () => fs.readFileSync("/proc/locks", "utf8").includes("BREAKING"));
    fs.rmSync(wait);
    requireRefused(await running.ended, words.join(" "));
    const holder = await opening;
    assert.equal(await holder.write(), "ok");
    await holder.stop();
    assert.ok(rowsOf(file).includes("later"));
    assert.equal(cairnOk(words, options).data["method"], "exchange");
    assert.deepEqual(rowsOf(file), ["saved"]);
  });

  test("restore --method exchange keeps late writes to an unchanged file that a program opened just before", async (t) => {
    const made = scene(t, "btrfs-snapshot", "wal");
    if (made === null) return;
    const { folder } = made;
    const [log, notes, wait] = [path.join(folder, "log"), path.join(folder, "notes"), `${folder}.wait`];
    fs.writeFileSync(log, "");
    cairnOk(["save", folder]);
    fs.writeFileSync(notes, "three");
    fs.writeFileSync(wait, "");
    const words = ["-C", folder, "restore", "head", "--method", "exchange"];
    const running = startCairn(words, { failpoint: `exchange.known@${wait}` });
    await running.paused;
    const program = spawn("sh", ["-c", 'exec >> "$0"; echo open >&2; read -r line; echo late', log], { stdio: "pipe" });
    t.after(() => program.kill("SIGKILL"));
    await once(program.stderr, "data");
    fs.rmSync(wait);
    assert.equal((await running.ended).status, 0);
    program.stdin.end("go\n");
    await once(program, "exit");
    assert.deepEqual([fs.readFileSync(log, "utf8"), fs.readFileSync(notes, "utf8")], ["late\n", "two"]);
  });

  test("restore removes a database that a killed program left, and undo gives its rows back", (t) => {
    const made = scene(t, "copy", "wal");
    if (made === null) return;
    const { folder } = made;
    const left = path.join(folder, "new", "left.db");
    fs.mkdirSync(path.dirname(left));
    const script = `const { DatabaseSync } = require("node:sqlite"); const database = new DatabaseSync(process.argv[1]);
      database.exec("PRAGMA journal_mode = wal; CREATE TABLE t (v); INSERT INTO t VALUES ('left')"); process.kill(process.pid, 9)`;
    spawnSync(process.execPath, ["-e", script, left]);
    assert.deepEqual(fs.readdirSync(path.dirname(left)), ["left.db", "left.db-shm", "left.db-wal"]);
    cairnOk(["-C", folder, "restore", "head"]);
    assert.equal(fs.existsSync(path.dirname(left)), false);
    cairnOk(["-C", folder, "undo"]);
    assert.deepEqual(rowsOf(left), ["left"]);
  });

  test("a restore killed while it exchanges a database leaves a consistent database after recovery", async (t) => {
    const made = scene(t, "copy", "wal");
    if (made === null) return;
    const { folder, file } = made;
    const killed = cairn(["restore", "head"], { cwd: folder, failpoint: "restore.database-step", own: true });
    assert.ok(killed.killed);
    cairn(["history"], { cwd: folder });
    cairnOk(["verify", "--all"], { cwd: folder });
    assert.deepEqual(rowsOf(file), ["saved"]);
    cairnOk(["undo"], { cwd: folder });
    assert.ok(rowsOf(file).includes("later"));
  });

  test("recovery of a killed restore does not replace a database that a program has opened since", async (t) => {
    const made = scene(t, "copy", "wal");
    if (made === null) return;
    const { folder, file } = made;
    const killed = cairn(["restore", "head"], { cwd: folder, failpoint: "restore.committed", own: true });
    assert.ok(killed.killed);
    const holder = await DatabaseHolder.start(t, file);
    cairn(["history"], { prefix: FAR, cwd: folder, own: true });
    assert.equal(await holder.write(), "ok");
    await holder.stop();
    assert.ok(rowsOf(file).includes("later"));
  });
});

describe("a database that another user's process has open", { skip: whyNoOrdinaryUser() ?? false }, () => {
  let user: OrdinaryUser;
  before(() => (user = installForOrdinaryUser()));
  after(() => user.remove());

  for (const mode of MODES)
    test(`restore refuses to replace a database that another user's process has open: ${mode}`, async (t) => {
      const folder = path.join(user.place, `work-${mode}`);
      fs.mkdirSync(folder);
      const file = path.join(folder, "app.db");
      makeDatabase(file, mode);
      spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
      const options = user.optionsIn(folder);
      cairnOk(["save", folder], options);
      add(file, "later");
      const holder = await DatabaseHolder.start(t, file);
      requireRefused(cairn(["restore", "head"], options), "restore");
      assert.equal(await holder.write(), "ok");
      await holder.stop();
      cairnOk(["restore", "head"], options);
      assert.deepEqual(rowsOf(file), ["saved"]);
    });

  test("restore refuses to replace another user's database if Cairn cannot find out who has it open", async (t) => {
    const folder = path.join(user.place, "others");
    fs.mkdirSync(folder);
    const file = path.join(folder, "app.db");
    makeDatabase(file, "delete");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    const options = user.optionsIn(folder);
    cairnOk(["save", folder], options);
    add(file, "later");
    fs.chownSync(file, 0, 0);
    fs.chmodSync(file, 0o666);
    const holder = await DatabaseHolder.start(t, file);
    const done = cairn(["restore", "head"], options);
    requireRefused(done, "restore");
    assert.match(done.error!.message, /Cairn cannot find out/);
    assert.equal(await holder.write(), "ok");
    await holder.stop();
  });
});
