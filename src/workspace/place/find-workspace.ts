import { type BigIntStats, existsSync, lstatSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { WorkspaceRef } from "../../contract/words.ts";
import {
  advice,
  CairnError,
  call,
  either,
  type ErrorCode,
  type Hint,
  isMountDead,
  line,
  reworded,
  see,
  toCairnError,
  word,
} from "../../errors.ts";
import type { ControlFile } from "../../formats/records/control.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import type { Registration } from "../../formats/records/registration.ts";
import { keepsInodes, mountsInside, placeOnDevice, readMounts, resolveMount } from "../../fs/linux/mounts.ts";
import { namesIfThere, namesIn } from "../../fs/paths/names-in.ts";
import { isSilent, requireAnswer, silentPlace } from "../../fs/silent-mounts.ts";
import {
  displayPath,
  printablePath,
  rawBytes,
  type RawPath,
  shellPath,
  listedNames,
} from "../../fs/paths/safe-path.ts";
import {
  fileIsMissing,
  isFolderThere,
  isReleased,
  isOnFileSystemOf,
  lacksItsFile,
  type ListedWorkspace,
  listWorkspaces,
  madeAt,
  type PlacedWorkspace,
  readControl,
  readWorkspace,
  recordFolder,
  wayWithout,
  writeWorkspace,
} from "./control-directory.ts";
import {
  type ControlPaths,
  controlPaths,
  MAIN_WORKSPACE,
  MOUNT_CONTROL,
  SELF_CONTAINED_CONTROL,
  type WorkspacePaths,
  workspacePaths,
} from "./control-layout.ts";
import { requireNotDaemons } from "./daemon-marks.ts";
import { isTrusted, ownerBesidesUs, requireOpen } from "./owners.ts";
import {
  controlOf,
  entryOf,
  listDaemons,
  listRegistered,
  listSelfContained,
  noteAtFolder,
  ownNoteAt,
  readRegistration,
  realOrItself,
  registerWorkspace,
} from "./registry.ts";

/**
 * Finds a folder's workspace: by a control directory beside it or at the root of its mount, else by the registry. Also
 * checks whether a workspace that was found earlier is still there.
 */

export interface FoundWorkspace {
  /** Real path of the folder, which may be missing. */
  readonly folder: Buffer;
  /** The control directory at its real path. */
  readonly control: ControlPaths;
  /** The path that led to the control directory; absent: its real path. */
  readonly recordedControl?: string;
  readonly controlFile: ControlFile;
  readonly workspace: PlacedWorkspace;
  readonly paths: WorkspacePaths;
  /** The final path of a fork that is still being made. */
  readonly recordedFolder?: Buffer;
}

/** The real path. If the path is missing, the real path of the existing part, with the rest as given. */
export function realPathOf(path: RawPath): Buffer {
  const bytes = rawBytes(path);
  requireAnswer(bytes);
  try {
    return realpathSync.native(bytes, "buffer");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT" && !isMountDead(error))
      throw toCairnError(error, `resolve ${printablePath(bytes)}`);
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

/** Resolves a control directory to its real path now: the owner of a link in the path could change its target later. */
export function atRealPath(control: ControlPaths): ControlPaths {
  const real = realPathOf(control.root).toString("utf8");
  return real === control.root ? control : controlPaths(real);
}

/** A control directory that was read, and one of its workspaces. */
interface Kept {
  readonly control: ControlPaths;
  readonly controlFile: ControlFile;
  readonly workspace: PlacedWorkspace;
}

/** `folder` absent: the recorded one, or `main` beside a self-contained control directory. */
function found(kept: Kept, folder?: Buffer): FoundWorkspace {
  const { controlFile, workspace } = kept;
  const control = atRealPath(kept.control);
  const recorded = liesBeside(controlFile, workspace)
    ? join(dirname(kept.control.root), MAIN_WORKSPACE)
    : rawPath(workspace);
  return {
    folder: folder ?? Buffer.from(recorded),
    control,
    recordedControl: kept.control.root,
    controlFile,
    workspace,
    paths: workspacePaths(control, workspace.name),
  };
}

/** The form of a workspace in results. */
export function workspaceRef({ folder, control, controlFile, workspace }: FoundWorkspace): WorkspaceRef {
  return {
    name: workspace.name,
    ...displayPath(folder),
    id: workspace.id,
    engine: controlFile.engine as WorkspaceRef["engine"],
    control_directory: control.root,
  };
}

/** True if the directory at the path is not the recorded one. */
function hasOtherRoot(workspace: PlacedWorkspace, folder: Buffer): boolean {
  const facts = statSync(folder, { bigint: true, throwIfNoEntry: false });
  if (facts === undefined) return false;
  if (facts.ino.toString() !== workspace.root_inode) return true;
  const made = workspace.root_made === undefined ? null : madeAt(folder);
  return made !== null && made !== workspace.root_made;
}

/** True for the workspace beside a self-contained control directory, which leads to the workspace whatever its record says. */
export function liesBeside(controlFile: ControlFile, workspace: PlacedWorkspace): boolean {
  return controlFile.self_contained && workspace.name === MAIN_WORKSPACE;
}

export function pathIs(workspace: PlacedWorkspace, folder: Buffer): boolean {
  return folder.equals(rawPath(workspace));
}

/** Returns the first workspace for which `fits` is true and that is not released; null if there is none. */
export function keptWorkspace(
  listed: readonly ListedWorkspace[],
  fits: (workspace: PlacedWorkspace) => boolean,
): PlacedWorkspace | null {
  return (
    listed.find(({ workspace }) => workspace !== null && !isReleased(workspace) && fits(workspace))?.workspace ?? null
  );
}

/**
 * Like {@link keptWorkspace}. If no workspace fits, throws the problem of an unreadable record: that workspace may fit.
 */
export function requireReadable(
  listed: readonly ListedWorkspace[],
  fits: (workspace: PlacedWorkspace) => boolean,
): PlacedWorkspace | null {
  const workspace = keptWorkspace(listed, fits);
  const problem = workspace === null ? listed.find((each) => each.problem !== undefined)?.problem : undefined;
  if (problem !== undefined) throw problem;
  return workspace;
}

/**
 * Returns the control directory's workspace with this folder, preferably one that is not released; null if there is
 * none.
 */
export function workspaceOnceOf(control: ControlPaths, folder: Buffer): PlacedWorkspace | null {
  const there = listWorkspaces(control).flatMap(({ workspace }) =>
    workspace !== null && pathIs(workspace, folder) ? [workspace] : [],
  );
  return there.find((workspace) => !isReleased(workspace)) ?? there[0] ?? null;
}

/** The control file; null also if another program's file has that name. */
function controlAt(control: ControlPaths): ControlFile | null {
  return existsSync(control.workspaces) ? readControl(control) : null;
}

interface NearControl {
  readonly control: ControlPaths;
  /** Null if the file was lost. */
  readonly controlFile: ControlFile | null;
  readonly listed: readonly ListedWorkspace[];
}

/** Null if the path is no control directory. */
function readNear(control: ControlPaths): NearControl | null {
  const controlFile = controlAt(control);
  if (controlFile === null && !lacksItsFile(control)) return null;
  return { control, controlFile, listed: listWorkspaces(control) };
}

/**
 * Control directories by their root, as last read; null if read once, since most processes search only once. A search reads all
 * of a mount's, and few have changed.
 */
const lastRead = new Map<string, { files: readonly string[]; stamp: string; near: NearControl } | null>();
const MOST_KNOWN = 10_000;
const SETTLED_MS = 3000;

/** Like {@link readNear}, but uses the last result if its files are unchanged. */
function readNearAgain(root: string): NearControl | null {
  const known = lastRead.get(root);
  const control = controlPaths(root);
  if (known === undefined && lastRead.size < MOST_KNOWN) {
    lastRead.set(root, null);
    return readNear(control);
  }
  if (known && stampOf(known.files).text === known.stamp) return known.near;
  lastRead.delete(root);
  const first = readNear(control);
  if (first === null || first.controlFile === null || first.listed.some((each) => each.workspace === null))
    return first;
  const records = first.listed.map(({ name }) => workspacePaths(control, name).file);
  const files = [control.file, control.workspaces, ...records];
  // Read again after taking the stamp: a later change has another stamp.
  const stamp = stampOf(files);
  const near = readNear(control);
  // Do not remember a directory with an entry that may become a workspace, or with files changed just now: a coarse
  // clock may give the next change the same time.
  const isKnown = namesIn(control.workspaces).length === records.length && stamp.newest < Date.now() - SETTLED_MS;
  if (near !== null && isKnown && lastRead.size < MOST_KNOWN) lastRead.set(root, { files, stamp: stamp.text, near });
  return near;
}

/** Inode and change time of each file. Records are replaced, never overwritten. */
function stampOf(files: readonly string[]): { text: string; newest: number } {
  let [text, newest] = ["", 0];
  for (const file of files) {
    const facts = lstatSync(file, { bigint: true, throwIfNoEntry: false });
    text += `${facts?.ino}:${facts?.ctimeNs} `;
    newest = Math.max(newest, Number(facts?.ctimeMs ?? 0n));
  }
  return { text, newest };
}

/** Throws `damaged` if the workspace's control directory has lost its file. */
function foundNear({ control, controlFile }: NearControl, workspace: PlacedWorkspace, folder: Buffer): FoundWorkspace {
  if (controlFile === null) throw fileIsMissing(control);
  return found({ control, controlFile, workspace }, folder);
}

/** The workspace that a control directory beside the folder keeps at the folder's path. */
function keptBeside(folder: Buffer): FoundWorkspace | null {
  const control = controlPaths(join(parentOf(folder).toString("utf8"), SELF_CONTAINED_CONTROL));
  if (!isTrusted(control.root, folder)) return null;
  const isCalledMain = basename(folder.toString("utf8")) === MAIN_WORKSPACE;
  if (isCalledMain) requireOpen(control, folder);
  const near = readNear(control);
  if (near === null) return null;
  if (isCalledMain && near.controlFile === null) throw fileIsMissing(control);
  const workspace =
    isCalledMain && near.controlFile?.self_contained === true
      ? requireReadable(near.listed, ({ name }) => name === MAIN_WORKSPACE)
      : keptWorkspace(near.listed, (each) => pathIs(each, folder));
  return workspace === null ? null : foundNear(near, workspace, folder);
}

/** Looks folders up. Reads each mount's root only once, for any number of parents of a folder. */
class Lookup {
  readonly #mounts = readMounts();
  readonly #atMounts = new Map<string, readonly NearControl[]>();
  /** Folders of all known workspaces. `known` is the workspace's record, if the folder cannot be seen from here. */
  #identities: readonly { folder: Buffer; identity: string; known?: PlacedWorkspace }[] | undefined;

  /** The workspace whose folder is exactly this real path. Throws `no_daemon` if only root's daemon can open it. */
  at(folder: Buffer): FoundWorkspace | null {
    const workspace = keptBeside(folder) ?? this.#keptAtMount(folder) ?? keptByRegistry(folder);
    if (workspace !== null) return workspace;
    requireNotDaemons(folder);
    this.#requireFirstName(folder);
    return keptByNote(folder);
  }

  /** Throws `refused` if a folder is a workspace's folder at a second place, such as a bind mount. */
  #requireFirstName(folder: Buffer): void {
    const facts = statSync(folder, { bigint: true, throwIfNoEntry: false });
    const first = facts === undefined ? undefined : this.#workspaceOf(folder, identityOf(facts));
    if (first === undefined) return;
    const [name, isHere] = [printablePath(first), existsSync(first)];
    throw new CairnError(
      "refused",
      `${printablePath(folder)} is the folder of the workspace ${name}, mounted at a second place`,
      {
        hint: isHere
          ? advice`use the first name, so that the folder has one history and one lock: ${line(`-C ${shellPath(first)} …`, "open", name)}`
          : `that name is not visible here: mount the folder at ${name} in this container, too`,
        details: { workspace: displayPath(first) },
      },
    );
  }

  /** Device and inode name a directory; on btrfs each subvolume has a device of its own. */
  #workspaceOf(folder: Buffer, identity: string): Buffer | undefined {
    this.#identities ??= [...listRegistered(), ...listDaemons(), ...listSelfContained()].flatMap(
      ({ registration, missing }) => {
        if (registration === null || missing.includes("control")) return [];
        const there = Buffer.from(rawPath(registration));
        const facts = this.#statIfOpen(there);
        if (facts !== null) return [{ folder: there, identity: identityOf(facts) }];
        const known = missing.length > 0 ? recordOf(registration) : null;
        return known === null ? [] : [{ folder: there, identity: `${known.device}:${known.root_inode}`, known }];
      },
    );
    return this.#identities.find(
      (each) =>
        each.identity === identity &&
        // A registered path that is a link to the folder now: the folder was moved.
        !realOrItself(each.folder, this.#mounts).equals(folder) &&
        (each.known === undefined || this.#isMountOf(folder, each.known)),
    )?.folder;
  }

  #statIfOpen(folder: Buffer): BigIntStats | null {
    try {
      return isSilent(folder, this.#mounts)
        ? null
        : (statSync(folder, { bigint: true, throwIfNoEntry: false }) ?? null);
    } catch {
      // Its parent is closed to this user, or its file system does not answer.
      return null;
    }
  }

  /** True if a folder has the recorded path in its file system. A folder that was renamed has another one. */
  #isMountOf(folder: Buffer, known: PlacedWorkspace): boolean {
    const is = placeOnDevice(folder, this.#mounts)?.inside;
    if (is === undefined || known.mount_point === undefined) return false;
    // Another file system may have got the device number since.
    if (!keepsInodes(folder) || isOnFileSystemOf(known, folder) === false) return false;
    const [was, point] = [Buffer.from(rawPath(known)), rawPath(known.mount_point)];
    const below = was.subarray(point.length === 1 ? 0 : point.length);
    return below.length > 1 && is.subarray(-below.length).equals(below);
  }

  /** The workspace that a control directory at the root of the folder's mount keeps, whatever the mount point. */
  #keptAtMount(folder: Buffer): FoundWorkspace | null {
    const mount = resolveMount(folder, this.#mounts);
    if (mount === null) return null;
    const start = mount.mountPoint.length === 1 ? 1 : mount.mountPoint.length + 1;
    const inMount = folder.subarray(Math.min(folder.length, start));
    const fits = (each: PlacedWorkspace): boolean =>
      each.mount_path === undefined ? pathIs(each, folder) : inMount.equals(rawPath(each.mount_path));
    for (const near of this.#controlsAt(join(mount.mountPoint.toString("utf8"), MOUNT_CONTROL))) {
      const workspace = keptWorkspace(near.listed, fits);
      if (workspace !== null && isTrusted(near.control.root, folder)) return foundNear(near, workspace, folder);
    }
    return null;
  }

  #controlsAt(directory: string): readonly NearControl[] {
    const known = this.#atMounts.get(directory);
    if (known !== undefined) return known;
    const controls = namesIn(directory).flatMap((id) => {
      if (!/^[0-9a-f]{32}$/.test(id)) return [];
      try {
        return readNearAgain(`${directory}/${id}`) ?? [];
      } catch {
        // This user cannot read another user's control directory. The registry finds a damaged one of this user.
        return [];
      }
    });
    this.#atMounts.set(directory, controls);
    return controls;
  }
}

