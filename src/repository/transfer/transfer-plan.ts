import { advice, CairnError, call } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { TreeCursor } from "../../formats/restic/tree-cursor.ts";
import { decodeTree, type TreeNodes } from "../../formats/restic/tree.ts";
import type { PathSelection } from "../../fs/path-selection.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { type BlobIndex, blobTypeName, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import { EntrySet } from "../index/entry-set.ts";
import type { ReadTree } from "../trees/live.ts";
import { treesAhead } from "../trees/tree-source.ts";

export interface PlanTransferOptions {
  /** Root trees, 32 bytes each, whose content the target must have. */
  roots: readonly Uint8Array[];
  /** The wanted entries of each root; the trees that lead to them are transferred too. Absent: all entries. */
  only?: PathSelection | undefined;
  /** False: omits the trees that only lead to wanted entries. */
  leading?: boolean;
  /** True: skips blobs that the source lacks and trees that cannot be read. */
  lenient?: boolean;
  /** A tree that the target has completely. A subtree that a root shares with it, at the same path, is not walked. */
  known?: Uint8Array | undefined;
  /**
   * Source entries that were walked before, with everything below: the walk skips these entries, and adds the entries
   * that it has walked.
   */
  seen?: EntrySet | undefined;
  /** True for content that the source's storage has lost: throws `damaged` if the target lacks it. */
  isLost?: ((entry: number) => boolean) | undefined;
  /** Reads a tree, which is valid until the next call. */
  readTree: ReadTree;
  signal?: AbortSignal | undefined;
  onTree?: ((trees: number) => void) | undefined;
}

/** The blobs that the target lacks, as entries of the source's index. */
export interface TransferPlan {
  /** Sorted by type (data, then trees), pack and offset. */
  readonly entries: Uint32Array;
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  /** Sealed bytes in the source's packs. */
  readonly storedBytes: number;
  /** Bytes of the blobs' plaintexts. */
  readonly plainBytes: number;
  /** By number of a source pack: the path of one of the files that need it, from the root, in latin1. For messages. */
  readonly files: ReadonlyMap<number, string>;
}

export const NOTHING_TO_MOVE: TransferPlan = {
  entries: new Uint32Array(0),
  dataBlobs: 0,
  treeBlobs: 0,
  storedBytes: 0,
  plainBytes: 0,
  files: new Map(),
};

/**
 * Walks trees of one repository and finds the blobs that another repository lacks. Walks each tree once, even if the
 * target has the tree: after a killed transfer its subtrees may be missing. Throws `damaged` if the source lacks a blob
 * that a tree names.
 */
export async function planTransfer(
  from: BlobIndex,
  to: BlobIndex,
  options: PlanTransferOptions,
): Promise<TransferPlan> {
  const walk = new TransferWalk(from, to, options);
  for (const root of options.roots) await walk.root(root);
  return walk.plan();
}

interface Step {
  readonly tree: Uint8Array;
  /** The tree at the same path below the known tree. */
  readonly beside: Uint8Array | null;
  /** Path from the root, in latin1. */
  readonly path: string;
  /** True if only some entries of the tree are wanted. */
  readonly isPartial: boolean;
}

class TransferWalk {
  readonly #from: BlobIndex;
  readonly #to: BlobIndex;
  readonly #options: PlanTransferOptions;
  /** Source entries that were walked, with everything below. */
  readonly #seen: EntrySet;
  /** Trees that were walked in part. */
  readonly #partial = new Set<number>();
  readonly #wanted: number[] = [];
  readonly #files = new Map<number, string>();
  readonly #cursor = new TreeCursor();
  #trees = 0;

  constructor(from: BlobIndex, to: BlobIndex, options: PlanTransferOptions) {
    this.#from = from;
    this.#to = to;
    this.#options = options;
    this.#seen = options.seen ?? new EntrySet(from.count);
  }

