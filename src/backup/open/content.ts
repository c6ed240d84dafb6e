import type { CallOptions } from "../../contract/index.ts";
import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { factsOf, type FolderFacts } from "../../repository/verify/folder-facts.ts";
import { CairnError } from "../../errors.ts";
import { compareBytes, hex } from "../../formats/bytes.ts";
import { decodeManifest, type Manifest } from "../../formats/records/manifest.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import type { TreeNode, TreeNodes } from "../../formats/restic/tree.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { packsToProve } from "../../repository/read/near-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { nameOf, nodesOrNull, readFile, readNodes } from "../../archive/databases/nodes.ts";
import type { Session } from "./session.ts";
import { isMadeByUs } from "./snapshots.ts";

const MAX_MANIFEST_BYTES = 1024 * 1024 * 1024;

/** The content of a snapshot of any program. */
export interface SnapshotContent {
  /** id of the saved folder's tree; in a snapshot of another program, of the topmost tree */
  readonly root: Uint8Array;
  /** Name of the one entry of `root` that was saved, if that is a file; null: all entries. */
  readonly only: Uint8Array | null;
  /** The folder's own entry. Null for a file, and if `root` is the topmost tree. */
  readonly node: TreeNode | null;
  /** Null in snapshots of other programs, and if the manifest cannot be read. */
  readonly manifest: Manifest | null;
  /** Reason why the manifest cannot be read. Entries are listed then, but without the facts that only the manifest has. */
  readonly manifestDamage: CairnError | null;
  /** Databases stored elsewhere in the snapshot; then `root` is a tree with their entries. */
  readonly placed?: PlacedDatabases;
  /** Raw path of a folder inside the saved one: relative to it, and whole. Absent: the whole saved folder. */
  readonly part?: { readonly path: Uint8Array; readonly whole: Uint8Array };
}

/** The fields of a snapshot that say how to read its content. */
type ToldBy = Pick<Snapshot, "tree" | "paths" | "tags" | "program_version" | "original">;

/** Finds the saved folder and the manifest of a snapshot. Throws `damaged` if the trees above them cannot be read. */
export async function snapshotContent(reader: BlobSource, snapshot: ToldBy): Promise<SnapshotContent> {
  const top = Buffer.from(snapshot.tree, "hex");
  const other = { root: top, only: null, node: null, manifest: null, manifestDamage: null };
  const records = (await readNodes(reader, top)).find((node) => nameOf(node) === ".cairn")?.subtree;
  const found = records === undefined ? null : await manifestIn(reader, records);
  if (found === null || snapshot.paths.length !== 1 || !mayHaveManifest(snapshot)) return other;
  const byName = !isMadeByUs(snapshot);
  const saved = await savedEntry(reader, snapshot, { byName });
  if (saved !== null) {
    const folder = await databasesIn(reader, records!);
    if (folder === undefined) return { ...saved, ...found };
    const placed = await PlacedDatabases.read(reader, {
      folder,
      root: saved.root,
      hashes: () => found.manifest?.fileHashes ?? [],
    });
    return { ...saved, ...found, root: placed.root, placed };
  }
  if (byName) return other;
  throw new CairnError(
    "damaged",
    `tree ${snapshot.tree.slice(0, 12)} does not contain the saved path ${snapshot.paths[0]}`,
  );
}

/**
 * True if a manifest at its root describes this snapshot: also if another program rewrote one of ours, which then names
 * its original. Other snapshots may have a manifest from an earlier restore, which describes other content.
 */
export function mayHaveManifest(snapshot: ToldBy): boolean {
  return isMadeByUs(snapshot) || snapshot.original !== undefined;
}

/**
 * Finds the saved entry in a snapshot of ours; null if the trees are not ours. Throws `damaged`. `byName`: another
 * program made the snapshot, so each name on the way must match its path.
 */