function identityOf({ dev, ino }: { dev: bigint; ino: bigint }): string {
  return `${dev}:${ino}`;
}

function recordOf(registration: Registration): PlacedWorkspace | null {
  try {
    return readWorkspace(controlPaths(controlOf(registration)), registration.workspace_name);
  } catch {
    // Commands on that workspace report its problem.
    return null;
  }
}

function keptByRegistry(folder: Buffer): FoundWorkspace | null {
  const registration = readRegistration(folder);
  return registration === null ? null : keptBy(registration, folder);
}

/** The workspace in this user's note at the folder, for example after the state directory was lost. */
function keptByNote(folder: Buffer): FoundWorkspace | null {
  const note = ownNoteAt(folder);
  if (note === null) return null;
  const control = controlPaths(controlOf(note));
  if (existsSync(control.root) && !isTrusted(control.root, folder)) return null;
  const found = keptBy(note, folder);
  const once = found === null ? recordOf(note) : null;
  if (once === null || isReleased(once) || movedHere(folder) !== null) return found;
  const [was, now] = [Buffer.from(rawPath(once)), printablePath(folder)];
  throw new CairnError(
    "refused",
    `${now} is the workspace ${printablePath(was)}, whose save points lie in ${control.root}`,
    {
      hint: advice`if you moved it: ${movedControlLine(was, folder, control.root)}`,
    },
  );
}

