import type { DiffDatabaseResult } from "cairnstate/client";

type Row = DiffDatabaseResult["tables"][number]["rows"][number];

/** True if all columns of a modified row but its key differ, as if another row has the key now. */
export function isOtherRow({ before, after }: Row, key: readonly string[]): boolean {
  if (before === null || after === null) return false;
  const others = Object.keys({ ...before, ...after }).filter((name) => !key.includes(name));
  return others.length > 1 && others.every((name) => before[name] !== after[name]);
}
