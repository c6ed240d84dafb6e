import fs from "node:fs";
import { HEADER_BYTES, LOGS, parseHeader, SIDECARS } from "../../formats/sqlite-header.ts";
import { compareBytes, joinPath } from "../../formats/bytes.ts";
import { signedWide, STAT, TICK_MS, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../../native.ts";
import type { ScanThread } from "./scan-thread.ts";
import { D, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import type { CapturedLabel, DatabaseLabel, NotedDatabase } from "./task.ts";

/** An ending of a file that belongs to a SQLite database. */
export type Sidecar = (typeof SIDECARS)[number];

/** A port of the scan: makes SQLite databases in use readable. */
export interface DatabaseCapture {
  /** Makes a database in use readable, one at a time; null if it is no database any more. */
  hold(path: Uint8Array, call: HoldCall): Promise<HeldDatabase | null>;
  /**
   * Lets SQLite check the structure of a database that was read as a plain file; `isLarge`: only its locks. Null if it
   * must be captured, because a program writes to it or its locks do not tell; of a held tree the locks are not asked.
   */
  check(
    path: Uint8Array,
    call: Pick<HoldCall, "signal"> & { isLarge: boolean; isHeld: boolean },
  ): Promise<{ problem: string | null } | null>;
  /**
   * Blocks writes to databases for at most `budgetMs` in all. `held`: numbers of the databases that stay unchanged
   * until `release`, which returns false if the time had passed.
   */
  still(
    databases: readonly Uint8Array[],
    call: { budgetMs: number; signal?: AbortSignal | undefined },
  ): Promise<{ held: readonly number[]; release: () => Promise<boolean> }>;
  /** Called after the last database. */
  close(): Promise<void>;
}

/** A held tree that does not change, and the paths under which programs know its source folder. */
export interface HeldAs {
  tree: Uint8Array;
  folders: readonly Uint8Array[];
  /** the save that made the tree in one moment; absent: not known, or the tree was made entry by entry */
  save?: {
    /** ms since 1970 */
    began: number;
    /** raw paths of databases that the save compared or labelled */
    compared: readonly Uint8Array[];
  };
}

interface HoldCall {
  signal?: AbortSignal | undefined;
  /** "own": the database's own file is enough; "image": the file changed during an earlier try; else the held tree it is in */
  how: "own" | "image" | HeldAs;
  /** a folder for an image until it is released */
  scratch: string;
}

/** A database that is ready to be read. */
export interface HeldDatabase {
  /** an image to read instead of the database; null: its own file, unchanged until the release */
  image: string | null;
  /** endings of the files that belong to it and must be read too; without them log and journal count as empty */
  sidecars: readonly Sidecar[];
  label: DatabaseLabel;
  /** why it is only a copy of files; else null */
  reason: string | null;
  /** Releases the database and removes the image; false if the database changed meanwhile. */
  release(): Promise<boolean>;
}

/** Longest path that a system call accepts, with its NUL. */
export const PATH_MAX = 4096;
/** Larger databases at rest are not checked, because a save waits. */
const MOST_CHECKED_BYTES = 64 << 20;

/**
 * Lets SQLite check a database that was read and had no log or journal. Returns its label, and clears its record's
 * UNCHECKED flag if it is whole. Null if the database changed since it was read.
 */
export async function checkResting(
  record: number,
  { path, root, table, capture, held, signal }: RestingCall,
): Promise<CapturedLabel | null> {
  const place = joinPath(root, path);
  const base = record * RECORD_WORDS;
  const unless = (reason: string): CapturedLabel => ({
    path,
    label: "crash-consistent",
    reason,
    recovered: false,
    apart: false,
  });
  const isLarge = held === null && wide(table.records, base + R.SIZE) > MOST_CHECKED_BYTES;
  if (place.length >= PATH_MAX)
    return unless("its log or journal was empty; SQLite did not check it, because its path is too long");
  if (held?.save !== undefined && isChangedIn(held.save, { path, place, changedAt: changedAt(table, base) }))
    return { path, label: "torn-possible", reason: CHANGED_IN_SAVE, recovered: false, apart: false };
  const checked = await capture.check(place, { signal, isLarge, isHeld: held !== null });
  if (checked === null) return null;
  const now = held === null ? fs.statSync(place, { bigint: true, throwIfNoEntry: false })?.ctimeNs : null;
  if (now !== null && now !== changedAt(table, base)) return null;
  if (isLarge) return unless("its log or journal was empty; SQLite did not check it, because it has more than 64 MiB");
  if (checked.problem !== null) return unless(checked.problem);
  table.setRecordFlags(record, table.recordFlags(record) & ~FLAG.UNCHECKED);
  return { path, label: "transaction-consistent", reason: null, recovered: false, apart: false };
}

const CHANGED_IN_SAVE =
  "it was written to during the save, which did not know it yet: without a journal on the disk (journal_mode MEMORY or OFF), the point may have half of a transaction";

/** True if a database in rollback mode, without a journal, was changed during a save that did not look at its locks. */
function isChangedIn(
  { began, compared }: NonNullable<HeldAs["save"]>,
  { path, place, changedAt: at }: { path: Buffer; place: Buffer; changedAt: bigint },
): boolean {
  if (Number(at) / 1e6 < began - TICK_MS || compared.some((each) => path.equals(each))) return false;
  const fd = fs.openSync(place, OPEN_FLAGS);
  try {
    const bytes = Buffer.alloc(HEADER_BYTES);
    fs.readSync(fd, bytes, 0, HEADER_BYTES, 0);
    return parseHeader(bytes)?.journal_mode !== "wal";
  } finally {
    fs.closeSync(fd);
  }
}

/** The change time of a record, in ns since 1970. */
function changedAt({ records }: ScanTable, base: number): bigint {
  return BigInt(signedWide(records, base + R.CTIME)) * 1_000_000_000n + BigInt(records[base + R.CTIME_NS]!);
}

interface RestingCall {
  path: Buffer;
  root: Uint8Array;
  table: ScanTable;
  capture: DatabaseCapture;
  held: Omit<HeldAs, "tree"> | null;
  signal?: AbortSignal | undefined;
}

/** Tells if a database that was to be read has a record with its content. */
export function isRead(table: ScanTable, { directory, name }: NotedDatabase): boolean {
  const record = recordOf(table, directory, name);
  return record >= 0 && (table.recordFlags(record) & FLAG.OMITTED) === 0;
}

/** The record of a name in a directory; -1 if there is none. */
export function recordOf(table: ScanTable, directory: number, name: Uint8Array): number {
  const base = directory * DIRECTORY_WORDS;
  const first = table.directories[base + D.FIRST]!;
  for (let record = first; record < first + table.directories[base + D.COUNT]!; record++)
    if (table.records[record * RECORD_WORDS + R.MODE] !== 0 && compareBytes(table.recordName(record), name) === 0)
      return record;
  return -1;
}

const MOST_ENDING = 8;
const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** The ending of a sidecar's name, raw and whole; null for other names. */
export function sidecarOf(name: Uint8Array): Sidecar | null {
  const end = Buffer.from(name.subarray(-MOST_ENDING)).toString("latin1");
  return SIDECARS.find((ending) => name.length > ending.length && end.endsWith(ending)) ?? null;
}

/** Recognizes SQLite databases and their log files among entries of held directories. */
export class DatabaseLook {
  readonly #thread: ScanThread;
  readonly #names: Arena = newArena(512);
  readonly #head: Arena = newArena(HEADER_BYTES);

  constructor(thread: ScanThread) {
    this.#thread = thread;
  }

  /** True for an open file that begins like a database; `known`: its first bytes, if already read. */
  isOne(fd: number, known?: Uint8Array): boolean {
    let head = known;
    if (head === undefined) {
      if (this.#thread.sys.read(fd, this.#head, 0, HEADER_BYTES, 0) < HEADER_BYTES) return false;
      head = this.#head.bytes.subarray(0, HEADER_BYTES);
    }
    return head[0] === 0x53 && parseHeader(Buffer.from(head.buffer, head.byteOffset, head.length)) !== null;
  }

  /** True if an entry of a held directory begins like a database. */
  isOneThere(dirfd: number, name: Uint8Array): boolean {
    const { sys } = this.#thread;
    const fd = sys.open(dirfd, this.#names, this.#put(name, ""), OPEN_FLAGS, 0);
    if (fd < 0) return false;
    try {
      return this.isOne(fd);
    } finally {
      sys.close(fd);
    }
  }

  /** True if the log or journal of an entry is not empty. Uses the thread's second stat buffer. */
  isLive(dirfd: number, name: Uint8Array): boolean {
    const { sys, stat2 } = this.#thread;
    return LOGS.some(
      (ending) =>
        sys.stat(dirfd, this.#names, this.#put(name, ending), stat2) === 0 &&
        stat2.words[STAT.MODE]! >>> 12 === TYPE.FILE &&
        wide(stat2.words, STAT.SIZE) > 0,
    );
  }

  #put(name: Uint8Array, ending: string): number {
    const { bytes } = this.#names;
    bytes.set(name);
    bytes.set(Buffer.from(`${ending}\0`, "latin1"), name.length);
    return 0;
  }
}
