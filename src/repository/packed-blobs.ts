import type { BlobType } from "../formats/pack-header.ts";
import { makeFolder } from "../fs/make-folder.ts";
import type { Arena } from "../native.ts";
import { PackUploader, type PackUploaderOptions } from "./pack-uploader.ts";
import { PackWriter } from "./pack-writer.ts";

/** New blobs on their way into a repository: packed as they come, uploaded, and made known by an index. */
export class PackedBlobs {
  readonly #writers: Readonly<Record<BlobType, PackWriter>>;
  readonly #uploader: PackUploader;

  /** `directory`: for unfinished packs; made when absent. */
  constructor(options: PackUploaderOptions & { directory: string }) {
    const { directory, repository } = options;
    makeFolder(directory);
    const uploader = new PackUploader(options);
    const writer = (type: BlobType): PackWriter =>
      new PackWriter({
        type,
        keys: repository.keys,
        directory,
        // Version 1 knows no compression.
        ...(repository.version === 1 ? { level: 0 } : {}),
        onPack: (pack) => void uploader.add(pack),
      });
    this.#uploader = uploader;
    this.#writers = { data: writer("data"), tree: writer("tree") };
  }

  /** Packs that have arrived, and their bytes. */
  get packs(): number {
    return this.#uploader.packs;
  }

  get bytes(): number {
    return this.#uploader.bytes;
  }

  /** `length` ≥ 1 bytes at `offset`, copied, under their id. */
  add(type: BlobType, id: Uint8Array, plain: Arena, offset: number, length: number): void {
    this.#writers[type].add(id, plain, offset, length);
  }

  /** Waits until more may be added. */
  async settle(): Promise<void> {
    await this.#uploader.settle();
  }

  /** What was added so far is durable and indexed afterwards; more may follow. */
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
