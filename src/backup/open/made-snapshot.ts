import { renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TransferredSize } from "../../contract/index.ts";
import { PROGRAM } from "../../formats/program.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { temporaryName } from "../../fs/durable.ts";
import { readRegular } from "../../fs/regular-file.ts";
import type { ObjectId } from "../../ids.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { NOTHING_FORWARDED, type ForwardedSize } from "../../repository/transfer/forwarded-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { TransferResult } from "../../repository/transfer/transfer.ts";
import type { TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import type { StoredContent } from "../../workspace/store/engine.ts";
import { nameOf, readNodes } from "../../archive/databases/nodes.ts";

const NAME = "known-trees.json";
const MOST = 1000;
/** A cache of at most this many blobs is written each time; a larger one now and then. */
const FEW_BLOBS = 300_000;
/** With more index files the list of their names takes longer than the walk it spares. */
const MOST_INDEXES = 20_000;
const HEX = /^[0-9a-f]{64}$/;

/** The fields of a snapshot that say on which machine, from which paths and by which user it was saved. */
export type SnapshotOrigin = Pick<Snapshot, "paths" | "hostname" | "username" | "uid" | "gid">;

interface SnapshotParts {
  /** Time of the state. */
  time: string;
  tree: ObjectId;
  origin: SnapshotOrigin;
  parent: ListedSnapshot | null;
  excludes?: string[];
  tags: readonly string[];
  /** When the backup began, milliseconds since 1970. */
  started: number;
  added: TransferredSize;
  /** All files of the snapshot, with those in `/.cairn`: restic takes a snapshot as changed if it counts other files. */
  files: number;
  bytes: number;
}

/** The snapshot of a backup that ends now. */
export function madeSnapshot(parts: SnapshotParts): Snapshot {
  const { time, tree, origin, parent, excludes, tags, started, added } = parts;
  return {
    time,
    ...(parent === null ? {} : { parent: parent.id }),
    tree,
    ...origin,
    ...(excludes === undefined ? {} : { excludes }),
    tags: [...new Set(tags)],
    program_version: PROGRAM,
    summary: {
      backup_start: new Date(started).toISOString(),
      backup_end: new Date().toISOString(),
      data_blobs: added.data_blobs,
      tree_blobs: added.tree_blobs,
      data_added: added.bytes,
      data_added_packed: added.stored_bytes,
      total_files_processed: parts.files,
      total_bytes_processed: parts.bytes,
    },
  };
}

/** Files of a point's snapshot that are its own records, in `/.cairn`, and their bytes. */
export async function ownRecords({
  blobs,
  snapshotTree,
}: Pick<StoredContent, "blobs" | "snapshotTree">): Promise<{ files: number; bytes: number }> {
  const folder = (await readNodes(blobs, snapshotTree)).find((node) => nameOf(node) === ".cairn");
  const own = folder?.subtree === undefined ? [] : [...(await readNodes(blobs, folder.subtree))];
  return { files: own.length, bytes: own.reduce((sum, { size }) => sum + size, 0) };
}

/** The size of a transfer, done or planned (null), with the blobs that were forwarded before it. */
export function addedBy(
  plan: TransferPlan,
  transfer: TransferResult | null,
  forwarded: Readonly<ForwardedSize> = NOTHING_FORWARDED,
): TransferredSize {
  return {
    data_blobs: plan.dataBlobs + forwarded.dataBlobs,
    tree_blobs: plan.treeBlobs + forwarded.treeBlobs,
    bytes: plan.plainBytes + forwarded.plainBytes,
    stored_bytes: (transfer?.packBytes ?? plan.storedBytes) + forwarded.packBytes,
    packs: (transfer?.packs ?? 0) + forwarded.packs,
  };
}

/**
 * Trees that this machine knows to be complete in a repository: a plan skips them while every index file of the check
 * still exists. Another process may have written the list, with newer index files than this index has read: then the
 * list counts for nothing.
 */
export function readKnownTrees(cache: string, index: Pick<BlobIndex, "covered" | "isPartial">): Set<string> {
  const { covered, isPartial } = index;
  if (isPartial) return new Set();
  try {
    const { index_files: basis, trees } = JSON.parse(readRegular(join(cache, NAME)).toString("utf8")) as Record<
      string,
      unknown
    >;
    if (!Array.isArray(basis) || !basis.every((name) => covered.has(name)) || !Array.isArray(trees)) return new Set();
    return new Set(trees.slice(0, MOST).filter((tree): tree is string => typeof tree === "string" && HEX.test(tree)));
  } catch {
    return new Set();
  }
}

/** Remembers trees, newest first, that are complete by this index, and caches the index. If either fails, the next backup walks. */
export function keepKnownTrees(cache: string, index: BlobIndex, trees: Iterable<string>): void {
  if (index.isPartial) return;
  index.saveCache(index.count < FEW_BLOBS);
  const temporary = join(cache, temporaryName());
  try {
    if (index.covered.size > MOST_INDEXES) return;
    const known = { index_files: [...index.covered], trees: [...trees].slice(0, MOST) };
    writeFileSync(temporary, JSON.stringify(known), { mode: 0o600 });
    renameSync(temporary, join(cache, NAME));
  } catch {
    return;
  }
}
