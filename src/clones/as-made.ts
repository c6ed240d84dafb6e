import fs from "node:fs";
import path from "node:path";
import { C, R, RECORD_WORDS } from "../archive/cache/scan-table.ts";
import { isSubvolume, subvolumeInfo } from "../fs/linux/btrfs.ts";
import { filesystemUuid } from "../fs/linux/mounts.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { inDirectory, signedWide } from "../fs/linux/syscalls.ts";
import type { ScanResult } from "../archive/scan/scan.ts";
import { latestChange } from "../archive/write/held-files.ts";

/** Finds out whether a held tree is the original one and has not been changed. */

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

export const EMPTY_PLACE = "is an empty folder now";
export const CHANGED_TREE = "was changed after it was made";
export const WRITABLE_TREE = "is writable now";
/** Two readings of one time in ms may differ by a rounding. */
const ROUNDING_MS = 1;

/** Facts that tell a tree at a path from anything else that may later be there. */
export interface Making {
  /** {@link identityOfTree} of the tree, recorded when it was made; null for a tree of an earlier build */
  readonly identity: string | null;
  /** A tree without a recorded identity was made between these times, in ms since 1970. */
  readonly between: readonly [number, number];
  /** see `HeldTree` */
  readonly last_change?: number | undefined;
}

/** The lasting identity of a tree: a subvolume's UUID and the transaction that made it, another folder's inode and birth time. */
export function identityOfTree(place: string): string {
  if (isSubvolume(place)) {
    const { uuid, otransid } = inDirectory(place, subvolumeInfo);
    return `subvolume:${uuid}:${otransid}`;
  }
  const { ino, birthtimeNs } = fs.lstatSync(place, { bigint: true });
  return `folder:${ino}:${birthtimeNs}`;
}

/** Returns the identity recorded in a link when a tree was made; null if there is none. */
export function recordedIdentity(link: string): string | null {
  return recorded(link)?.[0] ?? null;
}

/** Returns when the tree was made again without some of its entries, in ms since 1970; null if it is the original. */
export function madeAgainAt(link: string): number | null {
  const again = recorded(link)?.[1];
  return again === undefined ? null : Number(again);
}

/** Returns the text of a link for the tree at `place`, which was just made again as a replacement. */
export function identityOfAgain(place: string): string {
  return `${identityOfTree(place)}@${Date.now()}`;
}

function recorded(link: string): string[] | null {
  try {
    return fs.readlinkSync(link).split("@");
  } catch {
    return null;
  }
}

/**
 * Says why `place` is not the tree that `engine` made there; null if it is. Reads no files: btrfs records changes of a
 * snapshot as a whole; in other trees each inode has its change time.
 */
export function whyNotAsMade(place: string, engine: string, making: Making): string | null {
  const facts = fs.lstatSync(place);
  if (!facts.isDirectory()) return "is not a folder now";
  const isSnapshot = engine === "btrfs-snapshot";
  if (isSnapshot && !isSubvolume(place))
    return isEmptyFolder(place) ? EMPTY_PLACE : "was a snapshot, and is a plain folder now";
  const found = identityOfTree(place);
  if (making.identity !== null && making.identity !== found)
    return `is missing, and something else is at its path: expected ${making.identity}, found ${found}`;
  const parent = path.dirname(place);
  const isMounted = isSnapshot
    ? filesystemUuid(place) !== filesystemUuid(parent)
    : fs.lstatSync(parent).dev !== facts.dev;
  if (isMounted) return "is hidden by another file system that is mounted there";
  if (!isSnapshot) return isMadeBetween(facts.birthtimeMs, making);
  const { ctransid, otransid, changed, readOnly, made } = inDirectory(place, subvolumeInfo);
  const { last_change: lastChange } = making;
  if (ctransid > otransid || (lastChange !== undefined && changed !== lastChange)) return CHANGED_TREE;
  if (!readOnly) return WRITABLE_TREE;
  return isMadeBetween(made, making);
}

/** Null if the tree may have been made in this interval. A file system without birth times reports 0. */
function isMadeBetween(made: number, { identity, between: [from, to] }: Making): string | null {
  if (identity !== null || made === 0 || (made >= from - ROUNDING_MS && made <= to + ROUNDING_MS)) return null;
  const [at, first, last] = [made, from, to].map((each) => new Date(each).toISOString());
  return `is missing: it was made between ${first} and ${last}, and the folder at its path at ${at}`;
}

export function isEmptyFolder(place: string | Buffer): boolean {
  const folder = fs.opendirSync(place, { bufferSize: 1 });
  try {
    return folder.readSync() === null;
  } finally {
    folder.closeSync();
  }
}

/**
 * True if the tree at `place` is a snapshot of the state with that last change (ms since 1970): the snapshot would show
 * any later change of the folder, even a subvolume made in it.
 */
export function isAsAnnounced(place: string | Buffer, lastChange: number): boolean {
  if (fs.lstatSync(place, { throwIfNoEntry: false }) === undefined) return false;
  if (!isSubvolume(place)) return false;
  const fd = fs.openSync(place, DIRECTORY);
  try {
    const { changed, readOnly } = subvolumeInfo(fd);
    return readOnly && changed === lastChange;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * The name of an entry of a scanned tree, "." for its root, whose inode changed after a moment (ms since 1970); null if
 * there is none. Skips entries that equal the previous scan, or their source in a scanned clone: such a scan shows an
 * entry that changed later as it is.
 */
export function changedSince({ table }: ScanResult, place: string, moment: number): string | null {
  const { records } = table;
  const limit = latestChange(moment);
  if (fs.lstatSync(place).ctimeMs > limit) return ".";
  const count = table.control[C.RECORDS]!;
  for (let record = 0; record < count; record++) {
    const base = record * RECORD_WORDS;
    if (records[base + R.MODE] === 0) continue;
    if (signedWide(records, base + R.CTIME) * 1000 + records[base + R.CTIME_NS]! / 1e6 > limit)
      return printablePath(table.recordName(record));
  }
  return null;
}
