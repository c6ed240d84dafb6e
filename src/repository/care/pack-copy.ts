import { join } from "node:path";
import { SEAL_OVERHEAD } from "../../crypto/seal.ts";
import { CairnError, tellsOfDamage, throwIfAborted, toCairnError } from "../../errors.ts";
import type { BlobType, IndexBlob, PackHeaderEntry } from "../../formats/restic/pack-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { objectIdOf } from "../../ids.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { type Arena, giveBack, newArena } from "../../native.ts";
import { BlobDecoder, placeProblem } from "../packs/blob-decoder.ts";
import { NearPacks, type WantedRange } from "../read/near-packs.ts";
import { readAt } from "../packs/pack-read.ts";
import { writerOptions } from "../packs/pack-style.ts";
import { type FinishedPack, PackWriter } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";

/** Bytes below which a pack is merged, and is rewritten for any dead blob. Many small saves make small packs. */
export const SMALL_PACK = 1024 * 1024;
/** The most bytes of adjacent blobs that are read together. A larger blob is read alone. */
const WINDOW = 1024 * 1024;
const MAC_LENGTH = SEAL_OVERHEAD / 2;

/** Returns a local folder for fetched packs and unfinished packs. The folder is made by the first call. */
export type WorkDirectory = () => string;

/**
 * Copies the blobs that `run` gives to the copier. Returns the new packs: saved, but not flushed. An error leaves no
 * unfinished files. `work` is required if the repository is not local.
 */
export async function copyingPacks(
  repository: Repository,
  work: WorkDirectory | undefined,
  run: (copier: PackCopier) => Promise<void>,
): Promise<FinishedPack[]> {
  const copier = new PackCopier(repository, work);
  try {
    await run(copier);
    return await copier.finish();
  } catch (error) {
    copier.abort();
    throw toCairnError(error);
  }
}

/** Adjacent blobs of one type in a pack. */
interface Run {
  readonly type: BlobType;
  readonly offset: number;
  length: number;
  readonly blobs: IndexBlob[];
  /** The MACs of the proven blobs, back to back. */
  macs: Uint8Array;
}

/** Fills the window with the bytes of a run. Returns false if they cannot be read. */
type ReadRun = (run: Run) => boolean;

/** Made when the first blob is copied, so that a copier without work makes no folder. */
interface Tools {
  readonly near: NearPacks;
  readonly writers: Readonly<Record<BlobType, PackWriter>>;
  readonly decoder: BlobDecoder;
}

/**
 * Copies sealed blobs as they are into new packs, with one open pack a type and little memory. The bytes keep their
 * seal, so a second copy is a retry and never a second use of a nonce. Packs are saved without flushing: call
 * `storage.sync(["data"])` before an index names them. After an error only `abort` may be called.
 */
export class PackCopier {
  /** Saved packs, not flushed. */
  readonly packs: FinishedPack[] = [];
  readonly #repository: Repository;
  readonly #work: WorkDirectory | undefined;
  #tools: Tools | null = null;
  readonly #copied = new Set<string>();
  /** Closed packs that are not saved yet. */
  #closed: FinishedPack[] = [];
  #window: Arena = newArena(0);

  /** `work` as in `copyingPacks`. */
  constructor(repository: Repository, work?: WorkDirectory) {
    this.#repository = repository;
    this.#work = work;
  }

