import fs from "node:fs";
import zlib from "node:zlib";
import yauzl from "yauzl";
import { CairnError, damaged, toCairnError } from "../errors.ts";
import { checkMemberPath } from "../formats/ovpack/member-path.ts";
import { newPacer } from "../pacer.ts";
import { openRegular } from "../fs/regular-file.ts";
import { printablePath } from "../fs/paths/safe-path.ts";

/** Limits of a zip: a larger one is refused before anything is unpacked. */
export interface ZipBounds {
  members: number;
  /** Sum of all content; `ratio`: the limit of a member's size divided by its packed size. */
  bytes: number;
  ratio: number;
}

export const BOUNDS: ZipBounds = { members: 2_000_000, bytes: 2 ** 42, ratio: 2_000 };
/** A member below this size may have any ratio: a page of spaces is no zip bomb. */
const SMALL = 1 << 20;

/** A member of a zip whose headers were compared. */
export interface Member {
  /** Without a directory's trailing slash. */
  path: string;
  isDirectory: boolean;
  size: number;
  /** Place and length of the packed content in the file. */
  at: number;
  packedSize: number;
  method: number;
  crc: number;
}

const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 1;
const FACTS_FOLLOW = 1 << 3;
const UTF8 = 1 << 11;
const LOCAL_BYTES = 30;
const LOCAL_MAGIC = 0x04034b50;
const LINK = 0o120_000;
const TYPE = 0o170_000;
/** Members of at most this many bytes are unpacked in one call. */
const WHOLE = 4 << 20;
const PIECE = 1 << 20;

/** Damage of the zip itself. */
function badZip(message: string, details: Record<string, unknown> = {}): CairnError {
  return damaged(message, { field: "zip", ...details });
}

/** An open zip whose members were all checked: names, kinds, sizes, and that no two parts of the file overlap. */
export class ZipFile implements AsyncDisposable {
  readonly members: readonly Member[];
  readonly #zip: yauzl.ZipFile;
  readonly #fd: number;

  private constructor(zip: yauzl.ZipFile, fd: number, members: readonly Member[]) {
    this.#zip = zip;
    this.#fd = fd;
    this.members = members;
  }

  /** Throws `damaged` with the member's path if the file is no zip, hostile or truncated; `not_found`. */
  static async open(path: string, bounds: ZipBounds = BOUNDS): Promise<ZipFile> {
    let fd: number;
    try {
      fd = openRegular(path, { named: true });
    } catch (error) {
      const failed = toCairnError(error, `read ${printablePath(path)}`);
      if (failed.code === "not_found") throw new CairnError("not_found", `there is no ${printablePath(path)}`);
      throw failed;
    }
    let zip: yauzl.ZipFile;
    try {
      zip = await fromFd(fd);
    } catch (error) {
      fs.closeSync(fd);
      throw badZip(`${printablePath(path)} cannot be read as a zip file: ${(error as Error).message}`);
    }
    try {
      return new ZipFile(zip, fd, await look(zip, { fd, bounds }));
    } catch (error) {
      zip.close();
      throw error instanceof CairnError ? error : badZip((error as Error).message);
    }
  }

  /** The content of a member in pieces, unpacked as it is read. Throws `damaged` if it does not match the headers. */
  async *read(member: Member): AsyncGenerator<Buffer> {
    const { path, size, packedSize } = member;
    let [done, crc] = [0, 0];
    const isWhole = size <= WHOLE && packedSize <= WHOLE;
    for await (const piece of isWhole ? [this.#whole(member)] : this.#pieces(member)) {
      done += piece.length;
      if (done > size) break;
      crc = zlib.crc32(piece, crc);
      yield piece;
    }
    if (done !== size)
      throw badZip(`${path} does not have the ${size} bytes that its header says`, { path, expected: size });
    if (crc !== member.crc)
      throw badZip(`${path} does not match its checksum`, { path, field: "crc32", expected: member.crc, actual: crc });
  }

  /** Synchronous: a turn through the thread pool costs more than unpacking. A caller that reads many members pauses between them. */
  #whole(member: Member): Buffer {
    const packed = this.#packed(member, member.at, member.packedSize);
    if (member.method === STORED) return packed;
    const most = member.size + 1;
    try {
      const { buffer, engine } = zlib.inflateRawSync(packed, {
        maxOutputLength: most,
        chunkSize: Math.max(64, most),
        info: true,
      }) as unknown as { buffer: Buffer; engine: zlib.Zlib };
      requireUsed(member, engine);
      return buffer;
    } catch (error) {
      throw cannotUnpack(member, error as Error);
    }
  }

