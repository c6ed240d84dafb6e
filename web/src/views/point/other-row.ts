import type { DiffDatabaseResult } from "cairnstate/client";

type Row = DiffDatabaseResult["tables"][number]["rows"][number];

/** True if all columns of a modified row but its key differ, as if another row has the key now. */
export function isOtherRow({ before, after }: Row, key: readonly string[]): boolean {
  if (before === null || after === null) return false;
  const others = Object.keys({ ...before, ...after }).filter((name) => !key.includes(name));
  return others.length > 1 && others.every((name) => before[name] !== after[name]);
}

/** Returns the rows in the order of their keys: numbers by value, then other values as text. */
export function inKeyOrder(rows: readonly Row[], key: readonly string[]): Row[] {
  return rows.toSorted((one, other) => {
    for (const name of key) {
      const [a, b] = [one, other].map(({ before, after }) => (after ?? before)?.[name] ?? "") as [string, string];
      if (a === b) continue;
      const [first, second] = [a, b].map((text) => (text === "" ? Number.NaN : Number(text))) as [number, number];
      const isOnlyOne = Number.isNaN(first) !== Number.isNaN(second);
      if (isOnlyOne) return Number.isNaN(first) ? 1 : -1;
      if (first !== second && !Number.isNaN(first)) return first - second;
      return a < b ? -1 : 1;
    }
    return 0;
  });
}
