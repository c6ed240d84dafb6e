import fs from "node:fs";
import { basename, join } from "node:path";
import { cannotBeWritten, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { Recovery } from "../../formats/records/control.ts";
import type { PartialFile } from "../../formats/records/partial.ts";
import { rawPath } from "../../formats/records/record.ts";
import { acquireLock, type Lock } from "../../fs/lock.ts";
import { removeAll, requireUnmounted } from "../../fs/remove-all.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { leasePath, listWorkspaces, readControl } from "../place/control-directory.ts";
import { type ControlPaths, controlPaths, workspacePaths } from "../place/control-layout.ts";
import { settlePartial } from "./new-folder.ts";
import { type DeadPartial, leftPartials } from "../place/partials.ts";
import { Points } from "../points/points.ts";
import { readRegistration, unregister } from "../place/registry.ts";
import { removeStatCaches } from "../open/temporaries.ts";
import type { Recoverable, Workspace, WorkspaceCall } from "../open/workspace.ts";

/** Removes the other parts of a fork that failed: the workspace, its point, its registration, its control directory. */
export async function takeBackFork(workspace: Workspace, record: PartialFile): Promise<void> {
  const { workspace: made, control: own } = record;
  if (made === undefined) return;
  const target = Buffer.from(rawPath(record.target));
  if (readRegistration(target)?.workspace_id === made.id) unregister(target);
  failpoint("fork.unregistered");
  if (own !== undefined) {
    const control = controlPaths(own.path);
    // A copied record may be out of date: the fork may be finished and have new points.
    if (readControl(control)?.id !== own.id) return;
    // A kill of this removal leaves no workspaces.
    if (fs.existsSync(control.workspaces) && !isOnlyOf(control, made)) return;
    requireUnmounted(own.path);
    // The record with the id goes last: after a kill the next command still knows the directory.
    for (const name of fs.readdirSync(own.path)) if (name !== basename(control.file)) removeAll(join(own.path, name));
    failpoint("fork.control-emptied");
    removeAll(own.path);
    return;
  }
  const { control } = workspace.found;
  for (const listed of listWorkspaces(control)) {
    if (listed.workspace?.id !== made.id) continue;
    const aside = newWorkDirectory(control.temporary);
    fs.renameSync(workspacePaths(control, listed.name).root, aside);
    failpoint("fork.workspace-removed");
    removeAll(aside);
  }
  removeStatCaches(control, made.id);
  await workspace.engine.discard([made.point]);
}

/** Tells if a control directory has only a new fork: its workspace, with at most the first point. */
function isOnlyOf(control: ControlPaths, made: { id: string }): boolean {
  return listWorkspaces(control).every(
    ({ workspace, name }) =>
      workspace?.id === made.id && new Points(workspacePaths(control, name)).sequences().length <= 1,
  );
}

export const NEW_FOLDER: Recoverable = {
  kind: "new-folder",
  where: "`partial/<16 digits>.json` of the control directory; of a restore from a repository, in the user's state",
  steps: [
    "the record names a folder beside the new one, `.cairn-partial-…`, and the process that writes there",
    "the folder is made and filled; a fork also makes a workspace with its first point, which the record names",
    "● the folder gets its name. In a mount's root, or the current folder of a restore: the record says that entries are moved up one by one. A restore over a folder with entries: the filled folder lies inside, and each entry replaces the old one by itself",
    "the record is removed",
  ],
  before:
    "removes the folder, and the workspace or control directory of a fork; a restore from a repository may go on with it. Each entry of a restore over a folder is old or new, and a second restore goes on",
  after: "moves the remaining entries, and removes the record",
  isLeft({ found: { control } }) {
    const { dead, earlier } = leftPartials(control);
    return dead.length > 0 || earlier !== null;
  },
  recover: recoverPartials,
};

/**
 * Finishes or removes forks and restores into other folders that were killed. Needs no lock of the caller; without
 * leftovers it reads one directory. Throws `refused` for a leftover of an earlier build.
 */
export async function recoverPartials(workspace: Workspace, call: WorkspaceCall): Promise<Recovery[]> {
  const { control } = workspace.found;
  const { dead: found, earlier } = leftPartials(control);
  if (earlier !== null) throw earlier;
  if (found.length === 0) return [];
  call.onProgress?.({ phase: "recovering", done: 0 });
  using lock = await lockOrNull(control, call);
  if (lock === null) return [];
  const recovered: Recovery[] = [];
  for (const dead of leftPartials(control).dead) {
    const whole = isWhole(dead);
    if (!whole) await takeBackFork(workspace, dead.record);
    const isOpen = dead.record.purpose === "view" && !takeBackView(workspace, dead.record);
    const left = settlePartial(dead);
    const entry = dead.record.closing === true ? closingEntry(isOpen) : entryOf(dead, whole);
    recovered.push(left === null ? entry : { ...entry, detail: `${entry.detail}; ${left}` });
  }
  return recovered;
}

/** Takes the lock. Returns null if nothing can be written: then leftovers wait for the next writer. */
export async function lockOrNull(control: ControlPaths, { signal }: WorkspaceCall): Promise<Lock | null> {
  try {
    return await acquireLock(control.lock, { purpose: "recovery", signal });
  } catch (error) {
    const failure = toCairnError(error);
    if (cannotBeWritten(failure)) return null;
    throw failure;
  }
}

/** Removes a view's folder that has no lease. Returns false if the view is open. */
function takeBackView(workspace: Workspace, record: PartialFile): boolean {
  const { control } = workspace.found;
  const folder = Buffer.from(rawPath(record.target));
  const id = basename(folder.toString("latin1"));
  if (fs.existsSync(leasePath(control, id))) return false;
  failpoint("view.taking-back");
  removeAll(folder);
  return true;
}

function closingEntry(isOpen: boolean): Recovery {
  return {
    operation: "view",
    outcome: isOpen ? "rolled_back" : "completed",
    detail: isOpen
      ? "closing a view was interrupted; the view is still open"
      : "closing a view was interrupted; the view has been removed",
    kept: [],
  };
}

function isWhole({ record, committed }: DeadPartial): boolean {
  if (record.moving === true || record.workspace === undefined) return committed;
  const there = fs.lstatSync(Buffer.from(rawPath(record.target)), { bigint: true, throwIfNoEntry: false });
  return there?.ino.toString() === record.workspace.inode;
}

function entryOf({ record }: DeadPartial, whole: boolean): Recovery {
  const target = printablePath(Buffer.from(rawPath(record.target)));
  const what =
    record.purpose === "fork"
      ? `the fork into ${target}`
      : record.purpose === "restore"
        ? `the restore into ${target}`
        : "a view";
  return {
    operation: record.purpose,
    outcome: whole ? "completed" : "rolled_back",
    detail: whole ? `${what} was complete` : `${what} was interrupted; the files that it had written were removed`,
    kept: [],
  };
}
