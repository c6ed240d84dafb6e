import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Model } from "./fixtures/model.ts";
import { newFolder } from "./fixtures/work.ts";

/**
 * Random edits, saves, restores, undos, pins, tags, cleanups and kills against a plain model of what every point
 * holds. CAIRN_TEST_SEED repeats a run, CAIRN_MODEL_SECONDS makes it longer.
 */
const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const SECONDS = Number(process.env["CAIRN_MODEL_SECONDS"] ?? 75);
/** A model's history is checked whole now and then; a new one keeps that cheap. */
const STEPS = 120;

let failed = true;
after(() => {
  if (failed) process.stderr.write(`model.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

test(`every point gives back what the folder was, whatever happens in between (seed ${SEED}, ${SECONDS} s)`, async (t) => {
  const end = performance.now() + SECONDS * 1000;
  const counts = new Map<string, number>();
  for (let run = 0; performance.now() < end; run++) {
    const model = await Model.start(newFolder("model"), SEED + run);
    try {
      for (let step = 0; step < STEPS && performance.now() < end; step++) await model.step();
      await model.checkEverything();
    } catch (error) {
      process.stderr.write(`seed ${SEED + run}, the last steps:\n${model.log.slice(-25).join("\n")}\n`);
      throw error;
    }
    for (const [name, count] of model.counts) counts.set(name, (counts.get(name) ?? 0) + count);
    model.end();
  }
  t.diagnostic([...counts].map(([name, count]) => `${count} ${name}`).join(", "));
  for (const name of ["save", "restore", "undo", "killed"])
    assert.ok((counts.get(name) ?? 0) > 0, `${name} never happened`);
  failed = false;
});
