import fs from "node:fs";
import path from "node:path";
import { subvolumeInfo } from "./btrfs.ts";
import { filesystemUuid } from "./mounts.ts";
import { namesIn } from "../names-in.ts";
import { inDirectory } from "./syscalls.ts";

/**
 * Tells whether a quota group may limit the subvolume at a path (raw bytes): its own group, or one of a higher level,
 * of which the kernel tells only root the members. False where quotas are off. From sysfs, since Linux 5.9.
 */
export function mayBeLimited(place: Buffer): boolean {
  const uuid = filesystemUuid(place);
  if (uuid === null) return false;
  const groups = path.join("/sys/fs/btrfs", uuid, "qgroups");
  const own = `0_${inDirectory(place, (fd) => subvolumeInfo(fd).id)}`;
  return namesIn(groups)
    .filter((name) => name === own || /^[1-9][0-9]*_/.test(name))
    .some((name) => hasLimit(path.join(groups, name, "limit_flags")));
}

/** A group that went meanwhile limits nothing. */
function hasLimit(file: string): boolean {
  try {
    return Number(fs.readFileSync(file, "latin1")) !== 0;
  } catch {
    return false;
  }
}