function keptBy(registration: Registration, folder: Buffer): FoundWorkspace | null {
  const control = controlPaths(controlOf(registration));
  requireAnswer(control.root);
  const controlFile = controlAt(control);
  if (controlFile === null) throw controlIsMissing(folder, registration);
  const listed = listWorkspaces(control);
  // Releasing the last workspace removes the control directory, so an empty one has lost its workspaces.
  if (listed.length === 0)
    throw new CairnError(
      "damaged",
      `${printablePath(folder)} has its save points in ${control.root}, where the records of the workspace are missing`,
      { hint: advice`${wayWithout(control, "them")}; or forget the folder with: ${forgetLine(folder)}` },
    );
  const workspace = requireReadable(listed, (each) => each.id === registration.workspace_id);
  if (workspace === null && (controlFile.id !== registration.control_id || !isTrusted(control.root, folder)))
    throw new CairnError(
      "not_found",
      `${printablePath(folder)} had its save points in ${control.root}, where another control directory lies now`,
      { hint: waysWithoutControl(folder) },
    );
  // A user with another registry may have relocated or released the workspace.
  if (workspace === null || !pathIs(workspace, folder)) return null;
  return found({ control, controlFile, workspace }, folder);
}

/** The command that connects a folder with a control directory that was moved. */
export function movedControlLine(from: RawPath, to: RawPath, control?: string): Hint {
  const [was, now] = [printablePath(from), printablePath(to)];
  const place = control === undefined ? "DIR" : shellPath(control);
  const command = `--control-dir ${place} relocate ${shellPath(from)} ${shellPath(to)}`;
  return line(command, "relocate", was, now, { controlDirectory: control ?? word("controlDirectory") });
}

