import { readdirSync, statSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { printablePath } from "../fs/safe-path.ts";
import { readControl, writeWorkspace, type PlacedWorkspace, withFolder } from "./control-directory.ts";
import { controlPaths, MAIN_WORKSPACE } from "./control-layout.ts";
import { pathIs, workspaceAt, workspaceWhere } from "./find-workspace.ts";
import {
  controlOf,
  type NewRegistration,
  noteSelfContained,
  readRegistration,
  registerWorkspace,
  unregister,
} from "./registry.ts";

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
        hint: "mount or restore that folder first",
      });
    }
    const workspace = workspaceWhere(control, (each) => each.id === registration.workspace_id, { strict: true });
    if (workspace !== null) return { control: control.root, workspace };
  }
  const found = workspaceAt(folder);
  return found === null ? null : { control: found.control.root, workspace: found.workspace };
}

/**
 * Records that the folder lies at another real path now. The new path is registered before the workspace's record is
 * replaced, which is the commit point: killed before, the old path is the workspace's, and afterwards the new one.
 */
export function moveWorkspace(kept: Relocatable, from: Buffer, to: Buffer): void {
  const control = controlPaths(kept.control);
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${kept.control} is not there any more`);
  const beside = controlFile.self_contained && kept.workspace.name === MAIN_WORKSPACE;
  const entry: NewRegistration = {
    folder: to,
    control: kept.control,
    controlId: controlFile.id,
    workspaceId: kept.workspace.id,
    workspaceName: kept.workspace.name,
  };
  if (beside) noteSelfContained(entry);
  else {
    registerWorkspace(entry);
    failpoint("relocate.registered");
  }
  writeWorkspace(control, withFolder(control, kept.workspace, to));
  failpoint("relocate.moved");
  if (!from.equals(to)) unregister(from);
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
