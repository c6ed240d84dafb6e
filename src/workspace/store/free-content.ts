import { plural } from "../../formats/sizes.ts";
import { LiveSet, requireComplete } from "../../repository/trees/live.ts";
import { whileReading } from "../../repository/locks.ts";
import { removeSnapshots, runSweep, type SweepResult } from "../../repository/care/remove.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import type { Freed, FreeRequest, HeldGroup, KeptContent, LeftContent, PointContent, StoppableCall } from "./engine.ts";
import type { EmbeddedStore } from "./embedded-store.ts";

/** Counts what share of the store points hold, and gives it back. */

const TAG = "cairn:";
/** Share of waste in a pack above which copying the rest is worth it. */
const MAX_WASTE = 0.05;
/** Share of the free room that is spent on copies before what they replace goes. */
const COPY_SHARE = 0.5;
/** Most steps in which room is made: each follows every tree. */
const MAX_ROUNDS = 8;
const DAMAGED_HINT =
  "nothing was removed; `cairn doctor --repair` mends what can be, and points that stay damaged (`cairn verify --all` names them) go all at once: `cairn cleanup --only POINT…`";

/** The roots of what a point needs. */
export function treesOf(content: PointContent): Uint8Array[] {
  const { snapshot_tree: top } = content as PointContent & { snapshot_tree?: string };
  return [...(top === undefined ? [] : [Buffer.from(top, "hex")]), Buffer.from(content.tree, "hex")];
}

/** Bytes after each group, what belongs to none of them counted first. Its trees must be whole: `damaged`; of a group what is there counts. */
export async function heldBytes(
  store: EmbeddedStore,
  groups: readonly HeldGroup[],
  { others, signal }: { others: KeptContent } & StoppableCall,
): Promise<number[]> {
  const stop = signal === undefined ? {} : { signal };
  return whileReading(store.repository, { waitMs: 10_000, ...stop }, async () => {
    await store.refresh(signal);
    const live = new LiveSet(store.index);
    const { viewTree: readTree } = store.blobs;
    const asked = new Set(groups.flat().map(({ id }) => `${TAG}${id}`));
    await live.mark(
      [
        ...(await snapshotTrees(store, { without: asked, unreadable: others.unreadable, ...stop })),
        ...others.contents.flatMap(treesOf),
      ],
      readTree,
      stop,
    );
    // What a group lacks goes with it, or is kept and looked at again when the others are known that do go.
    requireComplete(live, { hint: DAMAGED_HINT, mayLackData: true });
    const bytes = [live.bytes];
    for (const group of groups) {
      await live.mark(
        group.flatMap(({ content }) => treesOf(content)),
        readTree,
        stop,
      );
      bytes.push(live.bytes);
    }
    return bytes;
  });
}

/** The trees of all snapshots but those of some points. Throws `damaged` for one that cannot be read: what it needs is unknown. */
async function snapshotTrees(
  store: EmbeddedStore,
  ask: { without: ReadonlySet<string>; unreadable: KeptContent["unreadable"]; signal?: AbortSignal },
): Promise<Uint8Array[]> {
  const { snapshots, damaged } = await store.repository.listSnapshots(ask.signal);
  const [first] = damaged;
  if (first !== undefined)
    throw new CairnError("damaged", `snapshot ${first.name.slice(0, 8)} cannot be read, so what it needs is unknown`, {
      hint: "run `cairn doctor --repair` first",
    });
  requireMarks(ask.unreadable, new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? [])));
  return snapshots
    .filter(({ snapshot }) => snapshot.tags?.some((tag) => ask.without.has(tag)) !== true)
    .map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
}

/** A point whose descriptor is damaged is kept by its snapshot; without one nobody knows what it holds. */
function requireMarks(unreadable: KeptContent["unreadable"], tags: ReadonlySet<string>): void {
  const lost = unreadable.filter((id) => id === null || !tags.has(`${TAG}${id}`));
  if (lost.length === 0) return;
  throw new CairnError(
    "damaged",
    `${plural(lost.length, "save point")} cannot be read, so what they need is unknown: ${lost.map((id) => id?.slice(0, 8) ?? "?").join(", ")}`,
    {
      hint: "nothing was removed; run cairn doctor --repair first",
    },
  );
}

