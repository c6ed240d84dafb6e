import { deviceNumber } from "../../fs/linux/mounts.ts";
import { STAT, TYPE } from "../../fs/linux/syscalls.ts";
import { NO_ID, unknownBits } from "../../fs/linux/user-namespace.ts";
import { R } from "../cache/scan-table.ts";

/** Words of records, each paired with the word of a stat result. */
export type StatWords = readonly (readonly [own: number, of: number])[];

export const OWNER_WORDS: StatWords = [
  [R.UID, STAT.UID],
  [R.GID, STAT.GID],
];
export const SIZE_WORDS: StatWords = [
  [R.SIZE, STAT.SIZE],
  [R.SIZE + 1, STAT.SIZE + 1],
];
export const MTIME_WORDS: StatWords = [
  [R.MTIME, STAT.MTIME],
  [R.MTIME + 1, STAT.MTIME + 1],
  [R.MTIME_NS, STAT.MTIME_NS],
];
export const CTIME_WORDS: StatWords = [
  [R.CTIME, STAT.CTIME],
  [R.CTIME + 1, STAT.CTIME + 1],
  [R.CTIME_NS, STAT.CTIME_NS],
];
export const INODE_WORDS: StatWords = [
  [R.INO, STAT.INO],
  [R.INO + 1, STAT.INO + 1],
];

/** Words that are part of trees and digests, in addition to the mode. */
export const RECORDED: StatWords = [...OWNER_WORDS, ...MTIME_WORDS];
export const RECORDED_OF_FILES: StatWords = [...RECORDED, ...SIZE_WORDS];

/** True if these words of the record at `base` equal those of a stat result. */
export function hasWords(records: Uint32Array, base: number, stat: Uint32Array, words: StatWords): boolean {
  return words.every(([own, of]) => records[base + own] === stat[of]);
}

/** Fills a record's words from a stat result; leaves name, flags, SUB and hash as they are. */
export function fillRecord(words: Uint32Array, base: number, s: Uint32Array): void {
  words[base + R.MODE] = s[STAT.MODE]! & 0xffff;
  words[base + R.UID] = s[STAT.UID]!;
  words[base + R.GID] = s[STAT.GID]!;
  words[base + R.NLINK] = s[STAT.NLINK]!;
  words[base + R.SIZE] = s[STAT.SIZE]!;
  words[base + R.SIZE + 1] = s[STAT.SIZE + 1]!;
  words[base + R.MTIME] = s[STAT.MTIME]!;
  words[base + R.MTIME + 1] = s[STAT.MTIME + 1]!;
  words[base + R.MTIME_NS] = s[STAT.MTIME_NS]!;
  words[base + R.CTIME] = s[STAT.CTIME]!;
  words[base + R.CTIME + 1] = s[STAT.CTIME + 1]!;
  words[base + R.CTIME_NS] = s[STAT.CTIME_NS]!;
  words[base + R.INO] = s[STAT.INO]!;
  words[base + R.INO + 1] = s[STAT.INO + 1]!;
  words[base + R.RDEV_MAJOR] = s[STAT.RDEV_MAJOR]!;
  words[base + R.RDEV_MINOR] = s[STAT.RDEV_MINOR]!;
  words[base + R.DEVICE] = deviceWord(s);
  words[base + R.BIRTH] = s[STAT.BIRTH]!;
  words[base + R.BIRTH_NS] = s[STAT.BIRTH_NS]!;
}

/** The device of an entry, in one word. */
export function deviceWord(s: Uint32Array): number {
  return deviceNumber(s[STAT.DEV_MAJOR]!, s[STAT.DEV_MINOR]!);
}

/** When an inode was made (ms since 1970), by a record that begins at `base` (`R`) or a stat result (`STAT`); 0: not known. */
export function bornAt(words: Uint32Array, { BIRTH, BIRTH_NS }: typeof R | typeof STAT, base = 0): number {
  return words[base + BIRTH]! * 1000 + words[base + BIRTH_NS]! / 1e6;
}

/** True if a record still matches a stat result. */
export function sameStat(words: Uint32Array, base: number, s: Uint32Array): boolean {
  return (
    words[base + R.CTIME_NS] === s[STAT.CTIME_NS] &&
    words[base + R.CTIME] === s[STAT.CTIME] &&
    words[base + R.CTIME + 1] === s[STAT.CTIME + 1] &&
    words[base + R.MTIME_NS] === s[STAT.MTIME_NS] &&
    words[base + R.MTIME] === s[STAT.MTIME] &&
    words[base + R.MTIME + 1] === s[STAT.MTIME + 1] &&
    words[base + R.INO] === s[STAT.INO] &&
    words[base + R.INO + 1] === s[STAT.INO + 1] &&
    words[base + R.SIZE] === s[STAT.SIZE] &&
    words[base + R.SIZE + 1] === s[STAT.SIZE + 1] &&
    words[base + R.MODE] === (s[STAT.MODE]! & 0xffff) &&
    words[base + R.UID] === s[STAT.UID] &&
    words[base + R.GID] === s[STAT.GID] &&
    words[base + R.NLINK] === s[STAT.NLINK]
  );
}

/**
 * Puts the owner that a record has into a stat result of the same path whose owner is not known. An unchanged inode has
 * its recorded owner. Otherwise the bits by which a file runs as that owner are not taken over.
 */
export function keepFormerOwner(records: Uint32Array, base: number, s: Uint32Array): void {
  const unknown = unknownBits({ uid: s[STAT.UID]!, gid: s[STAT.GID]! });
  if (unknown === 0) return;
  const isSame = hasWords(records, base, s, [...INODE_WORDS, ...CTIME_WORDS]);
  if (s[STAT.UID] === NO_ID) s[STAT.UID] = records[base + R.UID]!;
  if (s[STAT.GID] === NO_ID) s[STAT.GID] = records[base + R.GID]!;
  if (isSame && s[STAT.MODE]! >>> 12 === TYPE.FILE) s[STAT.MODE]! |= records[base + R.MODE]! & unknown;
}

/**
 * Seconds after a change for which a network or FUSE file system may leave a directory's times as they are at further
 * changes: 0.1 on JuiceFS, by default (`--skip-dir-mtime`).
 */
const LEFT_TIMES = 0.25;

/**
 * True if a directory may have changed after it was listed without a new time. `heldAt`: when its tree was held (ms
 * since 1970); undefined for the folder itself. `keepsTimes`: as `keepsDirectoryTimes` says.
 */
export function isYoungDirectory(s: Uint32Array, heldAt: number | undefined, keepsTimes: boolean): boolean {
  const within = Math.max(tickOf(s), keepsTimes ? 0 : LEFT_TIMES);
  return isYoung(s, within, heldAt === undefined ? undefined : heldAt / 1000);
}

export function isYoung(s: Uint32Array, within: number, now = Date.now() / 1000): boolean {
  const changed = s[STAT.CTIME + 1]! * 4294967296 + s[STAT.CTIME]! + s[STAT.CTIME_NS]! / 1e9;
  return now - changed < within;
}

/**
 * Seconds within which a further change may leave the change time as it is: a tick of the kernel's clock, or one of the
 * file system's whole seconds (ext4 with small inodes, some network file systems; two on FAT).
 */
export function tickOf(s: Uint32Array): number {
  return s[STAT.CTIME_NS] === 0 && s[STAT.MTIME_NS] === 0 ? 2.1 : 0.05;
}
