import { randomFrom } from "../../src/workspace/store/testing-edits.ts";

/** Random walks that a seed repeats: steps out of a table, each with numbers of its own. */

/** What a seed chooses. */
export class Chance {
  readonly #random: () => number;

  constructor(seed: number) {
    this.#random = randomFrom(seed);
  }

  below(limit: number): number {
    return Math.floor(this.#random() * limit);
  }

  oneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** One of a table, as often as its weight says. */
  weighed<T extends { weight: number }>(table: readonly T[]): T {
    let at = this.#random() * table.reduce((sum, { weight }) => sum + weight, 0);
    return table.find(({ weight }) => (at -= weight) < 0) ?? table.at(-1)!;
  }
}

/** One kind of step. What it notes stands behind its name in the list of steps. */
export interface Step<World> {
  name: string;
  weight: number;
  run: (world: World, at: StepPlace) => Promise<void> | void;
}

export interface StepPlace {
  chance: Chance;
  note: (text: string) => void;
}

export interface Walk<World> {
  world: World;
  steps: readonly Step<World>[];
  seed: number;
  count: number;
  /** after every step */
  check: (world: World) => Promise<void> | void;
  /** after the last one */
  end: (world: World) => Promise<void> | void;
  /** the command line that takes this walk again */
  again: string;
}

/** How often each kind of step was taken. */
export type Taken = Map<string, number>;

/**
 * Takes the steps. One that fails names the seed, what takes the walk again, and all steps until there; with CAIRN_FUZZ_SHOW
 * each step is printed as it is taken.
 */
export async function takeWalk<World>({ world, steps, seed, count, check, end, again }: Walk<World>): Promise<Taken> {
  const taken: Taken = new Map();
  const lines: string[] = [];
  for (let i = 1; i <= count; i++) {
    // What one step draws does not depend on how much the others drew.
    const chance = new Chance(seed * 1_000_003 + i);
    const step = chance.weighed(steps);
    const notes: string[] = [];
    const line = (): string => `${i} ${step.name}${notes.map((note) => `; ${note}`).join("")}`;
    const at: StepPlace = { chance, note: (text) => void notes.push(text) };
    try {
      await step.run(world, at);
      await check(world);
      if (i === count) await end(world);
    } catch (error) {
      lines.push(line());
      const said = error instanceof Error ? (error.stack ?? error.message) : String(error);
      throw new Error(`seed ${seed}, step ${i} (${step.name}). Again: ${again}\n${lines.join("\n")}\n${said}`, {
        cause: error,
      });
    }
    lines.push(line());
    if (process.env["CAIRN_FUZZ_SHOW"] !== undefined)
      process.stderr.write(`${lines.at(-1)} (${Math.round(performance.now())} ms)\n`);
    taken.set(step.name, (taken.get(step.name) ?? 0) + 1);
  }
  return taken;
}

/** The seeds and lengths of walks: those given, or what CAIRN_FUZZ_SEED, CAIRN_FUZZ_STEPS and CAIRN_FUZZ_RUNS (seeds one after the other) ask for. */
export function walksOf(given: { seeds: readonly number[]; steps: number }): {
  seeds: readonly number[];
  steps: number;
} {
  const { CAIRN_FUZZ_SEED: seed, CAIRN_FUZZ_STEPS: steps, CAIRN_FUZZ_RUNS: runs } = process.env;
  const first = Number(seed ?? given.seeds[0]);
  const isAsked = seed !== undefined || runs !== undefined;
  const seeds = isAsked ? Array.from({ length: Number(runs ?? 1) }, (_none, i) => first + i) : given.seeds;
  return { seeds, steps: Number(steps ?? given.steps) };
}

export function addTaken(sum: Taken, more: Taken): void {
  for (const [name, times] of more) sum.set(name, (sum.get(name) ?? 0) + times);
}

export function shownTaken(taken: Taken): string {
  return [...taken].map(([name, times]) => `${times} ${name}`).join(", ");
}
