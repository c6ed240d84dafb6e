import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { randomBytes } from "node:crypto";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { PointStore } from "../../src/workspace/store/point-store.ts";
import type { StagedContent, StageRequest } from "../../src/workspace/store/engine.ts";
import type { ScanNotes } from "../../src/archive/scan/task.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { findWorkspace } from "../../src/workspace/place/find-workspace.ts";
import { sealAll } from "../../src/workspace/save/seal.ts";
import { Workspace } from "../../src/workspace/open/workspace.ts";
import { assertHeldTidy, heldPlace, type HeldPlace, pointsDirectory, treeOf } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cairnLibrary } from "../fixtures/work.ts";

/** Clones of files are sealed with what is known of the files that they were made from. */

/** Longer than a tick of the clock, so that what was written is not young. */
function tick(ms = 120): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Tells what each scan read. */
class WatchedEngine extends PointStore {
  readonly notes: ScanNotes[] = [];

  override async stage(request: StageRequest): Promise<StagedContent> {
    const staged = await super.stage(request);
    this.notes.push(staged.scan.notes);
    return staged;
  }
}

interface Read {
  files: number;
  bytes: number;
}

/** How many folders the last seal listed. */
let listed = 0;

/** Seals what is not; what was read for that. */
async function seal({ folder }: HeldPlace): Promise<Read> {
  const engines: WatchedEngine[] = [];
  const workspace = new Workspace(findWorkspace(folder)!, {
    engine(found, options) {
      engines.push(new WatchedEngine({ ...options, control: found.control.root }));
      return engines.at(-1)!;
    },
    recoveries: [],
  });
  try {
    using _lock = await workspace.lock("seal", {});
    const { problems } = await sealAll(workspace, {});
    if (problems.length > 0) throw problems[0]!.problem;
  } finally {
    await workspace.close();
  }
  const notes = engines.flatMap((engine) => engine.notes);
  listed = notes.reduce((sum, each) => sum + each.listed, 0);
  return {
    files: notes.reduce((sum, { filesRead }) => sum + filesRead, 0),
    bytes: notes.reduce((sum, { bytesRead }) => sum + bytesRead, 0),
  };
}

const FILES = 500;

function makeMany(folder: string): void {
  for (let i = 0; i < FILES; i++) {
    const at = path.join(folder, `${i % 10}/${i % 3}`);
    fs.mkdirSync(at, { recursive: true });
    fs.writeFileSync(path.join(at, `${i}.txt`), `file ${i}\n`);
  }
  fs.writeFileSync(path.join(folder, "large"), Buffer.alloc(3 << 20, "large "));
}

/** A workspace with a point that is sealed, so that its files are known; null where it cannot be. */
async function known(
  t: TestContext,
  more: { kind?: "xfs" | "btrfs"; fill?: (folder: string) => void } = {},
): Promise<HeldPlace | null> {
  const place = await heldPlace(t, { kind: more.kind ?? "xfs", engine: "reflink-copy", fill: more.fill ?? makeMany });
  if (place === null) return null;
  tick();
  await place.client.save();
  await seal(place);
  return place;
}

/** The newest point is what the folder was, by a walk of its own and by the engine that reads everything. */
async function assertDigests({ client, folder }: HeldPlace, wanted: { state: string; meta: string }): Promise<void> {
  const [point] = (await client.history()).save_points;
  assert.equal(point!.payload_root_hash, wanted.state);
  assert.equal(point!.metadata_digest, wanted.meta);
  assert.deepEqual((await client.verify(point!.save_point_id)).problems, []);
  if (walkDigests(folder).state !== wanted.state) return;
  await client.setEngine("copy");
  const copied = await client.save({ reread: true });
  assert.deepEqual([copied.payload_root_hash, copied.metadata_digest], [wanted.state, point!.metadata_digest]);
  await client.setEngine("reflink-copy");
}

