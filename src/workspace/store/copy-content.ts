import { comparePaths, ByteWriter, hex } from "../../formats/bytes.ts";
import type { ConsistencyLabel, RootMetadata as RecordedRoot } from "../../formats/records/descriptor.ts";
import { realSecrets } from "../../fs/secret-files.ts";
import { encodeManifest } from "../../formats/records/manifest.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { HeadContent, PointContent, StageRequest } from "./engine.ts";
import { storedTree } from "./store-care.ts";
import { type RootMetadata, recordedRoot } from "../../archive/write/root-metadata.ts";
import { CREDENTIALS, labelsOf, OWNER_UNKNOWN, type ScanSummary, withLabels } from "../../archive/scan/summary.ts";
import type { ScanResult } from "../../archive/scan/scan.ts";
import type { CapturedLabel } from "../../archive/scan/task.ts";

/** Place of a point's content in the store; part of the point's descriptor. */
export interface CopyContent extends PointContent {
  snapshot_tree: string;
  /** of a point with databases by pages: the root's tree as the snapshot has it, without them */
  stored_tree?: string;
  snapshot: string;
  root: RecordedRoot;
}

/** Returns the ids of the trees from which everything that a point needs can be reached. */
export function treesOf(content: PointContent): Uint8Array[] {
  const { snapshot_tree: top } = content as Partial<CopyContent>;
  return [...(top === undefined ? [] : [Buffer.from(top, "hex")]), Buffer.from(storedTree(content), "hex")];
}

/** Returns head if the folder, its own metadata and its manifest are the same as head's; else null. Nothing new is stored then. */
export function sameAsHead({ head }: StageRequest, scanned: ScanResult, root: RootMetadata): HeadContent | null {
  if (
    head === null ||
    head.content.tree !== hex(scanned.tree) ||
    head.metadata_digest !== hex(scanned.meta) ||
    !head.complete
  )
    return null;
  // Files that were read again may have other holes with the same content.
  if (scanned.notes.omitted.length + scanned.notes.torn.length + scanned.notes.filesRead > 0) return null;
  const was = (head.content as unknown as CopyContent).root;
  const now = recordedRoot(root);
  const keys = [...Object.keys(now), "acl_group"] as (keyof RecordedRoot)[];
  return keys.every((key) => was[key] === now[key]) ? head : null;
}

/** Sums a scan up. Drops files that only have the name of a secret. */
export function summaryOf(result: ScanResult, root: Uint8Array): ScanSummary {
  const summary = result.summarise();
  return { ...summary, secrets: realSecrets(root, summary.secrets) };
}

/** Counts of a folder that is the same as head. */
export function summaryOfHead({ entries, bytes, labels }: HeadContent): ScanSummary {
  const databases = labels.flatMap((label) => {
    if (!isOfDatabase(label)) return [];
    const { label: said, reason = null, recovered = false } = label;
    return [{ path: rawPath(label), isLive: false, isUnchecked: false, said: { label: said, reason, recovered } }];
  });
  const secrets = labels.flatMap((label) =>
    label.label === CREDENTIALS ? [{ path: rawPath(label), kind: String(label["reason"]) }] : [],
  );
  const ownerless = labels.filter(({ label }) => label === OWNER_UNKNOWN).map(rawPath);
  return { entries, bytes, holes: [], hashes: [], lossless: [], databases, secrets, ownerless };
}

type OfDatabase = ConsistencyLabel & Pick<CapturedLabel, "label"> & { reason?: string; recovered?: boolean };

function isOfDatabase(label: ConsistencyLabel): label is OfDatabase {
  return label.label === "transaction-consistent" || label.label === "crash-consistent";
}

/** Raw paths of databases that did not change while a held tree was made. */
function stillOf(databases: StageRequest["databases"]): readonly Uint8Array[] {
  return typeof databases === "object" ? databases.still : [];
}

/** Returns the encoded manifest of a scan. `known`: labels that its entries got before the scan. */
export function manifestOf(
  result: ScanResult,
  summary: ScanSummary,
  { labels: known = [], scan, databases }: Pick<StageRequest, "labels" | "scan" | "databases">,
): Uint8Array {
  const writer = new ByteWriter(4096);
  const { notes } = result;
  const entered = scan.crossMounts === true;
  const labels = withLabels(known, labelsOf(notes, summary, stillOf(databases)));
  encodeManifest(writer, {
    stateDigest: hex(result.state),
    metadataDigest: hex(result.meta),
    complete: notes.omitted.length === 0 && !labels.some(({ label }) => label === "torn-possible"),
    entries: summary.entries,
    labels: labels.toSorted((a, b) => comparePaths(rawPath(a), rawPath(b))),
    holeMaps: summary.holes.toSorted((a, b) => comparePaths(a.path, b.path)),
    fileHashes: summary.hashes.toSorted((a, b) => comparePaths(a.path, b.path)),
    omitted: notes.omitted,
    lossless: summary.lossless.toSorted((a, b) => comparePaths(a.path, b.path)),
    ...(entered || notes.mounts.length > 0 ? { mounts: { entered, leftOut: notes.mounts } } : {}),
  });
  return Uint8Array.from(writer.view());
}
