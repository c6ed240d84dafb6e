import { canBeOne, linkedInode, type TreeNode } from "../../formats/tree.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { newPacer } from "../../pacer.ts";
import type { Look } from "./look.ts";
import { nameOf, nodesOrNull } from "./snapshot-content.ts";

/** How many entries are below a tree, and the bytes of their content; of trees that cannot be read none. `paths`: raw ones from there, null for everything. */
export async function countNodes(
  look: Look,
  root: Uint8Array,
  { paths, signal }: { paths: readonly Uint8Array[] | null; signal: AbortSignal | undefined },
): Promise<{ entries: number; bytes: number }> {
  const chosen = paths === null ? null : new PathSelection(paths);
  const pace = newPacer(signal);
  const counted = { entries: 0, bytes: 0 };
  const linked = new Map<string, TreeNode>();
  const walk = async (tree: Uint8Array, path: string): Promise<void> => {
    await pace();
    for (const node of (await nodesOrNull(look, tree)) ?? []) {
      const own = path === "" ? nameOf(node) : `${path}/${nameOf(node)}`;
      const part = chosen?.of(Buffer.from(own, "latin1")) ?? "whole";
      if (part === "no") continue;
      counted.entries++;
      // Of several names of one file the first brings its content.
      const group = linkedInode(node);
      const other = group === null ? undefined : linked.get(group);
      const isKnown = other !== undefined && canBeOne(other, node);
      if (group !== null) linked.set(group, node);
      if (node.type === "file" && !isKnown) counted.bytes += node.size;
      if (node.subtree !== undefined) await walk(node.subtree, own);
    }
  };
  await walk(root, "");
  return counted;
}
