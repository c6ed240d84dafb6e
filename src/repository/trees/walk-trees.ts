import { type CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { TreeNode, TreeNodes } from "../../formats/restic/tree.ts";
import { newPacer } from "../../pacer.ts";

/**
 * Returns the nodes of a tree by its id. Throws `damaged` if it cannot be read. `next`: trees that will be read
 * afterwards, soonest first, so that remote packs can be fetched together. `path`: see `TreeAt`.
 */
export type ListTree = (
  id: Uint8Array,
  next?: () => Iterable<Uint8Array>,
  path?: string,
) => TreeNodes | Promise<TreeNodes>;

/** A tree that a walk has reached. */
export interface TreeAt {
  readonly id: Uint8Array;
  /** Path from the root of the walk, in latin1; empty for the root. */
  readonly path: string;
}

export interface TreeVisitor<R> {
  /** Returns the result of a tree that need not be read; undefined: the walk reads it. */
  known?(tree: TreeAt): R | undefined;
  /** Tells whether the walk enters the tree of a node. Absent: it enters all. */
  enters?(node: TreeNode, path: string): boolean;
  /** Returns the result of a damaged tree. Absent: the walk throws. */
  unread?(tree: TreeAt, error: CairnError): R;
  /**
   * Returns the result of a tree after everything below it, from its nodes and the results of the trees that were
   * entered.
   */
  done(tree: TreeAt, nodes: Iterable<NodeAndBelow<R>>): R;
}

/** A node, and the result of its tree if the walk entered that. */
export type NodeAndBelow<R> = readonly [TreeNode, R | undefined];

/** Nodes between two pauses for signals and other callers. */
const MANY = 1024;

interface Frame<R> extends TreeAt {
  readonly nodes: TreeNodes;
  /** Positions of the nodes that the walk enters. */
  readonly folders: readonly number[];
  /** Results of the entered nodes that are done. */
  readonly below: R[];
}

/**
 * Walks a tree and everything below it in the order of names; returns the visitor's result for the root. Paths may be
 * thousands of names long. Throws errors of the visitor and of reading, and `interrupted`.
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
    for (const { nodes, folders, below } of open.toReversed())
      for (let at = below.length + 1; at < folders.length; at++) yield nodes.at(folders[at]!)!.subtree!;
  };
  /** Returns undefined if the tree is open now. */
  const enter = async (id: Uint8Array, path: string): Promise<R | undefined> => {
    await pace();
    const known = visitor.known?.({ id, path });
    if (known !== undefined) return known;
    let nodes: TreeNodes;
    try {
      nodes = await list(id, ahead, path);
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known) || visitor.unread === undefined) throw known;
      return visitor.unread({ id, path }, known);
    }
    const folders: number[] = [];
    let at = 0;
    for (const node of nodes) {
      if (at % MANY === 0) await pace();
      const isEntered = node.subtree !== undefined && visitor.enters?.(node, pathIn(path, node.name)) !== false;
      if (isEntered) folders.push(at);
      at++;
    }
    open.push({ id, path, nodes, folders, below: [] });
    return undefined;
  };
  let result = (await enter(root, "")) as R | undefined;
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const at = top.folders[top.below.length];
    if (at !== undefined) {
      const { name, subtree } = top.nodes.at(at)!;
      const known = (await enter(subtree!, pathIn(top.path, name))) as R | undefined;
      if (known !== undefined) top.below.push(known);
      continue;
    }
    open.pop();
    result = visitor.done(top, withBelow(top));
    open.at(-1)?.below.push(result);
  }
  return result!;
}

function* withBelow<R>({ nodes, folders, below }: Frame<R>): Generator<NodeAndBelow<R>> {
  let [at, folder] = [0, 0];
  for (const node of nodes) yield [node, folders[folder] === at++ ? below[folder++] : undefined];
}

/** Yields all entries below a folder, each folder before its entries. Keeps only the folders on the current path in memory. */
export async function* nodesBelow(
  { nodes, path, signal }: { nodes: TreeNodes; path: Uint8Array; signal: AbortSignal | undefined },
  list: ListTree,
): AsyncGenerator<{ node: TreeNode; path: Buffer }> {
  const pace = newPacer(signal);
  const folders = [{ nodes, path, at: 0 }];
  for (let folder = folders.at(-1); folder !== undefined; folder = folders.at(-1)) {
    const node = folder.nodes.at(folder.at++);
    if (node === undefined) {
      folders.pop();
      continue;
    }
    await pace();
    const own = joinPath(folder.path, node.name);
    yield { node, path: own };
    if (node.subtree !== undefined) folders.push({ nodes: await list(node.subtree), path: own, at: 0 });
  }
}

/** Returns the path of an entry in a directory, in latin1, from the root of a walk. */
export function pathIn(directory: string, name: Uint8Array): string {
  return directory === "" ? latin1(name) : `${directory}/${latin1(name)}`;
}
