import fs from "node:fs";
import path from "node:path";
import {
  finishStatCache,
  loadStatCache,
  type StatCache,
  statCacheTemporary,
  statCacheTree,
  writeStatCache,
} from "../../fs/stat-cache.ts";
import type { ScanResult } from "../scan/scan.ts";
import { cacheBasisHolds, dropCacheBasis, moveCacheBasis, writeCacheBasis } from "./cache-basis.ts";
import { takeSeed } from "./cache-seed.ts";
import { type EmbeddedStore, hex } from "./embedded-store.ts";

/**
 * What the last scan of a workspace found, kept in a file for the next one, with what it relies on in the store.
 *
 * A restore scans the present, and then the folder is as it was at another time. Where that is what the cache
 * describes, the cache stays, and the present's own is put aside: for the way back, which asks for it by its tree.
 */
export class KeptScan {
  readonly #main: string;
  readonly #aside: string;
  /** which of the two was loaded */
  #file: string;

  /** `file`: the workspace's stat cache */
  constructor(file: string) {
    this.#main = file;
    this.#aside = `${file}-aside`;
    this.#file = file;
  }

  /**
   * The stat cache, of the state with the tree `goingTo` (hex) where one is kept; a fork's first one comes from the
   * workspace that it was made of.
   */
  load(root: Uint8Array, goingTo?: string): StatCache | null {
    const isAside = goingTo !== undefined && isOf(this.#aside, goingTo) && !isOf(this.#main, goingTo);
    this.#file = isAside ? this.#aside : this.#main;
    return loadStatCache(this.#file) ?? takeSeed(this.#main, root);
  }

  /** True when every id that the loaded stat cache knows is in the store for certain. */
  vouches(store: EmbeddedStore, cache: StatCache): boolean {
    return hex(cache.epoch) === store.index.epoch && cacheBasisHolds(this.#file, store.index.covered);
  }

  /** Where a thread may write the next one meanwhile. */
  draftPlace(): string {
    try {
      this.#makeFolder();
    } catch {
      // Then the draft fails too, and is no draft.
    }
    return statCacheTemporary(this.#main);
  }

  /** Keeps a scan, from its draft where it has one; `epoch` is that of the index in which all its ids are. */
  async keep(store: EmbeddedStore, result: ScanResult, epoch: string = store.index.epoch): Promise<void> {
    await this.#write(this.#main, { store, result, epoch });
  }

  /** Keeps the loaded cache as the one of the folder, and a scan of what the folder is not any more beside it. */
  async keepAside(store: EmbeddedStore, result: ScanResult): Promise<void> {
    try {
      if (this.#file === this.#aside) moveCache(this.#aside, this.#main);
    } catch {
      // The main one is as good as it was.
    }
    await this.#write(this.#aside, { store, result, epoch: store.index.epoch });
  }

  async #write(
    file: string,
    { store, result, epoch }: { store: EmbeddedStore; result: ScanResult; epoch: string },
  ): Promise<void> {
    try {
      const draft = await result.draft;
      this.#makeFolder();
      // At no moment is there a cache beside the basis of another one.
      dropCacheBasis(file);
      const key = { tree: result.tree, epoch: Buffer.from(epoch, "hex") };
      if (draft === null) writeStatCache(file, result.table, result.old, key);
      else finishStatCache(file, draft, key);
      writeCacheBasis(file, store.index.covered);
    } catch {
      // A cache that cannot be written is only slow.
    }
  }

  #makeFolder(): void {
    fs.mkdirSync(path.dirname(this.#main), { recursive: true, mode: 0o700 });
  }
}

function isOf(file: string, tree: string): boolean {
  const described = statCacheTree(file);
  return described !== null && hex(described) === tree;
}

function moveCache(from: string, to: string): void {
  dropCacheBasis(to);
  fs.renameSync(from, to);
  moveCacheBasis(from, to);
}
