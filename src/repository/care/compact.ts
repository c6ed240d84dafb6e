import { append } from "../../append.ts";
import { CairnError, throwIfAborted, toCairnError, tellsOfDamage } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { type IndexedPack, IndexFileWriter, listingKey, loadIndexFile } from "../index/index-set.ts";
import { acquireLock, type LockCall, type RepositoryLock } from "../locks.ts";
import { copyingPacks, SMALL_PACK, type WorkDirectory } from "./pack-copy.ts";
import type { Repository } from "../repository.ts";
import { packSizes, STALE_TEMPORARY_MS, type StoredFile } from "../storage/storage.ts";
import { removeIndexes, removePack, writeIndexOf } from "./replaced-files.ts";
import { removeStoredAgain } from "./unindexed-packs.ts";

export interface CompactOptions extends Pick<LockCall, "signal" | "onWarning"> {
  /** Milliseconds; what does not fit is left for the next time. Default 50. */
  budgetMs?: number;
  /** So many index files of one size class are merged into one. Default 24. */
  trigger?: number;
  /** A folder for the packs that are brought and written; needed where the repository is not a local one. */
  work?: WorkDirectory;
}

export interface CompactResult {
  readonly mergedIndexes: number;
  readonly mergedPacks: number;
  readonly newPacks: number;
  /** Packs in no index, all of whose content is stored elsewhere, that were removed on the way. */
  readonly removedUnindexed: number;
  /** Names of packs that turned out to be damaged where that was looked at. */
  readonly damagedPacks: readonly string[];
  /** True when others used the repository: nothing was done. */
  readonly postponed: boolean;
}

const NOTHING: CompactResult = {
  mergedIndexes: 0,
  mergedPacks: 0,
  newPacks: 0,
  removedUnindexed: 0,
  damagedPacks: [],
  postponed: false,
};

/** Bytes on disk at which each size class of index files ends; larger ones, of which two exceed the budget, are left. */
const CLASS_ENDS = [4 * 1024, 64 * 1024, 256 * 1024];
/** Bytes of index files, and of packs, that one run reads: about what the budget allows. */
const MAX_INDEX_BYTES = 768 * 1024;
const MAX_PACK_BYTES = 6 * 1024 * 1024;

/**
 * Merges small index files of one size class, and the small packs that only they list. New files are durable before an
 * old one goes, under an exclusive lock that is never waited for: a kill anywhere leaves a whole repository. The caller
 * holds no lock; `index` is kept in step, its epoch too.
 */
export async function compact(
  repository: Repository,
  index: BlobIndex,
  options: CompactOptions = {},
): Promise<CompactResult> {
  repository.requireRemovals();
  const files = await repository.storage.list("index");
  const trigger = options.trigger ?? 24;
  if (files.length < trigger) return NOTHING;
  const chosen = chooseIndexes(files, trigger);
  if (chosen.length < 2) return NOTHING;
  let lock: RepositoryLock;
  try {
    const { signal, onWarning } = options;
    lock = await acquireLock(repository, { exclusive: true, signal, onWarning });
  } catch (error) {
    if (error instanceof CairnError && error.code === "busy") return { ...NOTHING, postponed: true };
    throw error;
  }
  try {
    failpoint("compact.locked");
    return await merge(repository, index, { names: chosen, options, lock });
  } catch (error) {
    // Another one was faster: its result is as good.
    if (toCairnError(error).code === "not_found") return NOTHING;
    throw error;
  } finally {
    await lock.release();
  }
}

/** The smaller half of the decision: names of index files of the first class that is full. */
function chooseIndexes(files: readonly StoredFile[], trigger: number): string[] {
  let start = 0;
  for (const end of CLASS_ENDS) {
    const members = files.filter((file) => file.size >= start && file.size < end).sort((a, b) => a.size - b.size);
    start = end;
    if (members.length < trigger) continue;
    const names: string[] = [];
    let bytes = 0;
    for (const file of members) {
      bytes += file.size;
      if (bytes > MAX_INDEX_BYTES && names.length >= 2) break;
      names.push(file.name);
    }
    return names;
  }
  return [];
}

interface Work {
  readonly names: string[];
  readonly lock: RepositoryLock;
  readonly options: CompactOptions;
}

