import fs from "node:fs";
import path from "node:path";
import { advice, CairnError, call, codeOfErrno, throwIfAborted, toCairnError, word } from "../../errors.ts";
import type { ErrorCode } from "../../errors.ts";
import { type Arena, bindNative, lastErrno, type NativeFunction, newArena } from "../../native.ts";
import {
  ARGUMENT_SIZE,
  BTRFS_MAGIC,
  DIRECTORY_ITEM,
  INFO,
  INODE_ITEM,
  INODE_LOOKUP,
  LOOKUP,
  NAME_MAX,
  READ_ONLY,
  REQUEST,
  ROOT_INODE,
  ROOTREF,
  SEARCH,
  SPEC_BY_ID,
  VOL_ARGS_NAME,
  VOL_ARGS_V2,
} from "./btrfs-abi.ts";
import { filesystemUuid, kindOfMagic } from "./mounts.ts";
import { namesIn } from "../paths/names-in.ts";
import { checkName, printablePath, rawBytes } from "../paths/safe-path.ts";
import type { RawPath } from "../paths/safe-path.ts";
import { EINTR, errnoName, inDirectory, openOwnWay } from "./syscalls.ts";

/**
 * Makes and removes subvolumes and snapshots of btrfs, by ioctl on open directories. Calls that may wait for the disk
 * run on a thread of the pool and cannot be stopped. Errors have `details.errno`: `unsupported` (not btrfs, not a
 * subvolume, a swap file in use), `usage` (an unfit name), `conflict` (subvolumes inside), else the errno's own code.
 */

/** Larger than struct statfs on every system; the type number comes first. */
const STATFS_SIZE = 256;
const EOVERFLOW = 75;

export interface SubvolumeInfo {
  /** Unique in the file system; never reused. */
  readonly id: number;
  /** The subvolume's name in its directory; empty for the top level. */
  readonly name: Buffer;
  /**
   * The parent subvolume and the directory in it that has this subvolume; 0 for the top level and a deleted subvolume.
   */
  readonly parentId: number;
  readonly directoryInode: number;
  /** Transaction of the last change of the subvolume's tree on disk. */
  readonly generation: number;
  readonly readOnly: boolean;
  readonly uuid: string;
  /** UUIDs of a snapshot's source and of the source of a received subvolume; null without one. */
  readonly parentUuid: string | null;
  readonly receivedUuid: string | null;
  /** Transactions of the last change of the tree (at `changed`), and of the creation. */
  readonly ctransid: number;
  readonly otransid: number;
  /**
   * Time of the tree's last change, in ms since 1970. In a snapshot: of the source's last change before the snapshot's
   * commit. A write to an existing file changes the tree only when the kernel writes the content out.
   */
  readonly changed: number;
  /** Time of the creation, in ms since 1970. */
  readonly made: number;
}

export interface NestedSubvolume {
  readonly id: number;
  /** Path below the directory asked about, raw bytes; null if this user may not look the path up. */
  readonly path: Buffer | null;
}

type Ioctl = NativeFunction & { async?: (...args: unknown[]) => void };

let bound: Ioctl | null | undefined;

function ioctl(): Ioctl {
  bound ??= bindNative("int ioctl(int fd, unsigned long request, uint64_t argument)");
  if (bound === null) {
    throw new CairnError("unsupported", "the C library has no ioctl");
  }
  return bound;
}

/** Calls btrfs. Returns 0 or the errno. Only for calls that do not wait for the disk. */
function ask(fd: number, request: number, argument: Arena): number {
  const call = ioctl();
  for (;;) {
    if (call(fd, request, argument.address) >= 0) return 0;
    const errno = lastErrno();
    if (errno !== EINTR) return errno;
  }
}

