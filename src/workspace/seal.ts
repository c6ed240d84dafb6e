import { existsSync } from "node:fs";
import type { StagedContent } from "../engines/engine.ts";
import { CairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { SealFile } from "../formats/seal-file.ts";
import { dropOldTrees } from "./held-trees.ts";
import type { Point } from "./points.ts";
import { isUnchanged, sealedStateOf, stageRequest } from "./record-point.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * Sealing: a held tree is read, what is new of it goes into the store, and digests, counts and ids are recorded beside
 * the descriptor. From then on the point does not depend on its held tree any more.
 *
 * Stage: content and snapshot in the store. Commit: `seal.json` gets its name. A kill before that leaves a snapshot
 * with the point's mark, which the next attempt takes back.
 */
export async function sealPoint(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<Point> {
  if (point.sealed) return point;
  const { descriptor, sequence } = point;
  const { tree } = workspace.points.pathsOf(sequence);
  if (!existsSync(tree))
    throw new CairnError("damaged", `${tree}: the tree that the point ${descriptor.save_point_id} held is gone`, {
      hint: "it was never sealed, so nothing else has its content; see `cairn doctor`",
    });
  const parent = parentOf(workspace, point);
  await workspace.engine.discard([descriptor.save_point_id]);
  const staged = await workspace.engine.stage({
    ...stageRequest(
      workspace,
      { ...call, exclude: descriptor.rules.exclude, message: descriptor.message },
      { rules: null, head: parent, id: descriptor.save_point_id },
    ),
    root: Buffer.from(tree),
    recordedRoot: workspace.found.recordedFolder ?? workspace.root,
  });
  failpoint("seal.staged");
  const sealed = workspace.points.seal(sequence, sealOf(point, staged, parent));
  failpoint("seal.committed");
  await staged.settled();
  return sealed;
}

/** Seals every point that is not, oldest first. For the holder of the workspace's lock. */
export async function sealPending(workspace: Workspace, call: WorkspaceCall): Promise<number> {
  let count = 0;
  for (const sequence of unsealed(workspace)) {
    await sealPoint(workspace, workspace.points.read(sequence), call);
    count++;
  }
  if (count > 0) await dropOldTrees(workspace.points);
  return count;
}

/** For calls that need digests or contents: seals what is not, under the lock, when there is anything. */
export async function ensureSealed(workspace: Workspace, call: WorkspaceCall): Promise<void> {
  if (unsealed(workspace).length === 0) return;
  workspace.engine.prepare();
  using _lock = await workspace.lock("seal", call);
  await sealPending(workspace, call);
}

/** Numbers of finished points that only a held tree has the content of, ascending. Reads no descriptor. */
function unsealed({ points }: Workspace): number[] {
  return points.sequences().filter((sequence) => {
    const { tree, seal, descriptor } = points.pathsOf(sequence);
    return existsSync(tree) && !existsSync(seal) && existsSync(descriptor);
  });
}

function parentOf(workspace: Workspace, { descriptor }: Point): Point | null {
  const parent = workspace.byId(descriptor.parent_id);
  return parent?.sealed === true ? parent : null;
}

function sealOf(point: Point, staged: StagedContent, parent: Point | null): SealFile {
  const { descriptor } = point;
  const { tree, snapshot_tree: snapshotTree, snapshot } = staged.content as unknown as SealFile["content"];
  return {
    save_point_id: descriptor.save_point_id,
    sealed_at: new Date().toISOString(),
    content: { tree, snapshot_tree: snapshotTree, snapshot },
    ...sealedStateOf(staged, {
      exclude: descriptor.rules.exclude,
      rules: null,
      unchanged: isUnchanged(parent, staged),
    }),
  };
}
