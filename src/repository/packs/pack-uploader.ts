import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { EMPTY_PACK_SIZE } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import type { FinishedPack } from "./pack-writer.ts";
import type { Repository } from "../repository.ts";
import { chosenJobs } from "../../threads/threads.ts";
import { Slots } from "../storage/limited.ts";
import { clearAway } from "../../fs/remove-all.ts";

export interface PackUploaderOptions {
  repository: Repository;
  /** Gets the blobs of each pack as soon as an index file lists the pack. */
  index: BlobIndex;
  /**
   * Called before each index file is written. Throws if the lock has ended, since a clean-up may have removed the
   * packs: an index file that names them would make every later backup skip their content.
   */
  stillHeld?: (() => Promise<void>) | undefined;
  /** The most packs after which an index is written; default 64. */
  packsPerIndex?: number;
  /** The most milliseconds between two indexes while packs are uploaded; default 30 000. */
  indexEveryMs?: number;
}

/** Returns the most packs that may wait for their upload: they use disk space. */
export function mostWaiting(): number {
  return Math.max(8, 2 * (chosenJobs() ?? 0));
}

/** Blobs, and their sealed bytes. */
export interface BlobCounts {
  blobs: number;
  bytes: number;
}

/** Concurrent uploads of a call that chose no number. */
const UPLOADS = 4;
const PACKS_PER_INDEX = 64;
const INDEX_EVERY_MS = 30_000;

/**
 * Uploads finished packs, and writes an index every 64 packs or 30 seconds. So a repeated transfer after a kill skips
 * everything indexed so far. An index is written only after all its packs are durable.
 */
export class PackUploader {
  readonly #options: PackUploaderOptions;
  readonly #pending = new Set<Promise<void>>();
  /** Packs that are uploaded or being uploaded, but in no index yet. */
  #unindexed: FinishedPack[] = [];
  /** Uploads start in the order of the calls. */
  readonly #slots: Slots;
  readonly #atOnce = chosenJobs() ?? UPLOADS;
  #lastIndex = Date.now();
  #failure: { readonly error: unknown } | null = null;
  packs = 0;
  indexes = 0;
  /** Bytes of uploaded packs. */
  bytes = 0;
  /** Counts of all packs that were added. */
  readonly added: BlobCounts = { blobs: 0, bytes: 0 };
  readonly #acknowledged: BlobCounts = { blobs: 0, bytes: 0 };
  /** Bytes that were sent so far, of packs whose upload is not done. */
  readonly #sent = new Map<FinishedPack, number>();

  constructor(options: PackUploaderOptions) {
    this.#options = options;
    this.#slots = new Slots(this.#atOnce);
  }

  /** Counts of the packs that the storage has acknowledged, plus the sent bytes of unfinished uploads. */
  get arrived(): Readonly<BlobCounts> {
    const { blobs, bytes } = this.#acknowledged;
    return { blobs, bytes: [...this.#sent.values()].reduce((sum, sent) => sum + sent, bytes) };
  }

  /** Starts an upload. The promise resolves when the upload has ended; `settle` throws its error. */
  add(pack: FinishedPack): Promise<void> {
    this.#unindexed.push(pack);
    count(this.added, pack);
    const upload = this.#slots.run(async () => this.#upload(pack));
    this.#pending.add(upload);
    return upload.then(() => void this.#pending.delete(upload));
  }

  async #upload(pack: FinishedPack): Promise<void> {
    // After a failure nothing is indexed any more, so an upload would be wasted.
    if (this.#failure !== null) return;
    const { storage } = this.#options.repository;
    try {
      const onSent = (bytes: number): void => void this.#sent.set(pack, Math.min(bytes, blobBytes(pack)));
      await storage.saveFile("data", objectIdOf(pack.id), pack.path, { durable: false, onSent });
      this.packs++;
      this.bytes += pack.size;
      count(this.#acknowledged, pack);
    } catch (error) {
      this.#failure ??= { error };
    } finally {
      this.#sent.delete(pack);
    }
  }

  /** Waits until another pack may be added, and writes an index if one is due. Throws the error of a failed upload. */
  async settle(): Promise<void> {
    while (this.#pending.size >= this.#atOnce) await Promise.race(this.#pending);
    await this.indexIfDue();
  }

  /** Writes an index if one is due. Throws the error of a failed upload. */
  async indexIfDue(): Promise<void> {
    this.#check();
    const { packsPerIndex = PACKS_PER_INDEX, indexEveryMs = INDEX_EVERY_MS } = this.#options;
    const isDue = this.#unindexed.length >= packsPerIndex || Date.now() - this.#lastIndex >= indexEveryMs;
    if (isDue && this.#unindexed.length > 0) await this.checkpoint();
  }

  /**
   * Waits for all started uploads and writes the index of their packs. Packs may be added meanwhile. One call at a
   * time.
   */
  async checkpoint(): Promise<void> {
    const { repository, index, stillHeld } = this.#options;
    const packs = [...this.#unindexed];
    await Promise.all(this.#pending);
    this.#check();
    this.#lastIndex = Date.now();
    if (packs.length === 0) return;
    failpoint("transfer.packs-saved");
    const durable = async (): Promise<void> => {
      await repository.storage.sync(["data"]);
      failpoint("transfer.packs-durable");
      await stillHeld?.();
    };
    const names = await repository.saveIndex(packs, { after: durable() });
    this.#unindexed = this.#unindexed.slice(packs.length);
    index.addIndexed(packs, names);
    this.indexes += names.length;
    failpoint("transfer.index-written");
  }

  /** Waits for running uploads and removes the packs that were not uploaded. Starts no index afterwards. */
  async abort(): Promise<void> {
    this.#failure ??= { error: new CairnError("interrupted", "the uploads were given up") };
    await Promise.allSettled(this.#pending);
    for (const pack of this.#unindexed) clearAway(pack.path);
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}

function blobBytes({ size, header }: FinishedPack): number {
  return size - header.length - EMPTY_PACK_SIZE;
}

function count(counts: BlobCounts, pack: FinishedPack): void {
  counts.blobs += pack.blobs;
  counts.bytes += blobBytes(pack);
}
