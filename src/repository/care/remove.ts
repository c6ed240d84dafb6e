import { append } from "../../append.ts";
import { CairnError, reworded, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { plural } from "../../formats/sizes.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { BlobIndex, isPlacedAt } from "../index/blob-index.ts";
import { EntrySet } from "../index/entry-set.ts";
import { IndexFileWriter, loadIndexFile, type IndexedPack } from "../index/index-set.ts";
import { acquireLock, withLock, type LockCall, type RepositoryLock } from "../locks.ts";
import { type NearPacks, nearPacksIn } from "../read/near-packs.ts";
import { copyingPacks } from "./pack-copy.ts";
import { type Look, marksNow, writeMarks } from "./marks.ts";
import { removeFile, removeIndexes, removePack, requireStored, writeIndexOf } from "./replaced-files.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
import { STALE_TEMPORARY_MS } from "../storage/storage.ts";
import {
  type CrowdedPacks,
  markAll,
  type MarkedPacks,
  planSweep,
  rootsOf,
  type SweepOptions,
  type SweepPlan,
} from "./sweep-plan.ts";

export type { CrowdedPacks, MarkedPacks, PackFacts, SweepOptions, SweepPlan } from "./sweep-plan.ts";

export interface SweepResult {
  removedPacks: number;
  repackedPacks: number;
  newPacks: number;
  /** Number of removed packs that no index listed. */
  removedUnindexed: number;
  replacedIndexes: number;
  bytesFreed: number;
  /** Bytes of dead blobs that stay, because rewriting their packs would not pay or is not possible. */
  unusedBytes: number;
  /** Packs that stay because `roomForCopies` has no room for their copies. */
  crowded: CrowdedPacks | null;
  /**
   * True if another program used the repository: new packs and index files are written, the next run removes the old
   * ones.
   */
  postponed: boolean;
  /** Packs that were left alone because a needed blob in them is damaged. */
  damagedPacks: string[];
  /** Ids of needed blobs that no index lists; only with `mayLackData`. */
  lacking: string[];
  /** Packs that are marked after this sweep, for a later look. */
  marked: MarkedPacks;
  /** Warnings about marks that do not count. */
  warnings: readonly string[];
  /** The time and the snapshots of this sweep, for marks of further packs; null if it looked once. */
  look: Look | null;
  /** The index after the sweep; null if the sweep was postponed. */
  index: BlobIndex | null;
  /** As in `SweepPlan`. */
  missing: SweepPlan["missing"];
  unlisted: readonly string[];
}

const ATTEMPTS = 3;

/**
 * Removes snapshots under an exclusive lock. Throws `busy` if other processes hold locks longer than `waitMs`. Skips
 * absent snapshots. Calls `confirm` under the lock before the first removal; `confirm` throws to prevent the removals.
 */
export async function removeSnapshots(
  repository: Repository,
  ids: Iterable<string>,
  options: LockCall & { confirm?: () => Promise<void> } = {},
): Promise<number> {
  await repository.tryRemoval();
  const { confirm, ...waiting } = options;
  return withLock(repository, { ...waiting, exclusive: true }, async () => {
    await confirm?.();
    let removed = 0;
    const gone: string[] = [];
    const pace = newPacer(options.signal);
    try {
      for (const id of ids) {
        await pace();
        if (await removeFile(repository, "snapshots", id)) removed++;
        gone.push(id);
        failpoint("remove.snapshot-removed");
      }
    } catch (error) {
      if (removed === 0 || !(error instanceof CairnError)) throw error;
      throw reworded(error, { message: `${plural(removed, "snapshot")} removed before this error: ${error.message}` });
    } finally {
      repository.seen?.forgot(gone);
    }
    await repository.storage.sync(["snapshots"]);
    failpoint("remove.snapshots-durable");
    return removed;
  });
}

/** Replaces the snapshot `old` by `snapshot`. `made` is the new snapshot's id if it is already stored. */
export interface Replacement {
  old: string;
  snapshot: Snapshot;
  made: ObjectId | null;
}

/**
 * Stores each new snapshot before it removes the old one, and returns the new ids. The caller holds an exclusive lock.
 */
export async function replaceSnapshots(
  repository: Repository,
  replacements: readonly Replacement[],
  signal: AbortSignal | undefined,
): Promise<ObjectId[]> {
  const ids: ObjectId[] = [];
  try {
    for (const { old, snapshot, made } of replacements) {
      throwIfAborted(signal);
      const id = made ?? (await repository.saveSnapshot(snapshot));
      failpoint("replace.snapshot-written");
      await removeFile(repository, "snapshots", old).catch(async (error: unknown) => {
        // Removing another user's files may be forbidden while our own may be removed. After any other error `old` may
        // be gone all the same.
        if (made === null && toCairnError(error).code === "permission")
          await removeFile(repository, "snapshots", id).catch(() => undefined);
        throw error;
      });
      ids.push(id);
      repository.seen?.forgot([old]);
      failpoint("replace.snapshot-removed");
    }
  } catch (error) {
    if (ids.length === 0 || !(error instanceof CairnError)) throw error;
    throw reworded(error, {
      message: `${plural(ids.length, "snapshot")} replaced before this error: ${error.message}`,
    });
  }
  await repository.storage.sync(["snapshots"]);
  return ids;
}

/** Plans a sweep under a shared lock of its own, and changes nothing. See `planSweep`. */
export async function previewSweep(repository: Repository, options: SweepOptions): Promise<SweepPlan> {
  const trees = nearPacksIn(repository.storage, options.work, "trees");
  return withLock(repository, { ...options, exclusive: false }, () => planSweep(repository, options, trees));
}

/**
 * Frees blobs that no root needs. Marks, copies and indexes under a shared lock, then deletes under a short exclusive
 * lock, after checking for new roots and index files. A kill anywhere leaves a whole repository, and the next run
 * finishes the sweep.
 */
export async function runSweep(repository: Repository, options: SweepOptions): Promise<SweepResult> {
  await repository.tryRemoval();
  const total: SweepResult = {
    removedPacks: 0,
    repackedPacks: 0,
    newPacks: 0,
    removedUnindexed: 0,
    replacedIndexes: 0,
    bytesFreed: 0,
    unusedBytes: 0,
    crowded: null,
    postponed: false,
    damagedPacks: [],
    lacking: [],
    marked: { packs: 0, bytes: 0, waitMs: 0 },
    warnings: [],
    look: null,
    index: null,
    missing: [],
    unlisted: [],
  };
  const context: SweepContext = { options, total, trees: nearPacksIn(repository.storage, options.work, "trees") };
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(options.signal);
    const outcome = await sweepOnce(repository, context);
    repository.damaged.learn(total.damagedPacks);
    // The cached index is out of date by now. A kill before this line costs the next call a rebuild.
    if (outcome === "done") total.index = await BlobIndex.load(repository, options.cachePath);
    if (total.index !== null) {
      // A snapshot that counts no more is not reported again.
      repository.seen?.forgot(
        total.missing.filter(({ counts }) => options.mayBeMissing === true || !counts).map(({ id }) => id),
      );
      return total;
    }
    if (outcome === "busy" || attempt >= ATTEMPTS || options.confirm !== undefined)
      return { ...total, postponed: true };
  }
}

