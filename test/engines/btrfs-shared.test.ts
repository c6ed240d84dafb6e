import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import { CairnError } from "../../src/errors.ts";
import type { SavePointId } from "../../src/ids.ts";
import { decodeSealFile, encodeSealFile } from "../../src/workspace/descriptor-file.ts";
import { needingTrees } from "../../src/workspace/held-trees.ts";
import { Points } from "../../src/workspace/points.ts";
import { killAt, oneOf, passesOf } from "../crash/rounds.ts";
import { cairnOk } from "../fixtures/command.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, btrfsPlace, type HeldPlace, subvolumesOf, treeOf } from "../fixtures/held-place.ts";
import type { LoopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { resticCheck } from "../fixtures/work.ts";

/** Points between which nothing was done to the folder: one tree is all of theirs. */

const NONE = { added: 0, modified: 0, removed: 0 };

function isShared({ client }: HeldPlace, sequence: number): boolean {
  return fs.lstatSync(treeOf(client, sequence)).isSymbolicLink();
}

async function cleanUp({ client }: HeldPlace, only: readonly SavePointId[]): Promise<void> {
  await client.runCleanup((await client.previewCleanup({ only })).plan_id);
}

/** Every point gives back what it should. */
async function assertGiven(place: HeldPlace, wanted: ReturnType<typeof readFolder>, context: string): Promise<void> {
  const { client, volume } = place;
  for (const { save_point_id: id } of (await client.history()).save_points) {
    const to = path.join(volume.root, "given");
    await client.restore({ target: id, to });
    assertFolder(to, wanted, `${context}: ${id}`);
    removeFolder(volume, to);
  }
}

void describe("points of an untouched folder", () => {
  test("hold one tree, and are each as good as the first", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const digest = walkDigests(folder).state;
    const own = await client.save();
    const shared = [await client.save({ message: "again" }), await client.save({ tags: ["third"] })];
    assert.deepEqual(
      [own, ...shared].map(({ changes, unchanged }) => [changes, unchanged]),
      [
        [null, false],
        [NONE, true],
        [NONE, true],
      ],
    );
    assert.deepEqual([isShared(place, 1), isShared(place, 2), isShared(place, 3)], [false, true, true]);
    assert.equal(subvolumesOf(volume.root).length, 2);
    assert.equal((await client.save({ skipUnchanged: true })).save_point_id, shared[1]!.save_point_id);
    const excluding = await client.save({ exclude: ["same"] });
    assert.equal(excluding.changes, null);

    fs.appendFileSync(path.join(folder, "same/kept.txt"), "not synced");
    const changed = readFolder(folder);
    await client.save();
    assert.equal(isShared(place, 5), false);
    assertFolder(treeOf(client, 5), changed, "with what was not on the disk yet");

    await client.seal();
    const { save_points } = await client.history();
    const ofFirst = save_points.filter(({ payload_root_hash: each }) => each === digest);
    assert.deepEqual(
      ofFirst.map(({ sequence, unchanged }) => [sequence, unchanged]),
      [
        [3, true],
        [2, true],
        [1, false],
      ],
    );
    assert.notEqual(save_points.find(({ sequence }) => sequence === 4)!.payload_root_hash, digest);
    assert.deepEqual(ofFirst[0]!.entries, ofFirst[2]!.entries);
    const restored = await client.restore({ target: shared[1]!.save_point_id, method: "exchange" });
    assert.equal(restored.method, "exchange");
    // What was displaced was still as it was saved.
    const undo = (await client.history()).save_points.find(({ save_point_id: id }) => id === restored.undo_id)!;
    assert.equal(fs.readlinkSync(treeOf(client, undo.sequence)), "../0000000005/tree");
    // Before anything is read, which changes the times of access.
    const next = await client.save();
    assertFolder(folder, first, "restored");
    assert.deepEqual([next.changes, isShared(place, next.sequence)], [NONE, true]);
    assert.equal(fs.readlinkSync(treeOf(client, next.sequence)), "../0000000001/tree");
    const fork = path.join(volume.root, "fork");
    await client.fork(shared[0]!.save_point_id, fork);
    assertFolder(fork, first, "forked");
    assert.deepEqual((await client.verifyAll()).problems, []);
    assert.equal((await client.doctor()).healthy, true);
    resticCheck(client, "shared");
    assert.ok((await client.save({ skipUnchanged: true, reread: true })).read_bytes > 0);
  });

  test("are sealed before the one that the tree lies with goes", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const first = readFolder(folder);
    const ids: SavePointId[] = [];
    const save = async (): Promise<number> => ids.push((await client.save()).save_point_id);
    for (let i = 0; i < 3; i++) await save();
    // Looking at what goes seals all there is.
    const { plan_id: plan } = await client.previewCleanup({ only: [ids[0]!] });
    for (let i = 0; i < 2; i++) await save();
    // By an earlier version, which handed trees over, when it was killed.
    fs.symlinkSync("../0000000001/tree", path.join(path.dirname(treeOf(client, 2)), "tree-coming"));
    await client.runCleanup(plan);
    await assertGiven(place, first, "the first is gone");
    assert.deepEqual((await client.verifyAll()).problems, []);
    await save();
    assertFolder(treeOf(client, 6), first, "a tree of its own");
    assert.equal((await client.restore({ target: ids[5]!, method: "exchange" })).method, "exchange");
    await save();
    assert.equal(
      fs.readlinkSync(treeOf(client, (await client.history()).save_points[0]!.sequence)),
      "../0000000006/tree",
    );
    await cleanUp(place, ids.slice(1, 5));
    await client.seal();
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertHeldTidy(place, "after all");
  });

  test("keep their tree as long as one of them is not sealed, and as the newest", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const trees = (): number => subvolumesOf(volume.root).length - 1;
    for (let i = 0; i < 12; i++) {
      fs.appendFileSync(path.join(folder, "same/kept.txt"), `${i}`);
      await client.save();
      await client.save();
    }
    assert.equal(trees(), 12);
    await client.seal();
    assert.equal(trees(), 8);
    assertHeldTidy(place, "sealed");
    const { save_points } = await client.history();
    for (const { save_point_id: id } of save_points.slice(0, 2))
      assert.equal((await client.restore({ target: id, method: "exchange" })).method, "exchange");
    await client.restore({ target: save_points.at(-1)!.save_point_id });
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("are named with the one whose tree is gone or was changed, and what is sealed is not", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const own = await client.save();
    const shared = await client.save();
    fs.rmSync(treeOf(client, 2));
    fs.symlinkSync(folder, treeOf(client, 2));
    await client.seal();
    await assertGiven(place, first, "a link that leads elsewhere is not followed");
    const third = await client.save();
    assert.equal(isShared(place, 3), true);
    removeFolder(volume, treeOf(client, 1));
    assert.equal((await client.verify(own.save_point_id)).problems.length, 0);
    assert.equal((await client.verify(third.save_point_id)).problems.length, 1);
    await assert.rejects(client.restore({ target: third.save_point_id }), {
      code: "damaged",
      message: /held together with others is gone/,
    });
    await assert.rejects(client.seal(), (error: CairnError) => error.message.includes(third.save_point_id));
    assert.equal((await client.verify(shared.save_point_id)).problems.length, 0);
    const next = await client.save();
    assert.equal(next.changes, null);
    assertFolder(treeOf(client, 4), first, "a tree of its own");
  });

  test("are sealed by reading where the store has lost what the first of them has", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const first = readFolder(folder);
    await client.save();
    await client.seal();
    await client.save();
    for (const kind of ["data", "index"]) {
      const directory = path.join(client.controlDirectory, "store", kind);
      for (const name of fs.readdirSync(directory, { recursive: true, encoding: "utf8" }))
        if (fs.statSync(path.join(directory, name)).isFile()) fs.rmSync(path.join(directory, name));
    }
    assert.deepEqual(await client.seal(), { sealed: 1 });
    assert.deepEqual((await client.verifyAll()).problems, []);
    await assertGiven(place, first, "stored again");
  });

  test("outlast a power cut right after they were answered, and any kill leaves them or nothing", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const volume = place.volume as LoopFileSystem;
    const first = readFolder(folder);
    const ids = [(await client.save()).save_point_id];
    const listed = async (): Promise<SavePointId[]> =>
      (await client.history()).save_points.map(({ save_point_id: id }) => id).toReversed();
    const args = ["save", folder];
    // More than are looked at when nothing was cut.
    for (let i = 0; i < 9; i++) ids.push((await client.save()).save_point_id);
    volume.cutPower();
    assert.deepEqual([await listed(), (await client.history()).head], [ids, ids.at(-1)]);
    const names = passesOf(args);
    assert.ok(names.includes("share.marked"), names.join(" "));
    ids.splice(0, ids.length, ...(await listed()));
    for (let pass = 1; pass <= names.length; pass++) {
      const where = `save killed at ${killAt(args, pass)}`;
      if (pass % 2 === 0) volume.cutPower();
      const now = await listed();
      assert.deepEqual([now.slice(0, ids.length), now.length - ids.length < 2], [ids, true], where);
      const { save_point_id: id } = await client.save();
      ids.splice(0, ids.length, ...(await listed()));
      assert.deepEqual([ids.at(-1), (await client.history()).head], [id, id], where);
      assertHeldTidy(place, where);
    }
    assert.ok(isShared(place, names.length));
    await client.seal();
    await assertGiven(place, first, "after all");
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("lose nothing when the removal of the one that their tree lies with is killed", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const round = async (): Promise<{ ids: SavePointId[]; args: string[] }> => {
      fs.appendFileSync(path.join(folder, "same/kept.txt"), "more");
      const ids = [(await client.save()).save_point_id, (await client.save()).save_point_id];
      const { plan_id: plan } = await client.previewCleanup({ only: [ids[0]!] });
      // Not sealed, like those that are saved while others look at the plan.
      for (let i = 0; i < 2; i++) ids.push((await client.save()).save_point_id);
      return { ids, args: ["cleanup", "--run", plan, "-C", folder] };
    };
    const names = passesOf((await round()).args);
    const own = /^seal\.|^held-tree\.|^cleanup\.(?:committed|trees-removed)$/;
    const passes = names.flatMap((name, i) => (own.test(name) ? [i + 1] : []));
    assert.ok(passes.length >= 8, names.join(" "));
    for (const pass of passes) {
      const { ids, args } = await round();
      const state = readFolder(folder);
      const where = `cleanup killed at ${killAt(args, pass)}`;
      await client.save();
      const isGone = (await client.history()).save_points.every(({ save_point_id: id }) => id !== ids[0]);
      // Killed before it was decided, it is done again; what was handed over half goes with it.
      if (!isGone) await cleanUp(place, ids.slice(0, 1));
      for (const id of ids.slice(2)) assert.equal((await client.verify(id)).problems.length, 0, where);
      await client.seal();
      assertHeldTidy(place, `${where}, sealed`);
      const left = (await client.history()).save_points.map(({ save_point_id: id }) => id);
      assert.deepEqual(
        ids.slice(1).filter((id) => !left.includes(id)),
        [],
        where,
      );
      await client.restore({ target: ids[3]! });
      assertFolder(folder, state, where);
    }
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("are undo points of a restore that is killed or cut off, whole and once", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const volume = place.volume as LoopFileSystem;
    const round = async (): Promise<{ target: SavePointId; first: FolderState; second: FolderState }> => {
      const first = readFolder(folder);
      const { save_point_id: target } = await client.save();
      fs.appendFileSync(path.join(folder, "same/kept.txt"), "more");
      const second = readFolder(folder);
      await client.save();
      await client.seal();
      return { target, first, second };
    };
    const restore = (target: SavePointId): string[] => ["-C", folder, "restore", target, "--method", "exchange"];
    const names = passesOf(restore((await round()).target));
    assert.ok(names.includes("share.announced"), names.join(" "));
    let shared = 0;
    const passes = names.flatMap((name, i) => (/^(?:exchange|share)\./.test(name) ? [i + 1] : []));
    for (const [i, pass] of passes.entries()) {
      const { target, first, second } = await round();
      const before = (await client.history()).save_points.length;
      const isCut = i % 2 === 1;
      const where = `restore killed at ${killAt(restore(target), pass)}${isCut ? " and cut off" : ""}`;
      if (isCut) volume.cutPower();
      const { head } = await client.status();
      const { save_points: points } = await client.history();
      if (oneOf(folder, { first, second }, where) === "second") {
        assert.equal(points.length, before, where);
        continue;
      }
      assert.deepEqual([head, points.length], [target, before + 1], where);
      if (isShared(place, points[0]!.sequence)) shared++;
      await client.undo({ method: "exchange" });
      assertFolder(folder, second, `${where}, undone`);
    }
    assert.ok(shared > 2, `${shared} of ${passes.length}`);
    await client.close();
    assertHeldTidy(place, "restored");
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("are not sealed as one that knows less of the tree", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const first = readFolder(folder);
    const digest = walkDigests(folder).state;
    const sealed = async (sequence: number): Promise<unknown> => {
      const { save_points: points } = await client.history();
      return points.find((each) => each.sequence === sequence)!.payload_root_hash;
    };
    await client.save({ exclude: ["same"] });
    await client.seal();
    await client.save();
    // Made anew, it does not know what was left out.
    fs.writeFileSync(descriptorOf(place, 1), "nonsense");
    await client.doctor({ repair: true });
    assert.equal(isShared(place, 2), true);
    await client.seal();
    assert.equal(await sealed(2), digest);
    await client.save();
    const seal = path.join(path.dirname(treeOf(client, 2)), "seal.json");
    const whole = fs.readFileSync(seal);
    fs.writeFileSync(seal, encodeSealFile({ ...decodeSealFile(whole), complete: false }));
    await client.seal();
    fs.writeFileSync(seal, whole);
    assert.equal((await client.history()).save_points[0]!.complete, true);
    for (const { sequence } of (await client.history()).save_points.slice(0, 2))
      assert.equal(await sealed(sequence), digest);
    assertFolder(folder, first, "after all");
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("are found again where their folder lay, also when it has moved since", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    await client.save();
    await client.seal();
    const moved = path.join(volume.root, "deep/er/ws");
    fs.mkdirSync(path.dirname(moved), { recursive: true });
    fs.renameSync(folder, moved);
    cairnOk(["relocate", folder, moved]);
    cairnOk(["save", moved]);
    assert.equal(isShared(place, 2), true);
    cairnOk(["seal", "-C", moved]);
    fs.writeFileSync(descriptorOf(place, 2), "nonsense");
    fs.rmSync(treeOf(client, 2));
    cairnOk(["doctor", "--repair", "-C", moved]);
    const to = path.join(volume.root, "given");
    cairnOk(["restore", "head", "--to", to, "-C", moved]);
    assertFolder(to, first, "made anew");
  });

  test("keep the one that their tree lies with while they cannot be sealed", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const ids: SavePointId[] = [];
    for (let i = 0; i < 3; i++) ids.push((await client.save()).save_point_id);
    await client.save();
    const { plan_id: plan } = await client.previewCleanup({ only: [ids[0]!] });
    const seal = path.join(path.dirname(treeOf(client, 3)), "seal.json");
    const whole = fs.readFileSync(seal);
    fs.rmSync(seal);
    const descriptor = fs.readFileSync(descriptorOf(place, 3));
    fs.writeFileSync(descriptorOf(place, 3), "nonsense");
    const warnings: string[] = [];
    const done = await client.runCleanup(plan, { onWarning: (message) => warnings.push(message) });
    assert.deepEqual([done.removed, done.complete], [[], false]);
    assert.match(warnings.join("\n"), /1 point cannot be removed yet/);
    fs.writeFileSync(descriptorOf(place, 3), descriptor);
    fs.writeFileSync(seal, whole);
    assert.deepEqual((await client.verifyAll()).problems, []);
    await cleanUp(place, [ids[0]!]);
    await assertGiven(place, first, "removed");
    assert.equal(subvolumesOf(volume.root).length, 1);
  });

  test("are known to need a tree by their marks, by their descriptors, and when nothing tells", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    for (let i = 0; i < 3; i++) await place.client.save();
    const points = new Points({
      points: path.resolve(treeOf(place.client, 1), "../.."),
      catalog: path.join(place.volume.root, "no-catalog"),
    });
    const needing = (...leaving: number[]): unknown => [...needingTrees(points, leaving)];
    assert.deepEqual(
      [needing(1), needing(2), needing(1, 2, 3)],
      [
        [
          [2, 1],
          [3, 1],
        ],
        [],
        [],
      ],
    );
    fs.rmSync(treeOf(place.client, 2));
    assert.deepEqual(needing(1, 3), [[2, 1]]);
    const whole = points.read.bind(points);
    t.mock.method(points, "read", (each: number) => {
      if (each > 1) throw new CairnError("io", "read: EIO");
      return whole(each);
    });
    assert.deepEqual(needing(1), [
      [2, null],
      [3, 1],
    ]);
  });
});

