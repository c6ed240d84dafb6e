import { closeSync, fsyncSync, openSync, writeSync } from "node:fs";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import zlib from "node:zlib";
import { CairnError, toCairnError } from "../errors.ts";
import { printablePath } from "../fs/paths/safe-path.ts";

/** Content of a member that is ready to be written. */
export interface Packed {
  method: typeof STORED | typeof DEFLATED;
  data: Buffer;
  size: number;
  crc: number;
}

export const STORED = 0;
export const DEFLATED = 8;
export const UTF8 = 1 << 11;
/** 1980-01-01 00:00, the first time that a zip can hold: equal content gives equal bytes. */
const DATE = 0x21;
export const MADE_BY_UNIX = 3 << 8;
export const MOST_32 = 0xffff_ffff;
/** Twice as fast as 5; text takes 7 % more bytes. */
const LEVEL = 2;
const deflate = promisify<Buffer, zlib.ZlibOptions, Buffer>(zlib.deflateRaw);

/** Deflates content, or stores it if that gains nothing. */
export async function pack(bytes: Buffer): Promise<Packed> {
  const crc = zlib.crc32(bytes);
  // One output chunk: each further one would cost a turn through the thread pool.
  const chunkSize = Math.max(64, bytes.length + (bytes.length >> 8) + 64);
  const packed = bytes.length === 0 ? bytes : await deflate(bytes, { level: LEVEL, chunkSize });
  return packed.length < bytes.length
    ? { method: DEFLATED, data: packed, size: bytes.length, crc }
    : { method: STORED, data: bytes, size: bytes.length, crc };
}

interface Listed {
  name: string;
  isDirectory: boolean;
  at: number;
  method: number;
  packedSize: number;
  size: number;
  crc: number;
}

/** Writes a new zip from start to end; the same members in the same order give the same bytes. */
export class ZipWriter implements Disposable {
  readonly #fd: number;
  readonly #path: string;
  readonly #listed: Listed[] = [];
  #at = 0;
  #isOpen = true;

  private constructor(fd: number, path: string) {
    this.#fd = fd;
    this.#path = path;
  }

  /** Throws `already_exists`, `not_found`, `permission`. */
  static create(path: string): ZipWriter {
    try {
      return new ZipWriter(openSync(path, "wx", 0o644), path);
    } catch (error) {
      throw toCairnError(error, `make ${printablePath(path)}`);
    }
  }

  addDirectory(path: string): void {
    this.add(`${path}/`, { method: STORED, data: Buffer.alloc(0), size: 0, crc: 0 });
  }

  add(path: string, { method, data, size, crc }: Packed): void {
    const entry = this.#begin(path, method);
    Object.assign(entry, { packedSize: data.length, size, crc });
    this.#write(localHeader(entry));
    this.#write(data);
    this.#listed.push(entry);
  }

  /** Adds content of any length; `size` is the expected length. */
  async addPieces(path: string, pieces: AsyncIterable<Buffer>, size: number): Promise<void> {
    const iterator = pieces[Symbol.asyncIterator]();
    const first = (await iterator.next()).value as Buffer | undefined;
    const { method } = await pack(first ?? Buffer.alloc(0));
    const entry = this.#begin(path, method);
    const isLong = size >= MOST_32 / 2;
    this.#write(localHeader(entry, isLong));
    const from = this.#at;
    const counted = this.#counted(entry, first, { [Symbol.asyncIterator]: () => iterator });
    if (method === STORED) for await (const piece of counted) this.#write(piece);
    else for await (const piece of deflated(counted)) this.#write(piece);
    entry.packedSize = this.#at - from;
    if (!isLong && (entry.packedSize > MOST_32 || entry.size > MOST_32))
      throw new CairnError("conflict", `${path} became much larger while it was read`);
    this.#writeAt(localHeader(entry, isLong), entry.at);
    this.#listed.push(entry);
  }

