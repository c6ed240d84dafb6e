import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { CairnError } from "../../src/errors.ts";
import type { Client } from "../../src/contract/index.ts";
import { removeHeldTree } from "../../src/clones/remove-held.ts";
import { inDirectory } from "../../src/fs/linux/syscalls.ts";
import { subvolumeInfo } from "../../src/fs/linux/btrfs.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { SCRATCH, startCairn } from "../fixtures/command.ts";
import { cairnLibrary } from "../fixtures/work.ts";
import { btrfsPlace, heldPlace, type HeldPlace, type HoldingEngine, treeOf } from "../fixtures/held-place.ts";
import type { LoopKind } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";

/** Of points that are only held a verb seals no other than the one whose content it needs. */

const ENGINES: readonly [LoopKind, HoldingEngine][] = [
  ["btrfs", "btrfs-snapshot"],
  ["xfs", "reflink-copy"],
];

async function sealed(client: Client): Promise<boolean[]> {
  return (await client.history(undefined, 0, { all: true })).save_points.map((each) => each.sealed).toReversed();
}

/** Changes that size and times do not tell, one after the other, each of which is none or one of content. */
function makeUntold({ folder }: HeldPlace): void {
  const same = path.join(folder, "same/kept.txt");
  fs.chmodSync(same, 0o600);
  fs.chmodSync(same, 0o644);
  const { atime, mtime } = fs.statSync(path.join(folder, "moded/time"));
  fs.writeFileSync(path.join(folder, "moded/time"), "TIME\n");
  fs.utimesSync(path.join(folder, "moded/time"), atime, mtime);
  const times = fs.statSync(path.join(folder, "goes/b"));
  fs.writeFileSync(path.join(folder, "copy"), fs.readFileSync(path.join(folder, "goes/b")));
  fs.renameSync(path.join(folder, "copy"), path.join(folder, "goes/b"));
  fs.utimesSync(path.join(folder, "goes/b"), times.atime, times.mtime);
  fs.renameSync(path.join(folder, "was-file"), path.join(folder, "renamed"));
  fs.writeFileSync(path.join(folder, ".cairnignore"), "hidden\n");
  fs.writeFileSync(path.join(folder, "hidden"), "hidden\n");
}

