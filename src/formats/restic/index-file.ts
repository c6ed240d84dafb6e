import { parseObjectId, type ObjectId } from "../../ids.ts";
import { ByteWriter } from "../bytes.ts";
import { Fields, goJsonText, parseJson, type JsonObject } from "../fields.ts";
import { JsonCursor } from "./json-cursor.ts";
import { decodePackHeader, type BlobType, type IndexBlob, type PackHeaderEntry } from "./pack-header.ts";

export type { IndexBlob } from "./pack-header.ts";

/** Packs end below 4 GiB, with any writer. */
export const MAX_PACK_SIZE = 0xffffffff;

/** Collects packs into the JSON of one index file, as bytes. */
export class IndexWriter {
  readonly #w = new ByteWriter(1 << 16);
  #blobs = 0;
  #packs = 0;

  /** Adds a pack: its id (32 bytes) and its blobs, or its plain header. Blobs without an offset lie back to back. */
  addPack(packId: Uint8Array, entries: readonly (PackHeaderEntry & { offset?: number })[] | Uint8Array): void {
    const blobs: readonly (PackHeaderEntry & { offset?: number })[] =
      entries instanceof Uint8Array ? decodePackHeader(entries) : entries;
    const w = this.#w;
    w.ascii(this.#packs === 0 ? '{"id":"' : ',{"id":"');
    w.hex(packId, 0, 32);
    w.ascii('","blobs":[');
    let end = 0;
    for (const [i, blob] of blobs.entries()) {
      const offset = blob.offset ?? end;
      w.ascii(i === 0 ? '{"id":"' : ',{"id":"');
      w.hex(blob.id, 0, 32);
      w.ascii(blob.type === "data" ? '","type":"data","offset":' : '","type":"tree","offset":');
      w.decimal(offset);
      w.ascii(',"length":');
      w.decimal(blob.length);
      if (blob.uncompressedLength > 0) {
        w.ascii(',"uncompressed_length":');
        w.decimal(blob.uncompressedLength);
      }
      w.u8(0x7d);
      end = offset + blob.length;
    }
    w.ascii("]}");
    this.#packs++;
    this.#blobs += blobs.length;
  }

  /** Bytes of the file so far, without `supersedes`. */
  get byteLength(): number {
    return this.#w.length + '{"packs":[]}'.length;
  }

  get blobCount(): number {
    return this.#blobs;
  }

  get packCount(): number {
    return this.#packs;
  }

  /** Returns the plain bytes of the index file. `extra` holds members of other writers. */
  finish(supersedes: readonly ObjectId[] = [], extra: JsonObject = {}): Uint8Array {
    const w = new ByteWriter(this.byteLength + supersedes.length * 68 + 64);
    w.u8(0x7b);
    if (supersedes.length > 0) w.ascii(`"supersedes":${JSON.stringify(supersedes)},`);
    w.ascii('"packs":[');
    w.append(this.#w.view());
    w.u8(0x5d);
    const rest = goJsonText(extra).slice(1);
    if (rest.length > 1) {
      w.u8(0x2c);
      w.text(rest);
    } else {
      w.u8(0x7d);
    }
    return w.view();
  }
}

export interface DecodedIndex {
  supersedes: ObjectId[];
  /** Members other than `packs` and `supersedes`, e.g. rustic's `packs_to_delete`. */
  extra: JsonObject;
}

/**
 * Returns the packs that rustic's prune has marked: rustic keeps them for a while, then removes them. Skips invalid
 * entries.
 */
export function markedPacks(extra: JsonObject): string[] {
  const entries = extra["packs_to_delete"];
  if (!Array.isArray(entries)) return [];
  return entries.flatMap((entry: unknown) => {
    const id = typeof entry === "object" && entry !== null ? (entry as JsonObject)["id"] : undefined;
    return typeof id === "string" && /^[0-9a-f]{64}$/.test(id) ? [id] : [];
  });
}

export type OnPack = (packId: Uint8Array, blobs: IndexBlob[]) => void;

/** A pack of an index file, with the range of its blobs in the columns. */
export interface PackRange {
  readonly id: Uint8Array;
  readonly from: number;
  readonly to: number;
}

/**
 * The blobs of an index file in columns, in the file's order: objects for a large index would take more memory than the
 * entries.
 */
export class IndexColumns {
  packs: PackRange[] = [];
  count = 0;
  ids = new Uint8Array(0);
  offsets = new Uint32Array(0);
  lengths = new Uint32Array(0);
  plainLengths = new Uint32Array(0);
  trees = new Uint8Array(0);

  get capacity(): number {
    return this.trees.length;
  }

  /** Removes all blobs and makes room for `capacity` blobs; reuses memory if possible. */
  reset(capacity: number): void {
    this.packs = [];
    this.count = 0;
    if (capacity <= this.capacity) return;
    this.ids = new Uint8Array(capacity * 32);
    this.offsets = new Uint32Array(capacity);
    this.lengths = new Uint32Array(capacity);
    this.plainLengths = new Uint32Array(capacity);
    this.trees = new Uint8Array(capacity);
  }

  /** Returns the blobs of a pack as objects; their ids are views. */
  blobsOf({ from, to }: PackRange): IndexBlob[] {
    const blobs: IndexBlob[] = [];
    for (let at = from; at < to; at++)
      blobs.push({
        id: this.ids.subarray(at * 32, at * 32 + 32),
        type: this.trees[at] === 1 ? "tree" : "data",
        offset: this.offsets[at]!,
        length: this.lengths[at]!,
        uncompressedLength: this.plainLengths[at]!,
      });
    return blobs;
  }
}

function literal(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

const PACKS = literal('"packs":[');
const SUPERSEDES = literal('"supersedes":[');
const PACK = literal('{"id":');
const BLOBS = literal(',"blobs":[');
const BLOB = literal('{"id":');
const DATA = literal(',"type":"data","offset":');
const TREE = literal(',"type":"tree","offset":');
const LENGTH = literal(',"length":');
const UNCOMPRESSED = literal(',"uncompressed_length":');

/** Thrown and caught in this file: the bytes need the general decoder. */
const UNUSUAL = new Error("unusual");

function must(condition: boolean): void {
  if (!condition) throw UNUSUAL;
}

function isPossible(offset: number, length: number, uncompressedLength: number): boolean {
  return length >= 32 && offset + length <= MAX_PACK_SIZE && uncompressedLength <= MAX_PACK_SIZE;
}

function scanBlob(cursor: JsonCursor, to: IndexColumns): void {
  const at = to.count;
  must(at < to.capacity && cursor.accept(BLOB) && cursor.id(to.ids, at * 32));
  const isData = cursor.accept(DATA);
  must(isData || cursor.accept(TREE));
  const offset = cursor.integer();
  must(offset >= 0 && cursor.accept(LENGTH));
  const length = cursor.integer();
  let uncompressedLength = 0;
  if (cursor.accept(UNCOMPRESSED)) {
    uncompressedLength = cursor.integer();
    must(uncompressedLength >= 0);
  }
  must(cursor.acceptByte(0x7d) && isPossible(offset, length, uncompressedLength));
  to.trees[at] = isData ? 0 : 1;
  to.offsets[at] = offset;
  to.lengths[at] = length;
  to.plainLengths[at] = uncompressedLength;
  to.count = at + 1;
}

/** The fewest JSON bytes of a blob: limits the reserved memory. */
const LEAST_BLOB_TEXT = 100;

function scanPacks(cursor: JsonCursor, to: IndexColumns): void {
  if (cursor.acceptByte(0x5d)) return;
  do {
    const id = new Uint8Array(32);
    must(cursor.accept(PACK) && cursor.id(id, 0) && cursor.accept(BLOBS));
    const from = to.count;
    if (!cursor.acceptByte(0x5d)) {
      do scanBlob(cursor, to);
      while (cursor.acceptByte(0x2c));
      must(cursor.acceptByte(0x5d));
    }
    must(cursor.acceptByte(0x7d));
    to.packs.push({ id, from, to: to.count });
  } while (cursor.acceptByte(0x2c));
  must(cursor.acceptByte(0x5d));
}

function scanSupersedes(cursor: JsonCursor): ObjectId[] {
  const ids: ObjectId[] = [];
  const id = Buffer.alloc(32);
  do {
    must(cursor.id(id, 0));
    ids.push(id.toString("hex") as ObjectId);
  } while (cursor.acceptByte(0x2c));
  must(cursor.acceptByte(0x5d) && cursor.acceptByte(0x2c));
  return ids;
}

/** Decodes the usual encoding; null if the encoding is another. */
function decodeUsual(bytes: Uint8Array, to: IndexColumns): DecodedIndex | null {
  to.reset(((bytes.length / LEAST_BLOB_TEXT) | 0) + 1);
  try {
    const cursor = new JsonCursor(bytes);
    must(cursor.acceptByte(0x7b));
    const supersedes = cursor.accept(SUPERSEDES) ? scanSupersedes(cursor) : [];
    must(cursor.accept(PACKS));
    scanPacks(cursor, to);
    must(cursor.acceptByte(0x7d));
    cursor.acceptByte(0x0a);
    must(cursor.position === bytes.length);
    return { supersedes, extra: {} };
  } catch (error) {
    if (error === UNUSUAL) return null;
    throw error;
  }
}

function readBlob(element: unknown, label: string): IndexBlob {
  const fields = new Fields(element, label);
  const type = fields.text("type");
  if (type !== "data" && type !== "tree") throw fields.wrong("type", "data or tree");
  const blob = {
    id: Buffer.from(fields.hex("id", 64), "hex"),
    type: type as BlobType,
    offset: fields.integer("offset", MAX_PACK_SIZE),
    length: fields.integer("length", MAX_PACK_SIZE),
    uncompressedLength: fields.optionalInteger("uncompressed_length", MAX_PACK_SIZE),
  };
  if (!isPossible(blob.offset, blob.length, blob.uncompressedLength)) throw fields.wrong("length", "possible");
  return blob;
}

function readPack(element: unknown, label: string): { id: Uint8Array; blobs: IndexBlob[] } {
  const fields = new Fields(element, label);
  const id = Buffer.from(fields.hex("id", 64), "hex");
  return { id, blobs: fields.has("blobs") ? fields.list("blobs", readBlob) : [] };
}

/**
 * Decodes an index file's plain bytes and calls `onPack` with each pack; blobs are in the file's order. Calls nothing
 * if the file is damaged. Ids own their bytes.
 */
export function decodeIndex(bytes: Uint8Array, onPack: OnPack): DecodedIndex {
  const columns = new IndexColumns();
  const usual = decodeUsual(bytes, columns);
  if (usual === null) return decodeUnusual(bytes, onPack);
  for (const pack of columns.packs) onPack(pack.id, columns.blobsOf(pack));
  return usual;
}

/** Decodes into columns, after emptying them. After an error their content is undefined. */
export function decodeIndexColumns(bytes: Uint8Array, to: IndexColumns): DecodedIndex {
  const usual = decodeUsual(bytes, to);
  if (usual !== null) return usual;
  const packs: { id: Uint8Array; blobs: IndexBlob[] }[] = [];
  const decoded = decodeUnusual(bytes, (id, blobs) => packs.push({ id, blobs }));
  to.reset(packs.reduce((sum, { blobs }) => sum + blobs.length, 0));
  for (const { id, blobs } of packs) {
    const from = to.count;
    for (const blob of blobs) {
      const at = to.count++;
      to.ids.set(blob.id, at * 32);
      to.trees[at] = blob.type === "tree" ? 1 : 0;
      to.offsets[at] = blob.offset;
      to.lengths[at] = blob.length;
      to.plainLengths[at] = blob.uncompressedLength;
    }
    to.packs.push({ id, from, to: to.count });
  }
  return decoded;
}

function decodeUnusual(bytes: Uint8Array, onPack: OnPack): DecodedIndex {
  const value = parseJson(bytes, "index");
  // The oldest encoding is a bare list of packs.
  const fields = new Fields(Array.isArray(value) ? { packs: value } : value, "index");
  const packs = fields.has("packs") ? fields.list("packs", readPack) : [];
  const supersedes = fields.textsOrNone("supersedes").map((text) => {
    if (!/^[0-9a-f]{64}$/.test(text)) throw fields.wrong("supersedes", "a list of ids");
    return parseObjectId(text);
  });
  for (const pack of packs) onPack(pack.id, pack.blobs);
  return { supersedes, extra: fields.rest() };
}
