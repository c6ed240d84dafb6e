import { hex } from "../formats/bytes.ts";
import { toCairnError } from "../errors.ts";
import { decodeTree, type TreeNode } from "../formats/tree.ts";
import { newPacer, type Pacer } from "../pacer.ts";
import { DATA_BLOB, TREE_BLOB, type BlobIndex } from "./blob-index.ts";
import type { CheckProblem, CheckReport, CheckRoot, Consequence } from "./check.ts";
import { EntrySet } from "./entry-set.ts";
import type { ReadTree } from "./live.ts";

/** What damage means: which paths of which roots cannot be had, cause by cause. */

/** Of a root, and of a problem; beyond that each problem has still one path of each root, so that all are named. */
const MAX_PATHS = 1000;

interface Broken {
  /** Hex id of the blob that is to blame. */
  readonly cause: string;
  readonly path: Uint8Array;
}

export interface ExplainOptions {
  readTree: ReadTree;
  /** Hex ids of what can be had all the same. */
  elsewhere?: ReadonlySet<string>;
  signal?: AbortSignal;
}

/**
 * Fills `consequences` of all problems whose blobs are needed by a root: up to 1000 paths a problem, and at least one
 * of each root. Problems of whole packs get those of their blobs. Walks each tree once, however many roots share it.
 */
export async function explain(report: CheckReport, options: ExplainOptions): Promise<void> {
  const bad = badBlobs(report);
  for (const id of options.elsewhere ?? []) bad.delete(id);
  if (bad.size === 0) return;
  const finder = new Finder(report.index, bad, options);
  const byCause = new Map<string, Consequence[]>();
  for (const root of report.roots) {
    for (const { cause, path } of await finder.root(root)) {
      const list = byCause.get(cause);
      const consequence = { root: root.label, path };
      if (list === undefined) byCause.set(cause, [consequence]);
      else list.push(consequence);
    }
  }
  for (const problem of report.problems) {
    const consequences = causesOf(problem, report, bad).flatMap((cause) => byCause.get(cause) ?? []);
    if (consequences.length > 0) problem.consequences = someOfEachRoot(consequences);
  }
}

function someOfEachRoot(consequences: Consequence[]): Consequence[] {
  if (consequences.length <= MAX_PATHS) return consequences;
  const byRoot = [...Map.groupBy(consequences, ({ root }) => root).values()];
  const share = Math.max(1, Math.floor(MAX_PATHS / byRoot.length));
  return byRoot.flatMap((ofRoot) => ofRoot.slice(0, share));
}

/** Hex ids of blobs that cannot be read, each with the pack that took them along (empty: themselves). */
function badBlobs(report: CheckReport): Map<string, string> {
  const bad = new Map<string, string>();
  for (const entry of report.lost) bad.set(hex(report.index.idOf(entry)), hex(report.index.place(entry).pack));
  for (const { kind, object } of report.problems) {
    if (kind === "blob_damaged" || kind === "blob_missing" || kind === "tree_missing" || kind === "tree_damaged") {
      if (!bad.has(object)) bad.set(object, "");
    }
  }
  return bad;
}

function causesOf(problem: CheckProblem, report: CheckReport, bad: ReadonlyMap<string, string>): string[] {
  if (problem.kind !== "pack_missing" && problem.kind !== "pack_size") return [problem.object];
  const causes: string[] = [];
  if (report.lost.size > 0) for (const [id, pack] of bad) if (pack === problem.object) causes.push(id);
  return causes;
}

class Finder {
  readonly #index: BlobIndex;
  readonly #bad: ReadonlyMap<string, string>;
  readonly #options: ExplainOptions;
  readonly #pace: Pacer;
  /** Trees that were walked: what is broken below them. Sound ones are only counted as done. */
  readonly #broken = new Map<number, Broken[]>();
  readonly #sound: EntrySet;

  constructor(index: BlobIndex, bad: ReadonlyMap<string, string>, options: ExplainOptions) {
    this.#index = index;
    this.#bad = bad;
    this.#options = options;
    this.#pace = newPacer(options.signal);
    this.#sound = new EntrySet(index.count);
  }

  async root(root: CheckRoot): Promise<Broken[]> {
    return this.#tree(root.tree);
  }

  async #tree(id: Uint8Array): Promise<Broken[]> {
    const entry = this.#index.lookup(id, 0, TREE_BLOB);
    if (entry < 0 || this.#bad.has(hex(id))) return [{ cause: hex(id), path: new Uint8Array(0) }];
    if (this.#sound.has(entry)) return [];
    const known = this.#broken.get(entry);
    if (known !== undefined) return known;
    await this.#pace();
    const found = await this.#walk(entry, id);
    if (found.length === 0) this.#sound.add(entry);
    else this.#broken.set(entry, found);
    return found;
  }

  async #walk(entry: number, id: Uint8Array): Promise<Broken[]> {
    let nodes: TreeNode[];
    try {
      // Awaited even when it is there at once, so that deep trees do not use up the stack.
      nodes = decodeTree(await this.#options.readTree({ ...this.#index.place(entry), id: this.#index.idOf(entry) }));
    } catch (error) {
      if (toCairnError(error).code === "interrupted") throw error;
      return [{ cause: hex(id), path: new Uint8Array(0) }];
    }
    const found: Broken[] = [];
    const named = new Set<string>();
    const add = ({ cause, path }: Broken): void => {
      const object = this.#bad.get(cause) || cause;
      if (found.length >= MAX_PATHS && named.has(object)) return;
      named.add(object);
      found.push({ cause, path });
    };
    for (const node of nodes) {
      if (node.subtree !== undefined) {
        for (const below of await this.#tree(node.subtree))
          add({ cause: below.cause, path: joined(node.name, below.path) });
      }
      if (node.content !== undefined) this.#file(node, add);
    }
    return found;
  }

  #file(node: TreeNode, add: (broken: Broken) => void): void {
    const content = node.content!;
    for (let at = 0; at < content.length; at += 32) {
      const id = content.subarray(at, at + 32);
      const cause = hex(id);
      if (this.#index.lookup(id, 0, DATA_BLOB) >= 0 && !this.#bad.has(cause)) continue;
      add({ cause, path: Uint8Array.from(node.name) });
      return;
    }
  }
}

function joined(name: Uint8Array, below: Uint8Array): Uint8Array {
  if (below.length === 0) return Uint8Array.from(name);
  const path = new Uint8Array(name.length + 1 + below.length);
  path.set(name);
  path[name.length] = 0x2f;
  path.set(below, name.length + 1);
  return path;
}
