import type { BlobType } from "../../formats/restic/pack-header.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { objectIdOf } from "../../ids.ts";
import { type Arena, arenaOver } from "../../native.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { writerOptions } from "./pack-style.ts";
import { PackUploader, type PackUploaderOptions } from "./pack-uploader.ts";
import { type FinishedPack, PackWriter } from "./pack-writer.ts";

/** Takes new blobs for a repository: packs, uploads and indexes them. */
export class PackedBlobs {
  readonly #writers: Readonly<Record<BlobType, PackWriter>>;
  readonly #uploader: PackUploader;
  readonly #index: BlobIndex;
  readonly #damaged: ReadonlySet<string>;
  /** Keys of blobs added by `addNew`. The index gets them only later. */
  readonly #added = new Set<string>();

  /** `directory` holds unfinished packs; created if missing. */
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
    this.#damaged = repository.damaged.listedIn(index);
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  /** Number of uploaded packs, and their bytes. */
  get packs(): number {
    return this.#uploader.packs;
  }

  get bytes(): number {
    return this.#uploader.bytes;
  }

  /** Sealed bytes that are not uploaded yet, approximately. */
  get waiting(): number {
    return this.#writers.data.storedBytes + this.#writers.tree.storedBytes - this.#uploader.arrived.bytes;
  }

  /** Adds `length` ≥ 1 bytes at `offset` under their id; copies them. */
  add(type: BlobType, id: Uint8Array, plain: Arena, offset: number, length: number): void {
    this.#writers[type].add(id, plain, offset, length);
  }

  /** Adds a blob unless the index has it, not only in packs known to be damaged, or it was added here before. */
  addNew(type: BlobType, id: Uint8Array, bytes: Uint8Array): void {
    const key = `${type} ${objectIdOf(id)}`;
    if (this.#added.has(key) || this.#isStored(this.#index.entryOf({ id, type }))) return;
    this.#added.add(key);
    this.add(type, id, arenaOver(Uint8Array.from(bytes)), 0, bytes.length);
  }

  #isStored(entry: number): boolean {
    if (entry < 0 || this.#damaged.size === 0) return entry >= 0;
    const places = [this.#index.place(entry), ...this.#index.others(entry)];
    return places.some(({ pack }) => !this.#damaged.has(objectIdOf(pack)));
  }

  /**
   * Uploads a finished pack of another writer, whose blobs the index lacks. Resolves when the upload is done or has
   * failed.
   */
  async take(pack: FinishedPack): Promise<void> {
    await this.#uploader.add(pack);
  }

  /** Waits until more may be added. */
  async settle(): Promise<void> {
    await this.#uploader.settle();
  }

  /** Makes everything that was added so far durable and indexed. More may follow. */
  async finish(): Promise<void> {
    this.#writers.data.finish();
    this.#writers.tree.finish();
    await this.#uploader.checkpoint();
  }

  /** Removes everything that is not indexed yet. */
  async abort(): Promise<void> {
    this.#writers.data.abort();
    this.#writers.tree.abort();
    await this.#uploader.abort();
  }
}
