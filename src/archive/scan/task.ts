import { CairnError } from "../../errors.ts";
import type { newChunkMemory } from "../../repository/packs/chunker.ts";
import type { Arena } from "../../native.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import type { TableBuffers } from "../cache/scan-table.ts";
import type { Unchanged, Unmarked } from "../cache/unchanged.ts";
import type { ClonedFrom } from "../cache/origins.ts";

export type { Unchanged };

/** Files up to this size are one blob, larger ones are cut by content. */
export const SINGLE_BLOB_LIMIT = 512 * 1024;

/** Names that a scan never sees in a workspace's root: what a restore stages there. */
export const STAGING_PREFIX = ".cairn-restore-";
/** Exactly those names; anything else that begins alike is the user's. */
export const STAGING_NAME = /^\.cairn-restore-[0-9a-f]{16}$/;

/** In place of a job's count: a directory in which a name was gone that had been listed. */
export const LIST_AGAIN = -1;
export const MOVED_REASON = "its entries were renamed while it was read";

/** A task that every thread of a scan gets: plain data and shared memory. */
export interface ScanTask {
  root: Uint8Array;
  table: TableBuffers;
  /** the previous table, or null */
  old: TableBuffers | null;
  /** files that were written from known content, by `keepWrittenFiles`: not read where they are unchanged since; or null */
  written: TableBuffers | null;
  excludes: readonly string[];
  /** others use the previous table too, so that nothing is noted in it before it is certain */
  oldStays: boolean;
  /** what of the previous table needs no look; or null */
  unchanged: Unmarked | null;
  /** rules recorded in a point, used instead of the excludes and of the files that lie there now */
  rules: IgnoreRecord | null;
  /** an ignore file that is too long to be read counts as none, and is noted; false: it ends the scan */
  passesLongRules: boolean;
  /** entries that are never part of a state, by path in latin1: control directories inside the folder */
  skip: readonly string[];
  /** read every file whatever the cache says */
  reread: boolean;
  /**
   * what was written is read again, large files only hashed: past what the system holds of it in memory, all being flushed,
   * or out of that too; null: it is no such look
   */
  readAgain: "disk" | "memory" | null;
  /** nothing has changed since this moment (milliseconds since 1970): no file is young for what was written later */
  heldAt: number | null;
  /** the folder is a clone, and its entries are looked at as those that they were cloned from */
  clonedFrom: ClonedFrom | null;
  /** a directory in which clones of files may be made for a moment; null: a file that changes is read as it is */
  captureIn: string | null;
  /** look up each cached blob and tree id before using it */
  distrust: boolean;
  /** a directory whose times are as they were is not listed again */
  trustDirectoryTimes: boolean;
  /** an entry whose times are as they were has the extended attributes that it had */
  trustAttributeTimes: boolean;
  /** a file whose times are as they were has the content that it had, but for a while after a change */
  trustContentTimes: boolean;
  /** devices, as `deviceWord` has them, of which that does not hold all the same: mounted inside, and gone into */
  devicesInMemory: readonly number[];
  /** do not read large changed files: enough to say that something changed */
  quick: boolean;
  /** nor those that are young, where all that is known of them is as it was */
  byTimes: boolean;
  /** end with {@link FoundDifference} at the first entry whose times, size or mode say that it is not the old one */
  untilDifferent: boolean;
  /**
   * no file is read: its inode's number and time of change stand for its content, which is the same as in the other of two such
   * scans where they are; null: contents count
   */
  unread: UnreadScan | null;
  /** one ring of shared memory per thread, for cutting large files */
  rings: ReturnType<typeof newChunkMemory>[];
  chunkJobs: SharedArrayBuffer[];
  chunkerPolynomial: string;
  /** somebody captures databases that are in use, which are noted; false: they are files like any */
  capturesDatabases: boolean;
  /** content beyond this is not meant for this thread: what is left then waits for others */
  readLimit: number;
  /** directories on other file systems: descend (true) or list and leave out */
  crossMounts: boolean;
}

/** One of two scans that are compared without reading a file. */
export interface UnreadScan {
  /** the earlier of the two trees was held at this moment (milliseconds since 1970): what had just changed then may have changed again */
  readonly heldAt: number;
  readonly isLater: boolean;
}

/** Ends a scan with `untilDifferent`: the folder is not what the previous scan found. */
export class FoundDifference extends CairnError {
  constructor() {
    super("conflict", "the folder has changed since the last scan");
  }
}

/** A place for content; absent when a scan only looks. Ids are 32 bytes at an offset. */
export interface ContentSink {
  /** True when the id is stored already (or is being stored by another thread). */
  known(id: Uint8Array, offset: number): boolean;
  /** `data` and `tree` take a blob unless it is known. `stays`: it is not forwarded. */
  data(id: Uint8Array, offset: number, plain: Arena, start: number, length: number, stays?: boolean): void;
  tree(id: Uint8Array, offset: number, plain: Arena, start: number, length: number, stays?: boolean): void;
}

/** An entry that was not read whole and at rest; `aspects`: what is missing, where it was at rest. */
export interface TornEntry {
  path: Uint8Array;
  reason: string;
  aspects?: readonly "xattrs"[];
}

/** Trust that a copy of a database deserves. */
export type DatabaseLabel = "transaction-consistent" | "crash-consistent" | "torn-possible";

/** Notes of one thread; added up by the caller. */
/** A database by its directory's number. */
export interface NotedDatabase {
  directory: number;
  name: Uint8Array;
}

/** A database that was captured, and what can be relied on. */
export interface CapturedLabel {
  path: Uint8Array;
  label: DatabaseLabel;
  reason: string | null;
  /** the point has it as SQLite recovered it, and the held tree as it lay there */
  recovered: boolean;
  /** it was captured at a moment of its own, or SQLite commits to it at one */
  apart: boolean;
}

export interface ScanNotes {
  files: number;
  /** directories whose names were read */
  listed: number;
  bytesRead: number;
  filesRead: number;
  /** files that were to be read from the disk, and may have been read out of memory */
  keptInMemory: number;
  ignored: string[];
  ignoredCount: number;
  /** all of them: a restore takes nothing away that the target may have had and does not hold */
  omitted: { path: Uint8Array; reason: string }[];
  torn: TornEntry[];
  /** numbers of directories that are to be listed again */
  moved: number[];
  /** databases that are in use, by their directory's number, to be captured */
  databases: NotedDatabase[];
  /** databases that are not, to be checked */
  resting: (NotedDatabase & { record: number })[];
  /** databases that were captured, or could not be: with the reason why not */
  captured: CapturedLabel[];
  /** all of them: a restore keeps out of them */
  mounts: Uint8Array[];
  ignoreFiles: { path: Uint8Array; text: Uint8Array }[];
  /** directories whose ignore file is too long to be read */
  longRules: Uint8Array[];
  /** directories whose ignore file is none that rules can be read from, or looks like another encoding */
  oddRules: { path: Uint8Array; why: string }[];
}

export function newScanNotes(): ScanNotes {
  return {
    files: 0,
    listed: 0,
    bytesRead: 0,
    filesRead: 0,
    keptInMemory: 0,
    ignored: [],
    ignoredCount: 0,
    omitted: [],
    torn: [],
    moved: [],
    databases: [],
    resting: [],
    captured: [],
    mounts: [],
    ignoreFiles: [],
    longRules: [],
    oddRules: [],
  };
}

/** So many entries that were not read whole a thread names; the others' records say it too. */
export const TORN_LIMIT = 1000;
