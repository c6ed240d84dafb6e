import { advice, CairnError, call, type Hint, reworded, see, toCairnError, word } from "../errors.ts";
import type { SavePointId } from "../ids.ts";
import { withOperation } from "../formats/records/control.ts";
import { rawPath } from "../formats/records/record.ts";
import { formatBytes } from "../formats/sizes.ts";
import { displayPath } from "../fs/paths/safe-path.ts";
import { planCleanup } from "../workspace/keep/cleanup-plan.ts";
import { needsRecovery, recoverWorkspace } from "../workspace/open/recovery.ts";
import { recoverIfIdle } from "../workspace/save/look.ts";
import { restoreLocked } from "../workspace/restore/methods.ts";
import { makingRoom } from "../workspace/open/temporaries.ts";
import { notePartly, writeState } from "../workspace/place/control-directory.ts";
import { isReverting, operationLog, type Revertible } from "../workspace/points/operation-log.ts";
import { isSibling } from "../workspace/points/point-files.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { takeOverPoint } from "../workspace/save/receive.ts";
import { withSealed } from "../workspace/save/seal.ts";
import type { CallOptions, OperationList, RestoreOptions, RestoreResult, UndoOptions } from "../contract/index.ts";
import { withOutside } from "../workspace/save/outside.ts";
import { changeOf, operationToRevert, planTo, requirePlanOfAll } from "./restore-plan.ts";

const NOTHING = { created: 0, updated: 0, deleted: 0, metadata: 0 };

/** Saves the present, then makes the folder equal to a point. */
export async function restore(workspace: Workspace, options: RestoreOptions): Promise<RestoreResult> {
  await requireStored(workspace, options.target, options);
  return goingBack(workspace, options, "restore", async () => ({
    ...(await ownPoint(workspace, options.target)),
    change: changeOf(options),
    kind: "restore",
  }));
}

/** Brings the content of `target` into the store: seals another workspace's point, or receives a foreign one. */
async function requireStored(workspace: Workspace, target: string, call: CallOptions): Promise<void> {
  await withOutside(workspace, call, async () => withSealed(workspace, call, async () => workspace.resolve(target)));
}

/** Returns a point of this workspace; takes over a point of another one. The caller holds the workspace's lock. */
async function ownPoint(workspace: Workspace, target: string): Promise<Pick<Wanted, "target" | "origin">> {
  const point = workspace.resolve(target);
  if (!isSibling(point)) return { target: point };
  return { target: await takeOverPoint(workspace, point), origin: point.descriptor.save_point_id };
}

export type Wanted = Pick<Parameters<typeof restoreLocked>[2], "target" | "origin" | "kind" | "change"> & {
  /** true for a restore at a program's start: no operation is recorded if nothing changes */
  isStart?: true;
  /** undo and redo: the operation that is reverted */
  operation?: RestoreResult["operation"];
  /** true: an undo or redo before it reverted the operation in part */
  isUnfinished?: boolean;
  /** true: one of several, which counts as reverted even if all its entries stay */
  isOfSeveral?: boolean;
};

/**
 * Takes the lock, recovers, and restores to the result of `wanted` (null: nothing). If the disk is full, the error
 * names the needed space.
 */
export async function goingBack(
  workspace: Workspace,
  options: Omit<RestoreOptions, "target" | "paths" | "keepPresent" | "keepGit">,
  purpose: "restore" | "undo",
  wanted: () => Wanted | RestoreResult | null | Promise<Wanted | RestoreResult | null>,
): Promise<RestoreResult> {
  const started = performance.now();
  let chosen: Wanted | null = null;
  const go = async (): Promise<RestoreResult> => {
    using _lock = await workspace.lock(purpose, options);
    await recoverWorkspace(workspace, options);
    const { head } = workspace.state();
    const madeFrom = workspace.points.nextSequence();
    const asked = await wanted();
    if (asked === null) return { ...UNCHANGED, duration_ms: Math.round(performance.now() - started) };
    if ("method" in asked) return asked;
    chosen = asked;
    const { operation, isStart, isUnfinished, isOfSeveral = false, ...what } = asked;
    const restored = await restoreLocked(workspace, started, { ...options, ...what, madeFrom });
    if (restored.undo_id === null) {
      if ((isOfSeveral || restored.left_out.length === 0) && isStart !== true && isUnfinished !== true)
        noteUnchanged(workspace, asked, head);
    } else if (isReverting(asked.kind) && restored.left_out.some(({ reason }) => reason === "changed_since")) {
      workspace.requireLock();
      notePartly(workspace.found.paths, workspace.state());
    }
    return { ...restored, ...(operation && { operation }) };
  };
  try {
    // A clone takes little more than records. An entry-by-entry restore would use up the space that a cleanup needs.
    return workspace.engine.holder === null ? await go() : await makingRoom(workspace.found.control, go);
  } catch (error) {
    const failed = toCairnError(error);
    // The error of a restore that had begun to change the folder has its own hint.
    if (chosen === null || failed.code !== "no_space" || needsRecovery(workspace)) throw error;
    throw reworded(failed, { hint: await hintOfNeededSpace(workspace, options, chosen) });
  }
}

