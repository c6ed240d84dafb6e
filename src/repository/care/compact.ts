import { append } from "../../append.ts";
import { CairnError, throwIfAborted, toCairnError, tellsOfDamage } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { type IndexedPack, IndexFileWriter, listingKey, loadIndexFile } from "../index/index-set.ts";
import { acquireLock, type LockCall, type RepositoryLock } from "../locks.ts";
import { type Look, writeMarks } from "./marks.ts";
import { copyingPacks, SMALL_PACK, type WorkDirectory } from "./pack-copy.ts";
import type { Repository } from "../repository.ts";
import { packSizes, STALE_TEMPORARY_MS, type StoredFile } from "../storage/storage.ts";
import { removeIndexes, removePack, writeIndexOf } from "./replaced-files.ts";
import { removeUnindexed } from "./unindexed-packs.ts";

export interface CompactOptions extends Pick<LockCall, "signal" | "onWarning"> {
  /** Milliseconds. Files that do not fit into the budget are left for the next run. Default 50. */
  budgetMs?: number;
  /** Number of index files of one size class that starts a merge. Default 24. */
  trigger?: number;
  /** A folder for fetched packs and new packs. Required if the repository is not local. */
  work?: WorkDirectory;
  /** The look of a sweep with which merged packs are marked for a later sweep. Absent: merged packs are removed at once. */
  look?: Look | null;
}

export interface CompactResult {
  readonly mergedIndexes: number;
  readonly mergedPacks: number;
  readonly newPacks: number;
  /** Packs in no index whose content is all stored elsewhere; this run removed them. */
  readonly removedUnindexed: number;
  /** Names of packs that this run read and found damaged. */
  readonly damagedPacks: readonly string[];
  /** True if another program used the repository: the run changed nothing. */
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

/** Upper ends of the size classes of index files, in bytes. Larger files are left: two of them exceed the budget. */
const CLASS_ENDS = [4 * 1024, 64 * 1024, 256 * 1024];
/** Bytes of index files, and of packs, that one run reads: about as many as the default budget allows. */
const MAX_INDEX_BYTES = 768 * 1024;
const MAX_PACK_BYTES = 6 * 1024 * 1024;

/**
 * Merges small index files of one size class, and small packs that only these files list. Does not wait for the
 * exclusive lock. Makes new files durable before it removes old ones, so that a kill loses nothing. The caller holds no
 * lock. Updates `index` and keeps its epoch.
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
    // Another process was faster: its result is as good.
    if (toCairnError(error).code === "not_found") return NOTHING;
    throw error;
  } finally {
    await lock.release();
  }
}

/** Names of the smallest index files of the first full size class; empty if no class is full. */
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
  const { budgetMs: budget = 50, signal, work: directory, look = null } = work.options;
  const started = performance.now();
  const left = (share = 1): number => budget * share - (performance.now() - started);
  // Another process compacted or swept since the index was loaded: its result is as good.
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
    // An index file that is damaged or gone stays as it is.
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
      // A pack that is damaged or gone stays listed, so that check names it.
      if (await copier.copy(pack.name, pack.blobs)) merged.add(pack);
      else damagedPacks.push(pack.name);
    }
  });
  const writer = new IndexFileWriter(repository);
  for (const pack of packs.values())
    if (look !== null || !merged.has(pack))
      for (const blobs of pack.listings.values()) await writer.add(pack.id, blobs);
  const newNames = await writeIndexOf(repository, copied, { doing: "compact", writer });
  if (look !== null) await writeMarks(repository, new Map([...merged].map(({ name, size }) => [name, size])), look);
  const stored = await packSizes(repository.storage);
  await work.lock.recheck();
  const how = { doing: "compact", lock: work.lock } as const;
  await removeIndexes(repository, names, how);
  for (const { name, size } of look === null ? merged : []) {
    // A pack of another size may hold blobs that no index lists, perhaps their only copy.
    if (stored.get(name) !== size) continue;
    await removePack(repository, name, how);
    stored.delete(name);
  }
  for (const pack of copied) index.addPackHeader(pack.id, pack.header, true);
  for (const pack of packs.values())
    index.unlist(pack.id, look === null && merged.has(pack) ? pack.times : pack.times - pack.listings.size);
  for (const name of names) index.uncover(name);
  for (const name of newNames) index.cover(name);
  let removedUnindexed = 0;
  // A pack in no index may have the only sound copy of a damaged blob.
  if (damagedPacks.length === 0 && look === null) {
    const options = { ...how, stored, work: directory, leftMs: left(), onlyStoredAgain: true };
    const found = await removeUnindexed(repository, index, options);
    removedUnindexed = found.removed;
    append(damagedPacks, found.damagedPacks);
  }
  repository.damaged.learn(damagedPacks);
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
  /** The different lists of blobs that the index files give for this pack, by `listingKey`; mostly one. */
  readonly listings: Map<number, readonly IndexBlob[]>;
  /** Number of the chosen index files that list this pack. */
  times: number;
}

function take(packs: Map<string, ListedPack>, { id, blobs, fileSize: size }: IndexedPack): void {
  const name = objectIdOf(id);
  const pack = packs.get(name) ?? { id, name, blobs, size, listings: new Map(), times: 0 };
  pack.listings.set(listingKey(blobs), blobs);
  pack.times++;
  packs.set(name, pack);
}

/**
 * Chooses, for each blob type, the smallest packs that one run can read; none if a type has fewer than two. Skips packs
 * that other index files list, or that are listed in two ways.
 */
function mergeable(packs: ReadonlyMap<string, ListedPack>, index: BlobIndex): ListedPack[] {
  const isAlone = ({ id, listings, times }: ListedPack): boolean => listings.size === 1 && index.listings(id) === times;
  const marked = new Set(index.marks.flatMap(({ marks }) => (marks instanceof CairnError ? [] : marks.packs)));
  const isSmall = ({ name, size }: ListedPack): boolean => size < SMALL_PACK && !marked.has(name);
  const small = [...packs.values()].filter((pack) => isSmall(pack) && isAlone(pack));
  return ["data", "tree"].flatMap((type) => {
    let bytes = 0;
    const group = small
      .filter(({ blobs }) => blobs[0]?.type === type)
      .sort((a, b) => a.size - b.size)
      .filter(({ size }) => (bytes += size) <= MAX_PACK_BYTES);
    return group.length < 2 ? [] : group;
  });
}
