import fs from "node:fs";
import { crc32 } from "node:zlib";
import { failpoint } from "../failpoint.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, ScanTable, type TableBuffers } from "./scan-table.ts";
import { syscalls } from "./syscalls.ts";

/**
 * The stat cache: the table of the last scan as one file, read straight into shared memory.
 * It is disposable: a file that does not check out is ignored, which only costs a re-read.
 * Layout: docs/formats/stat-cache.md.
 */
const MAGIC = "CAIRNSC1";
const HEADER = 256;
const AT = { COUNTS: 8, CRC: 32, TREE: 64, EPOCH: 96, FLAGS: 112 } as const;
/** Attributes and holes were looked at; without native calls they cannot be. */
const COMPLETE = 1;

/** What a cache was valid for. */
export interface StatCacheKey {
  /** tree id (32 bytes) of the state that the table describes */
  tree: Uint8Array;
  /** epoch (16 bytes) of the index in which every id was present */
  epoch: Uint8Array;
}

export interface StatCache extends StatCacheKey {
  table: ScanTable;
  directories: number;
  records: number;
}

/** Reads a cache; null where there is none that checks out. */
export function loadStatCache(path: string): StatCache | null {
  let fd: number;
  try {
    fd = fs.openSync(path, "r");
  } catch {
    return null;
  }
  try {
    return readStatCache(fd);
  } catch {
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

/** The state that a cache describes, 32 bytes, without reading the rest; null for what is no cache. */
export function statCacheTree(path: string): Uint8Array | null {
  const header = Buffer.alloc(HEADER);
  let fd: number;
  try {
    fd = fs.openSync(path, "r");
  } catch {
    return null;
  }
  try {
    const whole = fs.readSync(fd, header, 0, HEADER, 0) === HEADER && header.toString("latin1", 0, 8) === MAGIC;
    return whole ? header.subarray(AT.TREE, AT.TREE + 32) : null;
  } finally {
    fs.closeSync(fd);
  }
}

function readStatCache(fd: number): StatCache | null {
  const size = fs.fstatSync(fd).size;
  const header = Buffer.alloc(HEADER);
  if (size < HEADER || fs.readSync(fd, header, 0, HEADER, 0) !== HEADER) return null;
  if (header.toString("latin1", 0, 8) !== MAGIC) return null;
  // What was not looked at then must not pass for absent now.
  if (syscalls().native && (header.readUInt32LE(AT.FLAGS) & COMPLETE) === 0) return null;
  const [directories, records, names, extras] = [0, 4, 8, 12].map((at) => header.readUInt32LE(AT.COUNTS + at)) as [number, number, number, number];
  const lengths = [directories * DIRECTORY_WORDS * 4, records * RECORD_WORDS * 4, names, extras];
  if (HEADER + lengths.reduce((sum, length) => sum + length, 0) !== size || directories === 0) return null;
  let crc = crc32(header.subarray(AT.TREE));
  let position = HEADER;
  const buffers = lengths.map((length) => {
    const buffer = new SharedArrayBuffer(Math.max(length, 4));
    const bytes = Buffer.from(buffer as unknown as ArrayBuffer);
    for (let at = 0; at < length; ) {
      const part = fs.readSync(fd, bytes, at, Math.min(length - at, 1 << 28), position + at);
      if (part === 0) throw new Error("short");
      at += part;
    }
    position += length;
    crc = crc32(bytes.subarray(0, length), crc);
    return buffer;
  }) as [SharedArrayBuffer, SharedArrayBuffer, SharedArrayBuffer, SharedArrayBuffer];
  if (crc !== header.readUInt32LE(AT.CRC)) return null;
  const control = new SharedArrayBuffer(C.WORDS * 4);
  const table = new ScanTable({
    capacity: { records, directories, names, extras },
    control,
    directories: buffers[0],
    records: buffers[1],
    names: buffers[2],
    extras: buffers[3],
    jobs: new SharedArrayBuffer(4),
  } satisfies TableBuffers);
  return {
    table,
    directories,
    records,
    tree: header.subarray(AT.TREE, AT.TREE + 32),
    epoch: header.subarray(AT.EPOCH, AT.EPOCH + 16),
  };
}

/**
 * Writes the table of a finished scan, with unchanged directories taken from the previous one.
 * Atomic by rename; not synced, since a lost cache only costs a re-read.
 */
export function writeStatCache(path: string, table: ScanTable, old: ScanTable | null, key: StatCacheKey): void {
  const out = gather(table, old);
  const header = Buffer.alloc(HEADER);
  header.write(MAGIC, 0, "latin1");
  [out.directories.length / DIRECTORY_WORDS, out.records.length / RECORD_WORDS, out.names.length, out.extras.length].forEach((count, i) =>
    header.writeUInt32LE(count, AT.COUNTS + i * 4),
  );
  header.set(key.tree, AT.TREE);
  header.set(key.epoch, AT.EPOCH);
  header.writeUInt32LE(syscalls().native ? COMPLETE : 0, AT.FLAGS);
  const parts = [out.directories, out.records, out.names, out.extras].map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength));
  let crc = crc32(header.subarray(AT.TREE));
  for (const part of parts) crc = crc32(part, crc);
  header.writeUInt32LE(crc, AT.CRC);
  const temporary = `${path}.${process.pid}.tmp`;
  const fd = fs.openSync(temporary, "w", 0o600);
  try {
    fs.writevSync(fd, [header]);
    for (const part of parts) for (let at = 0; at < part.length; ) at += fs.writeSync(fd, part, at, Math.min(part.length - at, 1 << 28));
  } finally {
    fs.closeSync(fd);
  }
  failpoint("stat-cache-staged");
  fs.renameSync(temporary, path);
}