/**
 * The error of a control directory that has save points of folders that this user never had here, for example because
 * it was copied to another machine, and none of `folder`. Null if it has no such folders.
 */
export function hasPointsOfMissing(control: ControlPaths, folder: Buffer, code: ErrorCode): CairnError | null {
  if (!existsSync(control.workspaces)) return null;
  const missing = listWorkspaces(control).flatMap(({ workspace }) => {
    const place = workspace === null || isReleased(workspace) ? null : Buffer.from(rawPath(workspace));
    return place === null || isFolderThere(place) || isKeptHere(place, control) ? [] : [place];
  });
  if (missing.length === 0) return null;
  const names = listedNames(missing.map(printablePath));
  return new CairnError(
    code,
    `${printablePath(control.root)} has the save points of ${names}, which ${missing.length === 1 ? "is" : "are"} not there, and none of ${printablePath(folder)}`,
    {
      hint: advice`if ${printablePath(folder)} is that folder: ${movedControlLine(missing[0]!, folder, control.root)}; if it is another folder, name another control directory`,
    },
  );
}

/** True if this user's registry has the folder with this control directory: then the folder was deleted, not left elsewhere. */
function isKeptHere(folder: Buffer, { root }: ControlPaths): boolean {
  const registration = readRegistration(folder);
  return registration !== null && controlOf(registration) === root;
}

