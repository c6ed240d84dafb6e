import { PROGRAM } from "../../formats/program.ts";
import type { Snapshot } from "../../formats/snapshot.ts";
import type { ObjectId } from "../../ids.ts";
import { NOTHING_FORWARDED, type ForwardedSize } from "../../repository/forwarded-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { TransferResult } from "../../repository/transfer.ts";
import type { TransferPlan } from "../../repository/transfer-plan.ts";
import type { TransferredSize } from "../contract.ts";

/** Where and by whom something was saved. */
export type SnapshotOrigin = Pick<Snapshot, "paths" | "hostname" | "username" | "uid" | "gid">;

export interface SnapshotParts {
  /** Of the state. */
  time: string;
  tree: ObjectId;
  origin: SnapshotOrigin;
  parent: ListedSnapshot | null;
  excludes?: string[];
  tags: readonly string[];
  /** When the backup began, milliseconds since 1970. */
  started: number;
  added: TransferredSize;
  /** All files of the snapshot, those in `/.cairn` too: where restic counts others it takes the snapshot for a changed one. */
  files: number;
  bytes: number;
}

/** A snapshot of a backup that ends now, as it is written. */
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

/** What a transfer has brought, null: what it would bring; with what was forwarded before it. */
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
