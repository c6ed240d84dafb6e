import fs from "node:fs";
import type { Cause, Descriptor } from "../../formats/records/descriptor.ts";
import type { SavePointId } from "../../ids.ts";
import { type PlacedWorkspace, writeState } from "../place/control-directory.ts";
import type { WorkspacePaths } from "../place/control-layout.ts";
import { capturePoint } from "../save/capture.ts";
import { isOfAll, neverRead, type Point } from "../points/point-files.ts";
import { Points } from "../points/points.ts";
import { type FoundWorkspace, workspaceAt } from "../place/find-workspace.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { CairnError } from "../../errors.ts";
import { existingAncestor } from "../place/room.ts";
import { isRuleless, noteRuleless } from "../open/ruleless.ts";
import { isMountRoot } from "./new-folder.ts";
import { isCopiedWhole } from "./write-point.ts";
import type { PointContent } from "../store/engine.ts";
import { Workspace, type WorkspaceCall, type WorkspaceParts } from "../open/workspace.ts";

/** Makes the first point of a fork: the same content as the point that it starts from. */

/** Returns the cause of a fork's first point. */
export function causeOf(workspace: Workspace, point: Point): Cause {
  return { kind: "fork", from: point.descriptor.save_point_id, from_workspace: workspace.found.workspace.name };
}

/** Returns the message of a fork's first point. */
export function messageOf(point: Point): string {
  const { save_point_id, message } = point.descriptor;
  return `fork of ${save_point_id.slice(0, 8)}${message === "" ? "" : `: ${message}`}`.slice(0, 1000);
}

/** Holds the new folder, a copy of a point's unread tree, as the first point of its workspace. */
export async function holdFirst(
  workspace: Workspace,
  input: WorkspaceCall & { point: Point; parts: WorkspaceParts },
  { folder, target, made, paths }: { folder: Buffer; target: Buffer; made: PlacedWorkspace; paths: WorkspacePaths },
): Promise<void> {
  const { control, controlFile } = workspace.found;
  const found = { folder, recordedFolder: target, control, controlFile, workspace: made, paths };
  await using own = new Workspace(found, input.parts, workspace.removals);
  using _lock = await own.lock("fork", input);
  const { signal, onWarning } = input;
  const call = { message: messageOf(input.point), cause: causeOf(workspace, input.point), signal, onWarning };
  const held = await capturePoint(own, call, own.engine.holder!);
  // The tree cannot be held: the point must be sealed and read.
  if (!("point" in held)) throw neverRead(input.point);
  noteRuleless(own, held.point);
}

/** Puts a point whose content is in the store in place. */
export function putFirst(staged: WorkspacePaths, descriptor: Descriptor): void {
  removeAll(staged.points);
  fs.mkdirSync(staged.points, { mode: 0o700 });
  const points = new Points(staged);
  points.claim(descriptor.sequence, descriptor.save_point_id);
  points.commit(descriptor);
  fs.rmSync(staged.catalog, { force: true });
  writeState(staged, { head: descriptor.save_point_id, operations: [], recovered: [] });
}

/** Finds a finished fork at its place. */
export function inPlace(target: Buffer): { found: FoundWorkspace; point: Point } {
  const found = workspaceAt(target);
  const point = found === null ? null : new Points(found.paths).latest();
  if (found === null || point === null)
    throw new CairnError("internal", `${printablePath(target)} was forked and is not found`);
  return { found, point };
}

/** Describes the first point of a fork, whose content is in the store. */
export function firstDescriptor(
  workspace: Workspace,
  from: Point,
  made: { pointId: SavePointId; content: PointContent; record: PlacedWorkspace },
): Descriptor {
  // Its content is in the store; the held tree belongs to the original point.
  const { held: _held, ...content } = made.content as unknown as Descriptor["content"];
  return {
    ...from.descriptor,
    save_point_id: made.pointId,
    workspace_id: made.record.id,
    workspace_name: made.record.name,
    sequence: 1,
    created_at: new Date().toISOString(),
    message: messageOf(from),
    tags: [],
    parent_id: null,
    restored_from: null,
    cause: causeOf(workspace, from),
    engine: workspace.engine.type,
    effective_engine: workspace.engine.type,
    degraded: [],
    content,
    bytes_stored: 0,
    unchanged: false,
    undo: false,
  };
}

/** Tells if a new folder gets a copy of the point's whole tree, also unsealed if ignore rules hide nothing in it. */
export async function howItComes(
  workspace: Workspace,
  point: Point,
  { target, ...call }: WorkspaceCall & { target: Buffer },
): Promise<{ isCopied: boolean; isRuleless: boolean }> {
  if (isMountRoot(target)) return { isCopied: false, isRuleless: false };
  // A displaced tree has ignored entries too, and the fork's first point would not have them.
  const ruleless = !isOfAll(point.descriptor) && (await isRuleless(workspace, point, call));
  return { isCopied: isCopiedWhole(workspace, point, existingAncestor(target), ruleless), isRuleless: ruleless };
}