/** Makes the error for a missing or incomplete control directory. Throws `permission` if this user may not enter it. */
function controlIsMissing(folder: Buffer, registration: Registration): CairnError {
  const root = controlOf(registration);
  const kept = `${printablePath(folder)} has its save points in ${root}`;
  const names = namesIfThere(root);
  if (names.length > 0) {
    const lost = ["cairn.json", "workspaces"].filter((name) => !names.includes(name));
    return new CairnError("not_found", `${kept}, where ${lost.join(" and ")} is missing`, {
      hint: advice`put the missing files back from a copy, or forget the folder with: ${forgetLine(folder)}`,
    });
  }
  return new CairnError("not_found", `${kept}, which is missing`, { hint: waysWithoutControl(folder) });
}

/** The command that removes a folder from the registry if its save points are lost. */
const forgetLine = (folder: Buffer): Hint => line(`release ${shellPath(folder)}`, "forget", printablePath(folder));

function waysWithoutControl(folder: Buffer): Hint {
  return advice`mount or restore the folder with the save points; if you moved it: ${movedControlLine(folder, folder)}; or forget the folder with: ${forgetLine(folder)}`;
}

/** The workspace whose folder is exactly this real path. */
export function workspaceAt(folder: Buffer): FoundWorkspace | null {
  return new Lookup().at(folder);
}

/** The nearest workspace whose folder lies strictly above a real path. */
export function workspaceAbove(folder: Buffer): FoundWorkspace | null {
  return folder.length === 1 ? null : nearest(parentOf(folder));
}

function nearest(folder: Buffer): FoundWorkspace | null {
  const lookup = new Lookup();
  for (let at = folder; at.length > 1; at = parentOf(at)) {
    const workspace = lookup.at(at);
    if (workspace !== null) return workspace;
  }
  return lookup.at(Buffer.from("/"));
}

