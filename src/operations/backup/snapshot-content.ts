import { directoryNode } from "../../engines/copy/snapshot-tree.ts";
import type { RootMetadata } from "../../engines/engine.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { compareBytes } from "../../formats/bytes.ts";
import { decodeManifest, type Manifest } from "../../formats/manifest.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import { decodeTree, type TreeNode } from "../../formats/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { type BlobIndex, blobTypeName, DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import { packsAhead } from "../../repository/live.ts";
import type { NearReader } from "../../repository/near-reader.ts";
import { isMadeByUs } from "./public-snapshot.ts";

/** What a snapshot holds, whoever made it. */
export interface SnapshotContent {
  /** id of the tree of the folder that was saved; of a snapshot of other programs the topmost one. */
  readonly root: Uint8Array;
  /** Name of the one entry of `root` that was saved, where that is a file and no folder; null: all of them. */
  readonly only: Uint8Array | null;
  /** The folder's own entry; null where `root` is the topmost tree, and of a file. */
  readonly node: TreeNode | null;
  /** Null in snapshots of other programs, and where it cannot be read. */
  readonly manifest: Manifest | null;
  /** Why it cannot be read: entries are there, but not what only it says of them. */
  readonly manifestDamage: CairnError | null;
  /** Of a folder in what was saved: its raw path from there on, and the whole one. Absent: all that was saved. */
  readonly part?: { readonly path: Uint8Array; readonly whole: Uint8Array };
}

const MAX_MANIFEST_BYTES = 1024 * 1024 * 1024;

/** What tells what a snapshot holds. */
export type ToldBy = Pick<Snapshot, "tree" | "paths" | "tags" | "program_version" | "original">;

/** Finds the saved folder and the manifest of a snapshot. `damaged` when the trees above them cannot be read. */
export async function snapshotContent(
  from: { reader: NearReader; index: BlobIndex },
  snapshot: ToldBy,
): Promise<SnapshotContent> {
  const top = Buffer.from(snapshot.tree, "hex");
  const other = { root: top, only: null, node: null, manifest: null, manifestDamage: null };
  const found = await manifestIn(from, await readNodes(from, top));
  if (found === null || snapshot.paths.length !== 1 || !mayHaveManifest(snapshot)) return other;
  const byName = !isMadeByUs(snapshot);
  const saved = await savedEntry(from, snapshot, { byName });
  if (saved !== null) return { ...saved, ...found };
  if (byName) return other;
  throw new CairnError("damaged", `tree ${snapshot.tree.slice(0, 12)} does not lead to ${snapshot.paths[0]}`);
}

/**
 * Whether a manifest at its root is its own: also of one that another program made of one of ours, which then says of
 * which. In others it lies where a restore by another program has put it, and is of what was restored there.
 */
export function mayHaveManifest(snapshot: ToldBy): boolean {
  return isMadeByUs(snapshot) || snapshot.original !== undefined;
}

/**
 * What was saved, in a snapshot of ours; null where the trees are none of ours. `damaged` as above. `byName`: of another
 * program, whose trees lead to its path by name, or to something else.
 */
export async function savedEntry(
  from: { reader: NearReader; index: BlobIndex },
  { tree: top, paths }: Pick<Snapshot, "tree" | "paths">,
  { byName = false } = {},
): Promise<Pick<SnapshotContent, "root" | "only" | "node"> | null> {
  // Trees of ours have one node a level above what was saved, whatever its name's bytes are.
  const parts = (paths[0] ?? "").split("/").filter((part) => part !== "");
  let tree: Uint8Array = Buffer.from(top, "hex");
  for (let left = parts.length; left > 0; left--) {
    const level = await readNodes(from, tree);
    const isTop = left === parts.length;
    const [node, ...others] = isTop ? level.filter((each) => nameOf(each) !== ".cairn") : level;
    if (node === undefined || others.length > 0) return null;
    if (byName && !isNamed(node, parts.at(-left)!)) return null;
    if (left === 1 && node.type === "file") return { root: tree, only: node.name, node: null };
    if (node.subtree === undefined) return null;
    if (left === 1) return { root: node.subtree, only: null, node };
    tree = node.subtree;
  }
  return { root: tree, only: null, node: null };
}

/**
 * The one folder, or file, that another program saved; null where that is none. By an absolute path its trees lead there, by
 * `.` they are what lies in it, and nothing says what it was itself: `present`. By another relative name they begin with the
 * end of the path, as those of a folder may in which there is nothing but another of that name: `refused`.
 */
export async function namedFolder(
  from: { reader: NearReader; index: BlobIndex },
  { tree, paths }: Pick<Snapshot, "tree" | "paths">,
  present: () => RootMetadata | null,
): ReturnType<typeof savedEntry> {
  const [path = ""] = paths;
  if (paths.length !== 1 || !path.startsWith("/")) return null;
  const parts = path.split("/").filter((part) => part !== "");
  for (let at = 0; at < parts.length; at++) {
    const found = await savedEntry(from, { tree, paths: [parts.slice(at).join("/")] }, { byName: true });
    if (found === null) continue;
    if (at === 0 || found.node === null) return found;
    const name = parts.slice(at).join("/");
    throw new CairnError(
      "refused",
      `the snapshot was made of a relative name, and nothing in it says whether ${name} is ${path} itself or lies in it`,
      { hint: "restore it into a folder of its own with --to, and copy from there" },
    );
  }
  const root = Buffer.from(tree, "hex");
  const own = parts.length === 0 ? null : present();
  return { root, only: null, node: own === null ? null : directoryNode(new Uint8Array(0), root, own) };
}

/** In a path of text nothing tells which bytes that are no UTF-8 were. */
function isNamed({ name }: TreeNode, part: string): boolean {
  return part.includes("\ufffd") || Buffer.from(part).equals(name);
}

/** The manifest that lies in a topmost tree; null where there is none. */
export async function manifestIn(
  from: { reader: NearReader; index: BlobIndex },
  top: readonly TreeNode[],
): Promise<Pick<SnapshotContent, "manifest" | "manifestDamage"> | null> {
  try {
    const manifest = await readManifest(from, top);
    return manifest === null ? null : { manifest, manifestDamage: null };
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    return { manifest: null, manifestDamage: error };
  }
}

async function readManifest(
  from: { reader: NearReader; index: BlobIndex },
  top: readonly TreeNode[],
): Promise<Manifest | null> {
  const folder = top.find((node) => nameOf(node) === ".cairn")?.subtree;
  if (folder === undefined) return null;
  const file = (await readNodes(from, folder)).find((node) => nameOf(node) === "manifest.json");
  if (file?.content === undefined) return null;
  if (file.size > MAX_MANIFEST_BYTES) throw new CairnError("damaged", "a snapshot's manifest is too large to be one");
  const parts: Uint8Array[] = [];
  for (let at = 0; at < file.content.length; at += 32)
    parts.push(await readBlob(from, file.content.subarray(at, at + 32), DATA_BLOB));
  return decodeManifest(Buffer.concat(parts));
}

/**
 * The nodes of a tree; `damaged` when it is not there or not what was written. `stack`: trees that will be read after it,
 * from the last one on; far away they are brought with it.
 */
export async function readNodes(
  from: { reader: NearReader; index: BlobIndex },
  tree: Uint8Array,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNode[]> {
  return decodeTree(await readBlob(from, tree, TREE_BLOB, stack));
}

/** The same; null where it is damaged. */
export async function nodesOrNull(
  from: { reader: NearReader; index: BlobIndex },
  tree: Uint8Array,
): Promise<TreeNode[] | null> {
  try {
    return await readNodes(from, tree);
  } catch (error) {
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

/** The entries of what was saved; `damaged` as above. */
export async function savedNodes(
  from: { reader: NearReader; index: BlobIndex },
  { root, only }: Pick<SnapshotContent, "root" | "only">,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNode[]> {
  const nodes = await readNodes(from, root, stack);
  return only === null ? nodes : nodes.filter(({ name }) => compareBytes(name, only) === 0);
}

/** A blob's plaintext by its id; likewise. */
export async function readBlob(
  { reader, index }: { reader: NearReader; index: BlobIndex },
  id: Uint8Array,
  type: typeof DATA_BLOB | typeof TREE_BLOB,
  stack: readonly Uint8Array[] = [],
): Promise<Uint8Array> {
  const entry = index.lookup(id, 0, type);
  if (entry < 0) {
    throw new CairnError("damaged", `the repository has no ${blobTypeName(type)} blob ${objectIdOf(id).slice(0, 12)}`, {
      hint: "`cairn backup verify` says what that costs",
      details: { blob: objectIdOf(id) },
    });
  }
  const place = { ...index.place(entry), id };
  if (type === DATA_BLOB) return reader.read(place);
  return reader.readTree(place, () => packsAhead(index, stack, (each) => index.lookup(each, 0, TREE_BLOB)));
}

export function nameOf({ name }: Pick<TreeNode, "name">): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString("latin1");
}
