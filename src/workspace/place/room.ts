import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { advice, CairnError, type Hint, option, reworded, toCairnError } from "../../errors.ts";
import { formatBytes, plural } from "../../formats/sizes.ts";
import { freeSpace, type Mount, mountOf } from "../../fs/linux/mounts.ts";
import { isAtOrBelow, printablePath, rawBytes, type RawPath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";

/** The room that file systems have, how much of it is left to others, and whether they last. */

/** A path itself, or the nearest folder above it that is there. */
export function existingAncestor(path: RawPath): Buffer {
  const bytes = rawBytes(path);
  if (bytes.length <= 1 || existsSync(bytes)) return bytes;
  return existingAncestor(Buffer.from(dirname(bytes.toString("latin1")), "latin1"));
}

// Below this a file system serves nobody else on the machine any more; on a small one a share of it does.
const RESERVE_BYTES = 16 << 20;
const RESERVE_SHARE = 0.01;

/** Bytes free on the file system of a place that need not be there yet, and how many of them are left to others. */
export function roomAt(place: RawPath): { freeBytes: number; reserveBytes: number } {
  const { freeBytes, totalBytes } = freeSpace(existingAncestor(place));
  return { freeBytes, reserveBytes: Math.min(RESERVE_BYTES, Math.floor(totalBytes * RESERVE_SHARE)) };
}

/** Tells if the file system of a place has room for so much more. */
export function hasRoom(place: RawPath, bytes: number): boolean {
  const { freeBytes, reserveBytes } = roomAt(place);
  return freeBytes >= bytes + reserveBytes;
}

/**
 * Throws `no_space` when the file system of a place has no room for so much more. `guard`: by whose name the caller may
 * go on, which the hint says.
 */
export function requireRoom(place: RawPath, bytes: number, { hint, guard }: { hint: Hint; guard?: string }): void {
  const { freeBytes, reserveBytes } = roomAt(place);
  if (freeBytes >= bytes + reserveBytes) return;
  const needed = bytes === 0 ? "" : `${formatBytes(bytes)} are needed, and `;
  throw new CairnError(
    "no_space",
    `the file system of ${printablePath(place)} lacks ${formatBytes(bytes + reserveBytes - freeBytes)}: it has ${formatBytes(freeBytes)} free; ${needed}Cairn keeps ${formatBytes(reserveBytes)} free for other programs`,
    {
      hint,
      details: {
        ...(guard === undefined ? {} : { guard }),
        free_bytes: freeBytes,
        needed_bytes: bytes,
        reserve_bytes: reserveBytes,
      },
    },
  );
}

/** A new store takes about 300; what failed for want of one has given some back. */
const FEW_INODES = 512;

/** Returns an error that says so if a file system of these places ran out of inodes; any other error as it is. */
export function namingInodes(places: readonly RawPath[], error: unknown): unknown {
  const problem = toCairnError(error);
  if (problem.code !== "no_space") return error;
  for (const place of places) {
    const { freeInodes, freeBytes } = freeSpace(existingAncestor(place));
    if (freeInodes === null || freeInodes >= FEW_INODES) continue;
    return reworded(problem, {
      message: `${problem.message}; the file system of ${printablePath(place)} has ${plural(freeInodes, "inode")} left, and ${formatBytes(freeBytes)} of space`,
      hint: advice`remove files there, however small: each takes an inode, which df counts as IFree; or keep the points elsewhere with ${option("controlDirectory")}`,
    });
  }
  return error;
}

/** Says what a folder's points, kept at a place, go with as a whole; null on an ordinary disk outside of the folder. */
export function whatMayGo(
  place: RawPath,
  folder: RawPath,
  mount: Mount | null = mountOf(existingAncestor(place)),
  system = "/sys",
): string | null {
  if (isAtOrBelow(existingAncestor(place), rawBytes(folder)))
    return "inside the folder: no save point includes them, and they are lost if the folder is; put them elsewhere with --control-dir, or make backups";
  if (mount === null) return null;
  if (mount.type === "tmpfs" || mount.type === "ramfs") return `in memory (${mount.type}): a reboot deletes them`;
  const disk = removableDisk(mount, system);
  return disk === null ? null : `on the removable disk ${disk}: without that disk there are none`;
}

/** The name of a disk that can be taken out, or hangs on USB. */
function removableDisk({ device, source }: Mount, system: string): string | null {
  try {
    // A btrfs has a number of its own, which is no disk's.
    const number = device.startsWith("0:") ? numberOf(source) : device;
    const found = realpathSync(join(system, "dev/block", number));
    const disk = existsSync(join(found, "partition")) ? dirname(found) : found;
    const isRemovable = readRegular(join(disk, "removable")).toString("latin1").trim() === "1";
    return isRemovable || /\/usb\d+\//.test(disk) ? basename(disk) : null;
  } catch {
    // Where the kernel tells nothing of the disk, nothing is said.
    return null;
  }
}

function numberOf(source: string): string {
  const { rdev } = statSync(source);
  return `${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
}
