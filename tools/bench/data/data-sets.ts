import { spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { makeBigFile } from "./big-file.ts";
import { makeSmallFiles } from "./small-files.ts";

export type DataName = "small" | "tree" | "big";

export interface DataSet {
  name: DataName;
  folder: string;
  what: string;
}

/** Milliseconds until fresh data has settled: a save reads a file again that was younger when the last save read it. */
const SETTLE_MS = 65_000;

/** Makes the data if it is missing (`data/NAME` below the scratch folder), and waits until it has settled. */
export async function dataSet(name: DataName, options: { scratch: string; quick: boolean }): Promise<DataSet> {
  const folder = path.join(options.scratch, "data", options.quick ? `${name}-quick` : name);
  const done = `${folder}.done`;
  if (!existsSync(done)) {
    console.error(`making the data "${name}" in ${folder}`);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(path.dirname(folder), { recursive: true });
    makers[name](`${folder}.new`, options.quick);
    renameSync(`${folder}.new`, folder);
    writeFileSync(done, "");
  }
  const age = Date.now() - statSync(done).mtimeMs;
  if (age < SETTLE_MS) {
    console.error(`letting it settle for ${Math.ceil((SETTLE_MS - age) / 1000)} s`);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS - age));
  }
  return { name, folder, what: describe(folder) };
}

/** Notes that a case has edited the data, so that the next case waits until it has settled. */
export function noteEdited(data: DataSet): void {
  writeFileSync(`${data.folder}.done`, "");
}

const makers: Record<DataName, (folder: string, quick: boolean) => void> = {
  small: (folder, quick) => makeSmallFiles(folder, quick ? 5000 : 100_000),
  tree: makeRealTree,
  big: (folder, quick) => makeBigFile(folder, quick ? 128 * 2 ** 20 : 2 * 2 ** 30),
};

function makeRealTree(folder: string, quick: boolean): void {
  mkdirSync(folder, { recursive: true });
  if (quick) {
    cpSync(path.resolve(import.meta.dirname, "../../../node_modules"), path.join(folder, "node_modules"), {
      recursive: true,
    });
    return;
  }
  for (const file of ["package.json", "package-lock.json"]) {
    cpSync(path.join(import.meta.dirname, "real-tree", file), path.join(folder, file));
  }
  const flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  const result = spawnSync("npm", ["ci", ...flags], { cwd: folder, stdio: ["ignore", "ignore", "inherit"] });
  if (result.status !== 0) throw new Error("npm could not install the packages of the real tree");
}

function describe(folder: string): string {
  const listing = spawnSync("find", [folder, "-type", "f", "-printf", "%s\n"], {
    encoding: "utf8",
    maxBuffer: 1 << 28,
  });
  const sizes = listing.stdout.trimEnd().split("\n").map(Number);
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  return `${sizes.length} files, ${(bytes / 2 ** 20).toFixed(0)} MiB`;
}

/** Reads all files once, so that no measurement pays for a cold cache. */
export function warm(folder: string): void {
  spawnSync("sh", ["-c", 'find "$1" -type f -print0 | xargs -0 -n 2000 cat >/dev/null', "sh", folder], {
    stdio: "ignore",
  });
}
