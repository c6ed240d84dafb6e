import fs from "node:fs";
import { append } from "../../append.ts";
import { crc32 } from "node:zlib";
import { readDisposable } from "../../fs/disposable-file.ts";
import { signedWide, STAT, type StatBuffer, type Syscalls, TYPE, wide } from "../../fs/linux/syscall-abi.ts";

/**
 * Records the sources of a clone's entries: by inode number the inode, change time, number of links and size of each
 * source, so that clone and source share one stat cache. Disposable: without the file the clone is read. Layout:
 * docs/formats/origins.md.
 */
const MAGIC = "CAIRNOR1";
const HEADER = 16;
const RECORD_WORDS = 10;
const RECORD_BYTES = RECORD_WORDS * 4;

/** Word offsets in a record. */
const O = { CLONE: 0, INO: 2, CTIME: 4, CTIME_NS: 6, NLINK: 7, SIZE: 8 } as const;
const WORDS = [
  [O.INO, STAT.INO],
  [O.INO + 1, STAT.INO + 1],
  [O.CTIME, STAT.CTIME],
  [O.CTIME + 1, STAT.CTIME + 1],
  [O.CTIME_NS, STAT.CTIME_NS],
  [O.NLINK, STAT.NLINK],
] as const;
const SIZE = [
  [O.SIZE, STAT.SIZE],
  [O.SIZE + 1, STAT.SIZE + 1],
] as const;

/** Records that one thread collects. */
export class OriginList {
  #words = new Uint32Array(1024 * RECORD_WORDS);
  #count = 0;

  /** Two stat results, as words: of the clone's entry, and of its source when it was cloned. */
  add(clone: Uint32Array, source: Uint32Array): void {
    const base = this.#count++ * RECORD_WORDS;
    if (base === this.#words.length) {
      const larger = new Uint32Array(base * 2);
      larger.set(this.#words);
      this.#words = larger;
    }
    this.#words[base + O.CLONE] = clone[STAT.INO]!;
    this.#words[base + O.CLONE + 1] = clone[STAT.INO + 1]!;
    for (const [own, of] of WORDS) this.#words[base + own] = source[of]!;
    for (const [own, of] of SIZE) this.#words[base + own] = source[of]!;
  }

  /** All records so far, back to back. */
  take(): Uint32Array {
    return this.#words.slice(0, this.#count * RECORD_WORDS);
  }
}

/** Returns the inodes of all sources; null if one with a single name was cloned twice. */
export function sourcesOf(parts: readonly Uint32Array[]): Set<number> | null {
  const sources = new Set<number>();
  for (const part of parts)
    for (let base = 0; base < part.length; base += RECORD_WORDS) {
      const inode = wide(part, base + O.INO);
      if (part[base + O.NLINK] === 1 && sources.has(inode)) return null;
      sources.add(inode);
    }
  return sources;
}

/** Copies records without those of `inodes`, whose entries changed after they were cloned. */
export function originsBeside(parts: readonly Uint32Array[], inodes: ReadonlySet<bigint>): Uint32Array[] {
  return parts.map((part) => {
    const kept: number[] = [];
    for (let base = 0; base < part.length; base += RECORD_WORDS) {
      const inode = BigInt(part[base + O.CLONE]!) | (BigInt(part[base + O.CLONE + 1]!) << 32n);
      if (!inodes.has(inode)) append(kept, [...part.subarray(base, base + RECORD_WORDS)]);
    }
    return Uint32Array.from(kept);
  });
}

/** Writes records to a new file. Not synced: the checksum makes a truncated file count as absent. */
export function writeOrigins(path: string, parts: readonly Uint32Array[]): void {
  const header = Buffer.alloc(HEADER);
  const bytes = parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength));
  header.write(MAGIC, 0, "latin1");
  header.writeUInt32LE(bytes.reduce((sum, { length }) => sum + length, 0) / RECORD_BYTES, 8);
  header.writeUInt32LE(
    bytes.reduce((crc, part) => crc32(part, crc), crc32(header.subarray(0, 12))),
    12,
  );
  fs.rmSync(path, { force: true });
  const fd = fs.openSync(path, "wx", 0o600);
  try {
    for (const part of [header, ...bytes])
      for (let at = 0; at < part.length;) at += fs.writeSync(fd, part, at, part.length - at);
  } finally {
    fs.closeSync(fd);
  }
}

/** Records, and the place of each by its clone's inode; plain data, so that it can be posted to a worker. */
export interface Origins {
  readonly records: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
}

/** Reads a file of records; null if there is no valid one. */
export function loadOrigins(path: string): Origins | null {
  return readDisposable(path, readOrigins);
}

