import { CairnError } from "../errors.ts";
import { normalizeTyped } from "../fs/safe-path.ts";
import { rawPath } from "../formats/record.ts";
import { recoverWorkspace } from "../workspace/recovery.ts";
import { requireFolder } from "../workspace/missing-folder.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { CallOptions } from "../contract/words.ts";
import type { RestoreOptions, RestoreResult, UndoOptions } from "../contract/points.ts";
import { restoreLocked } from "../workspace/restore-folder.ts";

const NOTHING = { created: 0, updated: 0, deleted: 0, metadata: 0 };

/** Saves the present, then makes the folder equal to a point. */
export async function restore(workspace: Workspace, options: RestoreOptions): Promise<RestoreResult> {
  const started = performance.now();
  using _lock = await workspace.lock("restore", options);
  await recoverWorkspace(workspace, options);
  return await restoreLocked(workspace, started, {
    ...options,
    target: workspace.resolve(options.target),
    paths: options.paths === undefined ? null : options.paths.map(normalizeTyped),
    keepPresent: options.keepPresent ?? false,
    kind: "restore",
  });
}

/** Back to the state before the last restore or undo; twice is redo. */
export async function undo(workspace: Workspace, options: UndoOptions): Promise<RestoreResult> {
  const started = performance.now();
  using _lock = await workspace.lock("undo", options);
  await recoverWorkspace(workspace, options);
  const last = workspace.state().last_restore;
  if (last === null) throw nothingToUndo(workspace);
  return await restoreLocked(workspace, started, {
    ...options,
    target: workspace.resolve(last.undo_id),
    paths: last.paths?.map((path) => rawPath(path)) ?? null,
    keepPresent: false,
    kind: "undo",
  });
}

/** Where the folder itself is missing, that is what somebody wants back. */
export function nothingToUndo(workspace: Workspace): CairnError {
  requireFolder(workspace);
  return new CairnError("nothing_to_undo", "nothing has been restored here, so there is nothing to undo", {
    hint: "see `cairn history`",
  });
}

/** To head, which is the latest unless detached: what a crash left unsaved is saved first. */
export async function restoreLatest(workspace: Workspace, options: CallOptions): Promise<RestoreResult> {
  const started = performance.now();
  using _lock = await workspace.lock("restore", options);
  await recoverWorkspace(workspace, options);
  const { head } = workspace.state();
  if (head === null)
    return {
      restored_to: null,
      undo_id: null,
      changes: NOTHING,
      left_out: [],
      unlinked: [],
      method: "entries",
      duration_ms: Math.round(performance.now() - started),
    };
  return await restoreLocked(workspace, started, {
    ...options,
    target: workspace.resolve("head"),
    paths: null,
    keepPresent: false,
    kind: "restore",
  });
}
