import { existsSync, readdirSync } from "node:fs";
import { CairnError } from "../errors.ts";
import { acquireLock } from "../fs/lock.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import { controlPaths, MAIN_WORKSPACE } from "../workspace/control-layout.ts";
import { moveConversion } from "../workspace/convert.ts";
import {
  findWorkspace,
  type FoundWorkspace,
  pathIs,
  realPathOf,
  workspaceAt,
  workspaceIn,
} from "../workspace/find-workspace.ts";
import { checkLocation, realFolder } from "../workspace/guards.ts";
import { Points } from "../workspace/points.ts";
import { lockRegistry, readRegistration } from "../workspace/registry.ts";
import {
  isSameDirectory,
  isStillThere,
  looksLike,
  moveWorkspace,
  registerMoved,
  wasMovedFrom,
  workspaceKeptIn,
  workspaceOnceAt,
  type Relocatable,
} from "../workspace/relocate.ts";
import { isLastWorkspace, removeControlDirectory, retireWorkspace } from "../workspace/release.ts";
import { treePlace } from "../workspace/shared-trees.ts";
import { type EngineFactory, lockingOf, Workspace } from "../workspace/workspace.ts";
import type { CallOptions, RelocateOptions, RelocateResult } from "./contract.ts";
import { workspaceRef } from "./workspace-ref.ts";

export interface RelocateRequest {
  from: string;
  to: string;
  options: RelocateOptions;
}

/**
 * The folder was moved from one path to the other; its points follow. Again changes nothing. Throws `not_found` when
 * nothing was kept at the old path, `usage` for one path twice, `conflict` when the folder is still there, when the new one is a workspace
 * with points already or is not that folder.
 */
export async function relocate(factory: EngineFactory, request: RelocateRequest): Promise<RelocateResult> {
  const { options } = request;
  const { controlDirectory } = options;
  const { from, to } =
    controlDirectory === undefined
      ? foldersOf(request)
      : { from: realPathOf(request.from), to: realFolder(request.to) };
  if (from.equals(to) && controlDirectory === undefined)
    throw new CairnError("usage", `both are ${printablePath(to)}`, {
      hint: "name the old path first, then the new one",
    });
  using _registry = await lockRegistry(lockingOf("relocate", options));
  if (controlDirectory !== undefined) {
    const root = realPathOf(controlDirectory).toString("utf8");
    return await relocateWith(factory, root, { from, to, options });
  }
  const kept = workspaceOnceAt(from);
  const there = workspaceAt(to);
  const isThere =
    there !== null && (kept === null ? pathIs(there.workspace, from) : there.workspace.id === kept.workspace.id);
  if (isThere) {
    // Moved with its control directory beside it, or an earlier call was killed before its end.
    await using workspace = new Workspace(there, factory);
    using _lock = await workspace.lock("relocate", options);
    moveWorkspace({ control: there.control.root, workspace: there.workspace }, from, to);
    return { workspace: workspaceRef(workspaceAt(to) ?? there), from: from.toString("utf8") };
  }
  if (kept === null) {
    if (there === null || !wasMovedFrom(there.workspace, from)) throw nothingKept(from);
    return { workspace: workspaceRef(there), from: from.toString("utf8") };
  }
  return await relocateTo(factory, kept, { from, to, there, options });
}

function nothingKept(from: Buffer): CairnError {
  return new CairnError("not_found", `nothing was kept at ${printablePath(from)}`, {
    hint: "`cairn workspaces` lists what is",
  });
}

interface Move {
  from: Buffer;
  to: Buffer;
  /** The workspace that the new folder is. */
  there: FoundWorkspace | null;
  options: RelocateOptions;
}

/** The control directory is where the caller says, and the registry learns that; the folder may be where it was. */
async function relocateWith(factory: EngineFactory, root: string, move: Omit<Move, "there">): Promise<RelocateResult> {
  const { from, to } = move;
  const kept = workspaceKeptIn(root, from) ?? workspaceKeptIn(root, to);
  if (kept === null) throw nothingKept(from);
  const isOwn = readRegistration(to)?.workspace_id === kept.workspace.id;
  const there = isOwn ? null : workspaceAt(to);
  const moved = await relocateTo(factory, kept, {
    ...move,
    there: there?.workspace.id === kept.workspace.id ? null : there,
  });
  registerMoved(root);
  return moved;
}

