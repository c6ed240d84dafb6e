import { existsSync, readdirSync, rmdirSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { isSubvolume, makeSubvolume } from "../fs/btrfs.ts";
import { TEMPORARY_PREFIX, durableMkdir, removeLeftovers } from "../fs/durable.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { ownEntries } from "../fs/own-entries.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import type { RawPath } from "../fs/safe-path.ts";
import { newControlId } from "../ids.ts";
import type { ControlId } from "../ids.ts";
import {
  createControlDirectory,
  createWorkspace,
  listWorkspaces,
  writeWorkspace,
  withFolder,
} from "./control-directory.ts";
import type { PlacedWorkspace } from "./control-directory.ts";
import { MAIN_WORKSPACE, MOUNT_CONTROL, SELF_CONTAINED_CONTROL, controlPaths } from "./control-layout.ts";
import type { ControlPaths } from "./control-layout.ts";
import { chooseControlDirectory, controlWarnings, lockPlace } from "./control-place.ts";
import type { ChosenControl } from "./control-place.ts";
import {
  findWorkspace,
  isTrusted,
  pathIs,
  realPathOf,
  workspaceAt,
  workspaceOnceOf,
  workspaceWhere,
} from "./find-workspace.ts";
import type { FoundWorkspace } from "./find-workspace.ts";
import { finishReleases, leftReleases, lockRegistry, registerWorkspace, userStateDirectory } from "./registry.ts";
import { isReleased, withoutRelease } from "./released.ts";
import { textOf } from "./text-paths.ts";
import { lockingOf } from "./workspace.ts";

export interface AdoptFolderOptions {
  /** Of the control directory; the folder's name unless told. */
  name?: string | undefined;
  engine: string;
  /** Absolute. */
  controlDirectory?: string | undefined;
  /** Makes the store in the staged control directory. */
  populate: (staged: ControlPaths) => Promise<void>;
  /** The guards; runs under the lock, before the first byte, and throws to refuse. */
  guard?: (folder: Buffer, chosen: ChosenControl | null) => void;
  lockTimeoutMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

export interface Adopted {
  readonly found: FoundWorkspace;
  /** False: it was a workspace already, perhaps since a moment ago. */
  readonly created: boolean;
  /** Where the control directory went, and what is doubtful about it. */
  readonly reason: string;
  readonly warnings: string[];
}

/** Throws `usage` for the name of a whole that has anything but letters, digits, `-` and `_`. */
export function checkPlainName(name: string): void {
  if (/^[A-Za-z0-9_-]+$/.test(name) && name.length <= MAX_NAME) return;
  throw new CairnError("usage", `not a name: ${JSON.stringify(name.slice(0, 80))}`, {
    hint: `use letters, digits, - and _, at most ${MAX_NAME} of them`,
  });
}

const MAX_NAME = 60;

/** A name of letters, digits, `-` and `_` from any text. */
export function plainName(text: string): string {
  return (
    text
      .replace(/[^A-Za-z0-9_-]+/g, "-")
      .replace(/^-+|-+$/g, "")
      .slice(0, MAX_NAME) || "workspace"
  );
}

/**
 * A control directory that has this folder and is not registered: left by an adoption that was killed before its end,
 * or by a release, whose points are then taken up again. One of other folders whose workspaces cannot be listed is only
 * told of.
 */
function unregistered(
  folder: Buffer,
  chosen: ChosenControl,
): { orphan: ControlPaths | null; warnings: readonly string[] } {
  const isGiven = chosen.where === "given";
  const warnings: string[] = [];
  for (const control of isGiven ? [controlPaths(chosen.root)] : controlsFor(folder, chosen)) {
    if (!existsSync(control.file)) continue;
    let workspace: PlacedWorkspace | null;
    try {
      workspace = workspaceOnceOf(control, folder);
    } catch (error) {
      if (isGiven) throw error;
      warnings.push(`whether the folder was kept in ${control.root} cannot be told: ${toCairnError(error).message}`);
      continue;
    }
    if (workspace === null) continue;
    if (isReleased(workspace)) takeUpAgain(control, workspace, folder);
    return { orphan: control, warnings };
  }
  return { orphan: null, warnings };
}

function controlsFor(folder: Buffer, chosen: ChosenControl): ControlPaths[] {
  const beside = join(dirname(folder.toString("utf8")), SELF_CONTAINED_CONTROL);
  const parents = [
    join(userStateDirectory(), "control"),
    ...(chosen.where === "mount-root" ? [dirname(chosen.root)] : []),
  ];
  const roots = [beside, ...parents.flatMap(idsIn)];
  return roots.filter((root) => isTrusted(root, folder)).map(controlPaths);
}

function idsIn(parent: string): string[] {
  try {
    return readdirSync(parent).flatMap((id) => (/^[0-9a-f]{32}$/.test(id) ? [join(parent, id)] : []));
  } catch {
    return [];
  }
}

function takeUpAgain(control: ControlPaths, workspace: PlacedWorkspace, folder: Buffer): void {
  writeWorkspace(control, withoutRelease(withFolder(control, workspace, folder)));
  failpoint("adopt-taken-up");
}

/**
 * Makes an existing folder a workspace, `main` of a control directory elsewhere; nothing in it moves. Any number of
 * processes at once end with one control directory. Throws what the guard throws, `not_found` for a missing folder.
 */
export async function adoptFolder(path: RawPath, options: AdoptFolderOptions): Promise<Adopted> {
  const folder = realPathOf(path);
  if (!existsSync(folder))
    throw new CairnError("not_found", `${printablePath(folder)} is not there`, { hint: "make the folder first" });
  const locking = lockingOf("adopt", options);
  using _registry = await lockRegistry(locking);
  finishReleases();
  const present = workspaceAt(folder);
  if (present !== null) return { found: present, created: false, reason: "it is a workspace already", warnings: [] };
  const id = newControlId();
  const chosen = choose(folder, id, options);
  options.guard?.(folder, chosen);
  using _place = await lockPlace(chosen, locking);
  const raced = workspaceAt(folder);
  if (raced !== null) return { found: raced, created: false, reason: "it is a workspace already", warnings: [] };
  const { orphan, warnings } = unregistered(folder, chosen);
  const control = orphan ?? (await makeControl(folder, { ...options, chosen, id }));
  failpoint("adopt-control-made");
  if (!isBeside(folder, control)) registerMain(folder, control);
  failpoint("adopt-registered");
  const found = workspaceAt(folder);
  if (found === null) throw new CairnError("internal", `${printablePath(folder)} was adopted and is not found`);
  return { found, created: true, reason: chosen.reason, warnings: [...warnings, ...controlWarnings(control.root)] };
}

/** Where there is no place for a folder, what is wrong with the folder itself says more. */
function choose(folder: Buffer, id: ControlId, options: AdoptFolderOptions): ChosenControl {
  try {
    return chooseControlDirectory(folder, { id, controlDirectory: options.controlDirectory });
  } catch (error) {
    options.guard?.(folder, null);
    throw error;
  }
}

function isBeside(folder: Buffer, control: ControlPaths): boolean {
  return join(dirname(folder.toString("utf8")), SELF_CONTAINED_CONTROL) === control.root;
}

async function makeControl(
  folder: Buffer,
  options: AdoptFolderOptions & { chosen: ChosenControl; id: ControlId },
): Promise<ControlPaths> {
  const { chosen } = options;
  // Whoever makes a control directory here does it under a lock that this process holds.
  if (chosen.where !== "given") removeLeftovers(dirname(chosen.root), { exclusive: true });
  const made = await createControlDirectory(chosen.root, {
    id: options.id,
    name: options.name ?? plainName(basename(folder.toString("utf8"))),
    engine: options.engine,
    selfContained: false,
    populate: async (staged) => {
      await options.populate(staged);
      // The folder knows its place in the mount only where the control directory lies at its root.
      createWorkspace(staged, {
        folder,
        name: MAIN_WORKSPACE,
        inMount: basename(dirname(chosen.root)) === MOUNT_CONTROL,
      });
    },
  });
  if (!made.created && workspaceWhere(made.control, (each) => pathIs(each, folder)) === null) {
    createWorkspace(made.control, { folder, name: plainName(basename(folder.toString("utf8"))) });
  }
  return made.control;
}

/** Registers the workspace of a control directory that has this folder. */
function registerMain(folder: Buffer, control: ControlPaths): void {
  const workspace = workspaceWhere(control, (each) => pathIs(each, folder));
  const found = findWorkspace(control.root, { exact: true });
  if (workspace === null || found === null)
    throw new CairnError("internal", `${control.root} does not keep ${printablePath(folder)}`);
  registerWorkspace({
    folder,
    control: control.root,
    controlId: found.controlFile.id,
    workspaceId: workspace.id,
    workspaceName: workspace.name,
  });
}

export type InitFolderOptions = Pick<AdoptFolderOptions, "name" | "engine" | "populate" | "guard">;

// An empty `main` is what a killed attempt leaves; the other names are a file system's own and a racing process's.
function isFree(path: string): boolean {
  const own = ownEntries(realPathOf(path));
  for (const name of readdirSync(path)) {
    if (
      name === "lost+found" ||
      own.includes(name) ||
      name === SELF_CONTAINED_CONTROL ||
      name.startsWith(TEMPORARY_PREFIX)
    )
      continue;
    if (name !== MAIN_WORKSPACE || readdirSync(join(path, name)).length > 0) return false;
  }
  return true;
}

/**
 * The self-contained layout: `<path>/main` and `<path>/.cairn`. The path must be absent or empty. Of several
 * processes one makes it and all get it. Throws `already_exists` for a folder with other things in it, `unsupported` for a
 * path that is not UTF-8.
 */
export async function initSelfContained(path: string, options: InitFolderOptions): Promise<Adopted> {
  const root = textOf(realPathOf(path));
  const controlRoot = join(root, SELF_CONTAINED_CONTROL);
  const made = (): FoundWorkspace | null =>
    existsSync(controlPaths(controlRoot).file) ? findWorkspace(root, { exact: true }) : null;
  const present = made();
  if (present !== null) return { found: present, created: false, reason: "it is one already", warnings: [] };
  const again = releasedBeside(root, controlPaths(controlRoot));
  if (again !== null) return { found: again, created: true, reason: "its points were still there", warnings: [] };
  await finishReleasesIfIdle();
  const id = newControlId();
  const reason = "it lies beside the workspace";
  const isNew = durableMkdir(root, { mode: 0o755 });
  try {
    options.guard?.(Buffer.from(root), { root: controlRoot, where: "given", reason });
    if (!isNew) refuseUnlessFree(root);
    const folder = join(root, MAIN_WORKSPACE);
    await makeMain(folder, options.engine);
    failpoint("init-folder-made");
    const { created } = await createControlDirectory(controlRoot, {
      id,
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
    return { found, created, reason, warnings: controlWarnings(controlRoot) };
  } catch (error) {
    const winner = made();
    if (winner !== null) return { found: winner, created: false, reason, warnings: [] };
    if (isNew) removeIfEmpty(root);
    throw toCairnError(error);
  }
}

/** This layout is made without the registry's lock. */
async function finishReleasesIfIdle(): Promise<void> {
  if (leftReleases().length === 0) return;
  try {
    using _registry = await lockRegistry({ purpose: "release", timeoutMs: 0 });
    finishReleases();
  } catch {
    // Whoever holds it does it, or `doctor` says what is in the way.
  }
}

/** The folder of a self-contained workspace; a subvolume where the engine needs one. */
async function makeMain(folder: string, engine: string): Promise<void> {
  if (engine !== "btrfs-snapshot") return void makeFolder(folder, 0o755);
  // Of an attempt with another engine that was killed: it is empty.
  if (existsSync(folder) && !isSubvolume(folder)) rmdirSync(folder);
  try {
    await makeSubvolume(Buffer.from(folder));
  } catch (error) {
    const isMade = toCairnError(error).code === "already_exists" && isSubvolume(folder);
    if (!isMade) throw error;
  }
}

/** A self-contained workspace that was released with its points kept. */
function releasedBeside(root: string, control: ControlPaths): FoundWorkspace | null {
  const main = join(root, MAIN_WORKSPACE);
  if (!existsSync(control.file) || !existsSync(main)) return null;
  const workspace = listWorkspaces(control).find(({ name }) => name === MAIN_WORKSPACE)?.workspace ?? null;
  if (workspace === null || !isReleased(workspace)) return null;
  takeUpAgain(control, workspace, Buffer.from(main));
  return findWorkspace(root, { exact: true });
}

function refuseUnlessFree(root: string): void {
  if (isFree(root)) return;
  throw new CairnError("already_exists", `${root} is not empty`, {
    hint: `to keep that folder as it is, use: cairn init ${shellPath(root)}`,
  });
}

function removeIfEmpty(root: string): void {
  for (const directory of [join(root, MAIN_WORKSPACE), root]) {
    try {
      rmdirSync(directory);
    } catch {
      // Somebody else has put something there.
    }
  }
}
