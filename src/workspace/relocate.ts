import { existsSync, readdirSync, statSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { printablePath } from "../fs/safe-path.ts";
import { rawPath, recordPath } from "../formats/record.ts";
import { readControl, writeWorkspace, type PlacedWorkspace, withFolder } from "./control-directory.ts";
import { controlPaths } from "./control-layout.ts";
import {
  liesBeside,
  movedControlLine,
  pathIs,
  realPathOf,
  workspaceAt,
  workspaceOnceOf,
  workspaceWhere,
} from "./find-workspace.ts";
import {
  controlOf,
  listRegistered,
  type NewRegistration,
  noteSelfContained,
  readRegistration,
  registerWorkspace,
  unregister,
} from "./registry.ts";
import { withoutRelease } from "./released.ts";

/** What was kept at a folder's old path, found also when an earlier relocation was killed half way. */
export interface Relocatable {
  readonly control: string;
  readonly workspace: PlacedWorkspace;
}

/** The workspace that was at a path (its real path, which need not be there any more), null when none was. */
export function workspaceOnceAt(folder: Buffer): Relocatable | null {
  const registration = readRegistration(folder);
  if (registration !== null) {
    const control = controlPaths(controlOf(registration));
    if (readControl(control) === null) {
      throw new CairnError("not_found", `${printablePath(folder)} is kept in ${control.root}, which is not there`, {
        hint: `mount or restore that folder first; where it was moved: ${movedControlLine(folder, "NEW")}`,
      });
    }
    const workspace = workspaceWhere(control, (each) => each.id === registration.workspace_id, { strict: true });
    if (workspace !== null) return { control: control.root, workspace };
  }
  const found = workspaceAt(folder);
  return found === null ? null : { control: found.control.root, workspace: found.workspace };
}

/**
 * The workspace that a control directory which is named by hand has kept at a path, also one that was released since:
 * the directory may have been moved, so nothing else is asked. Null when it has kept none there. Throws
 * `not_a_workspace`, `conflict` when this is a copy of the one that is registered and there.
 */
export function workspaceKeptIn(root: string, folder: Buffer): Relocatable | null {
  const control = controlPaths(root);
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_a_workspace", `${root} is no control directory`);
  const registration = readRegistration(folder);
  const known = registration === null ? root : controlOf(registration);
  if (!isSamePlace(known, root) && readControl(controlPaths(known)) !== null) {
    throw new CairnError("conflict", `${printablePath(folder)} is kept in ${known}, which is still there`, {
      hint: "leave --control-dir away; or stop keeping it there first: `cairn release`",
    });
  }
  const workspace = workspaceOnceOf(control, folder);
  return workspace === null ? null : { control: root, workspace };
}

function isSamePlace(one: string, other: string): boolean {
  return realPathOf(one).equals(realPathOf(other));
}

/** The other folders that a control directory keeps are registered where it lies now, if it is nowhere else. */
export function registerMoved(root: string): void {
  const controlFile = readControl(controlPaths(root));
  for (const { registration, missing } of listRegistered()) {
    if (registration === null || !missing.includes("control") || registration.control_id !== controlFile?.id) continue;
    registerWorkspace({
      folder: Buffer.from(rawPath(registration)),
      control: root,
      controlId: registration.control_id,
      workspaceId: registration.workspace_id,
      workspaceName: registration.workspace_name,
    });
  }
}

/**
 * Records that the folder lies at another real path now. The new path is registered before the workspace's record is
 * replaced, which is the commit point: killed before, the old path is the workspace's, and afterwards the new one.
 */
export function moveWorkspace(kept: Relocatable, from: Buffer, to: Buffer): void {
  const control = controlPaths(kept.control);
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${kept.control} is not there any more`);
  const entry: NewRegistration = {
    folder: to,
    control: kept.control,
    controlId: controlFile.id,
    workspaceId: kept.workspace.id,
    workspaceName: kept.workspace.name,
  };
  if (liesBeside(controlFile, kept.workspace)) noteSelfContained(entry);
  else {
    registerWorkspace(entry);
    failpoint("relocate.registered");
  }
  const moved = withoutRelease(withFolder(control, kept.workspace, to));
  const isElsewhere = !from.equals(to);
  writeWorkspace(control, isElsewhere ? { ...moved, relocated_from: recordPath(from) } : moved);
  failpoint("relocate.moved");
  if (isElsewhere) unregister(from);
}

/** True when it was relocated from that path to where it is, and nothing has the path now. */
export function wasMovedFrom({ relocated_from: recorded }: PlacedWorkspace, from: Buffer): boolean {
  return recorded !== undefined && from.equals(rawPath(recorded)) && !existsSync(from);
}

/** True when it is the very directory that was kept. */
export function isSameDirectory(workspace: PlacedWorkspace, folder: Buffer): boolean {
  const facts = statSync(folder, { bigint: true });
  return facts.ino.toString() === workspace.root_inode && facts.dev.toString() === workspace.device;
}

const ENOUGH = 0.5;

/** True when at least half of the names that the last point has at the top are in the folder. */
export function looksLike(folder: Buffer, names: readonly Uint8Array[]): boolean {
  if (names.length === 0) return true;
  const present = new Set(readdirSync(folder, { encoding: "buffer" }).map((name) => name.toString("latin1")));
  const shared = names.filter((name) => present.has(Buffer.from(name).toString("latin1"))).length;
  return shared / names.length >= ENOUGH;
}

/** True when the folder is still where it was, so that nothing was moved. */
export function isStillThere(workspace: PlacedWorkspace, folder: Buffer): boolean {
  const facts = statSync(folder, { bigint: true, throwIfNoEntry: false });
  return facts?.isDirectory() === true && facts.ino.toString() === workspace.root_inode && pathIs(workspace, folder);
}
