import { type CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode, TreeNodes } from "../../formats/restic/tree.ts";
import { newPacer } from "../../pacer.ts";

/**
 * The nodes of a tree by its id; `damaged` for one that cannot be read. `next`: trees that will be read after it, soonest first,
 * for those who bring packs from far away.
 */
export type ListTree = (id: Uint8Array, next?: () => Iterable<Uint8Array>) => TreeNodes | Promise<TreeNodes>;

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
  /** The result of a tree when all below it is done, from its nodes, each with the result of its tree where that was gone into. */
  done(tree: TreeAt, nodes: Iterable<NodeAndBelow<R>>): R;
}

type NodeAndBelow<R> = readonly [TreeNode, R | undefined];

/** Nodes that are looked at before signals and other callers are let in. */
const MANY = 1024;

interface Frame<R> extends TreeAt {
  readonly nodes: TreeNodes;
  /** Places of those nodes that are gone into. */
  readonly folders: readonly number[];
  /** Their results, as far as they are done. */
  readonly below: R[];
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
    for (const { nodes, folders, below } of open.toReversed())
      for (let at = below.length + 1; at < folders.length; at++) yield nodes.at(folders[at]!)!.subtree!;
  };
  /** Undefined where it is open now. */
  const enter = async (id: Uint8Array, path: string): Promise<R | undefined> => {
    await pace();
    const known = visitor.known?.({ id, path });
    if (known !== undefined) return known;
    let nodes: TreeNodes;
    try {
      nodes = await list(id, ahead);
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

/** The path of an entry of a directory, both from the root of a walk, in latin1. */
export function pathIn(directory: string, name: Uint8Array): string {
  return directory === "" ? latin1(name) : `${directory}/${latin1(name)}`;
}
