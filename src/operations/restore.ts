import { advice, call, type Hint, reworded, toCairnError } from "../errors.ts";
import { rawPath } from "../formats/records/record.ts";
import { formatBytes } from "../formats/sizes.ts";
import { normalizeTyped } from "../fs/paths/safe-path.ts";
import { planCleanup } from "../workspace/keep/cleanup-plan.ts";
import { needsRecovery, recoverWorkspace } from "../workspace/open/recovery.ts";
import { restoreLocked } from "../workspace/restore/restore-folder.ts";
import { makingRoom } from "../workspace/open/temporaries.ts";
import { writeState } from "../workspace/place/control-directory.ts";
import type { Point } from "../workspace/points/point-files.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { CallOptions, RestoreOptions, RestoreResult, UndoOptions } from "../contract/index.ts";
import { planTo, restoreToUndo } from "./restore-plan.ts";

const NOTHING = { created: 0, updated: 0, deleted: 0, metadata: 0 };

/** Saves the present, then makes the folder equal to a point. */
export async function restore(workspace: Workspace, options: RestoreOptions): Promise<RestoreResult> {
  return goingBack(workspace, options, "restore", () => ({
    target: workspace.resolve(options.target),
    paths: options.paths === undefined ? null : options.paths.map(normalizeTyped),
    keepPresent: options.keepPresent ?? false,
    kind: "restore",
  }));
}

type Wanted = Pick<Parameters<typeof restoreLocked>[2], "target" | "paths" | "keepPresent" | "kind">;

/**
 * Locks, finishes what an unclean end left, and goes to what is then wanted (null: nothing); where there is no room for that, it says
 * what it takes.
 */
async function goingBack(
  workspace: Workspace,
  options: Omit<RestoreOptions, "target" | "paths" | "keepPresent"> | RestoreOptions,
  purpose: "restore" | "undo",
  wanted: () => Wanted | null,
): Promise<RestoreResult> {
  const started = performance.now();
  const isAsked = "target" in options;
  const go = async (): Promise<RestoreResult> => {
    using _lock = await workspace.lock(purpose, options);
    await recoverWorkspace(workspace, options);
    const chosen = wanted();
    if (chosen === null) return nowhere(started);
    const restored = await restoreLocked(workspace, started, { ...options, ...chosen });
    const isRight = restored.undo_id === null && restored.left_out.length === 0;
    if (isAsked && isRight) noteUnchanged(workspace, chosen.target);
    return restored;
  };
  try {
    // A clone takes little more than records; what is written entry by entry would only take the room that a cleanup needs.
    return workspace.engine.holder === null ? await go() : await makingRoom(workspace.found.control, go);
  } catch (error) {
    const failed = toCairnError(error);
    // What had begun to change the folder says by itself how it goes on.
    if (failed.code !== "no_space" || needsRecovery(workspace)) throw error;
    const chosen = wanted();
    if (chosen === null) throw error;
    throw reworded(failed, { hint: await whatItTakes(workspace, options, chosen) });
  }
}

/** So that an undo does not take back a restore before one that changed nothing. */
function noteUnchanged(workspace: Workspace, { descriptor: { save_point_id: id } }: Point): void {
  const state = workspace.state();
  const { last_restore: last } = state;
  if (last === null) return;
  const then_unchanged = { restored_to: id, at: new Date().toISOString() };
  workspace.requireLock();
  writeState(workspace.found.paths, { ...state, last_restore: { ...last, then_unchanged } });
}

/** Nothing was ever saved. */
function nowhere(started: number): RestoreResult {
  return {
    restored_to: null,
    undo_id: null,
    changes: NOTHING,
    left_out: [],
    unlinked: [],
    method: "entries",
    duration_ms: Math.round(performance.now() - started),
  };
}

/** Says how much a restore would write, and what a cleanup would free, as far as that can be told without any room. */
async function whatItTakes(workspace: Workspace, options: CallOptions, wanted: Wanted): Promise<Hint> {
  const { signal } = options;
  const { root } = workspace.found.control;
  const [needed, freed] = await Promise.all([
    bytesToWrite(workspace, wanted, signal),
    bytesOfOld(workspace, signal).catch(() => 0),
  ]);
  const clean = call(`cleanup --keep-last ${KEPT}`, "previewCleanup", { retention: { keepLast: KEPT } });
  const way = freed === 0 ? "" : advice`; ${clean} would free about ${formatBytes(freed)}`;
  return advice`nothing was changed: the save of the present state and the restore together need ${needed} of free space on the file system of ${root}${way}`;
}

/** Points that a cleanup, which is proposed where room is missing, keeps. */
const KEPT = 3;

/** At most what the point holds, where not even a plan has room. */
async function bytesToWrite(workspace: Workspace, wanted: Wanted, signal: AbortSignal | undefined): Promise<string> {
  try {
    const { entries } = await planTo(workspace, { signal }, { ...wanted, mayLackPaths: true });
    return `about ${formatBytes(entries.reduce((sum, { size = 0 }) => sum + size, 0))}`;
  } catch {
    return `up to ${formatBytes(wanted.target.descriptor.bytes)}`;
  }
}

async function bytesOfOld(workspace: Workspace, signal: AbortSignal | undefined): Promise<number> {
  const rules = { keepLast: KEPT };
  return (await planCleanup(workspace, { signal, rules, only: null, keepYoung: false })).plan.bytes;
}

/** Back to the state before the last restore or undo; twice is redo. */
export async function undo(workspace: Workspace, options: UndoOptions): Promise<RestoreResult> {
  return goingBack(workspace, options, "undo", () => {
    const last = restoreToUndo(workspace);
    return {
      target: workspace.resolve(last.undo_id),
      paths: last.paths?.map((path) => rawPath(path)) ?? null,
      keepPresent: false,
      kind: "undo",
    };
  });
}

/** To head, which is the latest unless detached: what a crash left unsaved is saved first. */
export async function restoreLatest(workspace: Workspace, options: CallOptions): Promise<RestoreResult> {
  return goingBack(workspace, options, "restore", () =>
    workspace.state().head === null
      ? null
      : { target: workspace.resolve("head"), paths: null, keepPresent: false, kind: "restore" },
  );
}
