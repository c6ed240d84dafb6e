import { hex } from "../../formats/bytes.ts";
import { toCairnError } from "../../errors.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { Manifest } from "../../formats/manifest.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { PointRemains } from "../store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { CopyContent } from "./copy-content.ts";
import { readManifest } from "./snapshot-tree.ts";

const TAG = "cairn:";
const DEPTH_TAG = "cairn-depth:";
/** More components than any path has. */
const MAX_DEPTH = 4096;

interface Found {
  /** absolute, raw bytes */
  path: Uint8Array;
  node: TreeNode;
}

/** Absolute path at which a tree hangs in the tree of a snapshot, raw bytes; null when it does not. */
export function pathToTree(store: EmbeddedStore, top: string, tree: string): Uint8Array | null {
  return stepsTo(store, top, (node) => hex(node.subtree!) === tree)?.path ?? null;
}

/** Whether a point's tree hangs at a path (absolute, raw bytes) in that of its snapshot. False where it cannot be read. */
export function liesAt(
  store: EmbeddedStore,
  content: Pick<CopyContent, "tree" | "snapshot_tree">,
  path: Uint8Array,
): boolean {
  const found = whereTreeLies(store, content);
  return found !== null && Buffer.compare(found, path) === 0;
}

function whereTreeLies(
  store: EmbeddedStore,
  { tree, snapshot_tree: top }: Pick<CopyContent, "tree" | "snapshot_tree">,
): Uint8Array | null {
  try {
    return pathToTree(store, top, tree);
  } catch (error) {
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

/** Goes down from the top of a snapshot, along the only directory of each level, until one is the wanted. */
function stepsTo(store: EmbeddedStore, top: string, wanted: (node: TreeNode) => boolean): Found | null {
  let tree: Uint8Array = Buffer.from(top, "hex");
  const parts: Uint8Array[] = [];
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const node = store
      .tree(tree)
      .find(
        (each) =>
          each.subtree !== undefined && !(depth === 0 && Buffer.from(each.name).toString("latin1") === ".cairn"),
      );
    if (node === undefined) return null;
    parts.push(Buffer.from("/"), node.name);
    if (wanted(node)) return { path: Buffer.concat(parts), node };
    tree = node.subtree!;
  }
  return null;
}

/** What the store still knows of points, by the tags of their snapshots. Those that cannot be read are absent. */
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
    const [path] = snapshot.paths;
    if (id === undefined || !wanted(id) || path === undefined) continue;
    try {
      const manifest = readManifest(store, Buffer.from(snapshot.tree, "hex"));
      const found = manifest === null ? null : await folderOf(store, snapshot, { manifest, pace });
      if (manifest === null || found === null) continue;
      const { mode, uid, gid, user, group, mtimeSec, mtimeNs, subtree } = found.node;
      remains.push({
        id,
        createdAt: snapshot.time,
        path: found.path,
        content: {
          tree: hex(subtree!),
          snapshot_tree: snapshot.tree,
          snapshot: snapshotId,
          root: { mode, uid, gid, user, group, mtime_sec: mtimeSec, mtime_ns: mtimeNs },
        },
        complete: manifest.complete,
        entries: manifest.entries,
        labels: manifest.labels,
        omitted: manifest.omitted,
        crossMounts: manifest.mounts?.entered === true,
      });
    } catch (error) {
      if (toCairnError(error).code !== "damaged") throw error;
    }
  }
  return remains;
}

/** Says of a snapshot at which depth the folder lies, where its own path may be another than its tree's; none where that cannot be read. */
export function depthTag(store: EmbeddedStore, content: Pick<CopyContent, "tree" | "snapshot_tree">): string[] {
  const path = whereTreeLies(store, content);
  return path === null ? [] : [`${DEPTH_TAG}${depthOf(Buffer.from(path).toString("latin1"))}`];
}

function depthOf(path: string): number {
  return path.split("/").filter((part) => part !== "").length;
}

/**
 * The folder that a snapshot is of. Trees that several points have lie where the first of them was saved: where no tag
 * tells how deep, and that is not the snapshot's own path, the number of directories in the folder tells it from those
 * above it.
 */
async function folderOf(
  store: EmbeddedStore,
  { tree, paths, tags }: Snapshot,
  more: { manifest: Manifest; pace: Pacer },
): Promise<Found | null> {
  const atDepth = (wanted: number): Found | null => {
    let level = 0;
    return stepsTo(store, tree, () => ++level === wanted);
  };
  const told = tags?.find((tag) => tag.startsWith(DEPTH_TAG));
  if (told !== undefined) return atDepth(Number(told.slice(DEPTH_TAG.length)));
  const [path = ""] = paths;
  const own = atDepth(depthOf(path));
  if (own !== null && Buffer.from(own.path).toString("utf8") === path) return own;
  const first = atDepth(1);
  if (first === null) return null;
  return atDepth(1 + (await directoriesBelow(store, first.node, more.pace)) - more.manifest.entries.directories);
}

async function directoriesBelow(store: EmbeddedStore, { subtree }: TreeNode, pace: Pacer): Promise<number> {
  let count = 0;
  const stack = [subtree!];
  while (stack.length > 0) {
    await pace();
    for (const node of store.tree(stack.pop()!)) {
      if (node.subtree === undefined) continue;
      count++;
      stack.push(node.subtree);
    }
  }
  return count;
}
