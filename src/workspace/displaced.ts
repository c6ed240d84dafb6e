import fs from "node:fs";
import { RecordFinder } from "../engines/scan/find-record.ts";
import { presentSource } from "../engines/scan/present-source.ts";
import type { RestoreFile } from "../formats/restore.ts";
import type { TreeNode } from "../formats/tree.ts";
import { newSavePointId, type SavePointId } from "../ids.ts";
import { failpoint } from "../failpoint.ts";
import { joinRaw } from "../fs/safe-path.ts";
import { keepDisplaced } from "./kept-displaced.ts";
import { displacedName, stagedName } from "./restore-apply.ts";
import { apartOf } from "./restore-journal.ts";
import type { Step } from "./restore-steps.ts";
import { type Staging, Stagings } from "./staging-places.ts";
import { differences, NodeFinder } from "./tree-diff.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/** A displaced entry that is no longer what the undo point holds: where it was, and its name in a staging directory. */
interface Changed {
  path: Uint8Array;
  name: Uint8Array;
  staging: Staging;
}

/** Nodes of the undo point by path in latin1: at least those of everything that is displaced. */
export type SavedNodes = ReadonlyMap<string, TreeNode>;

/**
 * Looks at what a restore displaced before it is deleted: what was written to in between, through a descriptor or a
 * mapping that was still open, goes into a further point, which from then on is the one to undo with. Returns its id,
 * or the undo point's own when nothing changed. Contents are read again: a mapping need not move any time. What cannot
 * be read any more is kept aside.
 */
export async function checkDisplaced(
  workspace: Workspace,
  call: WorkspaceCall,
  restore: { intent: RestoreFile; steps: readonly Step[]; saved?: SavedNodes | undefined },
): Promise<SavePointId> {
  const { intent, saved } = restore;
  const stagings = new Stagings(workspace.root, intent.staging, apartOf(intent));
  try {
    const names = displacedBy(restore.steps, stagings);
    const undo = workspace.points.byId(intent.undo_id);
    if (names.length === 0 || undo === null) return intent.undo_id;
    let undoId = intent.undo_id;
    for (const staging of stagings.all()) {
      const here = names.filter((each) => each.staging === staging);
      if (here.length === 0) continue;
      const { changed, unread } = await changedSince(workspace, call, { undoId, staging, names: here, saved });
      if (changed.length > 0) undoId = await amendUndoPoint(workspace, call, { undoId, staging, changed });
      keepDisplaced(workspace, unread, call);
    }
    return undoId;
  } finally {
    stagings.close();
  }
}

function displacedBy(steps: readonly Step[], stagings: Stagings): Changed[] {
  return steps.flatMap((step): Changed[] => {
    if (step.op !== "put" && step.op !== "remove") return [];
    const staging = stagings.of(step.path);
    if (step.op === "remove") return [{ path: step.path, name: Buffer.from(displacedName(step.kept)), staging }];
    const name = Buffer.from(stagedName(step.staged));
    // Where the old entry was kept, the new one still lies there: nothing was displaced.
    const displaced = step.old !== null && inodeOf(joinRaw(staging.path, name)) !== step.inode;
    return displaced ? [{ path: step.path, name, staging }] : [];
  });
}

function inodeOf(place: Buffer): string | undefined {
  return fs.lstatSync(place, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}

async function changedSince(
  workspace: Workspace,
  call: WorkspaceCall,
  more: { undoId: SavePointId; staging: Staging; names: readonly Changed[]; saved: SavedNodes | undefined },
): Promise<{ changed: Changed[]; unread: Changed[] }> {
  const { signal: _ignored, ...rest } = call;
  const scan = await workspace.engine.lookAt(more.staging.path, rest);
  const finder = new RecordFinder(scan);
  const staging = presentSource(scan);
  const there = new Map(staging.list(staging.root).map((node) => [Buffer.from(node.name).toString("latin1"), node]));
  const wanted = more.saved ?? (await savedNodes(workspace, more));
  const changed: Changed[] = [];
  const unread: Changed[] = [];
  for (const each of more.names) {
    const now = there.get(Buffer.from(each.name).toString("latin1"));
    const was = wanted.get(Buffer.from(each.path).toString("latin1"));
    // Not there: it was kept in its place, so nothing of it was displaced.
    if (now === undefined && inodeOf(joinRaw(more.staging.path, each.name)) !== undefined) unread.push(each);
    else if (finder.isUnread(each.name)) unread.push(each);
    else if (now !== undefined && was !== undefined && isOther(was, now)) changed.push(each);
  }
  return { changed, unread };
}

/** Being linked less, and a change time, follow from the displacement itself. */
function isOther(was: TreeNode, now: TreeNode): boolean {
  return differences(was, now).some((aspect) => aspect !== "links");
}

/** What the undo point has at the paths, every directory read once. */
async function savedNodes(
  workspace: Workspace,
  more: { undoId: SavePointId; names: readonly Changed[] },
): Promise<SavedNodes> {
  const source = await workspace.source(workspace.points.byId(more.undoId)!);
  const finder = new NodeFinder(source);
  const nodes = new Map<string, TreeNode>();
  for (const { path } of more.names) {
    const node = finder.at(path);
    if (node !== null) nodes.set(Buffer.from(path).toString("latin1"), node);
  }
  return nodes;
}

async function amendUndoPoint(
  workspace: Workspace,
  call: WorkspaceCall,
  more: { undoId: SavePointId; staging: Staging; changed: readonly Changed[] },
): Promise<SavePointId> {
  const { points } = workspace;
  const undo = points.byId(more.undoId)!;
  const id = newSavePointId();
  const sequence = points.nextSequence();
  points.claim(sequence, id);
  const { signal: _ignored, ...rest } = call;
  try {
    const { content, bytesStored } = await workspace.engine.amend({
      content: undo.descriptor.content as unknown as { tree: string },
      root: workspace.root,
      staging: more.staging.path,
      edits: more.changed,
      pointId: id,
      ...rest,
    });
    failpoint("restore.amended");
    points.commit({
      ...undo.descriptor,
      save_point_id: id,
      sequence,
      created_at: new Date().toISOString(),
      cause: { ...undo.descriptor.cause, amends: undo.descriptor.save_point_id },
      content: content as unknown as typeof undo.descriptor.content,
      // Not known without reading everything again; sealed by whatever needs it.
      state_digest: null,
      metadata_digest: null,
      bytes_stored: bytesStored,
      unchanged: false,
    });
  } catch (error) {
    // Its snapshot first: without the claim nobody would know that it is nobody's.
    await workspace.engine.discard([id]);
    points.abandon(sequence);
    throw error;
  }
  return id;
}
