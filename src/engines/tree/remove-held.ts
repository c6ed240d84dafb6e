import fs from "node:fs";
import { isSubvolume } from "../../fs/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import { removeTree } from "./remove-tree.ts";

/** Removes a held or half-made tree, whichever holder made it; with nothing there it does nothing. */
export async function removeHeldTree(place: string): Promise<void> {
  const facts = fs.lstatSync(place, { throwIfNoEntry: false });
  if (facts === undefined) return;
  // Not by the engine's name: that may have been changed, or not have been used this time.
  if (facts.isDirectory() && isSubvolume(place)) await btrfsHolder().remove(place);
  else await removeTree(Buffer.from(place));
}
