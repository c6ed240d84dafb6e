import { sha256 } from "../../crypto/hash.ts";
import { advice, CairnError, call, toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { TAKEN_OUT } from "../../formats/records/manifest.ts";
import { decodeTree, encodeTree, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { type BlobIndex, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import { EntrySet } from "../index/entry-set.ts";
import type { ReadTree } from "./live.ts";

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
  readonly #pace: Pacer;
  /** Trees that are intact with everything below. */
  readonly #sound: EntrySet;
  readonly #mended = new Map<number, MendedTree>();
  /** Mended trees by entry and path, if the path matters. Null: the tree is intact. */
  readonly #mendedAt = new Map<string, MendedTree | null>();
  /** Ids of blobs that the index does not have. */
  readonly missing = new Set<ObjectId>();

  constructor(options: TreeMenderOptions) {
    this.#options = options;
    this.#pace = newPacer(options.signal);
    this.#sound = new EntrySet(options.index.count);
  }

  /**
   * `at`: the tree's path, in latin1. Throws `damaged` if a tree of the index cannot be read: its content may not be
   * lost.
   */
  async mend(tree: Uint8Array, at = ""): Promise<MendedTree> {
    await this.#pace();
    const entry = this.#options.index.lookup(tree, 0, TREE_BLOB);
    if (entry < 0) {
      this.missing.add(objectIdOf(tree));
      return lostTree("its tree is lost");
    }
    const isAnywhere = this.#options.takesOut?.isAnywhere(at) ?? true;
    const known = isAnywhere
      ? this.#sound.has(entry)
        ? null
        : this.#mended.get(entry)
      : this.#mendedAt.get(`${entry} ${at}`);
    if (known !== undefined) return known ?? { tree, lost: NOTHING };
    const mended = await this.#mendEntries(tree, entry, at);
    const isWhole = mended.lost.length === 0;
    if (!isAnywhere) this.#remember(`${entry} ${at}`, isWhole ? null : mended);
    else if (isWhole) this.#sound.add(entry);
    else this.#mended.set(entry, mended);
    return mended;
  }

  #remember(place: string, mended: MendedTree | null): void {
    if (this.#mendedAt.size === MOST_PLACES) this.#mendedAt.clear();
    this.#mendedAt.set(place, mended);
  }

  async #mendEntries(tree: Uint8Array, entry: number, at: string): Promise<MendedTree> {
    const nodes = await this.#nodes(entry);
    if (typeof nodes === "string") return lostTree(nodes);
    const kept: TreeNode[] = [];
    const lost: LostEntry[] = [];
    for (const node of nodes) {
      const path = at === "" ? latin1(node.name) : `${at}/${latin1(node.name)}`;
      if (this.#options.takesOut?.fits(path) === true) {
        const kind = node.subtree === undefined ? "file" : "directory";
        lost.push({ path: Uint8Array.from(node.name), kind, detail: TAKEN_OUT, isTakenOut: true });
        continue;
      }
      if (node.subtree !== undefined) {
        const below = await this.mend(node.subtree, path);
        for (const each of below.lost) lost.push({ ...each, path: joinPath(node.name, each.path) });
        if (below.tree !== null) kept.push(below.lost.length === 0 ? node : { ...node, subtree: below.tree });
        continue;
      }
      const missing = this.#missing(node);
      if (missing === 0) kept.push(node);
      else {
        const detail = `${missing} of ${node.content!.length / 32} pieces of its content are lost`;
        lost.push({ path: Uint8Array.from(node.name), kind: "file", detail });
      }
    }
    if (lost.length === 0) return { tree, lost: NOTHING };
    const bytes = encodeTree(kept);
    const id = sha256(bytes);
    this.#options.onTree(id, bytes);
    return { tree: id, lost };
  }

  /**
   * Returns the nodes, or the reason why the tree is invalid: its writer wrote it so, and another copy would be the
   * same.
   */
  async #nodes(entry: number): Promise<TreeNodes | string> {
    const { readTree } = this.#options;
    let bytes: Uint8Array;
    try {
      bytes = await readTree(entry);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      throw new CairnError("damaged", `a tree cannot be read: ${known.message}`, {
        hint: advice`run ${call("backup repair packs", "repair", { what: "packs" })} first: it saves the readable content, and lists what is lost`,
        cause: error,
      });
    }
    try {
      return decodeTree(bytes);
    } catch (error) {
      return `its tree is invalid: ${toCairnError(error).message}`;
    }
  }

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
