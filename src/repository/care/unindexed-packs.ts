import { toCairnError } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobSource } from "../read/blob-source.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { findUnindexed } from "../verify/unindexed-packs.ts";
import { type LockCall, type RepositoryLock, withLock } from "../locks.ts";
import { headerToDrop } from "../packs/pack-read.ts";
import type { Repository } from "../repository.ts";
import { packSizes, type PackSizes } from "../storage/storage.ts";
import { lostPacks, nearPacksIn } from "../read/near-packs.ts";
import type { WorkDirectory } from "./pack-copy.ts";
import { removePack, type Replacing } from "./replaced-files.ts";

/** The most milliseconds that a timer takes. */
const LONGEST_MS = 2 ** 31 - 1;

interface RemovedPacks {
  removed: number;
  /** Names of packs with damaged copies of blobs that packs in no index have too; those stay. */
  damagedPacks: string[];
}

/**
 * Removes packs that no index lists, under an exclusive lock. Throws `damaged`, with nothing removed, if an index file
 * is unreadable. For local repositories.
 */
export async function removeUnindexedPacks(repository: Repository, call: LockCall = {}): Promise<RemovedPacks> {
  repository.requireRemovals();
  return withLock(repository, { ...call, exclusive: true }, async (lock) => {
    const index = await BlobIndex.load(repository, null);
    const [unread] = index.damaged;
    if (unread !== undefined) throw unread.error;
    const stored = await packSizes(repository.storage);
    return removeUnindexed(repository, index, { lock, stored, doing: "repair", onlyStoredAgain: false });
  });
}

/**
 * Removes packs of a killed writer after their blobs were read in indexed packs. `onlyStoredAgain`: a pack with a blob
 * that no index lists stays, because it may replace a lost index file or a damaged pack. Stops after `leftMs`.
 */
export async function removeUnindexed(
  repository: Repository,
  index: BlobIndex,
  {
    lock,
    stored,
    doing,
    onlyStoredAgain,
    work,
    leftMs = LONGEST_MS,
  }: {
    lock: RepositoryLock;
    stored: PackSizes;
    doing: Replacing;
    onlyStoredAgain: boolean;
    work?: WorkDirectory | undefined;
    leftMs?: number;
  },
): Promise<RemovedPacks> {
  const damagedPacks = new Set<string>();
  let removed = 0;
  const { packs, damaged } = await findUnindexed(repository, stored, index);
  if (packs.size === 0 || damaged.length > 0 || leftMs <= 0) return { removed, damagedPacks: [] };
  // A blob in a cut pack does not count as stored.
  const cut = new Set(lostPacks(index, stored));
  const until = performance.now() + leftMs;
  const source = new BlobSource({
    keys: repository.keys,
    index,
    packs: nearPacksIn(repository.storage, work, "stored-again"),
    signal: AbortSignal.timeout(Math.min(Math.ceil(leftMs), LONGEST_MS)),
  });
  try {
    // The smallest first: most packs in the given time.
    for (const [name, size] of [...packs].toSorted((a, b) => a[1] - b[1])) {
      if (performance.now() > until) break;
      const blobs = await headerToDrop(repository, name, size);
      if (blobs === "closed") continue;
      const known = blobs.map((blob) => index.entryOf(blob));
      const entries = known.filter((entry) => entry >= 0);
      if (onlyStoredAgain && (entries.length === 0 || entries.length < known.length)) continue;
      const unsound = await source.prove(entries);
      for (const entry of entries) if (source.elsewhere.has(entry)) unsound.add(entry);
      for (const pack of packsOf(index, unsound)) damagedPacks.add(pack);
      if (unsound.size > 0 || packsOf(index, entries).some((pack) => cut.has(pack))) continue;
      if (await removePack(repository, name, { doing, lock })) removed++;
    }
  } catch (error) {
    // The time is over: the next run removes the rest.
    if (toCairnError(error).code !== "interrupted") throw error;
  } finally {
    source.close();
  }
  return { removed, damagedPacks: [...damagedPacks] };
}

function packsOf(index: BlobIndex, entries: Iterable<number>): string[] {
  return [...new Set([...entries].map((entry) => objectIdOf(index.place(entry).pack)))];
}
