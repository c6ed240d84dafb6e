import fs from "node:fs";
import type { RecordFinder } from "../../archive/scan/find-record.ts";
import { latin1 } from "../../formats/bytes.ts";
import { filesystemKind, mountsInside } from "../../fs/linux/mounts.ts";
import { isFolderThere } from "./missing-folder.ts";

const SLASH = Buffer.from("/");

/**
 * Tells if a directory of the folder has something in it, at any depth, that a scan did not record; false for what is
 * no directory.
 */
export function holdsUnrecorded(root: Uint8Array, where: Uint8Array, finder: RecordFinder): boolean {
  const open = [Buffer.from(where)];
  for (let at = open.pop(); at !== undefined; at = open.pop()) {
    for (const entry of entriesOf(Buffer.concat([root, SLASH, at]))) {
      const own = Buffer.concat([at, SLASH, entry.name]);
      if (finder.find(own) === null) return true;
      if (entry.isDirectory()) open.push(own);
    }
  }
  return false;
}

/** None of what is no directory, or cannot be looked into. */
function entriesOf(place: Buffer): fs.Dirent<Buffer>[] {
  try {
    if (!fs.lstatSync(place).isDirectory()) return [];
    return fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" });
  } catch {
    return [];
  }
}

/** Tells which directories of a folder lie in another mount or subvolume inside it; undefined where there can be none. */
export function placesInside(root: Buffer): ((directory: Uint8Array) => boolean) | undefined {
  if (!isFolderThere(root)) return undefined;
  const mounts = mountsInside(root).map(({ mountPoint }) => latin1(Buffer.from(mountPoint).subarray(root.length + 1)));
  if (mounts.length === 0 && filesystemKind(root).name !== "btrfs") return undefined;
  const device = fs.lstatSync(root).dev;
  const known = new Map([["", false], ...mounts.map((place) => [place, true] as const)]);
  const look = (directory: string): boolean => {
    let isInside = known.get(directory);
    if (isInside === undefined) {
      const above = directory.slice(0, Math.max(directory.lastIndexOf("/"), 0));
      isInside = look(above) || isOn(Buffer.concat([root, SLASH, Buffer.from(directory, "latin1")]), device) === false;
      known.set(directory, isInside);
    }
    return isInside;
  };
  return (directory) => look(latin1(directory));
}

/** Null for what is no directory, and for a path that is longer than the system takes. */
function isOn(place: Buffer, device: number): boolean | null {
  try {
    const facts = fs.lstatSync(place);
    return facts.isDirectory() ? facts.dev === device : null;
  } catch {
    return null;
  }
}
