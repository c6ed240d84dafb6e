import fs from "node:fs";
import { isSubvolume } from "../fs/linux/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { reflinkHolder } from "./reflink-holder.ts";

/**
 * The holder that a tree is one of, told by the tree that lies there: the workspace's engine may have been changed
 * since, or not have been used that time.
 */
export function holderOf(place: string | Buffer): TreeHolder {
  return isSubvolume(place) ? btrfsHolder() : reflinkHolder();
}

/** Removes a held or half-made tree, whichever holder made it; with nothing there it does nothing. */
export async function removeHeldTree(place: string | Buffer): Promise<void> {
  if (fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined) await holderOf(place).remove(place);
}
