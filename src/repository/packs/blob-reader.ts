import { hex } from "../../formats/bytes.ts";
import { closeSync, fstatSync } from "node:fs";
import type { MasterKeys } from "../../crypto/seal.ts";
import { CairnError } from "../../errors.ts";
import { giveBack, newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { BlobDecoder, isInPieces, placeProblem } from "./blob-decoder.ts";
import { readSectors } from "./pack-read.ts";

export interface BlobPlace {
  /** The pack's id, 32 bytes. */
  readonly pack: Uint8Array;
  readonly offset: number;
  /** Sealed bytes. */
  readonly length: number;
  /** 0 if the blob is not compressed. */
  readonly uncompressedLength: number;
  /** The blob's id, 32 bytes. If given, the plaintext is compared with it. */
  readonly id?: Uint8Array;
  /** True: the caller compares the plaintext with the id, so that the reader only names the id in errors. */
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
/** The most unwanted bytes between two blobs that are cheaper to read than a second call. */
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

  /**
   * Returns the plaintext, valid until the next call. Errors: `damaged` {pack, blob, offset}, and errors of `openPack`.
   */
  view(place: BlobPlace): Uint8Array {
    const isPlace = placeProblem(place.length, place.uncompressedLength) === null;
    const found = isPlace ? this.#fill(place, place.length) : 0;
    const decoder = this.#decoder;
    const problem =
      decoder.storedProblem(this.#sealed, 0, found, place) ??
      decoder.contentProblem(this.#sealed, 0, place, comparedId(place));
    if (problem !== null) throw damage(place, problem);
    const { arena, offset, length } = decoder;
    return arena.bytes.subarray(offset, offset + length);
  }

  /**
   * Returns the plaintext in pieces, valid until the next call. A large blob is compared with its id before its first
   * piece. Errors as of `view`.
   */
  pieces(place: BlobPlace & Required<Pick<BlobPlace, "id">>): Iterable<Uint8Array> {
    if (!isInPieces(place)) return [this.view(place)];
    const isPlace = placeProblem(place.length, place.uncompressedLength) === null;
    const found = isPlace ? this.#fill(place, place.length) : 0;
    const decoder = this.#decoder;
    const problem =
      decoder.storedProblem(this.#sealed, 0, found, place) ?? decoder.piecesProblem(this.#sealed, 0, place, place.id);
    if (problem !== null) throw damage(place, problem);
    return decoder.pieces(this.#sealed, 0, place);
  }

  /** Returns the last plaintext if it is large, which the caller then owns; see `BlobDecoder.handOver`. */
  handOver(): Uint8Array | null {
    return this.#decoder.handOver();
  }

  /**
   * Reads many blobs of one pack, sorted by offset, and joins neighbours into reads of up to 1 MiB. `each` gets every
   * plaintext in order, valid during the call. `onDamage` gets damaged blobs; without it, the first one is thrown.
   */
  readWindow(places: readonly BlobPlace[], each: EachBlob, onDamage?: EachDamage): void {
    for (let from = 0; from < places.length;) {
      const to = windowEnd(places, from);
      // A bad sector belongs to one of the blobs: read them one by one.
      if (!this.#readJoined(places, { from, to, each, onDamage }))
        for (let at = from; at < to; at++) this.#readJoined(places, { from: at, to: at + 1, each, onDamage });
      from = to;
    }
  }

  /** Returns false, and calls nothing, if several blobs cannot be read at once. */
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
    const decoder = this.#decoder;
    const problems: (string | null)[] = [];
    for (let index = from; index < to; index++) {
      const place = places[index]!;
      problems.push(decoder.storedProblem(this.#sealed, place.offset - first.offset, found, place));
    }
    for (let index = from; index < to; index++) {
      const place = places[index]!;
      const at = place.offset - first.offset;
      const reason = problems[index - from] ?? decoder.contentProblem(this.#sealed, at, place, comparedId(place));
      if (reason === null) each(index, decoder.arena, decoder.offset, decoder.length);
      else if (onDamage) onDamage(index, damage(place, reason));
      else throw damage(place, reason);
    }
    return true;
  }

  /** Reads a blob's bytes and returns the number read; -1 if the disk cannot read some of them. */
  #fill(place: BlobPlace, length: number): number {
    if (!(place.offset >= 0)) throw damage(place, "its offset is out of bounds");
    const descriptor = this.#descriptor(place.pack);
    const room = this.#sealed.bytes.length;
    // Do not reserve memory for more bytes than the file has.
    if (length > room && place.offset + length > fstatSync(descriptor).size) return 0;
    if (length > room || room > 16 * WINDOW) this.#sealed = newArena(Math.max(WINDOW, length));
    return readSectors(descriptor, place.offset, length, this.#sealed, 0);
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

  /** Closes all packs, and frees the memory of a large blob. The reader may be used again. */
  close(): void {
    const large = this.#decoder.handOver();
    if (large !== null) giveBack(large);
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

function comparedId({ id, isComparedLater }: BlobPlace): Uint8Array | undefined {
  return isComparedLater === true ? undefined : id;
}

function damage(place: BlobPlace, reason: string): CairnError {
  const pack = hex(place.pack);
  const blob = place.id === undefined ? undefined : hex(place.id);
  const what = blob === undefined ? "a blob" : `blob ${blob}`;
  return new CairnError("damaged", `${what} at ${place.offset} of pack ${pack} is damaged: ${reason}`, {
    details: { pack, blob, offset: place.offset, length: place.length, reason },
  });
}
