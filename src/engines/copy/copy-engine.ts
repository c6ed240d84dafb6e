import fs from "node:fs";
import { hostname, userInfo } from "node:os";
import path from "node:path";
import { failpoint } from "../../failpoint.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeManifest, type Manifest } from "../../formats/manifest.ts";
import type { ObjectId } from "../../ids.ts";
import { loadStatCache, type StatCache, writeStatCache } from "../../fs/stat-cache.ts";
import { groupName, userName } from "../../fs/users.ts";
import { makeWorkDirectory, removeWorkDirectory } from "../../fs/work-directory.ts";
import { acquireLock, type RepositoryLock } from "../../repository/locks.ts";
import type { Engine, LookedAt, PointContent, RootMetadata, StagedContent, StageRequest, StoreFacts, TreeSource } from "../engine.ts";
import { scan, type ScanOptions, type ScanResult } from "../scan/scan.ts";
import { comparePaths } from "../scan/link-groups.ts";
import { type ScanSummary, summarise } from "../scan/summary.ts";
import { packBytes } from "../../repository/pack-bytes.ts";
import { EmbeddedStore, hex, storePaths } from "./embedded-store.ts";
import { readManifest, snapshotTree } from "./snapshot-tree.ts";

/** What a point of this engine needs to be found again; part of its descriptor. */
export interface CopyContent extends PointContent {
  snapshot_tree: string;
  snapshot: string;
  root: { mode: number; uid: number; gid: number; user: string; group: string; mtime_sec: number; mtime_ns: number };
}

export interface CopyEngineOptions {
  control: string;
  /** stat cache of the workspace at hand */
  statCache: string;
  /** seconds since 1970 */
  adoptedAt: number;
  /** zstd level of new content */
  level?: 1 | 3;
}

const LOCK_WAIT_MS = 10_000;
const BILLION = 1_000_000_000n;
const PROGRAM = "cairn 0.1.0";

/** Keeps points in the repository inside the control directory. */
export class CopyEngine implements Engine {
  readonly type = "copy";
  readonly #options: CopyEngineOptions;
  #store: Promise<EmbeddedStore> | undefined;

  constructor(options: CopyEngineOptions) {
    this.#options = options;
  }

  /** The store as it is now; opened once per operation, since other processes may change it between two. */
  async store(): Promise<EmbeddedStore> {
    this.#store ??= EmbeddedStore.open(storePaths(this.#options.control));
    return this.#store;
  }

