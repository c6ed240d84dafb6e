import { append } from "../../append.ts";
import { CairnError, type Hint, tellsOfDamage, toCairnError } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { TreeReferences } from "../../formats/restic/tree-references.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { DATA_BLOB, TREE_BLOB } from "../index/blob-table.ts";
import { EntrySet } from "../index/entry-set.ts";

/**
 * The plaintext of a tree by its entry, see `BlobSource`. Marking uses it until it asks for the next. `next`: entries of trees
 * that will be read after it, soonest first; for those who bring packs from far away, which takes no longer for several at once.
 */
export type ReadTree = (entry: number, next?: () => Iterable<number>) => Uint8Array | Promise<Uint8Array>;

/** So many of the trees that a walk has still to read are told to who reads them. */
const TREES_AHEAD = 4096;

/** `next` of a walk that reads trees from the end of a list; those that the index does not know are passed over. */
export function* treesAhead<T>(stack: readonly T[], entryOf: (step: T) => number): Generator<number> {
  const end = Math.max(0, stack.length - TREES_AHEAD);
  for (let at = stack.length - 1; at >= end; at--) {
    const entry = entryOf(stack[at]!);
    if (entry >= 0) yield entry;
  }
}

export interface MarkProblem {
  readonly kind: "missing_tree" | "missing_data" | "damaged_tree";
  /** Id of the blob. */
  readonly id: ObjectId;
  /** The tree that names it; absent for a root. */
  readonly tree?: ObjectId;
  readonly detail: string;
}

export interface MarkOptions {
  signal?: AbortSignal | undefined;
  onTree?: (done: number) => void;
}

const MAX_PROBLEMS = 10_000;

/**
 * Marks which entries of an index are reachable, a bit an entry, from any number of roots, one after the other; a tree
 * that was walked is not walked again. Incomplete as soon as one thing could not be followed.
 */
export class LiveSet {
  readonly problems: MarkProblem[] = [];
  #untraced: MarkProblem | undefined;
  readonly #index: BlobIndex;
  readonly #references = new TreeReferences();
  readonly #marked: EntrySet;
  /** Roots that are done, so that marking again from a longer list costs what is new. */
  readonly #roots = new Set<string>();
  #trees = 0;
  #size = 0;
  #bytes = 0;

  constructor(index: BlobIndex) {
    this.#index = index;
    this.#marked = new EntrySet(index.count);
  }

  get complete(): boolean {
    return this.problems.length === 0;
  }

  /** The first problem that hides what else is needed: of a tree. What lacks of data is known, and is nothing that the index lists. */
  get untraced(): MarkProblem | undefined {
    return this.#untraced;
  }

  /** Entries marked so far. */
  get size(): number {
    return this.#size;
  }

  /** Sealed bytes of the entries marked so far. */
  get bytes(): number {
    return this.#bytes;
  }

  has(entry: number): boolean {
    return this.#marked.has(entry);
  }

  /** Trees walked so far. */
  get trees(): number {
    return this.#trees;
  }

  /** Takes over what another walk has followed to the end: a byte for each entry, of a tree also all that it names. */
  adopt(followed: Uint8Array): void {
    for (let entry = 0; entry < followed.length; entry++) {
      if (followed[entry] !== 1 || !this.#set(entry)) continue;
      if (this.#index.table.typeOf(entry) === TREE_BLOB) this.#trees++;
    }
  }

  /** Marks all that is reachable from these root trees (32 bytes each). */
  async mark(roots: Iterable<Uint8Array>, readTree: ReadTree, options: MarkOptions = {}): Promise<void> {
    const stack: number[] = [];
    for (const root of roots) {
      const key = objectIdOf(root);
      if (this.#roots.has(key)) continue;
      this.#roots.add(key);
      const entry = this.#index.lookup(root, 0, TREE_BLOB);
      if (entry < 0) this.#problem({ kind: "missing_tree", id: key, detail: "a root tree is not in the index" });
      else if (this.#set(entry)) stack.push(entry);
    }
    const pace = newPacer(options.signal);
    while (stack.length > 0) {
      await pace();
      await this.#walk(stack.pop()!, stack, readTree);
      this.#trees++;
      if ((this.#trees & 1023) === 0) options.onTree?.(this.#trees);
    }
  }

  /** Marks what is still there of these roots. Returns the ids of what is in no index; the set stays as complete as it was. */
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

  async #walk(entry: number, stack: number[], readTree: ReadTree): Promise<void> {
    const id = objectIdOf(this.#index.idOf(entry));
    const references = this.#references;
    try {
      const read = readTree(entry, () => treesAhead(stack, (each) => each));
      references.read(read instanceof Uint8Array ? read : await read);
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known)) throw known;
      this.#problem({ kind: "damaged_tree", id, detail: known.message });
      return;
    }
    const { subtrees, blobs } = references;
    for (let at = 0; at < subtrees.length; at += 32) {
      const child = this.#index.lookup(subtrees, at, TREE_BLOB);
      if (child < 0) this.#missing("missing_tree", { bytes: subtrees, at, tree: id });
      else if (this.#set(child)) stack.push(child);
    }
    for (let at = 0; at < blobs.length; at += 32) {
      const blob = this.#index.lookup(blobs, at, DATA_BLOB);
      if (blob < 0) this.#missing("missing_data", { bytes: blobs, at, tree: id });
      else this.#set(blob);
    }
  }

  /** True when it was not set before. */
  #set(entry: number): boolean {
    if (!this.#marked.add(entry)) return false;
    this.#size++;
    this.#bytes += this.#index.table.lengthOf[entry]!;
    return true;
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

/** Throws `damaged`, naming the first problems, when something could not be followed; with `mayLackData` only for trees. */
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
