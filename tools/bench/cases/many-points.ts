import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Client } from "../../../src/contract/index.ts";
import { multiplyTurns } from "../../../test/fixtures/many-turns.ts";
import type { Bench, OwnCase } from "../bench.ts";
import { alternate, runCommand } from "../measure.ts";
import { limitBar, median } from "../result.ts";
import { CairnStore } from "../stores.ts";

const BAR = 1.5;
const FILES = 20;

interface Library {
  open(path: string): Promise<{ save(options: { message: string }): Promise<unknown>; close?(): Promise<void> }>;
}

/** Makes a small workspace with `points` points and one edited file between two points, by the library in this process. */
export async function workspaceWithPoints(bench: Bench, name: string, points: number): Promise<CairnStore> {
  const folder = bench.folder(name, "workspace");
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < FILES; i++) writeFileSync(path.join(folder, `file-${i}.txt`), `file ${i}\n`);
  const cairn = new CairnStore(bench.folder(name, "cairn"), folder);
  const done = `${folder}.points`;
  if (existsSync(done) && Number(readFileSync(done, "utf8")) === points) return cairn;
  cairn.fresh();
  runCommand(cairn.save("first"));
  const library = (await import(path.resolve(import.meta.dirname, "../../../dist/index.js"))) as Library;
  const client = await library.open(cairn.controlDirectory);
  for (let i = 1; i < points; i++) {
    writeFileSync(path.join(folder, `file-${i % FILES}.txt`), `file ${i % FILES}, turn ${i}\n`);
    await client.save({ message: `turn ${i}` });
    if (i % 1000 === 0) console.error(`${i} of ${points} points`);
  }
  await client.close?.();
  writeFileSync(done, String(points));
  return cairn;
}

/** An agent's folder after very many turns, of which the record has the newest. */
export const manyTurns: OwnCase = {
  name: "many-turns",
  data: null,
  async run(bench) {
    const count = bench.quick ? 1000 : 50_000;
    const all = { turns: count, points: count };
    const samples: Record<string, number[]> = {};
    for (const [name, many] of Object.entries({ all, "1000 points": { ...all, points: 1000 } })) {
      const cairn = await workspaceWithPoints(bench, `turns-${many.points}`, 20);
      const { open } = (await import(path.resolve(import.meta.dirname, "../../../dist/index.js"))) as Library;
      const client = await open(cairn.controlDirectory);
      multiplyTurns(client as Client, many);
      await client.close?.();
      const contenders = ["turns", "history"].map((verb) => ({ name: `${verb}, ${name}`, command: cairn.on(verb) }));
      Object.assign(samples, Object.fromEntries(alternate(contenders, bench.repeats)));
    }
    return {
      case: "many-turns",
      unit: "ms",
      samples,
      bars: Object.entries(samples).map(([name, times]) => limitBar(name, median(times), 1000, "ms")),
      meaning: `${count} turns of an agent, with a point each, and with 1000 points.`,
      notes: [],
    };
  },
};

export const manyPoints: OwnCase = {
  name: "many-points",
  data: null,
  async run(bench) {
    const few = await workspaceWithPoints(bench, "few-points", 10);
    const count = bench.quick ? 200 : 10_000;
    const many = await workspaceWithPoints(bench, "many-points", count);
    const samples: Record<string, number[]> = {};
    const bars = [];
    for (const [what, args] of [
      ["save", ["save", "-m", "bench"]],
      ["status", ["status"]],
      ["history", ["history", "-n", "20"]],
    ] as const) {
      const edit = (round: number): void => {
        for (const name of ["few-points", "many-points"]) {
          writeFileSync(path.join(bench.folder(name, "workspace"), "file-0.txt"), `${what} ${round}\n`);
        }
      };
      const contenders = [
        { name: "few", command: few.on(...args) },
        { name: "many", command: many.on(...args) },
      ];
      const times = alternate(contenders, Math.max(bench.repeats, 10), edit);
      samples[`${what} at 10`] = times.get("few") ?? [];
      samples[`${what} at ${count}`] = times.get("many") ?? [];
      const value = median(times.get("many") ?? []) / median(times.get("few") ?? []);
      bars.push({ what, value, limit: BAR, unit: "ratio" as const });
    }
    return {
      case: "many-points",
      unit: "ms",
      samples,
      bars,
      meaning: `The same small workspace with 10 and with ${count} points: what the number of points costs.`,
      notes: [],
    };
  },
};