async function relocateTo(factory: EngineFactory, kept: Relocatable, move: Move): Promise<RelocateResult> {
  const { from, to, there } = move;
  if (there !== null && !isUnused(there)) throw keptAlready(there);
  if (!from.equals(to) && isStillThere(kept.workspace, from)) {
    throw new CairnError("conflict", `${printablePath(from)} is still there`, {
      hint: "move the folder first; for a second workspace from it: cairn fork",
    });
  }
  checkLocation(to, { control: kept.control, allow: move.options.allow });
  await moveLocked(factory, kept, move);
  const moved = workspaceAt(to);
  if (moved === null) throw new CairnError("internal", `${printablePath(to)} was relocated and is not found`);
  return { workspace: workspaceRef(moved), from: from.toString("utf8") };
}

/** A look in the new folder, before it was relocated, has made it a workspace: nobody misses it. One that was made self-contained was asked for. */
function isUnused({ paths, controlFile }: FoundWorkspace): boolean {
  return !controlFile.self_contained && new Points(paths).sequences().length === 0;
}

function keptAlready({ folder, workspace }: FoundWorkspace): CairnError {
  return new CairnError("conflict", `${printablePath(folder)} is the workspace ${workspace.name} already`, {
    hint: `stop keeping it as that one, then relocate: cairn release ${shellPath(folder)}`,
  });
}

/** Its control directory goes with it: the next adoption of the folder must not find that one. */
async function releaseUnused(factory: EngineFactory, found: FoundWorkspace, options: CallOptions): Promise<void> {
  await using workspace = new Workspace(found, factory);
  using _lock = await workspace.lock("relocate", options);
  using _control = await acquireLock(found.control.lock, lockingOf("relocate", options));
  if (!isUnused(found)) throw keptAlready(found);
  const { foreign } = await workspace.engine.storeFacts({ foreign: true });
  if (isLastWorkspace(found) && !foreign) removeControlDirectory(found);
  else retireWorkspace(found);
}

/** A self-contained root stands for the workspace in it. */
function foldersOf(request: RelocateRequest): { from: Buffer; to: Buffer } {
  const [from, to] = [realPathOf(request.from), realFolder(request.to)];
  const below = (folder: Buffer): Buffer => Buffer.concat([folder, Buffer.from(`/${MAIN_WORKSPACE}`)]);
  const inside = workspaceAt(to) === null ? findWorkspace(to, { exact: true }) : null;
  return inside?.via === "self-contained" && inside.folder.equals(below(to))
    ? { from: below(from), to: below(to) }
    : { from, to };
}

async function moveLocked(factory: EngineFactory, kept: Relocatable, move: Move): Promise<void> {
  const found = workspaceIn(controlPaths(kept.control), kept.workspace);
  await using workspace = new Workspace(found, factory);
  using _lock = await workspace.lock("relocate", move.options);
  if (!isSameDirectory(kept.workspace, move.to) && !looksLike(move.to, await topNames(workspace))) {
    throw new CairnError(
      "conflict",
      `${printablePath(move.to)} is another folder than the one that was kept at ${printablePath(move.from)}`,
      {
        hint: "name the folder that was moved; to keep this one too: cairn save",
      },
    );
  }
  if (move.there !== null) await releaseUnused(factory, move.there, move.options);
  moveConversion(found.paths.journal, move.from, move.to);
  moveWorkspace(kept, move.from, move.to);
}

/** Names that the point at head has at the top; none where nothing was saved. */
async function topNames(workspace: Workspace): Promise<Uint8Array[]> {
  const { head } = workspace.state();
  const point = head === null ? null : workspace.byId(head);
  if (point === null) return [];
  const tree = treePlace(workspace.points, point);
  if (!point.sealed && existsSync(tree)) return readdirSync(tree, { encoding: "buffer" });
  const source = await workspace.source(point);
  return source.list(source.root).map(({ name }) => name);
}
