import { globSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "node:test";
import type { EventData } from "node:test";
import { spec } from "node:test/reporters";
import { parseArgs } from "node:util";

/**
 * Runs test files in three processes at a time and ends with one line that counts everything:
 * `node tools/run-tests.ts [--quiet] GLOB... [!GLOB...]`. Skipped tests are listed by their reasons, so
 * that nobody takes a skip for a pass.
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
const IN_MEMORY = /^(?:src\/(?:api|backup|bundle|cli|context|repository)|test\/(?:hints|interop|page|package))\//;
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
    some.flatMap((pattern) => globSync(pattern, { cwd: ROOT })).map((file) => path.resolve(ROOT, file));
  const isExcluding = (pattern: string): boolean => pattern.startsWith("!");
  const excluded = new Set(matching(patterns.filter(isExcluding).map((pattern) => pattern.slice(1))));
  return matching(patterns.filter((pattern) => !isExcluding(pattern)))
    .filter((file) => !excluded.has(file))
    .toSorted();
}

/** Runs the files whose temporary folders may lie in memory, then the others. */
async function runAll(files: string[], quiet: boolean): Promise<Totals> {
  const totals: Totals = { passed: 0, failed: 0, skipped: new Map(), failures: [], durations: new Map() };
  const small = hasMemory()
    ? files.filter((file) => IN_MEMORY.test(path.relative(ROOT, file)) && !ON_DISK.test(file))
    : [];
  if (small.length > 0) {
    process.env["TMPDIR"] = MEMORY;
    await runFiles(small, totals, quiet);
    delete process.env["TMPDIR"];
  }
  const others = files.filter((file) => !small.includes(file));
  if (others.length > 0) await runFiles(others, totals, quiet);
  return totals;
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

async function runFiles(files: string[], totals: Totals, quiet: boolean): Promise<void> {
  const stream = run({ files, concurrency: AT_ONCE, timeout: FILE_TIMEOUT_MS, cwd: ROOT, execArgv: HEAP });
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
    stream.compose(new spec()).pipe(process.stdout);
  }
  const { promise, resolve } = Promise.withResolvers<void>();
  stream.on("end", resolve);
  await promise;
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

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: { quiet: { type: "boolean", default: false } },
    allowPositionals: true,
  });
  const files = chosenFiles(positionals);
  if (files.length === 0) {
    console.log("no test files match");
    process.exitCode = 2;
  } else {
    // The first process to load a module compiles it for all others of this run, which are hundreds.
    const compiled = mkdtempSync(path.join(tmpdir(), "cairn-compiled-"));
    process.env["NODE_COMPILE_CACHE"] = compiled;
    try {
      const totals = await runAll(files, values.quiet);
      for (const line of summaryLines(totals)) console.log(line);
      if (totals.failed > 0 || totals.passed === 0) process.exitCode = 1;
    } finally {
      rmSync(compiled, { recursive: true, force: true });
    }
  }
}
