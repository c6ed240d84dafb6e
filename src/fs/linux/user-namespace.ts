import fs from "node:fs";
import os from "node:os";
import type { arenaOver, bindNative, newArena, settleResult } from "../../native.ts";
import { MountTable } from "./mount-changes.ts";
import { SETGID, SETUID, type StatBuffer, STAT, type Syscalls, TYPE } from "./syscall-abi.ts";

/**
 * User and group ids in a user namespace. Points have the ids outside it, so that a host and its containers mean the
 * same user by a number. {@link Syscalls} take and return these ids; node:fs has the ids inside.
 */

/** The id of nobody: an owner without an id in this namespace. chown(2) leaves an owner as it is for this id. */
export const NO_ID = 0xffffffff;

/** The first id inside, the first id outside, and the number of ids, as in `/proc/self/uid_map`. */
type IdRange = readonly [inside: number, outside: number, count: number];

/** The ids of a namespace that has not all ids of its own. */
interface NamespaceIds {
  readonly uids: readonly IdRange[];
  readonly gids: readonly IdRange[];
}

let known: NamespaceIds | null | undefined;

/** Returns the maps of this process's user namespace; null if each id means the same inside and outside. */
export function namespaceIds(): NamespaceIds | null {
  if (known === undefined) {
    const [uids, gids] = [rangesOf("uid_map"), rangesOf("gid_map")];
    known = isWhole(uids) && isWhole(gids) ? null : { uids, gids };
  }
  return known;
}

const ALL: readonly IdRange[] = [[0, 0, NO_ID]];

function rangesOf(map: string): readonly IdRange[] {
  try {
    return parseRanges(fs.readFileSync(`/proc/self/${map}`, "latin1"));
  } catch {
    // Without /proc or namespaces there is nothing to translate.
    return ALL;
  }
}

/** Parses the lines of a map. */
function parseRanges(text: string): IdRange[] {
  return text
    .split("\n")
    .map((line) => line.trim().split(/\s+/).map(Number))
    .filter((numbers) => numbers.length === 3)
    .map(([inside, outside, count]) => [inside!, outside!, count!]);
}

function isWhole(ranges: readonly IdRange[]): boolean {
  return ranges.length === 1 && ranges[0]![0] === 0 && ranges[0]![1] === 0 && ranges[0]![2] === NO_ID;
}

function translate(ranges: readonly IdRange[], id: number, from: 0 | 1): number {
  const range = ranges.find((each) => id >= each[from] && id - each[from] < each[2]);
  return range === undefined ? NO_ID : id - range[from] + range[1 - from]!;
}

/** Returns the id outside of an id inside; `NO_ID` if the namespace does not have it. */
export function outsideId(kind: keyof NamespaceIds, id: number): number {
  const ids = namespaceIds();
  return ids === null ? id : translate(ids[kind], id, 0);
}

/** Returns the id inside of an id outside; `NO_ID` if the namespace does not have it. */
export function insideId(kind: keyof NamespaceIds, id: number): number {
  const ids = namespaceIds();
  return ids === null ? id : translate(ids[kind], id, 1);
}

/** The ids of this process, outside; -1, which no entry has, if it has none there. */
export function ownIds(): { uid: number; gid: number } {
  const uid = outsideId("uids", process.geteuid?.() ?? 0);
  const gid = outsideId("gids", process.getegid?.() ?? 0);
  return { uid: uid === NO_ID ? -1 : uid, gid: gid === NO_ID ? -1 : gid };
}

/** True for root of the machine, not for root of a user namespace, for example of a rootless container. */
export function isMachineRoot(): boolean {
  return process.geteuid?.() === 0 && ownIds().uid === 0;
}

/** True for a root who owns the system's folders: that of the machine, or of a container with files of its own. */
export function isSystemRoot(): boolean {
  return process.geteuid?.() === 0 && (isMachineRoot() || fs.statSync("/").uid === 0);
}

/** True if two owners may be the same: they are equal, or one is not known. */
export function mayBeSameId(one: number | undefined, other: number): boolean {
  return one === other || one === NO_ID || other === NO_ID;
}

interface Owned {
  uid: number;
  gid: number;
  mode: number;
  user: string;
  group: string;
}

/** Bits of the mode of a file that say nothing while its owner or group is not known. */
export function unknownBits(a: Pick<Owned, "uid" | "gid">): number {
  return (a.uid === NO_ID ? SETUID : 0) | (a.gid === NO_ID ? SETGID : 0);
}

/** Returns `node`. An unknown owner or group is replaced by that of `present`. `isSame`: both have the same content. */
export function withFormerOwner<T extends Owned>(node: T, present: Owned, isSame: boolean): T {
  const unknown = unknownBits(node);
  if (unknown === 0) return node;
  const user = unknown & SETUID ? { uid: present.uid, user: present.user } : {};
  const group = unknown & SETGID ? { gid: present.gid, group: present.group } : {};
  return { ...node, ...user, ...group, mode: isSame ? node.mode | (present.mode & unknown) : node.mode };
}

