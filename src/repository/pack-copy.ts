import { closeSync, fstatSync, openSync } from "node:fs";
import { sha256 } from "../crypto/hash.ts";
import { sealMessage } from "../crypto/seal.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { ByteWriter } from "../formats/bytes.ts";
import { encodeHeaderEntry, type BlobType, type IndexBlob, type PackHeaderEntry } from "../formats/pack-header.ts";
import { objectIdOf } from "../ids.ts";
import { giveBack, newArena } from "../native.ts";
import { readAt } from "./pack-read.ts";
import type { Repository } from "./repository.ts";

/** A pack that was put together from sealed blobs of others. */
export interface CopiedPack {
  readonly id: Uint8Array;
  readonly size: number;
  readonly entries: PackHeaderEntry[];
  /** The plain bytes of its header. */
  readonly header: Uint8Array;
}

const PACK_SIZE = 16 * 1024 * 1024;
const MAX_BLOBS = 50_000;
/** Packs below so many bytes are merged, and rewritten for any dead blob: what many small saves make. */
export const SMALL_PACK = 1024 * 1024;
/** Of a usual size, and for the header. */
const ROOM_FOR_THE_LAST = 4 * 1024 * 1024;

interface Open {
  /** Kept from pack to pack: memory that is given back to the collector is given back late. */
  bytes: Uint8Array;
  length: number;
  entries: PackHeaderEntry[];
}

/** Reads whole packs one after the other, all into the same memory where they are local. */
export class WholePackReader {
  readonly #repository: Repository;
  #memory = newArena(0);

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /**
   * A pack's bytes, proven by its name and good until the next one. `damaged` when they are others
   * than were written, `not_found` when it is gone.
   */
  async load(name: string): Promise<Uint8Array> {
    const { storage } = this.#repository;
    const path = storage.localPath?.("data", name);
    const bytes = path === undefined ? await storage.load("data", name) : this.#read(path, name);
    if (objectIdOf(sha256(bytes)) === name) return bytes;
    throw new CairnError("damaged", `pack ${name.slice(0, 8)} is not what was written: its SHA-256 is not its name`);
  }

  /** To be called last: what was loaded is empty then. */
  release(): void {
    giveBack(this.#memory.bytes);
    this.#memory = newArena(0);
  }

  #read(path: string, name: string): Uint8Array {
    try {
      const descriptor = openSync(path, "r");
      try {
        const { size } = fstatSync(descriptor);
        if (size > this.#memory.bytes.length) this.#memory = newArena(size);
        return this.#memory.bytes.subarray(0, readAt(descriptor, 0, size, this.#memory, 0));
      } finally {
        closeSync(descriptor);
      }
    } catch (error) {
      throw toCairnError(error, `cannot read pack ${name.slice(0, 8)}`);
    }
  }
}

/**
 * Copies sealed blobs as they are into new packs, one open pack a type. The bytes keep their seal, so copying
 * them again is a retry and never a second use of a nonce. Packs are saved without flushing: call
 * `storage.sync(["data"])` before an index names them.
 */
export class PackCopier {
  readonly packs: CopiedPack[] = [];
  /** For packs to copy from. */
  readonly source: WholePackReader;
  bytes = 0;
  readonly #repository: Repository;
  readonly #open: Record<BlobType, Open> = { data: fresh(), tree: fresh() };
  readonly #copied = new Set<string>();

  constructor(repository: Repository) {
    this.#repository = repository;
    this.source = new WholePackReader(repository);
  }

  /** Copies one blob out of `pack`, the whole bytes of its old pack. One that was copied already is skipped. */
  async add(pack: Uint8Array, blob: IndexBlob): Promise<void> {
    const key = `${blob.type}${Buffer.from(blob.id.buffer, blob.id.byteOffset, 32).toString("latin1")}`;
    if (this.#copied.has(key)) return;
    this.#copied.add(key);
    const open = this.#open[blob.type];
    append(open, pack.subarray(blob.offset, blob.offset + blob.length));
    open.entries.push({
      id: blob.id.slice(0, 32),
      type: blob.type,
      length: blob.length,
      uncompressedLength: blob.uncompressedLength,
    });
    this.bytes += blob.length;
    if (open.length >= PACK_SIZE || open.entries.length >= MAX_BLOBS) await this.#close(blob.type);
  }

  /** Closes what is open, and gives its memory back. All new packs are in `packs`, saved but not flushed. */
  async finish(): Promise<CopiedPack[]> {
    for (const type of ["data", "tree"] as const) {
      await this.#close(type);
      giveBack(this.#open[type].bytes);
      this.#open[type] = fresh();
    }
    this.source.release();
    return this.packs;
  }

  async #close(type: BlobType): Promise<void> {
    const open = this.#open[type];
    const { entries } = open;
    if (entries.length === 0) return;
    const w = new ByteWriter(entries.length * 41);
    for (const entry of entries) encodeHeaderEntry(w, entry);
    const header = w.view().slice();
    const sealed = sealMessage(this.#repository.keys, header);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(sealed.length);
    append(open, sealed);
    append(open, length);
    const bytes = open.bytes.subarray(0, open.length);
    const id = sha256(bytes);
    await this.#repository.storage.save("data", objectIdOf(id), bytes, { durable: false });
    this.packs.push({ id, size: bytes.length, entries, header });
    open.length = 0;
    open.entries = [];
  }
}

function fresh(): Open {
  return { bytes: new Uint8Array(0), length: 0, entries: [] };
}

function append(open: Open, bytes: Uint8Array): void {
  const end = open.length + bytes.length;
  if (end > open.bytes.length) {
    // Pages that are not written take no memory; growing bit by bit would leave as much again behind.
    const grown = new Uint8Array(end <= SMALL_PACK ? SMALL_PACK : Math.max(end, PACK_SIZE + ROOM_FOR_THE_LAST));
    grown.set(open.bytes.subarray(0, open.length));
    giveBack(open.bytes);
    open.bytes = grown;
  }
  open.bytes.set(bytes, open.length);
  open.length = end;
}

/** Bytes of a pack with these entries: blobs, sealed header, length field. */
export function packSizeOf(entries: readonly PackHeaderEntry[]): number {
  let size = 32 + 4;
  for (const entry of entries) size += entry.length + (entry.uncompressedLength > 0 ? 41 : 37);
  return size;
}
