import { nodeAt, readFile, treesIn } from "../../archive/databases/nodes.ts";
import type { ExtraBlob } from "../../archive/scan/store-sink.ts";
import { compareBytes, directoryOf, folderOf, latin1 } from "../../formats/bytes.ts";
import type { EntryCounts } from "../../formats/records/descriptor.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { type FoundIgnoreFile, IGNORE_FILE, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import type { PathSelection } from "../../fs/path-selection.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { newTree } from "../../repository/trees/edit-tree.ts";
import { type ListTree, nodesBelow, pathIn, walkTrees } from "../../repository/trees/walk-trees.ts";

const KINDS: Partial<Record<TreeNode["type"], keyof EntryCounts>> = {
  file: "files",
  dir: "directories",
  symlink: "links",
};

/** Each name of a file counts on its own. */
export interface Totals {
  entries: EntryCounts;
  /** Bytes of all files. */
  bytes: number;
}

function noTotals(): Totals {
  return { entries: { files: 0, directories: 0, links: 0, other: 0 }, bytes: 0 };
}

/** Adds an entry to totals, and the totals of the entries below it. */
function addTotals(totals: Totals, { type, size }: TreeNode, below: Totals | undefined): void {
  totals.entries[KINDS[type] ?? "other"]++;
  if (type === "file") totals.bytes += size;
  if (below === undefined) return;
  totals.bytes += below.bytes;
  for (const kind of ["files", "directories", "links", "other"] as const) totals.entries[kind] += below.entries[kind];
}

/** Counts entries with everything below them. Reads each tree once. */
export class EntryTotals {
  readonly #list: ListTree;
  readonly #signal: AbortSignal | undefined;
  readonly #known = new Map<string, Totals>();

  constructor(list: ListTree, signal: AbortSignal | undefined) {
    this.#list = list;
    this.#signal = signal;
  }

  async of(nodes: Iterable<TreeNode>): Promise<Totals> {
    const totals = noTotals();
    for (const node of nodes)
      addTotals(totals, node, node.subtree === undefined ? undefined : await this.#below(node.subtree));
    return totals;
  }

  async #below(tree: Uint8Array): Promise<Totals> {
    return walkTrees<Totals>(
      tree,
      this.#list,
      {
        known: ({ id }) => this.#known.get(latin1(id)),
        done: ({ id }, nodes) => {
          const totals = noTotals();
          for (const [node, below] of nodes) addTotals(totals, node, below);
          this.#known.set(latin1(id), totals);
          return totals;
        },
      },
      this.#signal,
    );
  }
}

/** The chosen entries of a tree, and their totals. */
export interface Survey extends Totals {
  /** Id of the tree itself, or of a new tree with only the chosen entries. */
  tree: Uint8Array;
  /** All new trees if `tree` is a new tree; else empty. */
  blobs: ExtraBlob[];
}

/**
 * Reads the chosen directories of a tree in another repository. Throws `damaged` if one cannot be read. `files`: chosen
 * files that the tree lacks, by their latin1 paths.
 */
export async function surveyTree(
  reader: BlobSource,
  tree: Uint8Array,
  {
    only,
    files,
    signal,
  }: { only: PathSelection | null; files: ReadonlyMap<string, TreeNode>; signal?: AbortSignal | undefined },
): Promise<Survey> {
  const found = { ...noTotals(), blobs: [] as ExtraBlob[] };
  const added = Map.groupBy(files, ([path]) => folderOf(path));
  const wanted = (path: string): "whole" | "part" | "no" => only?.of(Buffer.from(path, "latin1")) ?? "whole";
  const made = await walkTrees<Uint8Array>(
    tree,
    treesIn(reader),
    {
      enters: (_node, path) => wanted(path) !== "no",
      done({ id, path }, nodes) {
        const kept: TreeNode[] = [];
        let isChanged = added.has(path) || wanted(path) === "part";
        const keep = (node: TreeNode): void => {
          kept.push(node);
          addTotals(found, node, undefined);
        };
        for (const [node, subtree] of nodes) {
          if (subtree !== undefined) {
            isChanged ||= compareBytes(subtree, node.subtree!) !== 0;
            keep({ ...node, subtree });
          } else if (node.subtree === undefined && wanted(pathIn(path, node.name)) === "whole") keep(node);
        }
        for (const [, node] of added.get(path) ?? []) keep(node);
        if (!isChanged) return id;
        const blob = newTree(kept);
        found.blobs.push({ ...blob, type: "tree" });
        return blob.id;
      },
    },
    signal,
  );
  return { ...found, tree: made };
}

/** Returns the ignore files of a tree in a repository. Afterwards all its trees are local. Throws `damaged`. */
export async function ignoreFilesBelow(
  reader: BlobSource,
  tree: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<FoundIgnoreFile[]> {
  const read = { title: "an ignore file", most: MAX_IGNORE_FILE_BYTES };
  return ignoreFilesIn(
    {
      list: treesIn(reader),
      textOf: async (node) => latin1(await readFile(reader, node, read)),
    },
    tree,
    signal,
  );
}

/** Returns the ignore files of a tree. `textOf`: a file's content in latin1; null leaves the file out. */
export async function ignoreFilesIn(
  source: {
    list: ListTree;
    textOf: (node: TreeNode) => string | null | Promise<string | null>;
  },
  tree: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<FoundIgnoreFile[]> {
  const found: FoundIgnoreFile[] = [];
  const root = { nodes: await source.list(tree), path: new Uint8Array(0), signal };
  for await (const { node, path } of nodesBelow(root, source.list)) {
    if (node.type !== "file" || latin1(node.name) !== IGNORE_FILE || node.size > MAX_IGNORE_FILE_BYTES) continue;
    const text = await source.textOf(node);
    if (text !== null) found.push({ directory: latin1(directoryOf(path)), text });
  }
  return found;
}

/** Adds the blob ids of files at and below `nodes` to `to.content`. Skips the trees in `to.read`. */
export async function addContent(
  trees: ListTree,
  nodes: readonly TreeNode[],
  to: { content: Set<string>; read: Set<string>; signal: AbortSignal | undefined },
): Promise<void> {
  const list: ListTree = (tree) => {
    if (to.read.has(latin1(tree))) return [];
    to.read.add(latin1(tree));
    return trees(tree);
  };
  for await (const { node } of nodesBelow({ nodes, path: NOTHING, signal: to.signal }, list)) {
    const { content = NOTHING } = node;
    for (let at = 0; at < content.length; at += 32) to.content.add(latin1(content.subarray(at, at + 32)));
  }
}

const NOTHING = new Uint8Array(0);

/** Returns the nodes at raw paths that a folder has; `root`: hexadecimal id of its tree. */
export async function nodesAt(blobs: BlobSource, root: string, paths: readonly Uint8Array[]): Promise<TreeNode[]> {
  const nodes: TreeNode[] = [];
  for (const path of paths) nodes.push((await nodeAt(blobs, Buffer.from(root, "hex"), latin1(path).split("/")))!);
  return nodes;
}
