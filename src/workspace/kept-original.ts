import fs from "node:fs";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { changedAfter } from "../engines/tree/walk-entries.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { decodeOriginal, encodeOriginal, type OriginalFile } from "../formats/original.ts";
import { rawPath, recordPath } from "../formats/record.ts";
import { durableRemove, durableWrite } from "../fs/durable.ts";
import { nameOf, parentOf } from "../fs/exchange-folders.ts";
import { findHolders } from "../fs/holders.ts";
import { mountsInside, readMounts, whyMountsUnknown } from "../fs/mounts.ts";
import { printablePath } from "../fs/safe-path.ts";
import { isOriginalName } from "./convert-intent.ts";
import type { FoundWorkspace } from "./find-workspace.ts";
import { ownerBesidesUs } from "./not-the-owner.ts";
import type { Point } from "./point-files.ts";
import { readRecord } from "./read-record.ts";
import type { Workspace, WorkspaceCall } from "./workspace.ts";

/**
 * The folder as it was before its conversion. It stays beside the converted one until a whole point was made of that,
 * and longer when somebody still has something of it open or wrote into it: then it is the user's to look at.
 */

const MAX_RECORD_BYTES = 1 << 20;

export function recordOriginal(
  { paths }: FoundWorkspace,
  original: { place: Buffer; since: bigint; after: number },
): void {
  const stat = fs.lstatSync(original.place, { bigint: true, throwIfNoEntry: false });
  if (stat === undefined) return;
  const file: OriginalFile = {
    ...recordPath(original.place),
    inode: stat.ino.toString(),
    unchanged_since: original.since.toString(),
    after: original.after,
    at: new Date().toISOString(),
    going: false,
  };
  durableWrite(paths.original, encodeOriginal(file));
}

/** Where the original lies, null where there is none (any more). Throws `damaged`, `newer_version` for a record that cannot be read. */
export function keptOriginal(found: FoundWorkspace): { place: Buffer; file: OriginalFile } | null {
  const file = readRecord(found.paths.original, decodeOriginal, { maxBytes: MAX_RECORD_BYTES });
  if (file === null) return null;
  const recorded = Buffer.from(rawPath(file));
  // Whoever may write the record does not choose what is removed.
  if (!isOriginalName(nameOf(recorded).toString("latin1")))
    throw new CairnError("damaged", `${found.paths.original} names no folder that a conversion left`, {
      hint: "remove that file",
    });
  // Both may have been moved together since.
  const beside = Buffer.concat([parentOf(found.folder), Buffer.from("/"), nameOf(recorded)]);
  for (const place of [recorded, beside]) {
    const stat = fs.lstatSync(place, { bigint: true, throwIfNoEntry: false });
    if (stat !== undefined && stat.isDirectory() && stat.ino.toString() === file.inode) return { place, file };
  }
  return null;
}

/**
 * Lets the original go once a point holds the converted folder whole, where it was this user or root who recorded it; never fails. A kill while it is removed leaves
 * the rest to the next save. For the holder of the workspace's lock.
 */
export async function removeOriginal(workspace: Workspace, point: Point, call: WorkspaceCall): Promise<void> {
  const { found } = workspace;
  if (!fs.existsSync(found.paths.original) || ownerBesidesUs(found.paths.original) !== null) return;
  try {
    const original = keptOriginal(found);
    if (original !== null) {
      const { place, file } = original;
      if (!file.going && (point.sequence <= file.after || !point.descriptor.complete)) return;
      const reason = file.going ? null : await whyKept(place, file);
      if (reason !== null) {
        call.onWarning?.(
          `the folder as it was before its conversion stays in ${printablePath(place)}: ${reason}; look at it, and remove it by hand`,
        );
        return;
      }
      durableWrite(found.paths.original, encodeOriginal({ ...file, going: true }));
      failpoint("original.going");
      await removeHeldTree(place);
      failpoint("original.removed");
    }
    durableRemove(found.paths.original);
  } catch (error) {
    call.onWarning?.(`the folder as it was before its conversion could not be removed: ${toCairnError(error).message}`);
  }
}

async function whyKept(place: Buffer, file: OriginalFile): Promise<string | null> {
  const mounts = readMounts();
  const unknown = whyMountsUnknown(mounts);
  if (unknown !== null) return unknown.reason;
  if (mountsInside(place, mounts).length > 0) return "something is mounted inside";
  const [holder] = findHolders(place).holders;
  if (holder !== undefined) return `process ${holder.pid} (${holder.command}) still has it or something in it open`;
  const since = BigInt(file.unchanged_since);
  const isAdded = fs.lstatSync(place, { bigint: true }).mtimeNs >= since;
  const changed = isAdded ? Buffer.alloc(0) : await changedAfter(place, since);
  if (changed === null) return null;
  return `${changed.length === 0 ? "something in it" : printablePath(changed)} was changed after the conversion`;
}
