import { randomBytes } from "node:crypto";
import { closeSync, openSync, readSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Sha256Stream } from "../../crypto/hash.ts";
import { sealMessage, SEAL_OVERHEAD, StageSealer } from "../../crypto/seal.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { ByteWriter, hex } from "../../formats/bytes.ts";
import { COMPRESSED_ENTRY_SIZE } from "../../formats/restic/pack-header.ts";
import type { BlobType, PackHeaderEntry } from "../../formats/restic/pack-header.ts";
import { bindNativeLater } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { Compressor, DEFAULT_LEVEL } from "./compression.ts";
import type { CompressionLevel } from "./compression.ts";
import { openRegular } from "../../fs/regular-file.ts";

/**
 * The name of a complete pack in its writer's folder: `pack-` and its SHA-256. The name of an unfinished pack is
 * shorter.
 */
export const COMPLETE_PACK = /^pack-([0-9a-f]{64})$/;

/** A complete pack file under a temporary name. Its write-back has been started, but not awaited. */
export interface FinishedPack {
  /** 32 bytes: SHA-256 of the file, its name in the repository. */
  readonly id: Uint8Array;
  readonly path: string;
  /** Bytes of the file. */
  readonly size: number;
  readonly type: BlobType;
  /** The header's plain bytes: 37- and 41-byte entries in file order. */
  readonly header: Uint8Array;
  readonly blobs: number;
}

/** An unfinished pack: sealed blobs back to back in a closed file, without a header. */
export interface PackTail {
  readonly path: string;
  readonly type: BlobType;
  readonly length: number;
  readonly header: Uint8Array;
  readonly blobs: number;
}

/** The bytes of a blob before encryption: compressed, or plain. */
export interface StoredBytes {
  arena: Arena;
  offset: number;
  length: number;
  /** Length of the plaintext; 0: the blob is not compressed. */
  plainLength: number;
}

/** A sealed blob of another pack. */
export type SealedBlob = Pick<PackHeaderEntry, "id" | "length" | "uncompressedLength">;

export interface PackWriterOptions {
  readonly type: BlobType;
  readonly keys: MasterKeys;
  /** Folder of temporary files; must exist. */
  readonly directory: string;
  /** Bytes at which a pack is closed; default 16 MiB. */
  readonly packSize?: number;
  readonly level?: CompressionLevel;
  /**
   * Called synchronously with each blob that `add` has compressed, before encryption. `stored` is valid during the
   * call.
   */
  onStored?(id: Uint8Array, idOffset: number, stored: StoredBytes): void;
  /** Called synchronously with each complete pack; the receiver owns the file from then on. */
  onPack(pack: FinishedPack): void;
}

const DEFAULT_PACK_SIZE = 16 * 1024 * 1024;
const STAGE_SIZE = 256 * 1024;
const STAGE_ROOM = 1024 * 1024;
const COPY_SIZE = 1024 * 1024;
/** Keeps the header far below restic's limit of 16 MiB, even with tiny blobs. */
const MAX_BLOBS = 65_536;
const SYNC_FILE_RANGE_WRITE = 2;

const syncFileRange = bindNativeLater(
  "int sync_file_range(int fd, int64_t offset, int64_t length, unsigned int flags)",
);

/**
 * Compresses, seals and writes blobs of one type into packs under temporary names. Synchronous, one per
 * thread. After any error only `abort()` may be called.
 */
export class PackWriter {
  readonly #options: PackWriterOptions;
  readonly #typeByte: number;
  readonly #packSize: number;
  readonly #compressor: Compressor;
  readonly #stage: StageSealer;
  readonly #header = new ByteWriter(COMPRESSED_ENTRY_SIZE * 4096);
  /** One object for all blobs. */
  readonly #stored: StoredBytes;
  #hash = new Sha256Stream();
  #descriptor = -1;
  #path = "";
  /** Sealed bytes of the current pack that are in the file. */
  #length = 0;
  #blobs = 0;
  #failed = false;
  /** Bytes of all sealed blobs and headers so far. */
  storedBytes = 0;

  constructor(options: PackWriterOptions) {
    this.#options = options;
    this.#typeByte = options.type === "tree" ? 1 : 0;
    this.#packSize = options.packSize ?? DEFAULT_PACK_SIZE;
    this.#compressor = new Compressor(options.level ?? DEFAULT_LEVEL);
    this.#stage = new StageSealer(options.keys, STAGE_ROOM);
    this.#stored = { arena: this.#stage.arena, offset: 0, length: 0, plainLength: 0 };
  }

