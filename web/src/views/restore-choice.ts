import type { PlanEntry } from "cairnstate/client";
import { foldersOf, partsOf, type PathRef, toText } from "../app/address.ts";
import { plural } from "../parts/numbers.ts";

/** Which entries of a restore's plan are chosen, and the paths that a restore of the chosen ones names. */

/** How much of an entry and of all below it is chosen. */
export type Mark = "all" | "some" | "none";

/** Returns the keys of the entries that stay, after an entry and all entries below it were chosen or not. */
export function chooseIn(
  entries: readonly PlanEntry[],
  keys: ReadonlySet<string>,
  { entry, isWanted }: { entry: PlanEntry; isWanted: boolean },
): ReadonlySet<string> {
  const own = toText(entry);
  const next = new Set(keys);
  for (const each of entries)
    if (toText(each) === own || foldersOf(each).includes(own)) {
      if (isWanted) next.delete(toText(each));
      else next.add(toText(each));
    }
  return next;
}

/** Returns for each entry, by its key, how much of it is chosen. `isChosen` tells of an entry without those below it. */
export function marksOf(
  entries: readonly PlanEntry[],
  isChosen: (entry: PlanEntry) => boolean,
): ReadonlyMap<string, Mark> {
  const marks = new Map<string, Mark>();
  const add = (key: string, mark: Mark): void => {
    const other = marks.get(key);
    marks.set(key, other === undefined || other === mark ? mark : "some");
  };
  for (const each of entries) {
    if (each.action === "keep") continue;
    const mark = isChosen(each) ? "all" : "none";
    for (const key of [toText(each), ...foldersOf(each)]) add(key, mark);
  }
  return marks;
}

/**
 * Returns the paths to restore so that the entries of `without` stay. Leaves out a folder with such an entry below it,
 * and a folder above the paths that were asked for: a restore of a folder restores everything in it. `isBackup`: paths
 * that the restore removes are not in the backup, so the folder above stands for them. Without such a folder they stay.
 */
export function chosenPaths(
  entries: readonly PlanEntry[],
  without: ReadonlySet<string>,
  { asked, isBackup }: { asked: readonly PathRef[]; isBackup: boolean },
): PathRef[] {
  const scope = new Set(asked.map(toText));
  const kept = entries.filter((each) => without.has(toText(each)));
  const above = new Set(kept.flatMap(foldersOf));
  const isWhole = (path: PathRef): boolean =>
    !above.has(toText(path)) &&
    (scope.size === 0 || scope.has(toText(path)) || foldersOf(path).some((one) => scope.has(one)));
  const removed = new Set(entries.filter(({ action }) => action === "delete").map(toText));
  const wanted = entries.flatMap((each): PathRef[] => {
    if (each.action === "keep" || without.has(toText(each))) return [];
    if (isBackup && each.action === "delete") {
      const folders = partsOf(each)
        .slice(0, -1)
        .map(({ at }) => at);
      const folder = folders.findLast((one) => !removed.has(toText(one)));
      return folder !== undefined && isWhole(folder) ? [folder] : [];
    }
    return each.kind !== "directory" || isWhole(each) ? [each] : [];
  });
  const own = new Map(wanted.map((each) => [toText(each), each]));
  return [...own.values()].filter((each) => !foldersOf(each).some((one) => own.has(one)));
}

/**
 * Returns the entries of both plans in the order of `all`. An entry of both is returned as the plan of the chosen paths
 * has it; one of the chosen paths alone stands at the end, so that no other row moves.
 */
export function rowsOf(all: readonly PlanEntry[], chosen: readonly PlanEntry[]): PlanEntry[] {
  const own = new Map(chosen.map((each) => [toText(each), each]));
  const rows = all.map((each) => {
    const key = toText(each);
    const found = own.get(key) ?? each;
    own.delete(key);
    return found;
  });
  return [...rows, ...own.values()];
}

/** ` 2 files`, for a button that does the plan; ` 3 entries` if folders or other kinds are among them. Empty for none. */
export function changedText(entries: readonly PlanEntry[]): string {
  const changed = entries.filter(({ action }) => action !== "keep");
  if (changed.length === 0) return "";
  const isOfFiles = changed.every(({ kind }) => kind === "file");
  return ` ${isOfFiles ? plural(changed.length, "file") : plural(changed.length, "entry", "entries")}`;
}
