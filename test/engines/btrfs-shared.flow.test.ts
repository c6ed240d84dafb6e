import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { CairnError } from "../../src/errors.ts";
import type { SavePointId } from "../../src/ids.ts";
import { decodeDescriptorFile, encodeDescriptorFile } from "../../src/workspace/points/point-files.ts";
import { needingTrees } from "../../src/workspace/points/held-trees.ts";
import { Points } from "../../src/workspace/points/points.ts";
import { killAt, passesOf, someOf } from "../crash/rounds.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, btrfsPlace, type HeldPlace, subvolumesOf, treeOf } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { resticCheck } from "../fixtures/work.ts";

/** Points of an untouched folder, of which earlier versions held one tree for all. */

async function save({ client }: HeldPlace): Promise<SavePointId> {
  return (await client.save()).save_point_id;
}

/** One more point, as an earlier version made it: its tree is that of another. */
async function saveShared(place: HeldPlace, owner = 1): Promise<SavePointId> {
  const { client, volume } = place;
  const { save_point_id: id, sequence } = await client.save();
  const [own, others] = [sequence, owner].map((each) =>
    decodeDescriptorFile(fs.readFileSync(descriptorOf(place, each))),
  );
  const held = { ...others!.content.held!, at: own!.content.held!.at, tree_of: owner };
  removeFolder(volume, treeOf(client, sequence));
  fs.symlinkSync(`../${String(owner).padStart(10, "0")}/tree`, treeOf(client, sequence));
  fs.writeFileSync(
    descriptorOf(place, sequence),
    encodeDescriptorFile({ ...own!, content: { ...own!.content, held }, unchanged: true }),
  );
  return id;
}

async function cleanUp({ client }: HeldPlace, only: readonly SavePointId[]): Promise<void> {
  await client.runCleanup({ only });
}

/** Every point gives back what it should. */
async function assertGiven(place: HeldPlace, wanted: ReturnType<typeof readFolder>, context: string): Promise<void> {
  const { client, volume } = place;
  for (const { save_point_id: id } of (await client.history(undefined, 0, { all: true })).save_points) {
    const to = path.join(volume.root, "given");
    await client.restore({ target: id, to });
    assertFolder(to, wanted, `${context}: ${id}`);
    removeFolder(volume, to);
  }
}

