import fs from "node:fs";
import { test } from "node:test";
import { LONG } from "../fixtures/long.ts";
import { STEPS } from "./agents-steps.ts";
import { AgentsWorld } from "./agents-world.ts";
import { addTaken, Chance, shownTaken, type Taken, takeWalk, walksOf } from "./walk.ts";

/**
 * Walks of two agents and a person with every verb that goes back, against a model of whose change is whose.
 * CAIRN_FUZZ_SEED and CAIRN_FUZZ_RUNS choose walks; with CAIRN_FUZZ_GO_ON all of them are taken, and the failed ones listed.
 */

const SECOND = [
  { agent: "codex", tells: true },
  { agent: "claude-code", tells: true },
  { agent: "gemini", tells: false },
] as const;

test("what others changed stays, and undo and redo are exact, in walks of two agents and a person", async (t) => {
  const { seeds, steps: count } = walksOf({
    seeds: Array.from({ length: LONG ? 300 : 5 }, (_none, i) => i + 1),
    steps: 30,
  });
  const all: Taken = new Map();
  const failed: string[] = [];
  for (const seed of seeds) {
    const world = await AgentsWorld.make(new Chance(seed).pick(SECOND));
    const again = `CAIRN_FUZZ_SEED=${seed} CAIRN_FUZZ_STEPS=${count} node --test test/fuzz/walks-of-two-agents.flow.test.ts`;
    const nothing = (): void => undefined;
    try {
      addTaken(
        all,
        await takeWalk({ world, steps: STEPS, seed, count, check: (each) => void each.tick(), end: nothing, again }),
      );
    } catch (error) {
      if (process.env["CAIRN_FUZZ_GO_ON"] === undefined) throw error;
      failed.push((error as Error).message);
    }
    await world.client.close();
    for (const each of [world.folder, `${world.folder}.clock`, ...world.forks.map(({ folder }) => folder)])
      fs.rmSync(each, { recursive: true });
  }
  t.diagnostic(shownTaken(all));
  if (failed.length > 0) throw new Error(`${failed.length} walks failed\n${failed.join("\n\n")}`);
});
