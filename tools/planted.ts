import { execFileSync, spawn } from "node:child_process";
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import {
  planOf,
  proofPage,
  type Planted,
  type Reach,
  readPlanted,
  type Results,
  type Seen,
  type Tier,
  tierOf,
} from "./planted-faults.ts";
import { reaches, type Reached, whileRecording } from "./reach.ts";
import { HEAP } from "./run-tests.ts";

/**
 * `npm run planted [-- NAME... --tier ok|short|all]`: plants the faults of tools/planted/*.patch in a copy of the tree, one at a
 * time, and runs the test files that reach the changed lines, the cheapest first, until one fails. Exits 1 if a fault is seen by
 * none. `--record` keeps the answers in tools/planted/results.json and writes docs/proof.md. `--check` only tells whether every
 * patch still applies and docs/proof.md is current; `--page` only writes the page. `--reach` records which unit files run the
 * changed lines.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const PLANTED = path.join(ROOT, "tools/planted");
const RESULTS = path.join(PLANTED, "results.json");
const REACH = path.join(PLANTED, "reach.json");
const PROOF = path.join(ROOT, "docs/proof.md");
/** A fault may make a test wait for ever. */
const LIMIT_SECONDS = 300;

function writeJson(file: string, value: unknown): void {
  writeFileSync(file, `${JSON.stringify(value, null, 2)}\n`);
  execFileSync("oxfmt", [file], { stdio: "ignore" });
}

interface Ran {
  passed: boolean;
  /** Processor seconds of the file and of all processes that it waited for. */
  seconds: number;
}

/** Returns a copy of the tree with its own build, so that neither patches nor builds reach the tree. */
function copyTree(): string {
  const copy = mkdtempSync(path.join(tmpdir(), "cairn-planted-"));
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: ROOT });
  for (const file of listed.toString().split("\0"))
    if (file !== "" && existsSync(path.join(ROOT, file)))
      cpSync(path.join(ROOT, file), path.join(copy, file), { preserveTimestamps: true, verbatimSymlinks: true });
  symlinkSync(path.join(ROOT, "node_modules"), path.join(copy, "node_modules"));
  if (existsSync(path.join(ROOT, "dist")))
    cpSync(path.join(ROOT, "dist"), path.join(copy, "dist"), { recursive: true, preserveTimestamps: true });
  mkdirSync(path.join(copy, ".runtime"));
  for (const file of globSync("*", { cwd: path.join(ROOT, ".runtime") })) {
    const from = path.join(ROOT, ".runtime", file);
    if (/^(?:bin|node-.*)$/.test(file)) symlinkSync(from, path.join(copy, ".runtime", file));
    else if (statSync(from).isFile()) cpSync(from, path.join(copy, ".runtime", file), { preserveTimestamps: true });
  }
  return copy;
}

/** Runs one test file of the copy, and ends it after `LIMIT_SECONDS` as a failure. */
async function runTest(copy: string, file: string, more: Record<string, string> = {}): Promise<Ran> {
  const script = '"$@" >/dev/null 2>&1; status=$?; times; exit $status';
  const command = ["timeout", "-k", "5", String(LIMIT_SECONDS), "node", ...HEAP, "--test", file];
  const child = spawn("sh", ["-c", script, "sh", ...command], {
    cwd: copy,
    env: { CAIRN_TEST_ROUNDS: "50", ...process.env, ...more },
    stdio: ["ignore", "pipe", "ignore"],
  });
  let said = "";
  child.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.on("close", resolve);
  const passed = (await promise) === 0;
  // The last line has user and system time of all children, for example `0m1.25s 0m0.31s`.
  const times = said
    .trim()
    .split("\n")
    .at(-1)!
    .matchAll(/(\d+)m([\d.]+)s/g);
  const seconds = [...times].reduce((sum, [, minutes, rest]) => sum + Number(minutes) * 60 + Number(rest), 0);
  return { passed, seconds: Math.round(seconds * 10) / 10 };
}

