import { removeSnapshots, runSweep, type SweepResult } from "../../repository/care/remove.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { treesOf } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { type KeptContent, requireMarks } from "./held-bytes.ts";

const TAG = "cairn:";
/** Share of waste in a pack above which copying the rest is worth it. */
const MAX_WASTE = 0.05;
/** Share of the free room that is spent on copies before what they replace goes. */
const COPY_SHARE = 0.5;
/** Most steps in which room is made: each follows every tree. */
const MAX_ROUNDS = 8;
export interface FreeRequest {
  /** ids of the points that are gone */
  pointIds: readonly string[];
  /** what every other point of the control directory holds; asked again before anything is deleted */
  kept(): KeptContent;
  /** leave nothing of it behind, whatever has to be copied for that */
  thorough: boolean;
  /** how long to wait for others that use the store */
  waitMs: number;
  signal?: AbortSignal | undefined;
}

/** Content that nothing needs any more, in packs with what is needed. */
export interface LeftContent {
  bytes: number;
  /** the room that was wanted for writing the packs anew, and is not there; null where they cannot be written for another reason */
  needsRoom: number | null;
}

export interface Freed {
  bytesFreed: number;
  /** others used the store: the next time gives the space back */
  postponed: boolean;
  /** what was to go and is still there; null where nothing of it is */
  left: LeftContent | null;
  /** names of content (blobs, and packs that hold it) that kept points need and that is lost, as far as it was met */
  lost: string[];
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
      hint: advice`run ${call("doctor --repair", "doctor", { repair: true })}, which repairs what it can: nothing was freed`,
      mayLackData: true,
      mayBeEmpty: true,
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
