import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import { type ScanRequest, STAGING_PREFIX } from "../../archive/scan/task.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { durableMkdir, durableWrite, fsyncDirectory } from "../../fs/durable.ts";
import { displayPath, joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import type { SavePointId } from "../../ids.ts";
import { newKeptPlace } from "../place/control-layout.ts";
import { displacedName, stagedName, type Steps } from "../points/steps.ts";
import { newPacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { heldTreeProblem, isAsMade, treePlace } from "../points/held-trees.ts";
import type { Point } from "../points/point-files.ts";
import { sameContent } from "../points/same-content.ts";
import { type DiffAspect, differences, NodeFinder } from "../points/tree-diff.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

interface Displaced {
  path: Uint8Array;
  name: string;
  /** a copy of content that was written over in place: it has other metadata than the file had */
  isCopy?: true;
}

/** Returns the undo point's node at a path. Works at least for the paths of displaced entries. */
export type SavedNodes = (path: Uint8Array) => TreeNode | null | undefined;

/**
 * Checks displaced entries before they are deleted. An entry that differs from the undo point, because of a write
 * through an open descriptor or a mapping, or that cannot be read, is moved to a lasting place and named.
 */
export async function keepWrittenTo(
  workspace: Workspace,
  call: WorkspaceCall,
  restore: { undoId: SavePointId; staging: string; steps: Steps; saved?: SavedNodes | undefined },
): Promise<void> {
  const staging = Buffer.from(restore.staging);
  const undo = workspace.points.byId(restore.undoId);
  if (undo === null || displacedBy(restore.steps, staging).next().done === true) return;
  if (!undo.sealed && heldTreeProblem(workspace.points, undo) !== null)
    return keepAside(workspace, [...displacedBy(restore.steps, staging)], { staging, onWarning: call.onWarning });
  // Contents are read again, or compared with the held tree: a write through a mapping need not change the time.
  const { onProgress } = call;
  // The scan of a million entries takes 200 MB, and so do the tables of the plan, which is complete.
  await workspace.engine.giveBackScans();
  const scan = await workspace.engine.lookAt(undo.sealed ? { root: staging, rules: NO_RULES } : unreadTree(staging), {
    onProgress,
  });
  const finder = new RecordFinder(scan);
  const saved = restore.saved ?? nodesOf(await sourceOf(workspace, undo));
  const isHeld = undo.sealed ? null : heldContents(workspace, undo);
  const written: Displaced[] = [];
  for (const each of displacedBy(restore.steps, staging)) {
    const { path: where, name, isCopy } = each;
    const now = finder.nodeOf(Buffer.from(name));
    const was = saved(where);
    // Null also stands for an entry that was kept in its place.
    if (now === null) {
      if (inodeOf(joinRaw(staging, name)) !== undefined) written.push(each);
      continue;
    }
    // The displacement itself lowers the number of links. Contents known only by inodes are compared as bytes below.
    const isOther = (aspect: DiffAspect): boolean =>
      aspect === "content" ? isHeld === null : isCopy !== true && aspect !== "links";
    if (
      finder.isUnread(Buffer.from(name)) ||
      (was !== undefined && was !== null && differences(was, now).some(isOther))
    )
      written.push(each);
    else if (isHeld !== null && was?.type === "file" && !(await isHeld(where, joinRaw(staging, name))))
      written.push(each);
  }
  keepAside(workspace, written, { staging, onWarning: call.onWarning });
}

/** Returns the undo point's tree; without contents if the point is not sealed. */
async function sourceOf(workspace: Workspace, undo: Point): Promise<TreeSource> {
  if (undo.sealed) return workspace.source(undo);
  return presentSource(await workspace.engine.lookAt(unreadTree(Buffer.from(treePlace(workspace.points, undo))), {}));
}

function unreadTree(root: Buffer): ScanRequest {
  return { root, rules: NO_RULES, unread: { heldAt: 0, isLater: false } };
}

/** Returns a function that tells if the undo point's tree has a file's content, in an unchanged file. */
function heldContents({ points }: Workspace, undo: Point): (where: Uint8Array, file: Buffer) => Promise<boolean> {
  const pace = newPacer(undefined);
  const tree = Buffer.from(treePlace(points, undo));
  return async (where, file) => {
    const held = joinRaw(tree, where);
    return isAsMade(points, undo, held) && (await sameContent(held, file, pace));
  };
}

function* displacedBy(steps: Steps, staging: Buffer): Generator<Displaced> {
  for (const step of steps) {
    if (step.op === "remove") yield { path: step.path, name: displacedName(step.kept) };
    if (step.op !== "write" && (step.op !== "put" || step.old === null)) continue;
    const name = stagedName(step.staged);
    // If the old entry was kept at its path, the new one still lies here: nothing was displaced.
    if (inodeOf(joinRaw(staging, name)) === step.inode) continue;
    yield { path: step.path, name, ...(step.op === "write" ? { isCopy: true } : {}) };
  }
}

function inodeOf(place: Buffer): string | undefined {
  return fs.lstatSync(place, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}

function nodesOf(source: TreeSource): SavedNodes {
  const finder = new NodeFinder(source);
  return (where) => finder.at(where);
}

/**
 * Moves entries to a kept place. After a kill before a move the next command checks the entry again; after it the entry
 * lies there, with its path in `names`.
 */
function keepAside(
  { found }: Workspace,
  entries: readonly Displaced[],
  { staging, onWarning }: { staging: Buffer; onWarning: WorkspaceCall["onWarning"] },
): void {
  if (entries.length === 0) return;
  const names = entries.map(({ path: where, name }) => `${name}\t${displayPath(where).path}\n`).join("");
  let place = newKeptPlace(found.control, "restore");
  makeKeptPlace(place, names);
  let isEmpty = true;
  for (const { path: where, name } of entries) {
    const from = joinRaw(staging, name);
    let kept = path.join(place, name);
    if (!isMoved(from, kept)) {
      if (isEmpty) removeAll(place);
      place = makeBeside(staging, names);
      kept = path.join(place, name);
      if (!isMoved(from, kept))
        throw new CairnError(
          "unsupported",
          `cannot keep the version of ${printablePath(where)} that the restore replaced: it is on another file system than its place in \`kept/\``,
        );
    }
    isEmpty = false;
    failpoint("restore.displaced-kept");
    onWarning?.(
      `${printablePath(where)} was changed during the restore, and no save point has that version: it lies in ${kept}; remove it when you no longer need it`,
    );
  }
}

/** `names`: a line for each entry, with its name and former path. */
function makeKeptPlace(place: string, names: string): void {
  durableMkdir(place);
  durableWrite(path.join(place, "names"), Buffer.from(names), { mode: 0o600 });
}

/**
 * Makes a kept place beside the staging directory, for entries that cannot move to another file system. A save ignores such names at the folder's root.
 */
function makeBeside(staging: Buffer, names: string): string {
  // realpath of the system: in a path through a descriptor, `..` starts at the descriptor's target.
  const parent = fs.realpathSync.native(Buffer.concat([staging, Buffer.from("/..")]));
  const place = path.join(parent, `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`);
  makeKeptPlace(place, names);
  return place;
}

/** Moves a file; false if the two places are on different file systems. */
function isMoved(from: Buffer, to: string): boolean {
  try {
    fs.renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EXDEV") return false;
    throw toCairnError(error, `move the replaced files to ${to}`);
  }
  fsyncDirectory(path.dirname(to));
  return true;
}
