import { hex } from "../../formats/bytes.ts";
import { closeSync } from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError } from "../../errors.ts";
import { newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { BlobDecoder, placeProblem } from "./blob-decoder.ts";
import { BAD_SECTOR, readSectors } from "./pack-read.ts";

/** Place of a blob. */
export interface BlobPlace {
  /** 32 bytes: the pack's id. */
  readonly pack: Uint8Array;
  readonly offset: number;
  /** Sealed bytes. */
  readonly length: number;
  /** 0 when stored as it is. */
  readonly uncompressedLength: number;
  /** 32 bytes: the blob's id. When present, what was read is compared with it. */
  readonly id?: Uint8Array;
  /** True leaves that to somebody else, who reads the same or what becomes of it: then the id only names it. */
  readonly isComparedLater?: boolean;
}

export interface BlobReaderOptions {
  readonly keys: MasterKeys;
  /** Opens a pack for reading; the reader closes it. */
  openPack(packIdHex: string): number;
}

type EachBlob = (index: number, arena: Arena, offset: number, length: number) => void;
type EachDamage = (index: number, error: CairnError) => void;

const WINDOW = 1024 * 1024;
/** Unwanted bytes between two blobs that are cheaper to read than a second call. */
const GAP = 16 * 1024;
const MAX_OPEN = 64;

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) if (a[index] !== b[index]) return false;
  return true;
}

/** Reads blobs out of local packs: MAC, decryption, decompression, id. Synchronous, one per thread. */
export class BlobReader {
  readonly #options: BlobReaderOptions;
  readonly #decoder: BlobDecoder;
  /** Open packs by hex id, least recently used first. */
  readonly #open = new Map<string, number>();
  #sealed = newArena(WINDOW);
  #lastPack = new Uint8Array(0);
  #lastDescriptor = -1;

  constructor(options: BlobReaderOptions) {
    this.#options = options;
    this.#decoder = new BlobDecoder(options.keys);
  }

  /** A fresh copy of the plaintext. Errors: damaged {pack, blob, offset}, and what `openPack` throws. */
  read(place: BlobPlace): Uint8Array {
    return new Uint8Array(this.view(place));
  }

  /** The plaintext where it was decoded, for large content: good until the next call. Errors as of `read`. */
  view(place: BlobPlace): Uint8Array {
    this.#load(place);
    this.#settle(place, this.#decoder.decode(this.#sealed, 0, place.length, place.uncompressedLength));
    const { arena, offset, length } = this.#decoder;
    return arena.bytes.subarray(offset, offset + length);
  }

