import fs from "node:fs";
import { toCairnError } from "../../errors.ts";
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

/** Takes missing, cut or damaged packs out of the store's index. Readable blobs of damaged packs are kept. Returns how many packs. */
export async function dropLostPacks(store: EmbeddedStore, options: DropCall): Promise<number> {
  const { reads, onWarning } = options;
  const lost = await (reads === true ? dropDamagedPacks(store, options) : dropShortPacks(store, options));
  if (lost > 0)
    onWarning?.(
      `${lost} of the packs of the workspace's store are ${reads === true ? "damaged" : "missing or cut"}: their blobs are lost, and are stored again when a save meets the same content; \`cairn doctor\` names the affected points`,
    );
  return lost;
}

/** A save waits only briefly for this: the next save tries again. */
const FIRST_WAIT_MS = 1000;
/** Errors that may be gone at the next save: other processes use or change the store, or left a file that this user may not read. */
const GOES_ON: ReadonlySet<string> = new Set(["busy", "stale_plan", "permission"]);

/** Drops lost packs before a save. Only warns if other processes are in the way. */
export async function dropLostFirst(store: EmbeddedStore, call: Omit<DropCall, "reads" | "waitMs">): Promise<void> {
  if (packsNotThere(store).length === 0) return;
  try {
    await dropLostPacks(store, { ...call, waitMs: FIRST_WAIT_MS });
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (!GOES_ON.has(code)) throw error;
    call.onWarning?.(
      `packs of the workspace's store are missing or cut, and this save may not store their blobs again: ${message}`,
    );
  }
}

/** Asking for each pack by name is faster than listing all of them. */
function packsNotThere({ index, storage }: EmbeddedStore): string[] {
  return shortPacks(index, (pack) => storage.sizeOf("data", pack) ?? 0);
}

async function dropShortPacks(store: EmbeddedStore, { waitMs, signal }: DropCall): Promise<number> {
  await store.refresh(signal);
  const lost = packsNotThere(store).length;
  if (lost > 0) await repairIndex(store, new Set(), { waitMs, signal });
  return lost;
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

/** Rewrites the index files without packs that are missing, cut or damaged, also if two index files list a blob. */
async function repairIndex(
  store: EmbeddedStore,
  damagedPacks: ReadonlySet<string>,
  { waitMs, signal }: Pick<DropCall, "waitMs" | "signal">,
): Promise<void> {
  const { repository, paths } = store;
  const near = nearPacksIn(repository.storage, undefined, "");
  const call = { damagedPacks, near, waitMs, signal };
  await runIndexRepair(repository, await planIndexRepair(repository, call), call);
  // The old index wrote this cache, which is out of date now.
  fs.rmSync(paths.indexCache, { force: true });
  await store.refresh();
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
