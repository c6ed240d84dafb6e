import { type CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { newPacer } from "../../pacer.ts";

/**
 * The nodes of a tree by its id; `damaged` for one that cannot be read. `next`: trees that will be read after it, soonest first,
 * for those who bring packs from far away.
 */
export type ListTree = (
  id: Uint8Array,
  next?: () => Iterable<Uint8Array>,
) => readonly TreeNode[] | Promise<readonly TreeNode[]>;

/** A tree on the way of a walk. */
export interface TreeAt {
  readonly id: Uint8Array;
  /** From the root of the walk, in latin1; empty for that. */
  readonly path: string;
}

export interface TreeVisitor<R> {
  /** The result of a tree that is not to be read; undefined: it is read. */
  known?(tree: TreeAt): R | undefined;
  /** Tells whether the walk goes into a node that has a tree; absent: into all. */
  enters?(node: TreeNode, path: string): boolean;
  /** The result of a tree that is damaged; absent: that is thrown. */
  unread?(tree: TreeAt, error: CairnError): R;
  /** The result of a tree when all below it is done: `below` has those of the nodes that were gone into. */
  done(tree: TreeAt, nodes: readonly TreeNode[], below: ReadonlyMap<TreeNode, R>): R;
}

interface Frame<R> extends TreeAt {
  readonly nodes: readonly TreeNode[];
  /** Those that are gone into. */
  readonly folders: readonly TreeNode[];
  readonly below: Map<TreeNode, R>;
}

/**
 * Walks a tree and all below it in the order of names, and returns the result that its visitor makes of it, from below. Paths
 * can be thousands of names long. Throws what the visitor and the reading of trees do, and `interrupted`.
 */
export async function walkTrees<R extends {} | null>(
  root: Uint8Array,
  list: ListTree,
  visitor: TreeVisitor<R>,
  signal?: AbortSignal,
): Promise<R> {
  const pace = newPacer(signal);
  const open: Frame<R>[] = [];
  const ahead = function* (): Generator<Uint8Array> {
    for (const { folders, below } of open.toReversed())
      for (let at = below.size + 1; at < folders.length; at++) yield folders[at]!.subtree!;
  };
  /** Undefined where it is open now. */
  const enter = async (id: Uint8Array, path: string): Promise<R | undefined> => {
    await pace();
    const known = visitor.known?.({ id, path });
    if (known !== undefined) return known;
    let nodes: readonly TreeNode[];
    try {
      nodes = await list(id, ahead);
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known) || visitor.unread === undefined) throw known;
      return visitor.unread({ id, path }, known);
    }
    const isEntered = (node: TreeNode): boolean =>
      node.subtree !== undefined && visitor.enters?.(node, pathIn(path, node.name)) !== false;
    open.push({ id, path, nodes, folders: nodes.filter(isEntered), below: new Map() });
    return undefined;
  };
  let result = (await enter(root, "")) as R | undefined;
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const folder = top.folders[top.below.size];
    if (folder !== undefined) {
      const known = (await enter(folder.subtree!, pathIn(top.path, folder.name))) as R | undefined;
      if (known !== undefined) top.below.set(folder, known);
      continue;
    }
    open.pop();
    result = visitor.done(top, top.nodes, top.below);
    const above = open.at(-1);
    above?.below.set(above.folders[above.below.size]!, result);
  }
  return result!;
}

/** The path of an entry of a directory, both from the root of a walk, in latin1. */
export function pathIn(directory: string, name: Uint8Array): string {
  return directory === "" ? latin1(name) : `${directory}/${latin1(name)}`;
}