/** Runs one attempt and frees its memory afterwards. If there is nothing to do, the index is put into `total`. */
async function sweepOnce(repository: Repository, context: SweepContext): Promise<Outcome | "nothing"> {
  const { options, total, trees } = context;
  const lock = await acquireLock(repository, { ...options, exclusive: false });
  let staged: Staged | null;
  try {
    failpoint("sweep.begin");
    const plan = await planSweep(repository, options, trees);
    options.confirm?.(plan);
    const { missing, unlisted, marked, marks, look } = plan;
    const { warnings } = marks;
    Object.assign(total, { missing, unlisted, marked, warnings, look: options.looks === "twice" ? look : null });
    if (unlisted.length > 0) return "busy";
    total.unusedBytes = plan.unusedBytes;
    total.crowded = plan.crowded;
    append(total.damagedPacks, plan.unsound);
    total.lacking = [...new Set(plan.live.problems.map(({ id }) => id))];
    staged = await stage(repository, plan, { ...context, lock });
    if (staged === null) total.index = plan.index;
  } finally {
    await lock.release();
  }
  if (staged !== null) return commit(repository, staged, context);
  await repository.storage.clearTemporaries?.(STALE_TEMPORARY_MS);
  return "nothing";
}

interface Staged {
  readonly plan: SweepPlan;
  readonly copied: FinishedPack[];
  readonly newIndexes: string[];
  /** Sizes of packs that are removed after the old index files, by name. */
  readonly doomed: Map<string, number>;
  /** Packs in no index that are removed too. */
  readonly unindexed: SweepPlan["unindexed"];
}

