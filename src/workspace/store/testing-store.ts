import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { loadStatCache, type StatCache, writeStatCache } from "../../archive/cache/stat-cache.ts";
import { createEmbeddedStore, EmbeddedStore } from "./embedded-store.ts";
import { storePaths } from "./store-paths.ts";
import { scan, type ScanOptions, type ScanResult } from "../../archive/scan/scan.ts";
import { ScanMemory } from "../../archive/scan/scan-memory.ts";
import type { ScanRequest } from "../../archive/scan/task.ts";
import type { ScanSummary } from "../../archive/scan/summary.ts";
import { losslessByPath } from "../../archive/write/exact-nodes.ts";
import type { HoleList } from "../../archive/write/data-runs.ts";
import { writeTree, type WriteTreeOptions, type WriteTreeResult } from "../../archive/write/write-tree.ts";

/** A temporary folder for one test. `parent`: a folder of another file system. */
export function temporaryFolder(t: TestContext, parent = os.tmpdir()): string {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync(parent), "cairn-engine-"));
  t.after(() => removeFolder(folder));
  return folder;
}

/** Removes a folder, also if its directories deny access to their owner or paths are very long. */
function removeFolder(folder: string): void {
  try {
    fs.rmSync(folder, { recursive: true, force: true });
  } catch {
    execFileSync("chmod", ["-R", "u+rwx", folder], { stdio: "ignore" });
    fs.rmSync(folder, { recursive: true, force: true });
  }
}

export interface Saved extends ScanResult {
  summary: ScanSummary;
}

/** What differs from a scan by the present rules. */
type TestScan = Partial<Omit<ScanOptions, "request">> & { request?: Partial<ScanRequest> };

/** A store for a test: saves and restores without points and locks. */
export class TestStore {
  readonly store: EmbeddedStore;
  readonly cachePath: string;
  /** where unfinished packs lie */
  readonly work: string;

  private constructor(store: EmbeddedStore, cachePath: string) {
    this.store = store;
    this.cachePath = cachePath;
    this.work = store.paths.temporary;
  }

  /** `parent`: a folder of another file system. */
  static async create(t: TestContext, parent?: string): Promise<TestStore> {
    const control = temporaryFolder(t, parent);
    const paths = storePaths(control);
    fs.mkdirSync(paths.temporary, { recursive: true });
    await createEmbeddedStore(control);
    const store = await EmbeddedStore.open(control);
    t.after(() => store.close());
    return new TestStore(store, path.join(control, "stat-cache"));
  }

  cache(): StatCache | null {
    return loadStatCache(this.cachePath);
  }

  #options(root: string | Buffer, { request, ...more }: TestScan): ScanOptions {
    return {
      request: { root: Buffer.from(root as string), rules: null, ...request },
      memory: new ScanMemory(),
      cache: null,
      chunkerPolynomial: this.store.repository.chunkerPolynomial,
      ...more,
    };
  }

  /** Scans without storing; without a cache unless one is given. */
  async look(root: string | Buffer, more: TestScan = {}): Promise<ScanResult> {
    return scan(this.#options(root, more));
  }

  /** Scans with the stat cache, stores new content, writes the cache. */
  async save(root: string | Buffer, more: TestScan = {}): Promise<Saved> {
    const { store } = this;
    const { keys } = store.repository;
    store.index.beginSession();
    try {
      const result = await scan(
        this.#options(root, {
          cache: this.cache(),
          store: { keys, index: store.index, directory: this.work },
          ...more,
        }),
      );
      await store.publish(result.packs);
      const epoch = Buffer.from(store.index.epoch, "hex");
      writeStatCache(this.cachePath, result.table, result.old, { tree: result.tree, epoch });
      return { ...result, summary: result.summarise() };
    } finally {
      store.index.endSession();
    }
  }

  /** Writes a saved state into an empty folder. */
  async write(saved: Saved, target: string | Buffer, more: Partial<WriteTreeOptions> = {}): Promise<WriteTreeResult> {
    const { store } = this;
    return writeTree({
      keys: store.repository.keys,
      index: store.index,
      packs: path.join(store.paths.repository, "data"),
      target: Buffer.from(target as string),
      tree: saved.tree,
      holes: holesOf(saved.summary),
      lossless: losslessByPath(saved.summary.lossless),
      ...more,
    });
  }
}

export function holesOf(summary: ScanSummary): Map<string, HoleList> {
  return new Map(summary.holes.map(({ path: file, holes }) => [Buffer.from(file).toString("latin1"), holes]));
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** Fails unless two scans saw the same: tree id, state digest, metadata digest. */
export function assertSame(actual: ScanResult, expected: ScanResult, message?: string): void {
  const ids = (result: ScanResult): object => ({
    state: hex(result.state),
    meta: hex(result.meta),
    tree: hex(result.tree),
  });
  assert.deepEqual(ids(actual), ids(expected), message);
}

/** Fails unless a written folder equals the saved one. */
export function assertRestored(actual: ScanResult, expected: ScanResult, message?: string): void {
  assertSame(actual, expected, message);
}

/** Paths of a scan's notes as text. */
export function notedPaths(notes: readonly { path: Uint8Array }[]): string[] {
  return notes.map(({ path: noted }) => Buffer.from(noted).toString("latin1")).toSorted();
}
