import fs from "node:fs";
import { toCairnError } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { LiveSet } from "../../repository/trees/live.ts";
import { nearPacksIn, shortPacks } from "../../repository/read/near-packs.ts";
import { planIndexRepair, runIndexRepair } from "../../repository/care/repair.ts";
import { packSizes, type StoredFile } from "../../repository/storage/storage.ts";
import { damagedOf, findUnindexed } from "../../repository/verify/unindexed-packs.ts";
import type { LostRequest, PointContent, StoppableCall } from "./engine.ts";
import { provePacks } from "../../repository/verify/pack-prover.ts";
import { notePacks } from "./store-files.ts";
import { treesOf } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";

interface DropCall extends LostRequest {
  /** for others that use the store */
  waitMs: number;
}

/** Takes packs that are missing or cut, or that are found damaged, out of the store's index, with what can be read of them kept. Returns how many. */
export async function dropLostPacks(store: EmbeddedStore, options: DropCall): Promise<number> {
  const { reads, onWarning } = options;
  const lost = await (reads === true ? dropDamagedPacks(store, options) : dropShortPacks(store, options));
  if (lost > 0)
    onWarning?.(
      `${lost} of the packs of the workspace's store are ${reads === true ? "damaged" : "missing or cut"}: their blobs are lost, and are stored again when a save meets the same content; \`cairn doctor\` names the affected points`,
    );
  return lost;
}

/** A save is hardly kept waiting: the next one tries again. */
const FIRST_WAIT_MS = 1000;
/** Others use the store, change it, or have put something there that this user may not read: each may be over by the next time. */
const GOES_ON: ReadonlySet<string> = new Set(["busy", "stale_plan", "permission"]);

/** Drops lost packs for who is about to add to the store, and goes on where others are in the way. */
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

/** Each is asked for by its name, which is faster than listing them and what else there is. */
function packsNotThere({ index, storage }: EmbeddedStore): string[] {
  return shortPacks(index, (pack) => storage.sizeOf("data", pack) ?? 0);
}

async function dropShortPacks(store: EmbeddedStore, { waitMs, signal }: DropCall): Promise<number> {
  const { repository } = store;
  await store.refresh(signal);
  const lost = packsNotThere(store).length;
  if (lost === 0) return 0;
  const damagedPacks = new Set(await damagedUnlisted(store, signal));
  const call = { waitMs, damagedPacks, ...(signal === undefined ? {} : { signal }) };
  // On the disk too: where two index files list a blob, the next to read them may look for it in the lost pack.
  await runIndexRepair(repository, await planIndexRepair(repository, call), call);
  await store.refresh();
  return lost;
}

/** The index is written again from the packs, without those in which anything is damaged; all are read for it. Returns how many those were. */
export async function dropDamagedPacks(store: EmbeddedStore, options: Omit<DropCall, "reads">): Promise<number> {
  const { repository, paths } = store;
  const { waitMs, signal, onProgress } = options;
  const call = signal === undefined ? {} : { signal };
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
  const found = reports.map(({ pack }) => objectIdOf(table.packId(pack)));
  const damagedPacks = new Set([...found, ...(await damagedUnlisted(store, signal))]);
  const repair = { ...call, damagedPacks, waitMs };
  await runIndexRepair(repository, await planIndexRepair(repository, repair), repair);
  notePacks(paths, [], true);
  // Written by the old index: what it says is not so any more.
  fs.rmSync(paths.indexCache, { force: true });
  await store.refresh();
  return found.length;
}

/** Returns the damaged ones of the packs that no index lists, and that a repair lists again. */
async function damagedUnlisted({ repository }: EmbeddedStore, signal: AbortSignal | undefined): Promise<string[]> {
  const { packs } = await findUnindexed(repository, await packSizes(repository.storage), null);
  return damagedOf(packs, { repository, near: nearPacksIn(repository.storage, undefined, ""), signal });
}

/** Tells whether the index lists all that a point's trees need. Packs are not read for it, but for trees. */
export async function holdsContent(
  store: EmbeddedStore,
  content: PointContent,
  { signal }: StoppableCall,
): Promise<boolean> {
  const live = new LiveSet(store.index);
  await live.mark(treesOf(content), store.blobs.viewTree, signal === undefined ? {} : { signal });
  return live.complete;
}
