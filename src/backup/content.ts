import type { CallOptions } from "../contract/index.ts";
import { DigestWalk } from "../repository/verify/digest-walk.ts";
import { factsOf } from "../repository/verify/folder-facts.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { compareBytes, hex } from "../formats/bytes.ts";
import { decodeManifest, type Manifest } from "../formats/records/manifest.ts";
import type { Snapshot } from "../formats/restic/snapshot.ts";
import { decodeTree, nodeNamed, type TreeNode, type TreeNodes } from "../formats/restic/tree.ts";
import { objectIdOf } from "../ids.ts";
import { blobTypeName, DATA_BLOB, TREE_BLOB } from "../repository/index/blob-index.ts";
import { BlobSource } from "../repository/blob-source.ts";
import { treesAhead } from "../repository/trees/live.ts";
import { packsToProve } from "../repository/transfer/near-packs.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import type { Session } from "./session.ts";
import { isMadeByUs } from "./snapshots.ts";

const MAX_MANIFEST_BYTES = 1024 * 1024 * 1024;

/** The content of a snapshot, whoever made it. */
export interface SnapshotContent {
  /** id of the tree of the folder that was saved; of a snapshot of other programs the topmost one. */
  readonly root: Uint8Array;
  /** Name of the one entry of `root` that was saved, where that is a file and no folder; null: all of them. */
  readonly only: Uint8Array | null;
  /** The folder's own entry; null where `root` is the topmost tree, and of a file. */
  readonly node: TreeNode | null;
  /** Null in snapshots of other programs, and where it cannot be read. */
  readonly manifest: Manifest | null;
  /** Error for which it cannot be read: entries are there, but not what only it says of them. */
  readonly manifestDamage: CairnError | null;
  /** Path of a folder in what was saved, raw: from there on, and whole. Absent: all that was saved. */
  readonly part?: { readonly path: Uint8Array; readonly whole: Uint8Array };
}

/** The parts of a snapshot that tell what it holds. */
type ToldBy = Pick<Snapshot, "tree" | "paths" | "tags" | "program_version" | "original">;

/** Finds the saved folder and the manifest of a snapshot. `damaged` when the trees above them cannot be read. */
export async function snapshotContent(reader: BlobSource, snapshot: ToldBy): Promise<SnapshotContent> {
  const top = Buffer.from(snapshot.tree, "hex");
  const other = { root: top, only: null, node: null, manifest: null, manifestDamage: null };
  const found = await manifestIn(reader, await readNodes(reader, top));
  if (found === null || snapshot.paths.length !== 1 || !mayHaveManifest(snapshot)) return other;
  const byName = !isMadeByUs(snapshot);
  const saved = await savedEntry(reader, snapshot, { byName });
  if (saved !== null) return { ...saved, ...found };
  if (byName) return other;
  throw new CairnError("damaged", `tree ${snapshot.tree.slice(0, 12)} does not lead to ${snapshot.paths[0]}`);
}

/**
 * True where a manifest at its root is its own: also in one that another program made of one of ours, which then says of
 * which. In others it lies where a restore by another program has put it, and is of what was restored there.
 */
export function mayHaveManifest(snapshot: ToldBy): boolean {
  return isMadeByUs(snapshot) || snapshot.original !== undefined;
}

/**
 * Finds what was saved in a snapshot of ours; null where the trees are none of ours. `damaged` as above. `byName`: another
 * program made it, whose trees lead to its path by name, or to something else.
 */
export async function savedEntry(
  reader: BlobSource,
  { tree: top, paths }: Pick<Snapshot, "tree" | "paths">,
  { byName = false } = {},
): Promise<Pick<SnapshotContent, "root" | "only" | "node"> | null> {
  // Trees of ours have one node a level above what was saved, whatever its name's bytes are.
  const parts = (paths[0] ?? "").split("/").filter((part) => part !== "");
  let tree: Uint8Array = Buffer.from(top, "hex");
  for (let left = parts.length; left > 0; left--) {
    const level = await readNodes(reader, tree);
    const isTop = left === parts.length;
    const [node, ...others] = isTop ? [...level].filter((each) => nameOf(each) !== ".cairn") : level;
    if (node === undefined || others.length > 0) return null;
    const part = parts.at(-left)!;
    // In a path of text nothing tells which bytes that are no UTF-8 were.
    if (byName && !part.includes("\ufffd") && !Buffer.from(part).equals(node.name)) return null;
    if (left === 1 && node.type === "file") return { root: tree, only: node.name, node: null };
    if (node.subtree === undefined) return null;
    if (left === 1) return { root: node.subtree, only: null, node };
    tree = node.subtree;
  }
  return { root: tree, only: null, node: null };
}

