import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { receivePoint } from "../../workspace/save/receive.ts";
import type { PointContent } from "../../workspace/store/engine.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { storedRoot } from "../open/content.ts";
import { readAsPlainFile } from "../databases/plain-database.ts";
import { chosenDatabases } from "../databases/write-databases.ts";
import { pointOf } from "../open/snapshots.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";

/**
 * Removes lost packs from the store's index, since the repository may still have their content; with `reads` also packs
 * with damaged bytes. Returns the number of lost packs.
 */
export async function dropLost(
  { engine }: Workspace,
  { signal, onProgress, onWarning }: WorkspaceCall,
  reads = false,
): Promise<number> {
  return engine.dropLost({
    reads,
    signal,
    onProgress: (progress) => onProgress?.({ phase: "verifying", ...progress }),
    onWarning,
  });
}

interface Receiving {
  wanted: WantedInPlace;
  call: WorkspaceCall;
}

/** A point that holds the snapshot, or its chosen paths. */
export async function knownOrReceived(workspace: Workspace, access: OpenRepository, by: Receiving): Promise<Point> {
  return (await knownPoint(workspace, by)) ?? receive(workspace, access, by);
}

/** The workspace's own point of this snapshot, or one that an earlier call made, if its content is complete. */
async function knownPoint(
  workspace: Workspace,
  { wanted: { listed, content, chosen }, call }: Receiving,
): Promise<Point | null> {
  const tree = Buffer.from(content.root).toString("hex");
  // A tree with entries of databases belongs to no point.
  const isOf = ({ descriptor }: Point): boolean =>
    content.placed === undefined
      ? descriptor.content.tree === tree
      : descriptor.state_digest === content.manifest.stateDigest &&
        descriptor.metadata_digest === content.manifest.metadataDigest;
  const id = pointOf(listed.snapshot);
  const own = id === null ? null : workspace.byId(id);
  const latest = workspace.points.latest();
  const isReceived = latest?.descriptor.cause["snapshot_id"] === listed.id && chosen.paths === null;
  for (const point of [own, isReceived ? latest : null]) {
    if (point === null || !isOf(point) || point.descriptor.metadata_digest === null) continue;
    if (await workspace.engine.holds(point.descriptor.content as unknown as PointContent, call)) return point;
  }
  return null;
}

async function receive(workspace: Workspace, access: OpenRepository, { wanted, call }: Receiving): Promise<Point> {
  const { listed, content, chosen, from } = wanted;
  // The place of such a database is unknown, so the restore would remove the present one.
  const [unplaced] = content.placed?.damaged ?? [];
  if (unplaced !== undefined && chosen.paths === null) throw unplaced.error;
  const part = chosen.paths === null ? "" : "parts of ";
  return receivePoint(workspace, {
    ...call,
    content: {
      from,
      tree: storedRoot(content),
      rootMetadata: rootOf(content.node),
      manifest: content.manifest,
      paths: chosen.paths,
      files: chosenDatabases(content, chosen.paths).map((placed) => ({
        path: placed.path,
        read: async (take) => readAsPlainFile(from, placed, { take, signal: call.signal }),
      })),
    },
    excludes: listed.snapshot.excludes ?? [],
    message: `${part}snapshot ${listed.id.slice(0, 8)} of ${access.location}`,
    cause: { kind: "backup", snapshot_id: listed.id, repository_id: access.repository.id },
  });
}

function rootOf({ mode, uid, gid, mtimeSec, mtimeNs }: TreeNode): RootMetadata {
  return { mode, uid, gid, mtimeSec, mtimeNs };
}