export async function savedEntry(
  reader: BlobSource,
  { tree: top, paths }: Pick<Snapshot, "tree" | "paths">,
  { byName = false } = {},
): Promise<Pick<SnapshotContent, "root" | "only" | "node"> | null> {
  // Trees of ours have exactly one node on each level above the saved entry, whatever bytes its name has.
  const parts = (paths[0] ?? "").split("/").filter((part) => part !== "");
  let tree: Uint8Array = Buffer.from(top, "hex");
  for (let left = parts.length; left > 0; left--) {
    const level = await readNodes(reader, tree);
    const isTop = left === parts.length;
    const [node, ...others] = isTop ? [...level].filter((each) => nameOf(each) !== ".cairn") : level;
    if (node === undefined || others.length > 0) return null;
    const part = parts.at(-left)!;
    // A path of text does not tell which bytes stood for its replacement characters.
    if (byName && !part.includes("\ufffd") && !Buffer.from(part).equals(node.name)) return null;
    if (left === 1 && node.type === "file") return { root: tree, only: node.name, node: null };
    if (node.subtree === undefined) return null;
    if (left === 1) return { root: node.subtree, only: null, node };
    tree = node.subtree;
  }
  return { root: tree, only: null, node: null };
}

/**
 * Returns the content without digests that are not its tree's. A program that rewrites a snapshot of ours (`restic
 * rewrite`) keeps the manifest although the tree changes: then the digests are removed and the content counts as
 * incomplete.
 */
export async function withoutOthersDigests<T extends Pick<SnapshotContent, "root" | "only" | "manifest" | "placed">>(
  session: Session,
  { listed, content }: { listed: ListedSnapshot; content: T },
  { signal, onWarning }: CallOptions,
): Promise<T> {
  const { original } = listed.snapshot;
  const { manifest } = content;
  if (original === undefined || manifest === null) return content;
  await session.bring([storedRoot(content)]);
  const { index, near } = session;
  const { keys } = session.access.repository;
  const blobs = new BlobSource({ keys, index, packs: packsToProve(near.folder), compares: false });
  try {
    const walk = new DigestWalk({ blobs, signal });
    const { state } = await walk.folder(storedRoot(content), factsOfContent({ ...content, manifest }), content.only);
    if ((state === null ? null : hex(state)) === manifest.stateDigest) return content;
  } finally {
    blobs.close();
  }
  onWarning?.(`another program made this snapshot from ${original.slice(0, 8)}: it no longer equals a save point`);
  return { ...content, manifest: { ...manifest, stateDigest: null, metadataDigest: null, complete: false } };
}

/** The tree of the saved folder as the repository stores it, without the entries of databases that lie elsewhere. */
export function storedRoot({ root, placed }: Pick<SnapshotContent, "root" | "placed">): Uint8Array {
  return placed?.storedTree(root) ?? root;
}

/** Facts of the saved folder with which its stored tree has the digests of the whole. */
export function factsOfContent({
  placed,
  manifest,
}: Pick<SnapshotContent, "placed"> & { manifest: Manifest }): FolderFacts {
  const facts = factsOf(manifest);
  return placed?.facts(facts) ?? facts;
}

/** The folder of databases in `/.cairn`. Undefined if `/.cairn` cannot be read; reading the manifest then reports the damage. */
async function databasesIn(reader: BlobSource, records: Uint8Array): Promise<Uint8Array | undefined> {
  return (await nodesOrNull(reader, records))?.find((node) => nameOf(node) === "databases")?.subtree;
}

/** The manifest in `/.cairn`; null if it has none. */
async function manifestIn(
  reader: BlobSource,
  folder: Uint8Array,
): Promise<Pick<SnapshotContent, "manifest" | "manifestDamage"> | null> {
  try {
    const file = (await readNodes(reader, folder)).find((node) => nameOf(node) === "manifest.json");
    if (file?.content === undefined) return null;
    const bytes = await readFile(reader, file, { title: "the snapshot's manifest", most: MAX_MANIFEST_BYTES });
    return { manifest: decodeManifest(bytes), manifestDamage: null };
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    return { manifest: null, manifestDamage: error };
  }
}

/** The entries of the saved folder, or the one saved file. Throws `damaged`. */
export async function savedNodes(
  reader: BlobSource,
  { root, only }: Pick<SnapshotContent, "root" | "only">,
  stack: readonly Uint8Array[] = [],
): Promise<TreeNodes> {
  const nodes = await readNodes(reader, root, stack);
  return only === null ? nodes : [...nodes].filter(({ name }) => compareBytes(name, only) === 0);
}
