import { existsSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { advice, CairnError, type Hint, option, reworded, toCairnError } from "../../errors.ts";
import { formatBytes, plural } from "../../formats/sizes.ts";
import { freeSpace, type Mount, mountOf } from "../../fs/linux/mounts.ts";
import { isAtOrBelow, printablePath, rawBytes, type RawPath } from "../../fs/paths/safe-path.ts";
import { readRegular } from "../../fs/regular-file.ts";

/** Free room of file systems, the part of it that Cairn leaves to other programs, and whether a disk is permanent. */

/** The path itself, or the nearest existing folder above it. */
export function existingAncestor(path: RawPath): Buffer {
  const bytes = rawBytes(path);
  if (bytes.length <= 1 || existsSync(bytes)) return bytes;
  return existingAncestor(Buffer.from(dirname(bytes.toString("latin1")), "latin1"));
}

// Free bytes that Cairn leaves to other programs; on a small file system a share.
const RESERVE_BYTES = 16 << 20;
const RESERVE_SHARE = 0.01;

/** Bytes free on the file system of a path, which may not exist yet, and the bytes of these that Cairn leaves to others. */
export function roomAt(place: RawPath): { freeBytes: number; reserveBytes: number } {
  const { freeBytes, totalBytes } = freeSpace(existingAncestor(place));
  return { freeBytes, reserveBytes: Math.min(RESERVE_BYTES, Math.floor(totalBytes * RESERVE_SHARE)) };
}

/** Tells if the file system of a path has room for `bytes` more. */
export function hasRoom(place: RawPath, bytes: number): boolean {
  const { freeBytes, reserveBytes } = roomAt(place);
  return freeBytes >= bytes + reserveBytes;
}

/** Throws `no_space` if the file system of a path lacks room for `bytes` more. `guard`: the name that overrides this. */
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

/** A new store takes about 300 inodes. A failed attempt has given some back. */
const FEW_INODES = 512;

/** Adds the number of free inodes to the error if a file system of these paths ran out of them; else returns the error unchanged. */
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

/**
 * Returns a warning if a folder's points at `place` can be lost together: inside the folder, in memory, or on a
 * removable disk. Null on an ordinary disk outside the folder.
 */
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

/** The name of a disk that is removable or connected by USB; null for other disks. */
function removableDisk({ device, source }: Mount, system: string): string | null {
  try {
    // The device number of a btrfs is no disk's.
    const number = device.startsWith("0:") ? numberOf(source) : device;
    const found = realpathSync(join(system, "dev/block", number));
    const disk = existsSync(join(found, "partition")) ? dirname(found) : found;
    const isRemovable = readRegular(join(disk, "removable")).toString("latin1").trim() === "1";
    return isRemovable || /\/usb\d+\//.test(disk) ? basename(disk) : null;
  } catch {
    // The device has no disk in sysfs, for example a network file system.
    return null;
  }
}

function numberOf(source: string): string {
  const { rdev } = statSync(source);
  return `${(rdev >>> 8) & 0xfff}:${(rdev & 0xff) | ((rdev >>> 12) & 0xfff00)}`;
}