async function merge(repository: Repository, index: BlobIndex, work: Work): Promise<CompactResult> {
  const { budgetMs: budget = 50, signal, work: directory } = work.options;
  const started = performance.now();
  const left = (share = 1): number => budget * share - (performance.now() - started);
  // Another one compacted or swept since the index was loaded: its result is as good.
  if (!(await index.refresh(repository))) return NOTHING;
  const names: string[] = [];
  const packs = new Map<string, ListedPack>();
  for (const name of work.names) {
    throwIfAborted(signal);
    if (names.length >= 2 && left(0.5) < 0) break;
    const file = await loadIndexFile(repository, name).catch((error: unknown) => {
      if (!tellsOfDamage(toCairnError(error))) throw error;
      return null;
    });
    // One that is damaged or gone stays as it is.
    if (file === null || file.foreign || file.packs.some((pack) => !pack.isContiguous)) continue;
    names.push(name);
    for (const pack of file.packs) take(packs, pack);
  }
  if (names.length < 2) return NOTHING;
  const merged = new Set<ListedPack>();
  const damagedPacks: string[] = [];
  const copied = await copyingPacks(repository, directory, async (copier) => {
    for (const pack of mergeable(packs, index)) {
      throwIfAborted(signal);
      if (left(0.7) < 0) break;
      // One that is damaged or gone stays listed as it was, for check to name.
      if (await copier.copy(pack.name, pack.blobs)) merged.add(pack);
      else damagedPacks.push(pack.name);
    }
  });
  const writer = new IndexFileWriter(repository);
  for (const pack of packs.values())
    if (!merged.has(pack)) for (const blobs of pack.listings.values()) await writer.add(pack.id, blobs);
  const newNames = await writeIndexOf(repository, copied, { doing: "compact", writer });
  const stored = await packSizes(repository.storage);
  await work.lock.recheck();
  const how = { doing: "compact", lock: work.lock } as const;
  await removeIndexes(repository, names, how);
  for (const { name, size } of merged) {
    // A larger one holds what no index lists, and may be the only one that does.
    if (stored.get(name) !== size) continue;
    await removePack(repository, name, how);
    stored.delete(name);
  }
  for (const pack of copied) index.addPackHeader(pack.id, pack.header, true);
  for (const pack of packs.values())
    index.unlist(pack.id, merged.has(pack) ? pack.times : pack.times - pack.listings.size);
  for (const name of names) index.uncover(name);
  for (const name of newNames) index.cover(name);
  let removedUnindexed = 0;
  // What no index lists may hold what is damaged.
  if (damagedPacks.length === 0) {
    const remove = async (name: string): Promise<void> => void (await removePack(repository, name, how));
    const found = await removeStoredAgain(repository, index, { stored, work: directory, leftMs: left(), remove });
    removedUnindexed = found.removed;
    append(damagedPacks, found.damagedPacks);
  }
  await repository.storage.clearTemporaries?.(STALE_TEMPORARY_MS);
  index.saveCache(true);
  failpoint("compact.done");
  const [mergedIndexes, mergedPacks, newPacks] = [names.length, merged.size, copied.length];
  return { mergedIndexes, mergedPacks, newPacks, removedUnindexed, damagedPacks, postponed: false };
}

interface ListedPack {
  readonly id: Uint8Array;
  readonly name: string;
  readonly blobs: readonly IndexBlob[];
  readonly size: number;
  /** All that is listed of it, each differently, by its key; mostly only its blobs. */
  readonly listings: Map<number, readonly IndexBlob[]>;
  /** Number of the chosen index files that list it. */
  times: number;
}

function take(packs: Map<string, ListedPack>, { id, blobs, fileSize: size }: IndexedPack): void {
  const name = objectIdOf(id);
  const pack = packs.get(name) ?? { id, name, blobs, size, listings: new Map(), times: 0 };
  pack.listings.set(listingKey(blobs), blobs);
  pack.times++;
  packs.set(name, pack);
}

/** Small packs that no other index file lists, nor two differently, of each type the smallest, as many as one run reads; none where they are fewer than two. */
function mergeable(packs: ReadonlyMap<string, ListedPack>, index: BlobIndex): ListedPack[] {
  const isAlone = ({ id, listings, times }: ListedPack): boolean => listings.size === 1 && index.listings(id) === times;
  const small = [...packs.values()].filter((pack) => pack.size < SMALL_PACK && isAlone(pack));
  return ["data", "tree"].flatMap((type) => {
    let bytes = 0;
    const group = small
      .filter(({ blobs }) => blobs[0]?.type === type)
      .sort((a, b) => a.size - b.size)
      .filter(({ size }) => (bytes += size) <= MAX_PACK_BYTES);
    return group.length < 2 ? [] : group;
  });
}