void describe("an empty folder in a snapshot's place", () => {
  test("is not taken for what was saved, and a copy of the snapshot is", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const ids: SavePointId[] = [];
    for (let i = 0; i < 2; i++) ids.push((await client.save()).save_point_id);
    const tree = treeOf(client, 1);
    const aside = path.join(volume.root, "aside");
    spawnSync("btrfs", ["subvolume", "snapshot", "-r", tree, aside]);
    removeFolder(volume, tree);
    fs.mkdirSync(tree);
    const { problems } = await client.verifyAll();
    assert.equal(problems.length, 2);
    assert.match(problems[0]!.detail, /is an empty folder/);
    for (const id of ids) await assert.rejects(client.restore({ target: id }), { code: "damaged" });
    await assert.rejects(client.seal(), { code: "damaged" });
    assertFolder(folder, first, "as it was");
    fs.rmdirSync(tree);
    spawnSync("cp", ["-a", aside, tree]);
    removeFolder(volume, aside);
    assert.deepEqual((await client.verifyAll()).problems, []);
    await assertGiven(place, first, "copied back");
  });

  test("is what was saved when the folder was empty", async (t) => {
    const place = await btrfsPlace(t, () => undefined);
    if (place === null) return;
    const { client, volume } = place;
    await client.save();
    await client.save();
    removeFolder(volume, treeOf(client, 1));
    fs.mkdirSync(treeOf(client, 1));
    assert.deepEqual((await client.verifyAll()).problems, []);
    await client.seal();
    assert.equal((await client.history()).save_points[0]!.entries, 0);
  });
});

function descriptorOf({ client }: HeldPlace, sequence: number): string {
  return path.join(path.dirname(treeOf(client, sequence)), "descriptor.json");
}
