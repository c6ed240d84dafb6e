import { append } from "../../append.ts";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { BlobOpener, type MasterKeys } from "../../crypto/seal.ts";
import { advice, CairnError, call, tellsOfDamage, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { throwIfRanOut } from "../../fs/linux/errno.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { objectIdOf } from "../../ids.ts";
import { arenaOver } from "../../native.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { EntriesByPack } from "../index/entries-by-pack.ts";
import type { LeftPacks } from "../transfer/left-packs.ts";
import { concurrently } from "../storage/concurrently.ts";
import type { ByteRange, PackSizes, Storage } from "../storage/storage.ts";

/** Opens packs by their names (64 hex digits) for reading. Throws `damaged` if a pack is missing. */
export interface PackFiles {
  open(pack: string): number;
}

/** A part of a pack to fetch. */
export interface WantedRange extends ByteRange {
  /** 64 hex digits. */
  readonly pack: string;
}

export interface FetchOptions {
  signal?: AbortSignal | undefined;
  /** Concurrent requests; default 16. */
  atOnce?: number | undefined;
  /** True: a missing pack is skipped here, and its readers get the error. */
  lenient?: boolean;
  /** Called for each range, or piece of a range, that is local now or was skipped. In any order. */
  onRange?: ((range: WantedRange) => void) | undefined;
}

const NO_PACK = "0".repeat(64);
const CONNECTIONS = 16;
/** The most bytes of one request, so that a large pack needs little memory and few packs use many connections. */
const MAX_RANGE = 8 * 1024 * 1024;
/** Bytes of one part in which `reading` fetches a pack. */
const TURN = 32 * 1024 * 1024;
/** Attempts of a reader that refuses a fetched pack: the transfer may have damaged it. */
const MOST_READINGS = 3;
/** The most unwanted bytes of a pack that cost less to fetch than a second request. */
const REMOTE_GAP = 256 * 1024;

/**
 * A repository's packs as local files, for synchronous readers. Packs of a local repository are read in place; others
 * are fetched into a folder, whole or in parts. A part has the same offset in the local file as in the pack.
 */
export class NearPacks implements PackFiles {
  /** Has the layout of a repository's `data`. */
  readonly folder: string;
  readonly #storage: Storage;
  readonly #isLocal: boolean;
  /** The fetched ranges of each pack. */
  readonly #here = new Map<string, ByteRange[]>();
  readonly #left: LeftPacks | null;
  /** Checks the MACs of fetched blobs; null before `compareWith`. */
  #blobs: { readonly index: BlobIndex; readonly opener: BlobOpener; entries: EntriesByPack | null } | null = null;

  /**
   * `directory`: for fetched packs; made when needed, removed by its owner. `left`: packs of an earlier run, which are
   * used first.
   */
  constructor(storage: Storage, directory: string, left: LeftPacks | null = null) {
    const own = storage.localPath?.("data", NO_PACK);
    this.#storage = storage;
    this.#left = left;
    this.#isLocal = own !== undefined;
    this.folder = own === undefined ? join(directory, "data") : dirname(dirname(own));
  }

  /** True if packs are never fetched. */
  get isLocal(): boolean {
    return this.#isLocal;
  }

  /** Checks from now on the MACs of all fetched blobs that the index has now, and fetches damaged ones again. */
  compareWith(index: BlobIndex, keys: MasterKeys): void {
    if (!this.#isLocal) this.#blobs = { index, opener: new BlobOpener(keys), entries: null };
  }

  open(pack: string): number {
    return openPackIn(this.folder, pack, this.#storage.location);
  }

  /**
   * Fetches the parts of these ranges that are not local yet, in order but several at once. Throws `damaged` if a pack
   * is missing or ends before a range; no request starts after an error.
   */
  async fetch(wanted: Iterable<WantedRange>, options: FetchOptions = {}): Promise<void> {
    if (this.#isLocal) return;
    const queue: WantedRange[] = [];
    for (const range of wanted) {
      if (this.has(range)) options.onRange?.(range);
      else append(queue, this.#cut(range));
    }
    const pace = newPacer(options.signal);
    await concurrently(queue.length, options.atOnce ?? CONNECTIONS, async (at) => {
      const range = queue[at]!;
      await pace();
      await this.#bringMissing(range, options.lenient === true);
      options.onRange?.(range);
    });
  }

  /**
   * Gives `read` a descriptor of a pack that is local up to the end of this range, then closes it and drops the pack.
   * Returns false if the pack is missing or shorter, or its disk fails. `read` tells whether the bytes are sound; if
   * not, a remote pack is fetched up to twice more.
   */
  async reading(range: WantedRange, read: (descriptor: number) => boolean, signal?: AbortSignal): Promise<boolean> {
    for (let left = this.#isLocal ? 1 : MOST_READINGS; left > 0; left--) {
      let descriptor = -1;
      try {
        descriptor = await this.#openedWith(range, signal);
        if (descriptor < 0) return false;
        if (read(descriptor)) return true;
      } finally {
        if (descriptor >= 0) closeSync(descriptor);
        this.drop(range.pack);
      }
    }
    return false;
  }

  /** Removes the fetched parts of a pack. */
  drop(pack: string): void {
    if (this.#isLocal || !this.#here.delete(pack)) return;
    rmSync(packPath(this.folder, pack), { force: true });
  }

  /** Returns -1 if the pack is missing, ends before the range, or its disk fails. */
  async #openedWith({ pack, offset, length }: WantedRange, signal: AbortSignal | undefined): Promise<number> {
    try {
      for (let done = 0; done < length; done += TURN)
        await this.fetch([{ pack, offset: offset + done, length: Math.min(TURN, length - done) }], { signal });
      return this.open(pack);
    } catch (error) {
      const known = toCairnError(error);
      if (tellsOfDamage(known)) return -1;
      throw known;
    }
  }

  /** True if no part of a range has to be fetched. */
  has(range: WantedRange): boolean {
    return this.#isLocal || this.#missing(range).length === 0;
  }

  /** The parts of a range that are not local. */
  #missing({ pack, offset, length }: WantedRange): WantedRange[] {
    const end = offset + length;
    const missing: WantedRange[] = [];
    let at = offset;
    for (const here of (this.#here.get(pack) ?? []).toSorted((a, b) => a.offset - b.offset)) {
      if (here.offset + here.length <= at) continue;
      if (here.offset >= end) break;
      if (here.offset > at) missing.push({ pack, offset: at, length: here.offset - at });
      at = here.offset + here.length;
    }
    if (at < end) missing.push({ pack, offset: at, length: end - at });
    return missing;
  }

  async #bringMissing(range: WantedRange, lenient: boolean): Promise<void> {
    if (!this.#here.has(range.pack)) this.#takeLeft(range.pack);
    for (const part of this.#missing(range)) {
      try {
        await this.#bring(part);
      } catch (error) {
        if (!lenient || !(error instanceof CairnError) || error.code !== "damaged") throw error;
      }
    }
  }

  #takeLeft(pack: string): void {
    if (this.#left === null) return;
    const here: ByteRange[] = [];
    for (const range of this.#left.take(pack, this.#placeFor(pack))) addRange(here, range);
    if (here.length > 0) this.#here.set(pack, here);
  }

  async #bring({ pack, offset, length }: WantedRange): Promise<void> {
    let bytes: Uint8Array;
    try {
      const isRight = this.#blobs === null ? {} : { isRight: this.#judgeOf(pack, offset) };
      bytes = await this.#storage.load("data", pack, { offset, length }, isRight);
    } catch (error) {
      if (error instanceof CairnError && error.code === "not_found") throw missing(pack, error, this.#storage.location);
      throw error;
    }
    const path = this.#placeFor(pack);
    const here = this.#here.get(pack) ?? [];
    try {
      // Nobody reads a part before it is recorded here, so the file may grow in place.
      const descriptor = openSync(path, here.length === 0 ? "w" : "r+", 0o600);
      this.#here.set(pack, here);
      try {
        for (let done = 0; done < bytes.length;)
          done += writeSync(descriptor, bytes, done, bytes.length - done, offset + done);
      } finally {
        closeSync(descriptor);
      }
    } catch (error) {
      throw toCairnError(error, `cannot keep fetched packs in ${this.folder}`);
    }
    addRange(here, { offset, length });
    failpoint("near-packs.brought");
  }

  /** Cuts a range into pieces that end at the end of a blob. */
  #cut({ pack, offset, length }: WantedRange): WantedRange[] {
    const parts: WantedRange[] = [];
    const end = offset + length;
    for (let at = offset; at < end;) {
      let to = Math.min(end, at + MAX_RANGE);
      if (to < end)
        for (const blob of this.#placesIn(pack))
          if (blob.offset < to && blob.end > to) to = Math.min(end, blob.offset > at ? blob.offset : blob.end);
      parts.push({ pack, offset: at, length: to - at });
      at = to;
    }
    return parts;
  }

  /**
   * Returns a function that checks the MACs of all blobs that are completely in the given bytes, which begin at offset
   * `from` of the pack.
   */
  #judgeOf(pack: string, from: number): (bytes: Uint8Array) => boolean {
    return (bytes) => {
      const sealed = arenaOver(bytes);
      for (const { offset, end } of this.#placesIn(pack))
        if (offset >= from && end <= from + bytes.length)
          if (!this.#blobs!.opener.verify(sealed, offset - from, end - offset)) return false;
      return true;
    };
  }

  *#placesIn(pack: string): Generator<{ offset: number; end: number }> {
    if (this.#blobs === null) return;
    const { index } = this.#blobs;
    const { offsetOf, lengthOf } = index.table;
    this.#blobs.entries ??= new EntriesByPack(index);
    for (const entry of this.#blobs.entries.of(pack)) {
      const offset = offsetOf[entry]!;
      yield { offset, end: offset + lengthOf[entry]! };
    }
  }

  #placeFor(pack: string): string {
    const path = packPath(this.folder, pack);
    try {
      makeFolder(dirname(path));
    } catch (error) {
      throw toCairnError(error, `cannot make a folder for fetched packs in ${this.folder}`);
    }
    return path;
  }
}

/**
 * Returns a storage's packs. Packs of a remote storage are fetched into the folder `name` of the work directory, which
 * is made only in that case.
 */
export function nearPacksIn(storage: Storage, work: (() => string) | undefined, name: string): NearPacks {
  if (storage.localPath !== undefined) return new NearPacks(storage, "");
  if (work === undefined)
    throw new CairnError("internal", "a far repository's packs are brought into a work directory");
  return new NearPacks(storage, join(work(), name));
}

/** Adds a range to a list of ranges that neither touch nor overlap. */
function addRange(ranges: ByteRange[], added: ByteRange): void {
  let { offset, length } = added;
  for (let at = ranges.length - 1; at >= 0; at--) {
    const range = ranges[at]!;
    if (range.offset > offset + length || offset > range.offset + range.length) continue;
    const end = Math.max(offset + length, range.offset + range.length);
    offset = Math.min(offset, range.offset);
    length = end - offset;
    ranges.splice(at, 1);
  }
  ranges.push({ offset, length });
}

/** Returns the end of the last blob of each pack of an index, by pack number. Counts all places of all blobs. */
export function packEnds(index: BlobIndex): Float64Array {
  const { packCount, count, packOf, offsetOf, lengthOf } = index.table;
  const ends = new Float64Array(packCount);
  for (let entry = 0; entry < count; entry++) {
    const end = offsetOf[entry]! + lengthOf[entry]!;
    const pack = packOf[entry]!;
    if (end > ends[pack]!) ends[pack] = end;
  }
  for (const entry of index.inSeveralPlaces())
    for (const { pack, offset, length } of index.others(entry)) {
      const number = index.numberOf(pack);
      ends[number] = Math.max(ends[number]!, offset + length);
    }
  return ends;
}

/** Returns the names of indexed packs that a storage lacks or has only in part. */
export function lostPacks(index: BlobIndex, stored: PackSizes): string[] {
  return shortPacks(index, (pack) => stored.get(pack) ?? 0);
}

/** Returns the names of indexed packs that are shorter than their blobs need. `sizeOf`: bytes of a pack's file. */
export function shortPacks(index: BlobIndex, sizeOf: (pack: string) => number): string[] {
  const short: string[] = [];
  for (const [number, end] of packEnds(index).entries()) {
    const pack = objectIdOf(index.table.packId(number));
    if (end > 0 && end > sizeOf(pack)) short.push(pack);
  }
  return short;
}

/**
 * Returns a function that tells whether an entry is lost: at each of its places the storage lacks the pack, or the pack
 * ends before the blob.
 */
export function lostEntries(index: BlobIndex, stored: PackSizes): (entry: number) => boolean {
  const sizeOf = Float64Array.from(
    { length: index.packCount },
    (_, pack) => stored.get(objectIdOf(index.table.packId(pack))) ?? 0,
  );
  return (entry) => {
    const { packOf, offsetOf, lengthOf } = index.table;
    if (offsetOf[entry]! + lengthOf[entry]! <= sizeOf[packOf[entry]!]!) return false;
    return index
      .others(entry)
      .every(({ pack, offset, length }) => offset + length > (stored.get(objectIdOf(pack)) ?? 0));
  };
}

/** Adds a range to sorted ranges; joins it with the last range if both are close together in one pack. */
export function addWanted<Range extends WantedRange>(ranges: Range[], range: Range): void {
  const last = ranges.at(-1);
  const end = last === undefined ? 0 : last.offset + last.length;
  if (last === undefined || last.pack !== range.pack || range.offset < end || range.offset - end > REMOTE_GAP) {
    ranges.push(range);
    return;
  }
  ranges[ranges.length - 1] = { ...last, length: range.offset + range.length - last.offset };
}

/** Opens the packs in a folder that has the layout of a repository's `data`. */
export function packFolder(folder: string): PackFiles {
  return { open: (pack) => openPackIn(folder, pack, folder) };
}

/**
 * Opens packs of a folder for a prover: any error that keeps a pack from being read counts as damage, except a lack of
 * resources, e.g. of file descriptors.
 */
export function packsToProve(folder: string): PackFiles {
  return {
    open: (pack) => {
      try {
        return openPackIn(folder, pack, folder);
      } catch (error) {
        const { code, cause, message } = toCairnError(error);
        throwIfRanOut(cause);
        const why = `its pack ${pack.slice(0, 12)} cannot be read: ${message}`;
        throw code === "damaged" ? error : new CairnError("damaged", why, { cause: error });
      }
    },
  };
}

function packPath(folder: string, pack: string): string {
  return join(folder, pack.slice(0, 2), pack);
}

function openPackIn(folder: string, pack: string, location: string): number {
  try {
    return openRegular(packPath(folder, pack));
  } catch (error) {
    const known = toCairnError(error, `cannot open pack ${pack.slice(0, 12)}`);
    if (known.code !== "not_found") throw known;
    throw missing(pack, error, location);
  }
}

function missing(pack: string, cause: unknown, location: string): CairnError {
  return new CairnError("damaged", `pack ${pack.slice(0, 12)} is missing from ${location}`, {
    hint: advice`${call("backup verify", "verify")} shows which files need the pack`,
    details: { missing_pack: pack },
    cause,
  });
}