for (const [kind, engine] of ENGINES) {
  test(`status and diff of ${engine} report the same before and after a seal`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const ids: string[] = [];
    const save = async (): Promise<void> => void ids.push((await client.save()).save_point_id);
    await save();
    makeUntold(place);
    await save();
    fs.renameSync(path.join(folder, "renamed"), path.join(folder, "was-file"));
    makeSecond(folder);
    await save();
    makeUnsaved(folder);
    const look = async (): Promise<unknown> => {
      const { clean, changes, ignored } = await client.status();
      const pairs = ids.flatMap((a) => [...ids.map((b) => [a, b] as const), [a, null] as const]);
      const diffs: unknown[] = [];
      for (const [a, b] of pairs) diffs.push(await client.diff(a, b));
      return { clean, changes, ignored, diffs };
    };
    const unread = await look();
    assert.deepEqual(await sealed(client), [false, false, false]);
    await client.seal();
    assert.deepEqual(unread, await look());
  });

  test(`history and why of a path of ${engine} report the same before and after a seal`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    // A file with several names is told by all of them, in a seal.
    fs.rmSync(path.join(folder, "other/linked-2"));
    const { save_point_id: first } = await client.save();
    const paths = new Set(["nowhere", "moded/time/below", ...readFolder(folder).keys()]);
    const save = async (): Promise<void> => {
      await client.save();
      for (const each of readFolder(folder).keys()) paths.add(each);
    };
    makeUntold(place);
    fs.rmSync(path.join(folder, ".cairnignore"));
    await save();
    fs.renameSync(path.join(folder, "renamed"), path.join(folder, "was-file"));
    fs.writeFileSync(path.join(folder, "other/linked-2"), "");
    makeSecond(folder);
    fs.rmSync(path.join(folder, "other/linked-3"));
    await save();
    makeUnsaved(folder);
    await client.restore({ target: first, method: "entries" });
    await save();
    const folders = [
      "goes",
      "goes/deep",
      "moded",
      "other",
      "same",
      "unsaved-dir",
      "unsaved-dir/deep",
      "was-dir",
      "was-file",
      "was-file/new",
    ];
    const entries = [...paths].filter((each) => !["", ...folders].includes(each));
    const told = async (of: readonly string[]): Promise<unknown> => {
      const all: unknown[] = [];
      for (const each of of) {
        const { changes } = await client.why(each);
        const { save_points: points } = await client.history(undefined, 0, { path: each });
        all.push([
          each,
          changes.map(({ save_point: point, ...change }) => [point.save_point_id, change]),
          points.map((point) => point.save_point_id),
        ]);
      }
      return all;
    };
    const ofEntries = await told(entries);
    const byInodes = engine === "btrfs-snapshot" ? await told(folders) : null;
    assert.deepEqual((await sealed(client)).filter(Boolean), []);
    // One that is sealed, with its tree and without.
    await client.show((await client.history(undefined, 0, { all: true })).save_points[2]!.save_point_id);
    assert.deepEqual(await told(entries), ofEntries);
    await removeHeldTree(treeOf(client, 3));
    assert.deepEqual(await told(entries), ofEntries);
    assert.deepEqual(await sealed(client), [false, false, true, false, false]);
    const last = await told(folders);
    assert.deepEqual(await sealed(client), [true, true, true, true, true]);
    assert.deepEqual(await told(entries), ofEntries);
    if (byInodes !== null) assert.deepEqual(last, byInodes);
  });

  test(`a command that reads the content of a point of ${engine} seals only that point`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    const ids: string[] = [];
    for (let i = 0; i < 6; i++) {
      fs.writeFileSync(path.join(folder, "turn"), `${i}\n`);
      ids.push((await client.save()).save_point_id);
    }
    const wanted = [false, false, false, false, false, false];
    const seals = async (at: number, work: Promise<unknown>): Promise<void> => {
      await work;
      wanted[at] = true;
      assert.deepEqual(await sealed(client), wanted);
    };
    await seals(4, client.show(ids[4]!, "turn"));
    await seals(1, client.planRestore({ target: ids[1]! }));
    await seals(3, client.verify(ids[3]!));
    const view = await client.view(ids[0]!);
    assert.equal(fs.readFileSync(path.join(view.path, "turn"), "utf8"), "0\n");
    await seals(0, client.closeView(view.view_id));
    await seals(2, client.restore({ target: ids[2]!, to: path.join(volume.root, "to"), paths: ["turn"] }));
    assert.equal(fs.readFileSync(path.join(volume.root, "to/turn"), "utf8"), "2\n");
  });

  test(`read of a file of an unsealed point by ${engine} reads the tree, and seals only for a path it cannot read there`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    fs.writeFileSync(path.join(folder, "goes/.cairnignore"), "deep/*\n!deep/a\n");
    fs.writeFileSync(path.join(folder, "goes/deep/hidden"), "hidden\n");
    const { save_point_id: id } = await client.save();
    const content = async (name: string, of = id): Promise<string> => {
      const pieces: Uint8Array[] = [];
      for await (const piece of client.read(of, name)) pieces.push(piece);
      return Buffer.concat(pieces).toString();
    };
    makeSecond(folder);
    assert.equal(await content("same/updated.txt"), "first\n");
    assert.equal(await content("goes/deep/a"), "a\n");
    assert.equal((await content("big")).length, 700_000);
    assert.deepEqual(await sealed(client), [false]);
    for (const name of ["goes/deep/hidden", "nowhere", "link", "same/kept.txt/below"])
      await assert.rejects(content(name), (error: CairnError) => ["not_found", "conflict"].includes(error.code), name);
    assert.deepEqual(await sealed(client), [true]);
    if (engine === "reflink-copy") {
      const { save_point_id: second } = await client.save();
      await sleep(1200);
      fs.writeFileSync(path.join(treeOf(client, 2), "same/updated.txt"), "changed in the tree\n");
      await assert.rejects(content("same/updated.txt", second), { code: "damaged" });
    }
  });

  test(`status and diff of ${engine} fail as damaged if a tree is missing`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const a = await client.save();
    makeSecond(folder);
    const b = await client.save();
    await removeHeldTree(treeOf(client, 2));
    await assert.rejects(client.status(), { code: "damaged" });
    await assert.rejects(client.diff(a.save_point_id, b.save_point_id), { code: "damaged" });
    assert.deepEqual(await sealed(client), [false, false]);
  });
}

/** Bytes that this process has read from files, with all of its threads. */
function bytesRead(): number {
  return Number(/^rchar: (\d+)/m.exec(fs.readFileSync("/proc/self/io", "utf8"))![1]);
}

