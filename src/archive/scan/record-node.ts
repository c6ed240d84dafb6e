import type { TreeNode } from "../../formats/restic/tree.ts";
import { EXTRA, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { signedWide, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { groupName, userName } from "../../fs/users.ts";

/** One hard-link group: all its members inside the workspace. */
export interface LinkGroup {
  /** number in the nodes, derived from the first member's path */
  inode: bigint;
  members: number;
  /** path of the first member in raw pre-order */
  first: Uint8Array;
}

/** Groups by the {@link linkKey} of their members. */
export type LinkGroups = ReadonlyMap<string, LinkGroup>;

/** Words that are equal in all records of an inode; the most selective first. */
const OF_INODE = [R.DEVICE, R.INO, R.INO + 1];
const OF_NAMES = [
  R.MODE,
  R.UID,
  R.GID,
  R.SIZE,
  R.SIZE + 1,
  R.MTIME,
  R.MTIME + 1,
  R.MTIME_NS,
  R.RDEV_MAJOR,
  R.RDEV_MINOR,
];
const KEY_WORDS = Uint8Array.from([...OF_INODE, ...OF_NAMES, ...Array.from({ length: 8 }, (_, i) => R.HASH + i)]);
const INODE_CHARACTERS = OF_INODE.length * 4;
const keyWords = new Uint32Array(KEY_WORDS.length);
const keyBytes = Buffer.from(keyWords.buffer);

/**
 * Returns a key that the records of one hard-link group share: the inode with all its recorded facts. Differing records
 * have different keys: the file changed between the readings of its names, or the number was reused.
 */
export function linkKey(from: ScanTable, record: number): string {
  const base = record * RECORD_WORDS;
  for (let i = 0; i < KEY_WORDS.length; i++) keyWords[i] = from.records[base + KEY_WORDS[i]!]!;
  const key = keyBytes.toString("latin1");
  return from.recordFlags(record) & FLAG.EXTRAS ? key + extrasKey(from, record) : key;
}

/** The part of a key that names the inode. */
export function inodeOfKey(key: string): string {
  return key.slice(0, INODE_CHARACTERS);
}

/** Holes and chunks add nothing to the content. */
function extrasKey(from: ScanTable, record: number): string {
  const told = from.extrasOf(record).filter(({ tag }) => tag === EXTRA.XATTR || tag === EXTRA.LINK_TARGET);
  return told.map(({ tag, value }) => `${tag}:${value.length}:${value.toString("latin1")}`).join("");
}

const NODE_TYPE: Record<number, TreeNode["type"]> = {
  [TYPE.FILE]: "file",
  [TYPE.DIRECTORY]: "dir",
  [TYPE.LINK]: "symlink",
  [TYPE.BLOCKDEV]: "dev",
  [TYPE.CHARDEV]: "chardev",
  [TYPE.PIPE]: "fifo",
  [TYPE.SOCKET]: "socket",
};
const EMPTY = new Uint8Array(0);
const NO_EXTRAS: RecordExtras = { xattrs: [] };

export interface RecordExtras {
  xattrs: { name: Uint8Array; value: Uint8Array }[];
  target?: Uint8Array;
  chunks?: Uint8Array;
  holes?: Uint8Array;
}

/** The variable part of a record, decoded. */
export function recordExtras(table: ScanTable, record: number): RecordExtras {
  if ((table.recordFlags(record) & FLAG.EXTRAS) === 0) return NO_EXTRAS;
  const extras: RecordExtras = { xattrs: [] };
  for (const { tag, value } of table.extrasOf(record)) {
    if (tag === EXTRA.LINK_TARGET) extras.target = value;
    else if (tag === EXTRA.CHUNKS) extras.chunks = value;
    else if (tag === EXTRA.HOLES) extras.holes = value;
    else {
      const end = value.indexOf(0);
      extras.xattrs.push({ name: value.subarray(0, end), value: value.subarray(end + 1) });
    }
  }
  return extras;
}

function deviceNumber(major: number, minor: number): bigint {
  const low = BigInt(minor & 0xff) | (BigInt(major & 0xfff) << 8n);
  return low | (BigInt(minor >>> 8) << 20n) | (BigInt(major >>> 12) << 44n);
}

/** The node of a record in a tree. `subtree`: the tree of a directory. */
export function nodeOfRecord(
  from: ScanTable,
  record: number,
  more: { group: LinkGroup | undefined; subtree: Uint8Array | null },
): TreeNode {
  const words = from.records;
  const base = record * RECORD_WORDS;
  const type = words[base + R.MODE]! >>> 12;
  const file = type === TYPE.FILE;
  const extras = recordExtras(from, record);
  const group = file ? more.group : undefined;
  const node: TreeNode = {
    name: from.recordName(record),
    type: NODE_TYPE[type] ?? "irregular",
    mode: words[base + R.MODE]! & 0o7777,
    mtimeSec: signedWide(words, base + R.MTIME),
    mtimeNs: words[base + R.MTIME_NS]!,
    uid: words[base + R.UID]!,
    gid: words[base + R.GID]!,
    user: userName(words[base + R.UID]!),
    group: groupName(words[base + R.GID]!),
    inode: group?.inode ?? 0n,
    deviceId: group === undefined ? 0n : 1n,
    links: type === TYPE.DIRECTORY ? 0 : (group?.members ?? 1),
    size: file ? wide(words, base + R.SIZE) : 0,
    xattrs: extras.xattrs,
    device:
      type === TYPE.CHARDEV || type === TYPE.BLOCKDEV
        ? deviceNumber(words[base + R.RDEV_MAJOR]!, words[base + R.RDEV_MINOR]!)
        : 0n,
  };
  if (file)
    node.content =
      node.size === 0
        ? EMPTY
        : (extras.chunks ?? from.recordBytes.subarray((base + R.HASH) * 4, (base + R.HASH + 8) * 4));
  else if (type === TYPE.LINK) node.linktarget = extras.target ?? EMPTY;
  else if (more.subtree !== null) node.subtree = more.subtree;
  return node;
}