  /** The plaintext into `target` at `offset`; returns its length. */
  readInto(place: BlobPlace, target: Arena, offset: number): number {
    const length = place.uncompressedLength === 0 ? place.length - 32 : place.uncompressedLength;
    if (offset + length > target.bytes.length) {
      throw new CairnError("internal", `a blob of ${length} bytes does not fit at ${offset} of ${target.bytes.length}`);
    }
    this.#load(place);
    this.#settle(
      place,
      this.#decoder.decodeInto(this.#sealed, 0, place.length, place.uncompressedLength, target, offset),
    );
    return length;
  }

  /**
   * Reads many blobs of one pack, sorted by offset, joining neighbours into reads of up to 1 MiB.
   * `each` gets every plaintext in order; it is valid during the call only. A damaged blob goes to
   * `onDamage` and the others follow, or is thrown where there is no `onDamage`.
   */
  readWindow(places: readonly BlobPlace[], each: EachBlob, onDamage?: EachDamage): void {
    for (let from = 0; from < places.length;) {
      const to = windowEnd(places, from);
      // A bad sector is of one of them.
      if (!this.#readJoined(places, { from, to, each, onDamage }))
        for (let at = from; at < to; at++) this.#readJoined(places, { from: at, to: at + 1, each, onDamage });
      from = to;
    }
  }

  /** False, and nothing is done, where several cannot be read at once. */
  #readJoined(
    places: readonly BlobPlace[],
    window: { from: number; to: number; each: EachBlob; onDamage: EachDamage | undefined },
  ): boolean {
    const { from, to, each, onDamage } = window;
    const first = places[from]!;
    const last = places[to - 1]!;
    const problem = placeProblem(first.length, first.uncompressedLength);
    const found = problem === null ? this.#fill(first, last.offset + last.length - first.offset) : 0;
    if (found < 0 && to - from > 1) return false;
    const authentic = new Uint8Array(to - from);
    for (let index = from; index < to; index++) {
      const place = places[index]!;
      const at = place.offset - first.offset;
      if (at + place.length > found) continue;
      if (placeProblem(place.length, place.uncompressedLength) !== null) continue;
      authentic[index - from] = this.#decoder.authentic(this.#sealed, at, place.length) ? 1 : 0;
    }
    for (let index = from; index < to; index++) {
      const place = places[index]!;
      const at = place.offset - first.offset;
      const reason = this.#decodeAt(place, at, found, authentic[index - from] === 1);
      if (reason === null) each(index, this.#decoder.arena, this.#decoder.offset, this.#decoder.length);
      else if (onDamage) onDamage(index, damage(place, reason));
      else throw damage(place, reason);
    }
    return true;
  }

  #decodeAt(place: BlobPlace, at: number, found: number, authentic: boolean): string | null {
    const problem = placeProblem(place.length, place.uncompressedLength);
    if (problem !== null) return problem;
    if (at + place.length > found) return found < 0 ? BAD_SECTOR : "the pack ends before it";
    if (!authentic) return "its MAC is wrong";
    if (!this.#decoder.decode(this.#sealed, at, place.length, place.uncompressedLength))
      return "it does not decompress to its stated length";
    return this.#isAsNamed(place) ? null : "its content has another SHA-256";
  }

  /** One sealed blob to the start of the buffer, its MAC checked. */
  #load(place: BlobPlace): void {
    const problem = placeProblem(place.length, place.uncompressedLength);
    if (problem !== null) throw damage(place, problem);
    const found = this.#fill(place, place.length);
    if (found < place.length) throw damage(place, found < 0 ? BAD_SECTOR : "the pack ends before it");
    if (!this.#decoder.authentic(this.#sealed, 0, place.length)) throw damage(place, "its MAC is wrong");
  }

  #settle(place: BlobPlace, decoded: boolean): void {
    if (!decoded) throw damage(place, "it does not decompress to its stated length");
    if (!this.#isAsNamed(place)) throw damage(place, "its content has another SHA-256");
  }

  /** True, too, where nothing is to be compared. */
  #isAsNamed({ id, isComparedLater }: BlobPlace): boolean {
    return id === undefined || isComparedLater === true || this.#decoder.matches(id);
  }

  /** Reads a blob's bytes and returns how many there were; -1 where the disk cannot read some of them. */
  #fill(place: BlobPlace, length: number): number {
    if (!(place.offset >= 0)) throw damage(place, "its offset is out of bounds");
    if (length > this.#sealed.bytes.length) this.#sealed = newArena(length);
    else if (this.#sealed.bytes.length > 16 * WINDOW) this.#sealed = newArena(Math.max(WINDOW, length));
    return readSectors(this.#descriptor(place.pack), place.offset, length, this.#sealed, 0);
  }

  #descriptor(pack: Uint8Array): number {
    if (this.#lastDescriptor >= 0 && sameBytes(this.#lastPack, pack)) return this.#lastDescriptor;
    const name = hex(pack);
    let descriptor = this.#open.get(name);
    if (descriptor === undefined) {
      descriptor = this.#options.openPack(name);
      if (this.#open.size >= MAX_OPEN) this.#closeOldest();
    } else {
      this.#open.delete(name);
    }
    this.#open.set(name, descriptor);
    this.#lastPack = new Uint8Array(pack);
    this.#lastDescriptor = descriptor;
    return descriptor;
  }

  #closeOldest(): void {
    for (const [name, descriptor] of this.#open) {
      this.#open.delete(name);
      closeSync(descriptor);
      return;
    }
  }

  /** Closes all packs. The reader may be used again. */
  close(): void {
    for (const descriptor of this.#open.values()) closeSync(descriptor);
    this.#open.clear();
    this.#lastDescriptor = -1;
  }
}

function windowEnd(places: readonly BlobPlace[], from: number): number {
  const start = places[from]!.offset;
  let end = start + places[from]!.length;
  let index = from + 1;
  for (; index < places.length; index++) {
    const { offset, length } = places[index]!;
    if (!(offset >= end && offset - end <= GAP && offset + length - start <= WINDOW)) break;
    end = offset + length;
  }
  return index;
}

function damage(place: BlobPlace, reason: string): CairnError {
  const pack = hex(place.pack);
  const blob = place.id === undefined ? undefined : hex(place.id);
  const what = blob === undefined ? "a blob" : `blob ${blob}`;
  return new CairnError("damaged", `${what} at ${place.offset} of pack ${pack} is damaged: ${reason}`, {
    details: { pack, blob, offset: place.offset, length: place.length, reason },
  });
}
