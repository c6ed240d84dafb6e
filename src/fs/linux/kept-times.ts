import fs from "node:fs";
import { mountsInside } from "./mounts.ts";
import type { RawPath } from "../safe-path.ts";

/** Decides which of a file system's times tell of a change. */

const TMPFS = 0x01021994;
const RAMFS = 0x858458f6;

/**
 * File systems of this kernel that change a directory's times with every name that comes, goes or is renamed in it, at
 * the moment when it does. Others (network ones, those of other programs) may do it late or not at all.
 */
const KEEPING: ReadonlySet<number> = new Set([
  0xef53, // ext2, ext3, ext4
  0x58465342, // xfs
  0x9123683e, // btrfs
  TMPFS,
  0xf2f52010, // f2fs
  0x2fc12fc1, // zfs
  0xca451a4e, // bcachefs
  0x794c7630, // overlayfs, whose upper layer is one of these
]);
const FUSE = 0x65735546;

/** True where a directory with unchanged times is known to hold unchanged names. */
export function keepsDirectoryTimes(path: Uint8Array): boolean {
  const type = typeOf(path);
  return type !== null && KEEPING.has(type);
}

/** False where an entry may get other extended attributes and keep all of its times: JuiceFS, which is a FUSE. */
export function keepsAttributeTimes(path: Uint8Array): boolean {
  return typeOf(path) !== FUSE;
}

/**
 * False where a file may get other content and keep all of its times: what lies in memory alone is never written back, which
 * is when a store through a mapping moves them.
 */
export function keepsContentTimes(path: Uint8Array): boolean {
  const type = typeOf(path);
  return type !== TMPFS && type !== RAMFS;
}

/** Numbers of the file systems that are mounted inside a folder and whose files may do so, each in one word. */
export function devicesInMemory(folder: RawPath): number[] {
  const mounts = mountsInside(folder).filter(({ type }) => type === "tmpfs" || type === "ramfs");
  return [...new Set(mounts.map(({ device }) => device))].map((device) => {
    const [major, minor] = device.split(":").map(Number) as [number, number];
    return deviceNumber(major, minor);
  });
}

/** One word for a device. */
export function deviceNumber(major: number, minor: number): number {
  return ((major << 20) | minor) >>> 0;
}

/** The kernel's number for the kind of file system; null where it tells none. */
function typeOf(path: Uint8Array): number | null {
  try {
    return fs.statfsSync(Buffer.from(path)).type;
  } catch {
    return null;
  }
}