  async *#pieces(member: Member): AsyncGenerator<Buffer> {
    const end = member.at + member.packedSize;
    if (member.method === STORED) {
      for (let at = member.at; at < end; at += PIECE) yield this.#packed(member, at, Math.min(PIECE, end - at));
      return;
    }
    const stream = zlib.createInflateRaw({ chunkSize: 256 << 10 });
    let next = member.at;
    const feed = (): void => {
      try {
        if (stream.destroyed) return;
        if (next >= end) return void stream.end();
        const piece = this.#packed(member, next, Math.min(PIECE, end - next));
        next += piece.length;
        stream.write(piece, () => setImmediate(feed));
      } catch (error) {
        stream.destroy(error as Error);
      }
    };
    feed();
    try {
      for await (const piece of stream) yield piece as Buffer;
    } catch (error) {
      throw cannotUnpack(member, error as Error);
    } finally {
      stream.destroy();
    }
    requireUsed(member, stream);
  }

  #packed({ path }: Member, from: number, length: number): Buffer {
    const bytes = Buffer.allocUnsafe(length);
    for (let done = 0; done < length;) {
      const read = fs.readSync(this.#fd, bytes, done, length - done, from + done);
      if (read === 0) throw badZip(`the zip ends within ${path}`, { path });
      done += read;
    }
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#zip.close();
  }
}

/** Damage has an error code of zlib; a failing disk has its own. */
function cannotUnpack({ path }: Member, error: Error): Error {
  if (error instanceof CairnError) return error;
  const { code = "" } = error as NodeJS.ErrnoException;
  if (!code.startsWith("Z_") && code !== "ERR_BUFFER_TOO_LARGE") return error;
  return badZip(`${path} cannot be unpacked: ${error.message}`, { path });
}

/** Refuses bytes behind the end of the unpacked content, which no reader would see. */
function requireUsed({ path, packedSize }: Member, { bytesWritten }: zlib.Zlib): void {
  if (bytesWritten !== packedSize)
    throw badZip(`${path} has bytes behind its end`, { path, expected: packedSize, actual: bytesWritten });
}

/** Serves the small reads of the zip's central directory from a large piece of the file. */
class ListReader extends yauzl.RandomAccessReader {
  readonly #fd: number;
  #piece = Buffer.alloc(0);
  #from = 0;

  constructor(fd: number) {
    super();
    this.#fd = fd;
  }

