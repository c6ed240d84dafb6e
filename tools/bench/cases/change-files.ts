import { lstatSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Random } from "../data/generator.ts";

/** Returns all files below a folder, in a stable order. */
export function listFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name))
    .toSorted();
}

/** Changes some bytes in one file of a hundred, in other files each round. Returns the paths of these files. */
export function changeOnePercent(files: readonly string[], round: number): string[] {
  const random = new Random(Date.now() + round);
  const changed = files.filter((_, i) => i % 100 === (round * 37) % 100);
  for (const file of changed) {
    const bytes = readFileSync(file);
    bytes.write(random.next().toString(16).padStart(8, "0"), bytes.length >> 1);
    writeFileSync(file, bytes);
  }
  return changed;
}

/** Returns the inode and change time of each path: both stay equal if a file was not touched. */
export function fingerprints(files: readonly string[]): Map<string, string> {
  return new Map(
    files.map((file) => {
      const stats = lstatSync(file, { bigint: true });
      return [file, `${stats.ino}:${stats.ctimeNs}`];
    }),
  );
}