/** The main workspace of a control directory, or its only one; null if it has none. */
function mainWorkspace(control: ControlPaths): FoundWorkspace | null {
  const near = readNear(control);
  if (near === null) return null;
  if (near.controlFile === null) throw fileIsMissing(control);
  const workspace =
    keptWorkspace(near.listed, ({ name }) => name === MAIN_WORKSPACE) ?? requireReadable(near.listed, () => true);
  return workspace === null ? null : found({ control, controlFile: near.controlFile, workspace });
}

/** A workspace of a control directory, released ones included. Throws `not_found` if the control directory is gone. */
export function workspaceIn(control: ControlPaths, workspace: PlacedWorkspace): FoundWorkspace {
  const controlFile = readControl(control);
  if (controlFile === null) throw new CairnError("not_found", `${control.root} no longer exists`);
  return found({ control, controlFile, workspace });
}

/** A workspace of a control directory by its name; null if there is none. */
export function workspaceNamed(control: ControlPaths, name: string): FoundWorkspace | null {
  const controlFile = readControl(control);
  if (controlFile === null) return null;
  const workspace = keptWorkspace(listWorkspaces(control), (each) => each.name === name);
  return workspace === null ? null : found({ control, controlFile, workspace });
}

interface FindOptions {
  /** True: only this folder, control directory or self-contained root; false: the nearest folder at or above. */
  exact?: boolean;
}

/**
 * Finds the workspace of `path`: a control directory, self-contained root or workspace's folder; unless `exact`, also a
 * path inside. Null: `path` may become a workspace. Throws `not_found` if a registered control directory is gone, `no_daemon`
 * for a folder of root's daemon, `damaged`, `newer_version`.
 */
export function findWorkspace(path: RawPath, options: FindOptions = {}): FoundWorkspace | null {
  for (let at = silentPlace(path); at !== null; at = options.exact === true || at.length === 1 ? null : parentOf(at)) {
    const workspace = keptByRegistry(at);
    if (workspace !== null) return workspace;
  }
  const real = realPathOf(path);
  const text = real.toString("utf8");
  const self = mainWorkspace(controlPaths(text));
  if (self !== null) requireTrusted(self);
  const inside = self ?? selfContainedRoot(text);
  if (inside !== null) return inside;
  return options.exact === true ? workspaceAt(real) : nearest(real);
}

/** Throws `refused` if a control directory and its folder have different owners: the owner of the directory chose the folder. */
function requireTrusted({ control, folder }: FoundWorkspace): void {
  let there = folder;
  while (there.length > 1 && !existsSync(there)) there = parentOf(there);
  // Some file systems show one owner for all files, also for those of this process.
  if (isTrusted(control.root, there) || ownerBesidesUs(control.file) === null) return;
  throw new CairnError(
    "refused",
    `${control.root} is the control directory of ${printablePath(folder)}, but the two have different owners`,
    {
      hint: advice`to use it all the same: ${either(`-C ${shellPath(folder)} --control-dir ${shellPath(control.root)}`, call("open", "open", printablePath(folder), { controlDirectory: control.root }))}`,
    },
  );
}

function selfContainedRoot(root: string): FoundWorkspace | null {
  const control = controlPaths(join(root, SELF_CONTAINED_CONTROL));
  const main = Buffer.from(join(root, MAIN_WORKSPACE));
  if (!isTrusted(control.root, main)) return null;
  if (existsSync(main)) requireOpen(control, main);
  return controlAt(control)?.self_contained === true || lacksItsFile(control) ? mainWorkspace(control) : null;
}

/** Finds a workspace of the control directory in `--control-dir`. Throws `not_a_workspace`. */
export function openControlDirectory(root: string, folder?: RawPath): FoundWorkspace {
  const control = controlPaths(root);
  requireAnswer(root);
  const controlFile = readControl(control);
  if (folder === undefined) {
    const main = mainWorkspace(control);
    if (main !== null) return main;
  } else if (controlFile !== null) {
    const real = silentPlace(folder) ?? realPathOf(folder);
    const workspace = keptWorkspace(listWorkspaces(control), (each) => pathIs(each, real));
    if (workspace !== null) return found({ control, controlFile, workspace }, real);
    const others = hasPointsOfMissing(control, real, "not_a_workspace");
    if (others !== null) throw others;
  }
  const why = controlFile === null ? "is not a control directory" : "has no save points of that folder";
  throw new CairnError("not_a_workspace", `${root} ${why}`, { hint: see("workspaces", "listWorkspaces") });
}

