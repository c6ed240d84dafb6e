import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import { joinPath } from "../../formats/bytes.ts";
import { TAKEN_OUT } from "../../formats/records/manifest.ts";
import { decodeTree, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import { EntrySet } from "../index/entry-set.ts";
import { newTree } from "./edit-tree.ts";
import type { ReadTree } from "./live.ts";
import { type NodeAndBelow, pathIn, type TreeAt, walkTrees } from "./walk-trees.ts";

/**
 * An entry that a mended tree omits: a file with lost content, a directory with a lost tree, or an entry to take out.
 */
export interface LostEntry {
  /** Raw path bytes, relative to the tree; empty: the tree itself. */
  readonly path: Uint8Array;
  readonly kind: "file" | "directory";
  readonly detail: string;
  /** True if the entry was intact and was to be taken out. */
  readonly isTakenOut?: true;
}

/** A tree without its lost entries. */
export interface MendedTree {
  /** Id of the mended tree, unchanged if nothing is lost; null if nothing is left. */
  readonly tree: Uint8Array | null;
  readonly lost: readonly LostEntry[];
}

/** Entries to take out although they are intact, by their paths from the root tree, in latin1. */
export interface TakenEntries {
  fits(path: string): boolean;
  /** True if the result for the tree at this path is the same at any other path. */
  isAnywhere(at: string): boolean;
}

export interface TreeMenderOptions {
  readonly index: BlobIndex;
  readonly readTree: ReadTree;
  /** Called for each new tree, subtrees first; may repeat a tree. */
  onTree(id: Uint8Array, bytes: Uint8Array): void;
  readonly takesOut?: TakenEntries | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** The most remembered results; beyond, some trees are read again. */
const MOST_PLACES = 200_000;
const NOTHING: readonly LostEntry[] = [];
const ITSELF = new Uint8Array(0);

/**
 * Rewrites trees without entries of which the index lacks a blob, and without entries to take out. Omits a file as a
 * whole: part of it would be another file. Intact trees keep their ids. Reads each tree once, or once a path if the
 * path matters.
 */
export class TreeMender {
  readonly #options: TreeMenderOptions;
  /** Trees that are intact with everything below. */
  readonly #sound: EntrySet;
  readonly #mended = new Map<number, MendedTree>();
  /** Mended trees by entry and path, if the path matters. Null: the tree is intact. */
  readonly #mendedAt = new Map<string, MendedTree | null>();
  /** The error that has ended the walk. */
  #unread: CairnError | null = null;
  /** Ids of blobs that the index does not have. */
  readonly missing = new Set<ObjectId>();

  constructor(options: TreeMenderOptions) {
    this.#options = options;
    this.#sound = new EntrySet(options.index.count);
  }

  /** Throws `damaged` if a tree of the index cannot be read: its content may not be lost. */
  async mend(tree: Uint8Array): Promise<MendedTree> {
    return walkTrees<MendedTree>(
      tree,
      this.#list,
      {
        known: (at) => this.#known(at),
        enters: (_node, path) => this.#options.takesOut?.fits(path) !== true,
        unread: (at, error) => {
          if (error === this.#unread) throw error;
          // Its writer wrote the tree so, and another copy would be the same.
          return this.#remember(at, lostTree(`its tree is invalid: ${error.message}`));
        },
        done: (at, nodes) => this.#remember(at, this.#without(at, nodes)),
      },
      this.#options.signal,
    );
  }

  #known(at: TreeAt): MendedTree | undefined {
    const entry = this.#options.index.lookup(at.id, 0, TREE_BLOB);
    if (entry < 0) {
      this.missing.add(objectIdOf(at.id));
      return lostTree("its tree is lost");
    }
    const whole = { tree: at.id, lost: NOTHING };
    if (this.#isAnywhere(at)) return this.#sound.has(entry) ? whole : this.#mended.get(entry);
    const known = this.#mendedAt.get(`${entry} ${at.path}`);
    return known === null ? whole : known;
  }

  #isAnywhere({ path }: TreeAt): boolean {
    return this.#options.takesOut?.isAnywhere(path) ?? true;
  }

  #remember(at: TreeAt, mended: MendedTree): MendedTree {
    const entry = this.#options.index.lookup(at.id, 0, TREE_BLOB);
    const isWhole = mended.lost.length === 0;
    if (!this.#isAnywhere(at)) {
      if (this.#mendedAt.size === MOST_PLACES) this.#mendedAt.clear();
      this.#mendedAt.set(`${entry} ${at.path}`, isWhole ? null : mended);
    } else if (isWhole) this.#sound.add(entry);
    else this.#mended.set(entry, mended);
    return mended;
  }

  #without({ id: tree, path: at }: TreeAt, nodes: Iterable<NodeAndBelow<MendedTree>>): MendedTree {
    const kept: TreeNode[] = [];
    const lost: LostEntry[] = [];
    for (const [node, below] of nodes) {
      const path = Uint8Array.from(node.name);
      const isFolder = node.subtree !== undefined;
      if (isFolder ? below === undefined : this.#options.takesOut?.fits(pathIn(at, path)) === true)
        lost.push({ path, kind: isFolder ? "directory" : "file", detail: TAKEN_OUT, isTakenOut: true });
      else if (below !== undefined) {
        for (const each of below.lost) lost.push({ ...each, path: joinPath(path, each.path) });
        if (below.tree !== null) kept.push(below.lost.length === 0 ? node : { ...node, subtree: below.tree });
      } else {
        const missing = this.#missing(node);
        const detail = `${missing} of ${(node.content?.length ?? 0) / 32} pieces of its content are lost`;
        if (missing === 0) kept.push(node);
        else lost.push({ path, kind: "file", detail });
      }
    }
    if (lost.length === 0) return { tree, lost: NOTHING };
    const { id, bytes } = newTree(kept);
    this.#options.onTree(id, bytes);
    return { tree: id, lost };
  }

  /** Returns the nodes of a tree of the index. */
  readonly #list = async (id: Uint8Array): Promise<TreeNodes> => {
    let bytes: Uint8Array;
    try {
      bytes = await this.#options.readTree(this.#options.index.lookup(id, 0, TREE_BLOB));
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      this.#unread = new CairnError("damaged", `a tree cannot be read: ${known.message}`, {
        hint: advice`run ${call("backup repair packs", "repair", { what: "packs" })} first: it saves the readable content, and lists what is lost`,
        cause: error,
      });
      throw this.#unread;
    }
    return decodeTree(bytes);
  };

  #missing({ content }: TreeNode): number {
    let missing = 0;
    for (let at = 0; content !== undefined && at < content.length; at += 32) {
      if (this.#options.index.lookup(content, at, DATA_BLOB) >= 0) continue;
      this.missing.add(objectIdOf(content.subarray(at, at + 32)));
      missing++;
    }
    return missing;
  }
}

function lostTree(detail: string): MendedTree {
  return { tree: null, lost: [{ path: ITSELF, kind: "directory", detail }] };
}
