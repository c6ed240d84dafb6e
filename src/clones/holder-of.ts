import { isSubvolume } from "../fs/linux/btrfs.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import type { TreeHolder } from "./holder.ts";
import { reflinkHolder } from "./reflink-holder.ts";

/** Returns the driver of a tree by the tree itself: the workspace's engine may have changed since. */
export function holderOf(place: string | Buffer): TreeHolder {
  return isSubvolume(place) ? btrfsHolder() : reflinkHolder();
}
