import { sha256 } from "../crypto/hash.ts";
import { sealMessage } from "../crypto/seal.ts";
import { CairnError } from "../errors.ts";
import { ByteWriter } from "../formats/bytes.ts";
import { encodeHeaderEntry, type BlobType, type IndexBlob, type PackHeaderEntry } from "../formats/pack-header.ts";
import { objectIdOf } from "../ids.ts";
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

interface Open {
  chunks: Uint8Array[];
  entries: PackHeaderEntry[];
  length: number;
}

/**
 * Copies sealed blobs as they are into new packs, one open pack a type. The bytes keep their seal, so copying
 * them again is a retry and never a second use of a nonce. Packs are saved without flushing: call
 * `storage.sync(["data"])` before an index names them.
 */
export class PackCopier {
  readonly packs: CopiedPack[] = [];
  bytes = 0;
  readonly #repository: Repository;
  readonly #open: Record<BlobType, Open> = { data: fresh(), tree: fresh() };
  readonly #copied = new Set<string>();

  constructor(repository: Repository) {
    this.#repository = repository;
  }

  /** Copies one blob out of `pack`, the whole bytes of its old pack. One that was copied already is skipped. */
  async add(pack: Uint8Array, blob: IndexBlob): Promise<void> {
    const key = `${blob.type}${Buffer.from(blob.id.buffer, blob.id.byteOffset, 32).toString("latin1")}`;
    if (this.#copied.has(key)) return;
    this.#copied.add(key);
    const open = this.#open[blob.type];
    open.chunks.push(pack.slice(blob.offset, blob.offset + blob.length));
    open.entries.push({
      id: blob.id.slice(0, 32),
      type: blob.type,
      length: blob.length,
      uncompressedLength: blob.uncompressedLength,
    });
    open.length += blob.length;
    this.bytes += blob.length;
    if (open.length >= PACK_SIZE || open.entries.length >= MAX_BLOBS) await this.#close(blob.type);
  }

  /** Closes what is open. All new packs are in `packs`, saved but not flushed. */
  async finish(): Promise<CopiedPack[]> {
    await this.#close("data");
    await this.#close("tree");
    return this.packs;
  }

  async #close(type: BlobType): Promise<void> {
    const { chunks, entries } = this.#open[type];
    if (entries.length === 0) return;
    this.#open[type] = fresh();
    const w = new ByteWriter(entries.length * 41);
    for (const entry of entries) encodeHeaderEntry(w, entry);
    const header = w.view().slice();
    const sealed = sealMessage(this.#repository.keys, header);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(sealed.length);
    const bytes = Buffer.concat([...chunks, sealed, length]);
    const id = sha256(bytes);
    await this.#repository.storage.save("data", objectIdOf(id), bytes, { durable: false });
    this.packs.push({ id, size: bytes.length, entries, header });
  }
}

/** A whole pack, proven by its name. `damaged` when its bytes are others than were written. */
export async function loadWholePack(repository: Repository, name: string): Promise<Uint8Array> {
  const bytes = await repository.storage.load("data", name);
  if (objectIdOf(sha256(bytes)) !== name) {
    throw new CairnError("damaged", `pack ${name.slice(0, 8)} is not what was written: its SHA-256 is not its name`);
  }
  return bytes;
}

/** Bytes of a pack with these entries: blobs, sealed header, length field. */
export function packSizeOf(entries: readonly PackHeaderEntry[]): number {
  let size = 32 + 4;
  for (const entry of entries) size += entry.length + (entry.uncompressedLength > 0 ? 41 : 37);
  return size;
}

function fresh(): Open {
  return { chunks: [], entries: [], length: 0 };
}