for (const kind of firstOf(["xfs", "btrfs"] as const, 1)) {
  test(`on ${kind} a seal of a clone reads only the changed files`, async (t) => {
    const place = await known(t, { kind });
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    assert.deepEqual(await seal(place), { files: 0, bytes: 0 });
    fs.writeFileSync(path.join(folder, "3/1/43.txt"), "other\n");
    tick();
    await client.save();
    const wanted = walkDigests(folder);
    assert.deepEqual(await seal(place), { files: 1, bytes: 6 });
    await assertDigests(place, wanted);
    // The cache has the folder's own inodes: neither a look nor a save by reading reads anything.
    await client.setEngine("copy");
    assert.equal((await client.save()).read_bytes, 0);
  });
}

for (const kind of firstOf(["btrfs", "xfs"] as const, 1)) {
  test(`on ${kind} a sealed clone stores only the changed pages of a database`, async (t) => {
    const engine = kind === "btrfs" ? "btrfs-snapshot" : "reflink-copy";
    const fill = (folder: string): void => {
      const database = new DatabaseSync(path.join(folder, "app.db"));
      database.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, content BLOB); BEGIN");
      for (let id = 0; id < 500; id++) database.prepare("INSERT INTO t VALUES (?, ?)").run(id, randomBytes(3900));
      database.exec("COMMIT");
      database.close();
    };
    const place = await heldPlace(t, { kind, engine, fill });
    if (place === null) return;
    const { client, folder } = place;
    const states: [id: string, state: string][] = [];
    for (let n = 0; n < 3; n++) {
      const database = new DatabaseSync(path.join(folder, "app.db"));
      database.prepare("UPDATE t SET content = ? WHERE id = ?").run(randomBytes(3900), n);
      database.close();
      tick();
      states.push([(await client.save()).save_point_id, walkDigests(folder).state]);
    }
    await seal(place);
    const { save_points: points } = await client.history();
    assert.ok(
      points.slice(0, 2).every(({ bytes_stored: stored }) => stored! < 60_000),
      JSON.stringify(points.map(({ bytes_stored: stored }) => stored)),
    );
    assert.deepEqual((await client.verifyAll({ deep: true })).problems, []);
    for (const [id, state] of states) {
      const to = path.join(path.dirname(folder), id);
      await client.restore({ target: id, to });
      assert.equal(walkDigests(to).state, state);
    }
  });
}

test("a seal reads changed files even if their size and times look unchanged", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const at = (name: string): string => path.join(folder, name);
  // Rewritten with its size and times; by another inode; with one more name; with another attribute.
  execFileSync("touch", ["-r", at("0/0/0.txt"), at("times")]);
  fs.writeFileSync(at("0/0/0.txt"), "FILE 0\n");
  execFileSync("touch", ["-r", at("times"), at("0/0/0.txt")]);
  fs.rmSync(at("times"));
  fs.writeFileSync(at("new"), "FILE 1\n");
  execFileSync("touch", ["-r", at("1/1/1.txt"), at("new")]);
  fs.renameSync(at("new"), at("1/1/1.txt"));
  fs.linkSync(at("2/2/2.txt"), at("2/2/2-again.txt"));
  fs.chmodSync(at("3/0/3.txt"), 0o600);
  tick();
  await client.save();
  const wanted = walkDigests(folder);
  assert.deepEqual(await seal(place), { files: 5, bytes: 5 * 7 });
  await assertDigests(place, wanted);
  await client.save();
  assert.deepEqual(await seal(place), { files: 0, bytes: 0 });
});

test("a seal does not confuse two folders that were swapped between the save and the seal", async (t) => {
  const file = (folder: string, name: string, text: string): void => {
    fs.mkdirSync(path.join(folder, name));
    fs.writeFileSync(path.join(folder, name, "f"), text);
    fs.utimesSync(path.join(folder, name, "f"), 1e9, 1e9);
  };
  const place = await known(t, {
    fill: (folder) => {
      file(folder, "a", "one\n");
      file(folder, "b", "two\n");
    },
  });
  if (place === null) return;
  const { client, folder } = place;
  const swap = (): void => {
    for (const [from, to] of [
      ["a", "c"],
      ["b", "a"],
      ["c", "b"],
    ] as const)
      fs.renameSync(path.join(folder, from), path.join(folder, to));
  };
  swap();
  tick();
  await client.save();
  const wanted = walkDigests(folder);
  swap();
  await seal(place);
  await assertDigests(place, wanted);
});

