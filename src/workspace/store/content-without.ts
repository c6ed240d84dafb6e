import { type PlacedDatabase, PlacedDatabases } from "../../archive/databases/placed-databases.ts";
import { folderName } from "../../archive/databases/stored-database.ts";
import { CairnError } from "../../errors.ts";
import { ByteWriter, hex, latin1 } from "../../formats/bytes.ts";
import type { EntryCounts } from "../../formats/records/descriptor.ts";
import { encodeManifest, type Manifest } from "../../formats/records/manifest.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { SealFile } from "../../formats/records/seal-file.ts";
import { isAmong } from "../../fs/path-selection.ts";
import type { ObjectId } from "../../ids.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { EditEntry } from "../../repository/trees/edit-tree.ts";
import type { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { factsOf, type FolderFacts, NO_FACTS } from "../../repository/verify/folder-facts.ts";
import type { CopyContent } from "./copy-content.ts";
import { storedTree } from "./store-care.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { pathToTree } from "./point-remains.ts";
import { editSnapshot } from "./snapshot-tree.ts";
import { type EntryTotals, nodesAt, type Totals } from "./survey-tree.ts";

/** Makes the content of points anew, without some paths. */

/** Returns a manifest's lists without the entries for which `isGone` is true. Digests and counts stay as they are. */
export function manifestWithout(manifest: Manifest, isGone: (path: Uint8Array) => boolean): Manifest {
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
  const goneNodes = [
    ...(await nodesAt(store.blobs, storedTree(old), stored)),
    ...gone.map(({ database }) => database.manifest.node),
  ];
  const { entries, bytes } = totalsWithout(point, await totals.of(goneNodes));
  const left = manifest === null ? null : { ...manifestWithout(manifest, isAmong(removed)), entries };
  const facts = placed.facts(left === null ? NO_FACTS : factsOf(left));
  const { bytes: encoded, ...digests } = await withDigests(walk, left, { tree, facts });
  // Another point's manifest may have the hash.
  if (digests.stateDigest === null) walk.forgetUnhashed();
  const top = await topTree(store, old, { tree, manifest: encoded, gone, kept, add });
  const content = {
    tree: hex(placed.root) as ObjectId,
    snapshot_tree: hex(top) as ObjectId,
    stored_tree: kept.length === 0 ? undefined : (hex(tree) as ObjectId),
    snapshot: null,
  };
  return { content, removed, entries, bytes, ...digests };
}

/**
 * Computes the digests of a folder anew from its trees, and encodes its manifest with them. `bytes`: null without a
 * manifest.
 */
export async function withDigests(
  walk: DigestWalk,
  manifest: Manifest | null,
  { tree, facts }: { tree: Uint8Array; facts: FolderFacts },
): Promise<{ bytes: Uint8Array | null } & Pick<ContentWithout, "stateDigest" | "metadataDigest">> {
  const { state, meta } = await walk.folder(tree, facts);
  const digests = { stateDigest: state && hex(state), metadataDigest: meta && hex(meta) };
  if (manifest === null) return { bytes: null, ...digests };
  const writer = new ByteWriter(4096);
  encodeManifest(writer, { ...manifest, ...digests });
  return { bytes: writer.copy(), ...digests };
}

function totalsWithout({ entries, bytes }: Totals, gone: Totals): Totals {
  const left = { ...entries };
  for (const kind of ["files", "directories", "links", "other"] as const) left[kind] -= gone.entries[kind];
  return { entries: left, bytes: bytes - gone.bytes };
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
  const top = Buffer.from(old.snapshot_tree, "hex");
  return editSnapshot(top, { manifest, recordedAt: 0, edits, list: (id) => store.tree(id), add });
}
