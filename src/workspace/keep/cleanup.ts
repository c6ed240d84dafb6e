import { type Freed, freeContent } from "../store/free-content.ts";
import { throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { CleanupFile, PlannedDrop } from "../../formats/records/cleanup.ts";
import { formatBytes, plural } from "../../formats/sizes.ts";
import { durableRemove } from "../../fs/durable.ts";
import type { SavePointId } from "../../ids.ts";
import { keptContent, presentIds, protectionsOf, whyNeverRemoved } from "./cleanup-plan.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { needingTrees, removeHeldTrees } from "../points/held-trees.ts";
import { roomAt } from "../place/room.ts";
import { makingRoom } from "../open/temporaries.ts";
import { lookForRest, publicHeld, warnOfRest } from "./still-held.ts";
import { notesIn, noteUnfreed } from "./unfreed.ts";
import type { CleanupResult } from "../../contract/looking.ts";
import { journaled } from "../open/unfinished-work.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

export { noteUnfreed };

/** Removes points, and frees content in the store that only they held. */

export interface Cleaned {
  removed: SavePointId[];
  bytesFreed: number;
  /** False: some content of removed points, of this or an earlier removal, is still in the store. */
  complete: boolean;
  /** Other holders of content of points that were asked for by name; null after a cleanup by rules. */
  stillHeld: CleanupResult["still_held"];
}

export interface CleanupCall extends WorkspaceCall {
  /** Reads the trees of points, by their sequence numbers, into the store, as `sealPoints` does. */
  seal(workspace: Workspace, call: WorkspaceCall, sequences: Iterable<number>): Promise<unknown>;
}

const WAIT_MS = 10_000;

/**
 * Removes exactly the points of a plan. The caller holds the workspace's lock, and planned under it: the plan has read
 * all content that stays. An abort while space is freed leaves the journal, as a kill does; the points are gone.
 * - Before: points that stay are sealed if their trees lie with points that go.
 * - Intent and commit: the journal, one durable write ●; after it the next holder of the lock finishes the removal.
 * - Then the descriptors, the snapshots and unneeded content are removed. Content that has to stay is noted
 * ({@link freeRemoved}) before the journal is removed.
 */
export async function runPlan(
  workspace: Workspace,
  plan: CleanupFile,
  { seal, ...call }: CleanupCall,
): Promise<Cleaned> {
  throwIfAborted(call.signal);
  const drop = await sealSharers(workspace, plan.drop, { seal, ...call });
  const held = plan.thorough ? await lookForRest(workspace, drop, call) : null;
  const journal: CleanupFile = { ...plan, drop: [...drop] };
  failpoint("cleanup.checked");
  const { control } = workspace.found;
  const record = workspace.unfinished("cleanup");
  // A process that took over the lock may have pinned such a point, or made it head.
  workspace.requireLock();
  await makingRoom(control, () => record.begin(journal));
  failpoint("cleanup.committed");
  // If another process has taken over the lock since, it has already finished this removal.
  const { removed, allGone } = await makingRoom(control, async () => removePoints(workspace, journal.drop, call));
  const { thorough } = journal;
  const freed = await makingRoom(control, async () =>
    freeRemoved(workspace, { removed, thorough, waitMs: WAIT_MS, signal: call.signal }),
  );
  failpoint("cleanup.freed");
  workspace.requireLock();
  record.end();
  warnOfFreed(control, freed, call);
  if (held !== null) warnOfRest(workspace, held, call);
  const isAllGone = allGone && drop.length === plan.drop.length;
  return {
    removed,
    bytesFreed: freed.bytesFreed,
    complete: freed.complete && (isAllGone || !thorough),
    stillHeld: held === null ? null : publicHeld(held),
  };
}

/**
 * Returns the points of a plan that can be removed. First seals points that stay and share their trees. A point whose
 * tree is still needed stays too, with a warning.
 */
async function sealSharers(
  workspace: Workspace,
  drop: readonly PlannedDrop[],
  { seal, ...call }: CleanupCall,
): Promise<readonly PlannedDrop[]> {
  const sharers = [...needingTrees(workspace.points, sequencesOf(drop)).keys()];
  if (sharers.length === 0) return drop;
  await seal(workspace, call, sharers);
  const going = withoutNeeded(workspace, drop);
  if (going.length < drop.length)
    call.onWarning?.(
      `${plural(drop.length - going.length, "point")} cannot be removed yet: their clones hold the only copy of content of another point, which stays and cannot be sealed completely; \`cairn seal\` says why`,
    );
  return going;
}

function withoutNeeded({ points }: Workspace, drop: readonly PlannedDrop[]): readonly PlannedDrop[] {
  const needed = [...needingTrees(points, sequencesOf(drop)).values()];
  return needed.includes(null) ? [] : drop.filter(({ sequence }) => !needed.includes(sequence));
}

/** Removes trees and descriptors. Returns the ids of the removed points, and whether all their trees are gone. */
async function removePoints(
  workspace: Workspace,
  drop: readonly PlannedDrop[],
  call: WorkspaceCall,
): Promise<{ removed: SavePointId[]; allGone: boolean }> {
  const { points, found } = workspace;
  call.onProgress?.({ phase: "cleaning", done: 0, total: drop.length });
  const gone = new Set(drop.map(({ id }) => id));
  const allGone = await removeHeldTrees(points, sequencesOf(drop), {
    control: found.control,
    onWarning: call.onWarning,
  });
  failpoint("cleanup.trees-removed");
  points.removeAll(sequencesOf(drop));
  failpoint("cleanup.points-removed");
  call.onProgress?.({ phase: "cleaning", done: drop.length, total: drop.length });
  return { removed: [...gone], allGone };
}

function sequencesOf(drop: readonly PlannedDrop[]): number[] {
  return drop.map(({ sequence }) => sequence);
}

/** Returns the points of a removal that still may be removed. A point that is needed by now stays. */
function stillUnneeded(workspace: Workspace, { drop, forced }: CleanupFile): readonly PlannedDrop[] {
  const others = new Set<number>();
  const present = drop.flatMap(({ sequence, id }) => {
    try {
      // Null: the point is gone already, or damaged, which does not make it needed.
      const point = workspace.points.readOrNull(sequence);
      if (point?.descriptor.save_point_id === id) return [point];
      if (point !== null) others.add(sequence);
    } catch {
      // An unreadable record may be of another point.
      others.add(sequence);
    }
    return [];
  });
  const protections = protectionsOf(workspace, present);
  const unneeded = drop.filter(
    ({ id, sequence }) => !others.has(sequence) && whyNeverRemoved(protections.get(id), forced) === undefined,
  );
  return withoutNeeded(workspace, unneeded);
}

export const CLEANUP = journaled({
  kind: "cleanup",
  operation: "cleanup",
  where: "`journal/cleanup.json`",
  steps: [
    "points that stay are sealed if their trees lie with points that go",
    "● the record: the points to remove",
    "trees, descriptors and snapshots are removed",
    "unneeded content is freed; content that has to stay is noted in `unfreed/`",
  ],
  before: null,
  after: "removes the points, except points that are needed by now, and frees their content",
  changesFolder: false,
  unreadable: () => "some of the points to remove may still be there; all points that `cairn history` lists are whole",
  async finish(workspace, journal, call) {
    const { thorough } = journal;
    workspace.points.removeMovedAway();
    const { removed } = await removePoints(workspace, stillUnneeded(workspace, journal), call);
    workspace.points.refresh();
    const problem = await freeIfPossible(workspace, { removed, thorough, signal: call.signal });
    workspace.unfinished("cleanup").end();
    return {
      detail: `a cleanup of ${plural(removed.length, "point")} was interrupted and has been finished${problem}`,
    };
  },
});

/** Frees space if possible. A damaged or busy store must not prevent saves: a later cleanup frees its space. */
export async function freeIfPossible(
  workspace: Workspace,
  request: Pick<FreeRemoved, "removed" | "thorough" | "signal">,
): Promise<string> {
  const { control } = workspace.found;
  const { removed, thorough } = request;
  try {
    const freed = await freeRemoved(workspace, { ...request, waitMs: 0 });
    failpoint("cleanup.freed");
    const why = whyUnfreed(control, freed);
    return why === null ? "" : `; ${why}`;
  } catch (error) {
    const { code, message } = toCairnError(error);
    if (code === "interrupted") throw error;
    await makingRoom(control, () => noteUnfreed(control, { points: [...removed], thorough }));
    failpoint("cleanup.noted");
    return `; the space could not be freed: ${message}; to try again: cairn cleanup`;
  }
}

export interface FreeRemoved {
  removed: readonly SavePointId[];
  /** None of the content may be left in a pack. */
  thorough: boolean;
  waitMs: number;
  signal: AbortSignal | undefined;
}

export interface FreedRemoved extends Freed {
  /** False: some content of removed points is still in the store, which is noted. */
  complete: boolean;
}

/**
 * Frees content that only removed points held, and leftovers of earlier removals. The caller remembers the removed
 * points until this returns, and calls again after a kill. Content that must stay is noted first; the notes are deleted
 * after all is freed.
 */
export async function freeRemoved(
  { found, engine }: Workspace,
  request: FreeRemoved,
  free = freeContent,
): Promise<FreedRemoved> {
  const { control } = found;
  const { removed, waitMs, signal } = request;
  const notes = notesIn(control);
  const noted = new Set(notes.flatMap(({ content }) => content.points));
  const present = noted.size === 0 ? noted : presentIds(control);
  const thorough = request.thorough || notes.some(({ content }) => content.thorough);
  const freed = await free(await engine.store({ signal }), {
    pointIds: [...new Set([...removed, ...noted])].filter((id) => !present.has(id)),
    kept: () => keptContent(control, new Set()),
    thorough,
    waitMs,
    signal,
  });
  const isDone = !freed.postponed && freed.left === null;
  if (isDone) {
    for (const { file } of notes) {
      durableRemove(file);
      failpoint("unfreed.note-removed");
    }
  } else {
    // If another process used the store, the snapshots of the points may be left too.
    const points = freed.postponed ? removed.filter((id) => !noted.has(id)) : [];
    const isNoted = notes.length > 0 && (!request.thorough || notes.some(({ content }) => content.thorough));
    if (points.length > 0 || !isNoted) noteUnfreed(control, { points, thorough: request.thorough });
    failpoint("unfreed.noted");
  }
  return { ...freed, complete: isDone || !thorough };
}

/** Tells why content of removed points is still in the store, and the remedy; null if none is. */
function whyUnfreed(control: ControlPaths, freed: FreedRemoved): string | null {
  const { postponed, left, complete } = freed;
  const still = "content of removed points is still in the store";
  if (postponed)
    return complete
      ? "another process was using the store: the next cleanup frees the space"
      : `${still}, because another process was using the store; to free the space: cairn cleanup`;
  if (left === null) return null;
  const { bytes, needsRoom } = left;
  if (needsRoom === null)
    return `content of removed points may still be in the store, in packs that could not be rewritten or removed: \`cairn verify --all\` names the damage, \`cairn doctor --repair\` repairs what it can; then: cairn cleanup`;
  const what = complete ? `the store still has ${formatBytes(bytes)} of unused data` : still;
  const { freeBytes } = roomAt(control.store);
  const room =
    needsRoom > freeBytes
      ? `, because rewriting its packs needs ${formatBytes(needsRoom)}, and only ${formatBytes(freeBytes)} are free; free some space on the same file system, then`
      : "; there is enough free space to go on now";
  return `${what}${room}: cairn cleanup`;
}

/** Warns of content that a removal had to leave in the store, and of content that remaining points have lost. */
export function warnOfFreed(
  control: ControlPaths,
  freed: FreedRemoved,
  { onWarning }: Pick<WorkspaceCall, "onWarning">,
): void {
  const [first] = freed.lost;
  const pieces = `${freed.lost.length} blobs (the first: ${first?.slice(0, 8)})`;
  if (first !== undefined)
    onWarning?.(
      `the store has lost ${freed.lost.length === 1 ? `a blob (${first.slice(0, 8)})` : pieces} of remaining save points: \`cairn verify --all\` names the points and files, \`cairn doctor --repair\` repairs what it can`,
    );
  const why = whyUnfreed(control, freed);
  if (why !== null) onWarning?.(why);
}
