import { isUtf8 } from "node:buffer";
import type { NodeType, TreeNode } from "../restic/tree.ts";

/** Headers of zip archives; sizes and offsets have eight bytes if four are too few. */

export const STORED = 0;
export const DEFLATED = 8;
/** The largest number in four bytes. In a field it means that the extra field has the number. */
export const MOST_32 = 0xffff_ffff;
const UTF8 = 1 << 11;
const FOLLOWED = 1 << 3;
const MADE_BY_UNIX = 3 << 8;
/** File types as `st_mode` has them. A zip has no other entries. */
const TYPES: Partial<Record<NodeType, number>> = { file: 0o100000, dir: 0o040000, symlink: 0o120000 };

/** An entry as a zip has it. Without `uid` and `gid`, equal content gives equal bytes for every user. */
export type ZipNode = Pick<TreeNode, "type" | "mode" | "mtimeSec" | "size" | "linktarget"> &
  Partial<Pick<TreeNode, "uid" | "gid">>;

export interface ZipMember {
  /** ends with a slash for a folder */
  name: Uint8Array;
  node: ZipNode;
  /** offset of the local header */
  at: number;
  method: typeof STORED | typeof DEFLATED;
  /** True if sizes and checksum follow the content. */
  isFollowed: boolean;
  /** True if the sizes beside the content have eight bytes each, even if they are small. */
  isLong: boolean;
  size: number;
  packedSize: number;
  crc: number;
}

/** False for an entry that a zip cannot hold: a device, a pipe, a socket. */
export function isInZip({ type }: Pick<ZipNode, "type">): boolean {
  return TYPES[type] !== undefined;
}

/** Returns the header that precedes the content. */
export function zipHeader(member: ZipMember): Buffer {
  const { name, node, isLong, isFollowed, size, packedSize } = member;
  const sizes = isFollowed ? [0, 0] : [size, packedSize];
  const extra = Buffer.concat([...(isLong ? [extraOf(sizes)] : []), unixFields(node)]);
  const head = Buffer.alloc(30);
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(isLong ? 45 : 20, 4);
  writeFields(head, 6, member, isFollowed ? 0 : member.crc);
  head.writeUInt32LE(isLong ? MOST_32 : sizes[1]!, 18);
  head.writeUInt32LE(isLong ? MOST_32 : sizes[0]!, 22);
  head.writeUInt16LE(name.length, 26);
  head.writeUInt16LE(extra.length, 28);
  return Buffer.concat([head, name, extra]);
}

/** Returns sizes and checksum, which follow the content of a member with `isFollowed`. */
export function zipDescriptor({ crc, size, packedSize, isLong }: ZipMember): Buffer {
  const descriptor = Buffer.alloc(isLong ? 24 : 16);
  descriptor.writeUInt32LE(0x08074b50, 0);
  descriptor.writeUInt32LE(crc, 4);
  if (isLong) {
    descriptor.writeBigUInt64LE(BigInt(packedSize), 8);
    descriptor.writeBigUInt64LE(BigInt(size), 16);
  } else {
    descriptor.writeUInt32LE(packedSize, 8);
    descriptor.writeUInt32LE(size, 12);
  }
  return descriptor;
}

/** Returns the entry of the central directory. */
export function zipListing(member: ZipMember): Buffer {
  const { name, node, at, size, packedSize, crc } = member;
  const long = [size, packedSize, at].filter((each) => each >= MOST_32);
  const extra = Buffer.concat([...(long.length > 0 ? [extraOf(long)] : []), unixFields(node)]);
  const head = Buffer.alloc(46);
  head.writeUInt32LE(0x02014b50, 0);
  head.writeUInt16LE(MADE_BY_UNIX | 45, 4);
  head.writeUInt16LE(long.length > 0 ? 45 : 20, 6);
  writeFields(head, 8, member, crc);
  head.writeUInt32LE(clamped(packedSize), 20);
  head.writeUInt32LE(clamped(size), 24);
  head.writeUInt16LE(name.length, 28);
  head.writeUInt16LE(extra.length, 30);
  const mode = TYPES[node.type]! | (node.mode & 0o7777);
  head.writeUInt32LE(((mode << 16) | (node.type === "dir" ? 0x10 : 0)) >>> 0, 38);
  head.writeUInt32LE(clamped(at), 42);
  return Buffer.concat([head, name, extra]);
}

