import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobSource } from "../read/blob-source.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { findUnindexed } from "../verify/unindexed-packs.ts";
import { acquireLock, type RepositoryLock } from "../locks.ts";
import { headerToDrop } from "../packs/pack-read.ts";
import type { Repository } from "../repository.ts";
import { packSizes, type PackSizes } from "../storage/storage.ts";
import { lostPacks, nearPacksIn } from "../read/near-packs.ts";
import type { WorkDirectory } from "./pack-copy.ts";
import { removeFile } from "./replaced-files.ts";

/** The most milliseconds that a timer takes. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Removes packs that no index lists, under an exclusive lock; returns the number, or -1 if the lock was refused. Reads
 * indexed copies of their blobs first: if one is damaged, the pack stays and `onDamaged` gets the damaged pack's name.
 * Throws `damaged`, with nothing removed, if an index file is unreadable. For local repositories.
 */
export async function removeUnindexedPacks(
  repository: Repository,
  { waitMs = 0, onDamaged }: { waitMs?: number; onDamaged?: (pack: string) => void } = {},
): Promise<number> {
  repository.requireRemovals();
  let lock: RepositoryLock;
  try {
    lock = await acquireLock(repository, { waitMs, exclusive: true });
  } catch (error) {
    if (error instanceof CairnError && error.code === "busy") return -1;
    throw error;
  }
  try {
    const { packs, damaged } = await findUnindexed(repository, await packSizes(repository.storage), null);
    const [unread] = damaged;
    if (unread !== undefined) throw unread.error;
    const index = await BlobIndex.load(repository, null);
    const source = new BlobSource({
      keys: repository.keys,
      index,
      packs: nearPacksIn(repository.storage, undefined, ""),
    });
    let removed = 0;
    try {
      for (const [name, size] of packs) {
        const blobs = await headerToDrop(repository, name, size);
        if (blobs === "closed") continue;
        const entries = blobs.map((blob) => index.entryOf(blob)).filter((entry) => entry >= 0);
        const unsound = await source.prove(entries);
        for (const pack of packsOf(index, unsound)) onDamaged?.(pack);
        if (unsound.size > 0) continue;
        lock.requireHeld();
        if (await removeFile(repository, "data", name)) removed++;
        failpoint("unindexed.pack-removed");
      }
    } finally {
      source.close();
    }
    return removed;
  } finally {
    await lock.release();
  }
}

/**
 * Removes packs of a killed writer whose blobs are all stored in indexed packs and were read there. Stops after
 * `leftMs`. Other packs stay: they may replace a lost index file or a damaged pack.
 */
export async function removeStoredAgain(
  repository: Repository,
  index: BlobIndex,
  from: { stored: PackSizes; work: WorkDirectory | undefined; leftMs: number; remove: (pack: string) => Promise<void> },
): Promise<{ removed: number; damagedPacks: string[] }> {
  const { packs, damaged } = await findUnindexed(repository, from.stored, index);
  const damagedPacks = new Set<string>();
  let removed = 0;
  if (packs.size === 0 || damaged.length > 0 || from.leftMs <= 0) return { removed, damagedPacks: [] };
  // A blob in a cut pack does not count as stored.
  const cut = new Set(lostPacks(index, from.stored));
  const near = nearPacksIn(repository.storage, from.work, "stored-again");
  const until = performance.now() + from.leftMs;
  const time = AbortSignal.timeout(Math.min(Math.ceil(from.leftMs), LONGEST_MS));
  const source = new BlobSource({ keys: repository.keys, index, packs: near, signal: time });
  try {
    // The smallest first: most packs in the given time.
    for (const [name, size] of [...packs].toSorted((a, b) => a[1] - b[1])) {
      if (performance.now() > until) break;
      const blobs = await headerToDrop(repository, name, size);
      const entries = blobs === "closed" ? [] : blobs.map((blob) => index.entryOf(blob));
      if (entries.length === 0 || entries.includes(-1) || packsOf(index, entries).some((pack) => cut.has(pack)))
        continue;
      const unsound = await source.prove(entries);
      for (const entry of entries) if (source.elsewhere.has(entry)) unsound.add(entry);
      for (const pack of packsOf(index, unsound)) damagedPacks.add(pack);
      if (unsound.size > 0) continue;
      await from.remove(name);
      removed++;
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