const MAPPED = `
import mmap, sys
f = open(sys.argv[1], "r+b")
m = mmap.mmap(f.fileno(), 0)
for line in sys.stdin:
    m[0:4] = line[0:4].encode()
    print("stored", flush=True)
`;
import { firstOf } from "../fixtures/long.ts";

test("a point contains writes through a mapping before its save, and none after it", async (t) => {
  if (spawnSync("python3", ["-c", "import mmap"]).status !== 0) return t.skip("python3 is not installed");
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const child = spawn("python3", ["-c", MAPPED, path.join(folder, "5/2/5.txt")]);
  t.after(() => child.kill());
  const store = async (text: string): Promise<void> => {
    child.stdin.write(`${text}\n`);
    await once(child.stdout, "data");
  };
  await store("OLD1");
  tick();
  await client.save();
  const first = walkDigests(folder);
  await store("OLD2");
  assert.deepEqual(await seal(place), { files: 1, bytes: 7 });
  assert.equal(walkDigests(treeOf(client, 2)).state, first.state);
  assert.equal((await client.history()).save_points[0]!.payload_root_hash, first.state);
  // Again, and nothing else moves its times in between.
  await client.save();
  const second = walkDigests(folder);
  await store("OLD3");
  await seal(place);
  const [third] = (await client.history()).save_points;
  assert.equal(third!.payload_root_hash, second.state);
  assert.notEqual(third!.payload_root_hash, first.state);
  // What was stored last is found by whoever looks.
  assert.equal((await client.status()).clean, false);
});

test("a sealed point has the clone's content if a file is written to all the time", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const child = spawn("sh", [
    "-c",
    'i=0; while :; do i=$((i+1)); printf "file %06d\n" $i > "$1"; done',
    "sh",
    path.join(folder, "7/1/7.txt"),
  ]);
  t.after(() => child.kill());
  tick();
  for (const sequence of [2, 3, 4, 5]) {
    await client.save();
    await seal(place);
    const [point] = (await client.history()).save_points;
    if (point!.integrity_state === "damaged") continue;
    assert.equal(point!.payload_root_hash, walkDigests(treeOf(client, sequence)).state, `point ${sequence}`);
  }
  child.kill();
  await once(child, "exit");
  tick();
  await client.save();
  const wanted = walkDigests(folder);
  await seal(place);
  await assertDigests(place, wanted);
});

test("the next seal reads a file again that changed just before its clone was made", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const file = path.join(folder, "8/2/8.txt");
  for (let sequence = 2; ; sequence++) {
    assert.ok(sequence < 12, "the machine is too busy");
    fs.writeFileSync(file, "young!\n");
    await client.save();
    const { content } = JSON.parse(
      fs.readFileSync(path.join(treeOf(client, sequence), "../descriptor.json"), "utf8"),
    ) as { content: { held: { at: string } } };
    await seal(place);
    if (Date.parse(content.held.at) - fs.statSync(file).ctimeMs < 45) break;
  }
  tick();
  await client.save();
  assert.deepEqual(await seal(place), { files: 1, bytes: 7 });
  await client.save();
  assert.deepEqual(await seal(place), { files: 0, bytes: 0 });
});

test("the next seal lists a folder again that changed just before its clone was made", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const at = path.join(folder, "8/2");
  for (let sequence = 2; ; sequence++) {
    assert.ok(sequence < 12, "the machine is too busy");
    fs.writeFileSync(path.join(at, `more-${sequence}`), "more\n");
    await client.save();
    const { content } = JSON.parse(
      fs.readFileSync(path.join(treeOf(client, sequence), "../descriptor.json"), "utf8"),
    ) as { content: { held: { at: string } } };
    await seal(place);
    if (Date.parse(content.held.at) - fs.statSync(at).ctimeMs < 45) break;
  }
  tick();
  await client.save();
  // The root is always listed.
  await seal(place);
  assert.equal(listed, 2);
  await client.save();
  await seal(place);
  assert.equal(listed, 1);
});

