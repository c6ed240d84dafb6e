import { C, D, DIRECTORY_WORDS, EXTRA, FLAG, R, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import { loadStatCache, writeStatCache } from "../cache/stat-cache.ts";
import { signedWide, STAT } from "../../fs/linux/syscalls.ts";
import {
  CTIME_WORDS,
  fillRecord,
  hasWords,
  INODE_WORDS,
  isYoung,
  MTIME_WORDS,
  SIZE_WORDS,
  tickOf,
} from "./stat-words.ts";

/** A file written from known content, with its facts when it got its place. */
export interface WrittenFile {
  /** words of its stat result at that moment */
  stat: Uint32Array;
  /** of the whole content */
  sha256: Uint8Array;
  /** ids of the content, back to back, if it has several parts */
  chunks: Uint8Array | null;
}

/** The files that a restore put in place: read twice, in any order. */
export type WrittenFiles = Iterable<WrittenFile> & { readonly length: number };

/** Overhead of one value in an entry's extras, in bytes. */
const EXTRA_BYTES = 9;
/** With whole-second times a later change cannot be detected. */
const LONGEST_TICK = 1;
const UNCHANGED = [...INODE_WORDS, ...SIZE_WORDS, ...MTIME_WORDS, ...CTIME_WORDS];
const NO_KEY = { tree: new Uint8Array(32), epoch: new Uint8Array(16) };

/**
 * Keeps written files for the next scan, as a stat cache of one directory: empty names, ordered by inode. Leaves out
 * files that another program could have changed within the clock's tick of their placement, since no time would tell.
 */
export function keepWrittenFiles(file: string, all: WrittenFiles): void {
  const inodes: number[] = [];
  let extras = 0;
  for (const { stat, chunks } of all) {
    if (!tellsChanges(stat)) continue;
    inodes.push(inodeOf(stat));
    if (chunks !== null) extras += chunks.length + EXTRA_BYTES;
  }
  const table = tableFor(inodes.length, extras);
  const records = new Uint32Array(inodes.length);
  const ordered = Uint32Array.from(inodes.keys()).sort((a, b) => inodes[a]! - inodes[b]!);
  for (const [record, i] of ordered.entries()) records[i] = record;
  let i = 0;
  for (const { stat, sha256, chunks } of all) {
    if (!tellsChanges(stat)) continue;
    const record = records[i++]!;
    fillRecord(table.records, record * RECORD_WORDS, stat);
    table.recordBytes.set(sha256, (record * RECORD_WORDS + R.HASH) * 4);
    if (chunks === null) continue;
    table.setRecordFlags(record, FLAG.CHUNKED);
    table.setExtras(record, [{ tag: EXTRA.CHUNKS, value: chunks }]);
  }
  writeStatCache(file, table, null, NO_KEY);
}

/** The table of kept files; null if there is none. */
export function loadWrittenFiles(file: string): ScanTable | null {
  return loadStatCache(file)?.table ?? null;
}

/** The record of the file that a stat result describes, unchanged since it was written; -1 if there is none. */
export function writtenRecord({ records }: ScanTable, stat: Uint32Array): number {
  // A change within this tick may not show.
  if (isYoung(stat, tickOf(stat))) return -1;
  const inode = inodeOf(stat);
  let low = 0;
  let high = records.length / RECORD_WORDS - 1;
  while (low <= high) {
    const record = (low + high) >> 1;
    const base = record * RECORD_WORDS;
    const order = inode - inodeOf(records, base + R.INO);
    if (order === 0) return hasWords(records, base, stat, UNCHANGED) ? record : -1;
    if (order < 0) high = record - 1;
    else low = record + 1;
  }
  return -1;
}

function tellsChanges(stat: Uint32Array): boolean {
  const tick = tickOf(stat);
  const seconds = signedWide(stat, STAT.CTIME) - signedWide(stat, STAT.MTIME);
  return tick < LONGEST_TICK && seconds + (stat[STAT.CTIME_NS]! - stat[STAT.MTIME_NS]!) / 1e9 > tick;
}

/** Beyond 2^53 several near inodes share one number; then one of them may not be found. */
function inodeOf(words: Uint32Array, at: number = STAT.INO): number {
  return words[at + 1]! * 4294967296 + words[at]!;
}

function tableFor(written: number, extras: number): ScanTable {
  const capacity = { records: written, directories: 1, names: 0, extras };
  const memory = (words: number): SharedArrayBuffer => new SharedArrayBuffer(words * 4);
  const table = new ScanTable({
    capacity,
    control: memory(C.WORDS),
    directories: memory(DIRECTORY_WORDS),
    records: memory(written * RECORD_WORDS),
    names: memory(0),
    extras: new SharedArrayBuffer(extras),
    jobs: memory(1),
    touched: memory(0),
  });
  table.takeDirectory();
  table.directories[D.FIRST] = table.takeRecords(written);
  table.directories[D.COUNT] = written;
  return table;
}
