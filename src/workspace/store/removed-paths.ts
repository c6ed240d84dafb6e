import { placedIn } from "../../archive/databases/point-view.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { isAmong } from "../../fs/path-selection.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { ObjectId } from "../../ids.ts";
import { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { type TakenEntries, TreeMender } from "../../repository/trees/tree-mender.ts";
import type { ListTree } from "../../repository/trees/walk-trees.ts";
import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { contentOf, type ContentWithout, type PointWithout, type StoredPoint } from "./content-without.ts";
import { addContent, EntryTotals, nodesAt } from "./survey-tree.ts";
import { storedTree } from "./store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { snapshotAgain } from "./point-remains.ts";
import type { PointStore } from "./point-store.ts";
import { readManifest } from "./snapshot-tree.ts";

/** Stores points again without some paths. */

interface Call {
  takes: TakenEntries;
  signal?: AbortSignal | undefined;
}

/**
 * Finds the entries that `takes` fits: raw paths by point id, without paths below another found path. Adds the ids
 * (latin1) of the blobs of these files to `content`. Writes nothing.
 */
export async function pathsInPoints(
  store: EmbeddedStore,
  points: readonly StoredPoint[],
  call: Call & { content: Set<string> },
): Promise<Map<string, readonly Uint8Array[]>> {
  const mender = menderOf(store, call, () => undefined);
  const found = new Map<string, readonly Uint8Array[]>();
  const read = new Set<string>();
  const list: ListTree = (tree) => store.tree(tree);
  for (const point of points) {
    const { removed, stored, gone } = await mended(store, mender, { point, ...call });
    if (removed.length > 0) found.set(point.id, removed);
    const nodes = await nodesAt(store.blobs, storedTree(point.content), stored);
    const pages = gone.flatMap(({ database }) => [...database.files.values()]);
    await addContent(list, [...nodes, ...pages], { content: call.content, read, signal: call.signal });
  }
  return found;
}

/**
 * Stores points without the entries that `takes` fits, each with a new snapshot. Returns the new content by point id,
 * only of points that had such an entry. Digests come from the new trees, which are read back. Former snapshots stay.
 */
export async function storeWithout(
  engine: PointStore,
  points: readonly StoredPoint[],
  call: Call,
): Promise<Map<string, ContentWithout>> {
  return engine.adding(
    call.signal,
    async (store, lock) => {
      const done = await treesWithout(store, points, { ...call, stillHeld: async () => lock.recheck() });
      failpoint("paths.trees-written");
      for (const { id, content: old } of points) {
        const content = done.get(id)?.content;
        if (content === undefined) continue;
        const snapshot = await snapshotOf(store, { id, content: old });
        content.snapshot = await store.repository.saveSnapshot({
          ...snapshot,
          tree: content.snapshot_tree as ObjectId,
        });
        failpoint("paths.snapshot-written");
      }
      return done;
    },
    { reads: true },
  );
}

/** The snapshot of a point; a new one if that snapshot is lost. */
async function snapshotOf(
  store: EmbeddedStore,
  { id, content }: Pick<StoredPoint, "id" | "content">,
): Promise<Snapshot> {
  try {
    return await store.repository.loadSnapshot(content.snapshot);
  } catch (error) {
    if (!["damaged", "not_found"].includes(toCairnError(error).code)) throw error;
    return snapshotAgain(store, { id, content });
  }
}

/** Stores trees and manifests. `stillHeld` throws if the lock of the store has ended. */
async function treesWithout(
  store: EmbeddedStore,
  points: readonly StoredPoint[],
  call: Call & { stillHeld: () => Promise<void> },
): Promise<Map<string, ContentWithout>> {
  const { repository, index } = store;
  const blobs = new PackedBlobs({ repository, index, directory: store.workDirectory, stillHeld: call.stillHeld });
  try {
    const mender = menderOf(store, call, (id, bytes) => blobs.addNew("tree", id, bytes));
    const changed: { point: StoredPoint; tree: PointWithout }[] = [];
    for (const point of points) {
      const tree = await mended(store, mender, { point, ...call });
      if (tree.removed.length > 0) changed.push({ point, tree });
      await blobs.settle();
    }
    await blobs.finish();
    const walk = new DigestWalk({ blobs: store.blobs, signal: call.signal });
    const totals = new EntryTotals((id) => store.tree(id), call.signal);
    const done = new Map<string, ContentWithout>();
    for (const { point, tree } of changed)
      done.set(
        point.id,
        await contentOf(store, { point, tree, totals, walk, add: (...blob) => blobs.addNew(...blob) }),
      );
    await blobs.finish();
    return done;
  } catch (error) {
    await blobs.abort();
    throw error;
  }
}

function menderOf(
  { index, blobs }: EmbeddedStore,
  { takes, signal }: Call,
  onTree: (id: Uint8Array, bytes: Uint8Array) => void,
): TreeMender {
  return new TreeMender({ index, readTree: blobs.readTree, onTree, takesOut: takes, signal });
}

const REPAIR = advice`run ${call("doctor --repair", "doctor", { repair: true })} first: it repairs what it can; nothing was removed`;

/** Throws `damaged` if the store lacks content of the point. */
async function mended(
  store: EmbeddedStore,
  mender: TreeMender,
  { point: { id, content }, takes }: { point: StoredPoint; takes: TakenEntries },
): Promise<PointWithout> {
  const inPoint = (error: unknown): never => {
    const { code, message } = toCairnError(error);
    throw code === "damaged"
      ? new CairnError(code, `the point ${id.slice(0, 8)}: ${message}`, { hint: REPAIR })
      : error;
  };
  const placed = await placedIn(store, content).catch(inPoint);
  const tree = await mender.mend(Buffer.from(storedTree(content), "hex")).catch(inPoint);
  const damaged = tree.lost.find(({ isTakenOut }) => isTakenOut !== true);
  if (damaged === undefined && tree.tree !== null) {
    const stored = tree.lost.map(({ path }) => path);
    const isBelow = isAmong(stored);
    const databases = placed?.below(placed.root) ?? [];
    const gone = databases.filter(({ path }) => isBelow(path) || takes.fits(latin1(path)));
    const own = gone.map(({ path }) => path).filter((path) => !isBelow(path));
    const kept = databases.filter((each) => !gone.includes(each));
    const removed = [...stored, ...own];
    // A point whose manifest is lost cannot be stored again, which must be known before the removal begins.
    const read = async (): Promise<Manifest | null> => readManifest(store, Buffer.from(content.snapshot_tree, "hex"));
    const manifest = removed.length === 0 ? null : await read().catch(inPoint);
    return { tree: tree.tree, manifest, removed, stored, kept, gone };
  }
  const where = damaged === undefined ? "its folder" : printablePath(damaged.path);
  throw new CairnError("damaged", `the point ${id.slice(0, 8)} is damaged: the store lacks content of ${where}`, {
    hint: REPAIR,
  });
}
