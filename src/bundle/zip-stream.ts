import { isUtf8 } from "node:buffer";
import zlib from "node:zlib";
import type { NodeType, TreeNode } from "../formats/restic/tree.ts";
import { clamped, deflated, DEFLATED, endOf, extraOf, MADE_BY_UNIX, MOST_32, STORED, UTF8 } from "./zip-writer.ts";

/** File types as `st_mode` has them. A zip has no other entries. */
const TYPES: Partial<Record<NodeType, number>> = { file: 0o100000, dir: 0o040000, symlink: 0o120000 };
/** Sizes and checksum follow the content. */
const FOLLOWED = 1 << 3;
/** Deflated content may be a little longer than the content. */
const LONG_FROM = MOST_32 - (64 << 20);
const SLASH = Buffer.from("/");

interface Member {
  name: Buffer;
  node: TreeNode;
  at: number;
  method: number;
  size: number;
  packedSize: number;
  crc: number;
}

/** Makes a zip of entries of a tree as a stream: each byte is made once, in order. Modes, owners and times are kept. */
export class ZipStream {
  readonly #members: Member[] = [];
  #at = 0;

  /** False for an entry that a zip cannot hold: a device, a pipe, a socket. */
  static holds({ type }: TreeNode): boolean {
    return TYPES[type] !== undefined;
  }

  /** Adds an entry that a zip can hold, after the bytes of the entry before. */
  add(path: Uint8Array, node: TreeNode, content: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
    const name = Buffer.concat(node.type === "dir" ? [path, SLASH] : [path]);
    const method = node.type === "file" && node.size > 0 ? DEFLATED : STORED;
    const member = { name, node, at: this.#at, method, size: 0, packedSize: 0, crc: 0 };
    return this.#counted(method === DEFLATED ? deflatedMember(member, content) : storedMember(member), member);
  }

  /** Returns the central directory. An archive without it is incomplete. */
  *end(): Generator<Uint8Array> {
    const from = this.#at;
    for (const member of this.#members) {
      const header = listHeader(member);
      this.#at += header.length;
      yield header;
    }
    yield endOf({ count: this.#members.length, from, bytes: this.#at - from });
  }

  async *#counted(pieces: AsyncIterable<Uint8Array>, member: Member): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      this.#at += piece.length;
      yield piece;
    }
    this.#members.push(member);
  }
}

async function* storedMember(member: Member): AsyncGenerator<Uint8Array> {
  const target = member.node.type === "symlink" ? Buffer.from(member.node.linktarget ?? []) : Buffer.alloc(0);
  member.size = member.packedSize = target.length;
  member.crc = zlib.crc32(target);
  yield localHeader(member);
  yield target;
}

async function* deflatedMember(member: Member, content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield localHeader(member);
  const counted = async function* (): AsyncGenerator<Buffer> {
    for await (const piece of content) {
      member.crc = zlib.crc32(piece, member.crc);
      member.size += piece.length;
      yield Buffer.from(piece.buffer, piece.byteOffset, piece.length);
    }
  };
  for await (const piece of deflated(counted())) {
    member.packedSize += piece.length;
    yield piece;
  }
  const { crc, size, packedSize } = member;
  const isLong = member.node.size >= LONG_FROM;
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
  yield descriptor;
}

/** The fields that both headers of a member share, from `at` on. */
function writeFields(head: Buffer, at: number, { name, node, method, crc }: Member): void {
  const flags = (method === DEFLATED ? FOLLOWED : 0) | (isUtf8(name) && name.some((byte) => byte > 0x7e) ? UTF8 : 0);
  head.writeUInt16LE(flags, at);
  head.writeUInt16LE(method, at + 2);
  head.writeUInt32LE(dosTime(node.mtimeSec), at + 4);
  head.writeUInt32LE(crc, at + 8);
}

function localHeader(member: Member): Buffer {
  const { name, node, method, size } = member;
  const isLong = method === DEFLATED && node.size >= LONG_FROM;
  const extra = Buffer.concat([...(isLong ? [extraOf([0, 0])] : []), unixFields(node)]);
  const head = Buffer.alloc(30);
  head.writeUInt32LE(0x04034b50, 0);
  head.writeUInt16LE(isLong ? 45 : 20, 4);
  writeFields(head, 6, member);
  head.writeUInt32LE(isLong ? MOST_32 : size, 18);
  head.writeUInt32LE(isLong ? MOST_32 : size, 22);
  head.writeUInt16LE(name.length, 26);
  head.writeUInt16LE(extra.length, 28);
  return Buffer.concat([head, name, extra]);
}

function listHeader(member: Member): Buffer {
  const { name, node, at, size, packedSize } = member;
  const long = [size, packedSize, at].filter((each) => each >= MOST_32);
  const extra = Buffer.concat([...(long.length > 0 ? [extraOf(long)] : []), unixFields(node)]);
  const head = Buffer.alloc(46);
  head.writeUInt32LE(0x02014b50, 0);
  head.writeUInt16LE(MADE_BY_UNIX | 45, 4);
  head.writeUInt16LE(long.length > 0 ? 45 : 20, 6);
  writeFields(head, 8, member);
  head.writeUInt32LE(clamped(packedSize), 20);
  head.writeUInt32LE(clamped(size), 24);
  head.writeUInt16LE(name.length, 28);
  head.writeUInt16LE(extra.length, 30);
  const mode = TYPES[node.type]! | (node.mode & 0o7777);
  head.writeUInt32LE(((mode << 16) | (node.type === "dir" ? 0x10 : 0)) >>> 0, 38);
  head.writeUInt32LE(clamped(at), 42);
  return Buffer.concat([head, name, extra]);
}

/** The extra fields with the owners, and the time in seconds since 1970 if it fits into four bytes. */
function unixFields({ mtimeSec, uid, gid }: TreeNode): Buffer {
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
