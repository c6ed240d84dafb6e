import assert from "node:assert/strict";
import { randomBytes, randomFillSync } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { assertNoLeftovers, clientOf, newFolder, pauseFile, resticCheck } from "../fixtures/work.ts";

/** What a killed or stopped save has stored is used by the next one, as far as it is what was written. */

const MIB = 1 << 20;
const COMPLETE = /^pack-([0-9a-f]{64})$/;

/** A folder of so many files of 8 MiB that nothing makes smaller. */
function makeBig(folder: string, files: number): void {
  for (let n = 0; n < files; n++) fs.writeFileSync(path.join(folder, `f${n}`), randomFillSync(Buffer.alloc(8 * MIB)));
}

/** Inodes of complete packs of saves that came to no end, by their SHA-256. */
function stagedIn({ controlDirectory }: Client): Map<string, number> {
  const staged = new Map<string, number>();
  const temporary = path.join(controlDirectory, "tmp");
  for (const directory of fs.readdirSync(temporary))
    for (const name of fs.readdirSync(path.join(temporary, directory))) {
      const id = COMPLETE.exec(name)?.[1];
      if (id !== undefined) staged.set(id, fs.statSync(path.join(temporary, directory, name)).ino);
    }
  return staged;
}

/** Inodes of the store's packs, by their names. */
function storedIn({ controlDirectory }: Client): Map<string, number> {
  const data = path.join(controlDirectory, "store/data");
  const folders = fs.readdirSync(data).map((name) => path.join(data, name));
  return new Map(
    folders.flatMap((each) => fs.readdirSync(each).map((name) => [name, fs.statSync(path.join(each, name)).ino])),
  );
}

/** Kills a save in a thread once that has completed so many packs. */
function killAfterPacks(folder: string, packs: number): void {
  assert.ok(cairn(["save", folder], { failpoint: `stage.pack-complete:${packs}` }).killed);
}

/** Names of staged packs that the store has: the very files. */
function takenOver(client: Client, staged: ReadonlyMap<string, number>): string[] {
  const stored = storedIn(client);
  return [...staged].filter(([name, inode]) => stored.get(name) === inode).map(([name]) => name);
}

function pathOf({ controlDirectory }: Client, id: string): string {
  const temporary = path.join(controlDirectory, "tmp");
  const places = fs.readdirSync(temporary).map((name) => path.join(temporary, name, `pack-${id}`));
  return places.find((place) => fs.existsSync(place))!;
}

/** Everything in the store is sound, is in an index and is needed, and nothing else is left. */
async function assertSound(client: Client, folder: string, what: string): Promise<void> {
  assert.deepEqual((await client.verifyAll()).problems, [], what);
  assert.deepEqual(cairnOk(["-C", folder, "doctor"]).data["findings"], [], what);
  assertNoLeftovers(client, folder, what);
  resticCheck(client, what);
}

test("each save after a killed save reuses the stored packs, and the last save publishes all of them", async () => {
  const folder = newFolder("rounds");
  makeBig(folder, 26);
  const before = readFolder(folder);
  const client = await clientOf(folder);
  killAfterPacks(folder, 3);
  let staged = stagedIn(client);
  assert.ok(staged.size >= 3, `${staged.size} packs`);
  assert.equal(storedIn(client).size, 0);
  for (let round = 2; round <= 3; round++) {
    killAfterPacks(folder, 2);
    const now = stagedIn(client);
    assert.ok(now.size > staged.size, `${staged.size} packs, then ${now.size}`);
    for (const [name, inode] of staged) assert.equal(now.get(name), inode, `round ${round}`);
    staged = now;
  }
  const saved = cairnOk(["save", folder], { failpoint: "trace" });
  const { bytes_stored: stored } = saved.data["save_point"] as { bytes_stored: number };
  const written = saved.failpoints.filter((name) => name === "stage.pack-complete").length;
  assert.equal(takenOver(client, staged).length, staged.size);
  // What a pack lost of its content with its writer is all that was stored twice.
  assert.equal(storedIn(client).size, staged.size + written);
  assert.ok(stored < 26 * 8 * MIB + 2 * MIB, `${stored} bytes`);
  await assertSound(client, folder, "at the end");
  const to = `${folder}-to`;
  await client.restore({ target: "head", to });
  assertFolder(to, before, "restored");
});

test("save discards a truncated or changed pack of a killed save and stores the content again", async () => {
  const folder = newFolder("damaged");
  makeBig(folder, 12);
  const client = await clientOf(folder);
  killAfterPacks(folder, 2);
  const staged = stagedIn(client);
  const [cut, flipped, ...sound] = [...staged.keys()];
  fs.truncateSync(pathOf(client, cut!), 8 * MIB);
  const fd = fs.openSync(pathOf(client, flipped!), "r+");
  fs.writeSync(fd, randomBytes(1), 0, 1, 5 * MIB);
  fs.closeSync(fd);
  cairnOk(["save", folder]);
  assert.deepEqual(takenOver(client, staged).toSorted(), sound.toSorted());
  await assertSound(client, folder, "without damaged packs");
});

