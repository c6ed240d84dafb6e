import { toCairnError } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { ObjectId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { PointContent } from "./engine.ts";
import type { CopyContent } from "./copy-content.ts";
import { type PointToVerify, storedTree } from "./store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { placedIn } from "../../archive/databases/point-view.ts";
import { newSnapshot, readManifest } from "./snapshot-tree.ts";

const TAG = "cairn:";
const DEPTH_TAG = "cairn-depth:";
/** A number above the depth of any path. */
const MAX_DEPTH = 4096;

/** A point whose descriptor is gone, as far as the store still has it. */
export interface PointRemains {
  id: string;
  createdAt: string;
  content: PointContent;
  /** the folder, absolute, raw bytes */
  path: Uint8Array;
  manifest: Manifest;
}

interface Found {
  /** Absolute, raw bytes. */
  path: Uint8Array;
  node: TreeNode;
}

/** Directories from the top of a snapshot's tree down. Each is the only directory of its level, besides `/.cairn` at the top. */
function* directoriesDown(store: EmbeddedStore, top: string): Generator<Found> {
  let tree: Uint8Array = Buffer.from(top, "hex");
  const parts: Uint8Array[] = [];
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const isRecords = ({ name }: TreeNode): boolean => depth === 0 && Buffer.from(name).toString("latin1") === ".cairn";
    const node = store.tree(tree).find((each) => each.subtree !== undefined && !isRecords(each));
    if (node === undefined) return;
    parts.push(Buffer.from("/"), node.name);
    yield { path: Buffer.concat(parts), node };
    tree = node.subtree!;
  }
}

/** Returns the absolute raw path of `tree` in the snapshot tree `top`; null if it is not there. Throws `damaged`. */
export function pathToTree(store: EmbeddedStore, top: string, tree: string): Uint8Array | null {
  for (const { path, node } of directoriesDown(store, top)) if (hex(node.subtree!) === tree) return path;
  return null;
}

/** Returns a snapshot for a point whose own is lost, not yet written. */
export function snapshotAgain(
  store: EmbeddedStore,
  { id, content }: { id: string; content: PointToVerify["content"] },
): Snapshot {
  const top = String(content["snapshot_tree"]);
  const root = pathToTree(store, top, storedTree(content)) ?? Buffer.from("/");
  return newSnapshot({ root, pointId: id }, top as ObjectId);
}

/** Like {@link pathToTree} for a point, but null also if a tree is unreadable. */
function pathOf(
  store: EmbeddedStore,
  content: Pick<CopyContent, "tree" | "snapshot_tree" | "stored_tree">,
): Uint8Array | null {
  try {
    return pathToTree(store, content.snapshot_tree, storedTree(content));
  } catch (error) {
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

/** True if a point's tree lies at `path` (absolute, raw bytes) in the tree of the point's snapshot. */
export function liesAt(
  store: EmbeddedStore,
  content: Pick<CopyContent, "tree" | "snapshot_tree" | "stored_tree">,
  path: Uint8Array,
): boolean {
  const found = pathOf(store, content);
  return found !== null && Buffer.compare(found, path) === 0;
}

/** Returns a tag with the depth of a point's folder in its snapshot; no tag if the depth cannot be read. */
export function depthTag(
  store: EmbeddedStore,
  content: Pick<CopyContent, "tree" | "snapshot_tree" | "stored_tree">,
): string[] {
  const path = pathOf(store, content);
  return path === null ? [] : [`${DEPTH_TAG}${depthOf(Buffer.from(path).toString("latin1"))}`];
}

function depthOf(path: string): number {
  return path.split("/").filter((part) => part !== "").length;
}

/** The folder of a snapshot: at the depth in its tag, else at the snapshot's own path; null if the folder is not there. */
function folderOf(store: EmbeddedStore, { tree, paths, tags }: Snapshot): Found | null {
  const told = tags?.find((tag) => tag.startsWith(DEPTH_TAG));
  const [path = ""] = paths;
  let left = told === undefined ? depthOf(path) : Number(told.slice(DEPTH_TAG.length));
  for (const found of directoriesDown(store, tree)) {
    if (--left > 0) continue;
    return told !== undefined || Buffer.from(found.path).toString("utf8") === path ? found : null;
  }
  return null;
}

/** Lists the points that the store still knows by the tags of their snapshots. Skips unreadable ones. */
export async function pointRemains(
  store: EmbeddedStore,
  wanted: (id: string) => boolean,
  signal?: AbortSignal,
): Promise<PointRemains[]> {
  const pace = newPacer(signal);
  const remains: PointRemains[] = [];
  for (const { id: snapshotId, snapshot } of (await store.repository.listSnapshots(signal)).snapshots) {
    await pace();
    const id = snapshot.tags?.find((tag) => tag.startsWith(TAG))?.slice(TAG.length);
    if (id === undefined || !wanted(id)) continue;
    try {
      const manifest = readManifest(store, Buffer.from(snapshot.tree, "hex"));
      const found = folderOf(store, snapshot);
      if (manifest === null || found === null) continue;
      const { mode, uid, gid, user, group, mtimeSec, mtimeNs, subtree } = found.node;
      const stored = hex(subtree!);
      const placed = await placedIn(store, { snapshot_tree: snapshot.tree, stored_tree: stored });
      remains.push({
        id,
        createdAt: snapshot.time,
        path: found.path,
        content: {
          tree: placed === null ? stored : hex(placed.root),
          snapshot_tree: snapshot.tree,
          ...(placed === null ? {} : { stored_tree: stored }),
          snapshot: snapshotId,
          root: { mode, uid, gid, user, group, mtime_sec: mtimeSec, mtime_ns: mtimeNs },
        },
        manifest,
      });
    } catch (error) {
      if (toCairnError(error).code !== "damaged") throw error;
    }
  }
  return remains;
}