interface Gathered {
  directories: Uint32Array;
  records: Uint32Array;
  names: Uint8Array;
  extras: Uint8Array;
}

/** One dense table: records in directory order, names and extras without gaps. */
function gather(table: ScanTable, old: ScanTable | null): Gathered {
  const count = table.control[C.DIRECTORIES]!;
  const directories = table.directories.slice(0, count * DIRECTORY_WORDS);
  const newOfOld = new Map<number, number>();
  let records = 0;
  for (let d = 0; d < count; d++) {
    const base = d * DIRECTORY_WORDS;
    records += directories[base + D.COUNT]!;
    if (directories[base + D.OLD] !== 0) newOfOld.set(directories[base + D.OLD]! - 1, d);
  }
  const out = new Uint32Array(records * RECORD_WORDS);
  // Upper bounds: all that the scan took, and all that the previous table holds.
  const names = Buffer.allocUnsafe((table.control[C.NAMES]! >>> 0) + (old?.buffers.capacity.names ?? 0));
  const extras = Buffer.allocUnsafe((table.control[C.EXTRAS]! >>> 0) + (old?.buffers.capacity.extras ?? 0));
  let at = 0;
  let nameAt = 0;
  let extraAt = 0;
  for (let d = 0; d < count; d++) {
    const base = d * DIRECTORY_WORDS;
    const same = (directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
    const from = same ? old! : table;
    const first = directories[base + D.FIRST]!;
    const n = directories[base + D.COUNT]!;
    directories[base + D.FIRST] = at;
    const source = from.records.subarray(first * RECORD_WORDS, (first + n) * RECORD_WORDS);
    out.set(source, at * RECORD_WORDS);
    for (let i = 0; i < n; i++) {
      const word = (at + i) * RECORD_WORDS;
      const length = out[word + R.NAME_FLAGS]! & 0xffff;
      const start = out[word]!;
      copyBytes(from.names, start, names, nameAt, length);
      out[word] = nameAt;
      nameAt += length;
      if ((out[word + R.NAME_FLAGS]! >>> 16) & FLAG.EXTRAS) {
        const place = out[word + R.EXTRAS]!;
        const size = from.extras.readUInt32LE(place);
        from.extras.copy(extras, extraAt, place, place + size);
        out[word + R.EXTRAS] = extraAt;
        extraAt += size;
      }
      if (same && (out[word + R.MODE]! & 0xf000) === 0x4000) out[word + R.SUB] = newOfOld.get(out[word + R.SUB]!) ?? 0;
    }
    at += n;
    const path = table.directoryPath(d);
    directories[base + D.PATH] = nameAt;
    path.copy(names, nameAt);
    nameAt += path.length;
    directories[base + D.OLD] = 0;
    directories[base + D.FLAGS]! &= DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.IGNORE_FILE | DIRECTORY_FLAG.LINKED;
    directories[base + D.DONE] = 0;
  }
  return { directories, records: out, names: names.subarray(0, nameAt), extras: extras.subarray(0, extraAt) };
}

function copyBytes(from: Uint8Array, start: number, to: Uint8Array, at: number, length: number): void {
  for (let i = 0; i < length; i++) to[at + i] = from[start + i]!;
}
