import { existsSync, readdirSync, statSync } from "node:fs";
import { resolve } from "node:path";
import type { CallOptions } from "../../contract/words.ts";
import type { RelocateOptions, RelocateResult } from "../../contract/care.ts";
import { advice, CairnError, call, line, option, see } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";
import { acquireLock } from "../../fs/lock.ts";
import { joinRaw, printablePath, releaseLine, shellPath } from "../../fs/paths/safe-path.ts";
import { listWorkspaces, type PlacedWorkspace, readControl } from "../place/control-directory.ts";
import { controlPaths, MAIN_WORKSPACE } from "../place/control-layout.ts";
import { moveConversion } from "./convert.ts";
import {
  findWorkspace,
  hasPointsOfMissing,
  type FoundWorkspace,
  movedControlLine,
  pathIs,
  realPathOf,
  requireReadable,
  workspaceAt,
  workspaceIn,
  workspaceOnceOf,
  workspaceRef,
} from "../place/find-workspace.ts";
import { checkLocation, realFolder } from "../place/guards.ts";
import { type Kept, moveWorkspace } from "../place/move-record.ts";
import { heldTreeProblem, treePlace } from "../points/held-trees.ts";
import { Points } from "../points/points.ts";
import {
  controlOf,
  listRegistered,
  lockingOf,
  lockRegistry,
  ownNoteAt,
  readRegistration,
  registerWorkspace,
} from "../place/registry.ts";
import { isLastWorkspace } from "./going.ts";
import { removeControlDirectory, retireWorkspace } from "./release.ts";
import { Workspace, type WorkspaceParts } from "../open/workspace.ts";

export interface RelocateRequest {
  from: string;
  to: string;
  options: RelocateOptions;
}

interface Move {
  /** real paths */
  readonly from: Buffer;
  readonly to: Buffer;
  readonly options: RelocateOptions;
}

/**
 * Moves the registration of a folder from one path to another. Repeating it changes nothing. Throws `not_found` if the
 * old path had no workspace, `usage` for equal paths, `conflict` if the folder is still there, or the new path is
 * another folder or a workspace with points.
 */
export async function relocate(parts: WorkspaceParts, request: RelocateRequest): Promise<RelocateResult> {
  const { options } = request;
  const { controlDirectory } = options;
  const move = { ...foldersOf(request), options };
  const { from, to } = move;
  if (from.equals(to) && controlDirectory === undefined)
    throw new CairnError("usage", `the old and the new path are the same: ${printablePath(to)}`, {
      hint: "name the old path first, then the new one",
    });
  using _registry = await lockRegistry(lockingOf("relocate", options));
  if (controlDirectory !== undefined)
    return await relocateWith(parts, realPathOf(controlDirectory).toString("utf8"), move);
  const kept = workspaceOnceAt(from);
  const there = workspaceAt(to);
  const isThere =
    there !== null && (kept === null ? pathIs(there.workspace, from) : there.workspace.id === kept.workspace.id);
  if (isThere) {
    // The folder moved together with its control directory, or an earlier call was killed.
    await using workspace = new Workspace(there, parts);
    using _lock = await workspace.lock("relocate", options);
    moveWorkspace(there, from, to);
    return { workspace: workspaceRef(workspaceAt(to) ?? there), from: from.toString("utf8") };
  }
  if (kept !== null) return await relocateTo(parts, kept, { ...move, there });
  if (there === null || !wasMovedFrom(there.workspace, from)) throw nothingKept(from);
  return { workspace: workspaceRef(there), from: from.toString("utf8") };
}

/** Returns the real paths. A self-contained root means the workspace in it, if no control directory is named. */
function foldersOf(request: RelocateRequest): { from: Buffer; to: Buffer } {
  // The registered path may be a link to the moved folder now.
  const given = Buffer.from(resolve(request.from));
  const [from, to] = [readRegistration(given) === null ? realPathOf(given) : given, realFolder(request.to)];
  if (request.options.controlDirectory !== undefined || workspaceAt(to) !== null) return { from, to };
  const inside = findWorkspace(to, { exact: true });
  const isRoot = inside?.folder.equals(joinRaw(to, MAIN_WORKSPACE)) === true;
  return isRoot ? { from: joinRaw(from, MAIN_WORKSPACE), to: joinRaw(to, MAIN_WORKSPACE) } : { from, to };
}

