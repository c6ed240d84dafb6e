import { D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "./scan-table.ts";
import { TYPE } from "../../fs/linux/syscall-abi.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import type { StatCache } from "./stat-cache.ts";

export interface TouchedDirectory {
  /** Entries that may have changed, by their names as latin1; the set of names is unchanged otherwise. Null: names may have been added or removed. */
  names: ReadonlySet<string> | null;
  /** Everything below may have changed. */
  deep: boolean;
}

/** Changes of a folder since the scan of a stat cache. Any other path has not changed. */
export interface TouchedFolder {
  /** Directories with possible changes, by their paths below the root as latin1. */
  directories: ReadonlyMap<string, TouchedDirectory>;
  /** Low 32 bits of the numbers of inodes that may have changed or been renamed. */
  inodes: readonly number[];
  /** Files that were young when they were read may have changed without an event. */
  young: boolean;
}

/** Directories that a scan always reads: the table lacks some of their entries, or some that their state depends on. */
const LOOKED_AT = DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.IGNORE_FILE | DIRECTORY_FLAG.LINKED;

/** Ways to scan a directory of a cache. */
export const LOOK = {
  /** as without a cache */
  WHOLE: 0,
  /** not at all: its entries equal their records */
  NONE: 1,
  /** only some entries; the names are those of the records */
  SOME: 2,
} as const;

/** Parts of a folder that are known to be unchanged. All in shared memory. */
export interface Unchanged {
  /** One of {@link LOOK} for each directory of the cache. */
  directories: Uint8Array;
  /** A byte for each record of the cache: 1 if its entry may have changed. Only for directories with `LOOK.SOME`. */
  records: Uint8Array;
  /** Number of entries to make room for. */
  lookedAt: number;
  /** Young files are read in any case. */
  young: boolean;
}

/** Finds the parts of a cache that need no scan; null if an ignore file may have changed. */
export function unchangedIn({ table, directories, records }: StatCache, touched: TouchedFolder): Unchanged | null {
  const looks = new Uint8Array(new SharedArrayBuffer(directories)).fill(LOOK.NONE);
  const looked = new Uint8Array(new SharedArrayBuffer(records));
  const deep = new Set<number>();
  for (const [path, { names, deep: withAllBelow }] of touched.directories) {
    const directory = directoryAt(table, path);
    if (directory === null) continue;
    if (withAllBelow) deep.add(directory);
    const found =
      names === null ? [-1] : [...names].map((name) => table.recordOf(directory, Buffer.from(name, "latin1")));
    looks[directory] = found.includes(-1) ? LOOK.WHOLE : LOOK.SOME;
    for (const record of found) if (record >= 0) looked[record] = 1;
  }
  const inodes = touched.inodes.length === 0 ? null : new Inodes(touched.inodes);
  const words = table.directories;
  let lookedAt = 0;
  for (let directory = 0; directory < directories; directory++) {
    const base = directory * DIRECTORY_WORDS;
    // A directory's number is above its parent's.
    if (deep.size > 0 && directory > 0 && deep.has(words[base + D.PARENT]!)) deep.add(directory);
    const isLookedAt = (words[base + D.FLAGS]! & LOOKED_AT) !== 0 || words[base + D.IGNORED] !== 0;
    if (words[base + D.FLAGS]! & DIRECTORY_FLAG.IGNORE_FILE && mayHaveOtherRules(table, directory, inodes)) return null;
    if (isLookedAt || deep.has(directory)) looks[directory] = LOOK.WHOLE;
    else if (looks[directory] !== LOOK.WHOLE && inodes?.findIn(table, directory, looked) === true)
      looks[directory] = LOOK.SOME;
    if (looks[directory] !== LOOK.NONE) lookedAt += words[base + D.COUNT]!;
  }
  return { directories: looks, records: looked, lookedAt, young: touched.young };
}

/** True if an ignore file was changed, or may have been changed under another of its names. */
function mayHaveOtherRules(table: ScanTable, directory: number, inodes: Inodes | null): boolean {
  const record = table.recordOf(directory, Buffer.from(IGNORE_FILE));
  if (record < 0) return true;
  const base = record * RECORD_WORDS;
  return table.records[base + R.NLINK]! > 1 || inodes?.has(table.records[base + R.INO]!) === true;
}

/** Marks of a record because of which its whole directory is scanned, even without a known change. */
const LOOKED_AT_AGAIN = FLAG.OMITTED | FLAG.TORN | FLAG.LIVE | FLAG.UNREAD;

/** One of {@link LOOK} for a directory of a cache, also by its records' flags. Marks young files that need a read in any case. */
export function lookOf({ records, directories }: ScanTable, unchanged: Unmarked, directory: number): number {
  let look = unchanged.directories[directory]!;
  if (look === LOOK.WHOLE) return look;
  const first = directories[directory * DIRECTORY_WORDS + D.FIRST]!;
  const end = first + directories[directory * DIRECTORY_WORDS + D.COUNT]!;
  for (let record = first; record < end; record++) {
    const base = record * RECORD_WORDS;
    const marks = records[base + R.NAME_FLAGS]! >>> 16;
    if (records[base + R.MODE] === 0 || marks & LOOKED_AT_AGAIN) return LOOK.WHOLE;
    if (!unchanged.young || (marks & FLAG.YOUNG) === 0 || records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) continue;
    unchanged.records[record] = 1;
    look = LOOK.SOME;
  }
  return look;
}

export type Unmarked = Omit<Unchanged, "lookedAt">;

/** Numbers of inodes, looked for in many records. */
class Inodes {
  readonly #all: ReadonlySet<number>;
  /** 1 for the low 16 bits of each inode: rules most records out. */
  readonly #low = new Uint8Array(1 << 16);

  constructor(inodes: readonly number[]) {
    this.#all = new Set(inodes);
    for (const inode of inodes) this.#low[inode & 0xffff] = 1;
  }

  has(inode: number): boolean {
    return this.#low[inode & 0xffff] === 1 && this.#all.has(inode);
  }

  /** Marks the records of a directory whose inodes are in this set; false if there are none. */
  findIn({ records, directories }: ScanTable, directory: number, marks: Uint8Array): boolean {
    let isFound = false;
    const first = directories[directory * DIRECTORY_WORDS + D.FIRST]!;
    const end = first + directories[directory * DIRECTORY_WORDS + D.COUNT]!;
    for (let record = first; record < end; record++) {
      const inode = records[record * RECORD_WORDS + R.INO]!;
      if (!this.has(inode)) continue;
      marks[record] = 1;
      isFound = true;
    }
    return isFound;
  }
}

/** The number of the directory at a path of a cache's table; null if there is none. */
function directoryAt(table: ScanTable, path: string): number | null {
  let directory = 0;
  for (const part of path === "" ? [] : path.split("/")) {
    const record = table.recordOf(directory, Buffer.from(part, "latin1"));
    if (record < 0 || table.records[record * RECORD_WORDS + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return null;
    directory = table.records[record * RECORD_WORDS + R.SUB]!;
  }
  return directory;
}
