import { execFileSync } from "node:child_process";
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "node:test";
import type { EventData } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";
import { newMeter } from "./processor-time.ts";
import { isLong, rotated } from "./tiers.ts";

/**
 * Runs test files in three processes at a time and ends with one line that counts everything:
 * `node tools/run-tests.ts [--quiet] [--tier short|long] [--minutes N] GLOB... [!GLOB...]`. Skipped tests are listed by their
 * reasons, so that nobody takes a skip for a pass. With `--minutes` no file begins later; files that did not begin are listed.
 * `--record` keeps the seconds of each file in tools/test-seconds.json, from which order and estimates come. With `--tier`, a
 * file or a whole run that takes more processor seconds than tools/limits.json allows fails.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const FILE_TIMEOUT_MS = 15 * 60_000;
/** Processes at a time: one more than CI has cores, because a test waits for disks and servers a quarter of its time. */
const AT_ONCE = 3;
/** A heap that is collected less often: collections took a quarter of the processor time of tests that run in one process. */
export const HEAP = ["--initial-old-space-size=256", "--min-semi-space-size=16"];

/**
 * Rooms whose tests make thousands of small files and ask nothing of a file system that one in memory lacks. Their temporary
 * folders lie there. All others lie where the machine has its own: a workspace's tests need a disk's file system.
 */
const IN_MEMORY =
  /^(?:src\/(?:api|backup|bundle|cli|context|repository)|test\/(?:hints|interop|page|package|simulation))\//;
/** Tests of these rooms in which doctor finds nothing, not even save points in memory, or which compare a disk's blocks. */
const ON_DISK = /(?:own-folder|page-store|restore-in-place)\.flow\.test\.ts$/;
const MEMORY = "/dev/shm";
const MEMORY_BYTES = 6 * 1024 ** 3;

export interface Totals {
  passed: number;
  failed: number;
  /** Reason → number of tests. */
  skipped: Map<string, number>;
  failures: string[];
  /** File → milliseconds of its tests. */
  durations: Map<string, number>;
}

const SLOW_MS = 5000;
/** A line of progress follows the one before after this time at the earliest. */
const SHOWN_EACH_MS = 20_000;

/** Returns the lines that end a run; the last is `N passed, N failed, N skipped`. */
export function summaryLines(totals: Totals): string[] {
  const skipped = [...totals.skipped].toSorted((a, b) => b[1] - a[1]);
  const slow = [...totals.durations].filter(([, ms]) => ms > SLOW_MS).toSorted((a, b) => b[1] - a[1]);
  const count = skipped.reduce((sum, [, times]) => sum + times, 0);
  return [
    ...slow.slice(0, 10).map(([file, ms]) => `slow: ${file} (${(ms / 1000).toFixed(1)} s)`),
    ...totals.failures.map((name) => `failed: ${name}`),
    ...skipped.map(([reason, times]) => `skipped ${times}: ${reason}`),
    `${totals.passed} passed, ${totals.failed} failed, ${count} skipped`,
  ];
}

/** Returns the sorted files that match a pattern, but no pattern after a `!`. Relative patterns start at the repository. */
export function chosenFiles(patterns: readonly string[]): string[] {
  const matching = (some: string[]): string[] =>
    [...new Set(some.flatMap((pattern) => globSync(pattern, { cwd: ROOT })))].map((file) => path.resolve(ROOT, file));
  const isExcluding = (pattern: string): boolean => pattern.startsWith("!");
  const excluded = new Set(matching(patterns.filter(isExcluding).map((pattern) => pattern.slice(1))));
  return matching(patterns.filter((pattern) => !isExcluding(pattern)))
    .filter((file) => !excluded.has(file))
    .toSorted();
}

const SECONDS = path.join(ROOT, "tools/test-seconds.json");
const LIMITS = path.join(ROOT, "tools/limits.json");
/** Imported by the process of a test file before all else. */
const JOINING = path.join(ROOT, "tools/join-group.ts");

/** Seconds that a file took, and processor seconds of all its processes; null where they cannot be measured. */
interface Took {
  wall: number;
  processor: number | null;
}

/** What files took in the last recorded run, on two quiet cores. A file that is not in it counts as short. */
function recordedSeconds(): Map<string, Took> {
  return new Map(Object.entries(JSON.parse(readFileSync(SECONDS, "utf8")) as Record<string, Took>));
}

/** Keeps the seconds of files, with what earlier runs of other files recorded. */
function recordSeconds(took: Map<string, Took>): void {
  const kept = [...recordedSeconds()].filter(([file]) => !took.has(file) && existsSync(path.join(ROOT, file)));
  const all = [...kept, ...took].toSorted(([a], [b]) => (a < b ? -1 : 1));
  const lines = all.map(
    ([file, { wall, processor }]) => `  ${JSON.stringify(file)}: { "wall": ${wall}, "processor": ${processor} }`,
  );
  writeFileSync(SECONDS, `{\n${lines.join(",\n")}\n}\n`);
}

