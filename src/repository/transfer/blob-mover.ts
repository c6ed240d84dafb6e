import { closeSync } from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { SEAL_OVERHEAD } from "../../crypto/seal.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import type { BlobType } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { type Arena, newArena } from "../../native.ts";
import { BlobDecoder, placeProblem } from "../packs/blob-decoder.ts";
import { type BlobIndex, TREE_BLOB } from "../index/blob-index.ts";
import type { OnDamagedPack } from "../read/blob-source.ts";
import type { PackFiles } from "../read/near-packs.ts";
import { readSectors } from "../packs/pack-read.ts";
import { isCompressedAnew, type PackStyle, writerOptions } from "../packs/pack-style.ts";
import { type FinishedPack, PackWriter } from "../packs/pack-writer.ts";

export interface BlobMoverOptions {
  from: { keys: MasterKeys; index: BlobIndex; packs: PackFiles };
  to: { keys: MasterKeys; style: PackStyle };
  /** Folder of unfinished packs; must exist. */
  directory: string;
  /** Called synchronously with each finished pack, which the receiver then owns. */
  onPack(pack: FinishedPack): void;
  /** May repeat a pack. */
  onDamagedPack?: OnDamagedPack | undefined;
}

const WINDOW = 1024 * 1024;
/** The most unwanted bytes between two blobs that are cheaper to read than a second call. */
const GAP = 16 * 1024;
const IV_LENGTH = SEAL_OVERHEAD / 2;

/**
 * Copies blobs of one repository into packs of another. Decrypts, decompresses and compares each with its id, then
 * seals the stored form with the other keys; compresses anew only if the other style needs it. A damaged blob is read
 * from another local pack. Synchronous, one per thread.
 */
export class BlobMover {
  readonly #options: BlobMoverOptions;
  readonly #decoder: BlobDecoder;
  readonly #isCompressedAnew: boolean;
  readonly #writers: readonly [data: PackWriter, tree: PackWriter];
  #window = newArena(WINDOW);
  #frame = { arena: this.#window, offset: 0, length: 0, plainLength: 0 };
  #pack = -1;
  #descriptor = -1;

  constructor(options: BlobMoverOptions) {
    this.#options = options;
    this.#decoder = new BlobDecoder(options.from.keys);
    const { directory, onPack, to } = options;
    const writer = (type: BlobType): PackWriter =>
      new PackWriter({
        type,
        keys: to.keys,
        directory,
        onPack: (pack) => onPack(pack),
        ...writerOptions(to.style, type),
      });
    this.#writers = [writer("data"), writer("tree")];
    this.#isCompressedAnew = isCompressedAnew(to.style);
  }

