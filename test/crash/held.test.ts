import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import {
  assertHeldTidy,
  type HeldKind,
  type HeldPlace,
  heldPlace,
  heldVolume,
  type HoldingEngine,
  makeHoldable,
  subvolumesOf,
} from "../fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { cairnLibrary, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, LONG, passesOf, random, SEED } from "./rounds.ts";

/** Points that hold whole trees, when whatever makes, seals or removes them is killed. */

let failed = 0;
after(() => {
  if (failed > 0) process.stderr.write(`held.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

const CASES: readonly { kind: HeldKind; engine: HoldingEngine }[] = [
  { kind: "btrfs", engine: "btrfs-snapshot" },
  { kind: "xfs", engine: "reflink-copy" },
  { kind: "juicefs", engine: "juicefs-clone" },
  ...(LONG ? [{ kind: "btrfs", engine: "reflink-copy" } as const] : []),
];

interface Wanted {
  state: FolderState;
  digest: string;
}

/** What the points of a workspace should hold, by id. */
class Expected {
  readonly #place: HeldPlace;
  readonly #known = new Map<string, Wanted>();

  constructor(place: HeldPlace) {
    this.#place = place;
  }

  edit(): Wanted {
    const { folder } = this.#place;
    fs.writeFileSync(path.join(folder, "same/updated.txt"), `edited ${random()}\n`);
    fs.writeFileSync(path.join(folder, `own-${Math.floor(random() * 3)}`), `${random()}\n`.repeat(1000));
    return { state: readFolder(folder), digest: walkDigests(folder).state };
  }

  set(id: string, wanted: Wanted): void {
    this.#known.set(id, wanted);
  }

  async save(): Promise<string> {
    const wanted = this.edit();
    const { save_point_id: id } = await this.#place.client.save();
    this.set(id, wanted);
    return id;
  }

  async ids(context: string): Promise<string[]> {
    const { save_points, damaged } = await this.#place.client.history();
    assert.deepEqual(damaged, [], context);
    return save_points.map(({ save_point_id }) => save_point_id).toReversed();
  }

  /** After a kill: `before`, or one more, which is what was there; head moves with the next call at the latest. */
  async afterSave(before: readonly string[], wanted: Wanted, context: string): Promise<void> {
    const now = await this.ids(context);
    assert.deepEqual(now.slice(0, before.length), before, context);
    assert.ok(now.length <= before.length + 1, context);
    if (now.length > before.length) this.set(now.at(-1)!, wanted);
    assertFolder(this.#place.folder, wanted.state, context);
  }

  /** Seals all there is: each point has the digest that a walk found, is proven, and gives back what was there. */
  async check(context: string, restored: number): Promise<void> {
    const { client, volume } = this.#place;
    await client.seal();
    const { save_points: points, damaged } = await client.history();
    assert.deepEqual(damaged, [], context);
    for (const { save_point_id: id, payload_root_hash: digest, complete } of points) {
      const wanted = this.#known.get(id);
      assert.ok(wanted !== undefined, `${context}: nobody knows ${id}`);
      assert.deepEqual([digest, complete], [wanted.digest, true], `${context}: ${id}`);
    }
    assert.deepEqual((await client.verifyAll()).problems, [], context);
    const ids = points.map(({ save_point_id }) => save_point_id);
    for (const id of [ids[0]!, ...Array.from({ length: restored }, () => ids[Math.floor(random() * ids.length)]!)]) {
      const to = path.join(volume.root, "restored");
      await client.restore({ target: id, to });
      assertFolder(to, this.#known.get(id)!.state, `${context}: ${id} given back`);
      fs.rmSync(to, { recursive: true });
    }
    assertHeldTidy(this.#place, context);
  }
}

async function begin(
  t: Parameters<typeof heldPlace>[0],
  on: (typeof CASES)[number],
): Promise<{ place: HeldPlace; expected: Expected } | null> {
  const place = await heldPlace(t, { ...on, fill: makeFirst });
  if (place === null) return null;
  const expected = new Expected(place);
  await expected.save();
  makeSecond(place.folder);
  await expected.save();
  return { place, expected };
}

for (const on of CASES) {
  const title = `${on.engine} on ${on.kind}`;
  test(`${title}: a save that is killed at any step leaves the old points or one more, whole, and nothing grows`, async (t) => {
    const begun = await begin(t, on);
    if (begun === null) return;
    failed++;
    const { place, expected } = begun;
    const { client, folder } = place;
    expected.edit();
    const edited = { state: readFolder(folder), digest: walkDigests(folder).state };
    const names = passesOf(["save", folder]);
    expected.set((await expected.ids("traced")).at(-1)!, edited);
    assert.ok(names.length >= 8, names.join(" "));
    const outcomes = new Set<number>();
    for (let round = 0; round < 3; round++) {
      for (let pass = 1; pass <= names.length; pass++) {
        const before = await expected.ids(title);
        const wanted = expected.edit();
        const kills = [killAt(["save", folder, "-m", "killed"], pass)];
        const where = `${title}, round ${round}: save killed at ${kills[0]}`;
        await expected.afterSave(before, wanted, where);
        const then = await expected.ids(where);
        outcomes.add(then.length - before.length);
        // The recovery is killed too, once or twice.
        for (let i = 0; i < round; i++) {
          const meanwhile = await expected.ids(where);
          kills.push(killAt(["save", folder], 1 + Math.floor(random() * names.length)));
          await expected.afterSave(meanwhile, wanted, `${where}, then ${kills.at(-1)}`);
        }
        const both = `${title}, round ${round}: save killed at ${kills.join(", then ")}`;
        const id = await expected.save();
        assert.equal((await client.history()).head, id, both);
        assertHeldTidy(place, both);
        if (pass % 5 === 0) await expected.check(both, 1);
      }
      await expected.check(`${title}, round ${round}`, 4);
      cairnOk(["cleanup", "--keep-last", "4", "-C", folder]);
      resticCheck(client, title);
    }
    assert.equal(outcomes.size, 2, "both outcomes were seen");
    assertHeldTidy(place, title);
    failed--;
  });
}

for (const on of CASES) {
  const title = `${on.engine} on ${on.kind}`;
  test(`${title}: sealing that is killed at any step is done again, and stores nothing twice`, async (t) => {
    const begun = await begin(t, on);
    if (begun === null) return;
    failed++;
    const { place, expected } = begun;
    const { client, folder } = place;
    const names = passesOf(["seal", "-C", folder]);
    assert.ok(names.includes("seal.staged") && names.includes("seal.committed"), names.join(" "));
    for (const pass of chosenPasses(names, 24)) {
      const before = await expected.ids(title);
      const added = [await expected.save(), await expected.save()];
      const kills = [killAt(["seal", "-C", folder], pass)];
      if (pass % 2 === 0) kills.push(killAt(["seal", "-C", folder], 1 + Math.floor(random() * names.length)));
      if (pass % 3 === 0) kills.push(killAt(["status", "-C", folder], 1 + Math.floor(random() * names.length)));
      const where = `${title}: seal killed at ${kills.join(", then ")}`;
      assert.deepEqual(await expected.ids(where), [...before, ...added], where);
      assert.equal((await client.history()).head, added[1], where);
      await expected.check(where, pass % 4 === 0 ? 1 : 0);
      if (pass % 4 === 0) resticCheck(client, where);
    }
    await expected.check(title, 5);
    failed--;
  });

  test(`${title}: a cleanup that is killed at any step has removed nothing or exactly what was listed`, async (t) => {
    const begun = await begin(t, on);
    if (begun === null) return;
    failed++;
    const { place, expected } = begun;
    const { client, folder } = place;
    for (let i = 0; i < 4; i++) await expected.save();
    const plan = async (): Promise<string> => (await client.previewCleanup({ retention: { keepLast: 3 } })).plan_id;
    const run = async (): Promise<string[]> => ["cleanup", "--run", await plan(), "-C", folder];
    const names = passesOf(await run());
    assert.ok(names.includes("cleanup.trees-removed"), names.join(" "));
    const outcomes = new Set<number>();
    for (const pass of chosenPasses(names, 24)) {
      for (let i = 0; i < 3; i++) await expected.save();
      const before = await expected.ids(title);
      const args = await run();
      // Not sealed, and none of those that go.
      const young = await expected.save();
      const kills = [killAt(args, pass)];
      if (pass % 2 === 0) kills.push(killAt(["seal", "-C", folder], 1 + Math.floor(random() * 20)));
      const where = `${title}: cleanup killed at ${kills.join(", then ")}`;
      // Whoever comes next finishes it, or finds nothing to be finished.
      const last = await expected.save();
      const now = await expected.ids(where);
      const kept = now.length === before.length + 2 ? before : before.slice(-3);
      assert.deepEqual(now, [...kept, young, last], where);
      outcomes.add(kept.length);
      await expected.check(where, pass % 4 === 0 ? 1 : 0);
      if (pass % 4 === 0) resticCheck(client, where);
    }
    assert.ok(outcomes.size >= 2, "both outcomes were seen");
    failed--;
  });

  test(`${title}: a release with the points that is killed at any step leaves all of them or none`, async (t) => {
    const volume = heldVolume(t, on.kind);
    if (volume === null) return;
    failed++;
    const library = await cairnLibrary();
    let folders = 0;
    const fresh = async (): Promise<{ place: HeldPlace; expected: Expected }> => {
      const folder = path.join(volume.root, `ws-${folders++}`);
      makeHoldable(folder, on.engine);
      makeFirst(folder);
      const place = {
        engine: on.engine,
        volume,
        folder,
        client: await library.adopt(folder, { engineType: on.engine }),
      };
      const expected = new Expected(place);
      await expected.save();
      await place.client.seal();
      await expected.save();
      await expected.save();
      return { place, expected };
    };
    const gone = ({ folder, client }: HeldPlace, context: string): void => {
      assert.equal(fs.existsSync(client.controlDirectory), false, context);
      // Where the kernel's locks are not trusted, a lock is a file with a number.
      const left = fs
        .readdirSync(path.dirname(client.controlDirectory))
        .map((name) => name.replace(/\.owner-\d+$/, ""));
      assert.deepEqual(left, ["adopt.lock"], context);
      if (on.kind === "btrfs")
        assert.deepEqual(
          subvolumesOf(volume.root),
          on.engine === "btrfs-snapshot" ? [path.basename(folder)] : [],
          context,
        );
    };
    const listed = await fresh();
    const names = passesOf(["release", listed.place.folder, "--delete-points"]);
    gone(listed.place, "released");
    remove(listed.place.folder, on.engine);
    const outcomes = new Set<number>();
    for (const pass of chosenPasses(names, 16)) {
      const { place, expected } = await fresh();
      const before = await expected.ids(title);
      const killed = killAt(["release", place.folder, "--delete-points"], pass);
      const where = `${title}: release killed at ${killed}`;
      place.client = await library.openOrAdopt(place.folder, { engineType: on.engine });
      const now = await expected.ids(where);
      assert.deepEqual(now, now.length === 0 ? [] : before, where);
      outcomes.add(now.length);
      if (now.length > 0) await expected.check(where, 1);
      await place.client.release({ deletePoints: true });
      gone(place, where);
      remove(place.folder, on.engine);
    }
    assert.equal(outcomes.size, 2, "both outcomes were seen");
    failed--;
  });
}

function remove(folder: string, engine: HoldingEngine): void {
  if (engine === "btrfs-snapshot") execFileSync("btrfs", ["-q", "subvolume", "delete", folder]);
  else fs.rmSync(folder, { recursive: true });
}

test("a workspace of several, killed while its held points are deleted, leaves the others whole and no subvolume", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, volume } = place;
  await client.save();
  const other = path.join(volume.root, "other");
  makeHoldable(other, "btrfs-snapshot");
  const second = await (await cairnLibrary()).adopt(other, { controlDirectory: client.controlDirectory });
  await second.save();
  await second.save();
  const killed = cairn(["release", other, "--delete-points"], { failpoint: "release.workspace-renamed" });
  assert.ok(killed.killed, killed.stderr);
  await client.save();
  assert.deepEqual((await client.verifyAll()).problems, []);
  remove(other, "btrfs-snapshot");
  assertHeldTidy(place, "released");
});