/** True if this process's user is the owner. */
export function isOwnId(uid: number): boolean {
  // The second: on an idmapped mount.
  return uid === ownIds().uid || uid === process.geteuid?.();
}

/** Returns the user id inside the namespace of an entry's stat result. */
export function insideOwner(words: Uint32Array): number {
  const uid = words[STAT.UID]!;
  return namespaceIds() === null || isOnDisk(words[STAT.MOUNT_ID]!) ? uid : insideId("uids", uid);
}

/** The functions of native.ts, given by the caller. */
interface Native {
  arenaOver: typeof arenaOver;
  bindNative: typeof bindNative;
  newArena: typeof newArena;
  settleResult: typeof settleResult;
}

/** Returns `sys` with ids outside of this process's user namespace. */
export function withOutsideIds(sys: Syscalls, native: Native): Syscalls {
  const ids = namespaceIds();
  if (ids === null) return sys;
  mountTable = openMountTable(native);
  return translated(sys, native, new Namespace(ids, native));
}

type Place = [fd: number, address: number];
const [EINVAL, EOVERFLOW] = [-os.constants.errno.EINVAL, -os.constants.errno.EOVERFLOW];

function translated(sys: Syscalls, { arenaOver, newArena }: Native, namespace: Namespace): Syscalls {
  const arena = newArena(256);
  const looked: StatBuffer = { arena, words: new Uint32Array(arena.bytes.buffer, arena.bytes.byteOffset, 64) };
  const empty = newArena(1);
  const give = (mount: number, uid: number, gid: number, call: (uid: number, gid: number) => number): number => {
    const own = namespace.inside(mount, uid, gid);
    return own === null ? EINVAL : call(...own);
  };
  const lists = arenaOver(Buffer.alloc(ROOM));
  const listed = (name: Uint8Array, at: number, result: number, value: Uint8Array): number => {
    const isShown = result <= 0 || value.length === 0 || !isAccessList(name, at);
    // A list without its users would be another list.
    return isShown || namespace.list(value.subarray(0, result), 0) ? result : EOVERFLOW;
  };
  return {
    ...sys,
    stat: (dirfd, names, name, out) => {
      const result = sys.stat(dirfd, names, name, out);
      if (result >= 0) namespace.show(out.words, [dirfd, names.address + name]);
      return result;
    },
    fstat: (fd, out) => {
      const result = sys.fstat(fd, out);
      if (result >= 0) namespace.show(out.words, [fd, empty.address]);
      return result;
    },
    fchown: (fd, uid, gid) => {
      const mount = sys.fstat(fd, looked) < 0 ? 0 : looked.words[STAT.MOUNT_ID]!;
      return give(mount, uid, gid, (...own) => sys.fchown(fd, ...own));
    },
    lchown: (dirfd, names, name, uid, gid) => {
      const mount = sys.stat(dirfd, names, name, looked) < 0 ? 0 : looked.words[STAT.MOUNT_ID]!;
      return give(mount, uid, gid, (...own) => sys.lchown(dirfd, names, name, ...own));
    },
    fgetxattr: (fd, names, name, out, offset) =>
      listed(names.bytes, name, sys.fgetxattr(fd, names, name, out, offset), out.bytes.subarray(offset)),
    lgetxattr: (dirfd, names, name, attribute, out, offset) =>
      listed(attribute, 0, sys.lgetxattr(dirfd, names, name, attribute, out, offset), out.bytes.subarray(offset)),
    fsetxattr: (fd, names, name, value, offset, length) => {
      if (!isAccessList(names.bytes, name)) return sys.fsetxattr(fd, names, name, value, offset, length);
      lists.bytes.set(value.bytes.subarray(offset, offset + length));
      const isKnown = namespace.list(lists.bytes.subarray(0, length), 1);
      return isKnown ? sys.fsetxattr(fd, names, name, lists, 0, length) : EINVAL;
    },
    lsetxattr: (dirfd, names, name, attribute, value) => {
      const own = Uint8Array.from(value);
      if (isAccessList(attribute, 0) && !namespace.list(own, 1)) return EINVAL;
      return sys.lsetxattr(dirfd, names, name, attribute, own);
    },
  };
}

const ROOM = 64 << 10;
const LISTS = Buffer.from("system.posix_acl_");

function isAccessList(name: Uint8Array, at: number): boolean {
  return LISTS.equals(name.subarray(at, at + LISTS.length));
}

const TAG_USER = 0x02;
const TAG_GROUP = 0x08;
const FACCESSAT2 = 439;
const MAY_WRITE = 2;
/** AT_SYMLINK_NOFOLLOW, AT_EACCESS and AT_EMPTY_PATH */
const THE_ENTRY = 0x100 | 0x200 | 0x1000;
const OTHERS_WRITE = 0o022;

