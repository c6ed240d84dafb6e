import fs from "node:fs";
import { dirname } from "node:path";
import { beyondNodes } from "../store/beyond-nodes.ts";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, line, option, see, word } from "../../errors.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";
import { failpoint } from "../../failpoint.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { flushing } from "../../fs/linux/flush.ts";
import { makeFolder, openToUmask } from "../../fs/make-folder.ts";
import { onSameMount } from "../../fs/linux/mounts.ts";
import { throttled } from "../../pacer.ts";
import { isAtOrBelow, printablePath, quotedPath, shellQuote } from "../../fs/paths/safe-path.ts";
import { whyNotCopied } from "../restore/exchangeable.ts";
import { realPathOf } from "../place/find-workspace.ts";
import { heldTreeOf, treePlace } from "../points/held-trees.ts";
import { checkLocation } from "../place/guards.ts";
import { NewFolder, requireFree } from "./new-folder.ts";
import { isSibling, neverRead, type Point } from "../points/point-files.ts";
import { lackingPath } from "../rules/absolute.ts";
import { findNode } from "../points/tree-diff.ts";
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
interface Part {
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
function setOwn(folder: Buffer, { point, part }: Pick<WriteInput, "point" | "part">): NotSet[] {
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

/** Throws `refused` for a target inside the workspace, which the next point would include. */
export function requireOutside(workspace: Workspace, target: Buffer): void {
  if (!isAtOrBelow(target, workspace.root)) return;
  throw new CairnError("refused", `${printablePath(target)} lies inside the workspace`, {
    hint: advice`name a place outside the workspace, or restore without ${option("to")}, into the workspace's folder itself`,
  });
}

export interface RestoreToInput extends WorkspaceCall {
  point: Point;
  to: string;
  /** Raw path of the folder of the point whose entries are written; empty: the root. */
  below?: Uint8Array;
  /** raw paths below the root, also those below `below`; null: everything */
  paths: readonly Uint8Array[] | null;
  allow?: readonly GuardName[] | undefined;
}

/**
 * Writes a point, a folder of it, or some of its paths, into an absent or empty folder elsewhere. The content is durable
 * before the folder gets its name. After a kill the next command removes the rest.
 */
export async function restoreTo(workspace: Workspace, input: RestoreToInput): Promise<WrittenFolder> {
  const { point, below = new Uint8Array(0) } = input;
  if (!point.sealed) throw neverRead(point);
  const target = realPathOf(input.to);
  requireFree(target);
  checkLocation(target, { allow: ["home", "nested", "git"] });
  requireOutside(workspace, target);
  return workspace.engine.reading(async () => {
    requireStillThere(workspace, point);
    const part = below.length === 0 ? undefined : await partOf(workspace, point, below);
    if (input.paths !== null) await requirePaths(workspace, point, input.paths);
    else if (part === undefined) await checkRoomFor(workspace, point, { target, allow: input.allow });
    const paths =
      part === undefined ? input.paths : (input.paths?.map((path) => path.subarray(below.length + 1)) ?? null);
    const partial = NewFolder.begin(workspace.found.control, "restore", target, { unrecorded: true });
    const { movesIn } = partial;
    try {
      const written = await flushing(partial.staging, async () => {
        if (paths === null && part === undefined) return writeWhole(workspace, { ...input, partial });
        partial.noteMade();
        return writeContent(workspace, { ...input, part, paths, folder: partial.staging, movesIn });
      });
      if (paths !== null) openToUmask(partial.staging);
      const isFilled = movesIn && paths === null;
      partial.commit(isFilled ? (part?.node ?? rootToSet(target, point)).mode : undefined);
      if (isFilled) for (const each of setOwn(target, { point, part })) written.leftOut.push(notSetEntry(each));
      partial.end();
      return written;
    } catch (error) {
      partial.abandon(input.onWarning);
      throw error;
    }
  }, input);
}

/** Returns a directory of a point. Throws `not_found`, and `conflict` for another entry. */
async function partOf(workspace: Workspace, point: Point, path: Uint8Array): Promise<Part> {
  await requirePaths(workspace, point, [path]);
  const node = findNode(await workspace.source(point), path)!;
  if (node.type === "dir") return { path, node };
  const id = point.descriptor.save_point_id.slice(0, 8);
  const name = printablePath(path);
  throw new CairnError("conflict", `${quotedPath(path)} is not a folder in the save point ${id}`, {
    hint: advice`restore it by its path: ${line(`restore ${id} ${shellQuote(name)} --to DIR`, "restore", { target: id, paths: [name], to: word("to") })}`,
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

async function requirePaths(workspace: Workspace, point: Point, paths: readonly Uint8Array[]): Promise<void> {
  const path = lackingPath(paths, await workspace.source(point));
  if (path === null) return;
  throw new CairnError(
    "not_found",
    `${quotedPath(path)} is not in the save point ${point.descriptor.save_point_id.slice(0, 8)}`,
    { hint: see("show POINT", "show", word("point")) },
  );
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
