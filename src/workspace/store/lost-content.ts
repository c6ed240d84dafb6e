import fs from "node:fs";
import { toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { LiveSet } from "../../repository/trees/live.ts";
import { nearPacksIn, shortPacks } from "../../repository/read/near-packs.ts";
import { planIndexRepair, runIndexRepair } from "../../repository/care/repair.ts";
import type { StoredFile } from "../../repository/storage/storage.ts";
import type { LostRequest, PointContent, StoppableCall } from "./engine.ts";
import { provePacks } from "../../repository/verify/pack-prover.ts";
import { treesOf } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";

interface DropCall extends LostRequest {
  /** how long to wait for other processes that use the store */
  waitMs: number;
}

/** Packs that were taken out of the index. */
interface DroppedPacks {
  packs: number;
  /** The damage of the packs, for messages. */
  how: string;
  /** Hex ids of their blobs that cannot be read from anywhere. */
  lostBlobs: readonly string[];
}

/**
 * Takes missing and cut packs, and packs in which a read found damage, out of the store's index. With `reads` also
 * packs in which a read of all packs finds damage now. Readable blobs are kept. Returns how many packs.
 */
export async function dropLostPacks(store: EmbeddedStore, options: DropCall): Promise<number> {
  if (options.reads === true) {
    const damaged = await dropDamagedPacks(store, options);
    if (damaged > 0)
      options.onWarning?.(
        `${damaged} of the packs of the workspace's store are damaged: their blobs are lost, and are stored again when a save meets the same content; \`cairn doctor\` names the affected points`,
      );
    return damaged;
  }
  const dropped = await dropKnown(store, options);
  tellOfDropped(store, dropped, options.onWarning);
  return dropped?.packs ?? 0;
}

/** A save waits only briefly for this: the next save tries again. */
const FIRST_WAIT_MS = 1000;
/** Errors that may be gone at the next save: other processes use or change the store, or left a file that this user may not read. */
const GOES_ON: ReadonlySet<string> = new Set(["busy", "stale_plan", "permission"]);

/** Drops lost packs before a save. Only warns if other processes are in the way. */
export async function dropLostFirst(
  store: EmbeddedStore,
  call: Omit<DropCall, "reads" | "waitMs">,
): Promise<DroppedPacks | null> {
  try {
    return await dropKnown(store, { ...call, waitMs: FIRST_WAIT_MS });
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (!GOES_ON.has(code)) throw error;
    // Writers pass over remembered packs.
    store.repository.damaged.learn(packsNotThere(store));
    call.onWarning?.(
      `packs of the workspace's store are damaged, missing or cut, and cannot be taken out of its index now; this save stores their content again: ${message}`,
    );
    return null;
  }
}

/** Warns of the packs that were dropped. Tells how many of the lost blobs the store has again. */
export function tellOfDropped(
  { index }: EmbeddedStore,
  dropped: DroppedPacks | null,
  onWarning: DropCall["onWarning"],
): void {
  if (dropped === null) return;
  const { packs, how, lostBlobs } = dropped;
  const again = lostBlobs.filter((id) => index.lookup(Buffer.from(id, "hex"), 0) >= 0).length;
  let outcome = `${again} of ${plural(lostBlobs.length, "lost blob")} ${again === 1 ? "was" : "were"} stored again`;
  if (lostBlobs.length === 0) outcome = "all their content could be read, and was copied";
  else if (again < lostBlobs.length)
    outcome +=
      "; the rest is stored again when a save meets the same content: `cairn doctor` names the affected points";
  onWarning?.(`${packs} of the packs of the workspace's store are ${how}: ${outcome}`);
}

/** Names of indexed packs that are missing or cut, which asking for each by name finds faster than a list of all. */
function packsNotThere({ index, storage }: EmbeddedStore): string[] {
  return shortPacks(index, (pack) => storage.sizeOf("data", pack) ?? 0);
}

/**
 * Drops packs that are missing, cut or remembered as damaged: sound blobs are copied, then the index is rewritten ●, then
 * the memory is cleared. A kill before the last step leaves names of packs that no index lists, which have no effect.
 */
async function dropKnown(store: EmbeddedStore, { waitMs, signal }: DropCall): Promise<DroppedPacks | null> {
  const { damaged } = store.repository;
  const lostNow = (): ReadonlySet<string> => damaged.listedIn(store.index).union(new Set(packsNotThere(store)));
  if (lostNow().size === 0) return null;
  await store.refresh(signal);
  const lost = lostNow();
  if (lost.size === 0) return null;
  const known = damaged.listedIn(store.index);
  const lostBlobs = await repairIndex(store, known, { waitMs, signal, keepsDamaged: true });
  return { packs: lost.size, how: known.size > 0 ? "damaged, missing or cut" : "missing or cut", lostBlobs };
}

/** Reads all packs, and rewrites the index without damaged ones. Returns how many packs were damaged. */
export async function dropDamagedPacks(store: EmbeddedStore, options: Omit<DropCall, "reads">): Promise<number> {
  const { repository } = store;
  const { signal, onProgress } = options;
  const index = await BlobIndex.load(repository, null, signal);
  const { table } = index;
  const packs: StoredFile[] = [];
  for (let pack = 0; pack < table.packCount; pack++)
    if (table.packRefs[pack]! > 0) packs.push({ name: objectIdOf(table.packId(pack)), size: 0 });
  const { reports } = await provePacks({
    keys: repository.keys,
    index,
    near: nearPacksIn(repository.storage, undefined, ""),
    packs,
    signal,
    onProgress:
      onProgress && (({ blobs, bytes }) => onProgress({ done: blobs, total: Math.max(index.count, blobs), bytes })),
  });
  await repairIndex(store, new Set(reports.map(({ pack }) => objectIdOf(table.packId(pack)))), options);
  repository.damaged.learn([], repository.damaged.names());
  return reports.length;
}

/** Rewrites the index files without packs that are missing, cut or damaged. Returns the ids of lost blobs. */
async function repairIndex(
  store: EmbeddedStore,
  damagedPacks: ReadonlySet<string>,
  { waitMs, signal, keepsDamaged }: Pick<DropCall, "waitMs" | "signal"> & { keepsDamaged?: boolean },
): Promise<readonly string[]> {
  const { repository, paths } = store;
  const near = nearPacksIn(repository.storage, undefined, "");
  const call = { damagedPacks, near, waitMs, signal, keepsDamaged: keepsDamaged === true };
  const { lostBlobs } = await runIndexRepair(repository, await planIndexRepair(repository, call), call);
  // The old index wrote this cache, which is out of date now.
  fs.rmSync(paths.indexCache, { force: true });
  await store.refresh();
  return lostBlobs;
}

/** Tells whether the index lists everything that a point's trees need. Reads trees only. */
export async function holdsContent(
  store: EmbeddedStore,
  content: PointContent,
  { signal }: StoppableCall,
): Promise<boolean> {
  const live = new LiveSet(store.index);
  await live.mark(treesOf(content), store.blobs.viewTree, { signal });
  return live.complete;
}
