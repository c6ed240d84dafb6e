import { hex } from "../../formats/bytes.ts";
import { setTimeout as sleep } from "node:timers/promises";
import { makeFolder } from "../../fs/make-folder.ts";
import { failpoint } from "../../failpoint.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { ObjectId } from "../../ids.ts";
import { asStatCache, type StatCache } from "../../archive/cache/stat-cache.ts";
import { compact } from "../../repository/care/compact.ts";
import { withAbandonedPacks } from "../../repository/packs/abandoned-packs.ts";
import { packBytes } from "../../repository/packs/pack-bytes.ts";
import { acquireLock, type RepositoryLock, whileReading } from "../../repository/locks.ts";
import type {
  LookCall,
  LookedAt,
  LostRequest,
  PointContent,
  ReadingCall,
  ReceivedContent,
  ReceiveRequest,
  ShareRequest,
  StagedContent,
  StageRequest,
  StoppableCall,
  StoredContent,
  FolderChanges,
  SeenEntries,
  StoreFacts,
  WriteRequest,
  WrittenContent,
} from "./engine.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { ScanRequest } from "../../archive/scan/task.ts";
import { patternsOfUnwanted } from "../../archive/scan/unwanted.ts";
import {
  discardDraft,
  prepareScan,
  scan,
  ScanMemory,
  type ScanOptions,
  type ScanResult,
} from "../../archive/scan/scan.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { leaveSeed } from "./cache-seed.ts";
import type { TreeHolder } from "../../clones/holder.ts";
import { dropLostFirst, dropLostPacks, holdsContent, tellOfDropped } from "./lost-content.ts";
import { KeptScan, type WrittenFiles } from "./kept-scan.ts";
import { recordedRoot, rootMetadata } from "../../archive/write/root-metadata.ts";
import { type CopyContent, manifestOf, sameAsHead, summaryOf, summaryOfHead } from "./copy-content.ts";
import { EmbeddedStore } from "./embedded-store.ts";
import { keepStoreSize, keptStoreSize, type StoreSize, unsoundPacks } from "./store-files.ts";
import { depthTag, liesAt } from "./point-remains.ts";
import { type CapturedFirst, captureFirst } from "./attachments.ts";
import { receiveContent } from "./receive-content.ts";
import { baseOf, closeSpill, ContentNotRead, type PageRequest, pageScan } from "../../archive/pages/page-scan.ts";
import { sourceOf, viewOf } from "../../archive/databases/point-view.ts";
import { newSnapshot, readManifest, snapshotTree } from "./snapshot-tree.ts";
import { writeContent } from "./write-content.ts";

interface PointStoreOptions {
  control: string;
  /** stat cache of the workspace at hand */
  statCache: string;
  /** seconds since 1970 */
  registeredAt: number;
  holder?: TreeHolder | null;
  /** gives images of databases that are in use */
  databases?: NonNullable<ScanOptions["databases"]>["capture"] | null;
  /** reports changes of the workspace's folder */
  changes?: FolderChanges | null;
  /** reports entries of the folder in which a program may have made a database */
  seen?: SeenEntries | null;
}

const CLOCK_TICK_MS = 10;
const LOCK_WAIT_MS = 10_000;
/** Reading this many bytes again costs less than keeping a scan of a folder whose changes nobody reports. */
const SOON_READ_BYTES = 1 << 20;
/** Epoch that no index has. */
const UNKNOWN_EPOCH = "0".repeat(32);

/** Keeps points in the repository inside the control directory. */
export class PointStore {
  readonly type = "copy";
  /** Holds whole trees for this workspace's points; null if points go into the store at once. */
  readonly holder: TreeHolder | null;
  /** Captures databases that are in use, each in a state between two transactions; null: databases are copied as files. */
  readonly databases: NonNullable<PointStoreOptions["databases"]> | null;
  readonly seen: SeenEntries | null;
  readonly #options: PointStoreOptions;
  readonly #changes: FolderChanges | null;
  #store: Promise<EmbeddedStore> | undefined;
  readonly #kept: KeptScan;
  readonly #memory = new ScanMemory();