/** Calls btrfs. Returns 0 or the errno. Waits on a thread of the pool, so timers and signals go on. */
async function callBtrfs(fd: number, request: number, argument: Arena): Promise<number> {
  const call = ioctl();
  if (call.async === undefined) return ask(fd, request, argument);
  for (;;) {
    const errno = await new Promise<number>((resolve, reject) => {
      const ended = (error: unknown, result: number): void => {
        // The callback's thread still has the errno of its own call.
        if (error) reject(toCairnError(error, "call btrfs"));
        else resolve(result >= 0 ? 0 : lastErrno());
      };
      try {
        call.async!(fd, request, argument.address, ended);
      } catch {
        // The pool limits the number of waiting calls.
        resolve(ask(fd, request, argument));
      }
    });
    // The argument is named here so that its bytes live as long as the call.
    if (errno !== EINTR || argument.bytes.length === 0) return errno;
  }
}

const CODES: Readonly<Record<string, ErrorCode>> = {
  ENOTTY: "unsupported",
  EOPNOTSUPP: "unsupported",
  EXDEV: "unsupported",
  EINVAL: "unsupported",
  ENOTEMPTY: "conflict",
  ETXTBSY: "unsupported",
  EBUSY: "busy",
};

const HINTS: Readonly<Record<string, string>> = {
  ENOTTY: "choose another engine: this file system is not btrfs",
  EXDEV: "put both on the same btrfs file system",
  EROFS: "the file system is mounted read-only, or the folder lies in a read-only snapshot",
  EDQUOT: "a quota group is full: raise its limit or remove points",
  ETXTBSY: "turn the swap file off with swapoff, or move it to a subvolume of its own",
};

/** Texts for errnos whose names do not explain the failure here. */
const MEANINGS: Readonly<Record<string, string>> = { ETXTBSY: "it contains a swap file that is in use (ETXTBSY)" };

type Hints = Readonly<Record<string, string>>;

function failure(errno: number, doing: string, hints: Hints = {}): CairnError {
  const name = errnoName(errno);
  const hint = hints[name] ?? HINTS[name];
  return new CairnError(CODES[name] ?? codeOfErrno(name), `${doing}: ${MEANINGS[name] ?? name}`, {
    ...(hint === undefined ? {} : { hint }),
    details: { errno: name },
  });
}

/** Returns the path at which a call was tried, for an error's message. */
function shownPlace(parentFd: number, name: string | Uint8Array): string {
  let parent = Buffer.from("?");
  try {
    parent = fs.readlinkSync(`/proc/self/fd/${parentFd}`, { encoding: "buffer" });
  } catch {
    // The message says `?` instead of the folder.
  }
  return printablePath(Buffer.concat([parent, Buffer.from("/"), rawBytes(name)]));
}

/** Returns a new argument with a name in it. Throws `usage` if the name cannot be a directory's name. */
function namedArgument(name: string | Uint8Array, at: number): Arena {
  const bytes = rawBytes(name);
  checkName(bytes);
  if (bytes.length > NAME_MAX) {
    throw new CairnError("usage", `the name ${printablePath(bytes)} has ${bytes.length} bytes`, {
      hint: `names have at most ${NAME_MAX} bytes`,
    });
  }
  const argument = newArena(ARGUMENT_SIZE);
  argument.bytes.set(bytes, at);
  return argument;
}

function viewOf(argument: Arena): DataView {
  return new DataView(argument.bytes.buffer, argument.bytes.byteOffset, argument.bytes.length);
}

function textAt(argument: Arena, at: number): Buffer {
  return Buffer.from(argument.bytes.subarray(at, argument.bytes.indexOf(0, at)));
}

/** True if a directory (a path whose last link is not followed, or a descriptor) is the root of a btrfs subvolume. */
export function isSubvolume(place: RawPath | number): boolean {
  try {
    const stats = typeof place === "number" ? fs.fstatSync(place) : fs.lstatSync(place);
    if (!stats.isDirectory() || stats.ino !== ROOT_INODE) return false;
    const magic = typeof place === "number" ? magicOf(place) : fs.statfsSync(place).type;
    return magic >>> 0 === BTRFS_MAGIC;
  } catch (error) {
    throw toCairnError(error, `look at ${typeof place === "number" ? "a held folder" : printablePath(place)}`);
  }
}

let fstatfs: NativeFunction | null | undefined;

