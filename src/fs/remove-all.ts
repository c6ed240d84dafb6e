import fs from "node:fs";
import { btrfsAvailable, destroySubvolumeNow, isSubvolume } from "./btrfs.ts";
import { rawBytes, type RawPath } from "./safe-path.ts";

/**
 * Removes whatever lies at a path: directories whose modes keep their owner from emptying them and read-only subvolumes
 * of btrfs too; nothing there is fine. No link is followed. Throws the system's error.
 */
export function removeAll(place: RawPath): void {
  try {
    fs.rmSync(place, { recursive: true, force: true });
  } catch (error) {
    // What it was that failed is not in the error's code, where it is several levels down.
    if (!makeRemovable(rawBytes(place))) throw error;
    fs.rmSync(place, { recursive: true, force: true });
  }
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

/** Removes subvolumes at and below a directory, or makes them writable, and opens directories to their owner; whether there were any. */
function makeRemovable(place: Buffer): boolean {
  let facts = fs.lstatSync(place, { throwIfNoEntry: false });
  // Of a link nothing is looked at: what it leads to is another's.
  if (facts?.isDirectory() === false) return false;
  const isOwnTree = facts !== undefined && btrfsAvailable() && isSubvolume(place);
  if (isOwnTree) {
    destroySubvolumeNow(place);
    facts = fs.lstatSync(place, { throwIfNoEntry: false });
  }
  if (facts === undefined) return true;
  const isClosed = (facts.mode & OWNER) !== OWNER;
  if (isClosed) fs.chmodSync(place, OWNER);
  let found = isOwnTree || isClosed;
  for (const entry of fs.readdirSync(place, { withFileTypes: true, encoding: "buffer" }))
    if (entry.isDirectory()) found = makeRemovable(Buffer.concat([place, SLASH, entry.name])) || found;
  // Those inside kept it from being removed as a whole.
  if (isOwnTree) destroySubvolumeNow(place);
  return found;
}

const OWNER = 0o700;
const SLASH = Buffer.from("/");
