import { toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { decodeManifest, type LosslessField, type Manifest } from "../../formats/manifest.ts";
import type { StoreReader } from "./store-reader.ts";

/** What only a point's manifest says, by path relative to the workspace (latin1 of the raw bytes). */
export interface PointManifest {
  manifest: Manifest | null;
  /** why there is none, when one was to be expected; null when there is none at all */
  problem: string | null;
  /** whole-file hashes of files that were cut into several blobs */
  hashes: ReadonlyMap<string, { sha256: Uint8Array; size: number }>;
  overrides: ReadonlyMap<string, LosslessField[]>;
  /** Directories above an override: what their trees say is not all there is to say, so no digest of theirs is shared. */
  special: ReadonlySet<string>;
}

export const NO_MANIFEST: PointManifest = {
  manifest: null,
  problem: null,
  hashes: new Map(),
  overrides: new Map(),
  special: new Set(),
};

/** Reads `/.cairn/manifest.json` of a snapshot's tree. Never throws for damage. */
export function readPointManifest(store: StoreReader, snapshotTree: Uint8Array): PointManifest {
  let manifest: Manifest;
  try {
    const bytes = manifestBytes(store, snapshotTree);
    if (bytes === null) return NO_MANIFEST;
    manifest = decodeManifest(bytes);
  } catch (error) {
    return { ...NO_MANIFEST, problem: toCairnError(error).message };
  }
  return pointManifestOf(manifest);
}

/** What a walk over a point's trees needs of its manifest. */
export function pointManifestOf(manifest: Manifest): PointManifest {
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

function manifestBytes(store: StoreReader, snapshotTree: Uint8Array): Uint8Array | null {
  const folder = store.tree(snapshotTree).find((node) => latin1(node.name) === ".cairn")?.subtree;
  if (folder === undefined) return null;
  const content = store.tree(folder).find((node) => latin1(node.name) === "manifest.json")?.content;
  if (content === undefined) return null;
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < content.length; at += 32) pieces.push(store.data(content.subarray(at, at + 32)));
  return Buffer.concat(pieces);
}

function addParents(directories: Set<string>, path: string): void {
  let at = path.length;
  while (at > 0) {
    at = path.lastIndexOf("/", at - 1);
    directories.add(at < 0 ? "" : path.slice(0, at));
    if (at < 0) return;
  }
}