  constructor(options: PointStoreOptions) {
    this.#options = options;
    this.holder = options.holder ?? null;
    this.databases = options.databases ?? null;
    this.#changes = options.changes ?? null;
    this.seen = options.seen ?? null;
    this.#kept = new KeptScan(options.statCache, this.#changes);
  }

  /** The open store, opened once per operation, since other processes may change it between two operations. */
  async store({ signal }: StoppableCall = {}): Promise<EmbeddedStore> {
    this.#store ??= EmbeddedStore.open(this.#options.control, {
      signal,
      known: this.#changes?.takeIndex() ?? null,
    });
    return this.#store;
  }

  /** Starts the threads of a scan that follows soon. */
  prepare(): void {
    prepareScan(this.#options.statCache);
  }

  /** Notes files that were just written into the folder from stored content, so that the next scan need not read them. */
  noteWritten(files: WrittenFiles): void {
    if (files.length > 0) this.#kept.noteWritten(files);
  }

  /** Stores the folder's present content for a point that the caller records. */
  async stage(request: StageRequest): Promise<StagedContent> {
    // The first stat cache of a fork is of the fork's folder, also if a clone of that folder is read.
    const { signal, onWarning } = request;
    const opened = await this.store({ signal });
    const dropped = await dropLostFirst(opened, { signal, onWarning });
    const { clonedFrom, root } = request.scan;
    const folder = clonedFrom === undefined ? root : request.recordedRoot;
    const cache = request.passing === true ? null : this.#kept.load(folder);
    try {
      return await this.adding(signal, async (store, lock) => {
        const { repository, index, paths, workDirectory: directory } = store;
        const left = { keys: repository.keys, index, parent: paths.temporary, directory, signal };
        // The second run has no `forward`: the first run has already forwarded the content.
        return withAbandonedPacks(left, async (again) =>
          this.#stageLocked(again ? { ...request, forward: undefined } : request, { store, cache, lock }),
        );
      });
    } finally {
      tellOfDropped(opened, dropped, onWarning);
    }
  }

  /**
   * Runs work that adds to the store: under a shared lock, with claims on new blobs. The index lacks packs that are
   * remembered as damaged, except with `reads`: then `work` passes over them itself.
   */
  async adding<T>(
    signal: AbortSignal | undefined,
    work: (store: EmbeddedStore, lock: RepositoryLock) => Promise<T>,
    { reads = false } = {},
  ): Promise<T> {
    const store = await this.store({ signal });
    const lock = await acquireLock(store.repository, { exclusive: false, waitMs: LOCK_WAIT_MS, signal });
    try {
      // Other processes may have moved or removed packs and index entries before this lock was taken.
      await store.refresh(signal);
      const whole = store.index;
      // Remembered packs are still listed if others used the store when it was to be mended.
      const damaged = store.repository.damaged.listedIn(whole);
      if (damaged.size > 0 && !reads) store.index = whole.without(damaged);
      store.index.beginSession();
      try {
        return await work(store, lock);
      } finally {
        store.index.endSession();
        if (store.index.isPartial) {
          store.index = whole;
          await store.refresh();
        }
      }
    } finally {
      await lock.release();
    }
  }

  async #stageLocked(
    request: StageRequest,
    held: { store: EmbeddedStore; cache: StatCache | null; lock: RepositoryLock; isPlain?: boolean },
  ): Promise<StagedContent> {
    const { store, cache, lock, isPlain } = held;
    const root = rootMetadata(request.scan.root);
    let finished: FinishedScan | undefined;
    const first = await this.#capturedFirst(request, store);
    const base = isPlain === true ? null : await baseOf(store, request.head);
    const scanned = scan({
      ...this.#scanOptions(request.scan, { store, cache, call: request }),
      ...(request.passing === true ? { written: null } : {}),
      databases:
        first === null ? this.#databases(request) : { capture: first.capture, held: null, always: first.databases },
      store: { ...this.#target(store), forward: request.forward, mostBytes: request.mostBytes, pages: base?.index },
      ...(request.passing === true || this.#changes !== null ? {} : { draft: this.#kept.draftPlace() }),
      finish: (done) => {
        // Throws before anything is published.
        patternsOfUnwanted(done.notes.unwanted);
        first?.noteMissing(done);
        finished = this.#finished(request, done, { store, cache, root });
        return finished.blobs;
      },
    });
    let result: ScanResult;
    try {
      result = await scanned;
    } finally {
      await first?.capture.close();
    }
    failpoint("stage.scanned");
    const { summary, isSame } = finished!;
    if (isSame) closeSpill(result);
    const paged = isSame ? finished! : await withPages(store, request, { ...finished!, scan: result, base });
    if (paged === null) {
      store.index.beginSession();
      return this.#stageLocked({ ...request, forward: undefined }, { store, lock, cache: null, isPlain: true });
    }
    const { top, stored } = paged;
    let snapshot: ObjectId;
    try {
      snapshot = await this.#publish(
        { store, lock, packs: result.packs },
        newSnapshot({ root: request.recordedRoot, pointId: request.pointId }, hex(top) as ObjectId),
      );
    } catch (error) {
      await discardDraft(result.draft);
      throw error;
    }
    const places = {
      tree: hex(result.tree),
      snapshot_tree: hex(top),
      ...(stored === undefined ? {} : { stored_tree: stored }),
    };
    const content: CopyContent = { ...places, snapshot, root: recordedRoot(root) };
    return {
      content,
      scan: result,
      summary,
      bytesStored: result.packs.reduce((sum, pack) => sum + pack.size, 0),
      previousTree: cache === null ? null : hex(cache.tree),
      settled: async () => this.#settled(store, result, { cache, passing: request.passing === true }),
      // If this fails, doctor finds the snapshot as one without a point.
      discard: async () => {
        await discardDraft(result.draft);
        await store.storage.remove("snapshots", snapshot).catch(() => undefined);
      },
    };
  }

  /** Returns the trees of a scan's snapshot: those of head if nothing changed, else new trees. */
  #finished(
    request: StageRequest,
    done: ScanResult,
    { store, cache, root }: { store: EmbeddedStore; cache: StatCache | null; root: ReturnType<typeof rootMetadata> },
  ): FinishedScan {
    const same = cache === null || this.#kept.vouches(store, cache) ? sameAsHead(request, done, root) : null;
    if (same !== null) {
      const { snapshot_tree: top, stored_tree: stored } = same.content as unknown as CopyContent;
      if (store.index.lookup(Buffer.from(top, "hex"), 0) >= 0 && liesAt(store, same.content, request.recordedRoot))
        return { summary: summaryOfHead(same), top: Buffer.from(top, "hex"), stored, isSame: true, blobs: [] };
    }
    const summary = summaryOf(done, request.scan.root);
    const { tree, blobs } = snapshotTree({
      path: request.recordedRoot,
      tree: done.tree,
      root,
      manifest: manifestOf(done, summary, request),
      registeredAt: this.#options.registeredAt,
    });
    return { summary, top: tree, stored: undefined, isSame: false, blobs };
  }

  #target(store: EmbeddedStore): NonNullable<ScanOptions["store"]> {
    return {
      keys: store.repository.keys,
      index: store.index,
      directory: workDirectoryOf(store),
    };
  }

  /**
   * Publishes packs, their index, then the snapshot: durable in that order. To wait less for the disk, all of them are
   * written and flushed before the first gets its name.
   */
  async #publish(
    work: { store: EmbeddedStore; lock: RepositoryLock; packs: ScanResult["packs"] },
    snapshot: Snapshot,
  ): Promise<ObjectId> {
    const { store, lock, packs } = work;
    await lock.recheck();
    const after = store.publish(packs);
    const settled = after.catch(() => undefined);
    let id: ObjectId;
    try {
      id = await store.repository.saveSnapshot(snapshot, { after });
    } finally {
      await settled;
    }
    failpoint("stage.snapshot-written");
    return id;
  }

  /** Runs `work` while no other process may move or remove packs of the store. */
  async reading<T>(work: () => Promise<T>, call: ReadingCall = {}): Promise<T> {
    const store = await this.store(call);
    if (call.onWarning !== undefined) store.onWarning = call.onWarning;
    return whileReading(store.repository, { ...call, waitMs: LOCK_WAIT_MS }, async () => {
      await store.refresh(call.signal);
      return work();
    });
  }

  /** Stores content from another repository for a point. Moves the blobs that the store lacks. */
  async receive(request: ReceiveRequest): Promise<ReceivedContent> {
    return this.adding(request.signal, async (store, lock) => {
      const { packs, tree, snapshotTree, ...received } = await receiveContent(request, {
        store,
        target: this.#target(store),
        registeredAt: this.#options.registeredAt,
        stillHeld: async () => lock.recheck(),
      });
      const named = newSnapshot(request, snapshotTree as ObjectId);
      const snapshot = await this.#publish({ store, lock, packs }, named);
      const content: CopyContent = {
        tree,
        snapshot_tree: snapshotTree,
        snapshot,
        root: recordedRoot(request.rootMetadata),
      };
      return { ...received, content };
    });
  }

  /** Scans any folder without a cache, and stores nothing. */
  async lookAt(request: ScanRequest, { signal, onProgress }: LookCall): Promise<ScanResult> {
    // A scan that reads no file cuts none, so it needs no store.
    const chunkerPolynomial = request.unread === undefined ? (await this.store()).repository.chunkerPolynomial : "";
    return scan({ signal, onProgress, request, cache: null, memory: this.#memory, chunkerPolynomial });
  }

  /** Frees the tables of this operation's scans, whose results must not be used afterwards. */
  async giveBackScans(): Promise<void> {
    await this.#memory.giveBack();
  }

  /** Looks at the folder without storing anything. `tree`: of head, hex; null if there is none. */
  async look(request: ScanRequest, call: LookCall & { tree: string | null }): Promise<LookedAt> {
    const store = await this.store();
    const cache = this.#kept.load(request.root);
    // A large file whose size differs from the cache counts as changed without a read, but only if the cache is of
    // head: after a restore the cache is of the state before the restore.
    const quick = cache !== null && hex(cache.tree) === call.tree;
    const result = await scan({ ...this.#scanOptions(request, { store, cache, call }), quick });
    // All content is stored, so the next look need not read again the files that this one read, e.g. after a restore.
    const stored = hex(result.tree) === call.tree;
    const isOther = cache === null || hex(cache.tree) !== hex(result.tree);
    const soonRead = this.#changes === null ? 0 : SOON_READ_BYTES;
    if (stored && (isOther || result.notes.bytesRead > soonRead)) {
      // The old cache may vouch that the store has all ids that it lists; else each id is looked up once.
      const isVouched = cache !== null && this.#kept.vouches(store, cache);
      await this.#kept.keep(store, result, isVouched ? store.index.epoch : UNKNOWN_EPOCH);
    }
    return { scan: result, previousTree: cache === null ? null : hex(cache.tree) };
  }

  /**
   * Compares two trees without reading a file: two entries with the same inode and change time count as one content.
   * `earlier` is the tree that was held first.
   */
  async lookUnread(
    earlier: ScanRequest,
    later: ScanRequest,
    call: LookCall,
  ): Promise<{ earlier: ScanResult; later: ScanResult }> {
    const store = await this.store();
    const first = await scan(this.#scanOptions(earlier, { store, cache: null, call }));
    const cache = asStatCache(first);
    const second = await scan({
      ...this.#scanOptions(later, { store, cache, call }),
      distrust: false,
      unchanged: null,
    });
    return { earlier: first, later: second };
  }

  /** A point's content for reading. */
  async source(content: PointContent): Promise<TreeSource> {
    const store = await this.store();
    return sourceOf(store, Buffer.from(content.tree, "hex"), await viewOf(store, content));
  }

  /** Returns the holes, whole-file hashes and raw names of a point, which trees cannot hold; null if it has no manifest. */
  async manifest(content: PointContent): Promise<Manifest | null> {
    const store = await this.store();
    return readManifest(store, Buffer.from((content as CopyContent).snapshot_tree, "hex"));
  }

  /** The repository that holds a point's content. */
  async stored(content: PointContent): Promise<StoredContent> {
    const store = await this.store();
    const { repository, onDamagedPack } = store;
    const { index, blobs } = await viewOf(store, content);
    const snapshotTree = Buffer.from((content as CopyContent).snapshot_tree, "hex");
    return { repository, index, blobs, onDamagedPack, snapshotTree };
  }

  /** Returns the store's size and id without reading packs. `foreign` also reads the snapshots. */
  async storeFacts(ask: { foreign?: boolean } = {}): Promise<StoreFacts> {
    const { index, repository } = await this.store();
    const facts = { bytes: packBytes(index.table), repositoryId: repository.id, foreign: false };
    if (ask.foreign !== true) return facts;
    const { snapshots, damaged } = await repository.listSnapshots();
    const isForeign = snapshots.some(({ snapshot }) => !(snapshot.tags ?? []).some((tag) => tag.startsWith("cairn:")));
    // An unreadable snapshot may be another program's.
    return { ...facts, foreign: isForeign || damaged.length > 0 };
  }

  /** Returns how many bytes the store holds. Opens the store only if its index files changed since the last call. */
  async storeBytes(): Promise<number> {
    return (await this.#size()).bytes;
  }

  /** Counts packs of the store that are known to be lost or damaged without reading any. */
  async unsoundPacks(): Promise<number> {
    return unsoundPacks(this.#options.control, await this.#size());
  }

  async #size(): Promise<StoreSize> {
    const { control } = this.#options;
    return keptStoreSize(control) ?? keepStoreSize(control, (await this.store()).index);
  }

  /** Writes content into an empty folder. Nothing is synced. Throws `damaged` if the root tree cannot be read. */
  async write(content: PointContent, request: WriteRequest): Promise<WrittenContent> {
    return writeContent(await this.store(), content, request);
  }

  /** Gives stored content a snapshot of its own for the first point of another workspace. */
  async share(content: PointContent, point: ShareRequest): Promise<PointContent> {
    const store = await this.store();
    const tree = (content as CopyContent).snapshot_tree as ObjectId;
    const named = newSnapshot({ root: point.root, pointId: point.pointId }, tree);
    const tags = [...named.tags!, ...depthTag(store, content as CopyContent)];
    const snapshot = await store.repository.saveSnapshot({ ...named, tags });
    if (point.fork !== undefined) {
      const { statCache: to, folder } = point.fork;
      leaveSeed({ from: this.#options.statCache, to, tree: Buffer.from(content.tree, "hex"), folder });
    }
    // A later change of the folder gets a later change time, however coarse the clock.
    await sleep(CLOCK_TICK_MS);
    return { ...content, snapshot };
  }

  /**
   * Removes the snapshots of points that were never completed, by the points' ids. If `own` names the snapshot of a point and
   * the store has that snapshot, only the point's other snapshots are removed. The next cleanup frees the blobs.
   */
  async discard(pointIds: readonly string[], own: ReadonlyMap<string, string | null> = new Map()): Promise<void> {
    if (pointIds.length === 0) return;
    const { repository, storage } = await this.store();
    const pointOf = new Map(pointIds.map((id) => [`cairn:${id}`, id]));
    const { snapshots } = await repository.listSnapshots();
    const present = new Set<string>(snapshots.map(({ id }) => id));
    for (const { id, snapshot } of snapshots) {
      const tag = snapshot.tags?.find((each) => pointOf.has(each));
      if (tag === undefined) continue;
      const kept = own.get(pointOf.get(tag)!) ?? null;
      // If the point's own snapshot is lost, another one may stand for it.
      if (kept === null || (present.has(kept) && id !== kept)) await storage.remove("snapshots", id);
    }
  }

  /** Drops packs with lost content from the index. A save that meets this content stores it again. Returns how many packs. */
  async dropLost(request: LostRequest): Promise<number> {
    return dropLostPacks(await this.store(request), { ...request, waitMs: LOCK_WAIT_MS });
  }

  /** Tells whether the store's index lists everything that a point needs. */
  async holds(content: PointContent, call: StoppableCall): Promise<boolean> {
    return holdsContent(await this.store(call), content, call);
  }

  async close(): Promise<void> {
    const store = await this.#store?.catch(() => undefined);
    store?.close();
    const index = store?.index;
    if (index !== undefined && !index.isPartial && index.damaged.length === 0) this.#changes?.giveIndex(index);
    this.#store = undefined;
    await this.#memory.giveBack();
  }

  #scanOptions(
    request: ScanRequest,
    { store, cache, call }: { store: EmbeddedStore; cache: StatCache | null; call: LookCall },
  ): ScanOptions {
    const distrust = cache !== null && !this.#kept.vouches(store, cache);
    const unchanged = this.#kept.unchanged(request, cache, !distrust);
    return {
      request,
      cache,
      written: request.clonedFrom === undefined ? this.#kept.written() : null,
      memory: this.#memory,
      distrust,
      unchanged,
      renamedIn: unchanged === null ? undefined : () => this.#kept.renamedIn(),
      cacheStays: this.#kept.isShared(cache),
      chunkerPolynomial: store.repository.chunkerPolynomial,
      signal: call.signal,
      onProgress: call.onProgress,
    };
  }

  async #capturedFirst(
    { attachments = [], databases, scan: { root }, signal }: StageRequest,
    store: EmbeddedStore,
  ): Promise<CapturedFirst | null> {
    if (attachments.length === 0 || databases !== "auto" || this.databases === null) return null;
    return captureFirst(this.databases, attachments, { root, scratch: workDirectoryOf(store), signal });
  }

  #databases({ databases: how }: StageRequest): ScanOptions["databases"] {
    const { databases: capture } = this;
    return capture === null || how === "copy" ? undefined : { capture, held: how === "auto" ? null : how };
  }

  /** Writes the caches that make the next call fast; losing them costs a re-read. */
  async #settled(
    store: EmbeddedStore,
    result: ScanResult,
    { cache, passing }: { cache: StatCache | null; passing: boolean },
  ): Promise<void> {
    if (result.packs.length > 0) await maintain(store);
    if (passing) return void store.index.saveCache();
    const current =
      cache !== null &&
      Buffer.compare(cache.tree, result.tree) === 0 &&
      this.#kept.vouches(store, cache) &&
      result.notes.filesRead === 0;
    if (current) {
      await discardDraft(result.draft);
      this.#kept.noteKept(result);
    } else await this.#kept.keep(store, result);
    store.index.saveCache();
  }
}

/** Merges small index files and packs within 50 ms. The next save merges the rest. */
async function maintain(store: EmbeddedStore): Promise<void> {
  try {
    await compact(store.repository, store.index);
  } catch {
    // The save is done; a store with damage is doctor's business.
  }
}

interface FinishedScan {
  summary: StagedContent["summary"];
  /** tree of the snapshot, and the id in hex of the folder's tree if databases lie by pages */
  top: Uint8Array;
  stored: string | undefined;
  /** true: all of it is head's */
  isSame: boolean;
  /** to be stored */
  blobs: ReturnType<typeof snapshotTree>["blobs"];
}

/** Stores the databases of a scan by pages. Null: content that head's pages were to have has to be read. */
async function withPages(
  store: EmbeddedStore,
  { recordedRoot: folder, mostBytes, signal }: StageRequest,
  done: Pick<FinishedScan, "summary" | "top"> & Pick<PageRequest, "scan" | "base">,
): Promise<{ top: Uint8Array; stored: string | undefined } | null> {
  try {
    const { scan: scanned, summary, top, base } = done;
    const files = summary.hashes;
    const paged = await pageScan(store, { scan: scanned, files, top, base, folder, mostBytes, signal });
    failpoint("stage.paged");
    return { top: paged?.top ?? top, stored: paged === null ? undefined : hex(paged.stored) };
  } catch (error) {
    await discardDraft(done.scan.draft);
    // Without head's pages everything was read.
    if (done.base === null || !(error instanceof ContentNotRead)) throw error;
    return null;
  }
}

function workDirectoryOf(store: EmbeddedStore): string {
  makeFolder(store.workDirectory);
  return store.workDirectory;
}
