import { type Arena, newArena } from "../../native.ts";
import { inDirectory, putName, syscalls } from "./syscalls.ts";

/** Extended attributes of one folder; for the few folders that no scan has read. */

const ROOM = 64 << 10;
const ACCESS_ACL = Buffer.from("system.posix_acl_access");
/** Layout of an access list: version 2, then entries of a tag, bits and an id. */
const LIST_VERSION = 2;
const TAG_GROUP = 0x04;
const TAG_MASK = 0x10;

/** Made when it is first needed, and kept: to allocate it takes longer than to ask. Nothing waits while it is in use. */
let kept: { name: Arena; answer: Arena } | undefined;

function arenas(): { name: Arena; answer: Arena } {
  return (kept ??= { name: newArena(512), answer: newArena(ROOM) });
}

/** Names and values, as text that is equal for equal attributes. */
export function attributesOf(folder: Buffer): string[] {
  const sys = syscalls();
  const { name, answer } = arenas();
  return inDirectory(folder, (fd) => {
    const length = Math.max(sys.flistxattr(fd, answer), 0);
    const names = Buffer.from(answer.bytes.subarray(0, length))
      .toString("latin1")
      .split("\0")
      .filter((each) => each !== "");
    return names.toSorted().map((each) => {
      putName(name, 0, Buffer.from(each, "latin1"));
      const size = sys.fgetxattr(fd, name, 0, answer, 0);
      return `${each}=${Buffer.from(answer.bytes.subarray(0, Math.max(size, 0))).toString("hex")}`;
    });
  });
}

/**
 * Returns what a folder's access list says of its group, as permission bits; undefined where it has none, or where this
 * user may not look into the folder. Its mode has the list's mask in their place then, which limits them.
 */
export function listedGroupBits(folder: Buffer): number | undefined {
  const list = accessListOf(folder);
  if (list === null || list.length < 4 || list.readUInt32LE(0) !== LIST_VERSION) return undefined;
  const bits = new Map<number, number>();
  for (let at = 4; at + 8 <= list.length; at += 8) bits.set(list.readUInt16LE(at), list.readUInt16LE(at + 2) & 7);
  // Without a mask the mode has the group's own.
  return bits.has(TAG_MASK) ? bits.get(TAG_GROUP) : undefined;
}

function accessListOf(folder: Buffer): Buffer | null {
  const { name, answer } = arenas();
  putName(name, 0, ACCESS_ACL);
  try {
    const size = inDirectory(folder, (fd) => syscalls().fgetxattr(fd, name, 0, answer, 0));
    return size < 0 ? null : Buffer.from(answer.bytes.subarray(0, size));
  } catch {
    return null;
  }
}
