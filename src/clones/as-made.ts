import fs from "node:fs";
import { C, R, RECORD_WORDS } from "../archive/cache/scan-table.ts";
import { isSubvolume, subvolumeInfo } from "../fs/linux/btrfs.ts";
import type { HeldTree } from "../formats/records/descriptor.ts";
import { printablePath } from "../fs/safe-path.ts";
import { signedWide } from "../fs/linux/syscalls.ts";
import type { ScanResult } from "../archive/scan/scan.ts";
import { latestChange } from "../archive/write/held-files.ts";

/** Finds out whether a held tree was written to after it was made. */

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

export const EMPTY_PLACE = "is an empty folder";

/**
 * Says why a held tree is not as it was made, as far as that shows without reading it; null where nothing tells. A
 * snapshot is unchanged when no transaction since its own changed it, and its last change is the recorded one (ms since
 * 1970). A snapshot of the folder around it has an empty folder in its place.
 */
export function whyNotAsMade(
  place: string,
  engine: string,
  { last_change: lastChange, empty }: Pick<HeldTree, "last_change" | "empty"> = {},
): string | null {
  if (!fs.lstatSync(place).isDirectory()) return "is no folder any more";
  if (engine !== "btrfs-snapshot") return null;
  if (!isSubvolume(place)) return empty !== true && isEmptyFolder(place) ? EMPTY_PLACE : null;
  const fd = fs.openSync(place, DIRECTORY);
  try {
    const { ctransid, otransid, changed } = subvolumeInfo(fd);
    const isAsMade = ctransid <= otransid && (lastChange === undefined || changed === lastChange);
    return isAsMade ? null : "was changed after it was made";
  } finally {
    fs.closeSync(fd);
  }
}

/** Tells whether a folder has no entry. */
export function isEmptyFolder(place: string | Buffer): boolean {
  const folder = fs.opendirSync(place, { bufferSize: 1 });
  try {
    return folder.readSync() === null;
  } finally {
    folder.closeSync();
  }
}

/**
 * True when the tree at `place` is a snapshot of the state that had its last change at that time (ms since 1970): what is
 * done to a folder after that time, subvolumes made in it too, would show in the snapshot.
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
 * The name of an entry of a scanned tree, "." for its root, whose inode was changed after a moment (ms since 1970);
 * null where there is none. Entries as a previous scan had them are not looked at: they were there before. So it is
 * with a clone that was scanned as its source: what was changed after it was made was not shown as that.
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