for (const [kind, engine] of ENGINES)
  test(`restore clones a large file of a point by ${engine}, and the undo point keeps a clone of the present file`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst, options: { size: 1 << 30 } });
    if (place === null) return;
    const { client, folder } = place;
    const large = path.join(folder, "large");
    fs.writeFileSync(large, randomBytes(64 << 20));
    const { save_point_id: id } = await client.save();
    const first = readFolder(folder);
    const edit = (file: string, text: string): void => {
      const fd = fs.openSync(file, "r+");
      fs.writeSync(fd, text, 5 << 20);
      fs.closeSync(fd);
    };
    edit(large, "changed");
    makeUnsaved(folder);
    const second = readFolder(folder);
    const unread = async <T>(work: () => Promise<T>): Promise<T> => {
      const before = bytesRead();
      const result = await work();
      assert.ok(bytesRead() - before < 16 << 20, `${bytesRead() - before} bytes were read`);
      return result;
    };
    const restored = await unread(async () => client.restore({ target: id, method: "entries" }));
    assert.deepEqual([restored.method, restored.changes?.updated, restored.left_out], ["entries", 2, []]);
    assertFolder(folder, first, "restored");
    assert.equal((await unread(async () => client.status())).clean, true);
    assert.equal((await unread(async () => client.restore({ target: id, method: "entries" }))).undo_id, null);
    await unread(async () => client.restore({ target: restored.undo_id!, method: "entries" }));
    assertFolder(folder, second, "undone");
    assert.deepEqual((await sealed(client)).filter(Boolean), []);
    // The other restored, one path at a time; what is not asked for stays.
    await unread(async () => client.restore({ target: id, paths: ["large"] }));
    assert.equal(fs.existsSync(path.join(folder, "unsaved")), true);
    assert.equal(readFolder(folder).get("large"), first.get("large"));
    // Nothing of it has been changed by what was written to the clones.
    edit(large, "once more");
    assert.deepEqual((await client.verifyAll()).problems, []);
    await client.restore({ target: restored.undo_id!, method: "entries" });
    assertFolder(folder, second, "from the store");
  });

test("a save does not wait until verify --all has sealed every point", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder } = place;
  for (let i = 0; i < 20; i++) {
    fs.writeFileSync(path.join(folder, "turn"), `${i}\n`);
    await client.save();
  }
  const verified = client.verifyAll();
  const first = path.join(path.dirname(treeOf(client, 1)), "seal.json");
  while (!fs.existsSync(first)) await sleep(5);
  fs.writeFileSync(path.join(folder, "turn"), "saved meanwhile\n");
  await client.save();
  assert.equal((await sealed(client))[19], false);
  const { problems, checked } = await verified;
  assert.deepEqual([problems, checked.points], [[], 20]);
});

for (const [kind, engine] of ENGINES)
  test(`restore by ${engine} links a removed name again to a file whose inode was changed`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: (folder) => fs.mkdirSync(path.join(folder, "d")) });
    if (place === null) return;
    const { client, folder } = place;
    fs.writeFileSync(path.join(folder, "a"), "content");
    fs.linkSync(path.join(folder, "a"), path.join(folder, "z"));
    const { save_point_id: id } = await client.save();
    const saved = readFolder(folder);
    fs.renameSync(path.join(folder, "z"), path.join(folder, "d/moved"));
    fs.chmodSync(path.join(folder, "a"), 0o600);
    fs.chmodSync(path.join(folder, "a"), 0o644);
    await client.restore({ target: id, method: "entries" });
    assertFolder(folder, saved, "restored");
  });

test("a restore by clones keeps a file that is written during the restore", async (t) => {
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const large = path.join(folder, "large");
  fs.writeFileSync(large, randomBytes(2 << 20));
  const { save_point_id: id } = await client.save();
  const fd = fs.openSync(large, "r+");
  fs.writeSync(fd, "changed", 1 << 20);
  const warnings: string[] = [];
  const writer = setInterval(() => void fs.writeSync(fd, randomBytes(16), 0, 16, 1000), 1);
  t.after(() => {
    clearInterval(writer);
    fs.closeSync(fd);
  });
  const { left_out: leftOut } = await client.restore({
    target: id,
    onWarning: (message) => void warnings.push(message),
  });
  // Seen before, it stays as it is; seen after, it lies aside.
  assert.ok(leftOut.length === 1 || /was changed during the restore/.test(warnings.join("\n")), warnings.join("\n"));
});

