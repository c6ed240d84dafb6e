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
 * What the kills have in common. A command in a process of its own is killed at its n-th failpoint; everything else,
 * what comes next and the checks, is done by the library in this process: the same code without the start of a
 * process. Steps that are the same code for each engine are killed for the engines that are `thorough`; the others
 * are killed at those that their own means have a part in. `CAIRN_TEST_LONG` kills all of them at all.
 */
export interface Wanted {
  state: FolderState;
  digest: string;
}

/** What the points of a workspace should hold, by id. */
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

  /** A point holds what another does. */
  same(id: string, as: string): void {
    this.set(id, this.#known.get(as)!);
  }

  async save(): Promise<string> {
    const wanted = this.edit();
    const { save_point_id: id } = await this.place.client.save();
    this.set(id, wanted);
    return id;
  }

  /** Oldest first. */
  async ids(context: string): Promise<string[]> {
    const { save_points, damaged } = await this.place.client.history(undefined, 0, { all: true });
    assert.deepEqual(damaged, [], context);
    return save_points.map(({ save_point_id }) => save_point_id).toReversed();
  }

  /** After a kill: `before`, or one more, which is what was there. */
  async afterSave(before: readonly string[], wanted: Wanted, context: string): Promise<number> {
    const now = await this.ids(context);
    assert.deepEqual(now.slice(0, before.length), before, context);
    assert.ok(now.length <= before.length + 1, context);
    if (now.length > before.length) this.set(now.at(-1)!, wanted);
    assertFolder(this.place.folder, wanted.state, context);
    return now.length - before.length;
  }

  /**
   * Seals all there is: each point has the digest that a walk found and nothing else is there. Where so many are to be
   * restored, and the first of all, every point is proven too.
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
    // A lock that a kill left in the store goes with the next call that reads there.
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

  /** Points that were looked at already only make the next looks longer. */
  async keepLast(count: number): Promise<void> {
    const { client } = this.place;
    const { plan_id: plan } = await client.previewCleanup({ retention: { keepLast: count } });
    await client.runCleanup(plan);
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
 * At which passes to kill, 1-based: of all, so many, where the engine is thorough; else some of the first of each name
 * that the engine's own means have a part in, and the last of all.
 */
export function passesToKill(names: readonly string[], how: { thorough: boolean; own: RegExp }): number[] {
  if (how.thorough || LONG) return chosenPasses(names);
  const own = [...new Set(names.filter((name) => how.own.test(name)))];
  assert.ok(own.length > 0, names.join(" "));
  const passes = own.map((name) => names.indexOf(name) + 1);
  return someOf([...new Set([...passes, names.length])].toSorted((a, b) => a - b));
}

/** A random pass of a command that makes about so many. */
export function anyPass(count: number): number {
  return 1 + Math.floor(random() * count);
}
