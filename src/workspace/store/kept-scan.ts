import { randomUUID } from "node:crypto";
import fs from "node:fs";
import { hex } from "../../formats/bytes.ts";
import path from "node:path";
import type { ScanTable } from "../../archive/cache/scan-table.ts";
import {
  finishStatCache,
  loadStatCache,
  type StatCache,
  statCacheOf,
  statCacheTemporary,
  writeStatCache,
} from "../../archive/cache/stat-cache.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { keepWrittenFiles, loadWrittenFiles, type WrittenFiles } from "../../archive/scan/written-files.ts";
import { cacheBasisHolds, dropCacheBasis, writeCacheBasis } from "./cache-basis.ts";
import { takeSeed } from "./cache-seed.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { FolderChanges, HeldCache, StageRequest } from "./engine.ts";
import { type Unchanged, unchangedIn } from "../../archive/cache/unchanged.ts";

export type { WrittenFiles } from "../../archive/scan/written-files.ts";

/** Keeps what the last scan of a workspace found in a file for the next one, with what it relies on in the store. */
export class KeptScan {
  readonly file: string;
  readonly #changes: FolderChanges | null;
  /** Moment after which the scan under way began, and the rules that it goes by; null where nobody tells changes of its folder. */
  #begun: { mark: number; rules: string; isWhole: boolean; cache: string } | null = null;
  /** The cache that was loaded last, where others may have it too. */
  #shared: StatCache | null = null;

  /** `file`: the workspace's stat cache; `changes`: those of its folder, where somebody is told of them. */
  constructor(file: string, changes: FolderChanges | null = null) {
    this.file = file;
    this.#changes = changes;
  }

  /** The stat cache; a fork's first one comes from the workspace that it was made of. */
  load(root: Uint8Array): StatCache | null {
    const held = this.#held();
    if (held !== null) return (this.#shared = held.cache);
    const name = fileName(this.file);
    const cache = loadStatCache(this.file) ?? takeSeed(this.file, root);
    if (cache !== null && name === fileName(this.file))
      this.#changes?.hold({ file: name, name, cache, indexes: null }, () => name);
    if (this.#changes !== null) this.#shared = cache;
    return cache;
  }

  #held(): HeldCache | null {
    const held = this.#changes?.held ?? null;
    return held !== null && held.file === fileName(this.file) ? held : null;
  }

  /** True for a cache that other operations may use too. */
  isShared(cache: StatCache | null): boolean {
    return cache !== null && this.#shared === cache;
  }

  /**
   * Before a scan of the folder: the directories of its cache in which nothing has changed since; null where that is not known. `trusted`: the scan may go by the cache at all.
   */
  unchanged(request: StageRequest, cache: StatCache | null, trusted: boolean): Unchanged | null {
    this.#begun = null;
    const changes = this.#changes;
    if (changes === null || Buffer.compare(changes.root, request.root) !== 0 || request.crossMounts) return null;
    const { excludes, rules, skip } = request;
    this.#begun = {
      mark: changes.mark(),
      rules: JSON.stringify([excludes, rules, skip]),
      isWhole: request.byTimes !== true,
      cache: this.#name(),
    };
    if (!trusted || cache === null || request.reread) return null;
    const touched = changes.since(this.#begun);
    return touched === null ? null : unchangedIn(cache, touched);
  }

  /** After a scan that found the folder as its cache says, or of which a cache was just kept, with this name. */
  noteKept(name = this.#begun?.cache): void {
    if (this.#begun === null || name === undefined) return;
    const { mark, rules, isWhole } = this.#begun;
    this.#changes!.keep({ cache: name, rules }, mark, isWhole);
  }

  /** Tells the present stat cache from every other one. */
  #name(): string {
    return this.#held()?.name ?? fileName(this.file);
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
    const { epoch, covered } = store.index;
    if (hex(cache.epoch) !== epoch) return false;
    const held = this.#held();
    const indexes = held?.cache === cache ? held.indexes : null;
    return indexes === null ? cacheBasisHolds(this.file, covered) : [...indexes].every((name) => covered.has(name));
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
      if (this.#begun !== null) return this.#keepInMemory(store, result, epoch);
      // At no moment is there a cache beside the basis of another one.
      dropCacheBasis(this.file);
      const key = { tree: result.tree, epoch: Buffer.from(epoch, "hex") };
      if (draft === null) writeStatCache(this.file, result.table, result.old, key);
      else finishStatCache(this.file, draft, key);
      writeCacheBasis(this.file, store.index.covered);
      fs.rmSync(this.#written, { recursive: true, force: true });
    } catch {
      // A cache that cannot be written is only slow.
    }
  }

  /** For the next scan of a folder whose changes are told: its file is written later, and only makes the next start fast. */
  #keepInMemory({ index }: EmbeddedStore, { table, old, tree }: ScanResult, epoch: string): void {
    const { file } = this;
    const key = { tree, epoch: Buffer.from(epoch, "hex") };
    const held: HeldCache = {
      file: fileName(file),
      name: randomUUID(),
      cache: statCacheOf({ table, old }, key),
      indexes: new Set(index.covered),
    };
    this.#changes!.hold(held, () => saveHeld(file, held));
    fs.rmSync(this.#written, { recursive: true, force: true });
    this.noteKept(held.name);
  }

  get #written(): string {
    return `${this.file}-written`;
  }

  #makeFolder(): void {
    makeFolder(path.dirname(this.file));
  }
}

/** Writes a stat cache into its file: that file's name; null where it cannot, or somebody else has written a later one. */
function saveHeld(file: string, held: HeldCache): string | null {
  if (fileName(file) !== held.file) return null;
  try {
    dropCacheBasis(file);
    writeStatCache(file, held.cache.table, null, held.cache);
    writeCacheBasis(file, held.indexes ?? []);
    return (held.file = fileName(file));
  } catch {
    // The next start reads more.
    return null;
  }
}

/** Tells a file from every other one that lay in its place. */
function fileName(file: string): string {
  const facts = fs.lstatSync(file, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? "none" : `${facts.ino}-${facts.size}-${facts.ctimeNs}`;
}
