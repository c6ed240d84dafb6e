import { append } from "../../append.ts";
import { CairnError } from "../../errors.ts";
import { comparePaths } from "../../formats/bytes.ts";
import type { newChunkMemory } from "../../repository/packs/chunker.ts";
import type { IgnoreRecord } from "../../fs/ignore.ts";
import type { TableBuffers } from "../cache/scan-table.ts";
import type { Unchanged, Unmarked } from "../cache/unchanged.ts";
import type { ClonedFrom } from "../cache/origins.ts";

export type { Unchanged };

/** Files up to this size are one blob; larger ones are cut by content. */
export const SINGLE_BLOB_LIMIT = 512 * 1024;

/** Prefix of a restore's staging names, which a scan skips in a workspace's root. */
export const STAGING_PREFIX = ".cairn-restore-";
/** The directory in a point's root with the files of `before` commands. No rule leaves any of it out. */
export const DUMPS = ".cairn-dumps";
/** The exact staging names; any other name with the prefix is the user's. */
export const STAGING_NAME = /^\.cairn-restore-[0-9a-f]{16}$/;

/** In place of a job's count: a directory whose listed names had vanished. */
export const LIST_AGAIN = -1;
/** In place of a job's count: a directory that is listed again if it has changed since it was listed. */
export const LIST_IF_CHANGED = -2;
export const MOVED_REASON = "its entries were renamed while it was read";

/**
 * A request to scan a folder or a tree: plain data. The caller makes it once, and each thread gets a copy. An absent
 * field is false, empty or none.
 */
export interface ScanRequest {
  /** the folder's absolute path, raw bytes */
  root: Uint8Array;
  /** rules recorded in a point, used instead of the excludes and the present ignore files; null: the present ones */
  rules: IgnoreRecord | null;
  excludes?: readonly string[] | undefined;
  /** entries that are left out by their content, size or neighbours, besides the rules. Only with `rules` null */
  unwanted?: UnwantedKinds | undefined;
  /** an ignore file that is too long counts as absent, and is noted; false: it ends the scan */
  passesLongRules?: boolean | undefined;
  /** entries that are never part of a state, by path in latin1: control directories inside the folder */
  skip?: readonly string[] | undefined;
  /** directories on other file systems: scan (true), or list and leave out */
  crossMounts?: boolean | undefined;
  /** reads every file, also files that the cache shows as unchanged */
  reread?: boolean | undefined;
  /**
   * reads files back after a write; large files are only hashed. "disk": all was flushed, bypasses the page cache;
   * "memory": also from the page cache
   */
  readAgain?: "disk" | "memory" | undefined;
  /** the folder has not changed since this moment (ms since 1970), at which files are judged young; absent: now */
  heldAt?: number | undefined;
  /** The folder is a clone, made after `heldAt`. Its entries are reported as their sources were at that moment. */
  clonedFrom?: ClonedFrom | undefined;
  /** A look reads no large file with unchanged times, size and inode, even a young one. May miss writes by mmap. */
  byTimes?: boolean | undefined;
  /** A look ends with {@link FoundDifference} at the first entry whose times, size or mode differ from head's. */
  untilDifferent?: boolean | undefined;
  /** No file is read: inode and change time stand for the content, so an unchanged file is equal in two such scans. */
  unread?: UnreadScan | undefined;
}

/** A task that every thread of a scan gets: the request, and facts that the scan adds. Plain data and shared memory. */
export interface ScanTask {
  request: ScanRequest;
  /** when the scan began (ms since 1970) */
  began: number;
  table: TableBuffers;
  /** the previous table, or null */
  old: TableBuffers | null;
  /** files of known content, by `keepWrittenFiles`, not read if unchanged since; or null */
  written: TableBuffers | null;
  /** other operations use the previous table too, so nothing is noted in it before it is final */
  oldStays: boolean;
  /** the parts of the previous table that need no scan; or null */
  unchanged: Unmarked | null;
  /** the previous table is of head, and finding a change is enough: large changed files are not read */
  quick: boolean;
  /** a directory for temporary clones of files; null: a file that changes is read as it is */
  captureIn: string | null;
  /** look up each cached blob and tree id before using it */
  distrust: boolean;
  /** a directory with unchanged times is not listed again */
  trustDirectoryTimes: boolean;
  /** an entry with unchanged times has unchanged extended attributes */
  trustAttributeTimes: boolean;
  /** a file with unchanged times has unchanged content, except shortly after a change */
  trustContentTimes: boolean;
  /** devices (as `deviceWord` has them) mounted inside the folder for which `trustContentTimes` does not hold */
  devicesInMemory: readonly number[];
  /** one ring of shared memory per thread, for cutting large files */
  rings: ReturnType<typeof newChunkMemory>[];
  chunkJobs: SharedArrayBuffer[];
  chunkerPolynomial: string;
  /** mount points inside the folder, by path in latin1. True: a directory that is left out without a look at it */
  mounts: ReadonlyMap<string, boolean>;
  /** databases in use are captured, so they are noted; false: they are files like any other */
  capturesDatabases: boolean;
  /** this thread reads at most this many bytes; the rest waits for other threads */
  readLimit: number;
}

