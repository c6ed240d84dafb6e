import { removeSnapshots, runSweep, type SweepResult } from "../../repository/care/remove.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { treesOf } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { type KeptContent, requireMarks } from "./held-bytes.ts";

const TAG = "cairn:";
/** A pack with a larger share of unused bytes is worth rewriting. */
const MAX_WASTE = 0.05;
/** Share of the free room that rewritten packs may use before the old packs are removed. */
const COPY_SHARE = 0.5;
/** Most sweeps of one call; each sweep follows every tree. */
const MAX_ROUNDS = 8;
export interface FreeRequest {
  /** ids of the points that are gone */
  pointIds: readonly string[];
  /** content that all other points of the control directory need; asked again before each deletion */
  kept(): KeptContent;
  /** leave no unneeded content behind, however much must be copied */
  thorough: boolean;
  /** how long to wait for other processes that use the store */
  waitMs: number;
  signal?: AbortSignal | undefined;
}

/** Unneeded content that stays, in packs with needed content. */
export interface LeftContent {
  bytes: number;
  /** bytes of room that rewriting the packs would need; null if they cannot be rewritten for another reason */
  needsRoom: number | null;
}

export interface Freed {
  bytesFreed: number;
  /** other processes used the store: the next cleanup frees the space */
  postponed: boolean;
  /** unneeded content that is still there; null if all is gone */
  left: LeftContent | null;
  /** names of lost blobs, and of packs that hold them, that kept points need, as far as the sweep met them */
  lost: string[];
}

/** Removes the points' snapshots, then all content that no point needs. */
export async function freeContent(store: EmbeddedStore, request: FreeRequest): Promise<Freed> {
  const { repository, paths } = store;
  const { signal, waitMs } = request;
  const tags = new Set(request.pointIds.map((id) => `${TAG}${id}`));
  const { snapshots } = await repository.listSnapshots(signal);
  requireMarks(request.kept().unreadable, new Set(snapshots.flatMap(({ snapshot }) => snapshot.tags ?? [])));
  const gone = snapshots
    .filter(({ snapshot }) => snapshot.tags?.some((tag) => tags.has(tag)) === true)
    .map(({ id }) => id);
  try {
    if (gone.length > 0) await removeSnapshots(repository, gone, { waitMs, signal });
    failpoint("free.snapshots-removed");
    const sweep = {
      cachePath: paths.indexCache,
      maxWaste: request.thorough ? 0 : MAX_WASTE,
      roomForCopies: () => roomForCopies(paths.repository),
      roots: async () => request.kept().contents.flatMap(treesOf),
      onDamagedPack: store.onDamagedPack,
      hint: advice`run ${call("doctor --repair", "doctor", { repair: true })}, which repairs what it can: nothing was freed`,
      mayLackData: true,
      mayBeEmpty: true,
      waitMs,
      signal,
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
    // Throw the first error: the refresh may fail for the same reason.
    await refreshing.catch(() => undefined);
    throw error;
  }
}

/** A size of 0 means that the file system tells no sizes: no limit. */
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
