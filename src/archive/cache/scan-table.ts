import { CairnError } from "../../errors.ts";
import { TYPE } from "../../fs/linux/syscall-abi.ts";

/**
 * The flat table of a tree's entries, in shared memory: several threads of a scan fill it, the stat cache file holds it
 * (docs/formats/stat-cache.md), and trees are built from it. A record is 32 words of 32 bits, a directory 40. 64-bit
 * values take two words, low first.
 */
export const RECORD_WORDS = 32;
export const DIRECTORY_WORDS = 40;

/** Word offsets in a record. */
export const R = {
  NAME: 0,
  /** name length (16 bits) | flags << 16 */
  NAME_FLAGS: 1,
  /** st_mode with the type; 0 for an entry that vanished during the scan */
  MODE: 2,
  UID: 3,
  GID: 4,
  NLINK: 5,
  SIZE: 6,
  MTIME: 8,
  MTIME_NS: 10,
  CTIME: 11,
  CTIME_NS: 13,
  INO: 14,
  /** directories: number of the directory; others with EXTRAS: offset of their extras */
  SUB: 16,
  EXTRAS: 17,
  RDEV_MAJOR: 18,
  RDEV_MINOR: 19,
  /** entries with several names: device number, as this scan found it; inodes are unique on one device only */
  DEVICE: 20,
  /** when its inode was made: seconds (low word), nanoseconds; 0 if the file system does not tell */
  BIRTH: 21,
  BIRTH_NS: 22,
  /** SHA-256 of the content of a file */
  HASH: 24,
} as const;

export const FLAG = {
  /** a variable part lies in the extras arena at word EXTRAS */
  EXTRAS: 1,
  /** read (a directory: listed) so soon after its last change that a later change may not show: read again next time */
  YOUNG: 2,
  /** could not be read: not part of the state */
  OMITTED: 4,
  /** not recorded whole: changed while it was read, twice, or UNREAD */
  TORN: 8,
  /** content is a list of chunks in the extras, not one blob named by HASH */
  CHUNKED: 16,
  /** some extended attributes could not be read; with TORN */
  UNREAD: 32,
  /** begins like a SQLite database */
  DATABASE: 64,
  /** a database, its log or its journal, read while the log or journal was not empty: read again next time */
  LIVE: 128,
  /** its name suggests a file with credentials */
  SECRET: 256,
  /** a database without a log or journal that SQLite has not checked successfully */
  UNCHECKED: 512,
} as const;

/** Word offsets in a directory. */
export const D = {
  PARENT: 0,
  PATH: 1,
  PATH_LENGTH: 2,
  /** number of the directory in the previous table, plus one */
  OLD: 3,
  FIRST: 4,
  COUNT: 5,
  FLAGS: 6,
  /** parts of a large listing not yet done */
  PARTS: 7,
  TREE: 8,
  STATE: 16,
  META: 24,
  DONE: 32,
  IGNORED: 33,
  /** during a scan: place of its ignore file's text in the extras, plus one; 0 if none was read */
  RULES: 34,
  /** during a scan: its change time (three words, as in a record) after it was listed; 0 if a later change may not show */
  CTIME: 35,
} as const;

export const DIRECTORY_FLAG = {
  /** every entry equals the previous table's; FIRST and COUNT refer to that table */
  SAME: 1,
  OMITTED: 2,
  /** an ignore file lies in it */
  IGNORE_FILE: 4,
  /** tree and digests were taken from the previous table */
  REUSED: 8,
  /** some entry is a member of a hard-link group */
  LINKED: 16,
  DIFFERS: 32,
  /** its times prove that its names are still those of the previous table */
  LISTED: 64,
  /** each record has the name of the record at the same position in the previous table */
  ALIGNED: 128,
  /** a listed name had vanished when it was read: list again */
  MOVED: 256,
  /** it was removed before it was read; with OMITTED */
  GONE: 512,
} as const;

/** Tags in an entry's extras: u32 total length, then tag u8, u32 length, bytes. */
export const EXTRA = { LINK_TARGET: 1, XATTR: 2, CHUNKS: 3, HOLES: 4 } as const;

