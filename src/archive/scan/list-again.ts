import { D, DIRECTORY_FLAG, DIRECTORY_WORDS, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { STAT, TYPE, wide } from "../../fs/linux/syscalls.ts";
import type { Arena } from "../../native.ts";
import { compareName, type Names, putNames } from "./directory-parts.ts";
import { sameStat } from "./read-entry.ts";
import type { ScanThread } from "./scan-thread.ts";
import { hasWords, INODE_WORDS } from "./stat-words.ts";

/** In place of a job's count: a directory in which a name was gone that had been listed. */
export const LIST_AGAIN = -1;
export const MOVED_REASON = "entries of it were renamed while it was read";
/** So often such a directory is read again, each time what is new in it. */
const READINGS = 3;

/** Work of a directory's scanner for {@link listAgain}. */
export interface AgainWork {
  /** those of the present listing that are part of the state */
  names(fd: number): Names;
  /** reads an entry into a reserved record; the thread's `goneNames` tells where it is gone */
  read(fd: number, entry: { arena: Arena; name: number; record: number; oldRecord: number }): void;
  /** the directory cannot be opened or listed */
  lost(result: number): void;
}

/** An entry that was read: its record, and the table that has it. */
interface Known {
  from: ScanTable;
  record: number;
}

/**
 * Reads what lies in a directory and is in no record, for one in which a name was gone: what it stood for may have got
 * another name, which the first listing did not have. What was read stays, also where it is gone since; unless it is
 * there under a name that is read now. What is there to the end and could not be read makes the directory a torn one.
 */
export function listAgain(thread: ScanThread, directory: number, work: AgainWork): void {
  const { table, sys, listing } = thread;
  if (isBelowGone(table, directory)) return;
  const open = (): number => thread.openDirectory(directory);
  let missed = new Set<bigint>();
  thread.listsAgain = directory;
  try {
    for (let left = READINGS; left >= 0; left--) {
      const fd = listing.openSteady(sys, open, { before: thread.stat2, after: thread.stat });
      if (fd < 0) return work.lost(fd);
      try {
        const again = new DirectoryAgain(thread, directory, { fd, names: work.names(fd) });
        if (left > 0 && again.isTooMuch()) {
          thread.isSpent = true;
          return thread.addJob(directory, 0, LIST_AGAIN);
        }
        if (left > 0) missed = again.read(work);
        else if (again.hasAny(missed)) thread.noteTorn(table.directoryPath(directory), MOVED_REASON);
        if (missed.size === 0) return;
      } finally {
        sys.close(fd);
      }
    }
  } finally {
    thread.listsAgain = -1;
  }
}

function isBelowGone(table: ScanTable, directory: number): boolean {
  for (let at = directory; at !== 0; at = table.directories[at * DIRECTORY_WORDS + D.PARENT]!)
    if (isGoneDirectory(table, at)) return true;
  return false;
}

function isGoneDirectory(table: ScanTable, directory: number): boolean {
  return (table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.GONE) !== 0;
}

/** A directory as it is listed now, and the records of what was read before. */
class DirectoryAgain {
  readonly #thread: ScanThread;
  readonly #directory: number;
  readonly #fd: number;
  readonly #names: Names;
  /** what was read, by its position in the listing, and what is not in it any more */
  readonly #known = new Map<number, Known>();
  readonly #unlisted: Known[] = [];
  /** what was read under names that other entries have now */
  readonly #replaced: Known[] = [];
  /** False where the previous table's records, which stand for the directory's own, have one that is gone. */
  #isWhole = true;

  constructor(thread: ScanThread, directory: number, { fd, names }: { fd: number; names: Names }) {
    this.#thread = thread;
    this.#directory = directory;
    this.#fd = fd;
    this.#names = names;
    const { bytes } = thread.listing.names;
    let at = 0;
    for (const known of this.#present()) {
      const { from, record } = known;
      let order = 1;
      while (at < names.length && (order = compareName(bytes, names[at]!, from.names, from.records, record)) < 0) at++;
      if (at === names.length || order > 0) this.#unlisted.push(known);
      else if (this.#stands(known, names[at]!)) this.#known.set(at, known);
      else this.#replaced.push(known);
    }
  }

  /** True when one of the inodes is there under a name that has no record. */
  hasAny(inodes: ReadonlySet<bigint>): boolean {
    return this.#names.some((name, at) => !this.#known.has(at) && inodes.has(this.#thread.listing.inodeOf(name)));
  }

  /** Tells whether what has no record is more than this thread may read, and left to others. */
  isTooMuch(): boolean {
    const { sys, listing, stat, notes, task } = this.#thread;
    if (task.readLimit === Number.MAX_SAFE_INTEGER) return false;
    let bytes = notes.bytesRead;
    for (const [at, name] of this.#names.entries())
      if (!this.#known.has(at) && sys.stat(this.#fd, listing.names, name, stat) >= 0)
        if ((stat.words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.FILE) bytes += wide(stat.words, STAT.SIZE);
    return bytes > task.readLimit;
  }

  /** Gives the directory a record of each entry; the inodes of those that were gone again and are in none. */
  read(work: AgainWork): Set<bigint> {
    if (this.#known.size === this.#names.length && this.#isWhole) return new Set();
    const { table, listing } = this.#thread;
    for (const known of this.#replaced) this.#leaveOut(known);
    const order = this.#merged();
    const start = table.takeRecords(order.length);
    const oldRecordOf = this.#oldRecords();
    const gone = new Set<bigint>();
    const now = new Set<bigint>();
    for (const [i, at] of order.entries()) {
      if (typeof at !== "number" || this.#known.has(at)) continue;
      const [name, arena, record] = [this.#names[at]!, listing.names, start + i];
      putNames(table, { names: [name], from: 0, to: 1, start: record, arena });
      const before = this.#thread.goneNames;
      work.read(this.#fd, { arena, name, record, oldRecord: oldRecordOf(name) });
      if (this.#thread.goneNames > before) gone.add(listing.inodeOf(name));
      else now.add(inodeOfRecord(table, record));
    }
    for (const [i, at] of order.entries()) {
      const known = typeof at === "number" ? this.#known.get(at) : at;
      if (known === undefined) continue;
      const inode = inodeOfRecord(known.from, known.record);
      gone.delete(inode);
      this.#keep(known, start + i);
      if (typeof at !== "number" && now.has(inode)) this.#drop(start + i);
    }
    const base = this.#directory * DIRECTORY_WORDS;
    table.directories[base + D.FIRST] = start;
    table.directories[base + D.COUNT] = order.length;
    table.clearDirectoryFlags(this.#directory, DIRECTORY_FLAG.SAME | DIRECTORY_FLAG.ALIGNED);
    table.addDirectoryFlag(this.#directory, DIRECTORY_FLAG.DIFFERS);
    for (const inode of now) gone.delete(inode);
    return gone;
  }

  /** Records of entries that were read, in the order of their names. */
  *#present(): Generator<Known> {
    const { table, old } = this.#thread;
    const base = this.#directory * DIRECTORY_WORDS;
    const from = table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME ? old! : table;
    const first = table.directories[base + D.FIRST]!;
    for (let record = first; record < first + table.directories[base + D.COUNT]!; record++) {
      const mode = from.records[record * RECORD_WORDS + R.MODE]!;
      if (mode === 0) continue;
      if (mode >>> 12 !== TYPE.DIRECTORY || !isGoneDirectory(table, this.#child({ from, record })))
        yield { from, record };
      else if (from === table) table.noRecord(record);
      else this.#isWhole = false;
    }
  }

  /** Tells whether a record is about what has its name now: another entry may have been renamed to it. */
  #stands({ from, record }: Known, name: number): boolean {
    const { sys, listing, stat } = this.#thread;
    if (listing.inodeOf(name) === inodeOfRecord(from, record)) return true;
    // Not every listing has the numbers that a look has: those of a mount, of overlays, of none.
    if (sys.stat(this.#fd, listing.names, name, stat) < 0) return false;
    const base = record * RECORD_WORDS;
    if (from.records[base + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return sameStat(from.records, base, stat.words);
    return hasWords(from.records, base, stat.words, INODE_WORDS);
  }

  /** Positions in the listing, and between them what is not in it any more. */
  #merged(): (number | Known)[] {
    const { bytes } = this.#thread.listing.names;
    const merged: (number | Known)[] = [];
    let at = 0;
    for (const known of this.#unlisted) {
      const { from, record } = known;
      while (at < this.#names.length && compareName(bytes, this.#names[at]!, from.names, from.records, record) < 0)
        merged.push(at++);
      merged.push(known);
    }
    while (at < this.#names.length) merged.push(at++);
    return merged;
  }

  /** The previous table's record of a name, or -1; asked for in the order of names. */
  #oldRecords(): (name: number) => number {
    const { table, old, listing } = this.#thread;
    const oldDirectory = table.directories[this.#directory * DIRECTORY_WORDS + D.OLD]! - 1;
    if (old === null || oldDirectory < 0) return () => -1;
    let cursor = old.directories[oldDirectory * DIRECTORY_WORDS + D.FIRST]!;
    const end = cursor + old.directories[oldDirectory * DIRECTORY_WORDS + D.COUNT]!;
    return (name) => {
      for (; cursor < end; cursor++) {
        const order = compareName(listing.names.bytes, name, old.names, old.records, cursor);
        if (order <= 0) return order === 0 ? cursor : -1;
      }
      return -1;
    };
  }

  #keep(known: Known, record: number): void {
    const { table } = this.#thread;
    table.copyRecord(known.from, known.record, record);
    table.touched[record] = 1;
    const base = record * RECORD_WORDS;
    if (table.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) table.records[base + R.SUB] = this.#child(known);
  }

  /** Takes out what is there under another name, and was read once more under that. */
  #drop(record: number): void {
    this.#leaveOut({ from: this.#thread.table, record });
    this.#thread.table.noRecord(record);
  }

  /** Takes out what was read below a directory. */
  #leaveOut(known: Known): void {
    if (known.from.records[known.record * RECORD_WORDS + R.MODE]! >>> 12 === TYPE.DIRECTORY)
      this.#thread.table.addDirectoryFlag(this.#child(known), DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.GONE);
  }

  /** The number of a directory by its record. */
  #child({ from, record }: Known): number {
    const { table } = this.#thread;
    const sub = from.records[record * RECORD_WORDS + R.SUB]!;
    return from === table ? sub : this.#children.get(sub)!;
  }

  get #children(): ReadonlyMap<number, number> {
    this.#childOfOld ??= this.#thread.table.numbersByOld(this.#directory);
    return this.#childOfOld;
  }
  #childOfOld: ReadonlyMap<number, number> | undefined;
}

function inodeOfRecord({ records }: ScanTable, record: number): bigint {
  const base = record * RECORD_WORDS + R.INO;
  return (BigInt(records[base + 1]!) << 32n) | BigInt(records[base]!);
}