void describe("points of an untouched folder", () => {
  test("points of an unchanged folder share one tree, and each of them can be restored, forked and verified", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const digest = walkDigests(folder).state;
    const ids = [await save(place), await saveShared(place), await saveShared(place)];
    assert.equal(subvolumesOf(volume.root).length, 2);
    fs.appendFileSync(path.join(folder, "same/kept.txt"), "not synced");
    const changed = readFolder(folder);
    await save(place);
    assertFolder(treeOf(client, 4), changed, "with what was not on the disk yet");
    await client.seal();
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    const ofFirst = points.filter(({ payload_root_hash: each }) => each === digest);
    assert.deepEqual(
      ofFirst.map(({ sequence }) => sequence),
      [3, 2, 1],
    );
    assert.equal((await client.restore({ target: ids[2]!, method: "exchange" })).method, "exchange");
    assertFolder(folder, first, "restored");
    const fork = path.join(volume.root, "fork");
    await client.fork(ids[1]!, fork);
    assertFolder(fork, first, "forked");
    assert.deepEqual((await client.verifyAll()).problems, []);
    assert.equal((await client.doctor()).healthy, true);
    resticCheck(client, "shared");
  });

  test("a cleanup of the point that owns a shared tree seals the other points first", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const first = readFolder(folder);
    const ids = [await save(place), await saveShared(place), await saveShared(place)];
    // Looking at what goes seals all there is.
    const { plan_id: plan } = await client.previewCleanup({ only: [ids[0]!] });
    for (let i = 0; i < 2; i++) ids.push(await saveShared(place));
    // By an earlier version, which handed trees over, when it was killed.
    fs.symlinkSync("../0000000001/tree", path.join(path.dirname(treeOf(client, 2)), "tree-coming"));
    await client.runCleanup({ only: [ids[0]!], plan });
    await assertGiven(place, first, "the first is gone");
    assert.deepEqual((await client.verifyAll()).problems, []);
    await cleanUp(place, ids.slice(1, 4));
    await client.seal();
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertHeldTidy(place, "after all");
  });

  test("a shared tree is kept until all its points are sealed, and if it is the newest tree", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const trees = (): number => subvolumesOf(volume.root).length - 1;
    for (let i = 0; i < 12; i++) {
      fs.appendFileSync(path.join(folder, "same/kept.txt"), `${i}`);
      await save(place);
      await saveShared(place, i * 2 + 1);
    }
    assert.equal(trees(), 12);
    await client.seal();
    assert.equal(trees(), 8);
    assertHeldTidy(place, "sealed");
    const { save_points } = await client.history(undefined, 0, { all: true });
    fs.appendFileSync(path.join(folder, "same/kept.txt"), "more");
    for (const { save_point_id: id } of [save_points[0]!, save_points[2]!])
      assert.equal((await client.restore({ target: id, method: "exchange" })).method, "exchange");
    await client.restore({ target: save_points.at(-1)!.save_point_id });
    assert.deepEqual((await client.verifyAll()).problems, []);
  });

  test("verify names each unsealed point whose shared tree is missing or replaced, and no sealed point", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const own = await save(place);
    const shared = await saveShared(place);
    fs.rmSync(treeOf(client, 2));
    fs.symlinkSync(folder, treeOf(client, 2));
    await client.seal();
    await assertGiven(place, first, "a link that leads elsewhere is not followed");
    const third = await saveShared(place);
    removeFolder(volume, treeOf(client, 1));
    assert.equal((await client.verify(own)).problems.length, 0);
    assert.equal((await client.verify(third)).problems.length, 1);
    await assert.rejects(client.restore({ target: third }), {
      code: "damaged",
      message: /the clone of the point .* and of other points is missing/,
    });
    await assert.rejects(client.seal(), (error: CairnError) => error.message.includes(third));
    assert.equal((await client.verify(shared)).problems.length, 0);
  });

  test("points lose nothing if the cleanup of the point that owns their shared tree is killed", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder } = place;
    const round = async (): Promise<{ ids: SavePointId[]; args: string[] }> => {
      fs.appendFileSync(path.join(folder, "same/kept.txt"), "more");
      const ids = [await save(place)];
      const owner = (await client.history(undefined, 0, { all: true })).save_points[0]!.sequence;
      ids.push(await saveShared(place, owner));
      const { plan_id: plan } = await client.previewCleanup({ only: [ids[0]!] });
      // Not sealed, like those that are saved while others look at the plan.
      for (let i = 0; i < 2; i++) ids.push(await saveShared(place, owner));
      return { ids, args: ["cleanup", "drop", ids[0]!, "--apply", plan, "-C", folder] };
    };
    const names = passesOf((await round()).args);
    const own = /^seal\.|^held-tree\.|^cleanup\.(?:committed|trees-removed)$/;
    const passes = names.flatMap((name, i) => (own.test(name) ? [i + 1] : []));
    assert.ok(passes.length >= 8, names.join(" "));
    for (const pass of someOf(passes)) {
      const { ids, args } = await round();
      const state = readFolder(folder);
      const where = `cleanup killed at ${killAt(args, pass)}`;
      await client.save();
      const isGone = (await client.history(undefined, 0, { all: true })).save_points.every(
        ({ save_point_id: id }) => id !== ids[0],
      );
      // Killed before it was decided, it is done again; what was handed over half goes with it.
      if (!isGone) await cleanUp(place, ids.slice(0, 1));
      for (const id of ids.slice(2)) assert.equal((await client.verify(id)).problems.length, 0, where);
      await client.seal();
      assertHeldTidy(place, `${where}, sealed`);
      const left = (await client.history(undefined, 0, { all: true })).save_points.map(({ save_point_id: id }) => id);
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

  test("a cleanup keeps the point that owns a shared tree while another point of that tree cannot be sealed", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const ids = [await save(place), await saveShared(place), await saveShared(place)];
    await saveShared(place);
    await client.seal();
    const seal = path.join(path.dirname(treeOf(client, 3)), "seal.json");
    const whole = fs.readFileSync(seal);
    fs.rmSync(seal);
    const descriptor = fs.readFileSync(descriptorOf(place, 3));
    fs.writeFileSync(descriptorOf(place, 3), "nonsense");
    const warnings: string[] = [];
    const done = await client.runCleanup({ only: [ids[0]!], onWarning: (message) => warnings.push(message) });
    assert.deepEqual([done.removed, done.complete], [[], false]);
    assert.match(warnings.join("\n"), /1 point cannot be removed yet/);
    fs.writeFileSync(descriptorOf(place, 3), descriptor);
    fs.writeFileSync(seal, whole);
    assert.deepEqual((await client.verifyAll()).problems, []);
    await cleanUp(place, [ids[0]!]);
    await assertGiven(place, first, "removed");
    assert.equal(subvolumesOf(volume.root).length, 1);
  });

  test("needingTrees finds the points that share a tree by links or descriptors, or reports an unknown tree", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    await save(place);
    for (let i = 0; i < 2; i++) await saveShared(place);
    const points = new Points({
      points: path.resolve(treeOf(place.client, 1), "../.."),
      catalog: path.join(place.volume.root, "no-catalog"),
      texts: path.join(place.volume.root, "no-texts"),
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
  test("an empty folder or a copy in place of a snapshot is reported as damage", async (t) => {
    const place = await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const { client, folder, volume } = place;
    const first = readFolder(folder);
    const ids = [await save(place), await saveShared(place)];
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
    assert.equal((await client.verifyAll()).problems.length, 2);
    for (const id of ids) await assert.rejects(client.restore({ target: id }), { code: "damaged" });
  });

  test("an empty folder in place of the snapshot of an empty folder is reported as damage", async (t) => {
    const place = await btrfsPlace(t, () => undefined);
    if (place === null) return;
    const { client } = place;
    const ids = [await save(place), await saveShared(place)];
    removeFolder(place.volume, treeOf(client, 1));
    fs.mkdirSync(treeOf(client, 1));
    assert.deepEqual((await client.verifyAll()).problems.map(({ point }) => point).toSorted(), ids.toSorted());
  });
});

function descriptorOf({ client }: HeldPlace, sequence: number): string {
  return path.join(path.dirname(treeOf(client, sequence)), "descriptor.json");
}
