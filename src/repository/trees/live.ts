import { append } from "../../append.ts";
import { CairnError, type Hint, tellsOfDamage, toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { TreeReferences } from "../../formats/restic/tree-references.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { DATA_BLOB, TREE_BLOB } from "../index/blob-table.ts";
import { EntrySet } from "../index/entry-set.ts";
import { treesAhead } from "./tree-source.ts";

/**
 * Returns the plaintext of a tree, which is valid until the next call; see `BlobSource`. `next`: entries of the trees
 * that will be read afterwards, soonest first, so that remote packs can be fetched together.
 */
export type ReadTree = (entry: number, next?: () => Iterable<number>) => Uint8Array | Promise<Uint8Array>;

export interface MarkProblem {
  readonly kind: "missing_tree" | "missing_data" | "damaged_tree";
  /** Id of the blob. */
  readonly id: ObjectId;
  /** The tree that refers to the blob; absent for a root. */
  readonly tree?: ObjectId;
  readonly detail: string;
}

export interface MarkOptions {
  signal?: AbortSignal | undefined;
  onTree?: (done: number) => void;
  /** Called with each subtree that a walked tree names and the index knows, also with marked ones. */
  onSubtree?: (entry: number) => void;
  /** Called with each unreadable tree; `problems` has only the first 10 000 problems. */
  onDamagedTree?: (id: ObjectId, detail: string) => void;
}

const MAX_PROBLEMS = 10_000;

/**
 * Marks the entries of an index that are reachable from any number of roots, one bit each. Walks each tree once.
 * Incomplete as soon as one tree or blob is missing or unreadable. `DigestWalk` and `walkTrees` walk trees too: the
 * first needs the digests of subtrees, the second nodes and paths. This walk makes no object for a tree.
 */
export class LiveSet {
  readonly problems: MarkProblem[] = [];
  #untraced: MarkProblem | undefined;
  readonly #index: BlobIndex;
  readonly #references = new TreeReferences();
  readonly #marked: EntrySet;
  readonly #onMark: ((entry: number) => void) | undefined;
  readonly #beyond: LiveSet | undefined;
  /** Roots that are done, so that marking a longer list costs only the new ones. */
  readonly #roots = new Set<string>();
  #trees = 0;
  #size = 0;
  #bytes = 0;

  /** `onMark`: called with each entry when it is marked. `beyond`: only entries outside of this set are marked. */
  constructor(index: BlobIndex, onMark?: (entry: number) => void, beyond?: LiveSet) {
    this.#beyond = beyond;
    this.#index = index;
    this.#marked = new EntrySet(index.count);
    this.#onMark = onMark;
  }

  get complete(): boolean {
    return this.problems.length === 0;
  }

  /**
   * The first problem of a tree, which hides everything below it. A missing data blob hides nothing: the index does not
   * list it.
   */
  get untraced(): MarkProblem | undefined {
    return this.#untraced;
  }

  /** Number of marked entries. */
  get size(): number {
    return this.#size;
  }

  /** Sealed bytes of the marked entries. */
  get bytes(): number {
    return this.#bytes;
  }

  has(entry: number): boolean {
    return this.#marked.has(entry);
  }

  /** Number of marked trees. */
  get trees(): number {
    return this.#trees;
  }

  /** Marks an entry; returns true if it was not marked before. The caller walks a new tree and marks all below it. */
  add(entry: number): boolean {
    if (this.#beyond?.has(entry) === true || !this.#marked.add(entry)) return false;
    this.#size++;
    this.#bytes += this.#index.table.lengthOf[entry]!;
    if (this.#index.table.typeOf(entry) === TREE_BLOB) this.#trees++;
    this.#onMark?.(entry);
    return true;
  }

  /** Marks all entries that are reachable from these root trees (32 bytes each). */
  async mark(roots: Iterable<Uint8Array>, readTree: ReadTree, options: MarkOptions = {}): Promise<void> {
    const stack: number[] = [];
    for (const root of roots) {
      const key = objectIdOf(root);
      if (this.#roots.has(key)) continue;
      this.#roots.add(key);
      const entry = this.#index.lookup(root, 0, TREE_BLOB);
      if (entry < 0) this.#problem({ kind: "missing_tree", id: key, detail: "a root tree is not in the index" });
      else if (this.add(entry)) stack.push(entry);
    }
    let done = 0;
    const pace = newPacer(options.signal);
    while (stack.length > 0) {
      await pace();
      await this.#walk(stack.pop()!, { ...options, stack, readTree });
      if ((++done & 1023) === 0) options.onTree?.(done);
    }
  }

  /**
   * Marks the entries of these roots that still exist. Returns the ids of missing blobs, which do not make the set
   * incomplete.
   */
  async markRest(roots: Iterable<Uint8Array>, readTree: ReadTree, options: MarkOptions = {}): Promise<ObjectId[]> {
    const known = this.problems.length;
    const untraced = this.#untraced;
    await this.mark(roots, readTree, options);
    const found = this.problems.splice(known);
    const damaged = found.filter(({ kind }) => kind === "damaged_tree");
    append(this.problems, damaged);
    this.#untraced = untraced ?? damaged[0];
    return found.filter(({ kind }) => kind !== "damaged_tree").map(({ id }) => id);
  }

  async #walk(
    entry: number,
    { stack, readTree, onSubtree, onDamagedTree }: MarkOptions & { stack: number[]; readTree: ReadTree },
  ): Promise<void> {
    const id = objectIdOf(this.#index.idOf(entry));
    const references = this.#references;
    try {
      const read = readTree(entry, () => treesAhead(stack, (each) => each));
      references.read(read instanceof Uint8Array ? read : await read);
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known)) throw known;
      this.#problem({ kind: "damaged_tree", id, detail: known.message });
      onDamagedTree?.(id, known.message);
      return;
    }
    const { subtrees, blobs } = references;
    for (let at = 0; at < subtrees.length; at += 32) {
      const child = this.#index.lookup(subtrees, at, TREE_BLOB);
      if (child < 0) {
        this.#missing("missing_tree", { bytes: subtrees, at, tree: id });
        continue;
      }
      onSubtree?.(child);
      if (this.add(child)) stack.push(child);
    }
    for (let at = 0; at < blobs.length; at += 32) {
      const blob = this.#index.lookup(blobs, at, DATA_BLOB);
      if (blob < 0) this.#missing("missing_data", { bytes: blobs, at, tree: id });
      else this.add(blob);
    }
  }

  #missing(kind: "missing_tree" | "missing_data", where: { bytes: Uint8Array; at: number; tree: ObjectId }): void {
    const id = objectIdOf(where.bytes.subarray(where.at, where.at + 32));
    this.#problem({ kind, id, tree: where.tree, detail: "the index does not know it" });
  }

  #problem(problem: MarkProblem): void {
    if (problem.kind !== "missing_data") this.#untraced ??= problem;
    if (this.problems.length < MAX_PROBLEMS) this.problems.push(problem);
  }
}

/**
 * Throws `damaged`, which names the first problems, if the set is incomplete. With `mayLackData` only problems of trees
 * count.
 */
export function requireComplete(
  live: LiveSet,
  {
    hint = "nothing was freed; repair the repository first",
    mayLackData = false,
  }: { hint?: Hint; mayLackData?: boolean | undefined } = {},
): void {
  const first = mayLackData ? live.untraced : live.problems[0];
  if (first === undefined) return;
  throw new CairnError(
    "damaged",
    `cannot tell which content is still needed: ${plural(live.problems.length, "problem")}, the first: ${first.kind} ${first.id.slice(0, 8)}, ${first.detail}`,
    {
      hint,
      details: { problems: live.problems.slice(0, 100) },
    },
  );
}
