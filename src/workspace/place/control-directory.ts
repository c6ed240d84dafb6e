import { existsSync, lstatSync, mkdirSync, readdirSync, realpathSync, renameSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { advice, CairnError, call, isMountDead, line, see, toCairnError, word } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import {
  type ControlFile,
  decodeControl,
  decodeState,
  decodeWorkspace,
  encodeControl,
  encodeState,
  encodeWorkspace,
  type WorkspaceFile,
  type WorkspaceState,
} from "../../formats/records/control.ts";
import type { JsonObject } from "../../formats/fields.ts";
import { type RecordedPath, recordPath } from "../../formats/records/record.ts";
import {
  durableMkdir,
  durableRemove,
  durableRename,
  durableWrite,
  fsyncDirectory,
  orderedWrite,
  readRecord,
  temporaryName,
} from "../../fs/durable.ts";
import { isSubvolume, subvolumeUuid } from "../../fs/linux/btrfs.ts";
import { filesystemUuid, keepsInodes, mountOf, onSameMount } from "../../fs/linux/mounts.ts";
import { requireAnswer } from "../../fs/silent-mounts.ts";
import { namesIfThere, namesIn } from "../../fs/paths/names-in.ts";
import { makePrivate } from "../../fs/owner-writes.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { printablePath, rawBytes, type RawPath, shellPath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory, removeLeftovers } from "../../fs/work-directory.ts";
import { type ControlId, newWorkspaceId, type WorkspaceId } from "../../ids.ts";
import {
  checkWorkspaceName,
  type ControlPaths,
  controlPaths,
  MOUNT_CONTROL,
  requireTextAbove,
  SELF_CONTAINED_CONTROL,
  workspaceNameOf,
  type WorkspacePaths,
  workspacePaths,
} from "./control-layout.ts";
import {
  decodeKeptRepository,
  encodeKeptRepository,
  type KeptRepositoryFile,
} from "../../formats/records/kept-repository.ts";
import { decodePolicy, encodePolicy, NO_POLICY, type PolicyFile } from "../../formats/records/policy.ts";
import { decodeView, encodeView, type ViewFile } from "../../formats/records/view.ts";
import { makeFolder } from "../../fs/make-folder.ts";

/** Lists and creates the workspaces of a control directory. */

export interface ListedWorkspace {
  readonly name: string;
  readonly workspace: PlacedWorkspace | null;
  readonly problem?: CairnError;
}

/** True for a folder without any part of a workspace, for example one that a file manager made. */
function isStray(control: ControlPaths, name: string): boolean {
  const { root, state, points, journal } = workspacePaths(control, name);
  const names = namesIn(root);
  return ![state, points, journal].some((each) => names.includes(basename(each)));
}

/** All workspaces by name, including damaged ones. Throws `damaged` if the folder of workspaces is missing. */
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

interface NewControl {
  id: ControlId;
  name: string;
  engine: string;
  selfContained: boolean;
  /** Fills the staged directory (store, password, key) before it gets its name. Open files must survive the rename. */
  populate?: (staged: ControlPaths) => Promise<void>;
}

export interface CreatedControl {
  readonly control: ControlPaths;
  readonly file: ControlFile;
  /** False: another process was first, and `control` is that process's directory. */
  readonly created: boolean;
}

/**
 * Makes a control directory under a temporary name, then renames it. If several processes race, one wins and all get
 * its directory. Throws `already_exists` if other files lie there, `unsupported` if a name above is not UTF-8.
 */
export async function createControlDirectory(root: string, options: NewControl): Promise<CreatedControl> {
  const given = controlPaths(root);
  const present = readControl(given);
  if (present !== null) return { control: given, file: present, created: false };
  refuseOccupied(root);
  requireTextAbove(root);
  const above = dirname(root);
  durableMkdir(above, { mode: basename(above) === MOUNT_CONTROL ? 0o755 : 0o700 });
  // Resolve links in the path once, whoever owns them.
  const parent = realpathSync.native(above);
  const control = controlPaths(join(parent, basename(root)));
  removeLeftovers(parent);
  const staged = controlPaths(join(parent, temporaryName()));
  try {
    await fillStaged(staged, options);
    failpoint("control-staged");
    const made = giveName(staged, control);
    failpoint("control-named");
    // Record the path as given: its links may lead to another disk one day.
    return { ...made, control: given };
  } finally {
    clearAway(staged.root);
  }
}

function refuseOccupied(root: string): void {
  if (!existsSync(root)) return;
  if (statSync(root).isDirectory() && readdirSync(root).length === 0) return;
  throw new CairnError("already_exists", `${root} exists and is not a control directory`, {
    hint: "choose an absent or empty folder",
  });
}

async function fillStaged(staged: ControlPaths, options: NewControl): Promise<void> {
  mkdirSync(staged.root, { mode: 0o700 });
  // The umask may have removed bits.
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

interface NewWorkspace {
  /** Real path of the folder. */
  folder: RawPath;
  /** Gets a number if it is taken, unless `exactName` is set. */
  name: string;
  exactName?: boolean;
  origin?: NonNullable<WorkspaceFile["origin"]>;
  settings?: JsonObject;
  /** True: record also the path inside the mount. Default: true if the control directory lies at that mount's root. */
  inMount?: boolean;
  /** Default: a new id. */
  id?: WorkspaceId;
  /** Identity of a folder that does not lie at its path yet. */
  identity?: FolderIdentity;
  /** Fills the staged workspace with points and state before it gets its name. Called again if the name was taken. */
  fill?: (staged: WorkspacePaths, workspace: PlacedWorkspace) => void;
}

interface CreatedWorkspace {
  readonly workspace: PlacedWorkspace;
  readonly paths: WorkspacePaths;
}

/** Adds a workspace: staged, then renamed. Throws `already_exists` for a taken name with `exactName`. */
export function createWorkspace(control: ControlPaths, options: NewWorkspace): CreatedWorkspace {
  checkWorkspaceName(options.name);
  // The name has this process's id: after a kill the next process sees that it may remove the folder.
  const staged = newWorkDirectory(control.temporary);
  for (const directory of [staged, join(staged, "points"), join(staged, "journal")]) durableMkdir(directory);
  durableWrite(join(staged, "state.json"), encodeState({ head: null, operations: [], recovered: [] }));
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
  throw new CairnError("already_exists", `the workspace ${JSON.stringify(options.name)} exists already`);
}

/** The paths of a workspace in its staging folder, with its caches beside the rest. */
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
  "path" | "path_b64" | "root_inode" | "device" | "filesystem_uuid" | "root_made" | "mount_path" | "mount_point"
>;

/** Path, inode, device and file system of a folder (its real path), in the form of a workspace's record. */
function folderIdentity(folder: RawPath, inMount: boolean): FolderIdentity {
  const facts = statSync(folder, { bigint: true });
  const mountPath = inMount ? pathInMount(folder) : null;
  const made = madeAt(folder);
  return {
    ...recordPath(rawBytes(folder)),
    root_inode: facts.ino.toString(),
    device: facts.dev.toString(),
    ...(made === null ? {} : { root_made: made }),
    ...(mountPath === null ? {} : { mount_path: recordPath(mountPath) }),
    ...diskOf(folder),
  };
}

/** Returns the file system of a folder and its mount point, in the form of a workspace's record. */
export function diskOf(folder: RawPath): Pick<FolderIdentity, "filesystem_uuid" | "mount_point"> {
  const uuid = filesystemUuid(folder);
  const mount = mountOf(folder);
  return {
    ...(uuid === null ? {} : { filesystem_uuid: uuid }),
    ...(mount === null ? {} : { mount_point: recordPath(mount.mountPoint) }),
  };
}

/** True if a folder lies on the file system that a record names; null if that is unknown. */
export function isOnFileSystemOf(
  { filesystem_uuid: known }: Pick<FolderIdentity, "filesystem_uuid">,
  folder: RawPath,
): boolean | null {
  const uuid = filesystemUuid(folder);
  return uuid === null || known === undefined ? null : uuid === known;
}

/**
 * Returns the time at which a folder was made, or the UUID of a btrfs subvolume: each subvolume has the same inode
 * number. Null if the file system does not keep such facts.
 */
export function madeAt(folder: RawPath): string | null {
  try {
    if (isSubvolume(folder)) return subvolumeUuid(folder);
    const { birthtimeNs } = statSync(folder, { bigint: true });
    return birthtimeNs > 0n && keepsInodes(rawBytes(folder)) ? birthtimeNs.toString() : null;
  } catch {
    return null;
  }
}

/** Identity of a folder that will get the path `target`: its present path, or another name in the same directory. */
export function identityOnceAt(folder: Buffer, target: Buffer, inMount: boolean): FolderIdentity {
  const now = inMount ? pathInMount(folder) : null;
  const isThere = now === null || folder === target;
  const mountPath = isThere
    ? now
    : Buffer.concat([now.subarray(0, now.lastIndexOf(0x2f) + 1), target.subarray(target.lastIndexOf(0x2f) + 1)]);
  return {
    ...folderIdentity(folder, false),
    ...recordPath(target),
    ...(mountPath === null ? {} : { mount_path: recordPath(mountPath) }),
  };
}

/** A workspace's record with another folder, or with the present identity of its folder. */
export function withFolder(control: ControlPaths, workspace: PlacedWorkspace, folder: RawPath): PlacedWorkspace {
  const { path_b64: _path, mount_path: _mount, mount_point: _point, ...others } = workspace;
  const { filesystem_uuid: _uuid, root_made: _made, ...rest } = others;
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
 * True for a folder in the mount at whose root its control directory lies. Such a folder is known by its path in the
 * mount. In another mount the same path is another folder.
 */
export function isInMountOf(control: ControlPaths, folder: RawPath): boolean {
  if (basename(dirname(control.root)) !== MOUNT_CONTROL) return false;
  return onSameMount(folder, control.root);
}

/** A folder's path from the root of its mount, without a leading slash; null if mountinfo is unreadable. */
function pathInMount(folder: RawPath): Buffer | null {
  const mount = mountOf(folder);
  if (mount === null) return null;
  const path = rawBytes(folder);
  return path.subarray(Math.min(path.length, mount.mountPoint.length === 1 ? 1 : mount.mountPoint.length + 1));
}

/** Reads and writes the small files of a control directory. */

/**
 * Writes a record of the control directory durably, without a common lock of its writers. After a kill the unfinished
 * file lies among the temporary files of processes, and the next process removes it.
 */
export function writeRecord(control: ControlPaths, path: string, bytes: Uint8Array): void {
  const work = newWorkDirectory(control.temporary);
  try {
    makeFolder(work);
    durableMkdir(dirname(path));
    const staged = join(work, basename(path));
    durableWrite(staged, bytes, { syncDirectory: false });
    durableRename(staged, path);
  } catch (error) {
    throw toCairnError(error, `write ${path}`);
  } finally {
    clearAway(work);
  }
}

/** The hint for a missing file without which doctor cannot find the workspace. */
export function wayWithout({ store, storePassword }: ControlPaths, what = "that file"): string {
  const restic = `restic -r ${shellPath(store)} --password-file ${shellPath(storePassword)} snapshots`;
  return `put ${what} back from a copy; without it, restic can still read the store: ${restic}`;
}

/**
 * Reads `cairn.json`; null if it is missing. Throws `damaged`, `newer_version`, and `refused` if a link would lead
 * temporary files elsewhere.
 */
export function readControl(control: ControlPaths): ControlFile | null {
  const read = readRecord(control.file, decodeControl, { hint: wayWithout(control) });
  const { temporary } = control;
  if (read !== null && lstatSync(temporary, { throwIfNoEntry: false })?.isSymbolicLink() === true)
    throw new CairnError(
      "refused",
      `${printablePath(temporary)} is a link, and Cairn would write and remove files where it leads`,
      {
        hint: `remove the link: rm ${shellPath(temporary)}`,
      },
    );
  return read;
}

/** Replaces `cairn.json` durably. */
export function writeControl(control: ControlPaths, file: ControlFile): void {
  writeRecord(control, control.file, encodeControl(file));
}

/** True for a directory that has everything of a control directory except `cairn.json`. */
export function lacksItsFile({ file, workspaces, store, storeKey }: ControlPaths): boolean {
  return [workspaces, store, storeKey].every((each) => existsSync(each)) && !existsSync(file);
}

/** The error for a control directory without `cairn.json`. No new history is begun in its place. */
export function fileIsMissing(control: ControlPaths): CairnError {
  return new CairnError("damaged", `${control.file} is missing`, { hint: wayWithout(control) });
}

/** A workspace's record. Control directories at a mount's root also record the folder's path in that mount. */
export interface PlacedWorkspace extends WorkspaceFile {
  mount_path?: RecordedPath;
  /** Mount point of the folder's file system when the folder was recorded. */
  mount_point?: RecordedPath;
  /** File systems mounted inside the folder at the last save that entered them, as paths below the folder. */
  mounts_inside?: RecordedPath[];
}

/** Reads a workspace's record; null if there is none. Throws `damaged`, `newer_version`. */
export function readWorkspace(control: ControlPaths, name: string): PlacedWorkspace | null {
  return readRecord(workspacePaths(control, name).file, decodeWorkspace, { hint: wayWithout(control) });
}

/** Replaces a workspace's record durably, e.g. after its folder was moved. */
export function writeWorkspace(control: ControlPaths, workspace: PlacedWorkspace): void {
  durableWrite(workspacePaths(control, workspace.name).file, encodeWorkspace(workspace));
}

/** Records that another subvolume has replaced the folder; durable with the file system's next commit. */
export function noteReplaced({ control, workspace, folder }: Parameters<typeof recordFolder>[0]): void {
  const known = readWorkspace(control, workspace.name);
  const made = madeAt(folder);
  if (known?.root_made === undefined || made === null || made === known.root_made) return;
  orderedWrite(workspacePaths(control, workspace.name).file, encodeWorkspace({ ...known, root_made: made }));
}

/** True for a directory. False if a parent is missing or a mount's program has ended. Throws if that is unknown. */
export function isFolderThere(folder: Buffer): boolean {
  requireAnswer(folder);
  try {
    return statSync(folder, { throwIfNoEntry: false })?.isDirectory() === true;
  } catch (error) {
    if (isMountDead(error)) return false;
    throw error;
  }
}

/** Records the directory at the folder's path as the workspace's folder. The caller holds the workspace's lock. */
export function recordFolder({
  control,
  workspace,
  folder,
}: {
  control: ControlPaths;
  workspace: PlacedWorkspace;
  folder: Buffer;
}): void {
  writeWorkspace(control, withFolder(control, readWorkspace(control, workspace.name) ?? workspace, folder));
}

/** True if `control` has the path of a self-contained control directory beside `folder`. */
export function isBeside(control: string, folder: Buffer): boolean {
  return join(dirname(folder.toString("utf8")), SELF_CONTAINED_CONTROL) === control;
}

/** True for a released folder, whose points may still exist. */
export function isReleased({ settings }: PlacedWorkspace): boolean {
  return settings["released_at"] !== undefined;
}

/** A workspace's record after its release. */
export function withRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  return { ...workspace, settings: { ...workspace.settings, released_at: new Date().toISOString() } };
}

/** A workspace's record after its folder is kept again. */
export function withoutRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  const { released_at: _released, ...settings } = workspace.settings;
  return { ...workspace, settings };
}

/** Reads head and last restore. Throws `damaged` if the file is damaged or missing. */
export function readState(paths: WorkspacePaths): WorkspaceState {
  const state = readRecord(paths.state, decodeState);
  if (state !== null) return state;
  throw new CairnError("damaged", `${paths.state} is missing`, {
    hint: advice`run ${call("doctor --repair", "doctor", { repair: true })}`,
  });
}

/** Replaces head and last restore durably: the commit point of a restore. */
export function writeState(paths: WorkspacePaths, state: WorkspaceState): void {
  durableWrite(paths.state, encodeState(state));
}

/** Records that the last undo or redo left entries: a next call with `over` reverts these, not an earlier operation. */
export function notePartly(paths: WorkspacePaths, state: WorkspaceState): void {
  failpoint("undo.part-recorded");
  const { operations } = state;
  writeState(paths, { ...state, operations: [...operations.slice(0, -1), { ...operations.at(-1)!, partly: true }] });
}

/** Writes the state without a sync: until the file system commits, an earlier record repeats the operation. */
export function writeStateInOrder(paths: WorkspacePaths, state: WorkspaceState): void {
  orderedWrite(paths.state, encodeState(state));
}

/** Reads the policy of a control directory; {@link NO_POLICY} if there is no file. Throws `damaged`, `newer_version`. */
export function readPolicy(control: ControlPaths): PolicyFile {
  const hint = advice`set the policy again: ${line("cleanup policy --none, then cairn cleanup policy with the rules", "setPolicy", { retention: word("retention"), quotaBytes: word("quotaBytes") })}`;
  return readRecord(control.policy, decodePolicy, { maxBytes: 1 << 20, hint }) ?? NO_POLICY;
}

/** Replaces the policy durably. The caller holds the control directory's lock. */
export function writePolicy(control: ControlPaths, policy: PolicyFile): void {
  durableWrite(control.policy, encodePolicy(policy));
}

/** The repository that is set for a workspace; null if there is none. Throws `damaged`, `newer_version`. */
export function readKeptRepository(paths: WorkspacePaths): KeptRepositoryFile | null {
  const hint = advice`set the repository again: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`;
  return readRecord(paths.repository, decodeKeptRepository, { maxBytes: 1 << 20, hint });
}

/** Sets the repository durably; null removes it. The caller holds the control directory's lock. */
export function writeKeptRepository(paths: WorkspacePaths, kept: KeptRepositoryFile | null): void {
  if (kept === null) durableRemove(paths.repository);
  else durableWrite(paths.repository, encodeKeptRepository(kept));
}

/** The lease of an open view is `<id>.json` beside the folder `<id>`. */
const VIEW_ID = /^[0-9a-f]{16}$/;

/** Throws `invalid_id` for a text that is no view's id. */
export function leasePath(control: ControlPaths, id: string): string {
  if (VIEW_ID.test(id)) return join(control.views, `${id}.json`);
  throw new CairnError("invalid_id", `not a view: ${JSON.stringify(id.slice(0, 40))}`, {
    hint: see("view", "listViews"),
  });
}

export function writeLease(control: ControlPaths, lease: ViewFile): void {
  writeRecord(control, leasePath(control, lease.view_id), encodeView(lease));
}

export function removeLease(control: ControlPaths, id: string): boolean {
  return durableRemove(leasePath(control, id));
}

/** All open views, oldest first. Throws `damaged` or `newer_version` for an unreadable lease, since its point is unknown. */
export function listLeases(control: ControlPaths): ViewFile[] {
  return namesIfThere(control.views)
    .filter((name) => name.endsWith(".json") && VIEW_ID.test(name.slice(0, -5)))
    .flatMap((name) => {
      const hint = "remove that file and the folder beside it";
      const lease = readRecord(join(control.views, name), decodeView, { hint });
      // The control directory may have been moved since the view was opened.
      return lease === null ? [] : [{ ...lease, path: join(control.views, name.slice(0, -5)) }];
    })
    .sort((a, b) => (a.opened_at < b.opened_at ? -1 : 1));
}