/**
 * Reads the records of an opened workspace again. Throws `conflict` if its folder was relocated (new path in the
 * details) or its control directory is another one now, `not_found` if the directory is gone, `not_a_workspace` if the
 * workspace was released.
 */
export function foundAgain(then: FoundWorkspace): FoundWorkspace {
  return { ...then, controlFile: requireSameControl(then), workspace: requireStillKept(then) };
}

/** Reads the control directory's file again. Throws `conflict` or `not_found` like {@link foundAgain}. */
export function requireSameControl(then: FoundWorkspace): ControlFile {
  const now = readControl(then.control);
  if (now === null) throw controlGone(then);
  if (now.id !== then.controlFile.id) throw controlReplaced(then);
  return now;
}

/** Reads the workspace's record again, after a wait for its lock. Throws like {@link foundAgain}. */
export function requireStillKept(then: FoundWorkspace): PlacedWorkspace {
  const { control, folder, workspace } = then;
  const now = readWorkspace(control, workspace.name);
  if (now === null) {
    if (readControl(control) === null) throw controlGone(then);
    throw new CairnError(
      "not_found",
      `the workspace ${JSON.stringify(workspace.name)} of ${printablePath(folder)} no longer exists`,
      { hint: advice`${call("workspaces", "listWorkspaces")} lists all workspaces` },
    );
  }
  if (now.id !== workspace.id) throw controlReplaced(then);
  if (!isSamePlace(then, now)) {
    const moved = rawPath(now);
    throw new CairnError(
      "conflict",
      `${printablePath(folder)} is no longer this workspace's folder: the workspace was relocated to ${printablePath(moved)}`,
      goOnAt(moved),
    );
  }
  if (isReleased(now) && !isReleased(workspace))
    throw new CairnError("not_a_workspace", `${printablePath(folder)} was released, and is no longer a workspace`, {
      hint: advice`${call(`save ${shellPath(folder)}`, "openOrInit", printablePath(folder))} makes it a workspace again, with its earlier points`,
    });
  return now;
}

/** Compares the recorded paths; if both records have a path inside a mount, these paths and the file systems. */
function isSamePlace({ controlFile, workspace: then }: FoundWorkspace, now: PlacedWorkspace): boolean {
  if (liesBeside(controlFile, then) || pathIs(now, Buffer.from(rawPath(then)))) return true;
  if (then.mount_path === undefined || now.mount_path === undefined) return false;
  const isSamePath = Buffer.from(rawPath(then.mount_path)).equals(rawPath(now.mount_path));
  return isSamePath && then.filesystem_uuid === now.filesystem_uuid;
}

function goOnAt(folder: string | Uint8Array): { hint: Hint; details: Record<string, unknown> } {
  return {
    hint: advice`use the new path: ${line(`-C ${shellPath(folder)} …`, "open", printablePath(folder))}`,
    details: { relocated_to: displayPath(folder) },
  };
}

/** Error codes that a missing control directory can cause, when one of its files is read. */
const SEEN_WITHOUT_CONTROL: readonly ErrorCode[] = ["damaged", "not_found", "conflict", "io"];

/** Replaces the error of a call by a clearer one if the control directory is gone, for example unmounted. */
export function unlessControlIsGone(then: FoundWorkspace, error: unknown): unknown {
  if (!SEEN_WITHOUT_CONTROL.includes(toCairnError(error).code)) return error;
  try {
    if (lstatSync(then.control.file, { throwIfNoEntry: false }) !== undefined) return error;
  } catch (unknown) {
    // A file system that does not answer still exists.
    if (!isMountDead(unknown)) return error;
  }
  return reworded(controlGone(then), { cause: error });
}

function controlGone(then: FoundWorkspace): CairnError {
  const message = `${then.control.root}, with the save points of ${printablePath(then.folder)}, no longer exists`;
  return withPresentPlace(then, "not_found", message);
}

function controlReplaced(then: FoundWorkspace): CairnError {
  const message = `${then.control.root} no longer belongs to the workspace that was opened at ${printablePath(then.folder)}`;
  return withPresentPlace(then, "conflict", message);
}

