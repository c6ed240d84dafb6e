import fs from "node:fs";
import path from "node:path";
import { btrfsAvailable, destroySubvolumeNow, isSubvolume } from "./btrfs.ts";

/**
 * Removes whatever lies at a path, read-only subvolumes of btrfs in it too; nothing there is fine. No link is followed.
 * Throws the system's error.
 */
export function removeAll(place: string): void {
  try {
    fs.rmSync(place, { recursive: true, force: true });
  } catch (error) {
    // What it was that failed is not in the error's code, where it is several levels down.
    if (!btrfsAvailable() || !removeSubvolumes(place)) throw error;
    fs.rmSync(place, { recursive: true, force: true });
  }
}

/** Removes the subvolumes at or below a folder, or makes them writable where they may not be removed as a whole. */
function removeSubvolumes(place: string): boolean {
  let found = false;
  for (const entry of fs.readdirSync(place, { withFileTypes: true }))
    if (entry.isDirectory()) found = removeSubvolumes(path.join(place, entry.name)) || found;
  if (!isSubvolume(place)) return found;
  destroySubvolumeNow(path.dirname(place), path.basename(place));
  return true;
}