/** Records an operation that changed no entry, if it moved head or reverts another operation. */
function noteUnchanged(workspace: Workspace, { target, kind, change }: Wanted, headBefore: SavePointId | null): void {
  const state = workspace.state();
  const isMove = !isReverting(kind);
  if (isMove && (headBefore === null || state.head === headBefore)) return;
  const { save_point_id: id } = target.descriptor;
  workspace.requireLock();
  const operation = { kind, at: new Date().toISOString(), undo_id: id, restored_to: id };
  const recorded = { ...operation, paths: change.recordedPaths(null) };
  writeState(
    workspace.found.paths,
    withOperation(state, { ...recorded, ...(isMove ? { head_before: headBefore! } : {}) }),
  );
}

const UNCHANGED = {
  restored_to: null,
  undo_id: null,
  changes: NOTHING,
  left_out: [],
  unlinked: [],
  method: "entries",
} as const satisfies Omit<RestoreResult, "duration_ms">;

/** Returns a hint: the bytes that a restore writes and a cleanup frees, as far as known without free space. */
async function hintOfNeededSpace(workspace: Workspace, options: CallOptions, wanted: Wanted): Promise<Hint> {
  const { signal } = options;
  const { root } = workspace.found.control;
  const [needed, freed] = await Promise.all([
    bytesToWrite(workspace, wanted, signal),
    bytesOfOld(workspace, signal).catch(() => 0),
  ]);
  const clean = call(`cleanup --keep-last ${KEPT}`, "previewCleanup", { retention: { keepLast: KEPT } });
  const way = freed === 0 ? "" : advice`; ${clean} would free about ${formatBytes(freed)}`;
  const id = wanted.target.descriptor.save_point_id.slice(0, 8);
  const elsewhere = call(`restore ${id} --to DIR`, "restore", { target: id, to: word("DIR") });
  const file = call(`show ${id}:FILE`, "read", id, word("path"));
  return advice`nothing was changed: the save of the present state and the restore together need ${needed} of free space on the file system of ${root}${way}; without any, ${elsewhere} writes the point onto another disk, and ${file} prints a file`;
}

/** Points that the cleanup proposed in the hint keeps. */
const KEPT = 3;

/** Returns the bytes to write; the size of the point if there is no space even for a plan. */
async function bytesToWrite(workspace: Workspace, wanted: Wanted, signal: AbortSignal | undefined): Promise<string> {
  try {
    const { entries } = await planTo(workspace, { signal }, wanted);
    return `about ${formatBytes(entries.reduce((sum, { size = 0 }) => sum + size, 0))}`;
  } catch {
    return `up to ${formatBytes(wanted.target.descriptor.bytes)}`;
  }
}

async function bytesOfOld(workspace: Workspace, signal: AbortSignal | undefined): Promise<number> {
  const rules = { keepLast: KEPT };
  return (await planCleanup(workspace, { signal, rules })).bytes;
}

/** Reverts the last operation that was not undone. */
export async function undo(workspace: Workspace, options: UndoOptions): Promise<RestoreResult> {
  return revert(workspace, "undo", options);
}

/** Reverts the last undo. */
export async function redo(workspace: Workspace, options: UndoOptions): Promise<RestoreResult> {
  return revert(workspace, "redo", options);
}

