import { isSubvolume } from "../fs/linux/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { reflinkHolder } from "./reflink-holder.ts";

/** Tells the driver that a tree is one of by what lies there: the workspace's engine may have been changed since. */
export function holderOf(place: string | Buffer): TreeHolder {
  return isSubvolume(place) ? btrfsHolder() : reflinkHolder();
}
