import { hex } from "../../formats/bytes.ts";
import { toCairnError } from "../../errors.ts";
import { newPacer } from "../../pacer.ts";
import { recordPath } from "../../formats/record.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { PointRemains } from "../store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { readManifest } from "./snapshot-tree.ts";

const TAG = "cairn:";
/** More components than any path has. */
const MAX_DEPTH = 4096;

/** Absolute path at which a tree hangs in the tree of a snapshot, raw bytes; null when it does not. */
export function pathToTree(store: EmbeddedStore, top: string, tree: string): Uint8Array | null {
  return stepsTo(store, top, (node) => hex(node.subtree!) === tree)?.path ?? null;
}

/** Goes down from the top of a snapshot, along the only directory of each level, until one is the wanted. */
function stepsTo(
  store: EmbeddedStore,
  top: string,
  wanted: (node: TreeNode) => boolean,
): { path: Uint8Array; node: TreeNode } | null {
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
      const depth = path.split("/").filter((part) => part !== "").length;
      let level = 0;
      const found = stepsTo(store, snapshot.tree, () => ++level === depth);
      const manifest = readManifest(store, Buffer.from(snapshot.tree, "hex"));
      if (found === null || manifest === null) continue;
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
        omitted: manifest.omitted.map(({ path, reason }) => ({ ...recordPath(path), reason })),
      });
    } catch (error) {
      if (toCairnError(error).code !== "damaged") throw error;
    }
  }
  return remains;
}
