import { NO_FILE, type ContextStore } from "./store.ts";
import type { IndexRow } from "./index-database.ts";
import { modelMissing } from "./open-embedder.ts";
import { entriesOf, type Level, levelKey, levelOf } from "./tree.ts";
import { isWithin, toUri } from "./uri.ts";

/** An entry that only files or index have, or that differs between them. */
export interface Difference {
  uri: string;
  level: number;
}

/** Comparison of files and index. */
export interface Consistency {
  ok: boolean;
  /** Levels of the files, and their records. */
  expected: number;
  indexed: number;
  /** Files without a record. */
  missing_records: Difference[];
  /** Records without a file. */
  missing_files: Difference[];
  /** Files that changed since their record was made, or were not read yet. */
  stale: Difference[];
  missing_vectors: Difference[];
}

/** Compares the files below a path with their index. */
export function compareWithIndex(
  { folder, index, lacksModel }: ContextStore,
  path: string,
): {
  expected: number;
  rows: number;
  missing: Level[];
  orphaned: IndexRow[];
  stale: IndexRow[];
  unembedded: IndexRow[];
} {
  const rows = new Map<string, IndexRow>();
  for (const row of index.rows(path)) rows.set(levelKey(row), row);
  const missing: Level[] = [];
  const stale: IndexRow[] = [];
  const directories = new Set<string>();
  let expected = 0;
  const seen = new Set<string>();
  for (const { path: at, isDirectory, source } of entriesOf(folder, path)) {
    if (isDirectory) {
      directories.add(at);
      continue;
    }
    const level = levelOf(at);
    if (level === null || !isWithin(level.path, path)) continue;
    expected++;
    const name = levelKey(level);
    seen.add(name);
    const row = rows.get(name);
    if (row === undefined) missing.push(level);
    else if (row.source !== source) stale.push(row);
  }
  const others = [...rows].flatMap(([name, row]) => (seen.has(name) ? [] : [row]));
  // A bundle may have brought a directory's text without its file.
  const isBrought = (row: IndexRow): boolean => row.source === NO_FILE && directories.has(row.path);
  const hasVectors = index.dimensions !== null && !lacksModel;
  const unembedded = !hasVectors ? [] : [...rows.values()].filter((row) => !row.hasVector);
  return { expected, rows: rows.size, missing, orphaned: others.filter((row) => !isBrought(row)), stale, unembedded };
}

/** Lists the entries that the files or the index lack, by name. */
export function checkConsistency(store: ContextStore, path: string): Consistency {
  const { expected, rows, missing, orphaned, stale, unembedded } = compareWithIndex(store, path);
  const named = (all: readonly { path: string; level: number }[]): Difference[] =>
    all.map(({ path: at, level }) => ({ uri: toUri(at), level }));
  return {
    ok: missing.length + orphaned.length + stale.length + unembedded.length === 0,
    expected,
    indexed: rows,
    missing_records: named(missing),
    missing_files: named(orphaned),
    stale: named(stale),
    missing_vectors: named(unembedded),
  };
}

/**
 * Updates the index from the files; with `all`, reads every file again. `fill` adds words and vectors afterwards. Throws `unsupported`
 * if a vector would have to be made again and the store lacks its model.
 */
export function reindex(
  store: ContextStore,
  path: string,
  { all = false }: { all?: boolean },
): { added: number; removed: number; changed: number } {
  const { missing, orphaned, stale, unembedded } = compareWithIndex(store, path);
  const now = new Date().toISOString();
  const { index } = store;
  const reread = all ? [...index.rows(path)] : [...stale, ...unembedded];
  if (store.lacksModel && reread.some(({ hasVector }) => hasVector))
    throw modelMissing("making the vectors of these files again");
  return index.transaction(() => {
    for (const { file: _, ...row } of missing) index.put(row, now);
    index.remove(orphaned.map(({ id }) => id));
    for (const { id } of reread) index.markStale(id);
    return { added: missing.length, removed: orphaned.length, changed: stale.length };
  });
}
