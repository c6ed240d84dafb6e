import fs from "node:fs";
import { hex } from "../../formats/bytes.ts";
import path from "node:path";
import type { ScanTable } from "../../archive/cache/scan-table.ts";
import {
  finishStatCache,
  loadStatCache,
  type StatCache,
  statCacheTemporary,
  writeStatCache,
} from "../../archive/cache/stat-cache.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { keepWrittenFiles, loadWrittenFiles, type WrittenFiles } from "../../archive/scan/written-files.ts";
import { cacheBasisHolds, dropCacheBasis, writeCacheBasis } from "./cache-basis.ts";
import { takeSeed } from "./cache-seed.ts";
import type { EmbeddedStore } from "./embedded-store.ts";

export type { WrittenFiles } from "../../archive/scan/written-files.ts";

/** Keeps what the last scan of a workspace found in a file for the next one, with what it relies on in the store. */
export class KeptScan {
  readonly file: string;

  /** `file`: the workspace's stat cache */
  constructor(file: string) {
    this.file = file;
  }

  /** The stat cache; a fork's first one comes from the workspace that it was made of. */
  load(root: Uint8Array): StatCache | null {
    return loadStatCache(this.file) ?? takeSeed(this.file, root);
  }

  /** Returns the files that a restore wrote since, which a scan need not read; null where there are none. */
  written(): ScanTable | null {
    return loadWrittenFiles(this.#written);
  }

  /** Keeps what was written into the folder for the next scan, which keeps it as its own. */
  noteWritten(files: WrittenFiles): void {
    try {
      keepWrittenFiles(this.#written, files);
    } catch {
      // Then it is read.
    }
  }

  /** True when every id that the stat cache knows is in the store for certain. */
  vouches(store: EmbeddedStore, cache: StatCache): boolean {
    return hex(cache.epoch) === store.index.epoch && cacheBasisHolds(this.file, store.index.covered);
  }

  /** Returns where a thread may write the next one meanwhile. */
  draftPlace(): string {
    try {
      this.#makeFolder();
    } catch {
      // Then the draft fails too, and is no draft.
    }
    return statCacheTemporary(this.file);
  }

  /** Keeps a scan, from its draft where it has one; `epoch` is that of the index in which all its ids are. */
  async keep(store: EmbeddedStore, result: ScanResult, epoch: string = store.index.epoch): Promise<void> {
    try {
      const draft = await result.draft;
      this.#makeFolder();
      // At no moment is there a cache beside the basis of another one.
      dropCacheBasis(this.file);
      const key = { tree: result.tree, epoch: Buffer.from(epoch, "hex") };
      if (draft === null) writeStatCache(this.file, result.table, result.old, key);
      else finishStatCache(this.file, draft, key);
      writeCacheBasis(this.file, store.index.covered);
      fs.rmSync(this.#written, { force: true });
    } catch {
      // A cache that cannot be written is only slow.
    }
  }

  get #written(): string {
    return `${this.file}-written`;
  }

  #makeFolder(): void {
    makeFolder(path.dirname(this.file));
  }
}
