import { CairnError } from "../errors.ts";
import { printablePath } from "../fs/safe-path.ts";
import { controlPaths, MAIN_WORKSPACE } from "../workspace/control-layout.ts";
import { findWorkspace, pathIs, realPathOf, workspaceAt, workspaceNamed } from "../workspace/find-workspace.ts";
import { checkLocation, realFolder } from "../workspace/guards.ts";
import { lockRegistry } from "../workspace/registry.ts";
import {
  isSameDirectory,
  isStillThere,
  looksLike,
  moveWorkspace,
  workspaceOnceAt,
  type Relocatable,
} from "../workspace/relocate.ts";
import { type EngineFactory, Workspace } from "../workspace/workspace.ts";
import type { CallOptions, RelocateResult } from "./contract.ts";
import { workspaceRef } from "./workspace-ref.ts";

export interface RelocateRequest {
  from: string;
  to: string;
  options: CallOptions;
}

/**
 * The folder was moved from one path to the other; its points follow. Again changes nothing. Throws `not_found` when
 * nothing was kept at the old path, `usage` for one path twice, `conflict` when the folder is still there, when the new one is a workspace
 * already or is not that folder.
 */
export async function relocate(factory: EngineFactory, request: RelocateRequest): Promise<RelocateResult> {
  const { options } = request;
  const { from, to } = foldersOf(request);
  if (from.equals(to))
    throw new CairnError("usage", `both are ${printablePath(to)}`, {
      hint: "name the old path first, then the new one",
    });
  const locking = {
    ...(options.lockTimeoutMs === undefined ? {} : { timeoutMs: options.lockTimeoutMs }),
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  };
  using _registry = await lockRegistry({ ...locking, purpose: "relocate" });
  const kept = workspaceOnceAt(from);
  const there = workspaceAt(to);
  const isThere =
    there !== null && (kept === null ? pathIs(there.workspace, from) : there.workspace.id === kept.workspace.id);
  if (isThere) {
    // Moved with its control directory beside it, or an earlier call was killed before its end.
    moveWorkspace({ control: there.control.root, workspace: there.workspace }, from, to);
    return { workspace: workspaceRef(workspaceAt(to) ?? there), from: from.toString("utf8") };
  }
  if (kept === null) {
    throw new CairnError("not_found", `nothing was kept at ${printablePath(from)}`, {
      hint: "`cairn workspaces` lists what is",
    });
  }
  if (there !== null)
    throw new CairnError("conflict", `${printablePath(to)} is the workspace ${there.workspace.name} already`);
  if (isStillThere(kept.workspace, from)) {
    throw new CairnError("conflict", `${printablePath(from)} is still there`, {
      hint: "move the folder first; for a second workspace from it: cairn fork",
    });
  }
  checkLocation(to, { control: kept.control });
  await moveLocked(factory, kept, { from, to, options });
  const moved = workspaceAt(to);
  if (moved === null) throw new CairnError("internal", `${printablePath(to)} was relocated and is not found`);
  return { workspace: workspaceRef(moved), from: from.toString("utf8") };
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

async function moveLocked(
  factory: EngineFactory,
  kept: Relocatable,
  move: { from: Buffer; to: Buffer; options: CallOptions },
): Promise<void> {
  const found = workspaceNamed(controlPaths(kept.control), kept.workspace.name);
  if (found === null) throw new CairnError("not_found", `the workspace ${kept.workspace.name} is not there any more`);
  const workspace = new Workspace(found, factory);
  try {
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
    moveWorkspace(kept, move.from, move.to);
  } finally {
    await workspace.close();
  }
}

/** Names that the point at head has at the top; none where nothing was saved. */
async function topNames(workspace: Workspace): Promise<Uint8Array[]> {
  const { head } = workspace.state();
  const point = head === null ? null : workspace.byId(head);
  if (point === null) return [];
  const source = await workspace.source(point);
  return source.list(source.root).map(({ name }) => name);
}