/** Returns the end of a zip: the offset and length of the central directory. */
export function zipEnd({ count, from, bytes }: { count: number; from: number; bytes: number }): Buffer {
  const isLong = count >= 0xffff || from >= MOST_32 || bytes >= MOST_32;
  const end = Buffer.alloc(22);
  end.writeUInt32LE(0x06054b50, 0);
  end.writeUInt16LE(Math.min(count, 0xffff), 8);
  end.writeUInt16LE(Math.min(count, 0xffff), 10);
  end.writeUInt32LE(clamped(bytes), 12);
  end.writeUInt32LE(clamped(from), 16);
  if (!isLong) return end;
  const long = Buffer.alloc(56 + 20);
  long.writeUInt32LE(0x06064b50, 0);
  long.writeBigUInt64LE(44n, 4);
  long.writeUInt16LE(MADE_BY_UNIX | 45, 12);
  long.writeUInt16LE(45, 14);
  long.writeBigUInt64LE(BigInt(count), 24);
  long.writeBigUInt64LE(BigInt(count), 32);
  long.writeBigUInt64LE(BigInt(bytes), 40);
  long.writeBigUInt64LE(BigInt(from), 48);
  long.writeUInt32LE(0x07064b50, 56);
  long.writeBigUInt64LE(BigInt(from + bytes), 64);
  long.writeUInt32LE(1, 72);
  return Buffer.concat([long, end]);
}

/** Writes the fields that both headers of a member share, from `at` on. */
function writeFields(head: Buffer, at: number, { name, node, method, isFollowed }: ZipMember, crc: number): void {
  const flags = (isFollowed ? FOLLOWED : 0) | (isUtf8(name) && name.some((byte) => byte > 0x7e) ? UTF8 : 0);
  head.writeUInt16LE(flags, at);
  head.writeUInt16LE(method, at + 2);
  head.writeUInt32LE(dosTime(node.mtimeSec), at + 4);
  head.writeUInt32LE(crc, at + 8);
}

/** The extra field with sizes and offsets of eight bytes. */
function extraOf(values: readonly number[]): Buffer {
  const extra = Buffer.alloc(4 + 8 * values.length);
  extra.writeUInt16LE(1, 0);
  extra.writeUInt16LE(8 * values.length, 2);
  for (const [i, value] of values.entries()) extra.writeBigUInt64LE(BigInt(value), 4 + 8 * i);
  return extra;
}

/** The extra fields with the owners, and the time in seconds since 1970 if it fits into four bytes. */
function unixFields({ mtimeSec, uid, gid }: ZipNode): Buffer {
  if (uid === undefined || gid === undefined) return Buffer.alloc(0);
  const hasTime = Math.abs(mtimeSec) < 2 ** 31;
  const fields = Buffer.alloc(hasTime ? 24 : 15);
  const at = hasTime ? 9 : 0;
  if (hasTime) {
    fields.writeUInt16LE(0x5455, 0);
    fields.writeUInt16LE(5, 2);
    fields[4] = 1;
    fields.writeInt32LE(mtimeSec, 5);
  }
  fields.writeUInt16LE(0x7875, at);
  fields.writeUInt16LE(11, at + 2);
  fields.writeUInt16LE(0x0401, at + 4);
  fields.writeUInt32LE(uid, at + 6);
  fields[at + 10] = 4;
  fields.writeUInt32LE(gid, at + 11);
  return fields;
}

/** Date and time in UTC as zip's oldest fields have them: from 1980 to 2107, in steps of two seconds. */
function dosTime(seconds: number): number {
  const first = Date.UTC(1980, 0, 1);
  const last = Date.UTC(2107, 11, 31, 23, 59, 58);
  const date = new Date(Math.min(last, Math.max(first, seconds * 1000)));
  const day = ((date.getUTCFullYear() - 1980) << 9) | ((date.getUTCMonth() + 1) << 5) | date.getUTCDate();
  const time = (date.getUTCHours() << 11) | (date.getUTCMinutes() << 5) | (date.getUTCSeconds() >> 1);
  return ((day << 16) | time) >>> 0;
}

/** A size for a field of four bytes; a larger size is in the extra field. */
function clamped(size: number): number {
  return Math.min(size, MOST_32);
}
