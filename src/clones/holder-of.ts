import fs from "node:fs";
import { isSubvolume } from "../fs/linux/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { reflinkHolder } from "./reflink-holder.ts";

/** Tells the driver that a tree is one of by what lies there: the workspace's engine may have been changed since. */
export function holderOf(place: string | Buffer): TreeHolder {
  return isSubvolume(place) ? btrfsHolder() : reflinkHolder();
}

/** Removes a held or half-made tree, whichever driver made it. With nothing there it does nothing. */
export async function removeHeldTree(place: string | Buffer): Promise<void> {
  if (fs.lstatSync(place, { throwIfNoEntry: false }) !== undefined) await holderOf(place).remove(place);
}
