import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { availableParallelism, cpus, tmpdir, totalmem } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { VERSION } from "../../src/formats/program.ts";
import { Bench, type BenchCase } from "./bench.ts";
import {
  BUNDLE_CASES,
  CASES,
  ENGINE_CASES,
  MACHINE_CASES,
  PAGE_CASES,
  RATCHET_CASES,
  REPOSITORY_CASES,
  SHOWN_CASES,
  SERVICE_CASES,
  SQLITE_CASES,
} from "./cases/index.ts";
import { dataSet } from "./data/data-sets.ts";
import { peerStores } from "./peer-stores.ts";
import { ratchet } from "./ratchet.ts";
import { writeReport } from "./report.ts";
import { isInstalled } from "./stores.ts";
import { type Result, resultLines } from "./result.ts";

const ALL_CASES = [
  ...CASES,
  ...ENGINE_CASES,
  ...REPOSITORY_CASES,
  ...SQLITE_CASES,
  ...BUNDLE_CASES,
  ...MACHINE_CASES,
  ...SERVICE_CASES,
  ...PAGE_CASES,
];

/** Groups of cases, by the word that selects a group. */
const GROUPS: Readonly<Record<string, readonly BenchCase[]>> = {
  "save-points": CASES,
  engines: ENGINE_CASES,
  repository: REPOSITORY_CASES,
  sqlite: SQLITE_CASES,
  bundles: BUNDLE_CASES,
  machines: MACHINE_CASES,
  service: SERVICE_CASES,
  page: PAGE_CASES,
  shown: SHOWN_CASES,
};

const USAGE = `npm run bench -- ${Object.keys(GROUPS).join(" | ")} [options]
npm run bench -- --quick [--release]
Compares Cairn with restic, git and borg, and where they are (tools/install-peers, $CAIRN_PEERS) with the newest restic,
rustic and kopia, on the same data in one run and holds the medians against the bars.

  save-points         what a workspace and its store can do
  engines             points that whole file systems hold; needs root
  repository          backups in repositories: local, and on real S3 and SFTP servers of this machine, behind lines of
                      0, 20 and 100 ms (in a network namespace with netem as root, else through a proxy that waits), and one of
                      100 Mbit/s
  sqlite              a database of 1 GiB that is open, of which 1 % changed; needs the sqlite3 program
  bundles             a subtree of a context store as a bundle of 1 GiB; with OpenViking where it is installed
  service             the daemon over its socket, beside git status
  page                the page of cairn ui in headless Chromium, with 100 000 save points
  machines            virtual machines beside QEMU's own snapshots, and export directories beside cp
  shown               what docs/benchmarks.md shows; with --docs it is written anew, and its charts

  -n, --repeats N     measurements of each (default 5)
  --only CASE         one case, with or without a group; may be given again: ${ALL_CASES.map((one) => one.name).join(", ")}
  --data NAME         small, tree, big or all (default all)
  --quick             with a group: a twentieth of the data and 2 repeats: whether it runs, not how fast it is.
                      Without: a few cases in at most 3 minutes, after a first run that makes the data; names each ratio
                      to a peer that grew by more than a tenth since the last release
  --release           with --quick: its ratios become those of this release
  --json FILE         also write the samples and bars as JSON
  --docs              also write docs/benchmarks.md and its charts, of the full data
  --keep              leave the stores in place
  --reuse             begin with the stores that --keep left, where a case does not need new ones

Data (3.7 GB) and stores lie in $CAIRN_BENCH_DIR, or cairn-bench in the system's temporary folder; the data stays for the next run.
$CAIRN_BENCH_COMMAND is measured instead of ./cairn.
`;

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    repeats: { type: "string", short: "n" },
    only: { type: "string", multiple: true },
    data: { type: "string", default: "all" },
    quick: { type: "boolean", default: false },
    release: { type: "boolean", default: false },
    json: { type: "string" },
    docs: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
    reuse: { type: "boolean", default: false },
    help: { type: "boolean", short: "h", default: false },
  },
});

/** True if the run compares its ratios with the last release's. */
const IS_RATCHET = values.quick && positionals.length === 0 && values.only === undefined;

