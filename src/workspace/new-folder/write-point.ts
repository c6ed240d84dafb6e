import fs from "node:fs";
import { dirname } from "node:path";
import { beyondNodes } from "../store/beyond-nodes.ts";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, option, see } from "../../errors.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";
import { failpoint } from "../../failpoint.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { onSameMount } from "../../fs/linux/mounts.ts";
import { throttled } from "../../pacer.ts";
import { whyNotCopied } from "../restore/exchangeable.ts";
import { heldTreeOf, treePlace } from "../points/held-trees.ts";
import type { NewFolder } from "./new-folder.ts";
import { isSibling, neverRead, type Point } from "../points/point-files.ts";
import { lackingIn, type LeftOutEntry, notSetEntry } from "../points/left-out.ts";
import { rootToSet, setLikeNode, setRoot } from "../points/root-changes.ts";
import { existingAncestor, hasRoom, requireRoom } from "../place/room.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

/** Writes a point's content into a folder other than the workspace. */

export interface WriteInput extends WorkspaceCall {
  point: Point;
  /** an existing empty folder */
  folder: Buffer;
  /** only this folder of the point: `folder` gets its entries */
  part?: Part | undefined;
  /** raw paths below the root, or below `part`; null: everything */
  paths: readonly Uint8Array[] | null;
  readOnly?: boolean;
  /** the entries will be moved into another folder, which gets the point's own mode and times */
  movesIn?: boolean;
}

/** A directory of a point. */
export interface Part {
  path: Uint8Array;
  node: TreeNode;
}

export interface WrittenFolder {
  entries: number;
  bytes: number;
  leftOut: LeftOutEntry[];
}

/** Fills a folder. Lists content that the store has lost and metadata that could not be set; the rest is exact. */
export async function writeContent(workspace: Workspace, input: WriteInput): Promise<WrittenFolder> {
  const { point, folder, part, paths, readOnly, signal, onProgress } = input;
  if (!point.sealed) throw neverRead(point);
  const { descriptor } = point;
  const content = descriptor.content as unknown as Parameters<Workspace["engine"]["write"]>[0];
  const total = countOf(point);
  const written = await workspace.engine.write(content, {
    target: folder,
    part: part && { path: part.path, tree: part.node.subtree! },
    paths,
    readOnly: readOnly ?? false,
    held: heldTreeOf(workspace.points, point) ?? undefined,
    signal,
    ...(onProgress === undefined
      ? {}
      : {
          onProgress: throttled(({ done, bytes }) =>
            onProgress({
              phase: "restoring",
              done,
              bytes,
              ...(paths === null && part === undefined ? { total, total_bytes: descriptor.bytes } : {}),
            }),
          ),
        }),
  });
  failpoint("write.content-written");
  const notSet = paths === null && readOnly !== true && input.movesIn !== true ? setOwn(folder, input) : [];
  return {
    entries: written.entries,
    bytes: written.bytes,
    leftOut: [
      ...written.damaged.map(({ path, detail }) => ({ path, reason: "damaged" as const, detail })),
      ...[...written.notSet, ...notSet].map(notSetEntry),
      ...lackingIn(written.lacks, paths),
    ],
  };
}

/** Sets the metadata of a folder that has the entries of a point, or of a part of it. */
export function setOwn(folder: Buffer, { point, part }: Pick<WriteInput, "point" | "part">): NotSet[] {
  return part === undefined ? setRoot(folder, rootToSet(folder, point)) : setLikeNode(folder, part.node);
}

/** Fills the folder with a whole point: as a copy of its tree, which shares disk space, or else by writing. */
export async function writeWhole(
  workspace: Workspace,
  input: Omit<WriteInput, "paths" | "readOnly" | "folder"> & { partial: NewFolder; isRuleless?: boolean },
): Promise<WrittenFolder> {
  const { point, partial, signal } = input;
  const folder = partial.staging;
  // Entries cannot be renamed out of a subvolume.
  if (partial.movesIn || !isCopiedWhole(workspace, point, folder, input.isRuleless)) {
    partial.noteMade();
    return writeContent(workspace, { ...input, folder, paths: null, movesIn: partial.movesIn });
  }
  partial.letGo();
  fs.rmdirSync(folder);
  await workspace.engine.holder!.materialise(treePlace(workspace.points, point), folder, { signal });
  partial.hold();
  failpoint("write.tree-copied");
  return { entries: countOf(point), bytes: point.descriptor.bytes, leftOut: [] };
}

/** Tells if a folder (or its nearest existing parent) can get a whole point as a copy of its tree. */
export function isCopiedWhole(workspace: Workspace, point: Point, folder: Buffer, isRuleless = false): boolean {
  if (isSibling(point)) return false;
  const isBeside = onSameMount(folder, workspace.points.pathsOf(point.sequence).root);
  return isBeside && whyNotCopied(workspace, point, isRuleless) === null;
}

function countOf(point: Point): number {
  const { files, directories, links, other } = point.descriptor.entries;
  return files + directories + links + other;
}

/** Throws `no_space` if a folder's file system has no room for all of a point. */
export async function checkRoomFor(
  workspace: Workspace,
  point: Point,
  { target, allow = [], hint }: { target: Buffer; allow?: readonly GuardName[] | undefined; hint?: string },
): Promise<void> {
  const { bytes } = point.descriptor;
  if (!point.sealed || allow.includes("space") || hasRoom(target, bytes)) return;
  if (isCopiedWhole(workspace, point, existingAncestor(target))) return;
  // Holes are not written. The holes are counted only if the room may be too small.
  const { holes } = await beyondNodes(async () => workspace.manifest(point));
  let written = bytes;
  for (const list of holes.values()) for (const [, length] of list) written -= length;
  if (hint !== undefined) return requireRoom(target, written, { hint });
  requireRoom(target, written, {
    hint: advice`choose another place; or go on with ${option({ allow: ["space"] })}, as a point with many hard links needs less`,
    guard: "space",
  });
}

/** Throws `not_found` if a cleanup removed the point. Call this when cleanup is locked out. */
export function requireStillThere(workspace: Workspace, point: Point): void {
  workspace.points.refresh();
  const id = point.descriptor.save_point_id;
  if (isSibling(point) ? workspace.resolve(id) === null : workspace.byId(id) === null) {
    throw new CairnError(
      "not_found",
      `the save point ${point.descriptor.save_point_id.slice(0, 8)} has just been removed`,
      { hint: see("history") },
    );
  }
}

/**
 * Makes a temporary `folder` with the content of a point. `isCopied`: clones the point's tree. Else writes the files of
 * the point, which must be sealed. Returns the entries that could not be written. Throws `no_space` with `hint`.
 */
export async function placeCopy(
  workspace: Workspace,
  point: Point,
  { folder, isCopied, hint }: { folder: string; isCopied: boolean; hint: string },
  call: WorkspaceCall,
): Promise<readonly LeftOutEntry[]> {
  const target = Buffer.from(folder);
  return workspace.engine.reading(async () => {
    requireStillThere(workspace, point);
    makeFolder(dirname(folder));
    if (isCopied) {
      await workspace.engine.holder!.materialise(treePlace(workspace.points, point), target, { signal: call.signal });
      return [];
    }
    await checkRoomFor(workspace, point, { target, hint });
    makeFolder(folder);
    const { leftOut } = await writeContent(workspace, { ...call, point, folder: target, paths: null });
    return leftOut;
  }, call);
}