/** Word offsets in the control block. */
export const C = {
  RECORDS: 0,
  DIRECTORIES: 1,
  NAMES: 2,
  EXTRAS: 3,
  JOBS: 4,
  NEXT_JOB: 5,
  PENDING: 6,
  SIGNAL: 7,
  STOP: 8,
  NEXT_TREE: 9,
  /** threads that wait for a job */
  IDLE: 10,
  FILES_DONE: 11,
  /** content that was read, in KiB, for progress */
  KIB_DONE: 12,
  YOUNG: 13,
  /** 1: a scan with `untilDifferent` has met an entry that differs */
  DIFFERS: 14,
  WORDS: 64,
} as const;

export interface TableCapacity {
  records: number;
  directories: number;
  names: number;
  extras: number;
}

/** The buffers of a table; plain data, so that it can be posted to a worker. */
export interface TableBuffers {
  capacity: TableCapacity;
  control: SharedArrayBuffer;
  records: SharedArrayBuffer;
  directories: SharedArrayBuffer;
  names: SharedArrayBuffer;
  extras: SharedArrayBuffer;
  jobs: SharedArrayBuffer;
  touched: SharedArrayBuffer;
}

export function allocateTable(entries: number): TableBuffers {
  const capacity = {
    records: entries,
    directories: entries,
    names: Math.min(entries * 96, 2 ** 32 - 65536),
    extras: Math.min(entries * 256, 2 ** 32 - 65536),
  };
  return {
    capacity,
    control: new SharedArrayBuffer(C.WORDS * 4),
    records: new SharedArrayBuffer(entries * RECORD_WORDS * 4),
    directories: new SharedArrayBuffer(entries * DIRECTORY_WORDS * 4),
    names: new SharedArrayBuffer(capacity.names),
    extras: new SharedArrayBuffer(capacity.extras),
    jobs: new SharedArrayBuffer(entries * 16),
    touched: new SharedArrayBuffer(entries),
  };
}

const FULL = { scan_table: "full" };

/** Thrown inside a scan, by a thread too, when the table is too small; the caller scans again with a larger one. */
function tableFull(): CairnError {
  return new CairnError("internal", "the scan table is full", { details: FULL });
}

export function isTableFull(error: unknown): boolean {
  return error instanceof CairnError && error.details?.["scan_table"] === FULL.scan_table;
}

/** Views over a table's buffers, for one thread. */
export class ScanTable {
  readonly buffers: TableBuffers;
  readonly control: Int32Array;
  readonly records: Uint32Array;
  readonly recordBytes: Uint8Array;
  readonly directories: Uint32Array;
  readonly directoryBytes: Uint8Array;
  readonly directoryState: Int32Array;
  readonly names: Buffer;
  readonly extras: Buffer;
  readonly jobs: Int32Array;
  /** A byte for each record: 0 if it is a plain entry, unchanged in the previous table; else 1. */
  readonly touched: Uint8Array;

  constructor(buffers: TableBuffers) {
    this.buffers = buffers;
    this.control = new Int32Array(buffers.control);
    this.records = new Uint32Array(buffers.records);
    this.recordBytes = Buffer.from(buffers.records as unknown as ArrayBuffer);
    this.directories = new Uint32Array(buffers.directories);
    this.directoryBytes = Buffer.from(buffers.directories as unknown as ArrayBuffer);
    this.directoryState = new Int32Array(buffers.directories);
    this.names = Buffer.from(buffers.names as unknown as ArrayBuffer);
    this.extras = Buffer.from(buffers.extras as unknown as ArrayBuffer);
    this.jobs = new Int32Array(buffers.jobs);
    this.touched = new Uint8Array(buffers.touched);
  }

