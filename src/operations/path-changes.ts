import type { EntryChange } from "../contract/looking.ts";
import { nodeOfSlice, sliceTree } from "../formats/restic/tree-slices.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import type { SavePointId } from "../ids.ts";
import type { TreeSource } from "../repository/trees/tree-source.ts";
import { kindOf } from "../workspace/points/listed-entry.ts";
import type { Point } from "../workspace/points/point-files.ts";
import { differences } from "../workspace/points/tree-diff.ts";
import type { Workspace } from "../workspace/workspace.ts";

/** A point as far as it matters here. */
interface Seen {
  parent: SavePointId | null;
  undo: boolean;
  node: TreeNode | null;
}

/** Compares one path from point to point. Only the folders on the way to it are read, each state of them once. */
export class PathChanges {
  readonly #workspace: Workspace;
  readonly #names: readonly Uint8Array[];
  readonly #withUndo: boolean;
  readonly #seen = new Map<number, Seen>();
  /** The entry that a folder leads to, by its depth and reference. */
  readonly #known = new Map<string, TreeNode | null>();
  readonly #sequences: ReadonlyMap<SavePointId, number>;

  /** `withUndo`: a point may follow an undo point; otherwise the save before that is looked at. */
  constructor(workspace: Workspace, path: Uint8Array, { withUndo }: { withUndo: boolean }) {
    this.#workspace = workspace;
    const names = Buffer.from(path).toString("latin1").split("/");
    this.#names = names.map((name) => Buffer.from(name, "latin1"));
    this.#withUndo = withUndo;
    this.#sequences = workspace.points.ids();
  }

  /** Says what a point changed at the path; null where nothing. */
  async of(point: Point): Promise<EntryChange | null> {
    const { node: now } = await this.#look(point);
    const was = (await this.#before(point.sequence, point.descriptor.parent_id))?.node ?? null;
    const node = now ?? was;
    if (node === null) return null;
    const aspects = now === null || was === null ? [] : differences(was, now);
    // A folder's entry is the same, whatever lies below it.
    const isDeep = now?.type === "dir" && was?.type === "dir" && !isSame(now.subtree!, was.subtree!);
    if (isDeep && !aspects.includes("content")) aspects.unshift("content");
    if (now !== null && was !== null && aspects.length === 0) return null;
    return {
      change: was === null ? "added" : now === null ? "removed" : "modified",
      kind: kindOf(node),
      aspects,
      ...(was?.type === "file" ? { size_before: was.size! } : {}),
      ...(now?.type === "file" ? { size_after: now.size! } : {}),
    };
  }

  /**
   * The point that another follows: its parent, since the point before it in number may be what a restore put away, or
   * the newest older one where that is gone, since a cleanup adds no files.
   */
  async #before(sequence: number, parent: SavePointId | null): Promise<Seen | null> {
    if (parent === null) return null;
    const known = this.#sequences.get(parent);
    const older = this.#workspace.points.sequences().filter((each) => each < sequence);
    for (const each of known === undefined ? older.toReversed() : [known]) {
      const seen = await this.#read(each);
      if (seen === null) continue;
      return seen.undo && !this.#withUndo ? this.#before(each, seen.parent) : seen;
    }
    return null;
  }

  async #read(sequence: number): Promise<Seen | null> {
    const seen = this.#seen.get(sequence);
    if (seen !== undefined) return seen;
    const point = this.#workspace.points.readOrNull(sequence);
    return point === null ? null : this.#look(point);
  }

  async #look(point: Point): Promise<Seen> {
    let seen = this.#seen.get(point.sequence);
    if (seen !== undefined) return seen;
    const source = await this.#workspace.source(point);
    const { parent_id: parent, undo } = point.descriptor;
    seen = { parent, undo, node: this.#find(source, source.root, 0) };
    this.#seen.set(point.sequence, seen);
    return seen;
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

/** The entry of a name; of a large folder only a few entries are decoded. */
function entryOf(source: TreeSource, directory: Uint8Array, name: Uint8Array): TreeNode | null {
  const slices = source.raw === undefined ? null : sliceTree(source.raw(directory));
  if (slices === null) return source.list(directory).find((node) => isSame(node.name, name)) ?? null;
  let low = 0;
  let high = slices.starts.length - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const node = nodeOfSlice(slices, middle);
    const order = Buffer.compare(node.name, name);
    if (order === 0) return node;
    if (order < 0) low = middle + 1;
    else high = middle;
  }
  return null;
}
