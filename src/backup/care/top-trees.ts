import { CairnError } from "../../errors.ts";
import { comparePaths, latin1 } from "../../formats/bytes.ts";
import { CHECKS_NAME, type Manifest } from "../../formats/records/manifest.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { isAmong } from "../../fs/path-selection.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { packsToProve } from "../../repository/read/near-packs.ts";
import type { LostEntry, MendedTree } from "../../repository/trees/tree-mender.ts";
import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { manifestWithout, withDigests } from "../../workspace/store/content-without.ts";
import { editSnapshot } from "../../workspace/store/snapshot-tree.ts";
import { EntryTotals } from "../../workspace/store/survey-tree.ts";
import {
  factsOfContent,
  mayHaveManifest,
  savedEntry,
  snapshotContent,
  type SnapshotContent,
  storedRoot,
} from "../open/content.ts";
import { nameOf, readNodes, treesIn } from "../../archive/databases/nodes.ts";
import type { Session } from "../open/session.ts";

/** A snapshot that loses entries, and its tree without them. */
export interface Broken {
  listed: ListedSnapshot;
  mended: MendedTree;
}

interface TopTreesParts {
  session: Session;
  signal: AbortSignal | undefined;
  blobs: PackedBlobs;
  /** Called with each snapshot that stays as it is. */
  leave(id: string, error: CairnError): void;
}

/**
 * Makes the topmost trees of mended snapshots, with manifests that describe the remaining entries. Null if nothing of a
 * snapshot's folder is left.
 */
export async function topTrees(
  broken: readonly Broken[],
  { session, signal, blobs, leave }: TopTreesParts,
): Promise<Map<Broken, Uint8Array | null>> {
  const { access, index, near, reader } = session;
  const proven = new BlobSource({
    keys: access.repository.keys,
    index,
    packs: packsToProve(near.folder),
    compares: false,
  });
  const walk = new DigestWalk({ blobs: proven, signal });
  const totals = new EntryTotals(treesIn(reader), signal);
  const tops = new Map<Broken, Uint8Array | null>();
  try {
    for (const each of broken) {
      try {
        tops.set(each, await topTree(each, { reader, walk, totals, blobs }));
      } catch (error) {
        // A manifest of a newer format cannot be written anew.
        if (!(error instanceof CairnError) || error.code !== "newer_version") throw error;
        leave(each.listed.id, error);
      }
    }
  } finally {
    proven.close();
  }
  return tops;
}

/** Reads and writes for all snapshots: a tree that several snapshots share is read once. */
interface Parts {
  reader: BlobSource;
  walk: DigestWalk;
  totals: EntryTotals;
  blobs: PackedBlobs;
}

/** Makes the topmost tree; a snapshot with a manifest gets a new manifest of the remaining entries. */
async function topTree({ listed, mended }: Broken, parts: Parts): Promise<Uint8Array | null> {
  const { reader } = parts;
  if (mended.tree === null) return null;
  const snapshot = { ...listed.snapshot, tree: objectIdOf(mended.tree) };
  const mayBeOurs = mayHaveManifest(snapshot);
  const depth = depthOf(snapshot);
  const lost = mended.lost.filter(({ path }) => !mayBeOurs || componentsOf(path)[0] !== ".cairn");
  if (snapshot.paths.length === 1 && lost.some(({ path }) => componentsOf(path).length <= depth)) {
    // In a snapshot of a save point the only node is the folder, or a folder above it. Other programs may use other
    // layouts.
    const nodes = await readNodes(reader, mended.tree);
    const isRecordsAlone = mayBeOurs && nodes.find((node) => nameOf(node) === ".cairn") !== undefined;
    return nodes.length === 0 || isRecordsAlone ? null : mended.tree;
  }
  if (!mayBeOurs) return mended.tree;
  // The manifest or its folder is lost.
  const records = mended.lost
    .filter(({ path }) => [".cairn", ".cairn/manifest.json"].includes(latin1(path)))
    .map((each) => ({
      ...each,
      detail: `${each.detail}; facts of entries that only the manifest records, such as holes, are lost too`,
    }));
  const below = [...records, ...lost.map((each) => ({ ...each, path: withoutFirst(each.path, depth) }))];
  let content: Pick<SnapshotContent, "manifest" | "root" | "placed"> | null = null;
  if (records.length === 0) content = await snapshotContent(reader, snapshot);
  else if (snapshot.paths.length === 1) {
    const saved = await savedEntry(reader, snapshot);
    content = saved && { manifest: LOST_MANIFEST, root: saved.root };
  }
  if (content === null || content.manifest === null || below.length === 0) return mended.tree;
  const { manifest } = content;
  const bytes = await repairedManifest(parts, { content: { ...content, manifest }, lost: below });
  return editSnapshot(mended.tree, {
    manifest: bytes,
    recordedAt: Math.floor(Date.parse(snapshot.time) / 1000),
    // The checks of databases describe the copy with all entries.
    edits: [[`.cairn/${CHECKS_NAME}`, () => null]],
    list: treesIn(reader),
    add: (...blob) => parts.blobs.addNew(...blob),
  });
}

/** The number of directories from the top of one of our snapshots down to the saved folder or file, including it. */
export function depthOf({ paths }: Pick<Snapshot, "paths">): number {
  return (paths[0] ?? "").split("/").filter((part) => part !== "").length;
}

function componentsOf(path: Uint8Array): string[] {
  return path.length === 0 ? [] : latin1(path).split("/");
}

function withoutFirst(path: Uint8Array, count: number): Uint8Array {
  return Buffer.from(componentsOf(path).slice(count).join("/"), "latin1");
}

/** Replaces a lost manifest: the folder is known only from its trees. */
const LOST_MANIFEST: Manifest = {
  stateDigest: null,
  metadataDigest: null,
  complete: false,
  entries: { files: 0, directories: 0, links: 0, other: 0 },
  labels: [],
  holeMaps: [],
  fileHashes: [],
  omitted: [],
  lossless: [],
  extra: {},
};

interface RepairedContent {
  /** Manifest of a snapshot that lacks entries, and the folder's present tree; paths of lost entries are relative to it. */
  content: Pick<SnapshotContent, "root" | "placed"> & { manifest: Manifest };
  lost: readonly LostEntry[];
}

/**
 * Makes a manifest without lost or removed entries: digests and counts describe the rest, the missing entries are
 * listed as omitted, and `complete` is false, so it never gets a receipt.
 */
async function repairedManifest(
  { reader, walk, totals }: Parts,
  { content, lost }: RepairedContent,
): Promise<Uint8Array | null> {
  const { manifest, root } = content;
  const known = manifestWithout(manifest, isAmong(lost.map(({ path }) => path)));
  const { entries } = await totals.of(await readNodes(reader, root));
  const left: Manifest = {
    ...known,
    complete: false,
    entries,
    omitted: [
      ...known.omitted,
      ...lost.map(({ path, detail, isTakenOut }) => ({
        path,
        reason: isTakenOut === true ? detail : `lost in the repository: ${detail}`,
      })),
    ].toSorted((a, b) => comparePaths(a.path, b.path)),
  };
  const facts = factsOfContent({ ...content, manifest: left });
  return (await withDigests(walk, left, { tree: storedRoot(content), facts })).bytes;
}
