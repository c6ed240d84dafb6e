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
import { removeAll } from "../../fs/remove-all.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import { keepWrittenFiles, loadWrittenFiles, type WrittenFiles } from "../../archive/scan/written-files.ts";
import { cacheBasisHolds, dropCacheBasis, writeCacheBasis } from "./cache-basis.ts";
import { takeSeed } from "./cache-seed.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { ScanRequest } from "../../archive/scan/task.ts";
import { patternsOfUnwanted } from "../../archive/scan/unwanted.ts";
import type { FolderChanges, HeldCache } from "./engine.ts";
import { type Unchanged, unchangedIn } from "../../archive/cache/unchanged.ts";

export type { WrittenFiles } from "../../archive/scan/written-files.ts";

/** Keeps the stat cache of a workspace's last scan in a file for the next scan, with the index files that the cache relies on. */
export class KeptScan {
  readonly file: string;
  readonly #changes: FolderChanges | null;
  /** The scan under way: the mark after which it began; null if nobody reports changes of its folder. */
  #begun: { mark: number; request: ScanRequest; cache: string } | null = null;
  /** The cache that was loaded last, if other operations may use it too. */
  #shared: StatCache | null = null;

  /** `file`: the workspace's stat cache; `changes`: changes of its folder, if a watcher reports them. */
  constructor(file: string, changes: FolderChanges | null = null) {
    this.file = file;
    this.#changes = changes;
  }

  /** Loads the stat cache. The first one of a fork comes from the workspace that it was made from. */
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
   * Returns the directories of the cache that are unchanged since the cached scan, or null if that is unknown. Call it
   * before a scan. `trusted`: the scan may use the cache.
   */
  unchanged(request: ScanRequest, cache: StatCache | null, trusted: boolean): Unchanged | null {
    this.#begun = null;
    const changes = this.#changes;
    if (changes === null || Buffer.compare(changes.root, request.root) !== 0 || request.crossMounts === true)
      return null;
    this.#begun = { mark: changes.mark(), request, cache: this.#name() };
    // Unwanted entries of an unchanged directory are known only to a scan that lists the directory.
    if (!trusted || cache === null || request.reread === true || request.unwanted !== undefined) return null;
    const touched = changes.since({ cache: this.#begun.cache, rules: rulesOf(request, []) });
    return touched === null ? null : unchangedIn(cache, touched);
  }

  /** Directories whose names changed since {@link unchanged} was called; null if that is unknown. */
  renamedIn(): string[] | null {
    return this.#begun === null ? null : this.#changes!.renamedIn(this.#begun.mark);
  }

  /** Counts changes from the scan that has ended, which found its cache to be right, or whose cache was kept as `name`. */
  noteKept({ notes }: Pick<ScanResult, "notes">, name = this.#begun?.cache): void {
    if (this.#begun === null || name === undefined) return;
    const { mark, request } = this.#begun;
    const rules = rulesOf(request, patternsOfUnwanted(notes.unwanted));
    this.#changes!.keep({ cache: name, rules }, mark, request.byTimes !== true);
  }

  /** A name that differs from the names of all earlier stat caches. */
  #name(): string {
    return this.#held()?.name ?? fileName(this.file);
  }

  /** Returns the files that a restore wrote since the last scan, which need not be read; null if there are none. */
  written(): ScanTable | null {
    return loadWrittenFiles(this.#written);
  }

  /** Keeps a list of files that were just written into the folder, for the next scan. */
  noteWritten(files: WrittenFiles): void {
    try {
      keepWrittenFiles(this.#written, files);
    } catch {
      // Without the list the next scan reads the files.
    }
  }

  /** True if every id that the stat cache knows is in the store. */
  vouches(store: EmbeddedStore, cache: StatCache): boolean {
    const { epoch, covered } = store.index;
    if (hex(cache.epoch) !== epoch) return false;
    const held = this.#held();
    const indexes = held?.cache === cache ? held.indexes : null;
    return indexes === null ? cacheBasisHolds(this.file, covered) : [...indexes].every((name) => covered.has(name));
  }

  /** Returns the path for a thread's draft of the next stat cache. */
  draftPlace(): string {
    try {
      this.#makeFolder();
    } catch {
      // The draft fails for the same reason, and the cache is written later.
    }
    return statCacheTemporary(this.file);
  }

  /** Keeps a scan as the stat cache, from its draft if it has one. `epoch`: of the index that has all its ids. */
  async keep(store: EmbeddedStore, result: ScanResult, epoch: string = store.index.epoch): Promise<void> {
    try {
      const draft = await result.draft;
      this.#makeFolder();
      if (this.#begun !== null) return this.#keepInMemory(store, result, epoch);
      // Never leave a cache beside the basis of another cache.
      dropCacheBasis(this.file);
      const key = { tree: result.tree, epoch: Buffer.from(epoch, "hex") };
      if (draft === null) writeStatCache(this.file, result.table, result.old, key);
      else finishStatCache(this.file, draft, key);
      writeCacheBasis(this.file, store.index.covered);
      removeAll(this.#written);
    } catch {
      // Without the cache the next scan is only slower.
    }
  }

  /** Keeps the cache in memory for the next scan of a watched folder. The file is written later, for a fast next start. */
  #keepInMemory({ index }: EmbeddedStore, { table, old, tree, notes }: ScanResult, epoch: string): void {
    const { file } = this;
    const key = { tree, epoch: Buffer.from(epoch, "hex") };
    const held: HeldCache = {
      file: fileName(file),
      name: randomUUID(),
      cache: statCacheOf({ table, old }, key),
      indexes: new Set(index.covered),
    };
    this.#changes!.hold(held, () => saveHeld(file, held));
    removeAll(this.#written);
    this.noteKept({ notes }, held.name);
  }

  get #written(): string {
    return `${this.file}-written`;
  }

  #makeFolder(): void {
    makeFolder(path.dirname(this.file));
  }
}

/** The rules by which a scan left entries out; `found`: excludes of the unwanted entries. */
function rulesOf({ excludes = [], rules, skip = [] }: ScanRequest, found: readonly string[]): string {
  return JSON.stringify([[...found, ...excludes], rules, skip]);
}

/** Writes a stat cache into its file. Returns the file's name; null if that fails or a later cache lies there. */
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

/** A name that differs for every file that lay at this path. */
function fileName(file: string): string {
  const facts = fs.lstatSync(file, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? "none" : `${facts.ino}-${facts.size}-${facts.ctimeNs}`;
}
