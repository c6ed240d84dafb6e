import { closeSync } from "node:fs";
import type { MasterKeys } from "../crypto/seal.ts";
import { SEAL_OVERHEAD } from "../crypto/seal.ts";
import { CairnError } from "../errors.ts";
import { objectIdOf } from "../ids.ts";
import { type Arena, newArena } from "../native.ts";
import { BlobDecoder, placeProblem } from "./blob-decoder.ts";
import { type BlobIndex, TREE_BLOB } from "./blob-index.ts";
import { BAD_SECTOR, readSectors } from "./pack-read.ts";
import { type FinishedPack, PackWriter } from "./pack-writer.ts";

export interface BlobMoverOptions {
  from: { keys: MasterKeys; index: BlobIndex; openPack(pack: string): number };
  /** Version 1 knows no compression: there everything is stored as it is. */
  to: { keys: MasterKeys; version: 1 | 2 };
  /** Where unfinished packs go; must exist. */
  directory: string;
  /** Called synchronously; the file is the receiver's from then on. */
  onPack(pack: FinishedPack): void;
}

const WINDOW = 1024 * 1024;
/** Unwanted bytes between two blobs that are cheaper to read than a second call. */
const GAP = 16 * 1024;
const IV_LENGTH = SEAL_OVERHEAD / 2;

/**
 * Takes blobs out of one repository's packs into packs for another: opened with the one's keys, decompressed and
 * compared with their ids, and what was stored sealed with the other's keys. Nothing is cut or compressed anew.
 * Synchronous, one per thread. After an error only `abort` may be called.
 */
export class BlobMover {
  readonly #options: BlobMoverOptions;
  readonly #decoder: BlobDecoder;
  readonly #writers: readonly [data: PackWriter, tree: PackWriter];
  #window = newArena(WINDOW);
  #pack = -1;
  #descriptor = -1;

  constructor(options: BlobMoverOptions) {
    this.#options = options;
    this.#decoder = new BlobDecoder(options.from.keys);
    const { directory, onPack, to } = options;
    const level = to.version === 1 ? { level: 0 } : {};
    const common = { keys: to.keys, directory, onPack: (pack: FinishedPack) => onPack(pack), ...level };
    this.#writers = [new PackWriter({ ...common, type: "data" }), new PackWriter({ ...common, type: "tree" })];
  }

  /** Bytes of all sealed blobs and headers so far. */
  get storedBytes(): number {
    return this.#writers[0].storedBytes + this.#writers[1].storedBytes;
  }

  /**
   * Moves the next run of entries that one read fetches, beginning at `at`; entries are sorted by pack and offset.
   * Returns the place after it. `damaged` for a blob that is not what its id says: nothing of it is written.
   */
  moveSome(entries: Uint32Array, at: number): number {
    const { table } = this.#options.from.index;
    const first = entries[at]!;
    const start = table.offsetOf[first]!;
    const problem = placeProblem(table.lengthOf[first]!, table.plainOf[first]!);
    if (problem !== null) throw this.#damage(first, problem);
    let end = start + table.lengthOf[first]!;
    let to = at + 1;
    for (; to < entries.length; to++) {
      const entry = entries[to]!;
      const offset = table.offsetOf[entry]!;
      if (table.packOf[entry] !== table.packOf[first] || table.typeOf(entry) !== table.typeOf(first)) break;
      if (!(offset >= end && offset - end <= GAP && offset + table.lengthOf[entry]! - start <= WINDOW)) break;
      end = offset + table.lengthOf[entry]!;
    }
    const read = (bytes: number): number =>
      readSectors(this.#open(table.packOf[first]!), start, bytes, this.#room(bytes), 0);
    let found = read(end - start);
    if (found < 0) {
      // A bad sector is of one of them, and those before it are moved.
      to = at + 1;
      found = read(table.lengthOf[first]!);
      if (found < 0) throw this.#damage(first, BAD_SECTOR);
    }
    for (let next = at; next < to; next++) this.#move(entries[next]!, start, found);
    return to;
  }

  #move(entry: number, start: number, found: number): void {
    const { table } = this.#options.from.index;
    const at = table.offsetOf[entry]! - start;
    const length = table.lengthOf[entry]!;
    const plainLength = table.plainOf[entry]!;
    const problem = placeProblem(length, plainLength);
    if (problem !== null) throw this.#damage(entry, problem);
    if (at + length > found) throw this.#damage(entry, "the pack ends before it");
    const decoder = this.#decoder;
    if (!decoder.authentic(this.#window, at, length)) throw this.#damage(entry, "its MAC is wrong");
    if (!decoder.decode(this.#window, at, length, plainLength))
      throw this.#damage(entry, "it does not decompress to its stated length");
    if (!decoder.matches(table.ids, entry * 32)) throw this.#damage(entry, "its content has another SHA-256");
    const writer = this.#writers[table.typeOf(entry) === TREE_BLOB ? 1 : 0];
    const id = table.ids.subarray(entry * 32, entry * 32 + 32);
    // The frame lies decrypted where it was sealed.
    if (plainLength > 0 && this.#options.to.version !== 1)
      writer.addStored(id, 0, {
        arena: this.#window,
        offset: at + IV_LENGTH,
        length: length - SEAL_OVERHEAD,
        plainLength,
      });
    else writer.add(id, decoder.arena, decoder.offset, decoder.length);
  }

  #room(length: number): Arena {
    if (length > this.#window.bytes.length) this.#window = newArena(length);
    else if (this.#window.bytes.length > 16 * WINDOW) this.#window = newArena(Math.max(WINDOW, length));
    return this.#window;
  }

  #open(pack: number): number {
    if (this.#pack === pack) return this.#descriptor;
    this.#close();
    const { index, openPack } = this.#options.from;
    this.#descriptor = openPack(objectIdOf(index.table.packId(pack)));
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
        hint: "nothing damaged is passed on; verify the source: `cairn verify` for a workspace, `cairn backup verify` for a repository",
        details: { blob, pack, offset: place.offset, reason },
      },
    );
  }

  /** Closes the packs that are open. */
  finish(): void {
    this.#close();
    for (const writer of this.#writers) writer.finish();
  }

  /** Gives up: removes unfinished files. Packs that were handed over belong to their receiver. */
  abort(): void {
    this.#close();
    for (const writer of this.#writers) writer.abort();
  }
}
