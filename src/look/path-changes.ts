import type { EntryChange } from "../contract/looking.ts";
import { nodeOfSlice, sliceTree } from "../formats/restic/tree-slices.ts";
import { nodeNamed, ReadNodes, type TreeNode } from "../formats/restic/tree.ts";
import { isAtOrBelow, joinRaw } from "../fs/paths/safe-path.ts";
import { newPacer } from "../pacer.ts";
import type { TreeSource } from "../repository/trees/tree-source.ts";
import { heldNode } from "../workspace/points/held-file.ts";
import { heldTreeOf, treePlace } from "../workspace/points/held-trees.ts";
import { changeOf } from "../workspace/points/listed-entry.ts";
import { neverRead, type Point } from "../workspace/points/point-files.ts";
import { hasContent, sameContent } from "../workspace/points/same-content.ts";
import { type DiffAspect, differences } from "../workspace/points/tree-diff.ts";
import { differencesByInodes } from "../workspace/save/differences-by-inodes.ts";
import type { Workspace, WorkspaceCall } from "../workspace/open/workspace.ts";

interface PathCall extends WorkspaceCall {
  /** true: a point may follow an undo point; false: it is compared with the save before */
  withUndo: boolean;
}

/** Returns the aspects in which two entries of one store differ: for folders `content` if anything below differs. */
export function storedDifferences(was: TreeNode, now: TreeNode): DiffAspect[] {
  const aspects = differences(was, now);
  const areFolders = was.type === "dir" && now.type === "dir";
  if (areFolders && !aspects.includes("content") && !isSame(was.subtree!, now.subtree!)) aspects.unshift("content");
  return aspects;
}

/**
 * Returns the point of the folder's state before a point; null for the first. For the state of a fork or of another
 * folder's backup: the undo point of the operation that restored all of it; undefined if there is none that can be read.
 */
export function folderBefore(workspace: Workspace, point: Point): Point | null | undefined {
  const { save_point_id: id, parent_id: parent, undo, cause } = point.descriptor;
  if (parent !== null || !(cause.kind === "adopt" || cause.kind === "backup")) return workspace.points.before(point);
  const { operations } = workspace.state();
  const came = operations.find(({ restored_to: to, paths }) => to === id && paths === null);
  if (came !== undefined) return workspace.readable(came.undo_id) ?? undefined;
  return undo && operations.every(({ undo_id: each }) => each !== id) ? undefined : null;
}

interface Entry {
  point: Point;
  node: TreeNode;
}

/**
 * Compares one path from point to point. For sealed points reads only the folders above the path, each state once. For
 * other points reads the entry itself, in the held tree.
 */
export class PathChanges {
  readonly #workspace: Workspace;
  readonly #path: Uint8Array;
  readonly #names: readonly Uint8Array[];
  readonly #call: PathCall;
  /** The point before each point, by the point's number. */
  readonly #points = new Map<number, Point | null | undefined>();
  readonly #nodes = new Map<number, TreeNode | null>();
  /** The entry that a folder leads to, by the folder's depth and reference. */
  readonly #known = new Map<string, TreeNode | null>();

  constructor(workspace: Workspace, path: Uint8Array, call: PathCall) {
    this.#workspace = workspace;
    this.#path = path;
    const names = Buffer.from(path).toString("latin1").split("/");
    this.#names = names.map((name) => Buffer.from(name, "latin1"));
    this.#call = call;
  }

  /**
   * Returns a point's change at the path; null if none. Throws with `unsealed` in its details if only a seal can tell.
   */
  async of(point: Point): Promise<EntryChange | null> {
    const before = this.#before(point);
    if (before === undefined) return null;
    const now = await this.#node(point);
    const was = before === null ? null : await this.#node(before);
    const isBoth = before !== null && now !== null && was !== null;
    return changeOf(
      was,
      now,
      isBoth ? await this.#differences({ point: before, node: was }, { point, node: now }) : [],
    );
  }