/** Returns the type number of the file system that holds an open directory. */
function magicOf(fd: number): number {
  fstatfs ??= bindNative("int fstatfs(int fd, uint64_t facts)");
  if (fstatfs === null) return fs.statfsSync(`/proc/self/fd/${fd}`).type;
  const facts = newArena(STATFS_SIZE);
  for (;;) {
    if (fstatfs(fd, facts.address) >= 0) return viewOf(facts).getUint32(0, true);
    const errno = lastErrno();
    if (errno !== EINTR) throw failure(errno, "ask for the file system of a held folder");
  }
}

/** Throws `unsupported` if a directory is not a subvolume. The error names the actual kind of folder and a remedy. */
export function requireSubvolume(fd: number, shown: string): void {
  if (isSubvolume(fd)) return;
  const { name } = kindOfMagic(magicOf(fd));
  if (name !== "btrfs") {
    throw new CairnError("unsupported", `${shown} lies on ${name}, not on btrfs`, { hint: "choose another engine" });
  }
  throw new CairnError("unsupported", `${shown} is a plain directory on btrfs, not a subvolume`, {
    hint: advice`${call("init --engine btrfs-snapshot", "openOrInit", word("path"), { engineType: "btrfs-snapshot" })} makes it one in place`,
  });
}

/**
 * Returns the kernel's facts about the subvolume of an open file or directory, in a few µs for any size, for any user.
 */
export function subvolumeInfo(fd: number): SubvolumeInfo {
  const argument = newArena(INFO.SIZE);
  const errno = ask(fd, REQUEST.GET_SUBVOL_INFO, argument);
  if (errno !== 0) throw failure(errno, "ask btrfs about a subvolume");
  const view = viewOf(argument);
  const number = (at: number): number => Number(view.getBigUint64(at, true));
  return {
    id: number(INFO.ID),
    name: textAt(argument, INFO.NAME),
    parentId: number(INFO.PARENT_ID),
    directoryInode: number(INFO.DIRECTORY),
    generation: number(INFO.GENERATION),
    // On disk read-only is bit 0 of the flags; in GETFLAGS and SETFLAGS read-only is bit 1.
    readOnly: (view.getBigUint64(INFO.FLAGS, true) & 1n) !== 0n,
    uuid: uuidAt(argument, INFO.UUID) ?? "",
    parentUuid: uuidAt(argument, INFO.PARENT_UUID),
    receivedUuid: uuidAt(argument, INFO.RECEIVED_UUID),
    ctransid: number(INFO.CTRANSID),
    otransid: number(INFO.OTRANSID),
    changed: number(INFO.CTIME) * 1000 + view.getUint32(INFO.CTIME + 8, true) / 1e6,
    made: number(INFO.OTIME) * 1000 + view.getUint32(INFO.OTIME + 8, true) / 1e6,
  };
}

/** Returns the UUID of the subvolume whose root is at a path (a last link is not followed), as 32 hex digits. */
export function subvolumeUuid(place: RawPath): string {
  const fd = fs.openSync(place, FOLDER | fs.constants.O_NOFOLLOW);
  try {
    return subvolumeInfo(fd).uuid.replaceAll("-", "");
  } finally {
    fs.closeSync(fd);
  }
}