/** The limits of processor seconds in tools/limits.json. */
export interface ProcessorLimits {
  "npm run ok": number;
  "npm test": number;
  "a file of npm test": number;
  /** Limits of files that need more, each with a reason. */
  files: Record<string, { seconds: number; reason: string }>;
}

/** Returns a line for each file, and for a whole short tier, that took more processor seconds than its limit. */
export function overLimits(took: ReadonlyMap<string, Pick<Took, "processor">>, limits: ProcessorLimits): string[] {
  const over = [...took].flatMap(([file, { processor }]) => {
    const most = limits.files[file]?.seconds ?? limits["a file of npm test"];
    return processor !== null && processor > most
      ? [`over its limit: ${file} took ${processor} processor seconds, at most ${most} (tools/limits.json)`]
      : [];
  });
  const all = [...took.values()].reduce((sum, { processor }) => sum + (processor ?? 0), 0);
  if (all > limits["npm test"])
    over.push(
      `over its limit: ${Math.round(all)} processor seconds, at most ${limits["npm test"]} (tools/limits.json)`,
    );
  return over;
}

/** Returns {@link overLimits} of the short tier, and says how many processor seconds it took. */
function overShortTier(took: Map<string, Took>): string[] {
  const measured = [...took.values()].flatMap(({ processor }) => processor ?? []);
  if (measured.length === 0) {
    console.log("processor seconds: not measured, because this user may make no control group");
    return [];
  }
  console.log(`${Math.round(measured.reduce((sum, each) => sum + each, 0))} processor seconds`);
  const { processor } = JSON.parse(readFileSync(LIMITS, "utf8")) as { processor: ProcessorLimits };
  return overLimits(took, processor);
}

/** How a run ends early, and what it prints. */
interface RunOptions {
  quiet: boolean;
  /** Milliseconds after which no file begins. */
  limitMs: number;
  /** False: the longest file begins first, so that none is left alone at the end. */
  keepsOrder: boolean;
  /** Keeps the seconds of each file when it ends, also if the run is stopped later. */
  records: boolean;
}

interface Ended {
  totals: Totals;
  /** Files that did not begin in time. */
  notRun: string[];
  took: Map<string, Took>;
}

