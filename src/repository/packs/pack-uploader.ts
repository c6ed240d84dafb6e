import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { EMPTY_PACK_SIZE } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import type { FinishedPack } from "./pack-writer.ts";
import type { Repository } from "../repository.ts";
import { Slots } from "../storage/limited.ts";
import { clearAway } from "../../fs/remove-all.ts";

export interface PackUploaderOptions {
  repository: Repository;
  /** Kept in step with what is indexed. */
  index: BlobIndex;
  /**
   * Called before each index: throws when the lock under which the packs came has ended, since a clean-up may have taken
   * them meanwhile. An index that named them would pass their content for stored, to every later backup too.
   */
  stillHeld?: (() => Promise<void>) | undefined;
  /** Uploads at once; default 4. */
  connections?: number | undefined;
  /** An index is written at the latest after so many packs; default 64. */
  packsPerIndex?: number;
  /** … and at the latest so long after the last one, in milliseconds; default 30 000. */
  indexEveryMs?: number;
}

/** Blobs, and their sealed bytes. */
export interface BlobCounts {
  blobs: number;
  bytes: number;
}

const CONNECTIONS = 4;
const PACKS_PER_INDEX = 64;
const INDEX_EVERY_MS = 30_000;

/**
 * Takes finished packs to a repository: uploaded as they come, and made known by an index every 64 packs or 30 seconds,
 * so that whoever repeats a transfer that was killed finds what was there by then. An index is written only when all
 * packs in it are durable.
 */
export class PackUploader {
  readonly #options: PackUploaderOptions;
  readonly #pending = new Set<Promise<void>>();
  /** Uploaded or on their way, in no index yet. */
  #unindexed: FinishedPack[] = [];
  /** Uploads begin in the order of the calls. */
  readonly #slots: Slots;
  #lastIndex = Date.now();
  #failure: { readonly error: unknown } | null = null;
  packs = 0;
  indexes = 0;
  /** Bytes of packs that have arrived. */
  bytes = 0;
  /** In the packs that were handed over. */
  readonly added: BlobCounts = { blobs: 0, bytes: 0 };
  readonly #acknowledged: BlobCounts = { blobs: 0, bytes: 0 };
  /** Bytes of packs on their way that have reached the other machine. */
  readonly #sent = new Map<FinishedPack, number>();

  constructor(options: PackUploaderOptions) {
    this.#options = options;
    this.#slots = new Slots(options.connections ?? CONNECTIONS);
  }

  /** In the packs that the storage has acknowledged, with the bytes of others that have reached it. */
  get arrived(): Readonly<BlobCounts> {
    const { blobs, bytes } = this.#acknowledged;
    return { blobs, bytes: [...this.#sent.values()].reduce((sum, sent) => sum + sent, bytes) };
  }

  /** Begins an upload; resolves when it has ended, however it did. See `settle`. */
  add(pack: FinishedPack): Promise<void> {
    this.#unindexed.push(pack);
    count(this.added, pack);
    const upload = this.#slots.run(async () => this.#upload(pack));
    this.#pending.add(upload);
    return upload.then(() => void this.#pending.delete(upload));
  }

  async #upload(pack: FinishedPack): Promise<void> {
    // Nothing is indexed any more, and where one fails after many tries the others would too.
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

  /** Waits until more may be added; writes an index when one is due. Throws what an upload failed with. */
  async settle(): Promise<void> {
    const connections = this.#options.connections ?? CONNECTIONS;
    while (this.#pending.size >= connections) await Promise.race(this.#pending);
    await this.indexIfDue();
  }

  /** Writes an index when one is due. Throws what an upload failed with. */
  async indexIfDue(): Promise<void> {
    this.#check();
    const { packsPerIndex = PACKS_PER_INDEX, indexEveryMs = INDEX_EVERY_MS } = this.#options;
    const isDue = this.#unindexed.length >= packsPerIndex || Date.now() - this.#lastIndex >= indexEveryMs;
    if (isDue && this.#unindexed.length > 0) await this.checkpoint();
  }

  /** Waits for all uploads that were begun and writes the index of their packs; others may be added meanwhile. One at a time. */
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

  /** Gives up: waits for what is on its way and removes what has not left. No index is begun afterwards. */
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
