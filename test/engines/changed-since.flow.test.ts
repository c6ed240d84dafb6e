import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { changedSince, transactionOf } from "../../src/workspace/points/changed-since.ts";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import { killAt, passesOf, random, SEED } from "../crash/rounds.ts";
import { btrfsPlace, subvolumesOf, treeOf } from "../fixtures/held-place.ts";

/** btrfs tells which inodes were changed: what is said by that is what two walks say. */

const pick = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;

function fill(folder: string): void {
  for (let i = 0; i < 60; i++) {
    const directory = path.join(folder, `d${i % 6}`, `e${i % 3}`);
    fs.mkdirSync(directory, { recursive: true });
    fs.writeFileSync(path.join(directory, `f${i}`), `content ${i}\n`.repeat(i));
  }
}

/** Paths of a kind, below the folder. */
function all(folder: string, isWanted: (entry: fs.Dirent) => boolean): string[] {
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter(isWanted)
    .map((entry) => path.join(entry.parentPath, entry.name));
}

let count = 0;

function edit(folder: string): void {
  const files = all(folder, (entry) => entry.isFile());
  const directories = [folder, ...all(folder, (entry) => entry.isDirectory())];
  const file = pick(files);
  const directory = pick(directories);
  const fresh = path.join(directory, `new-${count++}`);
  const same = (): void => {
    const { atime, mtime } = fs.statSync(file);
    fs.writeFileSync(file, fs.readFileSync(file, "latin1").replace("content", pick(["content", "CONTENT"])));
    fs.utimesSync(file, atime, mtime);
  };
  const swap = (a: string, b: string): void => {
    if (a === b || `${a}/`.startsWith(`${b}/`) || `${b}/`.startsWith(`${a}/`)) return;
    fs.renameSync(a, `${folder}/swap`);
    fs.renameSync(b, a);
    fs.renameSync(`${folder}/swap`, b);
  };
  const others = directories.slice(1);
  pick([
    () => fs.writeFileSync(fresh, "new\n"),
    () => fs.appendFileSync(file, "more\n"),
    () => fs.rmSync(file),
    () => fs.chmodSync(file, pick([0o600, 0o644, 0o4755])),
    () => fs.utimesSync(file, 1_000_000_000, pick([1_000_000_000.25, -5.5])),
    () => setAttribute(file, "user.note", pick(["a", "b"])),
    same,
    () => fs.renameSync(file, fresh),
    () => swap(file, pick(files)),
    () => (others.length > 1 ? swap(pick(others), pick(others)) : undefined),
    () => fs.mkdirSync(path.join(fresh, "deep"), { recursive: true }),
    () => (others.length > 8 ? fs.rmSync(pick(others), { recursive: true }) : undefined),
    () => fs.symlinkSync(pick(["a", "b"]), fresh),
    () => makeNode(fresh, TYPE.PIPE),
    () => {
      fs.rmSync(file);
      fs.mkdirSync(file);
      fs.writeFileSync(path.join(file, "inside"), "inside\n");
    },
    () => fs.chmodSync(directory, pick([0o700, 0o755])),
    () => fs.copyFileSync(file, fresh),
  ])();
}

test("status, save and diff report the same changes by changed inodes as by sealed trees", async (t) => {
  t.diagnostic(`CAIRN_TEST_SEED=${SEED}`);
  const place = await btrfsPlace(t, fill);
  if (place === null) return;
  const { client, folder } = place;
  const ids: string[] = [];
  for (let point = 0; point < 6; point++) {
    const told = point === 0 ? null : (await client.status()).changes;
    const saved = await client.save();
    assert.deepEqual(saved.changes, told);
    ids.push(saved.save_point_id);
    for (let i = 0; i < 12; i++) edit(folder);
  }
  const look = async (): Promise<unknown[]> => {
    const { changes, clean, ignored } = await client.status();
    const said: unknown[] = [{ changes, clean, ignored }];
    for (const a of ids) for (const b of [...ids, null]) if (a !== b) said.push(await client.diff(a, b));
    return said;
  };
  const [earlier, later] = [Buffer.from(treeOf(client, 1)), Buffer.from(treeOf(client, 3))];
  assert.notEqual(await changedSince(earlier, later, { since: transactionOf(earlier, later)! }), null);
  const byInodes = await look();
  assert.equal(
    (await client.history()).save_points.some(({ sealed }) => sealed),
    false,
  );
  await client.setPolicy({ keptTrees: 0 });
  await client.seal();
  const byTrees = await look();
  for (const [i, said] of byInodes.entries()) assert.deepEqual(said, byTrees[i]);
});

