import { type Arena, newArena } from "../../native.ts";
import { HAS_NO_ATTRIBUTE } from "./errno.ts";
import { inDirectory, putName, syscalls } from "./syscalls.ts";

/** Bytes for the extended attributes of one folder; used for the few folders that no scan has read. */

const ROOM = 64 << 10;
const ACCESS_ACL = "system.posix_acl_access";
/** The attribute of a workspace's folder that names its control directory. */
export const FOLDER_NOTE = "user.cairn.control";
/** The layout of an access list: version 2, then entries with a tag, bits and an id. */
const LIST_VERSION = 2;
const TAG_GROUP = 0x04;
const TAG_MASK = 0x10;

/** Arenas made at the first use and kept, because an allocation takes longer than the call. No caller awaits while it uses them. */
let kept: { name: Arena; answer: Arena } | undefined;

function arenas(): { name: Arena; answer: Arena } {
  return (kept ??= { name: newArena(512), answer: newArena(ROOM) });
}

/** Returns names and values as text; equal attributes give equal text. Leaves out Cairn's own note. */
export function attributesOf(folder: Buffer): string[] {
  const sys = syscalls();
  const { name, answer } = arenas();
  return inDirectory(folder, (fd) => {
    const length = Math.max(sys.flistxattr(fd, answer), 0);
    const names = Buffer.from(answer.bytes.subarray(0, length))
      .toString("latin1")
      .split("\0")
      .filter((each) => each !== "" && each !== FOLDER_NOTE);
    return names.toSorted().map((each) => {
      putName(name, 0, Buffer.from(each, "latin1"));
      const size = sys.fgetxattr(fd, name, 0, answer, 0);
      return `${each}=${Buffer.from(answer.bytes.subarray(0, Math.max(size, 0))).toString("hex")}`;
    });
  });
}

/** Returns the attributes of an entry of an open directory, sorted by name; null if some cannot be read. */
export function attributesIn(directory: number, entry: Uint8Array): { name: Uint8Array; value: Uint8Array }[] | null {
  const sys = syscalls();
  const { name, answer } = arenas();
  putName(name, 0, entry);
  const length = sys.llistxattr(directory, name, 0, answer);
  if (length < 0) return HAS_NO_ATTRIBUTE.has(length) ? [] : null;
  const list = Buffer.from(answer.bytes.subarray(0, length));
  const found: { name: Uint8Array; value: Uint8Array }[] = [];
  for (let at = 0; at < length; at = list.indexOf(0, at) + 1) {
    const own = list.subarray(at, list.indexOf(0, at));
    const size = sys.lgetxattr(directory, name, 0, own, answer, 0);
    if (size >= 0) found.push({ name: own, value: Uint8Array.from(answer.bytes.subarray(0, size)) });
    else if (!HAS_NO_ATTRIBUTE.has(size)) return null;
  }
  return found.sort((a, b) => Buffer.compare(a.name, b.name));
}

/**
 * Returns the group's permission bits from a folder's access list; undefined without a list, or if this user may not
 * read the folder. With a list, the group bits of the mode are the list's mask, which limits them.
 */
export function listedGroupBits(folder: Buffer): number | undefined {
  const list = attributeOf(folder, ACCESS_ACL);
  if (list === null || list.length < 4 || list.readUInt32LE(0) !== LIST_VERSION) return undefined;
  const bits = new Map<number, number>();
  for (let at = 4; at + 8 <= list.length; at += 8) bits.set(list.readUInt16LE(at), list.readUInt16LE(at + 2) & 7);
  // Without a mask the mode has the group's own bits.
  return bits.has(TAG_MASK) ? bits.get(TAG_GROUP) : undefined;
}

/** Returns the value of a folder's attribute; null if there is none, or this user may not read it. */
export function attributeOf(folder: Buffer, attribute: string): Buffer | null {
  const { name, answer } = arenas();
  putName(name, 0, Buffer.from(attribute));
  try {
    const size = inDirectory(folder, (fd) => syscalls().fgetxattr(fd, name, 0, answer, 0));
    return size < 0 ? null : Buffer.from(answer.bytes.subarray(0, size));
  } catch {
    return null;
  }
}

/** Sets a folder's attribute; null removes it. Changes nothing if this user may not, or the file system has none. */
export function setAttributeOf(folder: Buffer, attribute: string, value: Uint8Array | null): void {
  const { name, answer } = arenas();
  putName(name, 0, Buffer.from(attribute));
  try {
    inDirectory(folder, (fd) => {
      if (value === null) return syscalls().fremovexattr(fd, name, 0);
      answer.bytes.set(value);
      return syscalls().fsetxattr(fd, name, 0, answer, 0, value.length);
    });
  } catch {
    // The folder is closed to this user.
  }
}
