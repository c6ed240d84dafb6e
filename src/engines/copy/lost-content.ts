import { LiveSet } from "../../repository/live.ts";
import { lostPacks } from "../../repository/near-packs.ts";
import { planIndexRepair, runIndexRepair } from "../../repository/repair.ts";
import type { PointContent, StoppableCall } from "../engine.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { readTreeOf, treesOf } from "./free-content.ts";

/** Takes packs that are missing or cut out of the store's index, with what can be read of them kept. Returns how many. */
export async function dropLostPacks(
  store: EmbeddedStore,
  options: StoppableCall & { waitMs: number },
): Promise<number> {
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