  /**
   * Returns the newest of `others` with the same entry at the path as `point`, times included. Folders of unsealed
   * points are not compared.
   */
  async sameAs(point: Point, others: readonly Point[]): Promise<Point | undefined> {
    const node = await this.#node(point);
    const pace = newPacer(this.#call.signal);
    for (const other of node === null ? [] : others) {
      await pace();
      const was = await this.#node(other);
      if (was === null || was.type !== node!.type || was.size !== node!.size) continue;
      if (was.mtimeSec !== node!.mtimeSec || was.mtimeNs !== node!.mtimeNs) continue;
      if (was.type === "dir" && !(point.sealed && other.sealed)) continue;
      const differing = await this.#differences({ point: other, node: was }, { point, node: node! });
      if (differing.length === 0) return other;
    }
    return undefined;
  }

  /** Returns the differing aspects. A folder with changes below it counts as changed content. */
  async #differences(from: Entry, to: Entry): Promise<DiffAspect[]> {
    if (from.point.sealed && to.point.sealed) return storedDifferences(from.node, to.node);
    const aspects = differences(from.node, to.node);
    if (from.node.type === "dir" && to.node.type === "dir") {
      if (!aspects.includes("content") && (await this.#differBelow(from, to))) aspects.unshift("content");
      return aspects;
    }
    return aspects.includes("content") && (await this.#haveSameContent(from, to))
      ? aspects.filter((each) => each !== "content")
      : aspects;
  }

  async #differBelow(from: Entry, to: Entry): Promise<boolean> {
    const ends = { from: from.point, to: to.point };
    const all = await differencesByInodes(this.#workspace, ends, { ...this.#call, exactly: false });
    if (all === null) throw neverRead(to.point.sealed ? from.point : to.point);
    return all.some(({ path }) => path.length > this.#path.length && isAtOrBelow(path, this.#path));
  }

  async #haveSameContent(from: Entry, to: Entry): Promise<boolean> {
    if (from.node.type !== "file" || to.node.type !== "file" || from.node.size !== to.node.size) return false;
    const pace = newPacer(this.#call.signal);
    const [one, other] = [from, to].map(({ point }) => this.#place(point)) as [Buffer | null, Buffer | null];
    if (one !== null && other !== null) return sameContent(one, other, pace);
    const stored = one === null ? from : to;
    const source = await this.#workspace.source(stored.point);
    return hasContent((one ?? other)!, source.content(stored.node), pace);
  }

  /** Returns the path's place in a point's tree; null for a point without one. */
  #place(point: Point): Buffer | null {
    const { points } = this.#workspace;
    if (point.sealed && heldTreeOf(points, point) === null) return null;
    return joinRaw(Buffer.from(treePlace(points, point)), this.#path);
  }

  #before(point: Point): Point | null | undefined {
    if (!this.#points.has(point.sequence)) this.#points.set(point.sequence, folderBefore(this.#workspace, point));
    const before = this.#points.get(point.sequence);
    return before?.descriptor.undo === true && !this.#call.withUndo ? this.#before(before) : before;
  }

  async #node(point: Point): Promise<TreeNode | null> {
    let node = this.#nodes.get(point.sequence);
    if (node !== undefined) return node;
    if (point.sealed) {
      const source = await this.#workspace.source(point);
      node = this.#find(source, source.root, 0);
    } else node = heldNode(this.#workspace.points, point, this.#path);
    if (node === undefined) throw neverRead(point);
    this.#nodes.set(point.sequence, node);
    return node;
  }

  #find(source: TreeSource, directory: Uint8Array, depth: number): TreeNode | null {
    const key = `${depth} ${Buffer.from(directory).toString("latin1")}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    let node = entryOf(source, directory, this.#names[depth]!);
    if (depth + 1 < this.#names.length)
      node = node?.type === "dir" ? this.#find(source, node.subtree!, depth + 1) : null;
    this.#known.set(key, node);
    return node;
  }
}

function isSame(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/** Returns the entry with a name. Decodes only a few entries of a large folder. */
function entryOf(source: TreeSource, directory: Uint8Array, name: Uint8Array): TreeNode | null {
  const slices = source.raw === undefined ? null : sliceTree(source.raw(directory));
  const nodes =
    slices === null
      ? source.list(directory)
      : new ReadNodes(slices.starts.length - 1, (index) => nodeOfSlice(slices, index));
  return nodeNamed(nodes, name) ?? null;
}