/** The kinds of folders and files that a save leaves out, in addition to patterns. */
export interface UnwantedKinds {
  /** marks of folders whose content is left out, except for the mark itself */
  tags: readonly UnwantedTag[];
  /** regular files with more bytes are left out */
  largest: number;
  /** true: files whose content is a credential are left out */
  secrets: boolean;
}

/** An entry that marks its folder as unwanted. */
export interface UnwantedTag {
  /** name of the entry, latin1 */
  name: string;
  /** the first bytes of the file; empty: any entry of the name counts */
  header: Uint8Array;
}

/** An unwanted entry that a scan found. */
export interface UnwantedEntry {
  path: Uint8Array;
  /** excludes that match exactly the entry; null: its name is not UTF-8, and a pattern would match other names too */
  patterns: readonly string[] | null;
  /** the part that was left out, and why; null for a secret, which is reported with those that patterns leave out */
  detail: string | null;
}

/** One of two scans that are compared without reading files. */
export interface UnreadScan {
  /** when the earlier of the two trees was held (ms since 1970): an entry that had just changed may have changed again */
  readonly heldAt: number;
  readonly isLater: boolean;
}

/** Ends a scan with `untilDifferent`: the folder differs from the previous scan. */
export class FoundDifference extends CairnError {
  constructor() {
    super("conflict", "the folder has changed since the last scan");
  }
}

/** An entry that was not read whole and at rest. `aspects`: missing parts, if the entry was at rest. */
export interface TornEntry {
  path: Uint8Array;
  reason: string;
  aspects?: readonly "xattrs"[];
}

/** Degrees of trust that a copy of a database deserves. */
export type DatabaseLabel = "transaction-consistent" | "crash-consistent" | "torn-possible";

/** A database by its directory's number. */
export interface NotedDatabase {
  directory: number;
  name: Uint8Array;
}

/** A captured database and its consistency. */
export interface CapturedLabel {
  path: Uint8Array;
  label: DatabaseLabel;
  reason: string | null;
  /** the point has the database as SQLite recovered it; the held tree has the original files */
  recovered: boolean;
  /** captured at a moment of its own, or at one at which SQLite commits to it */
  apart: boolean;
}

/** Notes of one thread; added up by the caller. */
export interface ScanNotes {
  files: number;
  /** directories whose names were read */
  listed: number;
  /** directories that had changed during the scan when they were listed: an entry may have left them before */
  changed: number;
  bytesRead: number;
  filesRead: number;
  /** files that should be read from the disk but may have been read from memory */
  keptInMemory: number;
  ignored: string[];
  ignoredCount: number;
  unwanted: UnwantedEntry[];
  /** complete: a restore must not remove entries that the point lacks for this reason */
  omitted: { path: Uint8Array; reason: string }[];
  torn: TornEntry[];
  /** numbers of directories to be listed again */
  moved: number[];
  /** databases in use, to be captured */
  databases: NotedDatabase[];
  /** databases that no process used; after the scan SQLite checks each of them */
  resting: NotedDatabase[];
  /** databases that were captured, or that could not be, with the reason */
  captured: CapturedLabel[];
  /** complete: a restore does not enter mounts */
  mounts: Uint8Array[];
  ignoreFiles: { path: Uint8Array; text: Uint8Array }[];
  /** directories whose ignore file is too long to be read */
  longRules: Uint8Array[];
  /** directories whose ignore file is not readable as text, or looks like another encoding */
  oddRules: { path: Uint8Array; why: string }[];
}

export function newScanNotes(): ScanNotes {
  return {
    files: 0,
    listed: 0,
    changed: 0,
    bytesRead: 0,
    filesRead: 0,
    keptInMemory: 0,
    ignored: [],
    ignoredCount: 0,
    unwanted: [],
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

/** Adds up counts and joins lists. Sorts by path the lists of which only the first entries are shown. */
export function mergeNotes(parts: readonly ScanNotes[]): ScanNotes {
  const all = newScanNotes();
  const sums = all as unknown as Record<string, number | unknown[]>;
  for (const part of parts)
    for (const [key, value] of Object.entries(part) as [string, number | unknown[]][])
      if (typeof value === "number") sums[key] = (sums[key] as number) + value;
      else append(sums[key] as unknown[], value);
  for (const list of [all.omitted, all.unwanted, all.oddRules]) list.sort((a, b) => comparePaths(a.path, b.path));
  for (const list of [all.longRules, all.mounts]) list.sort(comparePaths);
  return all;
}

/** Each thread names at most this many entries that were not read whole; the flags of the other records tell the rest. */
export const TORN_LIMIT = 1000;
