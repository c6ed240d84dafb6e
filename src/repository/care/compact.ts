import { append } from "../../append.ts";
import { CairnError, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodePackHeader, EMPTY_PACK_SIZE, sizeInPack, type IndexBlob } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { IndexFileWriter, listingKey, loadIndexFile, type IndexFileContent } from "../index/index-set.ts";
import { tellsOfDamage } from "../trees/live.ts";
import { acquireLock, type LockCall, type RepositoryLock } from "../locks.ts";
import { nearPacksIn } from "../transfer/near-packs.ts";
import { BlobSource } from "../blob-source.ts";
import { copyingPacks, SMALL_PACK, type WorkDirectory } from "./pack-copy.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import { loadPackHeader } from "./repair.ts";
import type { Repository } from "../repository.ts";
import { type PackSizes, packSizes, STALE_TEMPORARY_MS, type StoredFile } from "../storage/storage.ts";
import { findUnindexed } from "../index/unindexed-packs.ts";

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
/** So much is read between two looks at the time. */
const PROVEN_AT_ONCE = 1024 * 1024;

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
  const started = performance.now();
  const { budgetMs: budget = 50, signal } = work.options;
  // Another one compacted or swept since the index was loaded: its result is as good.
  if (!(await index.refresh(repository))) return NOTHING;
  const files: IndexFileContent[] = [];
  for (const name of work.names) {
    throwIfAborted(signal);
    if (files.length >= 2 && performance.now() - started > budget / 2) break;
    const file = await readable(repository, name);
    if (file !== null && !file.foreign && file.packs.every((pack) => pack.isContiguous)) files.push(file);
  }
  if (files.length < 2) return NOTHING;
  const packs = packsOf(files);
  const merged = new Map<string, ListedPack>();
  const damagedPacks: string[] = [];
  const left = (): number => budget * 0.7 - (performance.now() - started);
  const copied = await copyingPacks(repository, work.options.work, async (copier) => {
    for (const group of mergeable(packs, index)) {
      for (const pack of group) {
        throwIfAborted(signal);
        if (left() < 0) break;
        // One that is damaged or gone stays listed as it was, for check to name.
        if (await copier.copy(pack.name, pack.blobs)) merged.set(pack.name, pack);
        else damagedPacks.push(pack.name);
      }
    }
  });
  await repository.storage.sync(["data"]);
  failpoint("compact.packs-written");
  const writer = new IndexFileWriter(repository);
  for (const pack of packs.values())
    if (!merged.has(pack.name)) for (const blobs of pack.listings.values()) await writer.add(pack.id, blobs);
  for (const pack of copied) await writer.add(pack.id, decodePackHeader(pack.header));
  const names = await writer.finish();
  await repository.storage.sync(["index"]);
  failpoint("compact.index-written");
  const stored = await packSizes(repository.storage);
  await work.lock.recheck();
  await dropIndexes(repository, files);
  for (const { name, size } of merged.values()) {
    // A larger one holds what no index lists, and may be the only one that does.
    if (stored.get(name) !== size) continue;
    await dropPack(repository, name, work.lock);
    stored.delete(name);
  }
  keepInStep(index, { files, packs, merged, copied, names });
  const isOver = (): boolean => performance.now() - started > budget;
  // What no index lists may hold what is damaged.
  const dropping: Dropping = { stored, work, isOver, damagedPacks };
  const removedUnindexed = damagedPacks.length === 0 ? await dropStoredAgain(repository, index, dropping) : 0;
  await repository.storage.clearTemporaries?.(STALE_TEMPORARY_MS);
  index.saveCache(true);
  failpoint("compact.done");
  return {
    mergedIndexes: files.length,
    mergedPacks: merged.size,
    newPacks: copied.length,
    removedUnindexed,
    damagedPacks,
    postponed: false,
  };
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

/** Null for one that is damaged or gone: it stays as it is. */
async function readable(repository: Repository, name: string): Promise<IndexFileContent | null> {
  try {
    return await loadIndexFile(repository, name);
  } catch (error) {
    if (tellsOfDamage(toCairnError(error))) return null;
    throw error;
  }
}

function packsOf(files: readonly IndexFileContent[]): Map<string, ListedPack> {
  const packs = new Map<string, ListedPack>();
  for (const file of files) {
    for (const pack of file.packs) {
      const name = objectIdOf(pack.id);
      const { id, blobs, fileSize: size } = pack;
      const known = packs.get(name) ?? { id, name, blobs, size, listings: new Map(), times: 0 };
      known.listings.set(listingKey(blobs), blobs);
      known.times++;
      packs.set(name, known);
    }
  }
  return packs;
}

/** Small packs that no other index file lists, nor two differently, smallest first, by type; a group of one stays. */
function mergeable(packs: ReadonlyMap<string, ListedPack>, index: BlobIndex): ListedPack[][] {
  const groups: Record<"data" | "tree", ListedPack[]> = { data: [], tree: [] };
  for (const pack of packs.values()) {
    const isListedOnce = pack.listings.size === 1 && index.listings(pack.id) === pack.times;
    if (pack.blobs.length > 0 && pack.size < SMALL_PACK && isListedOnce) groups[pack.blobs[0]!.type].push(pack);
  }
  return Object.values(groups)
    .map((group) => {
      let bytes = 0;
      return group.sort((a, b) => a.size - b.size).filter((pack) => (bytes += pack.size) <= MAX_PACK_BYTES);
    })
    .filter((group) => group.length >= 2);
}

