import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { TestContext } from "node:test";
import { chosenPasses, random, SEED, someOf } from "../../../../test/crash/rounds.ts";
import { LONG } from "../../../../test/fixtures/long.ts";
import { type EngineClauses, type EnginePlace, removeFolder } from "../../../../test/fixtures/engine-clauses.ts";
import { assertFolder, type FolderState, readFolder } from "../../../../test/fixtures/folder-state.ts";
import { assertHeldTidy } from "../../../../test/fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../../../../test/fixtures/two-states.ts";
import { walkDigests } from "../testing-walk.ts";

/**
 * A killed command runs in its own process. Later calls and checks use the library in this process. Steps of common
 * code are killed for `thorough` engines only, an engine's own steps always; `CAIRN_TEST_LONG` kills all.
 */
export interface Wanted {
  state: FolderState;
  digest: string;
}

/** A workspace, with the expected state of each point by its id. */
export class KillScene {
  readonly place: EnginePlace;
  readonly #known = new Map<string, Wanted>();

  constructor(place: EnginePlace) {
    this.place = place;
  }

  edit(): Wanted {
    const { folder } = this.place;
    fs.writeFileSync(path.join(folder, "same/updated.txt"), `edited ${random()}\n`);
    fs.writeFileSync(path.join(folder, `own-${Math.floor(random() * 3)}`), `${random()}\n`.repeat(1000));
    return this.now();
  }

  now(): Wanted {
    const { folder } = this.place;
    return { state: readFolder(folder), digest: walkDigests(folder).state };
  }

  set(id: string, wanted: Wanted): void {
    this.#known.set(id, wanted);
  }

  /** Expects the same state of both points. */
  same(id: string, as: string): void {
    this.set(id, this.#known.get(as)!);
  }

  async save(): Promise<string> {
    const wanted = this.edit();
    const { save_point_id: id } = await this.place.client.save();
    this.set(id, wanted);
    return id;
  }

  /** Ids of all points, oldest first. */
  async ids(context: string): Promise<string[]> {
    const { save_points, damaged } = await this.place.client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, [], context);
    return save_points.map(({ save_point_id }) => save_point_id).toReversed();
  }

  /** Checks the points after a killed save: `before`, and at most one more, with the state `wanted`. Returns 0 or 1. */
  async afterSave(before: readonly string[], wanted: Wanted, context: string): Promise<number> {
    const now = await this.ids(context);
    assert.deepEqual(now.slice(0, before.length), before, context);
    assert.ok(now.length <= before.length + 1, context);
    if (now.length > before.length) this.set(now.at(-1)!, wanted);
    assertFolder(this.place.folder, wanted.state, context);
    return now.length - before.length;
  }

  /**
   * Seals all points, and checks their digests and that no leftovers exist. If `restored` is not 0, also verifies all
   * points and restores the first and `restored` random ones.
   */
  async check(context: string, restored: number): Promise<void> {
    const { client, volume } = this.place;
    await client.seal();
    const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, [], context);
    for (const { save_point_id: id, payload_root_hash: digest, complete } of points) {
      const wanted = this.#known.get(id);
      assert.ok(wanted !== undefined, `${context}: nobody knows ${id}`);
      assert.deepEqual([digest, complete], [wanted.digest, true], `${context}: ${id}`);
    }
    // The next call that reads the store removes a lock of a killed process.
    if (points.length > 0) await client.show(points[0]!.save_point_id);
    assertHeldTidy(this.place, context);
    if (restored === 0) return;
    assert.deepEqual((await client.verifyAll()).problems, [], context);
    const ids = points.map(({ save_point_id }) => save_point_id);
    for (const id of [ids[0]!, ...Array.from({ length: restored }, () => ids[Math.floor(random() * ids.length)]!)]) {
      const to = path.join(volume.root, "restored");
      await client.restore({ target: id, to });
      assertFolder(to, this.#known.get(id)!.state, `${context}: ${id} given back`);
      removeFolder(volume, to);
    }
  }

  /** Removes older points, which would only slow the next checks down. */
  async keepLast(count: number): Promise<void> {
    const { client } = this.place;
    await client.runCleanup({ retention: { keepLast: count } });
  }
}

/** A clause on a workspace with two points; a failure names the seed that repeats it. */
export function killClause(
  { clause }: EngineClauses,
  name: string,
  work: (scene: KillScene, t: TestContext) => Promise<void>,
): void {
  clause(
    name,
    async (place, t) => {
      try {
        const scene = new KillScene(place);
        await scene.save();
        makeSecond(place.folder);
        await scene.save();
        await work(scene, t);
      } catch (error) {
        process.stderr.write(`repeat with CAIRN_TEST_SEED=${SEED}\n`);
        throw error;
      }
    },
    { fill: makeFirst },
  );
}

/**
 * Numbers of the passes at which to kill, from 1: for thorough engines a sample of all; else a sample of the first pass
 * of each of the engine's own steps, and the last pass.
 */
export function passesToKill(names: readonly string[], how: { thorough: boolean; own: RegExp }): number[] {
  if (how.thorough || LONG) return chosenPasses(names);
  const own = [...new Set(names.filter((name) => how.own.test(name)))];
  assert.ok(own.length > 0, names.join(" "));
  const passes = own.map((name) => names.indexOf(name) + 1);
  return someOf([...new Set([...passes, names.length])].toSorted((a, b) => a - b));
}

/** The number of a random pass of a command with about `count` passes. */
export function anyPass(count: number): number {
  return 1 + Math.floor(random() * count);
}
