import { toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { decodeManifest, type LosslessField, type Manifest } from "../../formats/records/manifest.ts";
import { decodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import type { BlobSource } from "../read/blob-source.ts";

/** Facts of a folder that its trees do not have, by relative path (latin1 of the raw bytes). */
export interface FolderFacts {
  manifest: Manifest | null;
  /** the reason why a manifest cannot be used; null if there is no manifest, or no problem */
  problem: string | null;
  /** whole-file hashes of files that consist of several blobs */
  hashes: ReadonlyMap<string, { sha256: Uint8Array; size: number }>;
  overrides: ReadonlyMap<string, LosslessField[]>;
  /** Directories above an override. Their digests are not shared, since they depend on more than their trees. */
  special: ReadonlySet<string>;
  /**
   * Files that the trees lack, by the path of their directory, which is in `special`. The content id of each is its
   * SHA-256.
   */
  added?: ReadonlyMap<string, readonly TreeNode[]>;
}

export const NO_FACTS: FolderFacts = {
  manifest: null,
  problem: null,
  hashes: new Map(),
  overrides: new Map(),
  special: new Set(),
};

/** Reads `/.cairn/manifest.json` of a snapshot's tree. Returns damage as `problem`. */
export function readFacts(blobs: BlobSource, snapshotTree: Uint8Array): FolderFacts {
  try {
    const read: ReadId = (id, type) => blobs.readId(id, type === "tree" ? TREE_BLOB : DATA_BLOB);
    const manifest = manifestOf(read, snapshotTree);
    return manifest === null ? NO_FACTS : factsOf(manifest);
  } catch (error) {
    return { ...NO_FACTS, problem: toCairnError(error).message };
  }
}

/** Returns the facts that a manifest has of its folder. */
export function factsOf(manifest: Manifest): FolderFacts {
  const overrides = new Map<string, LosslessField[]>();
  const special = new Set<string>();
  for (const field of manifest.lossless) {
    const path = latin1(field.path);
    const list = overrides.get(path);
    if (list === undefined) overrides.set(path, [field]);
    else list.push(field);
    addParents(special, path);
  }
  const hashes = new Map(manifest.fileHashes.map(({ path, sha256, size }) => [latin1(path), { sha256, size }]));
  return { manifest, problem: null, hashes, overrides, special };
}

type ReadId = (id: Uint8Array, type: "data" | "tree") => Uint8Array;

/** Reads the manifest below a snapshot's topmost tree; null if the snapshot has none. Throws `damaged`. */
export function manifestOf(read: ReadId, snapshotTree: Uint8Array): Manifest | null {
  const entry = (tree: Uint8Array, name: string): TreeNode | undefined =>
    decodeTree(read(tree, "tree")).find((node) => latin1(node.name) === name);
  const folder = entry(snapshotTree, ".cairn")?.subtree;
  const content = folder && entry(folder, "manifest.json")?.content;
  if (content === undefined) return null;
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += 32) pieces.push(read(content.subarray(at, at + 32), "data"));
  return decodeManifest(Buffer.concat(pieces));
}

function addParents(directories: Set<string>, path: string): void {
  let at = path.length;
  while (at > 0) {
    at = path.lastIndexOf("/", at - 1);
    directories.add(at < 0 ? "" : path.slice(0, at));
    if (at < 0) return;
  }
}
