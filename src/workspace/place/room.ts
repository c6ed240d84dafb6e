import { existsSync } from "node:fs";
import { dirname } from "node:path";
import { CairnError } from "../../errors.ts";
import { formatBytes } from "../../formats/sizes.ts";
import { freeSpace } from "../../fs/linux/mounts.ts";
import { printablePath, rawBytes, type RawPath } from "../../fs/safe-path.ts";

/** The room that file systems have, and how much of it is left to others. */

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
export function requireRoom(place: RawPath, bytes: number, { hint, guard }: { hint: string; guard?: string }): void {
  const { freeBytes, reserveBytes } = roomAt(place);
  if (freeBytes >= bytes + reserveBytes) return;
  const needed = bytes === 0 ? "" : `${formatBytes(bytes)} are needed, and `;
  throw new CairnError(
    "no_space",
    `the file system of ${printablePath(place)} has ${formatBytes(freeBytes)} free; ${needed}${formatBytes(reserveBytes)} are left to others on it`,
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
