import fs from "node:fs";
import { crc32 } from "node:zlib";
import { failpoint } from "../../failpoint.ts";
import { C, DIRECTORY_WORDS, RECORD_WORDS, ScanTable, type TableBuffers } from "./scan-table.ts";
import { denseSections, type SectionCounts, writeSections } from "./stat-cache-write.ts";
import { putDisposable, readDisposable } from "../../fs/disposable-file.ts";
import { openRegular } from "../../fs/regular-file.ts";

/**
 * The stat cache: the table of the last scan as one file, read straight into shared memory. Disposable: an invalid file
 * is ignored, which only costs a re-read. Layout: docs/formats/stat-cache.md.
 */
const MAGIC = "CAIRNSC3";
const HEADER = 256;
const AT = { COUNTS: 8, CRC: 32, TREE: 64, EPOCH: 96, FLAGS: 112 } as const;
/** Set if attributes and holes were read; an older build without native calls did not. */
const COMPLETE = 1;

/** State and index that a cache is valid for. */
export interface StatCacheKey {
  /** tree id (32 bytes) of the state that the table describes */
  tree: Uint8Array;
  /** epoch (16 bytes) of the index that had every id */
  epoch: Uint8Array;
}

export interface StatCache extends StatCacheKey {
  table: ScanTable;
  directories: number;
  records: number;
}

/** Reads a cache; null if there is no valid one. */
export function loadStatCache(path: string): StatCache | null {
  return readDisposable(path, readStatCache);
}

/** Makes a table that was just filled the cache of the next scan, which may write into it. No content counts as stored. */
export function asStatCache(scanned: { table: ScanTable; directories: number; tree: Uint8Array }): StatCache {
  const { buffers, control } = scanned.table;
  const records = control[C.RECORDS]!;
  const table = new ScanTable({ ...buffers, records: buffers.records.slice(0, records * RECORD_WORDS * 4) });
  return { table, directories: scanned.directories, records, tree: scanned.tree, epoch: Buffer.alloc(16) };
}

/** The state that a cache describes, 32 bytes, without reading the rest; null if the file is no cache. */
export function statCacheTree(path: string): Uint8Array | null {
  return readDisposable(path, (fd) => {
    const header = Buffer.alloc(HEADER);
    const whole = fs.readSync(fd, header, 0, HEADER, 0) === HEADER && header.toString("latin1", 0, 8) === MAGIC;
    return whole ? header.subarray(AT.TREE, AT.TREE + 32) : null;
  });
}

function readStatCache(fd: number): StatCache | null {
  const size = fs.fstatSync(fd).size;
  const header = Buffer.alloc(HEADER);
  if (size < HEADER || fs.readSync(fd, header, 0, HEADER, 0) !== HEADER) return null;
  if (header.toString("latin1", 0, 8) !== MAGIC) return null;
  // A scan without native calls read no attributes, which must not count as absent now.
  if ((header.readUInt32LE(AT.FLAGS) & COMPLETE) === 0) return null;
  const [directories, records, names, extras] = [0, 4, 8, 12].map((at) => header.readUInt32LE(AT.COUNTS + at)) as [
    number,
    number,
    number,
    number,
  ];
  const lengths = [directories * DIRECTORY_WORDS * 4, records * RECORD_WORDS * 4, names, extras];
  if (HEADER + lengths.reduce((sum, length) => sum + length, 0) !== size || directories === 0) return null;
  let crc = 0;
  let position = HEADER;
  const buffers = lengths.map((length) => {
    const buffer = new SharedArrayBuffer(Math.max(length, 4));
    const bytes = Buffer.from(buffer as unknown as ArrayBuffer);
    for (let at = 0; at < length;) {
      const part = fs.readSync(fd, bytes, at, Math.min(length - at, 1 << 28), position + at);
      if (part === 0) throw new Error("short");
      at += part;
    }
    position += length;
    crc = crc32(bytes.subarray(0, length), crc);
    return buffer;
  }) as [SharedArrayBuffer, SharedArrayBuffer, SharedArrayBuffer, SharedArrayBuffer];
  crc = crc32(header.subarray(AT.TREE), crc);
  if (crc !== header.readUInt32LE(AT.CRC)) return null;
  return {
    table: tableOver({ directories, records, names, extras }, buffers),
    directories,
    records,
    tree: header.subarray(AT.TREE, AT.TREE + 32),
    epoch: header.subarray(AT.EPOCH, AT.EPOCH + 16),
  };
}

function tableOver(capacity: SectionCounts, buffers: readonly SharedArrayBuffer[]): ScanTable {
  const table = new ScanTable({
    capacity,
    control: new SharedArrayBuffer(C.WORDS * 4),
    directories: buffers[0]!,
    records: buffers[1]!,
    names: buffers[2]!,
    extras: buffers[3]!,
    jobs: new SharedArrayBuffer(4),
    touched: new SharedArrayBuffer(0),
  } satisfies TableBuffers);
  // Needed if the cache is written again.
  table.control[C.DIRECTORIES] = capacity.directories;
  return table;
}

/** The cache of a finished scan, in memory, equal to the file of {@link writeStatCache}. */
export function statCacheOf({ table, old }: { table: ScanTable; old: ScanTable | null }, key: StatCacheKey): StatCache {
  const { counts, buffers } = denseSections({ table, old });
  return { ...key, table: tableOver(counts, buffers), directories: counts.directories, records: counts.records };
}

/** A cache's sections, written under a temporary name and invalid until finished. */
export interface StatCacheDraft {
  readonly temporary: string;
  readonly counts: SectionCounts;
  readonly crc: number;
}

let drafts = 0;

/** A name for a draft beside the cache; a later cleanup removes drafts of killed processes. */
export function statCacheTemporary(path: string): string {
  return `${path}.${process.pid}-${drafts++}.tmp`;
}

/** Writes the table of a finished scan as a draft, with unchanged directories taken from the previous table. */
export function draftStatCache(temporary: string, table: ScanTable, old: ScanTable | null): StatCacheDraft {
  const fd = fs.openSync(temporary, "w", 0o600);
  try {
    fs.writeSync(fd, Buffer.alloc(HEADER));
    return { temporary, ...writeSections(fd, { table, old }) };
  } finally {
    fs.closeSync(fd);
  }
}

/** Makes a draft the cache: atomic by rename; not synced, since a lost cache only costs a re-read. */
export function finishStatCache(path: string, draft: StatCacheDraft, key: StatCacheKey): void {
  const header = Buffer.alloc(HEADER);
  const { temporary, counts } = draft;
  header.write(MAGIC, 0, "latin1");
  header.set(key.tree, AT.TREE);
  header.set(key.epoch, AT.EPOCH);
  header.writeUInt32LE(COMPLETE, AT.FLAGS);
  [counts.directories, counts.records, counts.names, counts.extras].forEach((count, i) =>
    header.writeUInt32LE(count, AT.COUNTS + i * 4),
  );
  header.writeUInt32LE(crc32(header.subarray(AT.TREE), draft.crc), AT.CRC);
  const fd = openRegular(temporary, { flags: fs.constants.O_RDWR });
  try {
    fs.writeSync(fd, header, 0, HEADER, 0);
  } finally {
    fs.closeSync(fd);
  }
  failpoint("stat-cache-staged");
  putDisposable(temporary, path);
}

/** Writes the table of a finished scan as the cache. */
export function writeStatCache(path: string, table: ScanTable, old: ScanTable | null, key: StatCacheKey): void {
  finishStatCache(path, draftStatCache(statCacheTemporary(path), table, old), key);
}
