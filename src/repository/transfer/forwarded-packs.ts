import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { plainBytesOf } from "../../formats/restic/pack-header.ts";
import { F, FORWARD_WORDS, type ForwardTarget, type ForwardTask } from "./forward.ts";
import { mostWaiting } from "./transfer-task.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { isCompressedAnew } from "../packs/pack-style.ts";
import { type BlobCounts, PackUploader, type PackUploaderOptions } from "../packs/pack-uploader.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import { clearAway } from "../../fs/remove-all.ts";

/** Counts of blobs that came by being forwarded. */
export interface ForwardedSize {
  dataBlobs: number;
  treeBlobs: number;
  /** Bytes of the blobs' plaintexts. */
  plainBytes: number;
  packs: number;
  /** Bytes of the packs. */
  packBytes: number;
}

/** As many threads forward as packs are uploaded at once, where that is said. */
export interface ForwardedPacksOptions extends PackUploaderOptions {
  /** Below it are unfinished packs, on the repository's own file system where it is local; made when absent. */
  directory: string;
}

export const NOTHING_FORWARDED: Readonly<ForwardedSize> = {
  dataBlobs: 0,
  treeBlobs: 0,
  plainBytes: 0,
  packs: 0,
  packBytes: 0,
};

/**
 * Takes what a save forwards into a repository: uploaded as it comes, indexed as a transfer's packs are. A failure stops
 * the forwarding and is told by `finish`; the save knows nothing of it.
 */
export class ForwardedPacks implements ForwardTarget {
  readonly task: ForwardTask;
  readonly jobs: number | undefined;
  readonly size: ForwardedSize = { ...NOTHING_FORWARDED };
  readonly #control: Int32Array;
  readonly #uploader: PackUploader;
  /** With where in the folder their content is from, the first first. */
  readonly #underWay = new Map<FinishedPack, string>();
  #indexing: Promise<void> | null = null;
  #ending: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;

  constructor(options: ForwardedPacksOptions) {
    const { repository, index } = options;
    makeFolder(options.directory);
    const directory = mkdtempSync(join(options.directory, "forwarded-"));
    this.jobs = options.connections;
    this.#uploader = new PackUploader(options);
    this.#control = new Int32Array(new SharedArrayBuffer(FORWARD_WORDS * 4));
    this.task = {
      keys: repository.keys,
      style: repository.style,
      mostWaiting: mostWaiting(options.connections),
      index: index.shared,
      directory,
      control: this.#control.buffer as SharedArrayBuffer,
    };
  }

  /** Null where nothing is taken as the save stores it. */
  static orNull(options: ForwardedPacksOptions): ForwardedPacks | null {
    return isCompressedAnew(options.repository.style) ? null : new ForwardedPacks(options);
  }

  onPack(pack: FinishedPack, current: string): void {
    const { size } = this;
    this.#underWay.set(pack, current);
    if (pack.type === "data") size.dataBlobs += pack.blobs;
    else size.treeBlobs += pack.blobs;
    size.plainBytes += plainBytesOf(pack.header);
    size.packs++;
    size.packBytes += pack.size;
    void this.#uploader.add(pack).then(() => {
      this.#underWay.delete(pack);
      Atomics.sub(this.#control, F.WAITING, 1);
      if (this.#ending === null) this.#indexing ??= this.#indexIfDue();
    });
  }

  /** The part that has reached the repository, of all that it lacked when it came by; what found no room follows later. */
  get arrived(): { done: Readonly<BlobCounts>; total: Readonly<BlobCounts>; current: string | null } {
    const { added, arrived } = this.#uploader;
    const left = { blobs: this.#control[F.LEFT]!, bytes: this.#control[F.LEFT_KIB]! * 1024 };
    const total = { blobs: added.blobs + left.blobs, bytes: added.bytes + left.bytes };
    return { done: arrived, total, current: this.#underWay.values().next().value ?? null };
  }

  async #indexIfDue(): Promise<void> {
    try {
      await this.#uploader.indexIfDue();
    } catch (error) {
      this.#fail(error);
    }
    this.#indexing = null;
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    Atomics.store(this.#control, F.STOP, 1);
  }

  /** Begins to make what came durable and indexed, while the save does so with its own. */
  onEnd(): void {
    this.#ending ??= this.#checkpoint();
  }

  /** After an index that is under way: of two flushes at once one alone is told that the disk has failed. */
  async #checkpoint(): Promise<void> {
    try {
      await this.#indexing;
      if (this.#failure === null) await this.#uploader.checkpoint();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** All that came is durable and indexed afterwards. Throws what any of it failed with. */
  async finish(): Promise<void> {
    this.onEnd();
    await this.#ending;
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** Gives up what is not indexed. Nothing is written to the repository afterwards. */
  async abort(): Promise<void> {
    await this.#uploader.abort();
    await Promise.all([this.#ending, this.#indexing]);
  }

  /** To be called last: removes what threads that failed have left. Never throws. */
  clear(): void {
    clearAway(this.task.directory);
  }
}
