import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Measure } from "./limits.ts";

/**
 * Runs seven commands of the build with V8's coverage, and counts the source files that each enters and the functions
 * that it calls, in all threads. The build's scripts have each function of the source under its module's name.
 */

const ROOT = path.resolve(import.meta.dirname, "..");
const FILES = 20;

/** A script in V8's report on coverage. Offsets are characters of the script. */
export interface CoveredScript {
  url: string;
  functions: readonly { ranges: readonly { startOffset: number; count: number }[] }[];
}

/** Returns both figures of each trip. Builds first if a source is newer than the build. */
export function tripMeasures(): Measure[] {
  execFileSync(path.join(ROOT, "cairn"), ["--version"], { stdio: ["ignore", "ignore", "inherit"] });
  const dist = path.join(ROOT, "dist");
  // Scripts of older builds stay for an hour. The command names its own in the loader of its main module.
  const [, main] = /"\.\/(main-\w+\.js)"/.exec(readFileSync(path.join(dist, "cli.js"), "utf8"))!;
  const [name] = /scripts-[0-9a-f]+\.cjs/.exec(readFileSync(path.join(dist, main!), "utf8"))!;
  const modules = modulesIn(readFileSync(path.join(dist, name), "utf8"));
  const folder = mkdtempSync(path.join(tmpdir(), "cairn-trips-"));
  try {
    return [...coverageOfTrips(folder, path.join(dist, "cli.js"))].flatMap(([trip, scripts]): Measure[] => {
      const { files, functions } = calledIn(modules, scripts);
      return [
        { limit: "files entered", of: trip, number: files },
        { limit: "functions called", of: trip, number: functions },
      ];
    });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** Runs the commands in a workspace of {@link FILES} files, and returns the coverage of the measured ones. */
function coverageOfTrips(folder: string, cli: string): Map<string, CoveredScript[]> {
  const work = path.join(folder, "work");
  const repository = ["--repo", path.join(folder, "repository")];
  const trips = new Map<string, CoveredScript[]>();
  const run = (args: readonly string[], trip?: string): void => {
    const coverage = path.join(folder, `coverage-${trip}`);
    const made = spawnSync(process.execPath, [cli, ...args], {
      cwd: work,
      encoding: "utf8",
      env: {
        PATH: process.env["PATH"],
        HOME: folder,
        CAIRN_PASSWORD: "password",
        // Compiled code from a cache has imprecise coverage.
        NODE_DISABLE_COMPILE_CACHE: "1",
        ...(trip === undefined ? {} : { NODE_V8_COVERAGE: coverage }),
      },
    });
    if (made.status !== 0)
      throw new Error(`cairn ${args.join(" ")} exits ${made.status}: ${made.stdout}${made.stderr}`);
    if (trip !== undefined) trips.set(trip, readCoverage(coverage));
  };
  const change = (text: string): void => writeFileSync(path.join(work, "file-3.txt"), `${text}\n`);
  mkdirSync(path.join(work, "folder"), { recursive: true });
  for (let n = 0; n < FILES; n++) writeFileSync(path.join(work, `file-${n}.txt`), `file ${n}\n`.repeat(50));
  writeFileSync(path.join(work, "folder/file.txt"), "a file\n");

  run(["init", "--engine", "copy"]);
  run(["save"]);
  change("second");
  run(["save"], "save");
  change("third");
  run(["status"], "status");
  run(["restore", "head", "file-3.txt"], "restore one file");
  run(["undo"], "undo");
  run(["save"]);
  run(["diff", "head~1", "head"], "diff");
  run(["backup", "init", ...repository]);
  run(["backup", "create", ...repository]);
  change("fourth");
  run(["backup", "create", ...repository], "backup create");
  run(["backup", "restore", "latest", "--to", path.join(folder, "restored"), ...repository], "backup restore");
  return trips;
}

function readCoverage(folder: string): CoveredScript[] {
  return readdirSync(folder).flatMap(
    (name) => (JSON.parse(readFileSync(path.join(folder, name), "utf8")) as { result: CoveredScript[] }).result,
  );
}

/** The modules of a build's scripts, which begin at `starts` in `text`, in this order. */
interface BuiltModules {
  text: string;
  /** Keys of modules (`workspace-save:look.ts`) with the first characters of their function and of their script. */
  starts: { key: string; body: number; script: number }[];
}

/** Finds the modules in the text of a build's scripts, which `tools/link.ts` writes. */
export function modulesIn(text: string): BuiltModules {
  const starts: BuiltModules["starts"] = [];
  for (const match of text.matchAll(/"(([\w-]+):[\w./-]+)": \((?=function\(__require,exports,__url\)\{)/g)) {
    const [start, key = "", group = ""] = match;
    const before = starts.at(-1);
    const script = before?.key.startsWith(`${group}:`) === true ? before.script : match.index - "({".length;
    starts.push({ key, body: match.index + start.length, script });
  }
  return { text, starts };
}

/** Counts the modules of which a function was called, and these functions. */
export function calledIn(
  { text, starts }: BuiltModules,
  scripts: readonly CoveredScript[],
): { files: number; functions: number } {
  const files = new Set<string>();
  const functions = new Set<number>();
  for (const { url, functions: covered } of scripts) {
    const group = /scripts-[0-9a-f]+\.cjs\/([\w-]+)$/.exec(url)?.[1];
    const inside = starts.filter(({ key }) => key.startsWith(`${group}:`));
    for (const { ranges } of covered) {
      const [{ startOffset, count } = { startOffset: 0, count: 0 }] = ranges;
      const at = (inside[0]?.script ?? 0) + startOffset;
      const module = inside.findLast(({ body }) => body <= at);
      // The linker adds functions that bind an import when it is first called.
      if (
        count === 0 ||
        module === undefined ||
        module.body === at ||
        /^(?:function)?\(\.\.\.\$\)/.test(text.slice(at, at + 20))
      )
        continue;
      files.add(module.key);
      functions.add(at);
    }
  }
  return { files: files.size, functions: functions.size };
}
