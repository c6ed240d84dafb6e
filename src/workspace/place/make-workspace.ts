import { closeSync, constants, existsSync, mkdirSync, readdirSync, rmdirSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join } from "node:path";
import { advice, CairnError, line, option, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { isSubvolume, makeSubvolume } from "../../fs/linux/btrfs.ts";
import { durableMkdir, TEMPORARY_PREFIX, temporaryName } from "../../fs/durable.ts";
import { removeLeftovers } from "../../fs/work-directory.ts";
import { acquireLock, type AcquireOptions, type Lock } from "../../fs/lock.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { filesystemKind, mountOf, ownEntries } from "../../fs/linux/mounts.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { isAtOrBelow, joinRaw, printablePath, rawBytes, type RawPath, shellPath } from "../../fs/paths/safe-path.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { type ControlId, newControlId } from "../../ids.ts";
import {
  createControlDirectory,
  createWorkspace,
  isBeside,
  isReleased,
  listWorkspaces,
  type PlacedWorkspace,
  readControl,
  withFolder,
  withoutRelease,
  writeWorkspace,
} from "./control-directory.ts";
import {
  type ControlPaths,
  controlPaths,
  MAIN_WORKSPACE,
  MOUNT_CONTROL,
  SELF_CONTAINED_CONTROL,
  textOf,
} from "./control-layout.ts";
import { requireNotDaemons } from "./daemon-marks.ts";
import {
  findWorkspace,
  type FoundWorkspace,
  hasPointsOfMissing,
  keptWorkspace,
  pathIs,
  realPathOf,
  workspaceAt,
  workspaceOnceOf,
} from "./find-workspace.ts";
import { isTrusted, whoMayMove } from "./owners.ts";
import {
  controlOf,
  entryOf,
  finishReleases,
  leftReleases,
  lockingOf,
  lockRegistry,
  registerWorkspace,
  releasedRegistration,
} from "./registry.ts";
import { existingAncestor, namingInodes, whatMayGo } from "./room.ts";
import { userStateDirectory } from "../../fs/users.ts";

/** The place of a new control directory. */
export interface ChosenControl {
  readonly root: string;
  readonly where: "given" | "user-state" | "mount-root";
  /** A sentence for people. */
  readonly reason: string;
}

export interface ChooseOptions {
  id: ControlId;
  /** Absolute; overrides every rule. */
  controlDirectory?: string | undefined;
}

/**
 * Chooses the control directory of a folder (its real path): as given; else in the state directory if that is on the
 * folder's file system and outside the folder; else at the mount's root if that can be written and locked; else in the
 * state directory. Makes nothing. Throws `refused` if the place is inside, or others may rename it.
 */
export function chooseControlDirectory(folder: RawPath, options: ChooseOptions): ChosenControl {
  const { id, controlDirectory: given } = options;
  if (given !== undefined) {
    if (!isAbsolute(given))
      throw new CairnError("usage", `the control directory must be an absolute path, not ${given}`);
    const isInside = [given, existingAncestor(given)].some((each) => isAtOrBelow(each, rawBytes(folder)));
    if (isInside)
      throw new CairnError("refused", `the control directory ${given} would lie inside ${printablePath(folder)}`, {
        hint: advice`name a place outside the folder with ${option("controlDirectory")}`,
      });
    return { root: given, where: "given", reason: "you named it" };
  }
  const state = join(userStateDirectory(), "control", id);
  const others = whoMayMove(state, folder);
  const inside = isAtOrBelow(state, rawBytes(folder));
  const sameDevice = statSync(existingAncestor(state)).dev === statSync(folder).dev;
  if (sameDevice && !inside && others === null)
    return { root: state, where: "user-state", reason: "your state directory is on the same file system" };
  const mount = mountRootOf(folder);
  const root = mount === null ? null : join(mount, MOUNT_CONTROL, id);
  // Files on an overlay are lost with the container. The users who may write here share the container.
  if (root !== null && (whoMayMove(root, folder) === null || filesystemKind(existingAncestor(state)).overlay))
    return { root, where: "mount-root", reason: `it is on the folder's own file system, mounted at ${mount}` };
  if (others !== null)
    throw new CairnError(
      "refused",
      `refused to keep the save points of ${printablePath(folder)} in ${state}: ${others}`,
      {
        hint: advice`name a place that only you may write to with ${option("controlDirectory")}`,
      },
    );
  const reason =
    "the folder's file system has no place outside the folder that Cairn can write and lock, and that no other user may rename";
  return { root: state, where: "user-state", reason };
}

/** The root of a folder's mount if a control directory can be made and locked there; else null. */
function mountRootOf(folder: RawPath): string | null {
  const point = mountOf(folder)?.mountPoint;
  // At the root itself the control directory would lie inside the workspace.
  if (point === undefined || point.equals(rawBytes(folder))) return null;
  const text = point.toString("utf8");
  const control = join(text, MOUNT_CONTROL);
  if (existsSync(control) && !isTrusted(control, rawBytes(folder))) return null;
  const fits = Buffer.from(text, "utf8").equals(point) && isWritable(existingAncestor(control)) && isLockable(control);
  return fits ? text : null;
}

function isWritable(directory: Buffer): boolean {
  const probe = joinRaw(directory, temporaryName());
  try {
    mkdirSync(probe);
    rmdirSync(probe);
    return true;
  } catch {
    return false;
  }
}

/** False if another user made the lock first, in a folder to which everybody may write. */
function isLockable(mountControl: string): boolean {
  try {
    closeSync(openRegular(placeLock(mountControl), { flags: constants.O_RDWR }));
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

function placeLock(mountControl: string): string {
  return join(mountControl, "adopt.lock");
}

/**
 * Takes the lock for making a control directory at a mount's root, which several users may share. Elsewhere the
 * registry's lock, taken before, is enough. The holder may remove unfinished directories there.
 */
export async function lockPlace({ where, root }: ChosenControl, options: AcquireOptions): Promise<Lock | undefined> {
  if (where !== "mount-root") return undefined;
  const parent = dirname(root);
  durableMkdir(parent, { mode: 0o755 });
  return acquireLock(placeLock(parent), options);
}

/** Lists risks of the control directory's place, one sentence each. */
export function controlWarnings(root: string, folder: RawPath): string[] {
  const meaning = filesystemKind(existingAncestor(root)).overlay
    ? "on an overlay: they are lost with the container; use --control-dir on a volume"
    : whatMayGo(root, folder);
  const others = whoMayMove(root, folder);
  return [
    ...(meaning === null ? [] : [`the save points lie in ${root}, ${meaning}`]),
    ...(others === null ? [] : [`the save points lie in ${root}, and ${others}`]),
  ];
}

export interface MakeWorkspaceOptions {
  /** Name of the control directory; default: the folder's name. */
  name?: string | undefined;
  engine: string;
  /** Absolute. */
  controlDirectory?: string | undefined;
  /** Makes the store in the staged control directory. */
  populate: (staged: ControlPaths) => Promise<void>;
  /** Checks the folder under the lock, before the first write. Throws to refuse. */
  guard?: (folder: Buffer, chosen: ChosenControl | null) => void;
  lockTimeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface MadeWorkspace {
  readonly found: FoundWorkspace;
  /** False: the folder was a workspace already, perhaps since a moment ago. */
  readonly created: boolean;
  /** The place of the control directory, in a sentence. */
  readonly reason: string;
  readonly warnings: string[];
}

/** Throws `usage` for a name with other characters than letters, digits, `-` and `_`. */
export function checkPlainName(name: string): void {
  if (/^[A-Za-z0-9_-]+$/.test(name) && name.length <= MAX_NAME) return;
  throw new CairnError("usage", `not a valid workspace name: ${JSON.stringify(name.slice(0, 80))}`, {
    hint: `use letters, digits, - and _, at most ${MAX_NAME} of them`,
  });
}

const MAX_NAME = 60;

/** Makes a name of letters, digits, `-` and `_` from any text. */
export function plainName(text: string): string {
  const plain = text.replace(/[^A-Za-z0-9_-]+/g, "-").replace(/^-+|-+$/g, "");
  return plain.slice(0, MAX_NAME) || "workspace";
}

/**
 * Makes an existing folder the workspace `main` of a new control directory elsewhere, without moving anything. If
 * several processes race, they end with one control directory. Throws the errors of the guard, `not_found` for a
 * missing folder.
 */
export async function makeWorkspace(path: RawPath, options: MakeWorkspaceOptions): Promise<MadeWorkspace> {
  const folder = realPathOf(path);
  if (statSync(folder, { throwIfNoEntry: false }) === undefined)
    throw new CairnError("not_found", `${printablePath(folder)} is not there`, { hint: "make the folder first" });
  const locking = lockingOf("init", options);
  using _registry = await lockRegistry(locking);
  finishReleases();
  const present = workspaceAt(folder);
  if (present !== null) return alreadyThere(present);
  const id = newControlId();
  const chosen = choose(folder, id, options);
  options.guard?.(folder, chosen);
  using _place = await lockPlace(chosen, locking);
  const raced = workspaceAt(folder);
  if (raced !== null) return alreadyThere(raced);
  const { left, warnings } = unregistered(folder, chosen);
  const others =
    left === null && chosen.where === "given"
      ? hasPointsOfMissing(controlPaths(chosen.root), folder, "conflict")
      : null;
  if (others !== null) throw others;
  const made = async (): Promise<ControlPaths> => makeControl(folder, { ...options, chosen, id });
  const control =
    left ??
    (await made().catch((error: unknown) => {
      throw namingInodes([chosen.root], error);
    }));
  failpoint("init-control-made");
  if (!isBeside(control.root, folder)) registerFolder(folder, control);
  failpoint("init-registered");
  const found = workspaceAt(folder);
  if (found === null)
    throw new CairnError("internal", `${printablePath(folder)} was made a workspace and is not found`);
  return {
    found,
    created: true,
    reason: chosen.reason,
    warnings: [...warnings, ...controlWarnings(control.root, folder)],
  };
}

function alreadyThere(found: FoundWorkspace): MadeWorkspace {
  return { found, created: false, reason: "it is a workspace already", warnings: [] };
}

/** Chooses the control directory. If that fails, the guard's error about the folder, if any, is thrown instead. */
function choose(folder: Buffer, id: ControlId, options: MakeWorkspaceOptions): ChosenControl {
  try {
    return chooseControlDirectory(folder, { id, controlDirectory: options.controlDirectory });
  } catch (error) {
    options.guard?.(folder, null);
    throw error;
  }
}

/**
 * An unregistered control directory that has this folder: from a killed `init`, or from a release, whose points are
 * then used again. Only warns of unreadable directories of other folders.
 */
function unregistered(
  folder: Buffer,
  chosen: ChosenControl,
): { left: ControlPaths | null; warnings: readonly string[] } {
  const warnings: string[] = [];
  for (const { control, workspace } of onceKept(folder, chosen, warnings)) {
    if (isReleased(workspace)) takeUpAgain(control, workspace, folder);
    return { left: control, warnings };
  }
  return { left: null, warnings };
}

/** Tells if an unregistered folder was kept before, by the control directories that `init` would search. */
export function wasKept(folder: Buffer, chosen: ChosenControl): boolean {
  return onceKept(folder, chosen, []).next().done !== true;
}

function* onceKept(
  folder: Buffer,
  chosen: ChosenControl,
  warnings: string[],
): Generator<{ control: ControlPaths; workspace: PlacedWorkspace }> {
  const isGiven = chosen.where === "given";
  for (const control of isGiven ? [controlPaths(chosen.root)] : controlsFor(folder, chosen)) {
    if (!existsSync(control.file)) continue;
    let workspace: PlacedWorkspace | null;
    try {
      workspace = workspaceOnceOf(control, folder);
    } catch (error) {
      if (isGiven) throw error;
      warnings.push(
        `Cairn cannot tell if ${control.root} has save points of the folder: ${toCairnError(error).message}`,
      );
      continue;
    }
    if (workspace !== null) yield { control, workspace };
  }
}

function controlsFor(folder: Buffer, chosen: ChosenControl): ControlPaths[] {
  const beside = join(dirname(folder.toString("utf8")), SELF_CONTAINED_CONTROL);
  const parents = [join(userStateDirectory(), "control")];
  if (chosen.where === "mount-root") parents.push(dirname(chosen.root));
  const ids = parents.flatMap((parent) =>
    namesIn(parent).flatMap((id) => (/^[0-9a-f]{32}$/.test(id) ? [join(parent, id)] : [])),
  );
  const noted = releasedRegistration(folder);
  const all = new Set([...(noted === null ? [] : [controlOf(noted)]), beside, ...ids]);
  return [...all].filter((root) => isTrusted(root, folder)).map(controlPaths);
}

function takeUpAgain(control: ControlPaths, workspace: PlacedWorkspace, folder: Buffer): void {
  writeWorkspace(control, withoutRelease(withFolder(control, workspace, folder)));
  failpoint("init-taken-up");
}

function folderKeptIn(control: ControlPaths, folder: Buffer): PlacedWorkspace | null {
  return keptWorkspace(listWorkspaces(control), (each) => pathIs(each, folder));
}

async function makeControl(
  folder: Buffer,
  options: MakeWorkspaceOptions & { chosen: ChosenControl; id: ControlId },
): Promise<ControlPaths> {
  const { chosen } = options;
  const name = plainName(basename(folder.toString("utf8")));
  // Every process that makes a control directory here holds a lock that this process has now.
  if (chosen.where !== "given") removeLeftovers(dirname(chosen.root), { exclusive: true });
  const { control, created } = await createControlDirectory(chosen.root, {
    id: options.id,
    name: options.name ?? name,
    engine: options.engine,
    selfContained: false,
    populate: async (staged) => {
      await options.populate(staged);
      // The record has a path inside the mount only if the control directory lies at the mount's root.
      const inMount = basename(dirname(chosen.root)) === MOUNT_CONTROL;
      createWorkspace(staged, { folder, name: MAIN_WORKSPACE, inMount });
    },
  });
  if (!created && folderKeptIn(control, folder) === null) createWorkspace(control, { folder, name });
  return control;
}

function registerFolder(folder: Buffer, control: ControlPaths): void {
  const workspace = folderKeptIn(control, folder);
  const controlFile = readControl(control);
  if (workspace === null || controlFile === null)
    throw new CairnError(
      "internal",
      `the control directory ${control.root} has no workspace for ${printablePath(folder)}`,
    );
  registerWorkspace(entryOf({ folder, control, controlFile, workspace }));
}

export type InitFolderOptions = Pick<MakeWorkspaceOptions, "name" | "engine" | "populate" | "guard">;

/**
 * Makes the self-contained layout, `<path>/main` and `<path>/.cairn`, in an absent or empty path. If several processes
 * race, one makes it and all get it. Throws `already_exists` if other files lie there, `no_daemon` for a folder of
 * root's daemon, `unsupported` for a path that is not UTF-8.
 */
export async function initSelfContained(path: string, options: InitFolderOptions): Promise<MadeWorkspace> {
  const root = textOf(realPathOf(path));
  const control = controlPaths(join(root, SELF_CONTAINED_CONTROL));
  const folder = join(root, MAIN_WORKSPACE);
  const made = (): FoundWorkspace | null => (existsSync(control.file) ? findWorkspace(root, { exact: true }) : null);
  const present = made();
  if (present !== null)
    return { found: present, created: false, reason: "it already is a self-contained workspace", warnings: [] };
  for (const each of [root, folder]) requireNotDaemons(Buffer.from(each));
  const released = releasedMain(control, folder);
  if (released !== null) {
    takeUpAgain(control, released, Buffer.from(folder));
    const found = made();
    if (found !== null) return { found, created: true, reason: "its points were still there", warnings: [] };
  }
  await finishReleasesIfIdle();
  const reason = "it lies beside the workspace";
  const there = existingAncestor(root).toString();
  const isNew = durableMkdir(root, { mode: 0o755 });
  try {
    options.guard?.(Buffer.from(root), { root: control.root, where: "given", reason });
    if (!isNew) requireFree(root);
    await makeMain(folder, options.engine);
    failpoint("init-folder-made");
    const { created } = await createControlDirectory(control.root, {
      id: newControlId(),
      name: options.name ?? plainName(basename(root)),
      engine: options.engine,
      selfContained: true,
      populate: async (staged) => {
        await options.populate(staged);
        createWorkspace(staged, { folder, name: MAIN_WORKSPACE });
      },
    });
    const found = made();
    if (found === null) throw new CairnError("internal", `${root} was made and is not found`);
    return { found, created, reason, warnings: controlWarnings(control.root, folder) };
  } catch (error) {
    const winner = made();
    if (winner !== null) return { found: winner, created: false, reason, warnings: [] };
    if (isNew) removeIfEmpty(root, there);
    throw toCairnError(error);
  }
}

/** A self-contained workspace that was released, with its points. */
function releasedMain(control: ControlPaths, folder: string): PlacedWorkspace | null {
  if (!existsSync(control.file) || !existsSync(folder)) return null;
  const workspace = listWorkspaces(control).find(({ name }) => name === MAIN_WORKSPACE)?.workspace ?? null;
  return workspace !== null && isReleased(workspace) ? workspace : null;
}

/** Finishes killed releases if the registry's lock is free. This layout is made without that lock. */
async function finishReleasesIfIdle(): Promise<void> {
  if (leftReleases().length === 0) return;
  try {
    using _registry = await lockRegistry({ purpose: "release", timeoutMs: 0 });
    finishReleases();
  } catch {
    // The lock's holder finishes them, or `doctor` names the problem.
  }
}

/** Makes the folder of a self-contained workspace, as a subvolume if the engine needs one. */
async function makeMain(folder: string, engine: string): Promise<void> {
  if (engine !== "btrfs-snapshot") return void makeFolder(folder, 0o755);
  // A killed attempt with another engine left this empty folder.
  if (existsSync(folder) && !isSubvolume(folder)) rmdirSync(folder);
  try {
    await makeSubvolume(Buffer.from(folder));
  } catch (error) {
    const isMade = toCairnError(error).code === "already_exists" && isSubvolume(folder);
    if (!isMade) throw error;
  }
}

/** Throws `already_exists` if a folder has files of a user: others than `lost+found` and those of other attempts to make it. */
function requireFree(root: string): void {
  const own = ["lost+found", SELF_CONTAINED_CONTROL, ...ownEntries(realPathOf(root))];
  const isFree = readdirSync(root).every((name) => {
    if (name === MAIN_WORKSPACE) return readdirSync(join(root, name)).length === 0;
    return own.includes(name) || name.startsWith(TEMPORARY_PREFIX);
  });
  if (isFree) return;
  throw new CairnError("already_exists", `${root} is not empty`, {
    hint: advice`to make this folder itself the workspace, run: ${line(`init ${shellPath(root)}`, "openOrInit", root)}`,
  });
}

function removeIfEmpty(root: string, there: string): void {
  for (let made = join(root, MAIN_WORKSPACE); made.length > there.length; made = dirname(made)) {
    try {
      rmdirSync(made);
    } catch {
      // The folder is not empty: another process uses it.
    }
  }
}