/** Makes an error that names the present path if the registry has one. */
function withPresentPlace(then: FoundWorkspace, code: "not_found" | "conflict", message: string): CairnError {
  const known = [...listRegistered(), ...listSelfContained()].find(
    ({ registration, missing }) =>
      missing.length === 0 &&
      registration?.workspace_id === then.workspace.id &&
      controlOf(registration) !== then.control.root,
  )?.registration;
  if (known === undefined || known === null)
    return new CairnError(code, message, {
      hint: advice`mount it if it was unmounted; open the workspace at its new path if it was moved: ${call("workspaces", "listWorkspaces")} lists all workspaces`,
    });
  const folder = rawPath(known);
  const place = `the workspace is at ${printablePath(folder)} now, with its save points in ${controlOf(known)}`;
  return new CairnError(code, `${message}; ${place}`, goOnAt(folder));
}

/** True if the directory at the folder's path is not the recorded one. */
export function isOtherFolder({ control, controlFile, workspace, folder }: FoundWorkspace): boolean {
  // The inode of a workspace beside a self-contained control directory changes with every move to another host.
  if (liesBeside(controlFile, workspace) || !hasOtherRoot(workspace, folder)) return false;
  return hasOtherRoot(readWorkspace(control, workspace.name) ?? workspace, folder);
}

/** Before a save: records a changed folder and changed mounts. Only warns of another inode, since the path decides. */
export function noteFolder(
  found: FoundWorkspace,
  call: { crossMounts?: boolean | undefined; onWarning?: ((message: string) => void) | undefined },
): void {
  const { control, folder, workspace } = found;
  if (isOtherFolder(found)) {
    recordFolder(found);
    call.onWarning?.(
      `${printablePath(folder)} is not the folder that was saved before (another inode); Cairn goes by the path, so this save continues the same workspace`,
    );
  } else if (workspace.mount_point === undefined) {
    if (readWorkspace(control, workspace.name)?.mount_point === undefined) recordFolder(found);
  }
  const entry = entryOf({ ...found, control: { root: found.recordedControl ?? control.root } });
  const isLost = ownNoteAt(folder)?.workspace_id === workspace.id && readRegistration(folder) === null;
  // After the loss of the state directory, the note at the folder has led here.
  if (isLost) registerWorkspace(entry);
  else noteAtFolder(entry);
  if (call.crossMounts !== true) return;
  const known = readWorkspace(control, workspace.name) ?? workspace;
  const inside = mountsInside(folder).map(({ mountPoint }) => recordPath(mountPoint.subarray(folder.length + 1)));
  if (!isDeepStrictEqual(inside, known.mounts_inside ?? []))
    writeWorkspace(control, { ...known, mounts_inside: inside });
}

/** A kept folder that was renamed or moved within its file system. */
export interface MovedFolder {
  /** the path at which it was kept */
  readonly from: Buffer;
  /** another folder lies there now */
  readonly isReplaced: boolean;
}

/**
 * Finds the registered folder that was moved to `folder`: same device, inode and birth time, since inode numbers are
 * used again; or the registered path is a link to `folder` now, perhaps on another disk. Null if there is none.
 */
export function movedHere(folder: Buffer): MovedFolder | null {
  const facts = statSync(folder, { bigint: true });
  const [bornAt, made, mounts] = [Number(facts.birthtimeNs / 1_000_000n), madeAt(folder), readMounts()];
  let linked: MovedFolder | null = null;
  for (const { registration, missing } of listRegistered()) {
    if (registration === null || missing.some((each) => each !== "folder")) continue;
    const from = Buffer.from(rawPath(registration));
    const isLink = !from.equals(folder) && realOrItself(from, mounts).equals(folder);
    if (isLink) linked ??= { from, isReplaced: false };
    const known = bornAt > 0 ? recordOf(registration) : null;
    if (known?.root_inode !== facts.ino.toString() || known.device !== facts.dev.toString()) continue;
    // Without a recorded birth time, as on an overlay, a folder that is younger than its registration is another one.
    const isSame =
      known.root_made === undefined ? bornAt <= Date.parse(registration.registered_at) : made === known.root_made;
    if (!isSame) continue;
    if (isLink || missing.length > 0) return { from, isReplaced: false };
    const there = statSync(from, { bigint: true });
    // Different inodes: otherwise a bind mount shows the same folder at two paths.
    if (there.ino !== facts.ino || there.dev !== facts.dev) return { from, isReplaced: true };
  }
  return linked;
}