test("changed inodes are not used if a file has several names or another subvolume lies inside", async (t) => {
  const place = await btrfsPlace(t, fill);
  if (place === null) return;
  const { client, folder } = place;
  await client.save();
  assert.deepEqual((await client.status()).changes, { added: 0, modified: 0, removed: 0 });
  fs.linkSync(path.join(folder, "d0/e0/f0"), path.join(folder, "linked"));
  assert.deepEqual((await client.status()).changes, { added: 1, modified: 1, removed: 0 });
  await client.save();
  const [first, second] = [Buffer.from(treeOf(client, 1)), Buffer.from(treeOf(client, 2))];
  assert.equal(await changedSince(first, second, { since: transactionOf(first, second)! }), null);
  assert.equal(transactionOf(first, Buffer.from(place.volume.root)), null, "another folder has nothing to do with it");
  fs.rmSync(path.join(folder, "linked"));
  execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "nested")]);
  assert.deepEqual((await client.status()).changes, { added: 1, modified: 1, removed: 1 });
  await client.close();
  assert.deepEqual(
    subvolumesOf(place.volume.root).filter((each) => each.includes("work-")),
    [],
  );
});

test("a save by btrfs counts no changes if an ignore file may affect them", async (t) => {
  const place = await btrfsPlace(t, fill);
  if (place === null) return;
  const { client, folder } = place;
  await client.save();
  fs.writeFileSync(path.join(folder, "d0/new"), "new\n");
  assert.deepEqual((await client.save()).changes, { added: 1, modified: 0, removed: 0 });
  fs.writeFileSync(path.join(folder, "d0/.cairnignore"), "new\n");
  const { changes, not_kept: hidden } = await client.status();
  assert.deepEqual([changes.added, changes.removed, hidden], [1, 0, { count: 1, paths: [{ path: "d0/new" }] }]);
  assert.equal((await client.save()).changes, null);
  fs.rmSync(path.join(folder, "d0/.cairnignore"));
  assert.equal((await client.save()).changes, null);
  fs.writeFileSync(path.join(folder, "d0/new"), "newer\n");
  assert.deepEqual((await client.save()).changes, { added: 0, modified: 1, removed: 0 });
});

test("the next save removes the snapshot that a killed status left", async (t) => {
  const place = await btrfsPlace(t, fill);
  if (place === null) return;
  const { client, folder, volume } = place;
  await client.save();
  const look = ["-C", folder, "status"];
  const names = passesOf(look);
  assert.ok(names.includes("changes.snapshot-made"), names.join(" "));
  const trees = subvolumesOf(volume.root).length;
  killAt(look, names.indexOf("changes.snapshot-made") + 1);
  assert.equal(subvolumesOf(volume.root).length, trees + 1);
  await client.save();
  await client.close();
  assert.deepEqual(
    subvolumesOf(volume.root).filter((each) => each.includes("/tmp/")),
    [],
  );
});

test("status and diff see a change below a directory that was moved to the place of its parent", async (t) => {
  const place = await btrfsPlace(t, (folder) => {
    fs.mkdirSync(path.join(folder, "d/sub"), { recursive: true });
    fs.writeFileSync(path.join(folder, "d/sub/f"), "first");
  });
  if (place === null) return;
  const { client, folder } = place;
  const first = await client.save();
  const [d, other] = [path.join(folder, "d"), path.join(folder, "other")];
  const { atime, mtime } = fs.statSync(d);
  fs.mkdirSync(other);
  fs.renameSync(path.join(d, "sub"), path.join(other, "sub"));
  fs.rmdirSync(d);
  fs.renameSync(other, d);
  fs.writeFileSync(path.join(d, "sub/f"), "second");
  fs.utimesSync(d, atime, mtime);
  const paths = async (to: string | null): Promise<string[]> =>
    (await client.diff(first.save_point_id, to)).entries.map(({ path: own }) => own);
  assert.equal((await client.status()).clean, false);
  assert.ok((await paths(null)).includes("d/sub/f"));
  const second = await client.save();
  assert.ok((await paths(second.save_point_id)).includes("d/sub/f"));
});