/** Removes the snapshots of points that were never completed, or those beside a point's own; their blobs go with the next clean-up. */
export async function discardSnapshots(
  { repository, storage }: EmbeddedStore,
  pointIds: readonly string[],
  own: string | null,
): Promise<void> {
  const tags = new Set(pointIds.map((id) => `${TAG}${id}`));
  const { snapshots } = await repository.listSnapshots();
  const marked = snapshots.filter(({ snapshot }) => snapshot.tags?.some((tag) => tags.has(tag)) === true);
  // Where it is lost, another may stand for it.
  if (own !== null && !marked.some(({ id }) => id === own)) return;
  for (const { id } of marked) if (id !== own) await storage.remove("snapshots", id);
}

/** Snapshots first, then everything that nothing needs any more. */
export async function freeContent(store: EmbeddedStore, request: FreeRequest): Promise<Freed> {
  const { repository, paths } = store;
  const { signal, waitMs } = request;
  const stop = signal === undefined ? {} : { signal };
  const tags = new Set(request.pointIds.map((id) => `${TAG}${id}`));
  const { snapshots } = await repository.listSnapshots(signal);
  requireMarks(request.kept().unreadable, new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? [])));
  const gone = snapshots
    .filter(({ snapshot }) => snapshot.tags?.some((tag) => tags.has(tag)) === true)
    .map(({ id }) => id);
  try {
    if (gone.length > 0) await removeSnapshots(repository, gone, { waitMs, ...stop });
    failpoint("free.snapshots-removed");
    const sweep = {
      cachePath: paths.indexCache,
      maxWaste: request.thorough ? 0 : MAX_WASTE,
      roomForCopies: () => roomForCopies(paths.repository),
      roots: async () => request.kept().contents.flatMap(treesOf),
      onElsewhere: store.onElsewhere,
      hint: "nothing was freed; `cairn doctor --repair` mends what can be",
      mayLackData: true,
      waitMs,
      ...stop,
    };
    const lost = new Set<string>();
    let bytesFreed = 0;
    let done: SweepResult;
    for (let round = 1; ; round++) {
      done = await runSweep(repository, sweep);
      if (done.index === null) await store.refresh(signal);
      else store.index = done.index;
      bytesFreed += done.bytesFreed;
      for (const name of [...done.lacking, ...done.damagedPacks]) lost.add(name);
      const isBetter = done.removedPacks + done.repackedPacks + done.removedUnindexed > 0;
      if (done.postponed || done.crowded === null || !isBetter || round >= MAX_ROUNDS) break;
      failpoint("free.round-swept");
    }
    failpoint("free.swept");
    const { postponed } = done;
    const left = postponed ? null : leftBy(done, request);
    return { bytesFreed: Math.max(0, bytesFreed), postponed, left, lost: [...lost] };
  } catch (error) {
    const refreshing = store.refresh(signal);
    if (error instanceof CairnError && error.code === "busy") {
      await refreshing;
      return { bytesFreed: 0, postponed: true, left: null, lost: [] };
    }
    // What failed first is told: the index may not be had for the same reason.
    await refreshing.catch(() => undefined);
    throw error;
  }
}

/** A file system that says nothing of its size says nothing of its room. */
function roomForCopies(repository: string): number {
  const { freeBytes, totalBytes } = freeSpace(repository);
  return totalBytes === 0 ? Number.POSITIVE_INFINITY : freeBytes * COPY_SHARE;
}

function leftBy({ unusedBytes, crowded, damagedPacks }: SweepResult, { thorough }: FreeRequest): LeftContent | null {
  if (crowded !== null && (!thorough || crowded.unusedBytes === unusedBytes))
    return { bytes: crowded.unusedBytes, needsRoom: Math.ceil(crowded.copyBytes / COPY_SHARE) };
  if (!thorough || (unusedBytes === 0 && damagedPacks.length === 0)) return null;
  return { bytes: unusedBytes, needsRoom: null };
}
