import fs from "node:fs";
import { isSubvolume } from "../fs/linux/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import { removeTree } from "./remove-tree.ts";

/**
 * Removes a held or half-made tree, whichever driver made it: the workspace's engine may have been changed since. With
 * nothing there it does nothing.
 */
export async function removeHeldTree(place: string | Buffer): Promise<void> {
  if (fs.lstatSync(place, { throwIfNoEntry: false }) === undefined) return;
  await (isSubvolume(place) ? btrfsHolder().remove(place) : removeTree(Buffer.from(place)));
}