/** Runs `files`, `AT_ONCE` at a time. */
async function runAll(files: string[], options: RunOptions): Promise<Ended> {
  const totals: Totals = { passed: 0, failed: 0, skipped: new Map(), failures: [], durations: new Map() };
  const seconds = recordedSeconds();
  const cost = (file: string): number => seconds.get(path.relative(ROOT, file))?.wall ?? 1;
  const queue = options.keepsOrder ? [...files] : files.toSorted((a, b) => cost(b) - cost(a));
  const start = performance.now();
  const all = queue.reduce((sum, file) => sum + cost(file), 0);
  if (files.length > 1)
    console.log(`${files.length} test files, about ${Math.ceil(all / AT_ONCE / 60)} minutes on two quiet cores`);
  const inMemory = hasMemory();
  const notRun: string[] = [];
  let done = 0;
  let left = all;
  let shown = start;
  const took = new Map<string, Took>();
  const work = async (): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const name = path.relative(ROOT, file);
      const began = performance.now();
      // A file that would end long after the limit does not begin either.
      if (began - start + cost(file) * 500 > options.limitMs) {
        notRun.push(name);
        continue;
      }
      const isSmall = inMemory && IN_MEMORY.test(name) && !ON_DISK.test(name);
      const meter = newMeter();
      const env = { ...process.env, ...(isSmall ? { TMPDIR: MEMORY } : {}), ...meter?.environment };
      await runFile(file, totals, options.quiet, env);
      done++;
      left -= cost(file);
      const now = performance.now();
      const processor = meter === null ? null : Math.round(meter.seconds() * 10) / 10;
      meter?.end();
      took.set(name, { wall: Math.round((now - began) / 100) / 10, processor });
      if (options.records) recordSeconds(took);
      if (now - shown < SHOWN_EACH_MS) continue;
      shown = now;
      const minutes = Math.ceil((((now - start) / (all - left)) * left) / 60_000);
      process.stderr.write(`progress: ${done} of ${files.length} files, about ${minutes} minutes left\n`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { totals, notRun, took };
}

/** Whether the file system in memory has room. A folder that the caller names for temporary files stays in use. */
function hasMemory(): boolean {
  if (process.env["TMPDIR"] !== undefined) return false;
  try {
    const { bavail, bsize } = statfsSync(MEMORY);
    return bavail * bsize >= MEMORY_BYTES;
  } catch {
    return false;
  }
}

async function runFile(file: string, totals: Totals, quiet: boolean, env: NodeJS.ProcessEnv): Promise<void> {
  const options = { files: [file], timeout: FILE_TIMEOUT_MS, cwd: ROOT, execArgv: [...HEAP, "--import", JOINING], env };
  const stream = run(options as Parameters<typeof run>[0]);
  let said = "";
  stream.on("test:pass", (data: EventData.TestPass) => {
    noteDuration(totals, data);
    // What is in a suite that is skipped is not known.
    if (data.details.type === "suite" && data.skip === undefined) return;
    if (data.skip !== undefined) {
      const reason = typeof data.skip === "string" && data.skip !== "" ? data.skip : `no reason given (${data.name})`;
      totals.skipped.set(reason, (totals.skipped.get(reason) ?? 0) + 1);
    } else {
      totals.passed += 1;
    }
  });
  stream.on("test:fail", (data: EventData.TestFail) => {
    noteDuration(totals, data);
    if (data.details.type === "suite") return;
    totals.failed += 1;
    const file = data.file === undefined ? "" : `${path.relative(ROOT, data.file)}: `;
    totals.failures.push(`${file}${data.name}`);
    if (quiet) console.log(`✖ ${file}${data.name}\n${explain(data.details.error)}`);
  });
  if (quiet) {
    stream.on("test:stderr", (data: EventData.TestStderr) => process.stderr.write(data.message));
    stream.resume();
  } else {
    // Files end side by side: each one's lines come together.
    stream.compose(new spec()).on("data", (text: Buffer | string) => (said += text.toString()));
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.on("end", resolve);
  await promise;
  if (said !== "") process.stdout.write(`${path.relative(ROOT, file)}\n${withoutTotals(said)}`);
}

/** Returns what the reporter says of one file, without the counts, which the end of the run has for all files. */
function withoutTotals(said: string): string {
  return said.replaceAll(/^(?:\S*ℹ (?:tests|suites|pass|fail|cancelled|skipped|todo|duration_ms) .*)\n/gm, "");
}

function noteDuration(totals: Totals, data: EventData.TestPass | EventData.TestFail): void {
  if (data.nesting > 0 || data.file === undefined) return;
  const file = path.relative(ROOT, data.file);
  totals.durations.set(file, (totals.durations.get(file) ?? 0) + data.details.duration_ms);
}

function explain(error: Error): string {
  const shown = error.cause instanceof Error ? error.cause : error;
  return shown.stack ?? String(shown);
}

/** Returns the files of `tier` in the order in which they begin. */
function ofTier(files: string[], tier: string | undefined): string[] {
  if (tier === undefined) return files;
  const chosen = files.filter((file) => isLong(path.relative(ROOT, file)) === (tier === "long"));
  return tier === "long" ? rotated(chosen, headCommit()) : chosen;
}

/** Returns the hash of the commit that is checked out, or zeros outside a clone. */
function headCommit(): string {
  try {
    return execFileSync("git", ["rev-parse", "HEAD"], {
      cwd: ROOT,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    });
  } catch {
    return "00000000";
  }
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: {
      quiet: { type: "boolean", default: false },
      tier: { type: "string" },
      minutes: { type: "string" },
      record: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const files = ofTier(chosenFiles(positionals), values.tier);
  const limitMs = values.minutes === undefined ? Infinity : Number(values.minutes) * 60_000;
  if (files.length === 0 || Number.isNaN(limitMs)) {
    console.log(files.length === 0 ? "no test files match" : `--minutes takes a number, not '${values.minutes}'`);
    process.exitCode = 2;
  } else {
    // The first process to load a module compiles it for all others of this run, which are hundreds.
    const compiled = mkdtempSync(path.join(tmpdir(), "cairn-compiled-"));
    process.env["NODE_COMPILE_CACHE"] = compiled;
    try {
      const { totals, notRun, took } = await runAll(files, {
        quiet: values.quiet,
        limitMs,
        keepsOrder: values.tier === "long",
        records: values.record,
      });
      for (const file of notRun) console.log(`not run, the time was over: ${file}`);
      const over = values.tier === "short" ? overShortTier(took) : [];
      for (const line of over) console.log(line);
      for (const line of summaryLines(totals)) console.log(line);
      if (totals.failed > 0 || over.length > 0 || (totals.passed === 0 && notRun.length === 0)) process.exitCode = 1;
    } finally {
      rmSync(compiled, { recursive: true, force: true });
    }
  }
}
