import { CairnError } from "../errors.ts";
import { parseObjectId, type ObjectId } from "../ids.ts";
import { ByteWriter } from "./bytes.ts";
import { Fields, goJsonText, parseJson, type JsonObject } from "./fields.ts";
import { JsonCursor } from "./json-cursor.ts";
import { decodePackHeader, type BlobType, type IndexBlob, type PackHeaderEntry } from "./pack-header.ts";

export type { IndexBlob } from "./pack-header.ts";

/** Packs end below 4 GiB, whoever wrote them. */
const MAX_PACK_SIZE = 0xffffffff;

/** Collects packs into the JSON of one index file, as bytes. */
export class IndexWriter {
  readonly #w = new ByteWriter(1 << 16);
  #blobs = 0;
  #packs = 0;

  /** Adds a pack: its id (32 bytes) and its blobs in file order, or its plain header. */
  addPack(packId: Uint8Array, entries: readonly PackHeaderEntry[] | Uint8Array): void {
    const blobs = entries instanceof Uint8Array ? decodePackHeader(entries) : entries;
    const w = this.#w;
    w.ascii(this.#packs === 0 ? '{"id":"' : ',{"id":"');
    w.hex(packId, 0, 32);
    w.ascii('","blobs":[');
    let offset = 0;
    for (const blob of blobs) {
      w.ascii(offset === 0 ? '{"id":"' : ',{"id":"');
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
      offset += blob.length;
    }
    w.ascii("]}");
    this.#packs++;
    this.#blobs += blobs.length;
  }

  /** Adds a pack whose blobs stand at offsets of their own, e.g. when rewriting another's index. */
  addPlacedPack(packId: Uint8Array, blobs: readonly IndexBlob[]): void {
    const sorted = blobs.toSorted((a, b) => a.offset - b.offset);
    let offset = 0;
    for (const blob of sorted) {
      if (blob.offset !== offset) throw new CairnError("damaged", "index: the blobs of a pack do not lie back to back");
      offset += blob.length;
    }
    this.addPack(packId, sorted);
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

  /** The plain bytes of the index file; `extra` holds members of other writers. */
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
 * Packs that rustic's prune has marked: out of use, kept for a while for who may still need them, and then removed by it.
 * An entry that is none is nobody's.
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

/** Thrown and caught in this file: these bytes need the general decoder. */
const UNUSUAL = new Error("unusual");

function must(condition: boolean): void {
  if (!condition) throw UNUSUAL;
}

function checkBlob(blob: IndexBlob): boolean {
  return blob.length >= 32 && blob.offset + blob.length <= MAX_PACK_SIZE && blob.uncompressedLength <= MAX_PACK_SIZE;
}

function scanBlob(cursor: JsonCursor, pool: Uint8Array, at: number): IndexBlob {
  must(cursor.accept(BLOB) && cursor.id(pool, at));
  let type: BlobType = "data";
  if (!cursor.accept(DATA)) {
    must(cursor.accept(TREE));
    type = "tree";
  }
  const offset = cursor.integer();
  must(offset >= 0 && cursor.accept(LENGTH));
  const length = cursor.integer();
  let uncompressedLength = 0;
  if (cursor.accept(UNCOMPRESSED)) {
    uncompressedLength = cursor.integer();
    must(uncompressedLength >= 0);
  }
  must(cursor.acceptByte(0x7d));
  const blob = { id: new Uint8Array(pool.buffer, at, 32), type, offset, length, uncompressedLength };
  must(checkBlob(blob));
  return blob;
}

/** A blob takes at least this many bytes of JSON: bounds the memory that is reserved for ids. */
const LEAST_BLOB_TEXT = 100;

function scanPacks(cursor: JsonCursor): { id: Uint8Array; blobs: IndexBlob[] }[] {
  const packs: { id: Uint8Array; blobs: IndexBlob[] }[] = [];
  const pool = new Uint8Array(((cursor.bytes.length / LEAST_BLOB_TEXT) | 0) * 32 + 64);
  let end = 0;
  if (cursor.acceptByte(0x5d)) return packs;
  do {
    const id = new Uint8Array(32);
    must(cursor.accept(PACK) && cursor.id(id, 0) && cursor.accept(BLOBS));
    const blobs: IndexBlob[] = [];
    if (!cursor.acceptByte(0x5d)) {
      do {
        must(end + 32 <= pool.length);
        blobs.push(scanBlob(cursor, pool, end));
        end += 32;
      } while (cursor.acceptByte(0x2c));
      must(cursor.acceptByte(0x5d));
    }
    must(cursor.acceptByte(0x7d));
    packs.push({ id, blobs });
  } while (cursor.acceptByte(0x2c));
  must(cursor.acceptByte(0x5d));
  return packs;
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

/** The usual encoding; null when it is any other. Nothing is reported before the whole file was read. */
function decodeUsual(bytes: Uint8Array, onPack: OnPack): DecodedIndex | null {
  try {
    const cursor = new JsonCursor(bytes);
    must(cursor.acceptByte(0x7b));
    const supersedes = cursor.accept(SUPERSEDES) ? scanSupersedes(cursor) : [];
    must(cursor.accept(PACKS));
    const packs = scanPacks(cursor);
    must(cursor.acceptByte(0x7d));
    cursor.acceptByte(0x0a);
    must(cursor.position === bytes.length);
    for (const pack of packs) onPack(pack.id, pack.blobs);
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
  if (!checkBlob(blob)) throw fields.wrong("length", "possible");
  return blob;
}

function readPack(element: unknown, label: string): { id: Uint8Array; blobs: IndexBlob[] } {
  const fields = new Fields(element, label);
  const id = Buffer.from(fields.hex("id", 64), "hex");
  return { id, blobs: fields.has("blobs") ? fields.list("blobs", readBlob) : [] };
}

/**
 * Reads an index file's plain bytes and hands out its packs; blobs are in the file's order, not sorted.
 * Nothing is handed out when the file is damaged. Ids own their bytes.
 */
export function decodeIndex(bytes: Uint8Array, onPack: OnPack): DecodedIndex {
  const usual = decodeUsual(bytes, onPack);
  if (usual !== null) return usual;
  const value = parseJson(bytes, "index");
  // The oldest encoding is the bare list of packs.
  const fields = new Fields(Array.isArray(value) ? { packs: value } : value, "index");
  const packs = fields.has("packs") ? fields.list("packs", readPack) : [];
  const supersedes = fields.textsOrNone("supersedes").map((text) => {
    if (!/^[0-9a-f]{64}$/.test(text)) throw fields.wrong("supersedes", "a list of ids");
    return parseObjectId(text);
  });
  for (const pack of packs) onPack(pack.id, pack.blobs);
  return { supersedes, extra: fields.rest() };
}
