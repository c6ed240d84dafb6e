import { compareBytes } from "../bytes.ts";

/** One entry of a restic tree, and its mode in Go's and in Unix's bits. */

export type NodeType = "file" | "dir" | "symlink" | "dev" | "chardev" | "fifo" | "socket" | "irregular";

export interface NodeAttribute {
  name: Uint8Array;
  value: Uint8Array;
}

/**
 * Members that only other programs write into a node, kept so that such a tree is encoded with the same bytes. Absent
 * in Cairn's own nodes.
 */
export interface ForeignNode {
  /** The texts of the three times in the file, with their zones. */
  mtime: string;
  atime: string;
  ctime: string;
  /** Go's FileMode, if it differs from the one that type and mode give. */
  goMode?: number;
  /** Source text of the value of `generic_attributes`. */
  genericAttributes?: string;
  /** Source text of members that come after `subtree`, each with its leading comma. */
  rest?: string;
}

/** `content` and `subtree` are raw ids of 32 bytes each; names, targets and attribute names are raw bytes. */
export interface TreeNode {
  name: Uint8Array;
  type: NodeType;
  /** Unix permission bits with setuid, setgid and sticky: 0 to 0o7777. */
  mode: number;
  mtimeSec: number;
  mtimeNs: number;
  uid: number;
  gid: number;
  user: string;
  group: string;
  /** 0n is absent. */
  inode: bigint;
  /** 0n is absent. */
  deviceId: bigint;
  /** 0 is absent; never written for directories, pipes and sockets. */
  links: number;
  size: number;
  linktarget?: Uint8Array;
  xattrs: readonly NodeAttribute[];
  /** st_rdev of a device. */
  device: bigint;
  content?: Uint8Array;
  subtree?: Uint8Array;
  foreign?: ForeignNode;
}

/** Members of a node that can be set on an entry with the right content. */
export type NodeMetadata = Pick<TreeNode, "type" | "mode" | "uid" | "gid" | "mtimeSec" | "mtimeNs" | "xattrs">;

/**
 * Returns a key that all names of one file share: device and inode, since an inode number alone is not unique. Begins
 * with a slash, as no path below a root does. Null if the node has no hard links.
 */
export function linkedInode({ links, inode, deviceId }: TreeNode): string | null {
  return links > 1 && inode !== 0n ? `/${deviceId}/${inode}` : null;
}

/**
 * Tells whether two names of one inode can be hard links of one entry. A file that changed while its names were saved
 * has different content under each, and the inode of a deleted file may be used again.
 */
export function canBeOne(a: TreeNode, b: TreeNode): boolean {
  return (
    a.type === b.type &&
    a.size === b.size &&
    a.device === b.device &&
    compareBytes(a.content ?? NONE, b.content ?? NONE) === 0 &&
    compareBytes(a.linktarget ?? NONE, b.linktarget ?? NONE) === 0
  );
}

const NONE = new Uint8Array(0);

export const NODE_TYPES: readonly NodeType[] = [
  "file",
  "dir",
  "symlink",
  "dev",
  "chardev",
  "fifo",
  "socket",
  "irregular",
];

const TYPE_BITS: Record<NodeType, number> = {
  file: 0,
  dir: 0x80000000,
  symlink: 0x08000000,
  dev: 0x04000000,
  chardev: 0x04200000,
  fifo: 0x02000000,
  socket: 0x01000000,
  irregular: 0x00080000,
};

const SETUID = 0x00800000;
const SETGID = 0x00400000;
const STICKY = 0x00100000;

/** Returns Go's FileMode (an unsigned 32-bit number) for a type and Unix permission bits. */
export function goModeOf(type: NodeType, mode: number): number {
  let bits = TYPE_BITS[type] + (mode & 0o777);
  if ((mode & 0o4000) !== 0) bits += SETUID;
  if ((mode & 0o2000) !== 0) bits += SETGID;
  if ((mode & 0o1000) !== 0) bits += STICKY;
  return bits;
}

/** Returns the Unix permission bits of Go's FileMode. The node's type stands for the type bits. */
export function unixModeOf(goMode: number): number {
  return (
    (goMode & 0o777) |
    ((goMode & SETUID) !== 0 ? 0o4000 : 0) |
    ((goMode & SETGID) !== 0 ? 0o2000 : 0) |
    ((goMode & STICKY) !== 0 ? 0o1000 : 0)
  );
}

/** Returns the type of a node for a Unix st_mode. */
export function nodeTypeOf(stMode: number): NodeType {
  switch (stMode & 0o170000) {
    case 0o100000:
      return "file";
    case 0o040000:
      return "dir";
    case 0o120000:
      return "symlink";
    case 0o060000:
      return "dev";
    case 0o020000:
      return "chardev";
    case 0o010000:
      return "fifo";
    case 0o140000:
      return "socket";
    default:
      return "irregular";
  }
}

/** True for a valid name of a directory entry: the bytes from `start` to `end`. */
export function isEntryName(bytes: Uint8Array, start = 0, end: number = bytes.length): boolean {
  const n = end - start;
  if (n === 0) return false;
  for (let i = start; i < end; i++) if (bytes[i] === 0x2f || bytes[i] === 0) return false;
  return !(bytes[start] === 0x2e && (n === 1 || (n === 2 && bytes[start + 1] === 0x2e)));
}

/**
 * Nodes of a tree, sorted by raw name. Each is made on access, so that a large tree is never in memory as objects. An
 * array of nodes fits too.
 */
export interface TreeNodes extends Iterable<TreeNode> {
  readonly length: number;
  at(index: number): TreeNode | undefined;
  find(fits: (node: TreeNode) => boolean): TreeNode | undefined;
}

/** One name in two states. */
export interface NodePair {
  before: TreeNode | null;
  after: TreeNode | null;
}
