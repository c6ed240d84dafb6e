import { hkdfSync } from "node:crypto";
import { CairnError } from "../../errors.ts";
import { newKernel, newSharedMemory, type SharedMemory } from "../../web-assembly.ts";
import { CHUNKER_KERNEL } from "./chunker-kernel.ts";

/** A shared memory: files are read into its buffer, from `CHUNK_DATA_START` on. */
export type ChunkMemory = SharedMemory;

/** Files up to this size are one blob; no chunk but a file's last is smaller. */
export const MIN_CHUNK = 512 * 1024;
/** From this size on the looser mask applies, which cuts sooner. */
const NORMAL_CHUNK = 1024 * 1024;
export const MAX_CHUNK = 8 * 1024 * 1024;

/** Offset of the caller's bytes in a chunk memory; the kernel owns the bytes before it. */
export const CHUNK_DATA_START = 65_536;
const GEAR_BYTES = 256 * 8;

/** Bits 41–62 before the normal size, 45–62 after it, as the upper 32 bits of the hash. */
const STRICT_MASK = 0x7ffffe00;
const LOOSE_MASK = 0x7fffe000;

/**
 * Returns 256 u64 little-endian: HKDF-SHA256 without salt, info `cairn.gear.v1`, over the polynomial's lower-case hex
 * digits as ASCII, exactly as the config has them. Throws `damaged` if they are no such digits.
 */
export function gearTable(polynomial: string): Uint8Array {
  if (!/^[0-9a-f]{1,16}$/.test(polynomial)) {
    throw new CairnError(
      "damaged",
      `the chunker polynomial ${JSON.stringify(polynomial.slice(0, 40))} is not hex digits`,
    );
  }
  return new Uint8Array(
    hkdfSync("sha256", Buffer.from(polynomial, "latin1"), new Uint8Array(0), "cairn.gear.v1", GEAR_BYTES),
  );
}

/** Returns a shared memory with room for `bytes` bytes of files after `CHUNK_DATA_START`. One polynomial per memory. */
export function newChunkMemory(bytes: number): ChunkMemory {
  return newSharedMemory(CHUNK_DATA_START + Math.max(bytes, 1));
}

/** A rolling hash over ranges of a buffer; keeps its value from range to range. */
interface Scanner {
  reset(): void;
  /** Returns the position after the first byte at which all bits of the mask are zero, or 0. */
  scan(at: number, end: number, strict: boolean): number;
}

interface ChunkerKernel {
  reset(): void;
  scan(at: number, end: number, strict: number): number;
}

function kernelScanner(gear: Uint8Array, memory: ChunkMemory): Scanner {
  const view = new DataView(memory.buffer);
  const source = new DataView(gear.buffer, gear.byteOffset, gear.byteLength);
  for (let at = 0; at < GEAR_BYTES; at += 8) {
    const value = source.getBigUint64(at, true);
    view.setBigUint64(at, value, true);
    view.setBigUint64(GEAR_BYTES + at, BigInt.asUintN(64, value << 1n), true);
  }
  const kernel = newKernel<ChunkerKernel>(CHUNKER_KERNEL, { cairn: { memory } });
  return { reset: kernel.reset, scan: (at, end, strict) => kernel.scan(at, end, strict ? 1 : 0) };
}

/** Scans in TypeScript, in two 32-bit halves. Tests compare the kernel with this class, byte for byte. */
class PlainScanner implements Scanner {
  readonly #bytes: Uint8Array;
  readonly #low = new Uint32Array(256);
  readonly #high = new Uint32Array(256);
  #hashLow = 0;
  #hashHigh = 0;

  constructor(gear: Uint8Array, bytes: Uint8Array) {
    const source = new DataView(gear.buffer, gear.byteOffset, gear.byteLength);
    for (let value = 0; value < 256; value++) {
      this.#low[value] = source.getUint32(value * 8, true);
      this.#high[value] = source.getUint32(value * 8 + 4, true);
    }
    this.#bytes = bytes;
  }

  reset(): void {
    this.#hashLow = 0;
    this.#hashHigh = 0;
  }

  scan(at: number, end: number, strict: boolean): number {
    const bytes = this.#bytes;
    const mask = strict ? STRICT_MASK : LOOSE_MASK;
    let low = this.#hashLow;
    let high = this.#hashHigh;
    for (let index = at; index < end; index++) {
      const value = bytes[index]!;
      const sum = ((low << 1) >>> 0) + this.#low[value]!;
      high = ((high << 1) | (low >>> 31)) + this.#high[value]! + (sum > 0xffff_ffff ? 1 : 0);
      low = sum >>> 0;
      if ((high & mask) === 0) return index + 1;
    }
    this.#hashLow = low;
    this.#hashHigh = high | 0;
    return 0;
  }
}

/**
 * Content-defined cuts (docs/formats/chunking.md). The cuts depend on the bytes of the file and the polynomial only,
 * not on the ranges in which the bytes are given.
 */
export class Chunker {
  readonly #scanner: Scanner;
  /** Bytes of the current chunk that were given so far. */
  #length = 0;

  /** Uses the WebAssembly kernel for a memory of `newChunkMemory`, and TypeScript for plain bytes. */
  constructor(polynomial: string, bytes: ChunkMemory | Uint8Array) {
    const gear = gearTable(polynomial);
    this.#scanner = bytes instanceof Uint8Array ? new PlainScanner(gear, bytes) : kernelScanner(gear, bytes);
  }

  /** Forgets a file that was not finished. */
  reset(): void {
    this.#length = 0;
    this.#scanner.reset();
  }

  /**
   * Takes the file's next bytes, at [start, end) of the memory. Returns the end of a chunk (start < cut ≤ end);
   * continue with cut(thatEnd, end, …). Returns -1 if it took all bytes and needs more; with `eof` -1 means that no
   * bytes are left.
   */
  cut(start: number, end: number, eof: boolean): number {
    let at = start + Math.min(end - start, Math.max(0, MIN_CHUNK - this.#length));
    let length = this.#length + at - start;
    for (const limit of [NORMAL_CHUNK, MAX_CHUNK]) {
      if (at === end || length >= limit || length < MIN_CHUNK) continue;
      const to = Math.min(end, at + limit - length);
      const cut = this.#scanner.scan(at, to, limit === NORMAL_CHUNK);
      if (cut > 0) return this.#found(cut);
      length += to - at;
      at = to;
    }
    if (length === MAX_CHUNK || (eof && length > 0)) return this.#found(at);
    this.#length = length;
    return -1;
  }

  #found(cut: number): number {
    this.reset();
    return cut;
  }
}
