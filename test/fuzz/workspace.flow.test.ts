import { type TestContext, test } from "node:test";
import type { EngineType } from "../../src/contract/index.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import type { EditSet } from "./editing.ts";
import { noGit } from "./ignore-rules.ts";
import { addTaken, Chance, shownTaken, takeWalk, type Taken, walksOf } from "./walk.ts";
import { WORKSPACE_STEPS } from "./workspace-steps.ts";
import { WorkspaceWorld } from "./workspace-world.ts";
import { firstOf } from "../fixtures/long.ts";

/**
 * Walks of random steps through a workspace, each step against what it must do (workspace-oracle.ts). The seeds are fixed,
 * so that everybody takes the same steps; CAIRN_FUZZ_SEED, CAIRN_FUZZ_RUNS and CAIRN_FUZZ_STEPS take others.
 */
const ROOM = 2 ** 31;
/** In memory: most of what the steps wait for is the disk. */
const DISK = 2 ** 29;

/** Every second seed has ignore rules, which leave no tree to be exchanged as it is. */
function setsOf(seed: number): ReadonlySet<EditSet> {
  return new Set<EditSet>(seed % 2 === 0 ? ["plain", "system", "rules"] : ["plain", "system"]);
}

for (const [kind, engines, seeds] of [
  // Only what holds trees of one moment exchanges them.
  ["btrfs", ["btrfs-snapshot", "btrfs-snapshot", "btrfs-snapshot", "reflink-copy", "copy"], [1, 2]],
  ["xfs", ["reflink-copy", "copy"], [3, 4]],
  ["ext4", ["copy"], [5, 6]],
] as const) {
  test(
    `a workspace on ${kind} is in the expected state after any sequence of random steps`,
    { skip: noGit },
    async (t) => {
      const volume = loopFileSystem(t, kind, { size: ROOM, room: DISK });
      if (volume !== null)
        await walkAll(t, { kind, engines, base: volume.root, ...walksOf({ seeds: firstOf(seeds, 1), steps: 30 }) });
    },
  );
}

async function walkAll(
  t: TestContext,
  on: {
    kind: string;
    engines: readonly [EngineType, ...EngineType[]];
    base: string;
    seeds: readonly number[];
    steps: number;
  },
): Promise<void> {
  const all: Taken = new Map();
  for (const seed of on.seeds) {
    const place = { base: on.base, name: `w${seed}`, engines: on.engines, sets: setsOf(seed) };
    const world = await WorkspaceWorld.make(place, new Chance(seed));
    const again = `CAIRN_FUZZ_SEED=${seed} CAIRN_FUZZ_STEPS=${on.steps} node --test --test-name-pattern=${on.kind} test/fuzz/workspace.flow.test.ts`;
    const check = async (): Promise<void> => world.assertHistory();
    const end = async (): Promise<void> => world.assertEverything();
    addTaken(all, await takeWalk({ world, steps: WORKSPACE_STEPS, seed, count: on.steps, check, end, again }));
    await world.end();
  }
  t.diagnostic(shownTaken(all));
}