  #take(word: number, count: number, capacity: number): number {
    const start = Atomics.add(this.control, word, count) >>> 0;
    if (start + count > capacity) throw tableFull();
    return start;
  }

  /** Reserves consecutive records and returns the number of the first. */
  takeRecords(count: number): number {
    return this.#take(C.RECORDS, count, this.buffers.capacity.records);
  }

  takeDirectory(): number {
    return this.#take(C.DIRECTORIES, 1, this.buffers.capacity.directories);
  }

  takeNames(length: number): number {
    return this.#take(C.NAMES, length, this.buffers.capacity.names);
  }

  takeExtras(length: number): number {
    return this.#take(C.EXTRAS, length, this.buffers.capacity.extras);
  }

  /** Sets a flag of a directory; safe with concurrent threads. */
  addDirectoryFlag(directory: number, flag: number): void {
    Atomics.or(this.directoryState, directory * DIRECTORY_WORDS + D.FLAGS, flag);
  }

  /** Clears flags of a directory; safe with concurrent threads. */
  clearDirectoryFlags(directory: number, flags: number): void {
    Atomics.and(this.directoryState, directory * DIRECTORY_WORDS + D.FLAGS, ~flags);
  }

  /** Queues a job. The caller wakes threads that wait for one. */
  addJob(directory: number, start: number, count: number): void {
    const { control, jobs } = this;
    Atomics.add(control, C.PENDING, 1);
    const at = Atomics.add(control, C.JOBS, 1) * 4;
    if (at + 4 > jobs.length) throw tableFull();
    jobs[at] = directory;
    jobs[at + 1] = start;
    jobs[at + 2] = count;
    Atomics.store(jobs, at + 3, 1);
  }

  recordName(record: number): Buffer {
    const base = record * RECORD_WORDS;
    const start = this.records[base]!;
    return this.names.subarray(start, start + (this.records[base + R.NAME_FLAGS]! & 0xffff));
  }

  /** The record of a name in a directory with sorted names; -1 if there is none. `from`: the table with the records. */
  recordOf(directory: number, name: Uint8Array, from: ScanTable = this): number {
    const base = directory * DIRECTORY_WORDS;
    let low = this.directories[base + D.FIRST]!;
    let high = low + this.directories[base + D.COUNT]! - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const order = Buffer.compare(name, from.recordName(middle));
      if (order === 0) return middle;
      if (order < 0) high = middle - 1;
      else low = middle + 1;
    }
    return -1;
  }

  recordFlags(record: number): number {
    return this.records[record * RECORD_WORDS + R.NAME_FLAGS]! >>> 16;
  }

  setRecordFlags(record: number, flags: number): void {
    const at = record * RECORD_WORDS + R.NAME_FLAGS;
    this.records[at] = (this.records[at]! & 0xffff) | (flags << 16);
  }

  /** Marks a record as empty: its entry vanished or has another record. */
  noRecord(record: number): void {
    this.touched[record] = 1;
    this.records[record * RECORD_WORDS + R.MODE] = 0;
  }

  /** Marks a record as empty, and takes all below its directory out of the state. */
  leaveOut(record: number): void {
    const base = record * RECORD_WORDS;
    if (this.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY)
      this.addDirectoryFlag(this.records[base + R.SUB]!, DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.GONE);
    this.noRecord(record);
  }

  /** Keeps the text of a directory's ignore file, for all threads of a scan. */
  setRules(directory: number, text: Uint8Array): void {
    const start = this.takeExtras(4 + text.length);
    this.extras.writeUInt32LE(text.length, start);
    this.extras.set(text, start + 4);
    this.directories[directory * DIRECTORY_WORDS + D.RULES] = start + 1;
  }

  /** Returns the text of a directory's rules, or null. */
  rulesOf(directory: number): Uint8Array | null {
    const start = this.directories[directory * DIRECTORY_WORDS + D.RULES]! - 1;
    return start < 0 ? null : this.extras.subarray(start + 4, start + 4 + this.extras.readUInt32LE(start));
  }

  /**
   * The numbers of directories by their numbers in the table that the scan started from. `parent`: only directories
   * directly inside.
   */
  numbersByOld(parent?: number): Map<number, number> {
    const { directories, control } = this;
    const numbers = new Map<number, number>();
    // A directory's number is above its parent's.
    for (let d = parent === undefined ? 0 : parent + 1; d < control[C.DIRECTORIES]!; d++) {
      const base = d * DIRECTORY_WORDS;
      const old = directories[base + D.OLD]!;
      if (old !== 0 && (parent === undefined || directories[base + D.PARENT] === parent)) numbers.set(old - 1, d);
    }
    return numbers;
  }

  /** True for a directory that was removed before it was read, and for all directories below it. */
  isBelowGone(directory: number): boolean {
    for (let at = directory; at !== 0; at = this.directories[at * DIRECTORY_WORDS + D.PARENT]!)
      if (this.directories[at * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.GONE) return true;
    return false;
  }

  /** Path of a directory from the root, raw bytes, empty for the root. */
  directoryPath(directory: number): Buffer {
    const base = directory * DIRECTORY_WORDS;
    const start = this.directories[base + D.PATH]!;
    return this.names.subarray(start, start + this.directories[base + D.PATH_LENGTH]!);
  }

  /** The value of a tag in a record's extras, or null. For several values of one tag, see {@link extrasOf}. */
  extra(record: number, tag: number): Buffer | null {
    for (const item of this.extrasOf(record)) if (item.tag === tag) return item.value;
    return null;
  }

  extrasOf(record: number): { tag: number; value: Buffer }[] {
    if ((this.recordFlags(record) & FLAG.EXTRAS) === 0) return [];
    let at = this.records[record * RECORD_WORDS + R.EXTRAS]!;
    const end = at + this.extras.readUInt32LE(at);
    at += 4;
    const items: { tag: number; value: Buffer }[] = [];
    while (at < end) {
      const tag = this.extras[at]!;
      const length = this.extras.readUInt32LE(at + 1);
      items.push({ tag, value: this.extras.subarray(at + 5, at + 5 + length) });
      at += 5 + length;
    }
    return items;
  }

  /** Stores a record's variable part. */
  setExtras(record: number, items: readonly { tag: number; value: Uint8Array }[]): void {
    if (items.length === 0) return;
    let length = 4;
    for (const item of items) length += 5 + item.value.length;
    const start = this.takeExtras(length);
    this.extras.writeUInt32LE(length, start);
    let at = start + 4;
    for (const item of items) {
      this.extras[at] = item.tag;
      this.extras.writeUInt32LE(item.value.length, at + 1);
      this.extras.set(item.value, at + 5);
      at += 5 + item.value.length;
    }
    this.records[record * RECORD_WORDS + R.EXTRAS] = start;
    this.setRecordFlags(record, this.recordFlags(record) | FLAG.EXTRAS);
  }

  /**
   * Copies consecutive records of another table as {@link copyRecord} does; in a few large steps if their names are
   * contiguous, as in a stat cache.
   */
  copyRecords(from: ScanTable, source: number, target: number, count: number): void {
    const old = from.records;
    const firstName = old[source * RECORD_WORDS]!;
    let nextName = firstName;
    let isPlain = true;
    for (let s = source * RECORD_WORDS; isPlain && s < (source + count) * RECORD_WORDS; s += RECORD_WORDS) {
      const nameAndFlags = old[s + R.NAME_FLAGS]!;
      isPlain = old[s] === nextName && ((nameAndFlags >>> 16) & FLAG.EXTRAS) === 0;
      nextName += (nameAndFlags & 0xffff) + 1;
    }
    if (!isPlain) {
      for (let i = 0; i < count; i++) this.copyRecord(from, source + i, target + i);
      return;
    }
    const name = this.takeNames(nextName - firstName);
    this.names.set(from.names.subarray(firstName, nextName), name);
    this.records.set(old.subarray(source * RECORD_WORDS, (source + count) * RECORD_WORDS), target * RECORD_WORDS);
    const shift = name - firstName;
    for (let t = target * RECORD_WORDS; t < (target + count) * RECORD_WORDS; t += RECORD_WORDS)
      this.records[t] = this.records[t]! + shift;
  }

  /** Copies a record of another table into this one, name and extras included. SUB is copied as it is. */
  copyRecord(from: ScanTable, source: number, target: number): void {
    const s = source * RECORD_WORDS;
    const t = target * RECORD_WORDS;
    const words = this.records;
    const old = from.records;
    for (let i = 0; i < RECORD_WORDS; i++) words[t + i] = old[s + i]!;
    const length = old[s + R.NAME_FLAGS]! & 0xffff;
    const name = this.takeNames(length + 1);
    const start = old[s]!;
    from.names.copy(this.names, name, start, start + length);
    this.names[name + length] = 0;
    words[t] = name;
    if ((old[s + R.NAME_FLAGS]! >>> 16) & FLAG.EXTRAS) {
      const at = old[s + R.EXTRAS]!;
      const size = from.extras.readUInt32LE(at);
      const to = this.takeExtras(size);
      from.extras.copy(this.extras, to, at, at + size);
      words[t + R.EXTRAS] = to;
    }
  }
}