  async stage(request: StageRequest): Promise<StagedContent> {
    const store = await this.store();
    const cache = loadStatCache(this.#options.statCache);
    const lock = await acquireLock(store.repository, { exclusive: false, waitMs: LOCK_WAIT_MS, ...(request.signal === undefined ? {} : { signal: request.signal }) });
    try {
      return await this.#stageLocked(request, { store, cache, lock });
    } catch (error) {
      store.index.endSession();
      throw error;
    } finally {
      await lock.release();
    }
  }

  async #stageLocked(request: StageRequest, held: { store: EmbeddedStore; cache: StatCache | null; lock: RepositoryLock }): Promise<StagedContent> {
    const { store, cache, lock } = held;
    store.index.beginSession();
    const root = rootMetadata(request.root);
    let summary: ScanSummary | undefined;
    let top: Uint8Array | undefined;
    const result = await scan({
      ...this.#scanOptions(request, store, cache),
      store: { keys: store.repository.keys, index: store.index, directory: makeWorkDirectory(store.paths.temporary), level: this.#options.level ?? 1 },
      finish: (scanned) => {
        summary = summarise(scanned.table, scanned.old, scanned.groups);
        const manifest = manifestOf(scanned, summary);
        const built = snapshotTree({ path: request.root, tree: scanned.tree, root, manifest, adoptedAt: this.#options.adoptedAt });
        top = built.tree;
        return built.blobs;
      },
    });
    failpoint("stage.scanned");
    await lock.recheck();
    await store.publish(result.packs);
    const snapshot = await store.repository.saveSnapshot(this.#snapshot(request, hex(top!) as ObjectId), { durable: false });
    await store.storage.sync(["index", "snapshots"]);
    failpoint("stage.snapshot-written");
    const content: CopyContent = { tree: hex(result.tree), snapshot_tree: hex(top!), snapshot, root: recordedRoot(root) };
    return {
      content,
      scan: result,
      summary: summary!,
      bytesStored: result.packs.reduce((sum, pack) => sum + pack.size, 0),
      previousTree: cache === null ? null : hex(cache.tree),
      degraded: [],
      settled: async () => this.#settled(store, result, cache),
    };
  }

  async look(request: StageRequest): Promise<LookedAt> {
    const store = await this.store();
    const cache = loadStatCache(this.#options.statCache);
    return { scan: await scan({ ...this.#scanOptions(request, store, cache), quick: true }), previousTree: cache === null ? null : hex(cache.tree) };
  }

  async source(content: PointContent): Promise<TreeSource> {
    const store = await this.store();
    return store.source(Buffer.from(content.tree, "hex"));
  }

  async manifest(content: PointContent): Promise<Manifest | null> {
    const store = await this.store();
    return readManifest(store, Buffer.from((content as CopyContent).snapshot_tree, "hex"));
  }

  async storeFacts(): Promise<StoreFacts> {
    const { index, repository } = await this.store();
    return { bytes: packBytes(index.table), repositoryId: repository.id };
  }

  /** Removes the snapshots of points that were never completed; their blobs go with the next clean-up. */
  async discard(pointIds: readonly string[]): Promise<void> {
    if (pointIds.length === 0) return;
    const store = await this.store();
    const tags = new Set(pointIds.map((id) => `cairn:${id}`));
    const { snapshots } = await store.repository.listSnapshots();
    for (const { id, snapshot } of snapshots) {
      if (snapshot.tags?.some((tag) => tags.has(tag)) === true) await store.storage.remove("snapshots", id);
    }
  }

  async close(): Promise<void> {
    const store = await this.#store?.catch(() => undefined);
    store?.close();
    if (store !== undefined) removeWorkDirectory(store.paths.temporary);
    this.#store = undefined;
  }

  #scanOptions(request: StageRequest, store: EmbeddedStore, cache: StatCache | null): ScanOptions {
    return {
      root: request.root,
      cache,
      excludes: request.excludes,
      rules: request.rules,
      skip: request.skip,
      reread: request.reread,
      crossMounts: request.crossMounts,
      distrust: cache !== null && hex(cache.epoch) !== store.index.epoch,
      chunkerPolynomial: store.repository.chunkerPolynomial,
      ...(request.signal === undefined ? {} : { signal: request.signal }),
      ...(request.onProgress === undefined ? {} : { onProgress: request.onProgress }),
    };
  }

  #snapshot(request: StageRequest, tree: ObjectId): Parameters<EmbeddedStore["repository"]["saveSnapshot"]>[0] {
    const { uid, gid, username } = userInfo();
    return {
      time: new Date().toISOString(),
      tree,
      paths: [Buffer.from(request.root).toString("utf8")],
      hostname: hostname(),
      username,
      uid: Math.max(uid, 0),
      gid: Math.max(gid, 0),
      tags: [`cairn:${request.pointId}`],
      program_version: PROGRAM,
    };
  }

  /** Caches that make the next call fast; losing them costs a re-read. */
  async #settled(store: EmbeddedStore, result: ScanResult, cache: StatCache | null): Promise<void> {
    store.index.endSession();
    const epoch = Buffer.from(store.index.epoch, "hex");
    const current = cache !== null && Buffer.compare(cache.tree, result.tree) === 0 && Buffer.compare(cache.epoch, epoch) === 0 && result.notes.filesRead === 0;
    try {
      fs.mkdirSync(path.dirname(this.#options.statCache), { recursive: true, mode: 0o700 });
      if (!current) writeStatCache(this.#options.statCache, result.table, result.old, { tree: result.tree, epoch });
      store.index.saveCache();
    } catch {
      // A cache that cannot be written is only slow.
    }
  }
}

function recordedRoot(root: RootMetadata): CopyContent["root"] {
  const { mode, uid, gid, mtimeSec, mtimeNs } = root;
  return { mode, uid, gid, user: userName(uid), group: groupName(gid), mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Mode, owner and time of a folder. */
export function rootMetadata(root: Uint8Array): RootMetadata {
  const stat = fs.lstatSync(Buffer.from(root), { bigint: true });
  // Never negative, also before 1970.
  const nanoseconds = ((stat.mtimeNs % BILLION) + BILLION) % BILLION;
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeSec: Number((stat.mtimeNs - nanoseconds) / BILLION),
    mtimeNs: Number(nanoseconds),
  };
}

function manifestOf(result: ScanResult, summary: ScanSummary): Uint8Array {
  const writer = new ByteWriter(4096);
  const { notes } = result;
  encodeManifest(writer, {
    stateDigest: hex(result.state),
    metadataDigest: hex(result.meta),
    complete: notes.omittedCount === 0,
    entries: summary.entries,
    labels: [],
    holeMaps: summary.holes.toSorted((a, b) => comparePaths(a.path, b.path)),
    fileHashes: summary.hashes.toSorted((a, b) => comparePaths(a.path, b.path)),
    omitted: notes.omitted.toSorted((a, b) => comparePaths(a.path, b.path)),
    lossless: summary.lossless.toSorted((a, b) => comparePaths(a.path, b.path)),
  });
  return Uint8Array.from(writer.view());
}
