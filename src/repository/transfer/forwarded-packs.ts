import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { plainBytesOf } from "../../formats/restic/pack-header.ts";
import { F, FORWARD_WORDS, type ForwardTarget, type ForwardTask } from "./forward.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { isCompressedAnew } from "../packs/pack-style.ts";
import { type BlobCounts, mostWaiting, PackUploader, type PackUploaderOptions } from "../packs/pack-uploader.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import { clearAway } from "../../fs/remove-all.ts";

/** Counts of forwarded blobs. */
export interface ForwardedSize {
  dataBlobs: number;
  treeBlobs: number;
  /** Bytes of the blobs' plaintexts. */
  plainBytes: number;
  packs: number;
  /** Bytes of the pack files. */
  packBytes: number;
}

export interface ForwardedPacksOptions extends PackUploaderOptions {
  /** For unfinished packs; on the repository's own file system if that is local. Made if missing. */
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
 * Uploads and indexes packs that a save forwards. A failure stops the forwarding and is thrown by `finish`; the save
 * does not notice it.
 */
export class ForwardedPacks implements ForwardTarget {
  readonly task: ForwardTask;
  readonly size: ForwardedSize = { ...NOTHING_FORWARDED };
  readonly #control: Int32Array;
  readonly #uploader: PackUploader;
  /** Packs that are being uploaded, oldest first, with the path whose content is in them. */
  readonly #underWay = new Map<FinishedPack, string>();
  #indexing: Promise<void> | null = null;
  #ending: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;

  constructor(options: ForwardedPacksOptions) {
    const { repository, index } = options;
    makeFolder(options.directory);
    const directory = mkdtempSync(join(options.directory, "forwarded-"));
    this.#uploader = new PackUploader(options);
    this.#control = new Int32Array(new SharedArrayBuffer(FORWARD_WORDS * 4));
    this.task = {
      keys: repository.keys,
      style: repository.style,
      mostWaiting: mostWaiting(),
      index: index.shared,
      directory,
      control: this.#control.buffer as SharedArrayBuffer,
    };
  }

  /** Returns null if the repository's style needs blobs that are compressed anew. */
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

  /**
   * `done`: the uploaded blobs. `total`: all new blobs so far, also blobs that were not forwarded for lack of room.
   * `current`: the path of a file whose content is being uploaded.
   */
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

  /** Starts to make the packs durable and indexed, while the save does the same with its own. */
  onEnd(): void {
    this.#ending ??= this.#checkpoint();
  }

  /** Waits for a running index first: of two flushes at once only one gets the error of a failed disk. */
  async #checkpoint(): Promise<void> {
    try {
      await this.#indexing;
      if (this.#failure === null) await this.#uploader.checkpoint();
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Makes all packs durable and indexed. Throws the first error of the forwarding. */
  async finish(): Promise<void> {
    this.onEnd();
    await this.#ending;
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** Removes everything that is not indexed. Afterwards nothing is written to the repository. */
  async abort(): Promise<void> {
    await this.#uploader.abort();
    await Promise.all([this.#ending, this.#indexing]);
  }

  /** Removes the leftovers of failed threads. Call it last. Never throws. */
  clear(): void {
    clearAway(this.task.directory);
  }
}