function nothingKept(from: Buffer): CairnError {
  return new CairnError("not_found", `no workspace was at ${printablePath(from)}`, {
    hint: advice`${call("workspaces", "listWorkspaces")} lists all workspaces`,
  });
}

/** Returns the workspace that was at a path (its real path, which may be missing now); null if there was none. */
function workspaceOnceAt(folder: Buffer): Kept | null {
  const registration = readRegistration(folder);
  if (registration !== null) {
    const control = controlPaths(controlOf(registration));
    if (readControl(control) === null) {
      throw new CairnError(
        "not_found",
        `${printablePath(folder)} has its save points in ${control.root}, which is missing`,
        {
          hint: advice`mount or restore the folder with the save points first; if you moved it: ${movedControlLine(folder, "NEW")}`,
        },
      );
    }
    const workspace = requireReadable(listWorkspaces(control), (each) => each.id === registration.workspace_id);
    if (workspace !== null) return { control, workspace };
  }
  return workspaceAt(folder);
}

/** Registers a folder with the control directory that the caller names; the folder may be unmoved. */
async function relocateWith(parts: WorkspaceParts, root: string, move: Move): Promise<RelocateResult> {
  const { from, to } = move;
  const kept = workspaceKeptIn(root, from) ?? workspaceKeptIn(root, to);
  if (kept === null) throw hasPointsOfMissing(controlPaths(root), to, "not_found") ?? nothingKept(from);
  const isOwn = [readRegistration(to), ownNoteAt(to)].some((each) => each?.workspace_id === kept.workspace.id);
  const there = isOwn ? null : workspaceAt(to);
  const isOther = there !== null && there.workspace.id !== kept.workspace.id;
  const moved = await relocateTo(parts, kept, { ...move, there: isOther ? there : null });
  // The control directory's other folders are registered again, unless another copy of it exists.
  const controlFile = readControl(kept.control);
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
  return moved;
}

/**
 * Returns the workspace, also a released one, that a named control directory has at a path; null if none. Only this
 * directory is read, as it may have moved. Throws `not_a_workspace`; `conflict` if the registered control directory
 * still exists elsewhere.
 */
function workspaceKeptIn(root: string, folder: Buffer): Kept | null {
  const control = controlPaths(root);
  if (readControl(control) === null)
    throw new CairnError("not_a_workspace", `${root} is not a control directory`, {
      hint: see("workspaces", "listWorkspaces"),
    });
  const registration = readRegistration(folder);
  const known = registration === null ? root : controlOf(registration);
  if (!realPathOf(known).equals(realPathOf(root)) && readControl(controlPaths(known)) !== null) {
    throw new CairnError("conflict", `${printablePath(folder)} has its save points in ${known}, which still exists`, {
      hint: advice`leave out ${option("controlDirectory")}; or release the folder first: ${releaseLine(folder)}`,
    });
  }
  const workspace = workspaceOnceOf(control, folder);
  return workspace === null ? null : { control, workspace };
}

