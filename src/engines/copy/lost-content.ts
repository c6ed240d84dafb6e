import fs from "node:fs";
import { BlobIndex } from "../../repository/blob-index.ts";
import { LiveSet } from "../../repository/live.ts";
import { lostPacks } from "../../repository/near-packs.ts";
import { planIndexRepair, runIndexRepair } from "../../repository/repair.ts";
import type { LostRequest, PointContent, StoppableCall } from "../engine.ts";
import { verifyContent } from "../verify/verify-content.ts";
import { notePacks } from "./damaged-packs.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { readTreeOf, treesOf } from "./free-content.ts";

interface DropCall extends LostRequest {
  /** for others that use the store */
  waitMs: number;
}

/** Takes packs that are missing or cut, or that are found damaged, out of the store's index, with what can be read of them kept. Returns how many. */
export async function dropLostPacks(store: EmbeddedStore, options: DropCall): Promise<number> {
  if (options.reads === true) return dropDamagedPacks(store, options);
  const { repository, storage } = store;
  await store.refresh();
  const lost = lostPacks(store.index, await storage.list("data")).length;
  if (lost === 0) return 0;
  const { waitMs, signal } = options;
  const call = { waitMs, ...(signal === undefined ? {} : { signal }) };
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
  const { damagedPacks: found } = await verifyContent({
    keys: repository.keys,
    index: await BlobIndex.load(repository, null),
    packs: `${paths.repository}/data`,
    points: [],
    allPacks: true,
    ...call,
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  const repair = { ...call, damagedPacks: new Set(found), waitMs };
  await runIndexRepair(repository, await planIndexRepair(repository, repair), repair);
  notePacks(paths, [], true);
  // Written by the old index: what it says is not so any more.
  fs.rmSync(paths.indexCache, { force: true });
  await store.refresh();
  return found.length;
}

/** Whether the index lists all that a point's trees need. Packs are not read for it, but for trees. */
export async function holdsContent(
  store: EmbeddedStore,
  content: PointContent,
  { signal }: StoppableCall,
): Promise<boolean> {
  const live = new LiveSet(store.index);
  await live.mark(treesOf(content), readTreeOf(store), signal === undefined ? {} : { signal });
  return live.complete;
}
