import { existsSync, mkdirSync, readdirSync, realpathSync, renameSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import {
  type ControlFile,
  encodeControl,
  encodeState,
  encodeWorkspace,
  type WorkspaceFile,
} from "../../formats/records/control.ts";
import type { JsonObject } from "../../formats/fields.ts";
import { recordPath } from "../../formats/records/record.ts";
import { durableMkdir, durableWrite, fsyncDirectory, removeLeftovers, temporaryName } from "../../fs/durable.ts";
import { filesystemUuid, mountOf, onSameMount } from "../../fs/linux/mounts.ts";
import { namesIn } from "../../fs/names-in.ts";
import { makePrivate } from "../../fs/owner-writes.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { rawBytes, type RawPath } from "../../fs/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { type ControlId, newWorkspaceId, type WorkspaceId } from "../../ids.ts";
import {
  checkWorkspaceName,
  type ControlPaths,
  controlPaths,
  MOUNT_CONTROL,
  requireTextAbove,
  workspaceNameOf,
  type WorkspacePaths,
  workspacePaths,
} from "./control-layout.ts";
import { type PlacedWorkspace, readControl, readWorkspace, wayWithout } from "./records.ts";

/** Lists the workspaces of a control directory, and makes control directories and workspaces. */

export interface ListedWorkspace {
  readonly name: string;
  readonly workspace: PlacedWorkspace | null;
  readonly problem?: CairnError;
}

/** True for a folder among the workspaces that has nothing of one: a program that shows or copies folders left it. */
function isStray(control: ControlPaths, name: string): boolean {
  const { root, state, points, journal } = workspacePaths(control, name);
  const names = namesIn(root);
  return ![state, points, journal].some((each) => names.includes(basename(each)));
}

/** All workspaces of a control directory by name; a damaged one is listed and hides nothing. Throws `damaged` where they are gone. */
export function listWorkspaces(control: ControlPaths): ListedWorkspace[] {
  let directories: string[];
  try {
    directories = readdirSync(control.workspaces);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT")
      throw new CairnError("damaged", `${control.workspaces} is missing`, { hint: wayWithout(control, "that folder") });
    throw toCairnError(error, `list ${control.workspaces}`);
  }
  const listed: ListedWorkspace[] = [];
  for (const directory of directories.sort()) {
    const name = workspaceNameOf(directory);
    if (name === null) continue;
    try {
      const workspace = readWorkspace(control, name);
      if (workspace === null && isStray(control, name)) continue;
      const problem = new CairnError("damaged", `${join(control.workspaces, directory)} has no workspace.json`, {
        hint: wayWithout(control),
      });
      listed.push(workspace === null ? { name, workspace, problem } : { name, workspace });
    } catch (error) {
      listed.push({ name, workspace: null, problem: toCairnError(error) });
    }
  }
  return listed;
}

export interface NewControl {
  id: ControlId;
  name: string;
  engine: string;
  selfContained: boolean;
  /** Fills the staged directory (store, password, key) before it gets its name; whatever it leaves open must not care. */
  populate?: (staged: ControlPaths) => Promise<void>;
}

export interface CreatedControl {
  readonly control: ControlPaths;
  readonly file: ControlFile;
  /** False: another process was first, and its directory is the one. */
  readonly created: boolean;
}

/**
 * Makes a control directory whole under a temporary name and then gives it its own. Of any number of processes
 * one wins, the others get its directory. Throws `already_exists` when the place holds something else, `unsupported` where
 * a name above it is not UTF-8.
 */
export async function createControlDirectory(root: string, options: NewControl): Promise<CreatedControl> {
  const given = controlPaths(root);
  const present = readControl(given);
  if (present !== null) return { control: given, file: present, created: false };
  refuseOccupied(root);
  requireTextAbove(root);
  const above = dirname(root);
  durableMkdir(above, { mode: basename(above) === MOUNT_CONTROL ? 0o755 : 0o700 });
  // The links on the way here are taken once, whoever's they are.
  const parent = realpathSync.native(above);
  const control = controlPaths(join(parent, basename(root)));
  removeLeftovers(parent);
  const staged = controlPaths(join(parent, temporaryName()));
  try {
    await fillStaged(staged, options);
    failpoint("control-staged");
    const made = giveName(staged, control);
    failpoint("control-named");
    // It is recorded as it was named: the links may lead to another disk one day.
    return { ...made, control: given };
  } finally {
    clearAway(staged.root);
  }
}

function refuseOccupied(root: string): void {
  if (!existsSync(root)) return;
  if (statSync(root).isDirectory() && readdirSync(root).length === 0) return;
  throw new CairnError("already_exists", `${root} is there and is no control directory`, {
    hint: "choose an absent or empty folder",
  });
}

async function fillStaged(staged: ControlPaths, options: NewControl): Promise<void> {
  mkdirSync(staged.root, { mode: 0o700 });
  // Whatever the umask took.
  makePrivate(staged.root);
  for (const directory of [staged.temporary, staged.cache, staged.workspaces]) mkdirSync(directory, { mode: 0o700 });
  await options.populate?.(staged);
  const file: ControlFile = {
    id: options.id,
    name: options.name,
    created_at: new Date().toISOString(),
    engine: options.engine,
    self_contained: options.selfContained,
  };
  durableWrite(staged.file, encodeControl(file));
}

function giveName(staged: ControlPaths, control: ControlPaths): CreatedControl {
  try {
    renameSync(staged.root, control.root);
  } catch (error) {
    const winner = readControl(control);
    if (winner !== null) return { control, file: winner, created: false };
    if ((error as NodeJS.ErrnoException).code === "ENOTEMPTY") refuseOccupied(control.root);
    throw toCairnError(error, `make the control directory ${control.root}`);
  }
  fsyncDirectory(dirname(control.root));
  const file = readControl(control);
  if (file === null) throw new CairnError("conflict", `${control.root} went away while it was made`);
  return { control, file, created: true };
}

export interface NewWorkspace {
  /** Real path of the folder. */
  folder: RawPath;
  /** Made unique by a number unless `exactName`. */
  name: string;
  exactName?: boolean;
  origin?: NonNullable<WorkspaceFile["origin"]>;
  settings?: JsonObject;
  /** Also know the folder by its path in its mount; by default where the control directory lies at that mount's root. */
  inMount?: boolean;
  /** Fresh unless told. */
  id?: WorkspaceId;
  /** Of a folder that does not lie at its path yet. */
  identity?: FolderIdentity;
  /** Puts points and state into the staged workspace before it gets its name; called again when the name was taken. */
  fill?: (staged: WorkspacePaths, workspace: PlacedWorkspace) => void;
}

export interface CreatedWorkspace {
  readonly workspace: PlacedWorkspace;
  readonly paths: WorkspacePaths;
}

/** Adds a workspace: staged, then named. Throws `already_exists` for a taken name with `exactName`. */
export function createWorkspace(control: ControlPaths, options: NewWorkspace): CreatedWorkspace {
  checkWorkspaceName(options.name);
  // The name tells whoever comes after a kill that its process is gone, and so that it may be removed.
  const staged = newWorkDirectory(control.temporary);
  for (const directory of [staged, join(staged, "points"), join(staged, "journal")]) durableMkdir(directory);
  durableWrite(join(staged, "state.json"), encodeState({ head: null, last_restore: null, recovered: [] }));
  try {
    for (let attempt = 1; attempt <= 10_000; attempt++) {
      const name = attempt === 1 ? options.name : `${options.name}-${attempt}`;
      const workspace = workspaceRecord(control, { ...options, name });
      durableWrite(join(staged, "workspace.json"), encodeWorkspace(workspace));
      options.fill?.(pathsBelow(staged, workspacePaths(control, name)), workspace);
      failpoint("workspace-staged");
      const paths = workspacePaths(control, name);
      if (renameUnlessTaken(staged, paths.root)) return { workspace, paths };
      if (options.exactName === true) break;
    }
  } finally {
    clearAway(staged);
  }
  throw new CairnError("already_exists", `the workspace ${JSON.stringify(options.name)} is there already`);
}

/** The places of a workspace that still lies under another name, its caches beside the rest. */
function pathsBelow(staged: string, { root: _root, ...paths }: WorkspacePaths): WorkspacePaths {
  const moved = Object.entries(paths).map(([name, place]) => [name, join(staged, basename(place))]);
  return { root: staged, ...(Object.fromEntries(moved) as Omit<WorkspacePaths, "root">) };
}

function renameUnlessTaken(staged: string, path: string): boolean {
  try {
    renameSync(staged, path);
  } catch (error) {
    const name = (error as NodeJS.ErrnoException).code;
    if (name === "ENOTEMPTY" || name === "EEXIST") return false;
    throw toCairnError(error, `make ${path}`);
  }
  fsyncDirectory(dirname(path));
  return true;
}

export type FolderIdentity = Pick<
  PlacedWorkspace,
  "path" | "path_b64" | "root_inode" | "device" | "filesystem_uuid" | "mount_path"
>;

/** Path, inode, device and file system of a folder (its real path), as a workspace's file keeps them. */
export function folderIdentity(folder: RawPath, inMount: boolean): FolderIdentity {
  const facts = statSync(folder, { bigint: true });
  const uuid = filesystemUuid(folder);
  const mountPath = inMount ? pathInMount(folder) : null;
  return {
    ...recordPath(rawBytes(folder)),
    root_inode: facts.ino.toString(),
    device: facts.dev.toString(),
    ...(uuid === null ? {} : { filesystem_uuid: uuid }),
    ...(mountPath === null ? {} : { mount_path: recordPath(mountPath) }),
  };
}

/** A workspace's record for another folder, or for one that is another by now. */
export function withFolder(control: ControlPaths, workspace: PlacedWorkspace, folder: RawPath): PlacedWorkspace {
  const { path_b64: _path, mount_path: _mount, filesystem_uuid: _uuid, ...rest } = workspace;
  return { ...rest, ...folderIdentity(folder, isInMountOf(control, folder)) };
}

function workspaceRecord(control: ControlPaths, options: NewWorkspace): PlacedWorkspace {
  return {
    id: options.id ?? newWorkspaceId(),
    name: options.name,
    ...(options.identity ?? folderIdentity(options.folder, options.inMount ?? isInMountOf(control, options.folder))),
    registered_at: new Date().toISOString(),
    ...(options.origin === undefined ? {} : { origin: options.origin }),
    settings: options.settings ?? {},
  };
}

/**
 * True for a folder in the mount at whose root its control directory lies: it is known by its path in there. In another
 * mount, where it may have been moved, the same path is that of another folder.
 */
export function isInMountOf(control: ControlPaths, folder: RawPath): boolean {
  if (basename(dirname(control.root)) !== MOUNT_CONTROL) return false;
  return onSameMount(folder, control.root);
}

/** A folder's path from the root of its mount, without a leading slash; null without mountinfo. */
export function pathInMount(folder: RawPath): Buffer | null {
  const mount = mountOf(folder);
  if (mount === null) return null;
  const path = rawBytes(folder);
  return path.subarray(Math.min(path.length, mount.mountPoint.length === 1 ? 1 : mount.mountPoint.length + 1));
}
