import { latin1 } from "../../formats/bytes.ts";
import { throwIfAborted, toCairnError } from "../../errors.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import type { StoreReader } from "./store-reader.ts";

/** One path that cannot be given back as it was. */
export interface AffectedPath {
  /** relative to the tree that was searched, latin1 of the raw bytes; empty for its root */
  path: string;
  kind: "tree" | "content";
  detail: string;
  /** entry of the index to blame; -1 when the index does not know the blob, or none is */
  entry: number;
}

export interface AffectedPathsOptions {
  store: StoreReader;
  /** why a blob cannot be used; null for a sound one */
  damage(entry: number): string | null;
  /** what is wrong with files as a whole, by their content (latin1 of their ids) */
  files: ReadonlyMap<string, string>;
  signal?: AbortSignal | undefined;
}

const SOUND = 1;
const BREATHE = 64;

interface Frame {
  entry: number;
  path: string;
  nodes: TreeNode[];
  next: number;
  affected: boolean;
}

/** Finds the paths that damage takes away. Sound trees are looked into once, however many points share them. */
export class AffectedPaths {
  readonly #options: AffectedPathsOptions;
  /** Trees that were found sound, by their entry. */
  readonly #state: Uint8Array;
  #steps = 0;

  constructor(options: AffectedPathsOptions) {
    this.#options = options;
    this.#state = new Uint8Array(options.store.index.count);
  }

  /** Every affected path below a tree, in raw pre-order of directories. `except`: a tree that is not looked into. */
  async find(tree: Uint8Array, except: Uint8Array | null, each: (affected: AffectedPath) => void): Promise<void> {
    const stack: Frame[] = [];
    this.#enter(tree, "", { stack, except, each });
    while (stack.length > 0) {
      if ((++this.#steps & (BREATHE - 1)) === 0) await this.#breathe();
      const frame = stack[stack.length - 1]!;
      const node = frame.nodes[frame.next++];
      if (node === undefined) {
        stack.pop();
        if (!frame.affected) this.#state[frame.entry] = SOUND;
        else for (const above of stack) above.affected = true;
      } else if (node.subtree !== undefined && !sameId(node.subtree, except)) {
        const affected = this.#enter(node.subtree, joined(frame.path, node.name), { stack, except, each });
        frame.affected ||= affected;
      }
    }
  }

  async #breathe(): Promise<void> {
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    throwIfAborted(this.#options.signal);
  }

  /** True when the tree itself or a file directly in it is affected. */
  #enter(
    id: Uint8Array,
    path: string,
    at: { stack: Frame[]; except: Uint8Array | null; each: (affected: AffectedPath) => void },
  ): boolean {
    const { store, damage } = this.#options;
    const entry = store.index.lookup(id, 0, TREE_BLOB);
    if (entry < 0) {
      at.each({ path, kind: "tree", entry, detail: `the index does not know tree ${objectIdOf(id).slice(0, 12)}` });
      return true;
    }
    if (this.#state[entry] === SOUND) return false;
    const reason = damage(entry);
    let nodes: TreeNode[] = [];
    try {
      nodes = store.treeAt(entry);
    } catch (error) {
      const detail = reason ?? toCairnError(error).message;
      at.each({ path, kind: "tree", entry, detail: `tree ${objectIdOf(id).slice(0, 12)} cannot be read: ${detail}` });
      return true;
    }
    let affected = false;
    const found = (kind: AffectedPath["kind"], where: string, problem: { detail: string; entry: number }): void => {
      affected = true;
      at.each({ path: where, kind, ...problem });
    };
    if (reason !== null) found("tree", path, { entry, detail: `tree ${objectIdOf(id).slice(0, 12)}: ${reason}` });
    for (const node of nodes) {
      if (node.type === "irregular")
        found("tree", joined(path, node.name), {
          entry,
          detail: "the tree has an entry of a type that no save point records",
        });
      const problem = this.#fileProblem(node);
      if (problem !== null) found("content", joined(path, node.name), problem);
    }
    at.stack.push({ entry, path, nodes, next: 0, affected });
    return affected;
  }

  #fileProblem(node: TreeNode): { detail: string; entry: number } | null {
    const { content } = node;
    if (content === undefined) return null;
    const { index } = this.#options.store;
    let size = 0;
    for (let at = 0; at < content.length; at += 32) {
      const entry = index.lookup(content, at, DATA_BLOB);
      const blob = objectIdOf(content.subarray(at, at + 32)).slice(0, 12);
      if (entry < 0) return { entry, detail: `the index does not know blob ${blob}` };
      const reason = this.#options.damage(entry);
      if (reason !== null) return { entry, detail: `blob ${blob} cannot be used: ${reason}` };
      size += index.table.plainLengthOf(entry);
    }
    const whole = this.#options.files.get(latin1(content));
    if (whole !== undefined) return { entry: -1, detail: whole };
    return size === node.size
      ? null
      : { entry: -1, detail: `its blobs hold ${size} bytes, its tree says ${node.size}` };
  }
}

function sameId(a: Uint8Array, b: Uint8Array | null): boolean {
  return b !== null && Buffer.compare(a, b) === 0;
}

function joined(parent: string, name: Uint8Array): string {
  return parent === "" ? latin1(name) : `${parent}/${latin1(name)}`;
}