  /** Writes the central directory and flushes the file. Throws `no_space`. */
  finish(): void {
    const from = this.#at;
    for (let next = 0; next < this.#listed.length; next += 1000)
      this.#write(Buffer.concat(this.#listed.slice(next, next + 1000).map(listHeader)));
    this.#write(endOf({ count: this.#listed.length, from, bytes: this.#at - from }));
    fsyncSync(this.#fd);
    this[Symbol.dispose]();
  }

  [Symbol.dispose](): void {
    if (this.#isOpen) closeSync(this.#fd);
    this.#isOpen = false;
  }

  #begin(path: string, method: number): Listed {
    const isDirectory = path.endsWith("/");
    return { name: path, isDirectory, at: this.#at, method, packedSize: 0, size: 0, crc: 0 };
  }

  async *#counted(
    entry: Listed,
    first: Buffer | undefined,
    rest: AsyncIterable<Buffer>,
  ): AsyncGenerator<Buffer, void, void> {
    const count = (piece: Buffer): Buffer => {
      entry.crc = zlib.crc32(piece, entry.crc);
      entry.size += piece.length;
      return piece;
    };
    if (first !== undefined) yield count(first);
    for await (const piece of rest) yield count(piece);
  }

  #write(bytes: Buffer): void {
    this.#writeAt(bytes, this.#at);
    this.#at += bytes.length;
  }

  #writeAt(bytes: Buffer, at: number): void {
    try {
      for (let done = 0; done < bytes.length;) done += writeSync(this.#fd, bytes, done, bytes.length - done, at + done);
    } catch (error) {
      throw toCairnError(error, `write ${printablePath(this.#path)}`);
    }
  }
}

export async function* deflated(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const stream = zlib.createDeflateRaw({ level: LEVEL, chunkSize: 256 << 10 });
  const fed = pipeline(Readable.from(pieces), stream);
  // The reader of the output gets this error.
  fed.catch(() => undefined);
  try {
    for await (const piece of stream) yield piece as Buffer;
    await fed;
  } finally {
    stream.destroy();
  }
}

function flagsOf(name: Buffer): number {
  return name.some((byte) => byte > 0x7e) ? UTF8 : 0;
}

/** A size for a field of four bytes; a larger size is in the extra field. */
export function clamped(size: number): number {
  return Math.min(size, MOST_32);
}

/** `isLong`: sizes have eight bytes each, even if they are small. */
function localHeader({ name: path, method, packedSize, size, crc }: Listed, isLong = false): Buffer {
  const name = Buffer.from(path);
  const head = Buffer.alloc(30 + name.length + (isLong ? 20 : 0));
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(isLong ? 45 : 20, 4);
  head.writeUInt16LE(flagsOf(name), 6);
  head.writeUInt16LE(method, 8);
  head.writeUInt16LE(DATE, 12);
  head.writeUInt32LE(crc, 14);
  head.writeUInt32LE(isLong ? MOST_32 : packedSize, 18);
  head.writeUInt32LE(isLong ? MOST_32 : size, 22);
  head.writeUInt16LE(name.length, 26);
  head.writeUInt16LE(isLong ? 20 : 0, 28);
  name.copy(head, 30);
  if (isLong) extraOf([size, packedSize]).copy(head, 30 + name.length);
  return head;
}

function listHeader({ name: path, isDirectory, at, method, packedSize, size, crc }: Listed): Buffer {
  const name = Buffer.from(path);
  const long = [size, packedSize, at].filter((each) => each >= MOST_32);
  const extra = long.length === 0 ? Buffer.alloc(0) : extraOf(long);
  const head = Buffer.alloc(46 + name.length + extra.length);
  head.writeUInt32LE(0x02014b50, 0);
  head.writeUInt16LE(MADE_BY_UNIX | 45, 4);
  head.writeUInt16LE(long.length > 0 ? 45 : 20, 6);
  head.writeUInt16LE(flagsOf(name), 8);
  head.writeUInt16LE(method, 10);
  head.writeUInt16LE(DATE, 14);
  head.writeUInt32LE(crc, 16);
  head.writeUInt32LE(clamped(packedSize), 20);
  head.writeUInt32LE(clamped(size), 24);
  head.writeUInt16LE(name.length, 28);
  head.writeUInt16LE(extra.length, 30);
  head.writeUInt32LE(isDirectory ? ((0o40755 << 16) | 0x10) >>> 0 : (0o100644 << 16) >>> 0, 38);
  head.writeUInt32LE(clamped(at), 42);
  name.copy(head, 46);
  extra.copy(head, 46 + name.length);
  return head;
}

/** The extra field with sizes and offsets of eight bytes. */
export function extraOf(values: readonly number[]): Buffer {
  const extra = Buffer.alloc(4 + 8 * values.length);
  extra.writeUInt16LE(1, 0);
  extra.writeUInt16LE(8 * values.length, 2);
  for (const [i, value] of values.entries()) extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
  return extra;
}

/** The end of a zip: the offset and length of the central directory. */
export function endOf({ count, from, bytes }: { count: number; from: number; bytes: number }): Buffer {
  const isLong = count >= 0xffff || from >= MOST_32 || bytes >= MOST_32;
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Math.min(count, 0xffff), 8);
  end.writeUInt16LE(Math.min(count, 0xffff), 10);
  end.writeUInt32LE(clamped(bytes), 12);
  end.writeUInt32LE(clamped(from), 16);
  if (!isLong) return end;
  const long = Buffer.alloc(56 + 20);
  long.writeUInt32LE(0x06064b50, 0);
  long.writeBigUInt64LE(44n, 4);
  long.writeUInt16LE(MADE_BY_UNIX | 45, 12);
  long.writeUInt16LE(45, 14);
  long.writeBigUInt64LE(BigInt(count), 24);
  long.writeBigUInt64LE(BigInt(count), 32);
  long.writeBigUInt64LE(BigInt(bytes), 40);
  long.writeBigUInt64LE(BigInt(from), 48);
  long.writeUInt32LE(0x07064b50, 56);
  long.writeBigUInt64LE(BigInt(from + bytes), 64);
  long.writeUInt32LE(1, 72);
  return Buffer.concat([long, end]);
}
