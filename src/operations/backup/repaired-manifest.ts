import { countEntry } from "../../engines/copy/survey-tree.ts";
import { comparePaths } from "../../engines/scan/link-groups.ts";
import { pointManifestOf } from "../../engines/verify/point-manifest.ts";
import type { TreeWalk } from "../../engines/verify/tree-walk.ts";
import { ByteWriter, latin1 } from "../../formats/bytes.ts";
import type { EntryCounts } from "../../formats/descriptor.ts";
import { encodeManifest, type Manifest } from "../../formats/manifest.ts";
import { rawPath } from "../../formats/record.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import type { NearReader } from "../../repository/near-reader.ts";
import type { LostEntry } from "../../repository/tree-mender.ts";
import { readNodes } from "./snapshot-content.ts";

export interface RepairedContent {
  /** Of a snapshot that lacks something; entries are lost relative to its folder. */
  manifest: Manifest;
  lost: readonly LostEntry[];
  /** The folder's tree as it is now. */
  root: Uint8Array;
}

/** Where the manifest itself is lost: nothing is known of the folder but what its trees say. */
export const LOST_MANIFEST: Manifest = {
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

/**
 * What is true of a folder without what was lost or taken out: its digests and counts are those of what is left, what is lost is listed as
 * omitted, and it is not complete, so that no receipt is ever given for it.
 */
export async function repairedManifest(
  from: { reader: NearReader; index: BlobIndex; walk: TreeWalk },
  { manifest, lost, root }: RepairedContent,
): Promise<Uint8Array> {
  const gone = lost.map(({ path }) => latin1(path));
  const files = new Set(gone);
  const isGone = (path: Uint8Array): boolean => {
    const text = latin1(path);
    return files.has(text) || gone.some((each) => text.startsWith(`${each}/`));
  };
  const kept = <T extends { path: Uint8Array }>(list: readonly T[]): T[] => list.filter(({ path }) => !isGone(path));
  const left: Manifest = {
    ...manifest,
    complete: false,
    entries: await countEntries(from, root),
    labels: manifest.labels.filter((label) => !isGone(rawPath(label))),
    holeMaps: kept(manifest.holeMaps),
    fileHashes: kept(manifest.fileHashes),
    omitted: [
      ...kept(manifest.omitted),
      ...lost.map(({ path, detail, isTakenOut }) => ({
        path,
        reason: isTakenOut === true ? detail : `lost in the repository: ${detail}`,
      })),
    ].toSorted((a, b) => comparePaths(a.path, b.path)),
    // An entry whose first name is gone is on its own.
    lossless: kept(manifest.lossless).filter(({ field, value }) => field !== "hard_link" || !isGone(value)),
  };
  const { state, meta } = await from.walk.point(root, pointManifestOf(left));
  const hex = (digest: Uint8Array | null): string | null => digest && Buffer.from(digest).toString("hex");
  const writer = new ByteWriter(4096);
  encodeManifest(writer, { ...left, stateDigest: hex(state), metadataDigest: hex(meta) });
  return writer.copy();
}

async function countEntries(from: { reader: NearReader; index: BlobIndex }, root: Uint8Array): Promise<EntryCounts> {
  const counts = { files: 0, directories: 0, links: 0, other: 0 };
  const left = [root];
  for (let tree = left.pop(); tree !== undefined; tree = left.pop()) {
    for (const node of await readNodes(from, tree)) {
      if (node.subtree !== undefined) left.push(node.subtree);
      countEntry(counts, node);
    }
  }
  return counts;
}
