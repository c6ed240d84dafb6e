import { advice, CairnError, call } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { TreeCursor } from "../../formats/restic/tree-cursor.ts";
import { decodeTree, type TreeNodes } from "../../formats/restic/tree.ts";
import type { PathSelection } from "../../fs/path-selection.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { type BlobIndex, blobTypeName, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import { EntrySet } from "../index/entry-set.ts";
import { type ReadTree, treesAhead } from "../trees/live.ts";

export interface PlanTransferOptions {
  /** Trees whose content shall be in the target, 32 bytes each. */
  roots: readonly Uint8Array[];
  /** Entries of each root that are wanted, with the trees that lead to them; absent: everything. */
  only?: PathSelection | undefined;
  /** False: without the trees that only lead there. */
  leading?: boolean;
  /** True: what the source does not hold, or cannot be read, is passed over. */
  lenient?: boolean;
  /** A tree that is known to be in the target with all that it needs; where a root has the same below, it is not walked. */
  known?: Uint8Array | undefined;
  /** Entries of the source that were looked at before, with all below them, and are passed over; more are added. */
  seen?: EntrySet | undefined;
  /** Content of the source that its storage has lost: `damaged` where the target lacks it. */
  isLost?: ((entry: number) => boolean) | undefined;
  /** Gives trees that are used until it is called again. */
  readTree: ReadTree;
  signal?: AbortSignal | undefined;
  onTree?: ((trees: number) => void) | undefined;
}

/** Content that the target lacks, as entries of the source's index. */
export interface TransferPlan {
  /** By kind (data, then trees), pack and offset. */
  readonly entries: Uint32Array;
  readonly dataBlobs: number;
  readonly treeBlobs: number;
  /** Sealed bytes in the source's packs. */
  readonly storedBytes: number;
  /** Bytes of the blobs' plaintexts. */
  readonly plainBytes: number;
  readonly treesWalked: number;
  /** By number of a source's pack: one of the files that it is opened for, its path from the root in latin1. For people. */
  readonly files: ReadonlyMap<number, string>;
}

export const NOTHING_TO_MOVE: TransferPlan = {
  entries: new Uint32Array(0),
  dataBlobs: 0,
  treeBlobs: 0,
  storedBytes: 0,
  plainBytes: 0,
  treesWalked: 0,
  files: new Map(),
};

/**
 * Walks trees of one repository and finds what another lacks of them. Each tree is walked once, also one that the target
 * has: that a tree is there says nothing of what is below it after a transfer that was killed. `damaged` when the source
 * does not hold something that a tree names.
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
  /** The tree at the same place below the known one. */
  readonly beside: Uint8Array | null;
  /** From the root, in latin1. */
  readonly path: string;
  /** True where only some of it is wanted. */
  readonly isPartial: boolean;
}

class TransferWalk {
  readonly #from: BlobIndex;
  readonly #to: BlobIndex;
  readonly #options: PlanTransferOptions;
  /** Entries of the source that were looked at, with all below them. */
  readonly #seen: EntrySet;
  /** Trees that were looked at in part. */
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
        // It may be wanted of another place too, whole or in part.
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

  /** Goes through a tree without making nodes of it; false when it has entries for which that does not do: all are gone through again. */
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

  /** `of`: the file that names the blob; its path is made where it is needed, which for most files it is not. */
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

  /** Null when the source does not have that tree any more: then all below is walked. */
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

  /** Below 0 only where that is no matter. */
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
      treesWalked: this.#trees,
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