function apply(directory: string, patch: string, ...options: string[]): void {
  try {
    const command = ["apply", ...options, path.join(PLANTED, `${patch}.patch`)];
    execFileSync("git", command, { cwd: directory, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  } catch (error) {
    const { stderr } = error as { stderr: string };
    throw new Error(`tools/planted/${patch}.patch no longer applies; make it again for the present source:\n${stderr}`);
  }
}

/** Runs the files of `fault` in the patched copy. `sound` has the files that pass without a fault. */
async function lookFor(
  copy: string,
  { name }: Planted,
  files: readonly string[],
  sound: Map<string, boolean>,
): Promise<Seen | null> {
  let spent = 0;
  for (const file of files) {
    apply(copy, name);
    const { passed, seconds } = await runTest(copy, file).finally(() => apply(copy, name, "-R"));
    spent += seconds;
    if (passed) continue;
    if (!sound.has(file)) sound.set(file, (await runTest(copy, file)).passed);
    if (sound.get(file)) return { tier: tierOf(file), file, seconds, spent: Math.round(spent * 10) / 10 };
    console.log(`  ${file} fails without the fault, too, and does not count`);
  }
  return null;
}

async function run(chosen: readonly Planted[], tier: Tier, record: boolean): Promise<void> {
  const results = JSON.parse(readFileSync(RESULTS, "utf8")) as Results;
  const reach = JSON.parse(readFileSync(REACH, "utf8")) as Reach;
  const copy = copyTree();
  const sound = new Map(Object.values(reach).flatMap((files) => files.map((file) => [file, true] as const)));
  let unseen = 0;
  try {
    for (const fault of chosen) {
      const seen = await lookFor(
        copy,
        fault,
        planOf(ROOT, fault, tier, { seenBy: results.seen[fault.name]?.file, reach: reach[fault.name] }),
        sound,
      );
      if (seen === null) unseen += 1;
      console.log(
        seen === null
          ? `✖ ${fault.name}: nothing sees it`
          : `✔ ${fault.name}: ${seen.tier}, ${seen.file}, ${seen.seconds} s`,
      );
      if (!record) continue;
      results.seen[fault.name] = seen;
      writeJson(RESULTS, results);
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  console.log(`${chosen.length} faults planted, ${unseen} seen by nothing`);
  if (unseen > 0) process.exitCode = 1;
}

/** The most processor seconds of all files beside the first that are tried for one fault. */
const TRIED_SECONDS = 9;

/** Runs each unit file once and keeps in reach.json which of them run the lines that the faults change. Takes half an hour. */
async function recordReach(faults: readonly Planted[]): Promise<void> {
  const copy = copyTree();
  const ran: { file: string; seconds: number; reached: Reached }[] = [];
  try {
    for (const file of globSync("{src,web/src}/**/*.test.ts", { cwd: copy, exclude: ["**/node_modules/**"] })) {
      if (tierOf(file) !== "ok") continue;
      let result: Ran | undefined;
      const reached = await whileRecording(copy, async (env) => void (result = await runTest(copy, file, env)));
      if (result!.passed) ran.push({ file, seconds: result!.seconds, reached });
      console.log(`${file}: ${result!.seconds} s`);
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  const reach = faults.map(({ name, files }) => {
    const patch = readFileSync(path.join(PLANTED, `${name}.patch`), "utf8");
    const isBeside = (file: string): boolean => files.some((changed) => path.dirname(changed) === path.dirname(file));
    let sum = 0;
    const tried = ran
      .filter(({ reached }) => reaches(reached, patch))
      .toSorted((a, b) => Number(isBeside(b.file)) - Number(isBeside(a.file)) || a.seconds - b.seconds)
      .filter(({ seconds }, i) => (sum += seconds) <= TRIED_SECONDS || i === 0);
    return [name, tried.map(({ file }) => file)];
  });
  writeJson(REACH, Object.fromEntries(reach));
}

/** Says whether every patch applies and docs/proof.md is current; writes the page if `write`. */
function checkAll(faults: readonly Planted[], write: boolean): void {
  for (const { name } of faults) apply(ROOT, name, "--check");
  const page = proofPage(faults, JSON.parse(readFileSync(RESULTS, "utf8")) as Results);
  if (write) writeFileSync(PROOF, page);
  else if (!existsSync(PROOF) || readFileSync(PROOF, "utf8") !== page)
    throw new Error("docs/proof.md is not what tools/planted says: run `npm run planted -- --page`");
}

if (import.meta.main) {
  const { values, positionals } = parseArgs({
    options: {
      tier: { type: "string", default: "short" },
      record: { type: "boolean", default: false },
      page: { type: "boolean", default: false },
      reach: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const faults = readPlanted(PLANTED);
  const unknown = positionals.filter((name) => !faults.some((fault) => fault.name === name));
  if (unknown.length > 0 || !["ok", "short", "all"].includes(values.tier)) {
    console.log(unknown.length > 0 ? `no such fault: ${unknown.join(", ")}` : "--tier takes ok, short or all");
    process.exitCode = 2;
  } else {
    try {
      const chosen = positionals.length > 0 ? faults.filter(({ name }) => positionals.includes(name)) : faults;
      if (values.reach) await recordReach(faults);
      else if (values.check || values.page) checkAll(faults, values.page);
      else await run(chosen, values.tier as Tier, values.record);
      if (values.record) checkAll(faults, true);
    } catch (error) {
      console.log((error as Error).message);
      process.exitCode = 1;
    }
  }
}