/** Reverts operations one after the other. A plan is of their sum; an operation that comes between them ends the call. */
async function revert(workspace: Workspace, kind: "undo" | "redo", options: UndoOptions): Promise<RestoreResult> {
  const { count = 1, plan, ...each } = options;
  const one = async (of: UndoOptions): Promise<RestoreResult> =>
    goingBack(workspace, of, "undo", () => reverting(workspace, kind, of));
  if (count <= 1) return one(options);
  operationToRevert(workspace, kind, {}, count);
  if (plan !== undefined)
    await withSealed(workspace, options, async () => requirePlanOfAll(workspace, kind, { ...each, count, plan }));
  const { done, undone } = operationLog(workspace.state().operations);
  const results: RestoreResult[] = [];
  for (const { before } of (kind === "undo" ? done : undone).slice(-count).toReversed())
    results.push(await one({ ...each, count, expected: results.length === 0 ? (each.expected ?? before) : before }));
  const left = new Map(results.flatMap(({ left_out: of }) => of).map((entry) => [JSON.stringify(entry), entry]));
  const changes = { ...NOTHING };
  for (const { changes: own } of results)
    for (const key of ["created", "updated", "deleted", "metadata"] as const) changes[key] += own?.[key] ?? 0;
  const isCounted = results.every((each) => each.changes !== null);
  const { undo_id } = results[0]!;
  return { ...results.at(-1)!, undo_id, changes: isCounted ? changes : null, left_out: [...left.values()] };
}

function reverting(workspace: Workspace, kind: "undo" | "redo", options: UndoOptions): Wanted | RestoreResult {
  const { target, change, isUnfinished, operation: reverted } = operationToRevert(workspace, kind, options);
  const { at, changed, headBefore } = reverted;
  const operation = { kind: reverted.kind, at, restored_to: changed.after };
  if (headBefore !== undefined) return moveHeadBack(workspace, { kind, headBefore, operation });
  return { target, kind, change, operation, isUnfinished, isOfSeveral: (options.count ?? 1) > 1 };
}

/** Reverts an operation that moved only head. Throws `nothing_to_undo` if the former head is gone. */
function moveHeadBack(
  workspace: Workspace,
  {
    kind,
    headBefore,
    operation,
  }: { kind: "undo" | "redo"; headBefore: SavePointId } & Pick<RestoreResult, "operation">,
): RestoreResult {
  const state = workspace.state();
  if (workspace.byId(headBefore) === null)
    throw new CairnError("nothing_to_undo", `a cleanup removed ${headBefore}, to which head would move`, {
      hint: see("history"),
    });
  const moved = { undo_id: headBefore, restored_to: headBefore, paths: null };
  const recorded = { kind, at: new Date().toISOString(), ...moved, ...(state.head && { head_before: state.head }) };
  workspace.requireLock();
  writeState(workspace.found.paths, { ...withOperation(state, recorded), head: headBefore });
  return { ...UNCHANGED, restored_to: headBefore, duration_ms: 0, ...(operation && { operation }) };
}

/** Restores to head, the latest point unless detached. Saves unsaved changes, for example after a crash, first. */
export async function restoreLatest(workspace: Workspace, options: CallOptions): Promise<RestoreResult> {
  return goingBack(workspace, options, "restore", () =>
    workspace.state().head === null
      ? null
      : { target: workspace.resolve("head"), change: changeOf({}), kind: "restore", isStart: true },
  );
}

/** Returns the operations of a workspace, newest first. */
export async function operations(workspace: Workspace, options: CallOptions): Promise<OperationList> {
  await recoverIfIdle(workspace, options);
  const { operations: recorded } = workspace.state();
  const { done, undone } = operationLog(recorded);
  const inForce = new Set(done.map(({ at }) => at));
  const idOf = (next: Revertible | undefined): string | null => next?.at ?? null;
  return {
    operations: recorded.toReversed().map(({ kind, at, undo_id, restored_to, paths }) => ({
      kind,
      at,
      undo_id: undo_id === restored_to ? null : undo_id,
      restored_to,
      paths: paths?.map((path) => displayPath(rawPath(path))) ?? null,
      cause: (undo_id === restored_to ? null : workspace.byId(undo_id)?.descriptor.cause) ?? null,
      is_undone: !isReverting(kind) && !inForce.has(at),
    })),
    undo: idOf(done.at(-1)),
    redo: idOf(undone.at(-1)),
  };
}
