import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { promisify } from "node:util";
import zlib from "node:zlib";
import { CairnError } from "../errors.ts";
import {
  DEFLATED,
  isInZip,
  MOST_32,
  STORED,
  zipDescriptor,
  zipEnd,
  zipHeader,
  zipListing,
  type ZipMember,
  type ZipNode,
} from "../formats/payloads/zip.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { ByteSink, Output, OutputEntry } from "./output.ts";

/** Content of a member that is ready to be written. */
export interface Packed extends Pick<ZipMember, "method" | "size" | "crc"> {
  data: Uint8Array;
}

/** Twice as fast as 5; text takes 7 % more bytes. */
const LEVEL = 2;
/** Deflated content may be a little longer than the content. */
const LONG_FROM = MOST_32 - (64 << 20);
/** The size of content may grow to twice the expected size while a program writes it. */
const LONG_FROM_EXPECTED = MOST_32 / 2;
/** Headers of the central directory that are written at once. */
const LISTED = 1000;
const SLASH = Buffer.from("/");
const NOTHING = new Uint8Array(0);
const deflate = promisify<Uint8Array, zlib.ZlibOptions, Buffer>(zlib.deflateRaw);

/** Deflates content, or stores it if that gains nothing. */
export async function pack(bytes: Uint8Array): Promise<Packed> {
  // One output chunk: each further one would cost a turn through the thread pool.
  const chunkSize = Math.max(64, bytes.length + (bytes.length >> 8) + 64);
  const packed = bytes.length === 0 ? bytes : await deflate(bytes, { level: LEVEL, chunkSize });
  return packed.length < bytes.length
    ? { method: DEFLATED, data: packed, size: bytes.length, crc: zlib.crc32(bytes) }
    : stored(bytes);
}

function stored(bytes: Uint8Array): Packed {
  return { method: STORED, data: bytes, size: bytes.length, crc: zlib.crc32(bytes) };
}

/**
 * Writes a zip archive. In a stream all files with content are deflated, and their sizes follow. If `sink` can patch,
 * content that does not shrink is stored. The same members in the same order give the same bytes.
 */
export class ZipOutput implements Output<ZipNode> {
  readonly lacks = "them";
  readonly #sink: ByteSink;
  readonly #members: ZipMember[] = [];
  #at = 0;

  constructor(sink: ByteSink) {
    this.#sink = sink;
  }

  next(path: Uint8Array, node: ZipNode): OutputEntry | null {
    if (!isInZip(node)) return null;
    const needsContent = node.type === "file" && node.size > 0;
    const write: OutputEntry["write"] = needsContent
      ? async (content) => this.addPieces(path, node, content!)
      : async () => this.addPacked(path, node, stored(node.linktarget ?? NOTHING));
    return { needsContent, write };
  }

  async addPacked(path: Uint8Array, node: ZipNode, { data, ...facts }: Packed): Promise<void> {
    const member = { ...this.#memberAt(path, node), ...facts, packedSize: data.length };
    await this.#write(zipHeader(member));
    await this.#write(data);
    this.#members.push(member);
  }

  /** Adds content of any length; if the sink can patch, `node.size` is only the expected length. */
  async addPieces(path: Uint8Array, node: ZipNode, pieces: AsyncIterable<Uint8Array>): Promise<void> {
    const member = this.#memberAt(path, node);
    const { patch } = this.#sink;
    if (patch === undefined) {
      Object.assign(member, { method: DEFLATED, isFollowed: true, isLong: node.size >= LONG_FROM });
      await this.#addContent(member, pieces);
      await this.#write(zipDescriptor(member));
    } else {
      const iterator = pieces[Symbol.asyncIterator]();
      const { value: first } = (await iterator.next()) as IteratorResult<Uint8Array, undefined>;
      const { method } = await pack(first ?? NOTHING);
      Object.assign(member, { method, isLong: node.size >= LONG_FROM_EXPECTED });
      await this.#addContent(member, withFirst(first, iterator));
      if (!member.isLong && Math.max(member.packedSize, member.size) > MOST_32)
        throw new CairnError("conflict", `${printablePath(path)} became much larger while it was read`);
      patch(zipHeader(member), member.at);
    }
    this.#members.push(member);
  }

  async end(): Promise<void> {
    const from = this.#at;
    for (let next = 0; next < this.#members.length; next += LISTED)
      await this.#write(Buffer.concat(this.#members.slice(next, next + LISTED).map(zipListing)));
    await this.#write(zipEnd({ count: this.#members.length, from, bytes: this.#at - from }));
  }

  #memberAt(path: Uint8Array, node: ZipNode): ZipMember {
    const name = node.type === "dir" ? Buffer.concat([path, SLASH]) : path;
    const unknown = { method: STORED, isFollowed: false, isLong: false, size: 0, packedSize: 0, crc: 0 } as const;
    return { name, node, at: this.#at, ...unknown };
  }

  async #addContent(member: ZipMember, pieces: AsyncIterable<Uint8Array>): Promise<void> {
    await this.#write(zipHeader(member));
    const from = this.#at;
    const counted = async function* (): AsyncGenerator<Uint8Array> {
      for await (const piece of pieces) {
        member.crc = zlib.crc32(piece, member.crc);
        member.size += piece.length;
        yield piece;
      }
    };
    for await (const piece of member.method === STORED ? counted() : deflated(counted())) await this.#write(piece);
    member.packedSize = this.#at - from;
  }

  async #write(bytes: Uint8Array): Promise<void> {
    this.#at += bytes.length;
    await this.#sink.write(bytes);
  }
}

async function* withFirst(first: Uint8Array | undefined, rest: AsyncIterator<Uint8Array>): AsyncGenerator<Uint8Array> {
  if (first !== undefined) yield first;
  yield* { [Symbol.asyncIterator]: () => rest };
}

async function* deflated(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
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
