import { join } from "node:path";
import { throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { plural } from "../formats/sizes.ts";
import { removeHeldTrees } from "./held-trees.ts";
import { handOverTrees } from "./shared-trees.ts";
import {
  type CleanupFile,
  type CleanupPlanFile,
  decodeCleanup,
  encodeCleanup,
  type PlannedDrop,
} from "../formats/cleanup.ts";
import type { Recovery } from "../formats/control.ts";
import { durableRemove, durableWrite } from "../fs/durable.ts";
import type { SavePointId } from "../ids.ts";
import { bytesOf, dropPlan, requireFresh } from "./cleanup-plan.ts";
import { writeState } from "./control-directory.ts";
import { isIntentPending } from "./intent-link.ts";
import { NEVER_REMOVED, protectionsOf } from "./protection.ts";
import { readRecord } from "./read-record.ts";
import { makingRoom } from "./temporaries.ts";
import { type FreedRemoved, freeRemoved, type FreeRemoved, noteUnfreed, whyUnfreed } from "./unfreed.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

export interface Cleaned {
  removed: SavePointId[];
  bytesFreed: number;
  /** False: what had to go, now or before, is not all out of the store. */
  complete: boolean;
}

/** Its name in the journal directory. */
export const CLEANUP_JOURNAL = "cleanup.json";
const WAIT_MS = 10_000;
const MAX_JOURNAL_BYTES = 256 << 20;

function journalPath({ found: { paths } }: Workspace): string {
  return join(paths.journal, CLEANUP_JOURNAL);
}

/**
 * Removes exactly what a plan lists. For the holder of the workspace's lock.
 *
 * Before: points that stay get trees of their own, where theirs lie with points that go.
 * Intent and commit: the journal, one durable write; before it nothing is removed, after it the removal is finished
 * by whoever holds the lock next. Then the descriptors go, then the snapshots, then what nothing needs any more; what of
 * that has to be left for now is noted (`freeRemoved`), before the journal goes.
 * Aborted while that is freed, the points are gone and the journal stays, as after a kill.
 */
export async function runPlan(workspace: Workspace, plan: CleanupPlanFile, call: WorkspaceCall): Promise<Cleaned> {
  // Asked before anything is removed: what cannot be read may be what is needed.
  await bytesOf(workspace, requireFresh(workspace, plan), call);
  const journal: CleanupFile = {
    plan_id: plan.plan_id,
    drop: plan.drop,
    thorough: plan.rules === null,
  };
  throwIfAborted(call.signal);
  const { problem } = await handOverTrees(workspace.points, sequencesOf(plan.drop), call.onWarning);
  if (problem !== null) throw problem;
  failpoint("cleanup.checked");
  const { control } = workspace.found;
  // Whoever has taken over may have pinned what is to go, or stand at it.
  workspace.requireLock();
  await makingRoom(control, () => durableWrite(journalPath(workspace), encodeCleanup(journal)));
  failpoint("cleanup.committed");
  dropPlan(control, plan.plan_id);
  failpoint("cleanup.plan-dropped");
  // The plan was found fresh under the lock that was held then: who has taken over since has finished this.
  const { removed, allGone } = await makingRoom(control, async () => removePoints(workspace, journal.drop, call));
  const freed = await makingRoom(control, async () =>
    free(workspace, { removed, journal, waitMs: WAIT_MS, signal: call.signal }),
  );
  workspace.requireLock();
  durableRemove(journalPath(workspace));
  warnOfLost(freed.lost, call);
  const why = whyUnfreed(control, freed);
  if (why !== null) call.onWarning?.(why);
  return { removed, bytesFreed: freed.bytesFreed, complete: freed.complete && (allGone || !journal.thorough) };
}

/** It keeps no other point from going, so nothing else in what removes points tells of it. */
export function warnOfLost(lost: readonly string[], { onWarning }: Pick<WorkspaceCall, "onWarning">): void {
  const [first] = lost;
  if (first === undefined) return;
  const what =
    lost.length === 1
      ? `content (${first.slice(0, 8)})`
      : `${lost.length} pieces of content (the first: ${first.slice(0, 8)})`;
  onWarning?.(
    `the store has lost ${what} of save points that stay: \`cairn verify --all\` names them and their files, \`cairn doctor --repair\` mends what can be mended`,
  );
}

/** The descriptors. Returns the ids of those that are gone now, and whether their trees are. */
async function removePoints(
  workspace: Workspace,
  drop: readonly PlannedDrop[],
  call: WorkspaceCall,
): Promise<{ removed: SavePointId[]; allGone: boolean }> {
  const { points, found } = workspace;
  call.onProgress?.({ phase: "cleaning", done: 0, total: drop.length });
  const gone = new Set(drop.map(({ id }) => id));
  const state = workspace.state();
  // A point that was asked for by name may be the one that undo would go back to.
  if (state.last_restore !== null && gone.has(state.last_restore.undo_id))
    writeState(found.paths, { ...state, last_restore: null });
  failpoint("cleanup.state-written");
  const { temporary } = found.control;
  const allGone = await removeHeldTrees(points, sequencesOf(drop), { temporary, onWarning: call.onWarning });
  failpoint("cleanup.trees-removed");
  points.removeAll(sequencesOf(drop));
  failpoint("cleanup.points-removed");
  call.onProgress?.({ phase: "cleaning", done: drop.length, total: drop.length });
  return { removed: [...gone], allGone };
}

function sequencesOf(drop: readonly PlannedDrop[]): number[] {
  return drop.map(({ sequence }) => sequence);
}

async function free(
  workspace: Workspace,
  more: { journal: CleanupFile } & Omit<FreeRemoved, "thorough">,
): Promise<FreedRemoved> {
  const { journal, ...request } = more;
  const freed = await freeRemoved(workspace, { ...request, thorough: journal.thorough });
  failpoint("cleanup.freed");
  return freed;
}

/** After a kill: what still can go. A point may stay that was to go with the one that its tree lies with. */
async function stillToGo(
  workspace: Workspace,
  { drop }: CleanupFile,
  { onWarning }: WorkspaceCall,
): Promise<PlannedDrop[]> {
  const unneeded = stillUnneeded(workspace, drop);
  const { stay } = await handOverTrees(workspace.points, sequencesOf(unneeded), onWarning);
  return unneeded.filter(({ sequence }) => !stay.has(sequence));
}

/** Somebody may have come to need one: it stays. */
function stillUnneeded(workspace: Workspace, drop: readonly PlannedDrop[]): PlannedDrop[] {
  const others = new Set<number>();
  const present = drop.flatMap(({ sequence, id }) => {
    try {
      // Gone already, or damaged since, which does not make it needed.
      const point = workspace.points.readOrNull(sequence);
      if (point?.descriptor.save_point_id === id) return [point];
      if (point !== null) others.add(sequence);
    } catch {
      // Nobody can tell for now.
      others.add(sequence);
    }
    return [];
  });
  const protections = protectionsOf(workspace, present);
  return drop.filter(
    ({ id, sequence }) =>
      !others.has(sequence) && protections.get(id)?.some((reason) => NEVER_REMOVED.includes(reason)) !== true,
  );
}

/** Finishes a removal that was interrupted. For the holder of the workspace's lock. */
export async function recoverCleanup(workspace: Workspace, call: WorkspaceCall): Promise<Recovery[]> {
  const journal = readCleanupJournal(workspace.found.paths.journal);
  if (journal === null) return [];
  call.onProgress?.({ phase: "recovering", done: 0 });
  workspace.points.removeMovedAway();
  const { removed } = await removePoints(workspace, await stillToGo(workspace, journal, call), call);
  workspace.points.refresh();
  const problem = await freeIfPossible(workspace, { removed, journal, signal: call.signal });
  durableRemove(journalPath(workspace));
  return [
    {
      operation: "cleanup",
      outcome: "completed",
      detail: `a cleanup of ${plural(removed.length, "point")} was interrupted and has been finished${problem}`,
      kept: [],
    },
  ];
}

/** A store that is damaged or in use must not keep anybody from saving: its space is freed by a later cleanup. */
async function freeIfPossible(workspace: Workspace, more: Omit<Parameters<typeof free>[1], "waitMs">): Promise<string> {
  const { control } = workspace.found;
  try {
    const why = whyUnfreed(control, await free(workspace, { ...more, waitMs: 0 }));
    return why === null ? "" : `; ${why}`;
  } catch (error) {
    if (toCairnError(error).code === "interrupted") throw error;
    const { removed, journal } = more;
    await makingRoom(control, () => noteUnfreed(control, { points: [...removed], thorough: journal.thorough }));
    failpoint("cleanup.noted");
    return `; the space could not be given back: ${toCairnError(error).message}; the next cleanup tries again: cairn cleanup`;
  }
}

/** True when a removal was interrupted; cheap. */
export function isCleanupPending(journal: string): boolean {
  return isIntentPending(journal, CLEANUP_JOURNAL);
}

/** Null where no removal is under way. Throws `damaged`, `newer_version`. */
export function readCleanupJournal(journal: string): CleanupFile | null {
  const hint = "run `cairn doctor --repair`";
  return readRecord(join(journal, CLEANUP_JOURNAL), decodeCleanup, { maxBytes: MAX_JOURNAL_BYTES, hint });
}
