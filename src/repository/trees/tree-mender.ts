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

/** An entry that cannot be had any more: a file some of whose content is lost, or a directory whose tree is; or one that is to go. */
export interface LostEntry {
  /** Raw bytes, relative to the tree; empty: the tree itself. */
  readonly path: Uint8Array;
  readonly kind: "file" | "directory";
  readonly detail: string;
  /** It was there, and was to go. */
  readonly isTakenOut?: true;
}

/** A tree without what is lost. */
export interface MendedTree {
  /** Id of the mended tree, unchanged where nothing is lost; null: nothing is left of it. */
  readonly tree: Uint8Array | null;
  readonly lost: readonly LostEntry[];
}

/** Entries that are to go though they are whole, by their paths from the topmost tree, in latin1. */
export interface TakenEntries {
  fits(path: string): boolean;
  /** Tells whether the answer for the tree at this path holds wherever the tree lies. */
  isAnywhere(at: string): boolean;
}

export interface TreeMenderOptions {
  readonly index: BlobIndex;
  readonly readTree: ReadTree;
  /** Each new tree, trees below it first; one may come again. */
  onTree(id: Uint8Array, bytes: Uint8Array): void;
  readonly takesOut?: TakenEntries | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** So many are remembered; further ones are worth reading some trees again. */
const MOST_PLACES = 200_000;
const NOTHING: readonly LostEntry[] = [];
const ITSELF = new Uint8Array(0);

/**
 * Writes trees anew without the entries of which the index lacks something, and without those that are to go. An entry goes as a whole: part of a file would
 * be another file. What is sound keeps its id. Every tree is read once, however many snapshots share it; where it matters
 * where it lies, once for each place, as far as those are remembered.
 */
export class TreeMender {
  readonly #options: TreeMenderOptions;
  readonly #pace: Pacer;
  /** Trees that are sound with all below them. */
  readonly #sound: EntrySet;
  readonly #mended = new Map<number, MendedTree>();
  /** Mended trees by path and id, where it matters where a tree lies. Null: nothing of it goes. */
  readonly #mendedAt = new Map<string, MendedTree | null>();
  /** Ids of blobs that the index does not know. */
  readonly missing = new Set<ObjectId>();

  constructor(options: TreeMenderOptions) {
    this.#options = options;
    this.#pace = newPacer(options.signal);
    this.#sound = new EntrySet(options.index.count);
  }

  /**
   * `at`: the tree's path, in latin1. Throws `damaged` for a tree that the index knows and that cannot be read: whether it is
   * lost is not known.
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

  /** The nodes; or why whoever wrote the tree wrote none, which no other copy of it would change. */
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
