import { accessSync, constants, existsSync, lstatSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import type { ControlFile } from "../formats/control.ts";
import { rawPath } from "../formats/record.ts";
import type { Registration } from "../formats/registration.ts";
import { readMounts, resolveMount } from "../fs/mounts.ts";
import type { Mount } from "../fs/mounts.ts";
import { namesIfThere, namesIn } from "../fs/names-in.ts";
import { printablePath, rawBytes, shellPath } from "../fs/safe-path.ts";
import type { RawPath } from "../fs/safe-path.ts";
import { fileIsMissing, lacksItsFile, listWorkspaces, readControl, wayWithout } from "./control-directory.ts";
import type { PlacedWorkspace } from "./control-directory.ts";
import {
  MAIN_WORKSPACE,
  MOUNT_CONTROL,
  SELF_CONTAINED_CONTROL,
  controlPaths,
  workspacePaths,
} from "./control-layout.ts";
import type { ControlPaths, WorkspacePaths } from "./control-layout.ts";
import { controlOf, readRegistration } from "./registry.ts";
import { ownerBesidesUs } from "./not-the-owner.ts";
import { isReleased } from "./released.ts";

export interface FoundWorkspace {
  /** Real path of the folder, which need not exist any more. */
  readonly folder: Buffer;
  /** By its real path. */
  readonly control: ControlPaths;
  /** The path by which it was found; absent: the same. */
  readonly recordedControl?: string;
  readonly controlFile: ControlFile;
  readonly workspace: PlacedWorkspace;
  readonly paths: WorkspacePaths;
  readonly via: "self-contained" | "mount-root" | "registry" | "control-directory";
  /** True when another directory lies at the path than the one that was adopted; to be said once. */
  readonly rootChanged: boolean;
  /** While a fork is being made: the path that it will have. */
  readonly recordedFolder?: Buffer;
}

export interface FindOptions {
  /** True: this folder, control directory or self-contained root and no other; false: the nearest folder at or above. */
  exact?: boolean;
}

/** The real path; of a missing one the real path of what exists, and the rest as it is written. */
export function realPathOf(path: RawPath): Buffer {
  const bytes = rawBytes(path);
  try {
    return realpathSync.native(bytes, "buffer");
  } catch (error) {
    const name = (error as NodeJS.ErrnoException).code;
    if (name !== "ENOENT") throw toCairnError(error, `resolve ${printablePath(bytes)}`);
  }
  const absolute = bytes[0] === 0x2f ? bytes : Buffer.concat([Buffer.from(`${process.cwd()}/`), bytes]);
  const slash = absolute.lastIndexOf(0x2f);
  const name = absolute.subarray(slash + 1);
  const parent = realPathOf(slash <= 0 ? Buffer.from("/") : absolute.subarray(0, slash));
  const text = name.toString("latin1");
  if (text === "" || text === ".") return parent;
  if (text === "..") return parentOf(parent);
  return Buffer.concat([parent, Buffer.from(parent.length === 1 ? "" : "/"), name]);
}

function parentOf(path: Buffer): Buffer {
  return path.subarray(0, Math.max(1, path.lastIndexOf(0x2f)));
}

interface Hit {
  readonly control: ControlPaths;
  readonly controlFile: ControlFile;
  readonly workspace: PlacedWorkspace;
  readonly folder: Buffer;
  readonly via: FoundWorkspace["via"];
}

function found(hit: Hit): FoundWorkspace {
  const { folder, workspace } = hit;
  const control = atRealPath(hit.control);
  return {
    ...hit,
    control,
    recordedControl: hit.control.root,
    paths: workspacePaths(control, workspace.name),
    rootChanged: hasOtherRoot(workspace, folder),
  };
}

/** A link on the way to it is followed once: where it leads later is in the hands of whoever owns it. */
export function atRealPath(control: ControlPaths): ControlPaths {
  const real = realPathOf(control.root).toString("utf8");
  return real === control.root ? control : controlPaths(real);
}

/** True when another directory lies at the path than the one that is recorded. */
export function hasOtherRoot(workspace: PlacedWorkspace, folder: Buffer): boolean {
  const facts = statSync(folder, { bigint: true, throwIfNoEntry: false });
  return facts !== undefined && facts.ino.toString() !== workspace.root_inode;
}

/** True for the workspace beside a self-contained control directory, which is found by that, whatever its record says. */
export function liesBeside(controlFile: ControlFile, workspace: PlacedWorkspace): boolean {
  return controlFile.self_contained && workspace.name === MAIN_WORKSPACE;
}

interface SearchOptions {
  /** True: when nothing fits and a record cannot be read, that one may be it, so its problem is thrown. */
  strict?: boolean;
}

/** The workspace of a control directory that fits, null when none does. */
export function workspaceWhere(
  control: ControlPaths,
  fits: (workspace: PlacedWorkspace) => boolean,
  options: SearchOptions = {},
): PlacedWorkspace | null {
  let problem: CairnError | undefined;
  for (const listed of listWorkspaces(control)) {
    problem ??= listed.problem;
    if (listed.workspace !== null && !isReleased(listed.workspace) && fits(listed.workspace)) return listed.workspace;
  }
  if (problem !== undefined && options.strict === true) throw problem;
  return null;
}

/** The workspace that a control directory keeps at a path, or did until it was released; null when it has none there. */
export function workspaceOnceOf(control: ControlPaths, folder: Buffer): PlacedWorkspace | null {
  const kept = workspaceWhere(control, (each) => pathIs(each, folder));
  if (kept !== null) return kept;
  return (
    listWorkspaces(control).find(({ workspace }) => workspace !== null && pathIs(workspace, folder))?.workspace ?? null
  );
}

export function pathIs(workspace: PlacedWorkspace, folder: Buffer): boolean {
  return folder.equals(rawPath(workspace));
}

/** The control file, null also where a file of that name is somebody else's. */
function controlAt(control: ControlPaths): ControlFile | null {
  return existsSync(control.workspaces) ? readControl(control) : null;
}

/**
 * Others may write at a mount's root, and in the folder around another (`/tmp`): a control directory there counts only when
 * it is root's, ours or the folder owner's, beside the folder also when it belongs to whom the folder around both does.
 */
export function isTrusted(control: string, folder: Buffer): boolean {
  // Of a link, too: whoever made it chose what it leads to.
  const owners = [ownerOf(control, lstatSync), ownerOf(control)];
  const isBeside = parentOf(Buffer.from(control)).equals(parentOf(folder));
  const trusted = [0, process.geteuid?.(), ownerOf(folder), ...(isBeside ? [ownerOf(parentOf(folder))] : [])];
  return owners.every((owner) => owner !== undefined && trusted.includes(owner));
}

/** Throws `permission` for a control directory that this user may not enter: nothing tells what it keeps, so no other is begun. */
function requireOpen({ root }: ControlPaths, folder: Buffer): void {
  try {
    accessSync(root, constants.X_OK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EACCES") return;
    const owner = ownerOf(root);
    const isOwn = owner === process.geteuid?.();
    throw new CairnError(
      "permission",
      `the save points of ${printablePath(folder)} lie in ${root}, which is closed to you; it belongs to ${isOwn ? "you" : `the user ${owner}`}`,
      {
        hint: isOwn ? `open it: chmod u+rwx ${shellPath(root)}` : `work as that user: sudo -u '#${owner}' cairn …`,
        cause: error,
      },
    );
  }
}

function ownerOf(place: string | Buffer, look: typeof lstatSync = statSync): number | undefined {
  try {
    return look(place).uid;
  } catch {
    return undefined;
  }
}

function bySelfContained(folder: Buffer): Hit | null {
  const parent = parentOf(folder).toString("utf8");
  const control = controlPaths(join(parent, SELF_CONTAINED_CONTROL));
  if (!isTrusted(control.root, folder)) return null;
  const isCalledMain = basename(folder.toString("utf8")) === MAIN_WORKSPACE;
  if (isCalledMain) requireOpen(control, folder);
  const controlFile = controlAt(control);
  if (controlFile === null) {
    const isKept = (): boolean => isCalledMain || workspaceWhere(control, (each) => pathIs(each, folder)) !== null;
    if (lacksItsFile(control) && isKept()) throw fileIsMissing(control);
    return null;
  }
  const isMain = controlFile.self_contained && isCalledMain;
  const workspace = workspaceWhere(control, (each) => (isMain ? each.name === MAIN_WORKSPACE : pathIs(each, folder)), {
    strict: isMain,
  });
  if (workspace === null) return null;
  return { control, controlFile, workspace, folder, via: "self-contained" };
}

interface MountControl {
  readonly control: ControlPaths;
  /** null where it was lost */
  readonly controlFile: ControlFile | null;
  readonly workspaces: readonly PlacedWorkspace[];
}

/** What was read during one look-up; each mount's root is read once however many parents are asked for. */
class Lookup {
  readonly mounts: readonly Mount[] = readMounts();
  readonly #byMount = new Map<string, readonly MountControl[]>();

  mountControls(directory: string): readonly MountControl[] {
    let controls = this.#byMount.get(directory);
    if (controls === undefined) {
      controls = readMountControls(directory);
      this.#byMount.set(directory, controls);
    }
    return controls;
  }
}

function readMountControls(directory: string): MountControl[] {
  const controls: MountControl[] = [];
  for (const id of namesIn(directory)) {
    if (!/^[0-9a-f]{32}$/.test(id)) continue;
    const control = controlPaths(join(directory, id));
    try {
      const controlFile = controlAt(control);
      if (controlFile === null && !lacksItsFile(control)) continue;
      const workspaces = listWorkspaces(control).flatMap(({ workspace }) =>
        workspace === null || isReleased(workspace) ? [] : [workspace],
      );
      controls.push({ control, controlFile, workspaces });
    } catch {
      // Other users' directories cannot be read, and a damaged one of ours is met through the registry.
    }
  }
  return controls;
}

function byMountRoot(folder: Buffer, lookup: Lookup): Hit | null {
  const mount = resolveMount(folder, lookup.mounts);
  if (mount === null) return null;
  const inMount = folder.subarray(
    Math.min(folder.length, mount.mountPoint.length === 1 ? 1 : mount.mountPoint.length + 1),
  );
  for (const { control, controlFile, workspaces } of lookup.mountControls(
    join(mount.mountPoint.toString("utf8"), MOUNT_CONTROL),
  )) {
    const workspace = workspaces.find((each) =>
      each.mount_path === undefined ? pathIs(each, folder) : inMount.equals(rawPath(each.mount_path)),
    );
    if (workspace === undefined || !isTrusted(control.root, folder)) continue;
    if (controlFile === null) throw fileIsMissing(control);
    return { control, controlFile, workspace, folder, via: "mount-root" };
  }
  return null;
}

/** The command that tells where a control directory lies now. */
export function movedControlLine(from: RawPath, to: RawPath): string {
  return `cairn --control-dir DIR relocate ${shellPath(from)} ${shellPath(to)}`;
}

/** Also where only a part of it is missing, which is said. Throws `permission` for one that is closed to this user. */
function controlIsMissing(folder: Buffer, registration: Registration): CairnError {
  const root = controlOf(registration);
  const kept = `${printablePath(folder)} is kept in ${root}`;
  const names = namesIfThere(root);
  if (names.length > 0) {
    const lost = ["cairn.json", "workspaces"].filter((name) => !names.includes(name));
    return new CairnError("not_found", `${kept}, where ${lost.join(" and ")} is missing`, {
      hint: `put that back from a copy, or forget the folder with: cairn release ${shellPath(folder)}`,
    });
  }
  return new CairnError("not_found", `${kept}, which is not there`, {
    hint: `mount or restore that folder; where it was moved: ${movedControlLine(folder, folder)}; or forget it with: cairn release ${shellPath(folder)}`,
  });
}

/** The last workspace that is released takes its control directory along: without any, this folder's was lost. */
function recordIsMissing(folder: Buffer, control: ControlPaths): CairnError {
  const shown = printablePath(folder);
  return new CairnError(
    "damaged",
    `${shown} is kept in ${control.root}, where the records of its workspace are missing`,
    {
      hint: `${wayWithout(control, "them")}; or forget the folder with: cairn release ${shellPath(folder)}`,
    },
  );
}

function byRegistry(folder: Buffer): Hit | null {
  const registration = readRegistration(folder);
  if (registration === null) return null;
  const control = controlPaths(controlOf(registration));
  const controlFile = controlAt(control);
  if (controlFile === null) throw controlIsMissing(folder, registration);
  const workspace = workspaceWhere(control, (each) => each.id === registration.workspace_id, { strict: true });
  if (workspace === null && listWorkspaces(control).length === 0) throw recordIsMissing(folder, control);
  // Its workspace may have been relocated or released by somebody with another registry.
  if (workspace === null || !pathIs(workspace, folder)) return null;
  return { control, controlFile, workspace, folder, via: "registry" };
}

function lookUp(folder: Buffer, lookup: Lookup): FoundWorkspace | null {
  const hit = bySelfContained(folder) ?? byMountRoot(folder, lookup) ?? byRegistry(folder);
  return hit === null ? null : found(hit);
}

/** The workspace whose folder is exactly this real path. */
export function workspaceAt(folder: Buffer): FoundWorkspace | null {
  return lookUp(folder, new Lookup());
}

/** The nearest workspace whose folder lies strictly above a real path. */
export function workspaceAbove(folder: Buffer): FoundWorkspace | null {
  const lookup = new Lookup();
  for (let above = folder; above.length > 1;) {
    above = parentOf(above);
    const workspace = lookUp(above, lookup);
    if (workspace !== null) return workspace;
  }
  return null;
}

function folderOf(control: ControlPaths, controlFile: ControlFile, workspace: PlacedWorkspace): Buffer {
  const isBeside = liesBeside(controlFile, workspace);
  return Buffer.from(isBeside ? join(dirname(control.root), MAIN_WORKSPACE) : rawPath(workspace));
}

/** The main workspace of a control directory, or its only one; null when it has none. */
function mainWorkspace(control: ControlPaths, via: FoundWorkspace["via"]): FoundWorkspace | null {
  const controlFile = controlAt(control);
  if (controlFile === null) {
    if (lacksItsFile(control)) throw fileIsMissing(control);
    return null;
  }
  const workspace =
    workspaceWhere(control, (each) => each.name === MAIN_WORKSPACE) ??
    workspaceWhere(control, () => true, { strict: true });
  if (workspace === null) return null;
  return found({ control, controlFile, workspace, folder: folderOf(control, controlFile, workspace), via });
}

/** A workspace of a control directory, also one that was released. Throws `not_found` when the directory is not there. */
export function workspaceIn(control: ControlPaths, workspace: PlacedWorkspace): FoundWorkspace {
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${control.root} is not there any more`);
  return found({
    control,
    controlFile,
    workspace,
    folder: folderOf(control, controlFile, workspace),
    via: "control-directory",
  });
}

/** A workspace of an open control directory by name, null when unknown. */
export function workspaceNamed(control: ControlPaths, name: string): FoundWorkspace | null {
  if (readControl(control) === null) return null;
  const workspace = workspaceWhere(control, (each) => each.name === name);
  return workspace === null ? null : workspaceIn(control, workspace);
}

/**
 * The workspace that `path` means: itself a control directory, a self-contained root or a workspace's folder; unless
 * `exact` also the nearest workspace above. Null when nothing is found: then, and only then, it may be adopted.
 * Throws `not_found` when the registry knows the folder but its control directory is not there, `damaged`, `newer_version`.
 */
export function findWorkspace(path: RawPath, options: FindOptions = {}): FoundWorkspace | null {
  const real = realPathOf(path);
  const text = real.toString("utf8");
  const self = mainWorkspace(controlPaths(text), "control-directory");
  if (self !== null) requireTrusted(self);
  const inside = self ?? selfContainedRoot(text);
  if (inside !== null) return inside;
  const lookup = new Lookup();
  for (let folder = real; ; folder = parentOf(folder)) {
    const workspace = lookUp(folder, lookup);
    if (workspace !== null || options.exact === true || folder.length === 1) return workspace;
  }
}

/** Whoever made a control directory that somebody merely stands in chose the folder that it names. */
function requireTrusted({ control, folder }: FoundWorkspace): void {
  let there = folder;
  while (there.length > 1 && !existsSync(there)) there = parentOf(there);
  // Of a file system that gives everything to one user, what this process makes there tells.
  if (isTrusted(control.root, there) || ownerBesidesUs(control.file) === null) return;
  throw new CairnError(
    "refused",
    `${control.root} is the control directory of ${printablePath(folder)}, which is not its owner's`,
    { hint: `to use it all the same: -C ${shellPath(folder)} --control-dir ${shellPath(control.root)}` },
  );
}

function selfContainedRoot(root: string): FoundWorkspace | null {
  const control = controlPaths(join(root, SELF_CONTAINED_CONTROL));
  const main = Buffer.from(join(root, MAIN_WORKSPACE));
  if (!isTrusted(control.root, main)) return null;
  if (existsSync(main)) requireOpen(control, main);
  return controlAt(control)?.self_contained === true || lacksItsFile(control)
    ? mainWorkspace(control, "self-contained")
    : null;
}

/** The workspace of a control directory that is named by hand (`--control-dir`). Throws `not_a_workspace`. */
export function openControlDirectory(root: string, folder?: RawPath): FoundWorkspace {
  const control = controlPaths(root);
  const controlFile = readControl(control);
  const real = folder === undefined ? null : realPathOf(folder);
  const workspace =
    controlFile === null || real === null ? null : workspaceWhere(control, (each) => pathIs(each, real));
  if (controlFile !== null && workspace !== null && real !== null)
    return found({ control, controlFile, workspace, folder: real, via: "control-directory" });
  const main = folder === undefined ? mainWorkspace(control, "control-directory") : null;
  if (main !== null) return main;
  throw new CairnError(
    "not_a_workspace",
    controlFile === null ? `${root} is no control directory` : `${root} does not keep that folder`,
    {
      hint: "see `cairn workspaces`",
    },
  );
}