function uuidAt(argument: Arena, at: number): string | null {
  const hex = Buffer.from(argument.bytes.subarray(at, at + 16)).toString("hex");
  if (/^0*$/.test(hex)) return null;
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Makes an empty subvolume `name` in an open directory; durable with the file system's next commit. */
export async function createSubvolume(parentFd: number, name: string | Uint8Array): Promise<void> {
  const argument = namedArgument(name, VOL_ARGS_V2.NAME);
  const errno = await callBtrfs(parentFd, REQUEST.SUBVOL_CREATE_V2, argument);
  if (errno !== 0) throw failure(errno, `make the subvolume ${shownPlace(parentFd, name)}`);
}

/** Makes an empty subvolume at an absolute path that does not exist. Throws the errors of {@link createSubvolume}. */
export async function makeSubvolume(place: Buffer): Promise<void> {
  const at = place.lastIndexOf(0x2f);
  const parent = openFolder(at <= 0 ? "/" : place.subarray(0, at));
  try {
    await createSubvolume(parent, place.subarray(at + 1));
  } finally {
    fs.closeSync(parent);
  }
}

function openFolder(place: RawPath): number {
  try {
    return openOwnWay(place, FOLDER);
  } catch (error) {
    throw toCairnError(error, `open ${printablePath(rawBytes(place))}`);
  }
}

/**
 * Makes `name` in an open directory a snapshot of the subvolume whose root is `fromFd`, durable when this returns. The
 * call writes the page cache out, then commits; unsynced writes between both are missing, so a file may have its
 * earlier content or be cut short. An ordinary user must own the subvolume's root.
 */
export async function createSnapshot(
  fromFd: number,
  parentFd: number,
  name: string | Uint8Array,
  options: { readOnly: boolean },
): Promise<void> {
  const errno = await callBtrfs(parentFd, REQUEST.SNAP_CREATE_V2, snapshotArgument(fromFd, name, options.readOnly));
  if (errno === 0) return;
  throw failure(errno, `make the snapshot ${shownPlace(parentFd, name)}`, {
    ENOTTY: "put the snapshot on the same btrfs file system as its subvolume",
    EPERM: "only root and the owner of a subvolume's root directory may snapshot it",
    EINVAL: "name a whole subvolume: btrfs cannot snapshot a directory inside one",
  });
}

function snapshotArgument(fromFd: number, name: string | Uint8Array, readOnly: boolean): Arena {
  const argument = namedArgument(name, VOL_ARGS_V2.NAME);
  const view = viewOf(argument);
  view.setBigInt64(VOL_ARGS_V2.FD, BigInt(fromFd), true);
  view.setBigUint64(VOL_ARGS_V2.FLAGS, readOnly ? READ_ONLY : 0n, true);
  return argument;
}

/**
 * Writes unsynced content of the subvolume `fromFd` into its tree without a commit: asks for a snapshot under the taken
 * name `taken`, which the kernel refuses after the write-out. False if the kernel answers otherwise. The order is not
 * documented, so callers test it first.
 */
export async function settleSubvolume(fromFd: number, parentFd: number, taken: string | Uint8Array): Promise<boolean> {
  const errno = await callBtrfs(parentFd, REQUEST.SNAP_CREATE_V2, snapshotArgument(fromFd, taken, true));
  // The name was free, so the kernel made a snapshot.
  if (errno === 0) await destroySubvolume(parentFd, taken);
  return errnoName(errno) === "EEXIST";
}

const DESTROY_HINTS: Hints = {
  EPERM:
    "mount with user_subvol_rm_allowed to let an ordinary user remove it; btrfs never removes the default subvolume, or one that `btrfs send` reads",
  EROFS: "make the read-only snapshot writable first, or remove it as root",
  ENOTEMPTY: "remove the subvolumes inside it first",
  EINVAL: "it is not a subvolume, or it is a mount point",
};

/**
 * Removes the subvolume `name` of an open directory with its content: gone at once, durably with the next commit; the
 * kernel frees the space later. An ordinary user needs the mount option `user_subvol_rm_allowed`, and a writable
 * subvolume ({@link setReadOnly}). Throws `conflict` if another subvolume lies inside.
 */
export async function destroySubvolume(parentFd: number, name: string | Uint8Array): Promise<void> {
  const argument = namedArgument(name, VOL_ARGS_NAME);
  const errno = await callBtrfs(parentFd, REQUEST.SNAP_DESTROY, argument);
  if (errno !== 0) throw failure(errno, `remove the subvolume ${shownPlace(parentFd, name)}`, DESTROY_HINTS);
}

/**
 * Removes an open subvolume of an open directory without waiting for the event loop, even if it was renamed. Makes it
 * writable first; if it cannot be removed as a whole (subvolumes inside, no right, a kernel before 5.7), its entries
 * can then be removed. True if it is gone. The caller closes its descriptor.
 */
export function destroyOpenSubvolume(parentFd: number, fd: number): boolean {
  const argument = newArena(8);
  viewOf(argument).setBigUint64(0, flagsOf(fd, argument) & ~READ_ONLY, true);
  ask(fd, REQUEST.SUBVOL_SETFLAGS, argument);
  return ask(parentFd, REQUEST.SNAP_DESTROY_V2, byId(subvolumeInfo(fd).id)) === 0;
}

function byId(id: number): Arena {
  const argument = newArena(ARGUMENT_SIZE);
  const view = viewOf(argument);
  view.setBigUint64(VOL_ARGS_V2.FLAGS, SPEC_BY_ID, true);
  view.setBigUint64(VOL_ARGS_V2.ID, BigInt(id), true);
  return argument;
}

const FOLDER = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY;

function flagsOf(fd: number, argument: Arena): bigint {
  const errno = ask(fd, REQUEST.SUBVOL_GETFLAGS, argument);
  if (errno !== 0) throw failure(errno, "ask whether a subvolume is read-only");
  return viewOf(argument).getBigUint64(0, true);
}

/** True if the subvolume whose root is `fd` refuses every write, even root's. */
export function isReadOnly(fd: number): boolean {
  return (flagsOf(fd, newArena(8)) & READ_ONLY) !== 0n;
}

/**
 * Makes the subvolume whose root is `fd` read-only or writable; for its owner and root. A process that has a file open
 * for writing can still write to it afterwards.
 */
export async function setReadOnly(fd: number, readOnly: boolean): Promise<void> {
  const argument = newArena(8);
  const flags = flagsOf(fd, argument);
  const wanted = readOnly ? flags | READ_ONLY : flags & ~READ_ONLY;
  if (wanted === flags) return;
  viewOf(argument).setBigUint64(0, wanted, true);
  const errno = await callBtrfs(fd, REQUEST.SUBVOL_SETFLAGS, argument);
  if (errno === 0) return;
  throw failure(errno, `make a subvolume ${readOnly ? "read-only" : "writable"}`, {
    EPERM: "work as root or as the owner, and not while `btrfs send` reads the subvolume",
  });
}

/**
 * Returns the subvolumes directly inside the subvolume whose root is `fd` (one level), by id; any user may ask. Takes a
 * few µs plus a few per subvolume, whatever the number of files. Skips mounts.
 */
export function nestedSubvolumes(fd: number): NestedSubvolume[] {
  const argument = newArena(ARGUMENT_SIZE);
  const view = viewOf(argument);
  const found: NestedSubvolume[] = [];
  for (;;) {
    const errno = ask(fd, REQUEST.GET_SUBVOL_ROOTREF, argument);
    // EOVERFLOW: more follow, and the kernel has written the next position into the argument.
    if (errno !== 0 && errno !== EOVERFLOW) throw failure(errno, "list the subvolumes inside a subvolume");
    for (let i = 0; i < argument.bytes[ROOTREF.COUNT]!; i++) {
      const at = ROOTREF.ITEMS + i * ROOTREF.ITEM_SIZE;
      const id = view.getBigUint64(at, true);
      found.push({ id: Number(id), path: pathOf(fd, id, view.getBigUint64(at + 8, true)) });
    }
    if (errno === 0) return found;
  }
}

function pathOf(fd: number, id: bigint, directory: bigint): Buffer | null {
  const argument = newArena(ARGUMENT_SIZE);
  const view = viewOf(argument);
  view.setBigUint64(LOOKUP.DIRECTORY, directory, true);
  view.setBigUint64(LOOKUP.ID, id, true);
  // The subvolume is gone, this user may not read its directory, or the path is longer than the structure.
  if (ask(fd, REQUEST.INO_LOOKUP_USER, argument) !== 0) return null;
  // The directory's path ends in a slash, or is empty.
  return Buffer.concat([textAt(argument, LOOKUP.PATH), textAt(argument, LOOKUP.NAME)]);
}

/** Starts a commit of the file system that holds `fd`. Returns the transaction for {@link waitSync}. */
export function startSync(fd: number): bigint {
  const argument = newArena(8);
  const errno = ask(fd, REQUEST.START_SYNC, argument);
  if (errno !== 0) throw failure(errno, "begin a commit of btrfs");
  return viewOf(argument).getBigUint64(0, true);
}

/** Waits until a transaction of {@link startSync} is on disk; 0n: the running transaction. */
export async function waitSync(fd: number, transaction: bigint): Promise<void> {
  const argument = newArena(8);
  viewOf(argument).setBigUint64(0, transaction, true);
  const errno = await callBtrfs(fd, REQUEST.WAIT_SYNC, argument);
  if (errno !== 0) throw failure(errno, "wait for a commit of btrfs");
}

/** Commits the file system of a directory. Earlier changes are durable when this returns, except unsynced content of files. */
export async function commitFileSystem(place: RawPath): Promise<void> {
  const fd = openFolder(place);
  try {
    await waitSync(fd, startSync(fd));
  } finally {
    fs.closeSync(fd);
  }
}

/** Bytes for the answers of one search. */
const ROOM = 64 * 1024;
const FIRST_INODE = 256n;
const HIGHEST = 2n ** 64n - 1n;

/** Position of a search: object (inode), type and offset, in that order. */
interface SearchKey {
  object: bigint;
  type: number;
  offset: bigint;
}

/**
 * True if the subvolume of an open directory has an entry with a wanted name from transaction `since` or later; 0
 * searches all. May count an older entry beside a newer one in the tree. Null if only an administrator may ask. The
 * time grows with the changes since.
 */
export async function hasNewName(
  fd: number,
  isWanted: (name: Uint8Array) => boolean,
  call: { since: number; signal?: AbortSignal | undefined },
): Promise<boolean | null> {
  let isFound = false;
  const mayAsk = await searchTree(fd, call, ({ bytes }, view, at) => {
    const item = at + SEARCH.HEADER;
    if (view.getUint32(at + SEARCH.TYPE, true) !== DIRECTORY_ITEM.INDEX) return false;
    const own = item + DIRECTORY_ITEM.NAME;
    isFound = isWanted(bytes.subarray(own, own + view.getUint16(item + DIRECTORY_ITEM.NAME_LENGTH, true)));
    return isFound;
  });
  return mayAsk ? isFound : null;
}

/** A changed inode and one of its paths; a directory's path has no slash at the end. */
export interface ChangedInode {
  path: Buffer;
  isDirectory: boolean;
  links: number;
}

/**
 * Returns the named inodes of the snapshot of an open directory that were changed after transaction `since`; files with
 * several names get one path only. Null if only an administrator may ask, and beyond `most`. The time grows with the
 * changes since.
 */
export async function inodesChangedSince(
  fd: number,
  { since, most, signal }: { since: number; most: number; signal?: AbortSignal | undefined },
): Promise<ChangedInode[] | null> {
  const changed: ChangedInode[] = [];
  let areAll = true;
  const mayAsk = await searchTree(fd, { since: since + 1, signal }, (_answers, view, at) => {
    const item = at + SEARCH.HEADER;
    if (view.getUint32(at + SEARCH.TYPE, true) !== INODE_ITEM.TYPE) return false;
    if (view.getBigUint64(item + INODE_ITEM.TRANSACTION, true) <= BigInt(since)) return false;
    const links = view.getUint32(item + INODE_ITEM.LINKS, true);
    if (links === 0) return false;
    const path = changed.length === most ? null : pathOfInode(fd, view.getBigUint64(at + SEARCH.OBJECT, true));
    areAll = path !== null;
    if (path === null) return true;
    const isDirectory = (view.getUint32(item + INODE_ITEM.MODE, true) & 0o170000) === 0o040000;
    changed.push({ path, links, isDirectory });
    return false;
  });
  return mayAsk && areAll ? changed : null;
}

/**
 * Calls `visit` with the position of each item that lies beside an item written in transaction `since` or later, in the
 * order of their keys, until `visit` returns true. False if only an administrator may ask.
 */
async function searchTree(
  fd: number,
  { since, signal }: { since: number; signal?: AbortSignal | undefined },
  visit: (answers: Arena, view: DataView, at: number) => boolean,
): Promise<boolean> {
  const argument = newArena(SEARCH.RESULTS + ROOM);
  const view = new DataView(argument.bytes.buffer, argument.bytes.byteOffset, argument.bytes.length);
  for (let from: SearchKey | null = { object: FIRST_INODE, type: 0, offset: 0n }; from !== null;) {
    throwIfAborted(signal);
    askFrom(view, from, since);
    if ((await callBtrfs(fd, REQUEST.TREE_SEARCH_V2, argument)) !== 0) return false;
    const count = view.getUint32(SEARCH.COUNT, true);
    let at: number = SEARCH.RESULTS;
    from = null;
    for (let i = 0; i < count; i++) {
      if (visit(argument, view, at)) return true;
      if (i === count - 1) from = keyAfter(keyAt(view, at));
      at += SEARCH.HEADER + view.getUint32(at + SEARCH.LENGTH, true);
    }
  }
  return true;
}

function keyAt(view: DataView, at: number): SearchKey {
  return {
    object: view.getBigUint64(at + SEARCH.OBJECT, true),
    type: view.getUint32(at + SEARCH.TYPE, true),
    offset: view.getBigUint64(at + SEARCH.OFFSET, true),
  };
}

/** Null if the inode has no name any more, or if its path is longer than the structure. */
function pathOfInode(fd: number, inode: bigint): Buffer | null {
  if (inode === FIRST_INODE) return Buffer.alloc(0);
  const argument = newArena(ARGUMENT_SIZE);
  viewOf(argument).setBigUint64(INODE_LOOKUP.INODE, inode, true);
  if (ask(fd, REQUEST.INO_LOOKUP, argument) !== 0) return null;
  const path = textAt(argument, INODE_LOOKUP.NAME);
  return path.length === 0 ? null : path.subarray(0, path.length - 1);
}

function askFrom(view: DataView, from: SearchKey, since: number): void {
  view.setBigUint64(SEARCH.TREE, 0n, true);
  view.setBigUint64(SEARCH.MIN_OBJECT, from.object, true);
  view.setBigUint64(SEARCH.MAX_OBJECT, HIGHEST, true);
  view.setBigUint64(SEARCH.MIN_OFFSET, from.offset, true);
  view.setBigUint64(SEARCH.MAX_OFFSET, HIGHEST, true);
  view.setBigUint64(SEARCH.MIN_TRANSACTION, BigInt(since), true);
  view.setBigUint64(SEARCH.MAX_TRANSACTION, HIGHEST, true);
  view.setUint32(SEARCH.MIN_TYPE, from.type, true);
  view.setUint32(SEARCH.MAX_TYPE, 255, true);
  view.setUint32(SEARCH.COUNT, 0xffff_ffff, true);
  view.setBigUint64(SEARCH.ROOM, BigInt(ROOM), true);
}

/** The next possible key; null after the last. */
function keyAfter({ object, type, offset }: SearchKey): SearchKey | null {
  if (offset < HIGHEST) return { object, type, offset: offset + 1n };
  if (type < 255) return { object, type: type + 1, offset: 0n };
  return object < HIGHEST ? { object: object + 1n, type: 0, offset: 0n } : null;
}

/**
 * True if a quota group may limit the subvolume at a path (raw bytes): its own group, or one of a higher level, whose
 * members only root can read. False if quotas are off. From sysfs, since Linux 5.9.
 */
export function mayBeLimited(place: Buffer): boolean {
  const uuid = filesystemUuid(place);
  if (uuid === null) return false;
  const groups = path.join("/sys/fs/btrfs", uuid, "qgroups");
  const own = `0_${inDirectory(place, (fd) => subvolumeInfo(fd).id)}`;
  return namesIn(groups)
    .filter((name) => name === own || /^[1-9][0-9]*_/.test(name))
    .some((name) => hasLimit(path.join(groups, name, "limit_flags")));
}

/** A group that was removed meanwhile limits nothing. */
function hasLimit(file: string): boolean {
  try {
    return Number(fs.readFileSync(file, "latin1")) !== 0;
  } catch {
    return false;
  }
}