test("a fork of a point without ignore rules is a clone, and seals no point", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder, volume } = place;
  const states: FolderState[] = [];
  const ids: string[] = [];
  for (const change of [() => undefined, () => makeSecond(folder), () => makeUnsaved(folder)]) {
    change();
    ids.push((await client.save()).save_point_id);
    states.push(readFolder(folder));
  }
  for (const [i, id] of ids.entries()) {
    const to = path.join(volume.root, `fork-${i}`);
    const { save_point: first, started_from: from } = await client.fork(id, to);
    assert.deepEqual([from, first.sealed, first.effective_engine], [id, false, "btrfs-snapshot"]);
    assertFolder(to, states[i]!, `fork ${i}`);
    const fork = await (await cairnLibrary()).open(to);
    assert.deepEqual(
      [(await fork.status()).clean, (await fork.history(undefined, 0, { all: true })).save_points.length],
      [true, 1],
    );
    fs.writeFileSync(path.join(to, "in the fork"), "new\n");
    await fork.save();
    assert.equal((await fork.restore({ target: "head~1", method: "exchange" })).method, "exchange");
    assertFolder(to, states[i]!, `fork ${i} restored`);
    assert.deepEqual(await sealed(fork), [false, false, false]);
  }
  assert.deepEqual(await sealed(client), [false, false, false]);
  await client.fork(ids[1]!, path.join(volume.root, "alone"), { standalone: true });
  assertFolder(path.join(volume.root, "alone"), states[1]!, "standalone");
  assert.deepEqual(await sealed(client), [false, false, false]);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a fork of a point with an ignore file leaves out the ignored files", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder, volume } = place;
  await client.save();
  fs.writeFileSync(path.join(folder, "same/.cairnignore"), "hidden\n");
  fs.writeFileSync(path.join(folder, "same/hidden"), "hidden\n");
  const { save_point_id: id } = await client.save();
  const to = path.join(volume.root, "fork");
  await client.fork(id, to);
  assert.equal(fs.existsSync(path.join(to, "same/hidden")), false);
  assert.equal(fs.existsSync(path.join(to, "same/kept.txt")), true);
  assert.deepEqual(await sealed(client), [false, true]);
});

test("the cached answer that a snapshot has no ignore file is used only for that very snapshot", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder } = place;
  const first = await client.save();
  fs.writeFileSync(path.join(folder, ".cairnignore"), "hidden\n");
  const second = await client.save();
  makeUnsaved(folder);
  const restore = async (target: string): Promise<string> =>
    (await client.restore({ target, method: "exchange" })).method;
  assert.equal(await restore(first.save_point_id), "exchange");
  const file = path.join(client.controlDirectory, "cache/ruleless-2-main");
  const { uuid, otransid } = inDirectory(treeOf(client, 1), subvolumeInfo);
  assert.equal(fs.readFileSync(file, "utf8"), `${first.save_point_id} ${uuid}:${otransid}\n`);
  // Were it about the second one, that would be believed, and of no other snapshot.
  const other = inDirectory(treeOf(client, 2), subvolumeInfo);
  const claim = async (tree: string): Promise<string> => {
    fs.writeFileSync(file, `${second.save_point_id} ${tree}\n`);
    return restore(second.save_point_id);
  };
  assert.equal(await claim(`${other.uuid}:${other.otransid}`), "exchange");
  makeUnsaved(folder);
  for (const tree of [`${uuid}:${other.otransid}`, `${other.uuid}:${otransid}`, ""])
    assert.equal(await claim(tree), "entries");
  fs.writeFileSync(file, `${second.save_point_id} ${other.uuid}`);
  assert.equal(await restore(first.save_point_id), "exchange");
});

for (const [kind, engine] of ENGINES)
  test(`a restore by clones of ${engine} is rolled back if it is interrupted while it exchanges entries`, async (t) => {
    const place = await heldPlace(t, { kind, engine, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const { save_point_id: id } = await client.save();
    makeSecond(folder);
    const second = readFolder(folder);
    const hold = path.join(SCRATCH, `held-restore-${engine}`);
    fs.writeFileSync(hold, "");
    const run = startCairn(["restore", id, "-C", folder, "--method", "entries"], {
      env: { CAIRN_FAILPOINT: `restore.swapped@${hold}` },
    });
    await run.paused;
    run.child.kill("SIGINT");
    fs.rmSync(hold);
    const ended = await run.ended;
    assert.deepEqual([ended.status, ended.error?.code], [130, "interrupted"]);
    assertFolder(folder, second, "taken back");
    assert.deepEqual((await sealed(client)).filter(Boolean), []);
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

test("history shows an unsealed point as damaged if its clone is missing", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const { client, folder } = place;
  const { save_point_id: id } = await client.save();
  fs.writeFileSync(path.join(folder, "more"), "more");
  await client.save();
  await removeHeldTree(treeOf(client, 1));
  const { save_points: points } = await client.history();
  assert.deepEqual(
    points.map((each) => [each.save_point_id === id, each.integrity_state]),
    [
      [false, "unverified"],
      [true, "damaged"],
    ],
  );
});