  override read(
    into: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, read?: number) => void,
  ): void {
    try {
      if (position < this.#from || position + length > this.#from + this.#piece.length) {
        const piece = Buffer.allocUnsafe(Math.max(length, PIECE));
        this.#piece = piece.subarray(0, fs.readSync(this.#fd, piece, 0, piece.length, position));
        this.#from = position;
      }
      callback(null, this.#piece.copy(into, offset, position - this.#from, position - this.#from + length));
    } catch (error) {
      callback(error as Error);
    }
  }

  override close(callback: (error: Error | null) => void): void {
    fs.closeSync(this.#fd);
    callback(null);
  }
}

function fromFd(fd: number): Promise<yauzl.ZipFile> {
  return new Promise((resolve, reject) => {
    yauzl.fromRandomAccessReader(
      new ListReader(fd),
      fs.fstatSync(fd).size,
      { lazyEntries: true, autoClose: false, decodeStrings: false, validateEntrySizes: true },
      (error, zip) => (error === null ? resolve(zip) : reject(error)),
    );
  });
}

async function look(zip: yauzl.ZipFile, { fd, bounds }: { fd: number; bounds: ZipBounds }): Promise<Member[]> {
  if (zip.entryCount > bounds.members)
    throw badZip(`the zip has ${zip.entryCount} members; at most ${bounds.members} are read`);
  const members: Member[] = [];
  const seen = new Set<string>();
  const parts: { from: number; to: number }[] = [];
  let bytes = 0;
  const pace = newPacer(undefined);
  for await (const entry of entriesOf(zip)) {
    await pace();
    const facts = memberOf(entry);
    const { path } = facts;
    if (seen.has(path)) throw badZip(`${path} is in the zip twice`, { path });
    seen.add(path);
    bytes += facts.size;
    if (bytes > bounds.bytes) throw badZip(`the zip unpacks to more than ${bounds.bytes} bytes`, { path });
    if (facts.size > SMALL && facts.size > entry.compressedSize * bounds.ratio)
      throw badZip(`${path} unpacks to ${facts.size} bytes from ${entry.compressedSize}`, { path });
    const part = localPart(fd, entry, path);
    parts.push(part);
    members.push({ ...facts, at: part.at });
  }
  parts.sort((a, b) => a.from - b.from);
  for (const [i, part] of parts.entries())
    if (i > 0 && part.from < parts[i - 1]!.to)
      throw badZip("two members of the zip share bytes", { actual: part.from });
  return members;
}

async function* entriesOf(zip: yauzl.ZipFile): AsyncGenerator<yauzl.Entry> {
  for (;;) {
    const next = await new Promise<yauzl.Entry | null>((resolve, reject) => {
      const done = (): void => {
        zip.off("entry", found);
        zip.off("end", ended);
        zip.off("error", failed);
      };
      const found = (entry: yauzl.Entry): void => (done(), resolve(entry));
      const ended = (): void => (done(), resolve(null));
      const failed = (error: Error): void => (done(), reject(error));
      zip.on("entry", found).on("end", ended).on("error", failed);
      zip.readEntry();
    });
    if (next === null) return;
    yield next;
  }
}

function memberOf(entry: yauzl.Entry): Omit<Member, "at"> {
  const raw = entry.fileName as unknown as Buffer;
  const name = nameOf(raw, entry.generalPurposeBitFlag);
  const isDirectory = name.endsWith("/");
  const path = isDirectory ? name.slice(0, -1) : name;
  checkMemberPath(path);
  const isMarked = (entry.generalPurposeBitFlag & ENCRYPTED) !== 0;
  if (isMarked) throw badZip(`${path} is encrypted`, { path });
  const { compressionMethod: method } = entry;
  if (method !== STORED && method !== DEFLATED)
    throw badZip(`${path} is packed by the unsupported method ${method}`, { path });
  if (((entry.externalFileAttributes >>> 16) & TYPE) === LINK) throw badZip(`${path} is a link`, { path });
  if (isDirectory && entry.uncompressedSize > 0) throw badZip(`${path} is a directory with content`, { path });
  const { uncompressedSize: size, compressedSize: packedSize, crc32: crc } = entry;
  if (method === STORED && size !== packedSize)
    throw badZip(`${path} is stored uncompressed, but in ${packedSize} bytes instead of ${size}`, { path });
  return { path, isDirectory, size, packedSize, method, crc };
}

/** Names are UTF-8 if the flag says so, else ASCII. Refuses names that other programs would read differently. */
function nameOf(raw: Buffer, flags: number): string {
  const name = raw.toString("utf8");
  const shown = JSON.stringify(name.slice(0, 200));
  if (!Buffer.from(name, "utf8").equals(raw)) throw badZip(`the name ${shown} is not UTF-8`, { path: name });
  if ((flags & UTF8) === 0 && raw.some((byte) => byte > 0x7e))
    throw badZip(`the name ${shown} has no flag for UTF-8`, { path: name });
  return name;
}

/** Returns the place of a member in the file. Throws `damaged` if its own header differs from the central directory. */
function localPart(fd: number, entry: yauzl.Entry, path: string): { from: number; at: number; to: number } {
  const from = entry.relativeOffsetOfLocalHeader;
  const head = Buffer.alloc(LOCAL_BYTES);
  if (fs.readSync(fd, head, 0, LOCAL_BYTES, from) < LOCAL_BYTES || head.readUInt32LE(0) !== LOCAL_MAGIC)
    throw badZip(`${path} is not where the zip's directory says`, { path });
  const raw = entry.fileName as unknown as Buffer;
  const name = Buffer.alloc(head.readUInt16LE(26));
  fs.readSync(fd, name, 0, name.length, from + LOCAL_BYTES);
  const extra = Buffer.alloc(head.readUInt16LE(28));
  fs.readSync(fd, extra, 0, extra.length, from + LOCAL_BYTES + name.length);
  const { size, packedSize, crc } = localFacts(head, extra);
  const isListed = size === entry.uncompressedSize && packedSize === entry.compressedSize && crc === entry.crc32;
  // If sizes and checksum follow the content, the header may have zeros.
  const isLater = (head.readUInt16LE(6) & FACTS_FOLLOW) !== 0 && size === 0 && packedSize === 0 && crc === 0;
  const isSame =
    name.equals(raw) &&
    head.readUInt16LE(6) === entry.generalPurposeBitFlag &&
    head.readUInt16LE(8) === entry.compressionMethod &&
    (isListed || isLater);
  if (!isSame) throw badZip(`the header of ${path} differs from the zip's directory`, { path });
  const at = from + LOCAL_BYTES + name.length + extra.length;
  return { from, at, to: at + entry.compressedSize };
}

/** Sizes and checksum in a member's own header; sizes of more than 32 bits are in its extra field. */
function localFacts(head: Buffer, extra: Buffer): { size: number; packedSize: number; crc: number } {
  let [size, packedSize] = [head.readUInt32LE(22), head.readUInt32LE(18)];
  for (let at = 0; at + 4 <= extra.length; at += 4 + extra.readUInt16LE(at + 2)) {
    if (extra.readUInt16LE(at) !== 1) continue;
    let next = at + 4;
    for (const isSize of [true, false]) {
      if ((isSize ? size : packedSize) !== 0xffff_ffff || next + 8 > extra.length) continue;
      const long = Number(extra.readBigUInt64LE(next));
      if (isSize) size = long;
      else packedSize = long;
      next += 8;
    }
  }
  return { size, packedSize, crc: head.readUInt32LE(14) };
}
