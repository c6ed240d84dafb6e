import { mkdirSync } from "node:fs";
import { SEAL_OVERHEAD } from "../crypto/seal.ts";
import { COMPRESSED_ENTRY_SIZE, PLAIN_ENTRY_SIZE } from "../formats/pack-header.ts";
import { F, FORWARD_WORDS, type ForwardTarget, type ForwardTask } from "./forward.ts";
import { PackUploader, type PackUploaderOptions } from "./pack-uploader.ts";
import type { FinishedPack } from "./pack-writer.ts";

/** What came by being forwarded. */
export interface ForwardedSize {
  dataBlobs: number;
  treeBlobs: number;
  /** Bytes of the blobs' plaintexts. */
  plainBytes: number;
  packs: number;
  /** Bytes of the packs. */
  packBytes: number;
}

/**
 * Takes what a save forwards into a repository: uploaded as it comes, indexed as a transfer's packs are. A failure stops
 * the forwarding and is told by `finish`; the save knows nothing of it.
 */
export class ForwardedPacks implements ForwardTarget {
  readonly task: ForwardTask;
  readonly size: ForwardedSize = { dataBlobs: 0, treeBlobs: 0, plainBytes: 0, packs: 0, packBytes: 0 };
  readonly #control: Int32Array;
  readonly #uploader: PackUploader;
  #indexing: Promise<void> | null = null;
  #ending: Promise<void> | null = null;
  #failure: { readonly error: unknown } | null = null;

  /** `directory`: for unfinished packs, on the repository's own file system where it is local; made when absent. */
  constructor(options: PackUploaderOptions & { directory: string }) {
    const { directory, repository, index } = options;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#uploader = new PackUploader(options);
    this.#control = new Int32Array(new SharedArrayBuffer(FORWARD_WORDS * 4));
    this.task = {
      keys: repository.keys,
      index: index.shared,
      directory,
      control: this.#control.buffer as SharedArrayBuffer,
    };
  }

  onPack(pack: FinishedPack): void {
    const { size } = this;
    if (pack.type === "data") size.dataBlobs += pack.blobs;
    else size.treeBlobs += pack.blobs;
    size.plainBytes += plainBytesOf(pack.header);
    size.packs++;
    size.packBytes += pack.size;
    void this.#uploader.add(pack).then(() => {
      Atomics.sub(this.#control, F.WAITING, 1);
      if (this.#ending === null) this.#indexing ??= this.#indexIfDue();
    });
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

  /** What came becomes durable while the save does; its index is made after the save's, since both at once take much memory. */
  onEnd(): void {
    this.#ending ??= this.#uploader.makeDurable().catch((error: unknown) => this.#fail(error));
  }

  /** All that came is durable and indexed afterwards. Throws what any of it failed with. */
  async finish(): Promise<void> {
    this.onEnd();
    await Promise.all([this.#ending, this.#indexing]);
    if (this.#failure !== null) throw this.#failure.error;
    await this.#uploader.checkpoint();
  }

  /** Gives up: what was indexed stays. */
  async abort(): Promise<void> {
    await Promise.all([this.#ending, this.#indexing]);
    await this.#uploader.abort();
  }
}

/** Of a pack's header, its plain bytes. */
function plainBytesOf(header: Uint8Array): number {
  const view = new DataView(header.buffer, header.byteOffset, header.byteLength);
  let bytes = 0;
  for (let at = 0; at < header.length;) {
    const isCompressed = header[at]! >= 2;
    bytes += isCompressed ? view.getUint32(at + 5, true) : view.getUint32(at + 1, true) - SEAL_OVERHEAD;
    at += isCompressed ? COMPRESSED_ENTRY_SIZE : PLAIN_ENTRY_SIZE;
  }
  return bytes;
}
