import fs from "node:fs";
import type { RootMetadata as RecordedRoot } from "../../formats/records/descriptor.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { listedGroupBits } from "../../fs/linux/own-attributes.ts";
import { outsideOwner } from "../../fs/linux/syscalls.ts";
import { groupName, userName } from "../../fs/users.ts";

/** The root directory's own metadata, which no tree holds. */
export interface RootMetadata {
  mode: number;
  uid: number;
  gid: number;
  mtimeSec: number;
  mtimeNs: number;
  /** the access list's rights of the group, if there is a list: then the mode's group bits are the list's mask */
  aclGroup?: number | undefined;
}

const BILLION = 1_000_000_000n;

/** A root's metadata as descriptors record it, with the owner's names on this machine. */
export function recordedRoot(root: RootMetadata): RecordedRoot {
  const { mode, uid, gid, mtimeSec, mtimeNs, aclGroup } = root;
  return {
    mode,
    uid,
    gid,
    user: userName(uid),
    group: groupName(gid),
    mtime_sec: mtimeSec,
    mtime_ns: mtimeNs,
    ...(aclGroup === undefined ? {} : { acl_group: aclGroup }),
  };
}

/** The mode of a folder without an access list that gives its owner, group and others the same. */
export function modeWithoutList({ mode, aclGroup }: OwnRights): number {
  return aclGroup === undefined ? mode : (mode & ~GROUP) | ((aclGroup << 3) & mode & GROUP);
}

type OwnRights = Pick<RootMetadata, "mode" | "aclGroup">;
const GROUP = 0o070;

/**
 * The mode that gives a folder its recorded rights. No point has the folder's own access list: the present list stays,
 * with its mask; without a list the group does not get the recorded mask.
 */
export function modeToSet(wanted: OwnRights, present: OwnRights): number {
  const plain = modeWithoutList(wanted);
  if (present.aclGroup === undefined) return plain;
  if (wanted.aclGroup === undefined) return modeWithoutList(present) === plain ? present.mode : plain;
  // The present list differs from the recorded one, so the mask would give more rights.
  const isWidened = ((present.aclGroup << 3) & wanted.mode & GROUP & ~plain) !== 0;
  return isWidened ? plain : wanted.mode;
}

/** Mode, owner and time of a folder, and its access list's rights of the group. */
export function rootMetadata(root: Uint8Array): RootMetadata {
  const stat = fs.lstatSync(Buffer.from(root), { bigint: true });
  // Never negative, also for times before 1970.
  const nanoseconds = ((stat.mtimeNs % BILLION) + BILLION) % BILLION;
  return {
    mode: Number(stat.mode) & 0o7777,
    ...outsideOwner(Buffer.from(root), stat),
    mtimeSec: Number((stat.mtimeNs - nanoseconds) / BILLION),
    mtimeNs: Number(nanoseconds),
    aclGroup: listedGroupBits(Buffer.from(root)),
  };
}

function baseNode(name: Uint8Array, metadata: RootMetadata): TreeNode {
  return {
    name,
    type: "dir",
    mode: metadata.mode,
    mtimeSec: metadata.mtimeSec,
    mtimeNs: metadata.mtimeNs,
    uid: metadata.uid,
    gid: metadata.gid,
    user: userName(metadata.uid),
    group: groupName(metadata.gid),
    inode: 0n,
    deviceId: 0n,
    links: 0,
    size: 0,
    xattrs: [],
    device: 0n,
  };
}

/** The node of a file that has no other name; `content`: ids of its blobs, 32 bytes each. */
export function fileNode(
  name: Uint8Array,
  metadata: RootMetadata,
  { size, content }: { size: number; content: Uint8Array },
): TreeNode {
  return { ...baseNode(name, metadata), type: "file", links: 1, size, content };
}

export function directoryNode(name: Uint8Array, tree: Uint8Array, metadata: RootMetadata): TreeNode {
  return { ...baseNode(name, metadata), subtree: tree };
}
