import { parseArgs } from "node:util";
import { simulate } from "../test/simulation/hosts.ts";

/**
 * `npm run simulate -- --seed N`: simulates the hosts of one seed and prints each step. `--minutes M`: simulates seeds from N on for
 * so long, and prints a line for each seed that breaks a promise.
 */

const { values } = parseArgs({ options: { seed: { type: "string", default: "1" }, minutes: { type: "string" } } });
const first = Number(values.seed);
const minutes = values.minutes === undefined ? null : Number(values.minutes);
if (!Number.isInteger(first) || Number.isNaN(minutes)) {
  console.log("--seed and --minutes take numbers");
  process.exitCode = 2;
} else {
  const end = process.uptime() + (minutes ?? 0) * 60;
  let [seed, broken] = [first, 0];
  for (; seed === first || process.uptime() < end; seed++) {
    const done = await simulate(seed);
    if (minutes === null) for (const line of done.trace) console.log(line);
    if (done.broken === null) continue;
    broken++;
    console.log(`seed ${seed}: ${done.broken.split("\n", 1)[0]!}`);
  }
  console.log(`${seed - first} seeds, ${broken} broke a promise`);
  if (broken > 0) process.exitCode = 1;
}
