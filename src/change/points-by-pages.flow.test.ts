import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import {
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { backupScene } from "../backup/testing-far.ts";
import type { Client } from "../contract/index.ts";
import { EmbeddedStore } from "../workspace/store/embedded-store.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { testFolder } from "../keep/testing-folder.ts";

const FILE = "data/app.db";

/** Writes a database of about 2 MB with pages of 4096 bytes. */
function makeDatabase(file: string): void {
  const database = new DatabaseSync(file);
  database.exec("PRAGMA synchronous = OFF; CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB); BEGIN");
  const insert = database.prepare("INSERT INTO t VALUES (?, ?)");
  for (let id = 0; id < 500; id++) insert.run(id, randomBytes(3900));
  database.exec("COMMIT");
  database.close();
}

function update(file: string, ids: readonly number[]): void {
  const database = new DatabaseSync(file);
  const row = database.prepare("UPDATE t SET content = ? WHERE id = ?");
  for (const id of ids) row.run(randomBytes(3900), id);
  database.close();
}

interface Saved {
  id: string;
  bytes: Buffer;
  state: string;
  stored: number;
}

/** Makes points of a database, each after a change of a few pages. */
async function makePoints(at: { client: Client; folder: string }, count: number): Promise<Saved[]> {
  const file = join(at.folder, FILE);
  const points: Saved[] = [];
  makeDatabase(file);
  for (let n = 0; n < count; n++) {
    if (n > 0) update(file, [n, 100 + n, 499 - n]);
    const { save_point_id: id, bytes_stored: stored, payload_root_hash: digest } = await at.client.save();
    const { state } = walkDigests(at.folder);
    assert.equal(digest, state);
    points.push({ id, bytes: readFileSync(file), state, stored });
  }
  return points;
}

async function scene(t: TestContext, count = 3) {
  const at = await testFolder(t, { "x.txt": "x", "data/y.txt": "y" });
  return { ...at, file: join(at.folder, FILE), points: await makePoints(at, count) };
}

function changedPages(before: Buffer, now: Buffer): Buffer {
  const pages: Buffer[] = [];
  for (let at = 0; at < now.length; at += 4096) {
    const page = now.subarray(at, at + 4096);
    if (!page.equals(before.subarray(at, at + 4096))) pages.push(page);
  }
  return Buffer.concat(pages);
}

async function assertRestored(client: Client, points: readonly Saved[], root: string): Promise<void> {
  for (const { id, state } of points) {
    const to = join(root, `restored-${id}`);
    await client.restore({ target: id, to });
    assert.equal(walkDigests(to).state, state);
    rmSync(to, { recursive: true });
  }
}

test("a point stores little more than the changed pages of a database, and readers see the plain file", async (t) => {
  const { client, root, folder, file, points } = await scene(t, 5);
  for (const [n, { bytes, stored }] of points.entries()) {
    const changed = n === 0 ? bytes : changedPages(points[n - 1]!.bytes, bytes);
    assert.ok(stored < zstdCompressSync(changed).length + 24_000, `point ${n}: ${stored} of ${changed.length}`);
  }
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  assert.deepEqual((await client.doctor()).findings, []);
  await assertRestored(client, points, root);
  for (const { id, bytes } of points) {
    const pieces: Uint8Array[] = [];
    for await (const piece of client.read(id, FILE)) pieces.push(piece);
    assert.ok(Buffer.concat(pieces).equals(bytes));
  }
  const changes = (await client.diff(points[1]!.id, points[3]!.id)).entries.map(({ path }) => path);
  assert.ok(changes.includes(FILE) && !changes.includes("x.txt"), changes.join());
  await client.restore({ target: points[1]!.id });
  assert.equal(walkDigests(folder).state, points[1]!.state);
  await client.undo();
  assert.ok(readFileSync(file).equals(points[4]!.bytes));
  const again = await client.save();
  assert.deepEqual([again.unchanged, again.payload_root_hash], [true, points[4]!.state]);
});

test("a database by pages becomes a plain file again if half of it changed, or if it gets a second name", async (t) => {
  const { client, root, folder, file, points } = await scene(t);
  const save = async (): Promise<void> => {
    const { save_point_id: id, payload_root_hash: digest } = await client.save();
    const { state } = walkDigests(folder);
    assert.equal(digest, state);
    points.push({ id, bytes: readFileSync(file), state, stored: 0 });
  };
  linkSync(file, join(folder, "second.db"));
  await save();
  unlinkSync(join(folder, "second.db"));
  await save();
  update(file, [5]);
  await save();
  update(
    file,
    Array.from({ length: 400 }, (_, id) => id),
  );
  await save();
  update(file, [6]);
  await save();
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  await assertRestored(client, points, root);
});

/** Keeps a database open in WAL mode; each line of its input makes a transaction after which the sum of `n` is 0 again. */
const KEEPS_OPEN = `const { DatabaseSync } = require("node:sqlite"), { randomBytes } = require("node:crypto");
  const database = new DatabaseSync(process.argv[1], { timeout: 60_000 });
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; ALTER TABLE t ADD COLUMN n INTEGER DEFAULT 0");
  const row = database.prepare("UPDATE t SET content = ?, n = n + ? WHERE id = ?");
  const change = () => {
    database.exec("BEGIN IMMEDIATE");
    for (const by of [1, 1, 1, 1, -4]) row.run(randomBytes(3900), by, Math.floor(Math.random() * 500));
    database.exec("COMMIT");
  };
  change();
  console.log("ready");
  process.stdin.on("data", (line) => {
    change();
    console.log("changed");
    // Fewer pages than those after which a point stores all again.
    if (String(line) === "go on\\n") for (let n = 1; n <= 30; n++) setTimeout(change, n * 30);
  });`;

test("a point of a database that a program keeps open in WAL mode is one transaction, and stores its changed pages", async (t) => {
  const { client, root, file } = await scene(t, 1);
  const program = spawn(process.execPath, ["-e", KEEPS_OPEN, file], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => program.kill("SIGKILL"));
  await once(program.stdout, "data");
  let before: Buffer | null = null;
  for (const order of ["change", "change", "go on", "change"]) {
    program.stdin.write(`${order}\n`);
    await once(program.stdout, "data");
    const saved = await client.save();
    assert.deepEqual(
      saved.labels.map(({ label }) => label),
      ["transaction-consistent"],
    );
    const to = join(root, `restored-${saved.save_point_id}`);
    await client.restore({ target: saved.save_point_id, to });
    const image = readFileSync(join(to, FILE));
    const database = new DatabaseSync(join(to, FILE));
    assert.deepEqual({ ...database.prepare("SELECT sum(n) AS sum FROM t").get() }, { sum: 0 });
    assert.deepEqual({ ...database.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
    database.close();
    const changed = before === null ? null : changedPages(before, image);
    if (changed !== null)
      assert.ok(saved.bytes_stored < changed.length + 24_000, `${saved.bytes_stored} of ${changed.length}`);
    before = image;
  }
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
});

test("points by pages stay whole when earlier points are removed and the store is cleaned", async (t) => {
  const { client, root, folder, file, points } = await scene(t, 4);
  const { removed } = await client.runCleanup({ retention: { keepLast: 1 } });
  assert.equal(removed.length, 3);
  update(file, [9]);
  const { save_point_id: id } = await client.save();
  const last = { id, bytes: readFileSync(file), state: walkDigests(folder).state, stored: 0 };
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  await assertRestored(client, [points[3]!, last], root);
});

test("a fork, and a removal of paths, keep databases by pages", async (t) => {
  const { client, library, root, points } = await scene(t);
  const fork = join(root, "fork");
  await client.fork(points[1]!.id, fork);
  assert.equal(walkDigests(fork).state, points[1]!.state);
  update(join(fork, FILE), [3]);
  await using other = await library.open(fork);
  const { bytes_stored: stored } = await other.save();
  assert.ok(stored < 40_000, String(stored));
  await client.removePaths({ paths: ["x.txt"] });
  for (const each of [client, other]) assert.deepEqual((await each.verifyAll({ deep: true })).problems, []);
  const to = join(root, "to");
  await client.restore({ target: points[2]!.id, to });
  assert.ok(readFileSync(join(to, FILE)).equals(points[2]!.bytes));
  const { complete } = await client.removePaths({ paths: [FILE] });
  assert.equal(complete, true);
  for (const each of [client, other]) assert.deepEqual((await each.verifyAll({ deep: true })).problems, []);
  assert.deepEqual((await client.findNames("app.db", { all: true })).found, []);
});

test("verify names a database whose pages are lost, other files are restored, and the next save stores it whole", async (t) => {
  const { client, root, folder, points } = await scene(t);
  const store = await EmbeddedStore.open(client.controlDirectory);
  const data = join(store.paths.repository, "data");
  store.close();
  const files = readdirSync(data, { recursive: true, encoding: "utf8" }).map((name) => join(data, name));
  const packs = files.filter((name) => statSync(name).isFile());
  for (const pack of packs) if (statSync(pack).size < 40_000 && statSync(pack).size > 9000) rmSync(pack);
  const { problems } = await client.verify(points[2]!.id);
  assert.ok(
    problems.some(({ path, kind }) => path === FILE && kind === "content"),
    JSON.stringify(problems),
  );
  const to = join(root, "to");
  const { left_out: left } = await client.restore({ target: points[2]!.id, to });
  assert.deepEqual([left.map(({ path }) => path), readFileSync(join(to, "x.txt"), "utf8")], [[FILE], "x"]);
  await client.doctor({ repair: true });
  const { save_point_id: id } = await client.save();
  assert.deepEqual((await client.verify(id, { deep: true })).problems, []);
  const state = walkDigests(folder).state;
  await assertRestored(client, [{ id, bytes: Buffer.alloc(0), state, stored: 0 }], root);
});

test("names are found, and a lost descriptor is written again, with the databases by pages", async (t) => {
  const { client, root, points } = await scene(t);
  const [found] = (await client.findNames("app.db", { all: true })).found;
  assert.deepEqual([found?.points, found?.versions], [3, 3]);
  const places = readdirSync(client.controlDirectory, { recursive: true, encoding: "utf8" });
  const descriptor = places
    .filter((name) => name.endsWith("descriptor.json"))
    .toSorted()
    .at(-1)!;
  const file = join(client.controlDirectory, descriptor);
  writeFileSync(file, readFileSync(file).subarray(10));
  await client.doctor({ repair: true });
  assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
  await assertRestored(client, points, root);
});

test("content that other points still have is named by the database's path", async (t) => {
  const { client, points } = await scene(t);
  const { still_held: held } = await client.runCleanup({ only: [points[0]!.id] });
  assert.deepEqual(
    held?.points.map(({ paths }) => paths.map(({ path }) => path).toSorted()),
    Array.from({ length: 2 }, () => [FILE, "data/y.txt", "x.txt"]),
  );
});

test("a fork with a store of its own is adopted with its databases", async (t) => {
  const { client, library, root, folder, points } = await scene(t);
  const fork = join(root, "fork");
  await client.fork(points[2]!.id, fork, { standalone: true });
  assert.equal(walkDigests(fork).state, points[2]!.state);
  update(join(fork, FILE), [3]);
  await using other = await library.open(fork);
  await other.save();
  await client.adoptFork(fork);
  assert.ok(readFileSync(join(folder, FILE)).equals(readFileSync(join(fork, FILE))));
  for (const each of [client, other]) assert.deepEqual((await each.verifyAll({ deep: true })).problems, []);
});

test("a backup of a point by pages is the same as that of a plain file", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, root } = at;
  at.write("data/y.txt", "y");
  const points = await makePoints(at, 3);
  const first = await client.createBackup(repository, { point: points[1]!.id });
  assert.deepEqual([first.databases[0]!.stored, first.databases[0]!.path], ["base", FILE]);
  const second = await client.createBackup(repository, { point: points[2]!.id });
  assert.equal(second.databases[0]!.stored, "delta");
  assert.ok(second.added.bytes < 60_000, JSON.stringify(second.added));
  assert.deepEqual((await repository.verify()).problems, []);
  for (const [n, { snapshot }] of [first, second].entries()) {
    const to = join(root, `snapshot-${n}`);
    const { proof } = await repository.restore(snapshot!.snapshot_id, to);
    assert.equal(proof?.state_digest, points[n + 1]!.state);
  }
});

for (const how of ["renamed", "exchanged"]) {
  test(`a folder whose database head has by pages is ${how}, and the next point is whole`, async (t) => {
    const { client, root, folder, points } = await scene(t);
    const [one, two] = [join(folder, "data"), join(folder, "other")];
    if (how === "exchanged") {
      mkdirSync(two);
      makeDatabase(join(two, "app.db"));
      await client.save();
      update(join(two, "app.db"), [1]);
      await client.save();
      renameSync(two, join(folder, "third"));
    }
    renameSync(one, two);
    if (how === "exchanged") renameSync(join(folder, "third"), one);
    const { save_point_id: id } = await client.save();
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    const { state } = walkDigests(folder);
    await assertRestored(client, [...points, { id, bytes: Buffer.alloc(0), state, stored: 0 }], root);
  });
}

test("a point is whole if a database shrinks below the size of databases by pages while it is read", async (t) => {
  const { client, file } = await scene(t, 1);
  const script = `const fs = require("fs"), file = fs.openSync(process.argv[1], "r+");
    const bytes = fs.readFileSync(process.argv[1]), pause = new Int32Array(new SharedArrayBuffer(4));
    for (const end = Date.now() + 120_000; Date.now() < end; ) {
      require("crypto").randomFillSync(bytes, 200_000, 20_000);
      fs.writeSync(file, bytes, 0, bytes.length, 0);
      Atomics.wait(pause, 0, 0, 3);
      fs.ftruncateSync(file, 300_000);
      Atomics.wait(pause, 0, 0, 2);
    }`;
  const writer = spawn(process.execPath, ["-e", script, file], { stdio: "ignore" });
  try {
    // Chance decides whether the file shrinks during a read. One of the first saves meets this.
    for (let n = 0; n < 12; n++) {
      await client.save({ databases: "copy" });
      assert.deepEqual((await client.verify("head")).problems, [], `save ${n}`);
    }
  } finally {
    writer.kill("SIGKILL");
    await once(writer, "exit");
  }
});
