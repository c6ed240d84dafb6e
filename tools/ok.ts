import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import path from "node:path";
import { joinGroup, newMeter } from "./processor-time.ts";
import type { ProcessorLimits } from "./run-tests.ts";

/**
 * `npm run ok`: what must hold before a commit, in a minute or two (`npm test` has the rest). A step's output is
 * shown when it fails. `npm run ok -- lint types` runs only these, `npm run ok -- checks` all but the tests.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const SOURCES = ["src", "test", "tools", "docs/examples", "web"];

interface Step {
  name: string;
  command: string;
  args: string[];
  env?: Record<string, string>;
  /** Show the last line even when all is well. */
  lastLine?: boolean;
}

/** Arguments with which `tsc` checks only the files that changed since the last check, and those that use them. */
const sinceLast = (name: string): string[] => ["--incremental", "--tsBuildInfoFile", `.runtime/${name}.tsbuildinfo`];

const CHECKS: Step[] = [
  { name: "format", command: "oxfmt", args: ["--check", ...SOURCES] },
  { name: "lint", command: "oxlint", args: ["--type-aware", "--deny-warnings", ...SOURCES] },
  { name: "types", command: "tsc", args: ["--noEmit", "-p", ".", ...sinceLast("types")] },
  {
    name: "declarations",
    command: "tsc",
    args: [
      "--emitDeclarationOnly",
      "false",
      "--noEmit",
      "-p",
      "tools/tsconfig.declarations.json",
      ...sinceLast("declarations"),
    ],
  },
  { name: "page-types", command: "tsc", args: ["--noEmit", "-p", "web", ...sinceLast("page-types")] },
  { name: "architecture", command: "node", args: ["tools/check-architecture.ts", "--quiet"] },
  { name: "indexes", command: "node", args: ["tools/verb-indexes.ts", "--check"] },
  { name: "docs", command: "node", args: ["tools/generate-docs.ts", "--check"] },
  { name: "planted", command: "node", args: ["tools/planted.ts", "--check"] },
  { name: "limits", command: "node", args: ["tools/check-limits.ts"], lastLine: true },
];
/** Flow tests (`*.flow.test.ts`) need processes, servers or file systems and take minutes: `npm test` runs them. */
const TESTS: Step[] = [
  {
    name: "unit-tests",
    command: "node",
    args: ["tools/run-tests.ts", "--quiet", "{src,test,tools,web/src}/**/*.test.ts", "!**/*.flow.test.ts"],
    // Edits at random: `npm test` makes more of them.
    env: { CAIRN_TEST_ROUNDS: "50" },
    lastLine: true,
  },
];

async function runStep(step: Step): Promise<boolean> {
  const start = performance.now();
  const child = spawn(step.command, step.args, {
    cwd: ROOT,
    env: { ...step.env, ...process.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.on("error", (error) => {
    output += error.message;
    resolve(1);
  });
  child.on("close", resolve);
  const passed = (await promise) === 0;
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const last = step.lastLine === true && passed ? ` — ${output.trimEnd().split("\n").at(-1) ?? ""}` : "";
  console.log(`${passed ? "✔" : "✖"} ${step.name} (${seconds} s)${last}`);
  if (!passed) console.log(output.trimEnd());
  return passed;
}

function limits(): { processor: ProcessorLimits } {
  return JSON.parse(readFileSync(path.join(ROOT, "tools/limits.json"), "utf8")) as { processor: ProcessorLimits };
}

const wanted = process.argv.slice(2);
function chosen(step: Step): boolean {
  const group = CHECKS.includes(step) ? "checks" : "tests";
  return wanted.length === 0 || wanted.includes(step.name) || wanted.includes(group);
}

const meter = newMeter();
if (meter !== null) joinGroup(meter.environment);
const results = await Promise.all(CHECKS.filter(chosen).map(runStep));
for (const step of TESTS.filter(chosen)) results.push(await runStep(step));
if (results.length === 0)
  console.log(`no such step; there are: ${[...CHECKS, ...TESTS].map((step) => step.name).join(", ")}`);
if (wanted.length === 0 && meter !== null) {
  const [seconds, most] = [Math.round(meter.seconds()), limits().processor["npm run ok"]];
  console.log(`${seconds > most ? "✖" : "✔"} ${seconds} processor seconds, at most ${most}`);
  results.push(seconds <= most);
}
process.exitCode = results.length > 0 && results.every(Boolean) ? 0 : 1;