  /** True if no pack is open. */
  get isEmpty(): boolean {
    return this.#blobs === 0;
  }

  /**
   * Stores the blob of `length` ≥ 1 bytes at `offset` of `plain`, whose SHA-256 is the 32 bytes at `idOffset` of `id`.
   * Copies both. Errors: no_space, io and other errors of the file system.
   */
  add(id: Uint8Array, plain: Arena, offset: number, length: number, idOffset = 0): void {
    const at = this.#reserve(length);
    const target = this.#stage.arena;
    let stored = this.#compressor.compress(plain, offset, length, target, at, target.bytes.length - at);
    const compressed = stored > 0;
    if (!compressed) {
      target.bytes.set(plain.bytes.subarray(offset, offset + length), at);
      stored = length;
    }
    const { onStored } = this.#options;
    if (onStored !== undefined) {
      const bytes = this.#stored;
      bytes.arena = target;
      bytes.offset = at;
      bytes.length = stored;
      bytes.plainLength = compressed ? length : 0;
      onStored(id, idOffset, bytes);
    }
    this.#append(id, idOffset, stored, compressed ? length : 0);
  }

  /**
   * Stores a blob in the form of another storage, e.g. as a zstd frame. The caller knows that its plaintext has this
   * id. Errors as of `add`.
   */
  addStored(id: Uint8Array, idOffset: number, { arena, offset, length, plainLength }: StoredBytes): void {
    const at = this.#reserve(length);
    this.#stage.arena.bytes.set(arena.bytes.subarray(offset, offset + length), at);
    this.#append(id, idOffset, length, plainLength);
  }

  /**
   * Stores blobs that follow each other in `sealed`, unchanged. The caller has proven that the blobs are sealed with
   * these keys. Copying the same bytes is no second use of a nonce. Throws the errors of `add`.
   */
  addSealed(sealed: Uint8Array, blobs: readonly SealedBlob[]): void {
    this.#flush();
    if (this.#blobs + blobs.length > MAX_BLOBS) this.#finishPack();
    this.#guard(() => {
      this.#openFile();
      this.#write(sealed);
    });
    for (const { id, length, uncompressedLength } of blobs) this.#appendEntry(id, 0, length, uncompressedLength);
    this.storedBytes += sealed.length;
    if (this.#length >= this.#packSize) this.#finishPack();
  }

  /** Returns the offset in the stage for `length` bytes. */
  #reserve(length: number): number {
    if (this.#failed) throw new CairnError("internal", "a pack writer that failed was used again");
    if (length < 1) throw new CairnError("internal", "an empty blob is never stored");
    const at = this.#stage.reserve(length);
    if (at >= 0) return at;
    this.#flush();
    return this.#stage.reserve(length);
  }

  /** Adds the blob at the stage's reserved offset. `plainLength` 0: the blob is not compressed. */
  #append(id: Uint8Array, idOffset: number, stored: number, plainLength: number): void {
    this.#stage.commit(stored);
    this.#appendEntry(id, idOffset, stored + SEAL_OVERHEAD, plainLength);
    this.storedBytes += stored + SEAL_OVERHEAD;
    if (this.#stage.used >= STAGE_SIZE) this.#flush();
    if (this.#blobs >= MAX_BLOBS || this.#length + this.#stage.sealedBytes >= this.#packSize) this.#finishPack();
  }

  #appendEntry(id: Uint8Array, idOffset: number, sealedLength: number, plainLength: number): void {
    const header = this.#header;
    header.reserve(COMPRESSED_ENTRY_SIZE);
    const { bytes } = header;
    let at = header.length;
    bytes[at++] = this.#typeByte + (plainLength > 0 ? 2 : 0);
    at = putU32(bytes, at, sealedLength);
    if (plainLength > 0) at = putU32(bytes, at, plainLength);
    for (let index = 0; index < 32; index++) bytes[at + index] = id[idOffset + index]!;
    header.length = at + 32;
    this.#blobs += 1;
  }

  /** Seals the remaining blobs and completes the pack, if one is open. */
  finish(): void {
    this.#finishPack();
  }

