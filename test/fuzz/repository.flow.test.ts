import { test } from "node:test";
import { noRestic } from "../fixtures/repository.ts";
import { REPOSITORY_STEPS } from "./repository-steps.ts";
import { RepositoryWorld } from "./repository-world.ts";
import { addTaken, Chance, shownTaken, takeWalk, type Taken, walksOf } from "./walk.ts";
import { firstOf } from "../fixtures/long.ts";

/**
 * Walks of random steps by Cairn and restic in one repository. The seeds are fixed, so that everybody takes the same steps;
 * CAIRN_FUZZ_SEED, CAIRN_FUZZ_RUNS and CAIRN_FUZZ_STEPS take others.
 */
test(
  "every snapshot can be restored after Cairn and restic took random steps in turn",
  { skip: noRestic },
  async (t) => {
    const { seeds, steps: count } = walksOf({ seeds: firstOf([1, 2], 1), steps: 14 });
    const all: Taken = new Map();
    for (const seed of seeds) {
      const world = await RepositoryWorld.make(new Chance(seed));
      const again = `CAIRN_FUZZ_SEED=${seed} CAIRN_FUZZ_STEPS=${count} node --test test/fuzz/repository.flow.test.ts`;
      const [check, end] = [(): void => world.assertAll(), (): void => world.assertEnd()];
      addTaken(all, await takeWalk({ world, steps: REPOSITORY_STEPS, seed, count, check, end, again }));
      world.end();
    }
    t.diagnostic(shownTaken(all));
  },
);