  /**
   * Moves the run of entries from `at` on that one read fetches. Entries are sorted by pack and offset. Returns the
   * position after the run. Throws `damaged` if the first is sound nowhere: nothing is written, and it may be tried
   * again. After other errors only `abort` may be called.
   */
  moveSome(entries: Uint32Array, at: number): number {
    const { table } = this.#options.from.index;
    const { offsetOf, lengthOf, plainOf } = table;
    const first = entries[at]!;
    const start = table.offsetOf[first]!;
    const problem = placeProblem(table.lengthOf[first]!, table.plainOf[first]!);
    if (problem !== null) return this.#moveOther(first, this.#damage(first, problem), at);
    let end = start + table.lengthOf[first]!;
    let to = at + 1;
    for (; to < entries.length; to++) {
      const entry = entries[to]!;
      const offset = table.offsetOf[entry]!;
      if (table.packOf[entry] !== table.packOf[first] || table.typeOf(entry) !== table.typeOf(first)) break;
      if (!(offset >= end && offset - end <= GAP && offset + table.lengthOf[entry]! - start <= WINDOW)) break;
      end = offset + table.lengthOf[entry]!;
    }
    let descriptor: number;
    try {
      descriptor = this.#open(table.packOf[first]!);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      return this.#moveOther(first, known, at);
    }
    const read = (bytes: number): number => readSectors(descriptor, start, bytes, this.#room(bytes), 0);
    let found = read(end - start);
    if (found < 0 && to > at + 1) {
      // A bad sector belongs to one of the blobs: read them one by one.
      to = at + 1;
      found = read(table.lengthOf[first]!);
    }
    for (let next = at; next < to; next++) {
      const entry = entries[next]!;
      const problem = this.#decode(entry, offsetOf[entry]! - start, lengthOf[entry]!, plainOf[entry]!, found);
      if (problem === null) this.#write(entry);
      // The next run starts with the damaged entry.
      else if (next > at) return next;
      else return this.#moveOther(entry, this.#damage(entry, problem), at);
    }
    return to;
  }

  /**
   * Moves an entry from its first other place that is sound. Returns the position after it; throws `error` if none is.
   */
  #moveOther(entry: number, error: CairnError, at: number): number {
    const { index, packs } = this.#options.from;
    for (const { pack, offset, length, uncompressedLength } of index.others(entry)) {
      if (placeProblem(length, uncompressedLength) !== null) continue;
      let descriptor: number;
      try {
        descriptor = packs.open(objectIdOf(pack));
      } catch (missing) {
        const known = toCairnError(missing);
        if (known.code !== "damaged") throw known;
        continue;
      }
      try {
        const found = readSectors(descriptor, offset, length, this.#room(length), 0);
        if (this.#decode(entry, 0, length, uncompressedLength, found) !== null) continue;
      } finally {
        closeSync(descriptor);
      }
      this.#options.onDamagedPack?.(objectIdOf(index.place(entry).pack), true);
      this.#write(entry);
      return at + 1;
    }
    this.#options.onDamagedPack?.(objectIdOf(index.place(entry).pack), false);
    throw error;
  }

  /** Decodes a blob of the window, which has `found` bytes. Returns the problem, or null. */
  #decode(entry: number, at: number, length: number, plainLength: number, found: number): string | null {
    const lengths = { length, uncompressedLength: plainLength };
    const id = this.#options.from.index.idOf(entry);
    const problem =
      this.#decoder.storedProblem(this.#window, at, found, lengths) ??
      this.#decoder.contentProblem(this.#window, at, lengths, id);
    if (problem !== null) return problem;
    const frame = this.#frame;
    // The blob was decrypted in place.
    frame.arena = this.#window;
    frame.offset = at + IV_LENGTH;
    frame.length = length - SEAL_OVERHEAD;
    frame.plainLength = plainLength;
    return null;
  }

  #write(entry: number): void {
    const { table } = this.#options.from.index;
    const writer = this.#writers[table.typeOf(entry) === TREE_BLOB ? 1 : 0];
    const id = table.ids.subarray(entry * 32, entry * 32 + 32);
    const { arena, offset, length } = this.#decoder;
    if (this.#frame.plainLength > 0 && !this.#isCompressedAnew) writer.addStored(id, 0, this.#frame);
    else writer.add(id, arena, offset, length);
  }

  #room(length: number): Arena {
    if (length > this.#window.bytes.length) this.#window = newArena(length);
    else if (this.#window.bytes.length > 16 * WINDOW) this.#window = newArena(Math.max(WINDOW, length));
    return this.#window;
  }

  #open(pack: number): number {
    if (this.#pack === pack) return this.#descriptor;
    this.#close();
    const { index, packs } = this.#options.from;
    this.#descriptor = packs.open(objectIdOf(index.table.packId(pack)));
    this.#pack = pack;
    return this.#descriptor;
  }

  #close(): void {
    if (this.#descriptor >= 0) closeSync(this.#descriptor);
    this.#descriptor = -1;
    this.#pack = -1;
  }

  #damage(entry: number, reason: string): CairnError {
    const { index } = this.#options.from;
    const place = index.place(entry);
    const blob = objectIdOf(index.idOf(entry));
    const pack = objectIdOf(place.pack);
    return new CairnError(
      "damaged",
      `${place.type} blob ${blob.slice(0, 12)} at ${place.offset} of pack ${pack.slice(0, 12)} is damaged: ${reason}`,
      {
        hint: advice`nothing damaged is passed on; verify the source: ${call("verify")} for a workspace, ${call("backup verify", "verify")} for a repository`,
        details: { blob, pack, offset: place.offset, reason },
      },
    );
  }

  /** Completes the open packs. */
  finish(): void {
    this.#close();
    for (const writer of this.#writers) writer.finish();
  }

  /** Removes unfinished files. Finished packs belong to their receiver. */
  abort(): void {
    this.#close();
    for (const writer of this.#writers) writer.abort();
  }
}