/**
 * Content whose digests are those of its tree. A program that rewrites a snapshot of ours (`restic rewrite`) takes its manifest along
 * though the tree becomes another one: then there are no digests, and it counts as incomplete.
 */
export async function withoutOthersDigests<T extends Pick<SnapshotContent, "root" | "only" | "manifest">>(
  session: Session,
  { listed, content }: { listed: ListedSnapshot; content: T },
  { signal, onWarning }: CallOptions,
): Promise<T> {
  const { original } = listed.snapshot;
  const { manifest } = content;
  if (original === undefined || manifest === null) return content;
  await session.bring([content.root]);
  const { index, near } = session;
  const { keys } = session.access.repository;
  const blobs = new BlobSource({ keys, index, packs: packsToProve(near.folder), compares: false });
  try {
    const walk = new DigestWalk({ blobs, onPack: () => undefined, signal });
    const { state } = await walk.folder(content.root, factsOf(manifest), content.only);
    if ((state === null ? null : hex(state)) === manifest.stateDigest) return content;
  } finally {
    blobs.close();
  }
  onWarning?.(`another program made the snapshot of ${original.slice(0, 8)}: it is not a save point's any more`);
  return { ...content, manifest: { ...manifest, stateDigest: null, metadataDigest: null, complete: false } };
}

/** The manifest that lies in a topmost tree; null where there is none. */
async function manifestIn(
  reader: BlobSource,
  top: TreeNodes,
): Promise<Pick<SnapshotContent, "manifest" | "manifestDamage"> | null> {
  const folder = top.find((node) => nameOf(node) === ".cairn")?.subtree;
  if (folder === undefined) return null;
  try {
    const file = (await readNodes(reader, folder)).find((node) => nameOf(node) === "manifest.json");
    if (file?.content === undefined) return null;
    if (file.size > MAX_MANIFEST_BYTES) throw new CairnError("damaged", "a snapshot's manifest is too large to be one");
    const parts: Uint8Array[] = [];
    for (let at = 0; at < file.content.length; at += 32)
      parts.push(await readBlob(reader, file.content.subarray(at, at + 32), DATA_BLOB));
    return { manifest: decodeManifest(Buffer.concat(parts)), manifestDamage: null };
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    return { manifest: null, manifestDamage: error };
  }
}

/**
 * The nodes of a tree; `damaged` when it is not there or not what was written. `stack`: trees that will be read after it,
 * from the last one on; far away they are brought with it.
 */
export async function readNodes(
  reader: BlobSource,
  tree: Uint8Array,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNodes> {
  return decodeTree(await readBlob(reader, tree, TREE_BLOB, stack));
}

/** The node of a raw name in a tree; nothing else of it is kept. Errors as above. */
export async function nodeIn(reader: BlobSource, tree: Uint8Array, name: Uint8Array): Promise<TreeNode | undefined> {
  return nodeNamed(decodeTree(await reader.viewTree(entryOf(reader, tree, TREE_BLOB))), name);
}

/** The nodes of a tree; null where it is damaged. */
export async function nodesOrNull(reader: BlobSource, tree: Uint8Array): Promise<TreeNodes | null> {
  try {
    return await readNodes(reader, tree);
  } catch (error) {
    if (toCairnError(error).code === "damaged") return null;
    throw error;
  }
}

/** The entries of what was saved; `damaged` as above. */
export async function savedNodes(
  reader: BlobSource,
  { root, only }: Pick<SnapshotContent, "root" | "only">,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNodes> {
  const nodes = await readNodes(reader, root, stack);
  return only === null ? nodes : [...nodes].filter(({ name }) => compareBytes(name, only) === 0);
}

/** A blob's plaintext by its id; `damaged` where the repository lacks it. `stack`: see `readNodes`. */
export async function readBlob(
  reader: BlobSource,
  id: Uint8Array,
  type: typeof DATA_BLOB | typeof TREE_BLOB,
  stack: readonly Uint8Array[] = [],
): Promise<Uint8Array> {
  const entry = entryOf(reader, id, type);
  if (type === DATA_BLOB) return reader.readBlob(entry);
  return reader.readTree(entry, () => treesAhead(stack, (each) => reader.index.lookup(each, 0, TREE_BLOB)));
}

function entryOf({ index }: BlobSource, id: Uint8Array, type: typeof DATA_BLOB | typeof TREE_BLOB): number {
  const entry = index.lookup(id, 0, type);
  if (entry >= 0) return entry;
  throw new CairnError("damaged", `the repository has no ${blobTypeName(type)} blob ${objectIdOf(id).slice(0, 12)}`, {
    hint: "`cairn backup verify` says what that costs",
    details: { blob: objectIdOf(id) },
  });
}

export function nameOf({ name }: Pick<TreeNode, "name">): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString("latin1");
}