interface SweepContext {
  options: SweepOptions;
  total: SweepResult;
  /** Packs of trees; all attempts share them. */
  trees: NearPacks;
}

/**
 * Writes new packs, index files and marks, durable, beside the old ones. Returns null if there is nothing to do or
 * nothing to remove.
 */
async function stage(
  repository: Repository,
  plan: SweepPlan,
  context: SweepContext & { lock: RepositoryLock },
): Promise<Staged | null> {
  const { remove, repack, unindexed, affected, spent } = plan;
  const isTwice = context.options.looks === "twice";
  const isNothingFree = remove.length === 0 && unindexed.length === 0 && spent.length === 0;
  if (isNothingFree && repack.length === 0 && plan.unmarked.size === 0) return null;
  const doomed = new Map(plan.freed.map(({ name, size }) => [name, size]));
  const unmarked = new Map(plan.unmarked);
  const writer = new IndexFileWriter(repository);
  const repacking = new Set(repack.map((facts) => facts.name));
  const done = new Set<string>();
  /** Needed entries that could not be copied from their packs. */
  const doubtful = new EntrySet(plan.index.count);
  const failed: string[] = [];
  const pace = newPacer(context.options.signal);
  const copied = await copyingPacks(repository, context.options.work, async (copier) => {
    for (const name of affected.union(new Set(repack.flatMap(({ indexes }) => indexes)))) {
      for (const pack of (await loadIndexFile(repository, name)).packs) {
        await pace();
        const packName = objectIdOf(pack.id);
        if (repacking.has(packName) && !done.has(packName)) {
          done.add(packName);
          const blobs = liveBlobs(pack, plan);
          if (!(await copier.copy(packName, blobs))) {
            failed.push(packName);
            doomed.delete(packName);
            unmarked.delete(packName);
            for (const blob of blobs) doubtful.add(plan.index.entryOf(blob));
          }
        }
        if (doomed.has(packName) || !affected.has(name)) continue;
        // A blob in an index file that stays needs no second entry, unless the files list the pack differently.
        const { split, indexes } = plan.packs.get(packName)!;
        if (split || indexes.every((other) => affected.has(other))) await writer.add(pack.id, pack.blobs);
      }
    }
  });
  append(context.total.damagedPacks, failed);
  if (failed.length > 0) await spareCopies(repository, plan, { doomed, unmarked, doubtful, writer });
  await context.lock.recheck();
  const newIndexes: string[] = await writeIndexOf(repository, copied, { doing: "sweep", writer });
  append(newIndexes, await writeMarks(repository, unmarked, plan.look));
  failpoint("sweep.marked");
  context.total.newPacks += copied.length;
  context.total.repackedPacks += repack.length - failed.length;
  for (const { size } of copied) context.total.bytesFreed -= size;
  if (isTwice && isNothingFree) return null;
  // A pack in no index may have a sound copy of a blob that could not be copied: a repair finds it.
  return { plan, copied, newIndexes, doomed, unindexed: failed.length > 0 ? [] : unindexed };
}

/** Keeps packs, and their entries, that hold another copy of a blob that could not be copied; marks none of them. */
async function spareCopies(
  repository: Repository,
  { index, affected, packs }: SweepPlan,
  { doomed, unmarked, doubtful, writer }: Sparing,
): Promise<void> {
  const isDoubtful = (blob: IndexBlob): boolean => {
    const entry = index.entryOf(blob);
    return entry >= 0 && doubtful.has(entry);
  };
  const going = [...unmarked.keys()].flatMap((name) => packs.get(name)?.indexes ?? []);
  for (const name of affected.union(new Set(going))) {
    for (const pack of (await loadIndexFile(repository, name)).packs) {
      const packName = objectIdOf(pack.id);
      if (!doomed.has(packName) && !unmarked.has(packName)) continue;
      const { blobs } = pack;
      if (!blobs.some(isDoubtful)) continue;
      unmarked.delete(packName);
      if (doomed.delete(packName)) await writer.add(pack.id, blobs);
    }
  }
}