  /**
   * Seals the remaining blobs and returns the unfinished pack, for another writer's `appendTail`. Null if no pack is
   * open.
   */
  takeTail(): PackTail | null {
    this.#flush();
    if (this.#blobs === 0) return null;
    const tail = {
      path: this.#path,
      type: this.#options.type,
      length: this.#length,
      header: this.#header.copy(),
      blobs: this.#blobs,
    };
    this.#guard(() => closeSync(this.#descriptor));
    this.#startOver();
    return tail;
  }

  /**
   * Copies another writer's sealed blobs into the current pack and removes their file; after an error the file stays.
   */
  appendTail(tail: PackTail): void {
    if (tail.type !== this.#options.type)
      throw new CairnError("internal", `a ${tail.type} tail does not go into a ${this.#options.type} pack`);
    this.#flush();
    if (this.#blobs > 0 && (this.#blobs + tail.blobs > MAX_BLOBS || this.#length + tail.length > 2 * this.#packSize))
      this.#finishPack();
    this.#guard(() => this.#copyTail(tail));
    this.#header.append(tail.header);
    this.#blobs += tail.blobs;
    this.storedBytes += tail.length;
    if (this.#length >= this.#packSize) this.#finishPack();
  }

  #copyTail(tail: PackTail): void {
    this.#openFile();
    const buffer = Buffer.allocUnsafe(Math.min(COPY_SIZE, Math.max(1, tail.length)));
    const source = openRegular(tail.path);
    try {
      for (let done = 0; done < tail.length;) {
        const count = readSync(source, buffer, 0, Math.min(buffer.length, tail.length - done), done);
        if (count === 0) throw new CairnError("damaged", `an unfinished pack ends at ${done} of ${tail.length} bytes`);
        this.#write(buffer.subarray(0, count));
        done += count;
      }
    } finally {
      closeSync(source);
    }
    unlinkSync(tail.path);
  }

  /** Removes the unfinished file if possible. Finished packs and tails belong to their receivers. */
  abort(): void {
    this.#failed = true;
    if (this.#descriptor < 0) return;
    const descriptor = this.#descriptor;
    this.#descriptor = -1;
    try {
      try {
        closeSync(descriptor);
      } finally {
        unlinkSync(this.#path);
      }
    } catch {
      // The earlier error counts.
    }
  }

  /** Seals the stage and appends it to the file. */
  #flush(): void {
    if (this.#failed) throw new CairnError("internal", "a pack writer that failed was used again");
    if (this.#stage.count === 0) return;
    this.#guard(() => {
      this.#openFile();
      const count = this.#stage.seal();
      this.#write(this.#stage.arena.bytes.subarray(0, count));
    });
  }

  #finishPack(): void {
    this.#flush();
    if (this.#blobs === 0) return;
    const pack = this.#guard(() => this.#closePack());
    this.#startOver();
    this.#options.onPack(pack);
  }

  #closePack(): FinishedPack {
    const header = this.#header.copy();
    const sealed = sealMessage(this.#options.keys, header);
    const trailer = Buffer.alloc(sealed.length + 4);
    trailer.set(sealed);
    trailer.writeUInt32LE(sealed.length, sealed.length);
    this.#write(trailer);
    this.storedBytes += trailer.length;
    syncFileRange()?.(this.#descriptor, 0, 0, SYNC_FILE_RANGE_WRITE);
    closeSync(this.#descriptor);
    const id = this.#hash.digest();
    // After a kill the name tells that the file is complete, and its expected SHA-256.
    const path = join(this.#options.directory, `pack-${hex(id)}`);
    renameSync(this.#path, path);
    return {
      id,
      path,
      size: this.#length,
      type: this.#options.type,
      header,
      blobs: this.#blobs,
    };
  }

  #startOver(): void {
    this.#descriptor = -1;
    this.#path = "";
    this.#length = 0;
    this.#blobs = 0;
    this.#header.reset();
    this.#hash = new Sha256Stream();
  }

  #openFile(): void {
    if (this.#descriptor >= 0) return;
    this.#path = join(this.#options.directory, `pack-${randomBytes(12).toString("hex")}`);
    this.#descriptor = openSync(this.#path, "wx", 0o600);
  }

  /** Appends all bytes to the file and to the running hash. */
  #write(bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;)
      done += writeSync(this.#descriptor, bytes, done, bytes.length - done, this.#length + done);
    this.#hash.update(bytes);
    this.#length += bytes.length;
  }

  /** A stage is sealed only once: after any error only `abort()` may be called. */
  #guard<Result>(work: () => Result): Result {
    try {
      return work();
    } catch (error) {
      this.#failed = true;
      throw toCairnError(error, `writing a ${this.#options.type} pack in ${this.#options.directory}`);
    }
  }
}

function putU32(bytes: Uint8Array, at: number, value: number): number {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
  return at + 4;
}
