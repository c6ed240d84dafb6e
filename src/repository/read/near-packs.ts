import { append } from "../../append.ts";
import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { dirname, join } from "node:path";
import { BlobOpener, type MasterKeys } from "../../crypto/seal.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";
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

/** Opens packs by their names (64 hex digits) for reading. `damaged` for one that is not there. */
export interface PackFiles {
  open(pack: string): number;
}

/** A part of a pack that is wanted. */
export interface WantedRange extends ByteRange {
  /** 64 hex digits. */
  readonly pack: string;
}

export interface FetchOptions {
  signal?: AbortSignal | undefined;
  /** Ranges asked for at once; default 16. */
  atOnce?: number | undefined;
  /** True: a pack that is not there is passed over, and whoever reads it meets that. */
  lenient?: boolean;
  /** A range, or a piece of one, that is there now or was passed over. They come in any order. */
  onRange?: ((range: WantedRange) => void) | undefined;
}

const NO_PACK = "0".repeat(64);
/** Ranges asked for at once. */
const CONNECTIONS = 16;
/** So much is asked for with one request, so that a pack of any size takes little memory and few packs many connections. */
const MAX_RANGE = 8 * 1024 * 1024;
/** So much of a pack that is read by itself is asked for before more is. */
const TURN = 32 * 1024 * 1024;
/** So often a reader that is not content is given a pack that comes from far away. */
const MOST_READINGS = 3;
/** Unwanted bytes of a pack that cost less than a second request. */
const REMOTE_GAP = 256 * 1024;

/**
 * A repository's packs as files of this machine, for readers that are synchronous: those of a local repository where
 * they are, those of any other fetched into a folder, whole or in part. A part lies at its own offset.
 */
export class NearPacks implements PackFiles {
  /** In the layout of a repository's `data`. */
  readonly folder: string;
  readonly #storage: Storage;
  readonly #isLocal: boolean;
  /** Ranges that were fetched of each pack. */
  readonly #here = new Map<string, ByteRange[]>();
  readonly #left: LeftPacks | null;
  /** Says what blobs are in what comes, and opens them; null: nobody has told. */
  #blobs: { readonly index: BlobIndex; readonly opener: BlobOpener; entries: EntriesByPack | null } | null = null;

  /** `directory`: where fetched packs lie; made when it is needed, removed by whoever owns it. `left`: where one is looked for first. */
  constructor(storage: Storage, directory: string, left: LeftPacks | null = null) {
    const own = storage.localPath?.("data", NO_PACK);
    this.#storage = storage;
    this.#left = left;
    this.#isLocal = own !== undefined;
    this.folder = own === undefined ? join(directory, "data") : dirname(dirname(own));
  }

  /** True when nothing ever needs to be fetched. */
  get isLocal(): boolean {
    return this.#isLocal;
  }

  /** From now on the MAC of each blob that the index has now is looked at as it comes from far away, and what is wrong is asked for again. */
  compareWith(index: BlobIndex, keys: MasterKeys): void {
    if (!this.#isLocal) this.#blobs = { index, opener: new BlobOpener(keys), entries: null };
  }

  open(pack: string): number {
    return openPackIn(this.folder, pack, this.#storage.location);
  }

  /**
   * Brings what of these ranges is not here yet, in their order as far as several at once have one. `damaged` for a pack
   * that is missing or ends before a range. After an error nothing more is asked for.
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
   * Hands `read` a descriptor of a pack that is near as far as this range reaches; closes it and drops what was fetched. False,
   * and nothing is read, when the pack is not there or ends before the range. `read` says whether what it reads is sound; what
   * came from far away and is not comes twice more.
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

  /** Removes what was fetched of a pack. */
  drop(pack: string): void {
    if (this.#isLocal || !this.#here.delete(pack)) return;
    rmSync(packPath(this.folder, pack), { force: true });
  }

  /** -1 when the pack is not there or ends before the range. */
  async #openedWith({ pack, offset, length }: WantedRange, signal: AbortSignal | undefined): Promise<number> {
    try {
      for (let done = 0; done < length; done += TURN)
        await this.fetch([{ pack, offset: offset + done, length: Math.min(TURN, length - done) }], { signal });
      return this.open(pack);
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return -1;
      throw error;
    }
  }

  /** True when nothing of a range has to be fetched. */
  has(range: WantedRange): boolean {
    return this.#isLocal || this.#missing(range).length === 0;
  }

  /** The parts of a range that are not here. */
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
      // Nobody reads a part before it is recorded here, so it may grow in place.
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

  /** Pieces that end where a blob does. */
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

  /** Tells of bytes of a pack from an offset on whether all blobs that lie whole in them carry the right MAC. */
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

/** A storage's packs, those of a far one in a folder of this name of a work directory, which is only made for them. */
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

/** Returns, by pack number, where the last blob of each pack of an index ends. */
export function packEnds(index: BlobIndex): Float64Array {
  const { packCount, count, packOf, offsetOf, lengthOf } = index.table;
  const ends = new Float64Array(packCount);
  for (let entry = 0; entry < count; entry++) {
    const end = offsetOf[entry]! + lengthOf[entry]!;
    const pack = packOf[entry]!;
    if (end > ends[pack]!) ends[pack] = end;
  }
  return ends;
}

/** Packs of an index that a storage does not have, or not whole, by name. */
export function lostPacks(index: BlobIndex, stored: PackSizes): string[] {
  return shortPacks(index, (pack) => stored.get(pack) ?? 0);
}

/** Packs of an index that end before what lies in them, by name. `sizeOf`: bytes that there are of one. */
export function shortPacks(index: BlobIndex, sizeOf: (pack: string) => number): string[] {
  const short: string[] = [];
  for (const [number, end] of packEnds(index).entries()) {
    const pack = objectIdOf(index.table.packId(number));
    if (end > 0 && end > sizeOf(pack)) short.push(pack);
  }
  return short;
}

/** Tells of entries whose packs a storage does not have, or that lie beyond their ends there, at each of their places. */
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

/** Joins what lies close together in one pack; ranges come sorted. */
export function addWanted<Range extends WantedRange>(ranges: Range[], range: Range): void {
  const last = ranges.at(-1);
  const end = last === undefined ? 0 : last.offset + last.length;
  if (last === undefined || last.pack !== range.pack || range.offset < end || range.offset - end > REMOTE_GAP) {
    ranges.push(range);
    return;
  }
  ranges[ranges.length - 1] = { ...last, length: range.offset + range.length - last.offset };
}

/** The packs in a folder that has the layout of a repository's `data`. */
export function packFolder(folder: string): PackFiles {
  return { open: (pack) => openPackIn(folder, pack, folder) };
}

/** Opens packs of a folder for a prover, which takes whatever keeps a pack from being read for damage of it. */
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
