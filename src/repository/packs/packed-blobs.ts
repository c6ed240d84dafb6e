import type { BlobType } from "../../formats/restic/pack-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { objectIdOf } from "../../ids.ts";
import { type Arena, arenaOver } from "../../native.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { writerOptions } from "./pack-style.ts";
import { PackUploader, type PackUploaderOptions } from "./pack-uploader.ts";
import { type FinishedPack, PackWriter } from "./pack-writer.ts";

/** New blobs on their way into a repository: packed as they come, uploaded, and made known by an index. */
export class PackedBlobs {
  readonly #writers: Readonly<Record<BlobType, PackWriter>>;
  readonly #uploader: PackUploader;
  readonly #index: BlobIndex;
  /** By `addNew`: the index does not have them before they are finished. */
  readonly #added = new Set<string>();

  /** `directory`: for unfinished packs; made when absent. */
  constructor(options: PackUploaderOptions & { directory: string }) {
    const { directory, repository, index } = options;
    makeFolder(directory);
    const uploader = new PackUploader(options);
    const writer = (type: BlobType): PackWriter =>
      new PackWriter({
        type,
        keys: repository.keys,
        directory,
        ...writerOptions(repository.style, type),
        onPack: (pack) => void uploader.add(pack),
      });
    this.#uploader = uploader;
    this.#index = index;
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  /** Packs that have arrived, and their bytes. */
  get packs(): number {
    return this.#uploader.packs;
  }

  get bytes(): number {
    return this.#uploader.bytes;
  }

  /** About so many sealed bytes have not reached the repository. */
  get waiting(): number {
    return this.#writers.data.storedBytes + this.#writers.tree.storedBytes - this.#uploader.arrived.bytes;
  }

  /** `length` ≥ 1 bytes at `offset`, copied, under their id. */
  add(type: BlobType, id: Uint8Array, plain: Arena, offset: number, length: number): void {
    this.#writers[type].add(id, plain, offset, length);
  }

  /** Adds a blob from bytes anywhere, unless the index has it or it was added here before. */
  addNew(type: BlobType, id: Uint8Array, bytes: Uint8Array): void {
    const key = `${type} ${objectIdOf(id)}`;
    if (this.#added.has(key) || this.#index.entryOf({ id, type }) >= 0) return;
    this.#added.add(key);
    this.add(type, id, arenaOver(Uint8Array.from(bytes)), 0, bytes.length);
  }

  /** Takes a pack that somebody else has written of blobs that the index lacks; resolves when it is uploaded, or has failed. */
  async take(pack: FinishedPack): Promise<void> {
    await this.#uploader.add(pack);
  }

  /** Waits until more may be added. */
  async settle(): Promise<void> {
    await this.#uploader.settle();
  }

  /** Makes all that was added so far durable and indexed; more may follow. */
  async finish(): Promise<void> {
    this.#writers.data.finish();
    this.#writers.tree.finish();
    await this.#uploader.checkpoint();
  }

  /** Gives up; what was indexed stays. */
  async abort(): Promise<void> {
    this.#writers.data.abort();
    this.#writers.tree.abort();
    await this.#uploader.abort();
  }
}
