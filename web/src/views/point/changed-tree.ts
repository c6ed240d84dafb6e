import type { DiffEntry } from "cairnstate/client";
import type { PathRef } from "../../app/address.ts";
import { plural } from "../../parts/numbers.ts";

/** Changed entries as a tree of folders with counts, flattened to its visible rows. */

export interface Sums {
  added: number;
  modified: number;
  removed: number;
}

interface ChangedFolder extends Sums {
  kind: "folder";
  /**
   * The folder's name. Parent folders with no other entry have no row of their own; their names come before it, as in
   * `src/api`.
   */
  name: string;
  path: string;
  depth: number;
  isOpen: boolean;
  /** The change of the folder itself, if it has one. */
  own: DiffEntry | undefined;
}

interface ChangedEntry {
  kind: "entry";
  name: string;
  depth: number;
  entry: DiffEntry;
}

export type ChangedRow = ChangedFolder | ChangedEntry;

interface Node extends Sums {
  name: string;
  path: string;
  own: DiffEntry | undefined;
  folders: Map<string, Node>;
  entries: { name: string; entry: DiffEntry }[];
}

function nodeOf(name: string, path: string): Node {
  return { name, path, own: undefined, folders: new Map(), entries: [], added: 0, modified: 0, removed: 0 };
}

/** What an entry counts as. A renamed one counts as in the status and the history, which compare no content: under both names. */
const SUMS = {
  added: ["added"],
  renamed: ["added", "removed"],
  modified: ["modified"],
  removed: ["removed"],
  not_kept: ["removed"],
} as const;

function count(sums: Sums, { change }: DiffEntry): void {
  for (const each of SUMS[change]) sums[each]++;
}

export function sumsOf(entries: readonly DiffEntry[]): Sums {
  const sums = { added: 0, modified: 0, removed: 0 };
  for (const each of entries) count(sums, each);
  return sums;
}

/** True for a folder of which only times, mode or owner changed. */
export function isFolderItself({ kind, change }: DiffEntry): boolean {
  return kind === "directory" && change === "modified";
}

/**
 * Returns the paths of entries, both paths of a renamed one. Leaves out folders that still exist, because a restore of
 * a folder restores everything below it.
 */
export function pathsOf(entries: readonly DiffEntry[]): PathRef[] {
  return entries.flatMap((entry) => {
    if (isFolderItself(entry)) return [];
    const { from_path: path, from_path_b64: path_b64 } = entry;
    return path === undefined ? [entry] : [entry, { path, path_b64 }];
  });
}

/** `the times of 2 folders`, for folders of which only that changed; null if there are none. */
export function foldersText(entries: readonly DiffEntry[]): string | null {
  const folders = entries.filter(isFolderItself);
  if (folders.length === 0) return null;
  const isOfTimes = folders.every(({ aspects }) => aspects.every((each) => each === "times"));
  const what = isOfTimes ? "times" : "mode, owner or times";
  return `the ${what} of ${plural(folders.length, "folder")}`;
}

/** `9 entries and the times of 1 folder`. */
export function entriesText(entries: readonly DiffEntry[]): string {
  const folders = foldersText(entries);
  const rest = entries.filter((each) => !isFolderItself(each)).length;
  if (folders === null) return plural(rest, "entry", "entries");
  return rest === 0 ? folders : `${plural(rest, "entry", "entries")} and ${folders}`;
}

/** Endings of files that have no lines to compare. */
const NO_TEXT = /\.(?:png|jpe?g|gif|webp|avif|bmp|ico|db3?|sqlite3?|bin|gz|zip|zst|tar|pdf|wasm|woff2?)$/i;

/** Returns the entry that a view opens first: the first file with text in the order of the tree, else the first file. */
export function firstOf(entries: readonly DiffEntry[]): DiffEntry | undefined {
  const rows = new ChangedTree(entries).rows(new Set());
  const ordered = rows.flatMap((row) => (row.kind === "entry" ? [row.entry] : []));
  const files = ordered.filter(({ kind }) => kind === "file");
  const hasText = ({ path, change, aspects }: DiffEntry): boolean =>
    !NO_TEXT.test(path) && (change !== "modified" || aspects.includes("content"));
  return files.find(hasText) ?? files[0] ?? ordered[0];
}

export class ChangedTree {
  readonly #root = nodeOf("", "");

  constructor(entries: readonly DiffEntry[]) {
    for (const entry of entries) {
      const names = entry.path.split("/");
      let node = this.#root;
      count(node, entry);
      for (const [i, name] of names.slice(0, -1).entries()) {
        let next = node.folders.get(name);
        if (next === undefined) node.folders.set(name, (next = nodeOf(name, names.slice(0, i + 1).join("/"))));
        node = next;
        count(node, entry);
      }
      node.entries.push({ name: names.at(-1)!, entry });
    }
  }

  /**
   * Returns the rows of all folders except the content of closed ones. A changed folder with rows below it has no
   * second row.
   */
  rows(closed: ReadonlySet<string>): ChangedRow[] {
    const rows: ChangedRow[] = [];
    add(rows, this.#root, 0, closed);
    return rows;
  }
}

function add(rows: ChangedRow[], node: Node, depth: number, closed: ReadonlySet<string>): void {
  const entries = node.entries.filter(({ name, entry }) => {
    const folder = entry.kind === "directory" ? node.folders.get(name) : undefined;
    if (folder !== undefined) folder.own = entry;
    return folder === undefined;
  });
  for (const each of node.folders.values()) {
    let [folder, name] = [each, each.name];
    while (folder.entries.length === 0 && folder.folders.size === 1 && folder.own === undefined) {
      [folder] = [...folder.folders.values()] as [Node];
      name += `/${folder.name}`;
    }
    const { path, own, added, modified, removed } = folder;
    const isOpen = !closed.has(path);
    rows.push({ kind: "folder", name, path, depth, isOpen, own, added, modified, removed });
    if (isOpen) add(rows, folder, depth + 1, closed);
  }
  for (const { name, entry } of entries) rows.push({ kind: "entry", name, depth, entry });
}