function readOrigins(fd: number): Origins | null {
  const length = fs.fstatSync(fd).size - HEADER;
  const header = Buffer.alloc(HEADER);
  if (fs.readSync(fd, header, 0, HEADER, 0) !== HEADER || header.toString("latin1", 0, 8) !== MAGIC) return null;
  if (length !== header.readUInt32LE(8) * RECORD_BYTES || length === 0) return null;
  const records = new SharedArrayBuffer(length);
  const bytes = Buffer.from(records as unknown as ArrayBuffer);
  for (let at = 0; at < length;) {
    const part = fs.readSync(fd, bytes, at, Math.min(length - at, 1 << 28), HEADER + at);
    if (part === 0) return null;
    at += part;
  }
  if (crc32(bytes, crc32(header.subarray(0, 12))) !== header.readUInt32LE(12)) return null;
  return { records, slots: slotsOf(new Uint32Array(records)) };
}

/** Lists the records in order: inode of the clone's entry; inode, change time, links and size of its source. */
export function* listOrigins(origins: Origins): Generator<{
  clone: bigint;
  source: bigint;
  changed: { seconds: bigint; nanoseconds: number };
  links: number;
  size: bigint;
}> {
  const words = new Uint32Array(origins.records);
  const wide = (at: number): bigint => BigInt(words[at]!) | (BigInt(words[at + 1]!) << 32n);
  for (let base = 0; base < words.length; base += RECORD_WORDS)
    yield {
      clone: wide(base + O.CLONE),
      source: wide(base + O.INO),
      changed: { seconds: BigInt.asIntN(64, wide(base + O.CTIME)), nanoseconds: words[base + O.CTIME_NS]! },
      links: words[base + O.NLINK]!,
      size: wide(base + O.SIZE),
    };
}

/** A slot holds the number of a record plus one; open addressing. */
function slotsOf(words: Uint32Array): SharedArrayBuffer {
  const count = words.length / RECORD_WORDS;
  const shared = new SharedArrayBuffer(2 ** Math.ceil(Math.log2(count * 2 + 2)) * 4);
  const slots = new Int32Array(shared);
  for (let record = 0; record < count; record++) {
    const base = record * RECORD_WORDS;
    let slot = slotOf(words[base]!, words[base + 1]!) & (slots.length - 1);
    while (slots[slot] !== 0) slot = (slot + 1) & (slots.length - 1);
    slots[slot] = record + 1;
  }
  return shared;
}

/** Hashes widely: XFS numbers inodes alike in each allocation group, and consecutively. */
function slotOf(low: number, high: number): number {
  const mixed = Math.imul(low ^ Math.imul(high, 0x85ebca6b), 0x9e3779b1);
  return mixed ^ (mixed >>> 15);
}

/** Finds records, for one thread. */
export class OriginFinder {
  readonly #records: Uint32Array;
  readonly #slots: Int32Array;

  constructor(origins: Origins) {
    this.#records = new Uint32Array(origins.records);
    this.#slots = new Int32Array(origins.slots);
  }

  /**
   * Gives a cloned entry's stat result the values that its source had at the time of the clone; for a directory the size,
   * too. Kind, mode, owner and modification time stay, because they are equal in both. False if the source is not known.
   */
  apply(stat: Uint32Array, isDirectory: boolean): boolean {
    const low = stat[STAT.INO]!;
    const high = stat[STAT.INO + 1]!;
    const mask = this.#slots.length - 1;
    for (let slot = slotOf(low, high) & mask; ; slot = (slot + 1) & mask) {
      const base = (this.#slots[slot]! - 1) * RECORD_WORDS;
      if (base < 0) return false;
      if (this.#records[base] !== low || this.#records[base + 1] !== high) continue;
      for (const [own, of] of WORDS) stat[of] = this.#records[base + own]!;
      if (isDirectory) for (const [own, of] of SIZE) stat[of] = this.#records[base + own]!;
      return true;
    }
  }
}

/** Facts of the folder that a tree is a clone of. */
export interface ClonedFrom extends Origins {
  /** when the clone was complete, in ms since 1970: an entry that changed later no longer equals its source */
  readonly until: number;
}

/**
 * System calls that show a clone's entries as their sources were when they were cloned, so that a scan of the clone can
 * use the source's stat cache and leave it valid for the source. Shows an entry as it is if its source is not known or
 * if it changed after it was made.
 */
export function asSource(sys: Syscalls, from: ClonedFrom): Syscalls {
  const finder = new OriginFinder(from);
  const show = (result: number, { words }: StatBuffer): number => {
    if (result < 0 || signedWide(words, STAT.CTIME) * 1000 + words[STAT.CTIME_NS]! / 1e6 > from.until) return result;
    finder.apply(words, (words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.DIRECTORY);
    return result;
  };
  return {
    ...sys,
    stat: (dirfd, names, name, out) => show(sys.stat(dirfd, names, name, out), out),
    fstat: (fd, out) => show(sys.fstat(fd, out), out),
  };
}