test("a clone can be sealed after its folder was removed or replaced", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder, volume } = place;
  fs.writeFileSync(path.join(folder, "4/1/4.txt"), "four\n");
  tick();
  await client.save();
  const wanted = walkDigests(folder);
  fs.renameSync(folder, `${folder}-away`);
  fs.mkdirSync(folder);
  assert.deepEqual(await seal(place), { files: 1, bytes: 5 });
  assert.equal((await client.history()).save_points[0]!.payload_root_hash, wanted.state);
  // A copy in its place, with all times and other inodes.
  fs.rmdirSync(folder);
  execFileSync("cp", ["-a", `${folder}-away`, folder]);
  fs.rmSync(`${folder}-away`, { recursive: true });
  tick();
  await client.save();
  assert.equal((await seal(place)).files, FILES + 1);
  assertHeldTidy(place, "after the folder was another one");
  assert.equal((await client.history()).save_points[0]!.payload_root_hash, wanted.state);
  assert.equal(fs.existsSync(path.join(volume.root, "ws")), true);
});

test("a seal refuses a clone that was changed after it was made, also with times set back", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  await client.save();
  const tree = treeOf(client, 2);
  tick(1200);
  const file = path.join(tree, "6/0/6.txt");
  execFileSync("touch", ["-r", file, path.join(folder, "times")]);
  fs.writeFileSync(file, "FILE 6\n");
  execFileSync("touch", ["-r", path.join(folder, "times"), file]);
  await assert.rejects(seal(place), { code: "damaged", message: /was changed after it was made: 6.txt/ });
  // A name more, in a folder whose listing is known.
  await client.save();
  tick(1200);
  fs.writeFileSync(path.join(treeOf(client, 3), "6/0/more"), "");
  await assert.rejects(seal(place), { code: "damaged", message: /was changed after it was made/ });
});

test("a seal reads the whole clone if its origins file is missing or damaged", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, folder } = place;
  const wanted = walkDigests(folder);
  const damages: readonly ((file: string) => void)[] = [
    (file) => fs.rmSync(file),
    (file) => fs.truncateSync(file, fs.statSync(file).size - 40),
    (file) => {
      const bytes = fs.readFileSync(file);
      bytes[bytes.length >> 1]! ^= 1;
      fs.writeFileSync(file, bytes);
    },
    (file) => fs.writeFileSync(file, ""),
  ];
  for (const [i, damage] of damages.entries()) {
    await client.save();
    const origins = path.join(pointsDirectory(client), String(i + 2).padStart(10, "0"), "origins");
    const { format, content } = await (await cairnLibrary()).inspect(origins);
    // Thirty folders in ten.
    assert.deepEqual([format, (content as { entries: number }).entries], ["origins", FILES + 1 + 10 + 30]);
    damage(origins);
    assert.equal((await seal(place)).files, FILES + 1);
    assert.equal((await client.history()).save_points[0]!.payload_root_hash, wanted.state);
  }
  assertHeldTidy(place, "after damage");
});

test("a seal reads no unchanged entry of any kind again, and keeps links and attributes", async (t) => {
  const place = await known(t, { fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  // One name of a file lies outside of the folder.
  fs.linkSync(path.join(folder, "same/kept.txt"), path.join(volume.root, "outside"));
  tick();
  await client.save();
  const wanted = walkDigests(folder);
  assert.equal((await seal(place)).files, 1);
  await client.save();
  assert.deepEqual(await seal(place), { files: 0, bytes: 0 });
  const [point] = (await client.history()).save_points;
  assert.equal(point!.payload_root_hash, wanted.state);
  await client.setEngine("copy");
  const copied = await client.save({ reread: true });
  assert.deepEqual([copied.payload_root_hash, copied.metadata_digest], [wanted.state, point!.metadata_digest]);
});

test("the first seal in a fork reads only files that changed since the fork", async (t) => {
  const place = await known(t);
  if (place === null) return;
  const { client, volume } = place;
  const fork = path.join(volume.root, "fork");
  await client.fork("head", fork);
  fs.writeFileSync(path.join(fork, "9/0/9.txt"), "nine\n");
  tick();
  const own = await (await cairnLibrary()).open(fork);
  await own.save();
  const wanted = walkDigests(fork);
  assert.deepEqual(await seal({ ...place, folder: fork }), { files: 1, bytes: 5 });
  assert.equal((await own.history()).save_points[0]!.payload_root_hash, wanted.state);
});