  /**
   * Copies blobs of a pack (64 hex digits), sorted by offset; skips blobs that were copied before. Returns false, and
   * copies nothing, if the pack is missing or one of the blobs is unreadable or does not match its id.
   */
  async copy(pack: string, blobs: readonly IndexBlob[]): Promise<boolean> {
    const wanted = blobs.filter((blob) => !this.#copied.has(keyOf(blob)));
    if (!wanted.every(isPossible)) return false;
    if (wanted.length === 0) return true;
    const runs = runsOf(wanted);
    const isCopied = await this.#ready().near.reading(reachOf(pack, runs), (descriptor) => {
      const read: ReadRun = (run) => this.#read(descriptor, run);
      // All blobs are proven before the first is written.
      if (!runs.every((run) => this.#isProven(read, run))) return false;
      for (const run of runs) if (!this.#write(read, run)) throw readOtherwise(pack);
      return true;
    });
    if (!isCopied) return false;
    await this.#saveClosed();
    return true;
  }

  /**
   * Copies the sound ones of these blobs of a pack, sorted by offset; returns the others. A blob is returned only after
   * its bytes were unsound in two reads: of the pack, and of the blob alone. Throws `io` if the storage says that the
   * pack does not exist, and errors of the new packs.
   */
  async copySound(pack: string, blobs: readonly IndexBlob[], signal?: AbortSignal): Promise<IndexBlob[]> {
    const left = (): IndexBlob[] => blobs.filter((blob) => isPossible(blob) && !this.#copied.has(keyOf(blob)));
    const tryCopy = (read: ReadRun, run: Run): boolean => this.#isProven(read, run) && this.#write(read, run);
    const runs = runsOf(left());
    if (runs.length > 0)
      await this.#ready().near.reading(
        reachOf(pack, runs),
        (descriptor) => {
          const read: ReadRun = (run) => this.#read(descriptor, run);
          for (const run of runsOf(left()))
            if (!tryCopy(read, run))
              for (const single of run.blobs.flatMap((blob) => runsOf([blob]))) tryCopy(read, single);
          return left().length === 0;
        },
        signal,
      );
    for (const blob of left()) {
      throwIfAborted(signal);
      const sealed = await this.#load(pack, blob);
      if (sealed !== null) tryCopy((run) => this.#take(sealed, run), runsOf([blob])[0]!);
    }
    await this.#saveClosed();
    return blobs.filter((blob) => !this.#copied.has(keyOf(blob)));
  }

  /** Saves the open packs and frees the window. `packs` then has all new packs. */
  async finish(): Promise<FinishedPack[]> {
    this.#tools?.writers.data.finish();
    this.#tools?.writers.tree.finish();
    await this.#saveClosed();
    giveBack(this.#window.bytes);
    this.#window = newArena(0);
    return this.packs;
  }

  /** Removes unfinished packs. Saved packs stay, in no index. */
  abort(): void {
    this.#tools?.writers.data.abort();
    this.#tools?.writers.tree.abort();
    for (const { path } of this.#closed) clearAway(path);
  }

  #ready(): Tools {
    if (this.#tools !== null) return this.#tools;
    const { storage, keys, style } = this.#repository;
    const directory = this.#work === undefined ? storage.temporaryDirectory : join(this.#work(), "packs");
    if (directory === undefined)
      throw new CairnError("internal", "a far repository's packs are copied in a work directory");
    try {
      makeFolder(directory);
    } catch (error) {
      throw toCairnError(error, "cannot make the folder for new packs");
    }
    const writer = (type: BlobType): PackWriter =>
      new PackWriter({
        type,
        keys,
        directory,
        onPack: (pack) => void this.#closed.push(pack),
        ...writerOptions(style, type),
      });
    return (this.#tools = {
      near: new NearPacks(storage, storage.localPath === undefined ? directory : ""),
      writers: { data: writer("data"), tree: writer("tree") },
      decoder: new BlobDecoder(keys),
    });
  }

  /** Reads the run into the window. Returns false if the file is damaged or short. */
  #read(descriptor: number, { offset, length }: Run): boolean {
    this.#makeRoom(length);
    try {
      return readAt(descriptor, offset, length, this.#window, 0) === length;
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known)) throw known;
      return false;
    }
  }

  /** Loads a blob's sealed bytes. Returns null if they are damaged. */
  async #load(pack: string, blob: IndexBlob): Promise<Uint8Array | null> {
    try {
      return await this.#repository.storage.load("data", pack, blob);
    } catch (error) {
      const known = toCairnError(error);
      // A blob that is not copied loses its index entry. The storage has listed the pack, and now says that it does not
      // exist: one of the answers is wrong, so the repair stops.
      if (known.code === "not_found")
        throw new CairnError("io", `pack ${pack.slice(0, 8)} is listed, but was not found when it was read`);
      if (!tellsOfDamage(known)) throw known;
      return null;
    }
  }

  /** Copies a loaded run into the window. Returns false if it is short. */
  #take(sealed: Uint8Array, { length }: Run): boolean {
    if (sealed.length !== length) return false;
    this.#makeRoom(length);
    this.#window.bytes.set(sealed);
    return true;
  }

  #makeRoom(length: number): void {
    if (length > this.#window.bytes.length || this.#window.bytes.length > 16 * WINDOW)
      this.#window = newArena(Math.max(WINDOW, length));
  }

  /**
   * Decodes the run in the window and compares each blob with its id. A right MAC alone proves nothing: any blob of the
   * repository has one.
   */
  #isProven(read: ReadRun, run: Run): boolean {
    if (!read(run)) return false;
    const { decoder } = this.#ready();
    const { offset, blobs } = run;
    run.macs = this.#macsOf(run);
    return blobs.every((blob) => {
      const at = blob.offset - offset;
      return (
        decoder.storedProblem(this.#window, at, run.length, blob) === null &&
        decoder.contentProblem(this.#window, at, blob, blob.id) === null
      );
    });
  }

  /**
   * Writes a proven run. Decoding overwrote the window, so it is filled again. Returns false, and writes nothing, if
   * the sealed bytes are not the proven ones: no nonce may get a second message.
   */
  #write(read: ReadRun, run: Run): boolean {
    const { writers, decoder } = this.#ready();
    const { offset, blobs } = run;
    const isSame =
      read(run) &&
      Buffer.compare(this.#macsOf(run), run.macs) === 0 &&
      blobs.every((blob) => decoder.authentic(this.#window, blob.offset - offset, blob.length));
    if (!isSame) return false;
    writers[run.type].addSealed(this.#window.bytes.subarray(0, run.length), blobs);
    for (const blob of blobs) this.#copied.add(keyOf(blob));
    return true;
  }

  #macsOf({ offset, blobs }: Run): Uint8Array {
    const macs = new Uint8Array(blobs.length * MAC_LENGTH);
    for (const [i, blob] of blobs.entries()) {
      const end = blob.offset - offset + blob.length;
      macs.set(this.#window.bytes.subarray(end - MAC_LENGTH, end), i * MAC_LENGTH);
    }
    return macs;
  }

  async #saveClosed(): Promise<void> {
    for (let pack = this.#closed[0]; pack !== undefined; pack = this.#closed[0]) {
      await this.#repository.storage.saveFile("data", objectIdOf(pack.id), pack.path, { durable: false });
      this.#closed.shift();
      this.packs.push(pack);
    }
  }
}

function reachOf(pack: string, runs: readonly Run[]): WantedRange {
  const { offset } = runs[0]!;
  const end = runs.reduce((most, run) => Math.max(most, run.offset + run.length), 0);
  return { pack, offset, length: end - offset };
}

function readOtherwise(pack: string): CairnError {
  return new CairnError("damaged", `two reads of pack ${pack.slice(0, 8)} returned different content`);
}

function keyOf({ type, id }: PackHeaderEntry): string {
  return `${type}${Buffer.from(id.buffer, id.byteOffset, 32).toString("latin1")}`;
}

/** Tells whether a blob can have these lengths. */
function isPossible({ length, uncompressedLength }: IndexBlob): boolean {
  return placeProblem(length, uncompressedLength) === null;
}

function runsOf(blobs: readonly IndexBlob[]): Run[] {
  const runs: Run[] = [];
  for (const blob of blobs) {
    const last = runs.at(-1);
    const joins =
      last?.type === blob.type && last.offset + last.length === blob.offset && last.length + blob.length <= WINDOW;
    if (joins) {
      last.length += blob.length;
      last.blobs.push(blob);
    } else
      runs.push({ type: blob.type, offset: blob.offset, length: blob.length, blobs: [blob], macs: new Uint8Array(0) });
  }
  return runs;
}
