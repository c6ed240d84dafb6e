import fs from "node:fs";
import { nameOf, parentOf } from "./linux/exchange-folders.ts";
import { type DirectoryIdentity, removeBelow } from "./remove-below.ts";
import { rawBytes, type RawPath } from "./safe-path.ts";

/**
 * Removes whatever lies at a path: directories whose modes keep their owner from emptying them and read-only subvolumes
 * of btrfs too; nothing there is fine. No link is followed below the directory that holds it, also not one that is put in the
 * way meanwhile. Throws the system's error.
 */
export function removeAll(place: RawPath): void {
  try {
    // It works by held directories, too, and needs no native call; but it changes no mode, and removes no subvolume as a whole.
    fs.rmSync(place, { recursive: true, force: true });
  } catch {
    inParent(place, (parent, name) => removeBelow(parent, name));
  }
}

/** Removes only a directory that it is known as; false, and nothing is done, where something else lies there. */
export function removeOnly(place: RawPath, only: (found: DirectoryIdentity) => boolean): boolean {
  return inParent(place, (parent, name) => removeBelow(parent, name, { only }));
}

/**
 * Removes what an operation leaves of itself when it ends. What cannot be removed is left to whoever comes later, as after a
 * kill: it takes the place of no failure that came first.
 */
export function clearAway(place: string): void {
  try {
    removeAll(place);
  } catch {
    // A file system that has gone away fails the operation, too.
  }
}

function inParent<T>(place: RawPath, work: (parent: number, name: Buffer) => T): T {
  const path = rawBytes(place);
  const parent = path.includes(SLASH) ? parentOf(path) : Buffer.from(".");
  const fd = fs.openSync(parent, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    return work(fd, nameOf(path));
  } finally {
    fs.closeSync(fd);
  }
}

const SLASH = 0x2f;