test("save does not publish packs of a killed save whose content the folder no longer has", async () => {
  const folder = newFolder("unused");
  makeBig(folder, 12);
  const client = await clientOf(folder);
  killAfterPacks(folder, 2);
  const staged = stagedIn(client);
  assert.ok(staged.size >= 2);
  for (const name of fs.readdirSync(folder)) fs.rmSync(path.join(folder, name));
  fs.writeFileSync(path.join(folder, "small"), "small");
  cairnOk(["save", folder]);
  assert.deepEqual(takenOver(client, staged), []);
  await assertSound(client, folder, "without unused packs");
});

test("an interrupted save leaves its packs for the next save", async () => {
  const folder = newFolder("stopped");
  makeBig(folder, 12);
  const client = await clientOf(folder);
  const pause = pauseFile();
  const stopped = startCairn(["save", folder], { failpoint: `stage.pack-complete:2@${pause}` });
  await stopped.paused;
  stopped.child.kill("SIGTERM");
  fs.rmSync(pause);
  assert.equal((await stopped.ended).error?.code, "interrupted");
  const staged = stagedIn(client);
  assert.ok(staged.size >= 2, `${staged.size} packs`);
  assert.ok(
    fs
      .readdirSync(path.join(client.controlDirectory, "tmp"))
      .every((name) => /^work-\w+-\d+-0-[0-9a-f]{16}$/.test(name)),
  );
  cairnOk(["save", folder]);
  assert.equal(takenOver(client, staged).length, staged.size);
  await assertSound(client, folder, "after a stop");
});

test("a save keeps its packs while another save into the same store is killed and repeated", async () => {
  const folder = newFolder("one");
  fs.writeFileSync(path.join(folder, "seed"), "seed");
  const client = await clientOf(folder);
  cairnOk(["save", folder]);
  const other = `${folder}-fork`;
  await client.fork("head", other);
  makeBig(folder, 8);
  makeBig(other, 8);
  const before = readFolder(folder);
  const pause = pauseFile();
  const going = startCairn(["save", folder], { failpoint: `stage.scanned@${pause}` });
  await going.paused;
  const living = stagedIn(client);
  killAfterPacks(other, 2);
  const dead = new Map([...stagedIn(client)].filter(([name]) => !living.has(name)));
  assert.ok(living.size >= 4 && dead.size >= 2, `${living.size} and ${dead.size} packs`);
  cairnOk(["save", other]);
  assert.equal(takenOver(client, dead).length, dead.size);
  assert.deepEqual(takenOver(client, living), []);
  fs.rmSync(pause);
  assert.equal((await going.ended).status, 0);
  assert.equal(takenOver(client, living).length, living.size);
  await assertSound(client, folder, "two saves");
  const to = `${folder}-to`;
  await client.restore({ target: "head", to });
  assertFolder(to, before, "restored");
});

test("cleanup, doctor --repair and restore remove the packs of a killed save", async () => {
  const folder = newFolder("removed");
  fs.writeFileSync(path.join(folder, "seed"), "seed");
  const client = await clientOf(folder);
  cairnOk(["save", folder]);
  makeBig(folder, 8);
  for (const args of [
    ["cleanup", "--keep-last", "5"],
    ["doctor", "--repair"],
    ["restore", "head", "seed"],
  ]) {
    killAfterPacks(folder, 1);
    assert.ok(stagedIn(client).size >= 1);
    cairnOk(["-C", folder, ...args]);
    assert.equal(stagedIn(client).size, 0, args.join(" "));
  }
});

test("the quota counts reused packs of a killed save as part of the new save", async () => {
  const folder = newFolder("quota");
  fs.writeFileSync(path.join(folder, "seed"), "seed");
  const client = await clientOf(folder);
  cairnOk(["save", folder]);
  const seeded = storedIn(client);
  makeBig(folder, 8);
  killAfterPacks(folder, 2);
  const staged = stagedIn(client);
  // There is room for what is to be stored anew, and none for that with the packs of the killed save.
  await client.setPolicy({ quotaBytes: 48 * MIB });
  const refused = cairn(["save", folder]);
  assert.deepEqual([refused.status, refused.error?.code], [8, "no_space"]);
  assert.deepEqual(storedIn(client), seeded);
  assert.equal(stagedIn(client).size, 0);
  for (let n = 0; n < 8; n++) fs.rmSync(path.join(folder, `f${n}`));
  makeBig(folder, 2);
  cairnOk(["save", folder]);
  assert.deepEqual(takenOver(client, staged), []);
  await assertSound(client, folder, "within the quota");
});

for (const isFirst of [true, false])
  test(`a ${isFirst ? "first" : "later"} save succeeds on a disk that the packs of a killed save have filled`, async (t) => {
    const place = loopFileSystem(t, "ext4", { size: 232 * MIB });
    if (place === null) return;
    const folder = path.join(place.root, "folder");
    fs.mkdirSync(folder);
    const client = await clientOf(folder);
    // A first save asks for room before it begins; a later one meets the end of it.
    if (!isFirst) cairnOk(["save", folder]);
    makeBig(folder, 10);
    assert.ok(cairn(["save", folder], { failpoint: "stage.scanned" }).killed);
    assert.ok(stagedIn(client).size >= 5);
    // Other content of the same size: what lies there is of no use, and both have no room.
    makeBig(folder, 10);
    cairnOk(["save", folder]);
    await assertSound(client, folder, "on a small disk");
  });