  async root(root: Uint8Array): Promise<void> {
    const pace = newPacer(this.#options.signal);
    const isWhole = this.#options.only === undefined || this.#options.only.of(ROOT) === "whole";
    const stack: Step[] = [{ tree: root, beside: this.#options.known ?? null, path: "", isPartial: !isWhole }];
    for (let step = stack.pop(); step !== undefined; step = stack.pop()) {
      if (step.beside !== null && Buffer.compare(step.beside, step.tree) === 0) continue;
      const entry = this.#require(step.tree, 0, TREE_BLOB, null);
      if (entry < 0) continue;
      if (step.isPartial ? this.#seen.has(entry) : !this.#seen.add(entry)) continue;
      if (!step.isPartial || this.#options.leading !== false) {
        if (!this.#partial.has(entry) && this.#to.lookup(step.tree, 0, TREE_BLOB) < 0) this.#wanted.push(entry);
        // The tree may also be wanted at another path, whole or in part.
        if (step.isPartial) this.#partial.add(entry);
      }
      await pace();
      await this.#directory(entry, step, stack);
      this.#trees++;
      if ((this.#trees & 255) === 0) this.#options.onTree?.(this.#trees);
    }
  }

  async #directory(entry: number, step: Step, stack: Step[]): Promise<void> {
    let nodes: TreeNodes;
    const beside = step.beside === null ? null : await this.#besides(step.beside);
    try {
      const bytes = await this.#bytes(entry, stack);
      if (step.beside === null && !step.isPartial && this.#plain(bytes, step, stack)) return;
      nodes = decodeTree(bytes);
    } catch (error) {
      return this.#passOver(error);
    }
    for (const { name, subtree, content } of nodes) {
      const wanted = step.isPartial ? this.#options.only!.of(Buffer.from(pathIn(step, name), "latin1")) : "whole";
      if (wanted === "no" || (wanted === "part" && subtree === undefined)) continue;
      if (subtree !== undefined)
        stack.push({
          tree: Uint8Array.from(subtree),
          beside: beside?.get(latin1(name)) ?? null,
          path: pathIn(step, name),
          isPartial: wanted === "part",
        });
      for (let at = 0; content !== undefined && at < content.length; at += 32)
        this.#data(content, at, { step, name: () => name });
    }
  }

  /**
   * Walks a tree without making nodes. Returns false if the tree has unusual entries: then the caller walks the tree
   * again.
   */
  #plain(tree: Uint8Array, step: Step, stack: Step[]): boolean {
    const cursor = this.#cursor;
    const name = (): Uint8Array => cursor.names.subarray(cursor.nameStart, cursor.nameEnd);
    const file = { step, name };
    cursor.open(tree);
    while (cursor.next()) {
      if (cursor.type === "dir")
        stack.push({ tree: cursor.ids.slice(0, 32), beside: null, path: pathIn(step, name()), isPartial: false });
      else for (let id = 0; id < cursor.idCount; id++) this.#data(cursor.ids, id * 32, file);
    }
    return cursor.usual;
  }

  /** `of`: the file that has the blob. Its path is made only when needed, which is rare. */
  #data(ids: Uint8Array, at: number, of: { step: Step; name: () => Uint8Array }): void {
    const data = this.#require(ids, at, DATA_BLOB, of.step.tree);
    if (data < 0) return;
    if (!this.#seen.add(data)) return;
    if (this.#to.lookup(ids, at, DATA_BLOB) >= 0) return;
    if (this.#options.isLost?.(data) === true) throw lost(this.#from, data);
    this.#wanted.push(data);
    const pack = this.#from.table.packOf[data]!;
    if (!this.#files.has(pack)) this.#files.set(pack, pathIn(of.step, of.name()));
  }

  async #bytes(entry: number, stack: readonly Step[] = []): Promise<Uint8Array> {
    const entryOf = ({ tree }: Step): number => this.#from.lookup(tree, 0, TREE_BLOB);
    return this.#options.readTree(entry, () => treesAhead(stack, entryOf));
  }

  /** Returns null if the source no longer has this tree: then everything below is walked. */
  async #besides(tree: Uint8Array): Promise<Map<string, Uint8Array> | null> {
    const entry = this.#from.lookup(tree, 0, TREE_BLOB);
    if (entry < 0) return null;
    try {
      const trees = new Map<string, Uint8Array>();
      for (const { name, subtree } of decodeTree(await this.#bytes(entry)))
        if (subtree !== undefined) trees.set(latin1(name), Uint8Array.from(subtree));
      return trees;
    } catch (error) {
      if (error instanceof CairnError && error.code === "damaged") return null;
      throw error;
    }
  }

  #passOver(error: unknown): void {
    if (this.#options.lenient === true && error instanceof CairnError && error.code === "damaged") return;
    throw error;
  }

  /** Returns -1 only if `lenient` allows it. */
  #require(bytes: Uint8Array, at: number, type: typeof DATA_BLOB | typeof TREE_BLOB, tree: Uint8Array | null): number {
    const entry = this.#from.lookup(bytes, at, type);
    if (entry >= 0 || this.#options.lenient === true) return entry;
    const id = objectIdOf(bytes.subarray(at, at + 32));
    const where = tree === null ? "" : `, which tree ${objectIdOf(tree).slice(0, 12)} names`;
    throw new CairnError("damaged", `the source has no ${blobTypeName(type)} blob ${id.slice(0, 12)}${where}`, {
      hint: advice`nothing was recorded in the target; verify the source: ${call("verify")} for a workspace, ${call("backup verify", "verify")} for a repository`,
      details: { blob: id },
    });
  }

  plan(): TransferPlan {
    const { table } = this.#from;
    const isTree = (entry: number): number => (table.typeOf(entry) === TREE_BLOB ? 1 : 0);
    const entries = Uint32Array.from(this.#wanted).sort(
      (a, b) => isTree(a) - isTree(b) || table.packOf[a]! - table.packOf[b]! || table.offsetOf[a]! - table.offsetOf[b]!,
    );
    let [treeBlobs, storedBytes, plainBytes] = [0, 0, 0];
    for (const entry of entries) {
      treeBlobs += isTree(entry);
      storedBytes += table.lengthOf[entry]!;
      plainBytes += table.plainLengthOf(entry);
    }
    return {
      entries,
      dataBlobs: entries.length - treeBlobs,
      treeBlobs,
      storedBytes,
      plainBytes,
      files: this.#files,
    };
  }
}

function lost({ table }: BlobIndex, entry: number): CairnError {
  const pack = objectIdOf(table.packId(table.packOf[entry]!));
  return new CairnError("damaged", `pack ${pack.slice(0, 12)} is missing or truncated`, {
    hint: advice`${call("backup verify", "verify")} shows which files need the pack`,
    details: { missing_pack: pack },
  });
}

const ROOT = new Uint8Array(0);

function pathIn(step: Step, name: Uint8Array): string {
  return step.path === "" ? latin1(name) : `${step.path}/${latin1(name)}`;
}
