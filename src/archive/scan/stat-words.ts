import { R } from "../cache/scan-table.ts";
import { STAT } from "../../fs/linux/syscalls.ts";

/** Words of records, each beside that of a stat result. */
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

/** Words that trees and digests have, beside the mode. */
export const RECORDED: StatWords = [...OWNER_WORDS, ...MTIME_WORDS];
export const RECORDED_OF_FILES: StatWords = [...RECORDED, ...SIZE_WORDS];

/** Tells whether these words of a record that begins at `base` are those of a stat result. */
export function hasWords(records: Uint32Array, base: number, stat: Uint32Array, words: StatWords): boolean {
  return words.every(([own, of]) => records[base + own] === stat[of]);
}