async function dropIndexes(repository: Repository, files: readonly IndexFileContent[]): Promise<void> {
  for (const file of files) {
    await repository.storage.remove("index", file.name);
    failpoint("compact.index-removed");
  }
  await repository.storage.sync(["index"]);
  failpoint("compact.indexes-durable");
}

/** Removes a pack while the lock still holds: what it guarded may be needed again once it has ended. */
async function dropPack(repository: Repository, name: string, lock: RepositoryLock): Promise<void> {
  lock.requireHeld();
  await repository.storage.remove("data", name);
  failpoint("compact.pack-removed");
}

function keepInStep(
  index: BlobIndex,
  done: {
    files: readonly IndexFileContent[];
    packs: ReadonlyMap<string, ListedPack>;
    merged: ReadonlyMap<string, ListedPack>;
    copied: readonly FinishedPack[];
    names: readonly string[];
  },
): void {
  for (const pack of done.copied) index.addPackHeader(pack.id, pack.header, true);
  for (const pack of done.packs.values())
    index.unlist(pack.id, done.merged.has(pack.name) ? pack.times : pack.times - pack.listings.size);
  for (const file of done.files) index.uncover(file.name);
  for (const name of done.names) index.cover(name);
}

interface Dropping {
  stored: PackSizes;
  work: Work;
  isOver: () => boolean;
  /** More of them are added. */
  damagedPacks: string[];
}

/**
 * Removes packs of a killed save or merge once all they hold is stored in packs that are there, and was read there.
 * Others stay: with a lost index file or a damaged pack they have what is missing.
 */
async function dropStoredAgain(
  repository: Repository,
  index: BlobIndex,
  { stored, work, isOver, damagedPacks }: Dropping,
): Promise<number> {
  const { packs, damaged } = await findUnindexed(repository, stored, index);
  if (damaged.length > 0) return 0;
  let whole: Uint8Array | undefined;
  const isThere = (blob: IndexBlob): boolean => {
    const entry = index.entryOf(blob);
    return entry >= 0 && (whole ??= wholePacks(index, stored))[index.table.packOf[entry]!] === 1;
  };
  const near = nearPacksIn(repository.storage, work.options.work, "stored-again");
  const copies = new BlobSource({ keys: repository.keys, index, packs: near });
  const unsound = new Set<number>();
  let removed = 0;
  try {
    // The most of them in the time that there is.
    for (const [name, size] of [...packs].toSorted((a, b) => a[1] - b[1])) {
      const blobs = isOver() ? null : await blobsOf(repository, name, size);
      if (blobs?.every(isThere) !== true) continue;
      const entries = blobs.map((blob) => index.entryOf(blob));
      if (!(await areSound(copies, entries, { index, isOver, unsound }))) continue;
      await dropPack(repository, name, work.lock);
      removed++;
    }
  } finally {
    copies.close();
  }
  const damagedEntries = [...unsound, ...copies.elsewhere.keys()];
  append(damagedPacks, [...new Set(damagedEntries.map((entry) => objectIdOf(index.place(entry).pack)))]);
  return removed;
}

/** Read in pieces, as far as there is time: false where that has run out, or one of them is damaged where the index has it. */
async function areSound(
  copies: BlobSource,
  entries: readonly number[],
  { index, isOver, unsound }: { index: BlobIndex; isOver: () => boolean; unsound: Set<number> },
): Promise<boolean> {
  const piece: number[] = [];
  let bytes = 0;
  const prove = async (): Promise<boolean> => {
    for (const entry of await copies.prove(piece)) unsound.add(entry);
    return !piece.some((entry) => unsound.has(entry) || copies.elsewhere.has(entry));
  };
  for (const entry of entries) {
    piece.push(entry);
    bytes += index.table.lengthOf[entry]!;
    if (bytes < PROVEN_AT_ONCE) continue;
    if (isOver() || !(await prove())) return false;
    piece.length = 0;
    bytes = 0;
  }
  return !isOver() && prove();
}

/** By the numbers of packs, 1 for those that are not shorter than what the index says of them: of a cut one nothing counts as there. */
function wholePacks({ table }: BlobIndex, stored: ReadonlyMap<string, number>): Uint8Array {
  const ends = new Float64Array(table.packCount);
  const headers = new Float64Array(table.packCount).fill(EMPTY_PACK_SIZE);
  for (let entry = 0; entry < table.count; entry++) {
    const pack = table.packOf[entry]!;
    ends[pack] = Math.max(ends[pack]!, table.offsetOf[entry]! + table.lengthOf[entry]!);
    headers[pack]! += sizeInPack(0, table.plainOf[entry]!);
  }
  return Uint8Array.from(ends, (end, pack) =>
    (stored.get(objectIdOf(table.packId(pack))) ?? 0) >= end + headers[pack]! ? 1 : 0,
  );
}

/** Null for what is no pack, or none that can be read, be it by this user. */
async function blobsOf(repository: Repository, name: string, size: number): Promise<IndexBlob[] | null> {
  try {
    return await loadPackHeader(repository, name, size);
  } catch (error) {
    const known = toCairnError(error);
    if (tellsOfDamage(known) || known.code === "permission") return null;
    throw error;
  }
}
