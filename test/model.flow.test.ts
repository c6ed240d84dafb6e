import assert from "node:assert/strict";
import path from "node:path";
import { type TestContext, test } from "node:test";
import type { EngineType } from "../src/contract/index.ts";
import { makeHoldable } from "./fixtures/held-place.ts";
import { loopFileSystem } from "./fixtures/loop-file-system.ts";
import { Model } from "./fixtures/model.ts";
import { cairnLibrary, newFolder } from "./fixtures/work.ts";
import { LONG } from "./fixtures/long.ts";

/**
 * Random edits, saves, restores, undos, pins, tags, cleanups, forks, backups, other engines and kills against a plain
 * model of what every point and snapshot holds. CAIRN_TEST_SEED repeats a run, CAIRN_MODEL_SECONDS makes it longer.
 */
const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
/** Of a run with the engine that every folder has; the others get a third. */
const SECONDS = Number(process.env["CAIRN_MODEL_SECONDS"] ?? (LONG ? 36 : 12));
/** A model's history is checked whole now and then; a new one keeps that cheap. */
const STEPS = 120;
const ROOM = 2 ** 31;
/** What must have happened; a machine that does little in its time gets so many times more. */
const WANTED = ["save", "restore", "undo", "killed"];
const LATE = 9;

const title = `every point restores the folder as it was saved, after random operations and kills (seed ${SEED})`;

test(title, async (t) => runModels(t, { engines: ["copy"], root: newFolder("models"), seconds: SECONDS }));

for (const [kind, ...engines] of [
  ["btrfs", "btrfs-snapshot", "reflink-copy", "copy"],
  ["xfs", "reflink-copy", "copy"],
] as const) {
  test(`${title}: ${engines[0]} on ${kind}`, async (t) => {
    const volume = loopFileSystem(t, kind, { size: ROOM });
    if (volume !== null) await runModels(t, { engines, root: volume.root, seconds: SECONDS / 3 });
  });
}

async function runModels(
  t: TestContext,
  on: { engines: readonly [EngineType, ...EngineType[]]; root: string; seconds: number },
): Promise<void> {
  const end = performance.now() + on.seconds * 1000;
  const latest = end + LATE * on.seconds * 1000;
  const counts = new Map<string, number>();
  const goesOn = (model?: Model): boolean => {
    const now = performance.now();
    const hasAll = WANTED.every((name) => counts.has(name) || model?.counts.has(name) === true);
    return now < (hasAll ? end : latest);
  };
  const library = await cairnLibrary();
  const [engine] = on.engines;
  for (let run = 0; goesOn(); run++) {
    const folder = path.join(on.root, `model-${engine}-${run}`);
    makeHoldable(folder, engine);
    const client = await library.init(folder, { engineType: engine });
    const model = new Model(folder, client, { seed: SEED + run, engines: on.engines });
    try {
      for (let step = 0; step < STEPS && goesOn(model); step++) await model.step();
      await model.checkEverything();
    } catch (error) {
      const steps = model.log.slice(-25).join("\n");
      process.stderr.write(`${engine}, repeat with CAIRN_TEST_SEED=${SEED + run}; the last steps:\n${steps}\n`);
      throw error;
    }
    for (const [name, count] of model.counts) counts.set(name, (counts.get(name) ?? 0) + count);
    await model.end();
  }
  t.diagnostic([...counts].map(([name, count]) => `${count} ${name}`).join(", "));
  for (const name of WANTED) assert.ok(counts.has(name), `${name} never happened`);
}
