import type { TreeNode } from "../../formats/restic/tree.ts";
import { groupName, userName } from "../../fs/users.ts";
import type { RootMetadata } from "./root-metadata.ts";

/** Name of the file in a snapshot's `/.cairn` that says what a restored copy must answer. */
export const CHECKS_NAME = "checks.json";

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
