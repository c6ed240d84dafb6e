import fs from "node:fs";
import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";
import { isMountPoint, readMounts } from "../../fs/linux/mounts.ts";
import { isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import { isSilent } from "../../fs/silent-mounts.ts";
import {
  type FolderIdentity,
  isOnFileSystemOf,
  type PlacedWorkspace,
  readWorkspace,
  recordFolder,
} from "./control-directory.ts";
import type { FoundWorkspace } from "./find-workspace.ts";
import { existingAncestor } from "./room.ts";

/** Compares the mounts with those at the last save: an empty mount point must not be saved as an empty workspace. */

interface MountCall {
  allow?: readonly GuardName[] | undefined;
  /** true: the call enters file systems that are mounted inside */
  crossMounts?: boolean | undefined;
}

/** True unless the disk on which a folder lay, by its record, is not mounted there now. `folder` may be missing. */
export function isOnDisk(folder: Buffer, was: Pick<FolderIdentity, "filesystem_uuid" | "mount_point">): boolean {
  if (isOnFileSystemOf(was, existingAncestor(folder)) === false) return false;
  const place = was.mount_point === undefined ? null : Buffer.from(rawPath(was.mount_point));
  return place === null || (fs.existsSync(place) && isMountPoint(place));
}

/** Says which disk of a workspace seems unmounted: its mount point exists and is empty. Null if there is none. */
export function whyUnmounted(found: FoundWorkspace, crossMounts = false): string | null {
  const { control, folder, workspace } = found;
  const isEmpty = isBare(folder);
  if (!isEmpty && !crossMounts) return null;
  const known = readWorkspace(control, workspace.name) ?? workspace;
  if (isEmpty && known.mount_point !== undefined && folder.equals(rawPath(known))) {
    const place = Buffer.from(rawPath(known.mount_point));
    // A control directory on the same disk can only be read while the disk is mounted.
    const isElsewhere = !isAtOrBelow(control.root, place) && !isSameFolder(known, folder);
    if (isElsewhere && !isMountPoint(place))
      return `${printablePath(folder)} is empty, and nothing is mounted at ${printablePath(place)}, where its disk was mounted at the last save`;
  }
  if (!crossMounts) return null;
  const mounts = readMounts();
  const gone = (known.mounts_inside ?? [])
    .map((each) => Buffer.concat([folder, SLASH, rawPath(each)]))
    .filter((place) => !mounts.some(({ mountPoint }) => mountPoint.equals(place)))
    .find((place) => !isSilent(place, mounts) && isBare(place));
  return gone === undefined
    ? null
    : `${printablePath(gone)} is empty, and the disk that was mounted there at the last save is not mounted now`;
}

/**
 * Throws `refused` if a disk of the workspace is not mounted. If `allow` has `unmounted`, records the present folder
 * instead. The caller holds the workspace's lock.
 */
export function requireMounted(found: FoundWorkspace, { allow, crossMounts }: MountCall): void {
  const problem = whyUnmounted(found, crossMounts);
  if (problem === null) return;
  if (allow?.includes("unmounted") === true) return recordFolder(found);
  throw new CairnError("refused", problem, {
    hint: advice`mount the disk, then try again; to have the folder here from now on, save or restore it once with ${option({ allow: ["unmounted"] })}`,
    details: { guard: "unmounted" },
  });
}

const SLASH = Buffer.from("/");

function isBare(folder: Buffer): boolean {
  try {
    using directory = fs.opendirSync(folder);
    return directory.readSync() === null;
  } catch {
    // The scan reports a folder that cannot be listed.
    return false;
  }
}

/** Compares inode and file system: two file systems may have the same inode. An emptied folder is the same folder. */
function isSameFolder(known: PlacedWorkspace, folder: Buffer): boolean {
  if (fs.statSync(folder, { bigint: true }).ino.toString() !== known.root_inode) return false;
  return isOnFileSystemOf(known, folder) !== false;
}
