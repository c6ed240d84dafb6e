import { type PlacedDatabase, PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { folderName } from "../../archive/databases/stored-database.ts";
import { CairnError } from "../../errors.ts";
import { ByteWriter, hex, latin1 } from "../../formats/bytes.ts";
import type { EntryCounts } from "../../formats/records/descriptor.ts";
import { encodeManifest, type Manifest } from "../../formats/records/manifest.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { SealFile } from "../../formats/records/seal-file.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { ObjectId } from "../../ids.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { EditEntry } from "../../repository/trees/edit-tree.ts";
import type { ListTree } from "../../repository/trees/walk-trees.ts";
import type { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { factsOf, NO_FACTS } from "../../repository/verify/folder-facts.ts";
import type { CopyContent } from "./copy-content.ts";
import { storedTree } from "./store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { pathToTree } from "./point-remains.ts";
import { editSnapshot } from "./snapshot-tree.ts";
import { countEntry } from "./survey-tree.ts";

/** Makes the content of points anew, without some paths. */

/** Tells if a raw path is a removed entry or lies below one. */
export type IsGone = (path: Uint8Array) => boolean;

/** `gone`: raw paths of removed entries. */
export function isGoneBy(gone: readonly Uint8Array[]): IsGone {
  const paths = new Set(gone.map(latin1));
  return (path) => {
    const text = latin1(path);
    for (let end = text.length; end > 0; end = text.lastIndexOf("/", end - 1))
      if (paths.has(text.slice(0, end))) return true;
    return false;
  };
}

/** Returns a manifest's lists without entries that are gone. Digests and counts stay as they are. */
export function manifestWithout(manifest: Manifest, isGone: IsGone): Manifest {
  const kept = <T extends { path: Uint8Array }>(list: readonly T[]): T[] => list.filter(({ path }) => !isGone(path));
  return {
    ...manifest,
    labels: manifest.labels.filter((label) => !isGone(rawPath(label))),
    holeMaps: kept(manifest.holeMaps),
    fileHashes: kept(manifest.fileHashes),
    omitted: kept(manifest.omitted),
    // A hard link whose first name is gone becomes a file of its own.
    lossless: kept(manifest.lossless).filter(({ field, value }) => field !== "hard_link" || !isGone(value)),
  };
}

/** A point whose content is in the store. */
export interface StoredPoint {
  id: string;
  content: CopyContent;
  entries: EntryCounts;
  bytes: number;
}

/** Content of a point without the removed paths. */
export interface ContentWithout {
  /** the snapshot is null until it is written */
  content: SealFile["content"];
  /** raw paths of the removed entries, without those below a removed directory */
  removed: readonly Uint8Array[];
  entries: EntryCounts;
  bytes: number;
  /** hex; null if the hash of a large file was never recorded */
  stateDigest: string | null;
  metadataDigest: string | null;
}

/** A point without the removed entries. */
export interface PointWithout {
  /** the folder's tree, without databases by pages */
  tree: Uint8Array;
  /** of the point with these entries; null if its snapshot has none */
  manifest: Manifest | null;
  /** raw paths of the removed entries; `stored`: without databases by pages */
  removed: readonly Uint8Array[];
  stored: readonly Uint8Array[];
  /** the databases by pages */
  kept: readonly PlacedDatabase[];
  gone: readonly PlacedDatabase[];
}

interface Changed {
  point: StoredPoint;
  tree: PointWithout;
  totals: EntryTotals;
  walk: DigestWalk;
  add: PackedBlobs["addNew"];
}

/** Stores the trees and the manifest of a point without entries that are gone. */
export async function contentOf(
  store: EmbeddedStore,
  { point, tree: { tree, manifest, removed, stored, kept, gone }, totals, walk, add }: Changed,
): Promise<ContentWithout> {
  const old = point.content;
  const placed = await PlacedDatabases.place(store.blobs, tree, { databases: kept.map(({ database }) => database) });
  const { entries, bytes } = totalsWithout(
    point,
    totals.of([
      ...stored.map((path) => nodeAt(store, storedTree(old), path)),
      ...gone.map(({ database }) => database.manifest.node),
    ]),
  );
  const left = manifest === null ? null : { ...manifestWithout(manifest, isGoneBy(removed)), entries };
  const { state, meta } = await walk.folder(tree, placed.facts(left === null ? NO_FACTS : factsOf(left)));
  // Another point's manifest may have the hash.
  if (state === null) walk.forgetUnhashed();
  const stateDigest = state && hex(state);
  const metadataDigest = meta && hex(meta);
  const writer = new ByteWriter(4096);
  if (left !== null) encodeManifest(writer, { ...left, stateDigest, metadataDigest });
  const top = await topTree(store, old, { tree, manifest: left === null ? null : writer.copy(), gone, kept, add });
  const content = {
    tree: hex(placed.root) as ObjectId,
    snapshot_tree: hex(top) as ObjectId,
    stored_tree: kept.length === 0 ? undefined : (hex(tree) as ObjectId),
    snapshot: null,
  };
  return { content, removed, entries, bytes, stateDigest, metadataDigest };
}

/** Counts of entries with everything below them; each tree is read once. */
export class EntryTotals {
  readonly #store: EmbeddedStore;
  readonly #known = new Map<string, Totals>();

  constructor(store: EmbeddedStore) {
    this.#store = store;
  }

  of(nodes: Iterable<TreeNode>): Totals {
    const totals = { entries: { files: 0, directories: 0, links: 0, other: 0 }, bytes: 0 };
    for (const node of nodes) {
      countEntry(totals.entries, node);
      if (node.type === "file") totals.bytes += node.size;
      if (node.subtree === undefined) continue;
      const below = this.#below(node.subtree);
      totals.bytes += below.bytes;
      for (const kind of KINDS) totals.entries[kind] += below.entries[kind];
    }
    return totals;
  }

  #below(tree: Uint8Array): Totals {
    const known = this.#known.get(latin1(tree)) ?? this.of(this.#store.tree(tree));
    this.#known.set(latin1(tree), known);
    return known;
  }
}

type Totals = Pick<StoredPoint, "entries" | "bytes">;
const KINDS = ["files", "directories", "links", "other"] as const;

function totalsWithout({ entries, bytes }: Totals, gone: Totals): Totals {
  const left = { ...entries };
  for (const kind of KINDS) left[kind] -= gone.entries[kind];
  return { entries: left, bytes: bytes - gone.bytes };
}

/** Adds the blob ids of files at and below `nodes` to `to.content`. Skips the trees in `to.read`. */
export function addContent(
  store: EmbeddedStore,
  nodes: readonly TreeNode[],
  to: { content: Set<string>; read: Set<string> },
): void {
  const open = [...nodes];
  for (let node = open.pop(); node !== undefined; node = open.pop()) {
    const { content = new Uint8Array(), subtree } = node;
    for (let at = 0; at < content.length; at += 32) to.content.add(latin1(content.subarray(at, at + 32)));
    if (subtree === undefined || to.read.has(latin1(subtree))) continue;
    to.read.add(latin1(subtree));
    for (const each of store.tree(subtree)) open.push(each);
  }
}

export function nodeAt(store: EmbeddedStore, root: string, path: Uint8Array): TreeNode {
  let tree: Uint8Array = Buffer.from(root, "hex");
  let found: TreeNode | undefined;
  for (const name of latin1(path).split("/")) {
    found = store.tree(tree).find((node) => latin1(node.name) === name);
    if (found === undefined) throw new CairnError("internal", `there is no ${printablePath(path)} in the tree`);
    tree = found.subtree ?? tree;
  }
  return found!;
}

interface NewTop extends Pick<PointWithout, "tree" | "gone" | "kept"> {
  /** null if the snapshot has none */
  manifest: Uint8Array | null;
  add: PackedBlobs["addNew"];
}

/** Stores the trees from the top of a point's snapshot down to its folder, with the folder's new tree. Returns the top tree's id. */
async function topTree(
  store: EmbeddedStore,
  old: CopyContent,
  { tree, manifest, gone, kept, add }: NewTop,
): Promise<Uint8Array> {
  // A snapshot of the root directory has no other trees.
  if (old.snapshot_tree === storedTree(old)) return tree;
  const folder = pathToTree(store, old.snapshot_tree, storedTree(old));
  if (folder === null) throw new CairnError("internal", "the snapshot of a point does not contain the point's folder");
  const edits = new Map<string, EditEntry>([[latin1(folder.subarray(1)), (node) => ({ ...node!, subtree: tree })]]);
  for (const { path } of gone) edits.set(`.cairn/databases/${folderName(path)}`, () => null);
  if (gone.length > 0 && kept.length === 0) edits.set(".cairn/databases", () => null);
  const list: ListTree = (id) => store.tree(id);
  return editSnapshot(Buffer.from(old.snapshot_tree, "hex"), { manifest, recordedAt: 0, edits, list, add });
}