function chosenCases(): BenchCase[] {
  if (IS_RATCHET) return [...RATCHET_CASES];
  if (values.only === undefined) return [...(GROUPS[positionals[0] ?? ""] ?? [])];
  return values.only.map((name) => {
    const found = ALL_CASES.find((one) => one.name === name);
    if (found === undefined) throw new Error(`no case ${name}`);
    return found;
  });
}

async function runCases(bench: Bench, cases: readonly BenchCase[]): Promise<Result[]> {
  const results: Result[] = [];
  const failures: string[] = [];
  const attempt = async (title: string, run: () => Promise<Result>): Promise<void> => {
    try {
      const result = await run();
      results.push(result);
      console.log(resultLines(result).join("\n"));
    } catch (error) {
      failures.push(`${title}: ${error instanceof Error ? error.message : String(error)}`);
      console.log(`${failures.at(-1)}\n`);
    }
  };
  for (const name of ["small", "tree", "big"] as const) {
    if (values.data !== "all" && values.data !== name) continue;
    // Three minutes are enough for two sets.
    if (IS_RATCHET && name === "tree") continue;
    for (const one of cases) {
      if (one.data === null || !one.data.includes(name)) continue;
      await attempt(`${one.name}, ${name}`, async () => one.run(bench, await dataSet(name, bench)));
    }
  }
  for (const one of cases) {
    if (one.data === null) await attempt(one.name, async () => one.run(bench));
  }
  if (failures.length > 0) process.exitCode = 1;
  return results;
}

function environment(): Record<string, unknown> {
  const { stores, missing } = peerStores((name) => name, "");
  const version = (program: string, args: string[]): string => {
    if (!isInstalled(program)) return "not installed";
    return spawnSync(program, args, { encoding: "utf8" }).stdout.split("\n")[0] ?? "";
  };
  return {
    node: process.version,
    cpu: cpus()[0]?.model,
    cores: availableParallelism(),
    memory_gb: Math.round(totalmem() / 2 ** 30),
    restic: version("restic", ["version"]),
    git: version("git", ["--version"]),
    borg: version("borg", ["--version"]),
    peers: [...stores.map(({ name }) => name), ...missing].join("; "),
  };
}

function printBars(results: readonly Result[]): void {
  const bars = results.flatMap((result) => result.bars.map((bar) => ({ result, bar })));
  const short = bars.filter(({ bar }) => !(bar.value <= bar.limit));
  if (values.quick) console.log("--quick: whether everything runs, not how fast it is; bars are for the full data");
  console.log(`${bars.length - short.length} of ${bars.length} bars passed`);
  for (const { result, bar } of short) {
    console.log(`falls short: ${result.case}${result.data === undefined ? "" : `, ${result.data}`}: ${bar.what}`);
  }
}

async function main(): Promise<void> {
  const isChosen = IS_RATCHET || values.only !== undefined || Object.hasOwn(GROUPS, positionals[0] ?? "");
  if (values.help || !isChosen) {
    console.log(USAGE);
    process.exitCode = values.help ? 0 : 2;
    return;
  }
  const scratch = process.env["CAIRN_BENCH_DIR"] ?? path.join(tmpdir(), "cairn-bench");
  mkdirSync(scratch, { recursive: true });
  const repeats = Number(values.repeats ?? (IS_RATCHET ? 3 : values.quick ? 2 : 5));
  const bench = new Bench({ scratch, repeats, quick: values.quick, isRatchet: IS_RATCHET });
  if (values.reuse) bench.unmount();
  else bench.cleanUp();
  const facts = environment();
  console.log(
    `${Object.entries(facts)
      .map(([name, value]) => `${name}: ${String(value)}`)
      .join("\n")}\n`,
  );
  try {
    const results = await runCases(bench, chosenCases());
    if (IS_RATCHET) ratchet(results, VERSION, values.release);
    else printBars(results);
    if (values.docs && !values.quick) writeReport({ results, environment: facts });
    if (values.json !== undefined) {
      writeFileSync(values.json, `${JSON.stringify({ environment: facts, quick: values.quick, results }, null, 2)}\n`);
    }
  } finally {
    if (!values.keep) bench.cleanUp();
  }
}

await main();
