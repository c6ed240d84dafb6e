import type { Manifest } from "../../formats/manifest.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { Look } from "./look.ts";
import { manifestIn, nameOf, nodesOrNull, readNodes } from "./snapshot-content.ts";

/** The topmost tree of a save point or a stream, of which no snapshot tells any more what was saved. */
export interface PointTree {
  tree: Uint8Array;
  /** What the snapshot is to say was saved. */
  path: string;
  /** Of all that is in it. */
  files: number;
  bytes: number;
  /** Seconds since 1970. */
  newest: number;
}

export interface TreeSize {
  entries: number;
  directories: number;
  files: number;
  bytes: number;
  /** The newest time of an entry, seconds since 1970; 0 where it has none. */
  newest: number;
}

/** What is below trees, each read once; nothing of those that cannot be. */
export class TreeSizes {
  readonly #from: Pick<Look, "reader" | "index">;
  readonly #known = new Map<string, TreeSize>();

  constructor(from: Pick<Look, "reader" | "index">) {
    this.#from = from;
  }

  async of(tree: Uint8Array): Promise<TreeSize> {
    const key = Buffer.from(tree).toString("latin1");
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const size: TreeSize = { entries: 0, directories: 0, files: 0, bytes: 0, newest: 0 };
    for (const node of (await nodesOrNull(this.#from, tree)) ?? []) {
      const below = node.subtree === undefined ? null : await this.of(Uint8Array.from(node.subtree));
      const isFile = node.type === "file";
      size.entries += 1 + (below?.entries ?? 0);
      size.directories += (below === null ? 0 : 1) + (below?.directories ?? 0);
      size.files += (isFile ? 1 : 0) + (below?.files ?? 0);
      size.bytes += (isFile ? node.size : 0) + (below?.bytes ?? 0);
      size.newest = Math.max(size.newest, node.mtimeSec, below?.newest ?? 0);
    }
    this.#known.set(key, size);
    return size;
  }
}

/**
 * What was saved, of a tree that has a manifest beside one node a level; null for others. How many levels lie above what was
 * saved is told by how many entries the manifest counts.
 */
export async function pointTree(
  from: Pick<Look, "reader" | "index">,
  tree: Uint8Array,
  sizes: TreeSizes,
): Promise<PointTree | null> {
  const top = await readNodes(from, tree);
  const records = top.find((node) => nameOf(node) === ".cairn")?.subtree;
  const manifest = (await manifestIn(from, top))?.manifest ?? null;
  if (records === undefined || manifest === null) return null;
  const { files, bytes, newest, entries, directories } = await sizes.of(tree);
  const own = await sizes.of(records);
  const saved = countOf(manifest);
  const above = entries - 1 - own.entries - saved;
  // What a rewrite has left on its way has less than its manifest counts: a folder above would be taken for what was saved.
  if (directories - 1 - own.directories - above !== manifest.entries.directories) return null;
  const path = await pathAbove(
    from,
    top.filter((node) => nameOf(node) !== ".cairn"),
    { above, saved },
  );
  return path === null ? null : { tree, path, files, bytes, newest };
}

function countOf({ entries: { files, directories, links, other } }: Manifest): number {
  return files + directories + links + other;
}

/** The path of what lies below so many levels; of a stream at the top, which has none above it, the file's. */
async function pathAbove(
  from: Pick<Look, "reader" | "index">,
  top: readonly TreeNode[],
  { above, saved }: { above: number; saved: number },
): Promise<string | null> {
  const [first] = top;
  if (above === 0 && saved === 1 && top.length === 1 && first!.type === "file") return `/${textOf(first!)}`;
  if (above < 1) return null;
  let path = "";
  let level = top;
  for (let left = above; left > 0; left--) {
    const [node, ...others] = level;
    if (node?.subtree === undefined || others.length > 0) return null;
    path += `/${textOf(node)}`;
    if (left > 1) level = await readNodes(from, node.subtree);
  }
  return path;
}

function textOf({ name }: TreeNode): string {
  return Buffer.from(name).toString("utf8");
}
