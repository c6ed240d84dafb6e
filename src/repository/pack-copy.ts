import { closeSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { BlobOpener } from "../crypto/seal.ts";
import { CairnError } from "../errors.ts";
import type { BlobType, IndexBlob, PackHeaderEntry } from "../formats/pack-header.ts";
import { objectIdOf } from "../ids.ts";
import { clearAway } from "../fs/remove-all.ts";
import { type Arena, giveBack, newArena } from "../native.ts";
import { placeProblem } from "./blob-decoder.ts";
import { NearPacks } from "./near-packs.ts";
import { readAt } from "./pack-read.ts";
import { type FinishedPack, PackWriter } from "./pack-writer.ts";
import type { Repository } from "./repository.ts";

/** Packs below so many bytes are merged, and rewritten for any dead blob: what many small saves make. */
export const SMALL_PACK = 1024 * 1024;
/** Blobs that lie back to back are read at once, up to so many bytes; a larger one alone. */
const WINDOW = 1024 * 1024;

/** A folder of this machine for what is fetched and for unfinished packs; made when it is asked for. */
export type WorkDirectory = () => string;

/**
 * Copies what `run` hands to the copier, and returns the new packs: saved, but not flushed. Where it fails nothing unfinished
 * is left. `work` is needed where the repository is not a local one.
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
    throw error;
  }
}

/** Blobs of one type that lie back to back. */
interface Run {
  readonly type: BlobType;
  readonly offset: number;
  length: number;
  readonly blobs: IndexBlob[];
}

/**
 * Copies sealed blobs as they are into new packs, one open pack a type, of packs of any size in little memory. The bytes
 * keep their seal, so copying them again is a retry and never a second use of a nonce. Packs are saved without flushing:
 * call `storage.sync(["data"])` before an index names them. After an error only `abort` may be called.
 */
export class PackCopier {
  /** Saved, but not flushed. */
  readonly packs: FinishedPack[] = [];
  readonly #repository: Repository;
  readonly #near: NearPacks;
  readonly #writers: Readonly<Record<BlobType, PackWriter>>;
  readonly #opener: BlobOpener;
  readonly #copied = new Set<string>();
  /** Closed, and not saved yet. */
  #closed: FinishedPack[] = [];
  #window: Arena = newArena(0);

  /** See `copyingPacks`. */
  constructor(repository: Repository, work?: WorkDirectory) {
    const { storage, keys } = repository;
    const directory = work === undefined ? storage.temporaryDirectory : join(work(), "packs");
    if (directory === undefined)
      throw new CairnError("internal", "a far repository's packs are copied in a work directory");
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#repository = repository;
    this.#near = new NearPacks(storage, storage.localPath === undefined ? directory : "");
    this.#opener = new BlobOpener(keys);
    const writer = (type: BlobType): PackWriter =>
      new PackWriter({ type, keys, directory, onPack: (pack) => void this.#closed.push(pack) });
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  /**
   * Copies these blobs of a pack (64 hex digits), sorted by offset; those that were copied already are skipped. False, and
   * nothing is copied, when the pack is not there or one of them is not what was sealed with the repository's keys.
   */
  async copy(pack: string, blobs: readonly IndexBlob[]): Promise<boolean> {
    const runs = runsOf(blobs.filter((blob) => !this.#copied.has(keyOf(blob))));
    if (runs === null) return false;
    const descriptor = await this.#open(pack, runs);
    if (descriptor < 0) return false;
    try {
      // All are proven before the first is written, and what is written is proven where it is read for that.
      if (!runs.every((run) => this.#read(descriptor, run))) return false;
      for (const run of runs) {
        // A single one is still in the window.
        if (runs.length > 1 && !this.#read(descriptor, run)) throw readOtherwise(pack);
        for (const blob of run.blobs) this.#copied.add(keyOf(blob));
        this.#writers[run.type].addSealed(this.#window.bytes.subarray(0, run.length), run.blobs);
      }
    } finally {
      closeSync(descriptor);
      this.#near.drop(pack);
    }
    await this.#saveClosed();
    return true;
  }

  /** Copies one blob whose sealed bytes the caller has proven. One that was copied already is skipped. */
  async add(sealed: Uint8Array, blob: PackHeaderEntry): Promise<void> {
    if (this.#copied.has(keyOf(blob))) return;
    this.#copied.add(keyOf(blob));
    this.#writers[blob.type].addSealed(sealed, [blob]);
    await this.#saveClosed();
  }

  /** Closes what is open, and gives its memory back. All new packs are in `packs` then. */
  async finish(): Promise<FinishedPack[]> {
    this.#writers.data.finish();
    this.#writers.tree.finish();
    await this.#saveClosed();
    giveBack(this.#window.bytes);
    this.#window = newArena(0);
    return this.packs;
  }

  /** Gives up: removes what is unfinished. Packs that were saved stay, in no index. */
  abort(): void {
    this.#writers.data.abort();
    this.#writers.tree.abort();
    for (const { path } of this.#closed) clearAway(path);
  }

  /** A descriptor of the pack, which is brought near as far as the runs reach; -1 when it is not there, or too short. */
  async #open(pack: string, runs: readonly Run[]): Promise<number> {
    const first = runs[0]?.offset ?? 0;
    const end = runs.reduce((most, run) => Math.max(most, run.offset + run.length), first);
    try {
      await this.#near.fetch([{ pack, offset: first, length: end - first }]);
      return this.#near.open(pack);
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return -1;
      throw error;
    }
  }

  /** Leaves a run's bytes in the window. False when they are not what was sealed. */
  #read(descriptor: number, { offset, length, blobs }: Run): boolean {
    if (length > this.#window.bytes.length || this.#window.bytes.length > 16 * WINDOW)
      this.#window = newArena(Math.max(WINDOW, length));
    const found = readAt(descriptor, offset, length, this.#window, 0);
    return (
      found === length && blobs.every((blob) => this.#opener.verify(this.#window, blob.offset - offset, blob.length))
    );
  }

  async #saveClosed(): Promise<void> {
    for (let pack = this.#closed[0]; pack !== undefined; pack = this.#closed[0]) {
      await this.#repository.storage.saveFile("data", objectIdOf(pack.id), pack.path, { durable: false });
      this.#closed.shift();
      this.packs.push(pack);
    }
  }
}

function readOtherwise(pack: string): CairnError {
  return new CairnError("damaged", `pack ${pack.slice(0, 8)} was read twice, and was not the same`);
}

function keyOf({ type, id }: PackHeaderEntry): string {
  return `${type}${Buffer.from(id.buffer, id.byteOffset, 32).toString("latin1")}`;
}

/** Null when one of the blobs cannot lie where it is said to. */
function runsOf(blobs: readonly IndexBlob[]): Run[] | null {
  const runs: Run[] = [];
  for (const blob of blobs) {
    if (placeProblem(blob.length, blob.uncompressedLength) !== null) return null;
    const last = runs.at(-1);
    const joins =
      last?.type === blob.type && last.offset + last.length === blob.offset && last.length + blob.length <= WINDOW;
    if (joins) {
      last.length += blob.length;
      last.blobs.push(blob);
    } else runs.push({ type: blob.type, offset: blob.offset, length: blob.length, blobs: [blob] });
  }
  return runs;
}

/** Bytes of a pack with these entries: blobs, sealed header, length field. */
export function packSizeOf(entries: readonly PackHeaderEntry[]): number {
  let size = 32 + 4;
  for (const entry of entries) size += entry.length + (entry.uncompressedLength > 0 ? 41 : 37);
  return size;
}
