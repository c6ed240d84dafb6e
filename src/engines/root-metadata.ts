import fs from "node:fs";
import type { RootMetadata as RecordedRoot } from "../formats/descriptor.ts";
import type { DirectoryFacts } from "../formats/restore.ts";
import type { TreeNode } from "../formats/tree.ts";
import { groupName, userName } from "../fs/users.ts";
import type { RootMetadata } from "./engine.ts";
import { NodeWriter, type NotSet } from "./write/node-writer.ts";

const BILLION = 1_000_000_000n;

/** A root's metadata as descriptors have it, with the names that its owner has here. */
export function recordedRoot(root: RootMetadata): RecordedRoot {
  const { mode, uid, gid, mtimeSec, mtimeNs } = root;
  return { mode, uid, gid, user: userName(uid), group: groupName(gid), mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Mode, owner and time of a folder. */
export function rootMetadata(root: Uint8Array): RootMetadata {
  const stat = fs.lstatSync(Buffer.from(root), { bigint: true });
  // Never negative, also before 1970.
  const nanoseconds = ((stat.mtimeNs % BILLION) + BILLION) % BILLION;
  return {
    mode: Number(stat.mode) & 0o7777,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    mtimeSec: Number((stat.mtimeNs - nanoseconds) / BILLION),
    mtimeNs: Number(nanoseconds),
  };
}

/**
 * What an open directory is set to, its modification time last; attributes that are not named stay. What could not be set,
 * of the path that it goes by.
 */
export function setDirectory(
  fd: number,
  to: DirectoryFacts,
  { path = new Uint8Array(0), xattrs = [] }: { path?: Uint8Array; xattrs?: TreeNode["xattrs"] } = {},
): NotSet[] {
  const { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs } = to;
  const writer = new NodeWriter();
  writer.finishDirectory(fd, { mode, uid, gid, xattrs, mtimeSec, mtimeNs }, path);
  return writer.notSet;
}