class Namespace {
  readonly #ids: NamespaceIds;
  readonly #own = process.geteuid?.();
  /** the ids that the kernel shows for owners without an id here; a real user may have them, too */
  readonly #none = { uids: overflowId("uid"), gids: overflowId("gid") };
  /** Tells if this process may write an entry; null if the C library cannot ask. */
  readonly #mayWrite: ((...place: Place) => boolean) | null;

  constructor(ids: NamespaceIds, { bindNative, settleResult }: Native) {
    this.#ids = ids;
    const access = bindNative("int64_t syscall(int64_t n, int64_t d, uint64_t p, uint64_t mode, uint64_t flags)");
    this.#mayWrite = access && ((...place) => settleResult(access(FACCESSAT2, ...place, MAY_WRITE, THE_ENTRY)) === 0);
  }

  /** Puts the owner's ids outside into a stat result of the entry at `place`. */
  show(words: Uint32Array, place: Place): void {
    if (isOnDisk(words[STAT.MOUNT_ID]!)) return;
    const [uid, gid] = [words[STAT.UID]!, words[STAT.GID]!];
    const isUnclear = uid === this.#none.uids || gid === this.#none.gids;
    const isMapped = isUnclear && this.#isMapped(words[STAT.MODE]!, place);
    words[STAT.UID] = uid === this.#none.uids && !isMapped ? NO_ID : translate(this.#ids.uids, uid, 0);
    // An owner may write without a right that depends on the group, which then is mostly the owner's.
    const isGroupMapped = isMapped && (uid !== this.#own || gid === process.getegid?.());
    words[STAT.GID] = gid === this.#none.gids && !isGroupMapped ? NO_ID : translate(this.#ids.gids, gid, 0);
    // A restore elsewhere must not make the file run as whoever owns it there.
    if (((words[STAT.MODE]! >>> 12) & 15) === TYPE.FILE)
      words[STAT.MODE]! &= ~unknownBits({ uid: words[STAT.UID]!, gid: words[STAT.GID]! });
  }

  /**
   * True if an owner and group that look like none have ids here. The kernel lets root of a namespace write against the
   * mode only if it has both; asking for that changes nothing.
   */
  #isMapped(mode: number, place: Place): boolean {
    return (mode & OTHERS_WRITE) === 0 && this.#mayWrite?.(...place) === true;
  }

  /** Returns the ids here for chown(2); null if an id has none. */
  inside(mount: number, uid: number, gid: number): [number, number] | null {
    if (isOnDisk(mount)) return [uid, gid];
    const own = [translate(this.#ids.uids, uid, 1), translate(this.#ids.gids, gid, 1)] as [number, number];
    return (own[0] === NO_ID && uid !== NO_ID) || (own[1] === NO_ID && gid !== NO_ID) ? null : own;
  }

  /** Translates the ids in an access list (after 4 bytes: tag, rights, id); false if an id has none. */
  list(value: Uint8Array, from: 0 | 1): boolean {
    const view = new DataView(value.buffer, value.byteOffset, value.length);
    for (let at = 4; at + 8 <= value.length; at += 8) {
      const tag = view.getUint16(at, true);
      if (tag !== TAG_USER && tag !== TAG_GROUP) continue;
      const id = translate(tag === TAG_USER ? this.#ids.uids : this.#ids.gids, view.getUint32(at + 4, true), from);
      view.setUint32(at + 4, id, true);
      if (id === NO_ID) return false;
    }
    return true;
  }
}

/** By the id of a mount: true if it is idmapped. The kernel gives the id of a mount that has gone to another mount. */
const idmapped = new Map<number, boolean>();
let mountTable: MountTable | null = null;

/** True for an idmapped mount. Its ids are those on the disk, which pods with other namespaces see as the same, too. */
function isOnDisk(mount: number): boolean {
  if (mountTable?.hasChanged() === true) idmapped.clear();
  const seen = idmapped.get(mount);
  if (seen !== undefined) return seen;
  idmapped.set(mount, false);
  for (const line of mountLines()) {
    const fields = line.split(" ");
    idmapped.set(Number(fields[0]), fields[5]?.split(",").includes("idmapped") === true);
  }
  return idmapped.get(mount)!;
}

/** Null without /proc. */
function openMountTable(native: Native): MountTable | null {
  try {
    return new MountTable(native);
  } catch {
    return null;
  }
}

function mountLines(): string[] {
  try {
    return fs.readFileSync("/proc/self/mountinfo", "latin1").split("\n");
  } catch {
    return [];
  }
}

function overflowId(kind: "uid" | "gid"): number {
  try {
    return Number(fs.readFileSync(`/proc/sys/kernel/overflow${kind}`, "latin1"));
  } catch {
    return 65534;
  }
}
