import fs from "node:fs";
import path from "node:path";
import { makeFolder } from "../../fs/make-folder.ts";
import type { StorePaths } from "./store-paths.ts";

/** Which packs the last verifications, and merges after saves, found damaged: a note for the doctor, which does not read packs. Best effort. */

const MAX_BYTES = 16 * 1024 * 1024;

function noteOf(paths: StorePaths): string {
  return path.join(path.dirname(paths.indexCache), "damaged-packs");
}

export function notedPacks(paths: StorePaths): string[] {
  try {
    const file = noteOf(paths);
    if (fs.statSync(file).size > MAX_BYTES) return [];
    return fs
      .readFileSync(file, "latin1")
      .split("\n")
      .filter((name) => /^[0-9a-f]{64}$/.test(name));
  } catch {
    return [];
  }
}

/** Notes packs beside, or with `instead` in place of, those noted before. */
export function notePacks(paths: StorePaths, names: readonly string[], instead: boolean): void {
  const before = notedPacks(paths);
  const all = [...new Set([...(instead ? [] : before), ...names])].toSorted();
  if (all.join() === before.toSorted().join()) return;
  try {
    makeFolder(path.dirname(noteOf(paths)));
    if (all.length === 0) fs.rmSync(noteOf(paths), { force: true });
    else fs.writeFileSync(noteOf(paths), `${all.join("\n")}\n`, { mode: 0o600 });
  } catch {
    // Another verification finds them again.
  }
}