/** `there`: the present workspace of the new folder. */
async function relocateTo(
  parts: WorkspaceParts,
  kept: Kept,
  move: Move & { there: FoundWorkspace | null },
): Promise<RelocateResult> {
  const { from, to, there, options } = move;
  if (there !== null && !isUnused(there)) throw keptAlready(there);
  if (!from.equals(to) && isStillThere(kept.workspace, from)) {
    throw new CairnError("conflict", `${printablePath(from)} is still there`, {
      hint: advice`move the folder first; to make a second workspace from it: ${line("fork")}`,
    });
  }
  checkLocation(to, { control: kept.control.root, allow: options.allow });
  const found = workspaceIn(kept.control, kept.workspace);
  await using workspace = new Workspace(found, parts);
  using _lock = await workspace.lock("relocate", options);
  if (!isSameDirectory(kept.workspace, to) && !looksLike(to, await topNames(workspace))) {
    throw new CairnError(
      "conflict",
      `${printablePath(to)} is not the folder that was the workspace at ${printablePath(from)}`,
      {
        hint: advice`name the folder that was moved; to make this folder a workspace of its own: ${line(`init ${shellPath(to)}`, "openOrInit", printablePath(to))}`,
      },
    );
  }
  if (there !== null) await releaseUnused(parts, there, options);
  moveConversion(workspace, from, to);
  moveWorkspace(kept, from, to);
  const moved = workspaceAt(to);
  if (moved === null) throw new CairnError("internal", `${printablePath(to)} was relocated and is not found`);
  return { workspace: workspaceRef(moved), from: from.toString("utf8") };
}

/**
 * True for a workspace without points, made by a command in the new folder before the relocation. A self-contained one
 * was made on request.
 */
function isUnused({ paths, controlFile }: FoundWorkspace): boolean {
  return !controlFile.self_contained && new Points(paths).sequences().length === 0;
}

function keptAlready({ folder, workspace }: FoundWorkspace): CairnError {
  return new CairnError("conflict", `${printablePath(folder)} is the workspace ${workspace.name} already`, {
    hint: advice`release that workspace first, then relocate: ${releaseLine(folder)}`,
  });
}

/** Releases an unused workspace with its control directory, so that the next `init` of the folder does not find it. */
async function releaseUnused(parts: WorkspaceParts, found: FoundWorkspace, options: CallOptions): Promise<void> {
  await using workspace = new Workspace(found, parts);
  using _lock = await workspace.lock("relocate", options);
  using _control = await acquireLock(found.control.lock, lockingOf("relocate", options));
  if (!isUnused(found)) throw keptAlready(found);
  const { foreign } = await workspace.engine.storeFacts({ foreign: true });
  if (isLastWorkspace(found) && !foreign) removeControlDirectory(found);
  else retireWorkspace(found);
}

/** Returns the top-level names of the point at head; none if nothing was saved. */
async function topNames(workspace: Workspace): Promise<Uint8Array[]> {
  const { head } = workspace.state();
  const point = head === null ? null : workspace.byId(head);
  if (point === null) return [];
  if (!point.sealed && heldTreeProblem(workspace.points, point) === null)
    return readdirSync(treePlace(workspace.points, point), { encoding: "buffer" });
  const source = await workspace.source(point);
  return Array.from(source.list(source.root), ({ name }) => name);
}

/** True if the folder has at least half of the point's top-level names. */
function looksLike(folder: Buffer, names: readonly Uint8Array[]): boolean {
  const present = new Set(readdirSync(folder, { encoding: "buffer" }).map((name) => name.toString("latin1")));
  const shared = names.filter((name) => present.has(Buffer.from(name).toString("latin1"))).length;
  return shared >= names.length / 2;
}

function isSameDirectory(workspace: PlacedWorkspace, folder: Buffer): boolean {
  const facts = statSync(folder, { bigint: true });
  return facts.ino.toString() === workspace.root_inode && facts.dev.toString() === workspace.device;
}

/** True if the kept folder is still at the old path. */
function isStillThere(workspace: PlacedWorkspace, folder: Buffer): boolean {
  if (!realPathOf(folder).equals(folder)) return false;
  const facts = statSync(folder, { bigint: true, throwIfNoEntry: false });
  return facts?.isDirectory() === true && facts.ino.toString() === workspace.root_inode && pathIs(workspace, folder);
}

/** True if a workspace was relocated from a path that does not exist any more. */
function wasMovedFrom({ relocated_from: recorded }: PlacedWorkspace, from: Buffer): boolean {
  return recorded !== undefined && from.equals(rawPath(recorded)) && !existsSync(from);
}