interface Sparing {
  doomed: Map<string, number>;
  unmarked: Map<string, number>;
  doubtful: EntrySet;
  writer: IndexFileWriter;
}

/** Returns the blobs of an indexed pack that are needed and that the index reads from this pack. */
function liveBlobs(pack: IndexedPack, { index, live }: SweepPlan): IndexBlob[] {
  return pack.blobs.filter((blob) => {
    const entry = index.entryOf(blob);
    return entry >= 0 && live.has(entry) && isPlacedAt(index, entry, pack.id, blob);
  });
}

type Outcome = "done" | "busy" | "changed";

async function commit(repository: Repository, staged: Staged, context: SweepContext): Promise<Outcome> {
  let lock: RepositoryLock;
  try {
    lock = await acquireLock(repository, { ...context.options, exclusive: true });
  } catch (error) {
    if (error instanceof CairnError && error.code === "busy") return "busy";
    throw error;
  }
  try {
    failpoint("sweep.locked");
    if (await hasChanged(repository, staged, context)) return "changed";
    const { copies, packs } = staged.plan;
    await requireStored(
      repository.storage,
      new Map([...copies].map((name) => [name, packs.get(name)!.size])),
      context.options.hint,
    );
    await lock.recheck();
    await deleteOld(repository, staged, { lock, total: context.total });
    return "done";
  } finally {
    await lock.release();
  }
}

/** True if a save finished since the plan was made: the save may need blobs that were dead in the plan. */
async function hasChanged(
  repository: Repository,
  { plan, newIndexes }: Staged,
  { options, trees }: SweepContext,
): Promise<boolean> {
  const known = new Set([...plan.indexFiles, ...newIndexes]);
  const present = (await repository.storage.list("index")).map((file) => file.name);
  if (present.some((name) => !known.has(name))) return true;
  const gone = new Set(present);
  if ([...plan.indexFiles].some((name) => !gone.has(name))) return true;
  // A list of index files may be old: another prune that found marks wrong has removed their files.
  for (const { name } of plan.index.marks) if (!(await repository.storage.exists("index", name))) return true;
  const before = plan.live.size + plan.held.size;
  const roots = await rootsOf(repository, options);
  await markAll(repository, { ...plan, roots, trees }, options);
  const isLocal = repository.storage.localPath !== undefined;
  const marks = marksNow(plan.index.marks, { ...roots, now: plan.look.lookedAt, isLocal });
  const size = plan.live.size + plan.held.size;
  return size !== before || roots.unlisted.length > 0 || marks.waits.size < plan.marks.waits.size;
}

async function deleteOld(
  repository: Repository,
  staged: Staged,
  { lock, total }: { lock: RepositoryLock; total: SweepResult },
): Promise<void> {
  const { plan, doomed, copied, unindexed } = staged;
  const how = { doing: "sweep", lock } as const;
  total.replacedIndexes += await removeIndexes(repository, plan.affected, how);
  const fresh = new Set<string>(copied.map((pack) => objectIdOf(pack.id)));
  for (const [name, size] of doomed)
    if (!fresh.has(name) && (await removePack(repository, name, how))) total.bytesFreed += Math.max(0, size);
  for (const { name, size } of unindexed) {
    lock.requireHeld();
    if (!(await removeFile(repository, "data", name))) continue;
    total.removedUnindexed++;
    total.bytesFreed += size;
    failpoint("sweep.unindexed-removed");
  }
  await repository.storage.sync(["data"]);
  await repository.storage.clearTemporaries?.(STALE_TEMPORARY_MS);
  failpoint("sweep.packs-durable");
  // Last, so that the next run frees the packs that a kill has left.
  for (const name of plan.spent) {
    lock.requireHeld();
    await removeFile(repository, "index", name);
    failpoint("sweep.marks-removed");
  }
  await repository.storage.sync(["index"]);
  total.removedPacks += plan.remove.filter((facts) => doomed.has(facts.name)).length;
}
