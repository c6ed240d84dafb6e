import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import type { DirectoryFacts } from "../../formats/records/restore.ts";
import type { NodeAttribute, NodeMetadata, TreeNode } from "../../formats/restic/tree.ts";
import { EDQUOT, EINVAL, EIO, ENOSPC, EPERM, EROFS, isNotHeld } from "../../fs/linux/errno.ts";
import { whyProtected } from "../../fs/linux/write-protection.ts";
import { namespaceIds, NO_ID, ownIds } from "../../fs/linux/user-namespace.ts";
import { isShadow } from "../../fs/linux/shadow-attributes.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import {
  errnoName,
  newStatBuffer,
  putName,
  SETGID,
  SETUID,
  signedWide,
  STAT,
  syscallError,
  type Syscalls,
  syscalls,
  TYPE,
} from "../../fs/linux/syscalls.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { dataRuns, type HoleList, runsAround } from "./data-runs.ts";

export { protectionOf } from "../../fs/linux/write-protection.ts";

/** Aspects that could not be set on an entry that was otherwise written. */
export interface NotSet {
  path: Uint8Array;
  aspects: ("owner" | "mode" | "times" | "xattrs" | "content" | "type" | "links")[];
  detail: string;
}

/** Bytes of an arena to be written to a file; its path, for messages. */
interface FilePart {
  offset: number;
  length: number;
  path: Uint8Array;
}

const CREATE = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_NOFOLLOW;
/** Also room for a link's target; no system takes a longer one. */
const VALUE_BYTES = 128 * 1024;
/** Limit of Linux for attribute names and values. */
const ATTRIBUTE_NAME_BYTES = 255;
const ATTRIBUTE_BYTES = 64 * 1024;
const REFUSED = "the system refuses it";
/** Failures of the file system by minus errno, which no additional right would avoid. */
const DISK_TROUBLES: Readonly<Record<number, string>> = {
  [EIO]: "the disk could not write it (EIO)",
  [ENOSPC]: "the file system has no room for it (ENOSPC)",
  [EDQUOT]: "the user's disk quota has no room for it (EDQUOT)",
  [EROFS]: "the file system is read-only (EROFS)",
};

/** Words such a failure; null for any other result of a call. */
export function diskTrouble(result: number): string | null {
  return DISK_TROUBLES[result] ?? null;
}

/** True if an entry's detail is about a failure of the file system, not a missing right. */
export function isDiskTrouble(detail: string): boolean {
  return Object.values(DISK_TROUBLES).includes(detail);
}
const ROUNDED = "the file system cannot keep this time exactly: it rounds times, or its range is too small";
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const NO_ID_HERE = "its owner or group has no id in this user namespace";
const WITHHELD =
  "it is restored without setuid and setgid: its owner or group is another number here, or has no name here";
const UNKNOWN = "its owner was not known when it was saved, in a user namespace without an id for that owner";
const ACCESS_ACL = Buffer.from("system.posix_acl_access");
const DEFAULT_ACL = Buffer.from("system.posix_acl_default");

/**
 * Makes entries from nodes inside a held directory; one per thread. Sets owner, mode, attributes and times exactly.
 * Notes metadata that the system refuses, and keeps the entry.
 */
export class NodeWriter {
  readonly sys: Syscalls = syscalls();
  readonly notSet: NotSet[] = [];
  readonly #name: Arena = newArena(1024);
  readonly #noName: Arena = newArena(1);
  readonly #value: Arena = newArena(VALUE_BYTES);
  readonly #uid = ownIds().uid;
  readonly #gid = ownIds().gid;
  readonly #stat = newStatBuffer();
  readonly #readOnly: boolean;
  /** new entries may inherit a group or an access list from their directory */
  readonly #inherits: boolean;
  readonly #newBits: number;
  readonly #sparse: boolean;
  /** Minus errno of the last failed metadata call that was not yet noted. */
  #failed = 0;
  /** True if the file system rounds times; null until a time has shown it. */
  #rounds: boolean | null = null;

  /**
   * `within`: a descriptor of the directory in which everything is made; it shows what new entries inherit. `newBits`:
   * permission bits that new files there certainly get. `sparse`: blocks of zeros become holes in files without
   * recorded holes.
   */
  constructor(options: { readOnly?: boolean; within?: number; newBits?: number; sparse?: boolean } = {}) {
    this.#readOnly = options.readOnly ?? false;
    this.#newBits = options.newBits ?? 0;
    this.#sparse = options.sparse ?? false;
    this.#inherits = options.within === undefined || this.#bequeaths(options.within);
  }

  #bequeaths(directory: number): boolean {
    const { words } = this.#stat;
    if (this.sys.fstat(directory, this.#stat) < 0 || words[STAT.MODE]! & SETGID) return true;
    // macOS, and some mounts elsewhere, give new entries the directory's group.
    if (words[STAT.GID] !== this.#gid) return true;
    putName(this.#name, 0, DEFAULT_ACL);
    return this.sys.fgetxattr(directory, this.#name, 0, this.#value, 0) >= 0;
  }

  /**
   * Creates a file and fills it with consecutive pieces. Throws if it cannot be created or written. Leaves no partial
   * file if the file system cannot hold it.
   */
  file(
    dirfd: number,
    node: TreeNode,
    place: { name: Uint8Array; path: Uint8Array; holes?: HoleList },
    pieces: Iterable<Uint8Array>,
  ): void {
    const steps = this.fileInSteps(dirfd, node, place, pieces);
    while (steps.next().done !== true);
  }

  /** Writes a file for a caller with other work between pieces; if ended early, closes the partial file. */
  *fileInSteps(
    dirfd: number,
    node: TreeNode,
    place: { name: Uint8Array; path: Uint8Array; holes?: HoleList },
    pieces: Iterable<Uint8Array>,
  ): Generator<number, void, void> {
    const made = this.firstMode(node);
    const fd = this.create(dirfd, place, made);
    try {
      let position = 0;
      for (const piece of pieces) {
        this.write(fd, arenaOver(piece), {
          offset: 0,
          length: piece.length,
          position,
          path: place.path,
          holes: place.holes,
        });
        position += piece.length;
        yield piece.length;
      }
      if (place.holes !== undefined || this.#sparse) this.setSize(fd, node.size, place.path);
      this.finishFile(fd, node, place.path, made);
    } catch (error) {
      if (whyNotHeld(error) !== null) this.remove(dirfd, place.name);
      throw error;
    } finally {
      this.sys.close(fd);
    }
  }

  /** Creates a file that `fill` fills; if `fill` declines, returns false and leaves no file. */
  filledFile(
    dirfd: number,
    node: TreeNode,
    place: { name: Uint8Array; path: Uint8Array },
    fill: (fd: number) => boolean,
  ): boolean {
    const made = this.firstMode(node);
    const fd = this.create(dirfd, place, made);
    let filled = false;
    try {
      filled = fill(fd);
      if (filled) this.finishFile(fd, node, place.path, made);
    } finally {
      this.sys.close(fd);
    }
    if (!filled) this.remove(dirfd, place.name);
    return filled;
  }

  /** Removes an entry that is no directory, such as a file that could not be completed. */
  remove(dirfd: number, name: Uint8Array): void {
    putName(this.#name, 0, name);
    this.sys.unlink(dirfd, this.#name, 0, false);
  }

  /** Truncates an open file, or extends it with a hole. */
  setSize(fd: number, size: number, path: Uint8Array): void {
    const result = this.sys.ftruncate(fd, size);
    if (result < 0) throw syscallError(result, `cannot write ${quotedPath(path)}`);
  }

  /**
   * The file's final mode, if it can be made with it, which saves a call per file. Null if the mode is not possible at
   * creation, the file gets another owner, or it has attributes, which can only be set while it is writable.
   */
  firstMode(node: TreeNode): number | null {
    const mode = this.#modeOf(node);
    const isOwn = node.uid === this.#uid && node.gid === this.#gid && !this.#inherits;
    return isOwn && node.xattrs.length === 0 && (mode & ~this.#newBits) === 0 ? mode : null;
  }

  /** Creates an empty file that only its owner can read, unless it gets its final mode. */
  create(dirfd: number, place: { name: Uint8Array; path: Uint8Array }, mode: number | null = null): number {
    putName(this.#name, 0, place.name);
    const fd = this.sys.open(dirfd, this.#name, 0, CREATE, mode ?? 0o600);
    if (fd < 0) throw syscallError(fd, `cannot create ${quotedPath(place.path)}`);
    return fd;
  }

  /** Writes the whole content of a new file. */
  content(fd: number, arena: Arena, part: FilePart): void {
    this.write(fd, arena, { ...part, position: 0 });
    if (this.#sparse) this.setSize(fd, part.length, part.path);
  }

  /** Writes bytes at a position, except recorded holes; `over`: the file may hold other bytes there. */
  write(
    fd: number,
    arena: Arena,
    part: FilePart & { position: number; holes?: HoleList | undefined; over?: boolean },
  ): void {
    const { offset, length, position, holes } = part;
    if (holes === undefined && (!this.#sparse || part.over === true)) return this.#writeAll(fd, arena, part);
    const runs =
      holes === undefined
        ? dataRuns(arena.bytes.subarray(offset, offset + length), position)
        : runsAround(holes, position, length);
    for (const [from, to] of runs)
      this.#writeAll(fd, arena, { ...part, offset: offset + from, length: to - from, position: position + from });
  }

  #writeAll(fd: number, arena: Arena, part: FilePart & { position: number }): void {
    for (let done = 0; done < part.length;) {
      const n = this.sys.write(fd, arena, part.offset + done, part.length - done, part.position + done);
      if (n < 0) throw syscallError(n, `cannot write ${quotedPath(part.path)}`);
      done += n;
    }
  }

  /**
   * Sets owner, attributes, mode and times of a written file, in this order: a new owner clears special bits, a
   * read-only mode keeps attributes from being set, and everything changes times. `made`: the mode at creation, if it
   * is final.
   */
  finishFile(fd: number, node: TreeNode, path: Uint8Array, made: number | null = null): void {
    if (this.#inherits) this.#disinherit(fd, node);
    this.#set(fd, false, node, { path, mode: this.#modeOf(node), made });
  }

  #modeOf({ mode }: Pick<TreeNode, "mode">): number {
    return this.#readOnly ? readable(mode) : mode;
  }

  /**
   * Sets owner, attributes, mode and times. `fd`: the entry; if `isNamed`, the directory of the entry whose name is in
   * `#name`. Notes the metadata that could not be set.
   */
  #set(
    fd: number,
    isNamed: boolean,
    node: Omit<NodeMetadata, "type"> & { type?: NodeMetadata["type"]; withheld?: true },
    { path, mode, made = null }: { path: Uint8Array; mode: number; made?: number | null },
  ): void {
    let aspects: NotSet["aspects"] = [];
    let detail = "";
    this.#failed = 0;
    const { uid, gid } = node;
    const isOthers = uid !== this.#uid;
    if ((isOthers || gid !== this.#gid || this.#inherits) && this.#mayOwn) {
      // Two calls, the group first: a user who may not change the owner may still change the group.
      const group = this.#own(fd, isNamed, isOthers ? { uid: NO_ID, gid } : { uid, gid });
      const owner = isOthers ? this.#own(fd, isNamed, { uid, gid: NO_ID }) : group;
      if (group < 0 || owner < 0) {
        aspects.push("owner");
        const failed = Math.min(group, owner);
        detail = failed === EINVAL && namespaceIds() !== null ? NO_ID_HERE : errnoName(-failed);
      } else if (uid === NO_ID || gid === NO_ID) {
        aspects.push("owner");
        detail = UNKNOWN;
      }
    }
    let attributes = this.#setAttributes(fd, isNamed, node.xattrs);
    const given = aspects.length > 0 && this.#look(fd, isNamed) ? modeFor(this.#stat.words, node, mode) : mode;
    if (node.type !== "symlink" && ((given !== made && !this.#setMode(fd, isNamed, given)) || given !== mode))
      aspects.push("mode");
    // Mode first, then attributes, for an existing entry that was not writable.
    if (attributes.length > 0) attributes = this.#setAttributes(fd, isNamed, attributes);
    if (attributes.length > 0) aspects.push("xattrs");
    const name = isNamed ? this.#name : this.#noName;
    if (!this.#isSet(this.sys.utimens(fd, name, 0, node.mtimeSec, node.mtimeNs))) aspects.push("times");
    else if (this.#mayRound(node) && this.#look(fd, isNamed) && this.#isRounded(node)) {
      aspects.push("times");
      if (detail === "") detail = ROUNDED;
    }
    if (aspects.length > 0 && this.#look(fd, isNamed))
      aspects = whatDiffers(this.#stat.words, { ...node, mode }, aspects);
    if (node.withheld === true) {
      aspects = ["mode", ...aspects.filter((each) => each !== "mode")];
      detail = WITHHELD;
    }
    if (aspects.length > 0) this.#note(path, aspects, whyNotSet(attributes) ?? this.#whyRefused(detail));
  }

  #own(fd: number, isNamed: boolean, { uid, gid }: Pick<TreeNode, "uid" | "gid">): number {
    const result = isNamed ? this.sys.lchown(fd, this.#name, 0, uid, gid) : this.sys.fchown(fd, uid, gid);
    this.#isSet(result);
    return result;
  }

  #look(fd: number, isNamed: boolean): boolean {
    return (isNamed ? this.sys.stat(fd, this.#name, 0, this.#stat) : this.sys.fstat(fd, this.#stat)) >= 0;
  }

  #setMode(fd: number, isNamed: boolean, mode: number): boolean {
    return this.#isSet(isNamed ? this.sys.chmod(fd, this.#name, 0, mode) : this.sys.fchmod(fd, mode));
  }

  /** Removes access lists inherited from the directory that the node does not have. */
  #disinherit(fd: number, node: Pick<TreeNode, "xattrs">): void {
    for (const list of [ACCESS_ACL, DEFAULT_ACL]) {
      if (node.xattrs.some(({ name }) => list.equals(name))) continue;
      putName(this.#name, 0, list);
      if (this.sys.fgetxattr(fd, this.#name, 0, this.#value, 0) >= 0) this.sys.fremovexattr(fd, this.#name, 0);
    }
  }

  /** Sets attributes. Returns the refused ones. */
  #setAttributes(fd: number, isNamed: boolean, attributes: TreeNode["xattrs"]): TreeNode["xattrs"] {
    if (attributes.length === 0) return attributes;
    return attributes.filter((attribute) => {
      if (whyImpossible(attribute) !== null) return true;
      const { name, value } = attribute;
      if (isShadow(name)) return false;
      if (isNamed) return !this.#isSet(this.sys.lsetxattr(fd, this.#name, 0, name, value));
      putName(this.#name, 0, name);
      this.#value.bytes.set(value);
      return !this.#isSet(this.sys.fsetxattr(fd, this.#name, 0, this.#value, 0, value.length));
    });
  }

  /** Makes an entry, or another name of it. If the file system cannot hold it, notes that and returns false. */
  holds(path: Uint8Array, aspect: "type" | "links", make: () => void): boolean {
    try {
      make();
      return true;
    } catch (error) {
      this.notHeld(path, aspect, error);
      return false;
    }
  }

  /** Notes that the file system cannot hold an entry, if `error` says so; rethrows any other error. */
  notHeld(path: Uint8Array, aspect: "type" | "links", error: unknown): void {
    const why = whyNotHeld(error, aspect === "links" ? "link" : "hold");
    if (why === null) throw error;
    if (aspect === "links") this.cannotLink(path, why);
    else this.#note(path, [aspect], why);
  }

  /** Notes that an entry is a copy because it cannot be linked to its other names. */
  cannotLink(path: Uint8Array, why: string): void {
    this.#note(path, ["links"], `it is a copy, because ${why}`);
  }

  #note(path: Uint8Array, aspects: NotSet["aspects"], detail: string): void {
    this.notSet.push({ path: Uint8Array.from(path), aspects, detail: DISK_TROUBLES[this.#failed] ?? detail });
    this.#failed = 0;
  }

  #isSet(result: number): boolean {
    if (result < 0 && DISK_TROUBLES[this.#failed] === undefined) this.#failed = result;
    return result >= 0;
  }

  /** Makes a writable directory; its own metadata is set when its content is complete. */
  directory(dirfd: number, place: { name: Uint8Array; path: Uint8Array }): void {
    putName(this.#name, 0, place.name);
    const result = this.sys.mkdir(dirfd, this.#name, 0, 0o700);
    if (result < 0) throw syscallError(result, `cannot make the directory ${quotedPath(place.path)}`);
    if (this.#inherits) this.disinheritDirectory(dirfd, place.name);
  }

  /** Removes inherited access lists from a new directory, which would pass them on to everything below. */
  disinheritDirectory(dirfd: number, name: Uint8Array): void {
    putName(this.#name, 0, name);
    const fd = this.sys.open(dirfd, this.#name, 0, DIRECTORY, 0);
    if (fd < 0) return;
    this.#disinherit(fd, { xattrs: [] });
    this.sys.close(fd);
  }

  /**
   * Makes a link, pipe, socket or device with its metadata. If the file system cannot hold it or the system refuses it,
   * notes that and returns false.
   */
  special(dirfd: number, node: TreeNode, place: { name: Uint8Array; path: Uint8Array }): boolean {
    const why = node.type === "symlink" ? whyNoLink(node.linktarget ?? NO_BYTES) : null;
    if (why !== null) {
      this.#note(place.path, ["type"], why);
      return false;
    }
    if (!this.holds(place.path, "type", () => putName(this.#name, 0, place.name))) return false;
    const made = this.#make(dirfd, node);
    if (made < 0) {
      const errno = errnoName(-made);
      if (!isNotHeld(errno)) throw syscallError(made, `cannot make ${quotedPath(place.path)}`);
      const isRoots = made === EPERM && (node.type === "dev" || node.type === "chardev");
      const why = isRoots ? "can only be made by root" : `cannot be made here: ${errno}`;
      this.#note(place.path, ["type"], `a ${node.type} ${why}`);
      return false;
    }
    this.metadataByName(dirfd, node, place);
    return true;
  }

  #make(dirfd: number, node: TreeNode): number {
    if (node.type === "symlink") {
      putName(this.#value, 0, node.linktarget ?? NO_BYTES);
      return this.sys.symlink(this.#value, 0, dirfd, this.#name, 0);
    }
    const type = { fifo: TYPE.PIPE, socket: TYPE.SOCKET, dev: TYPE.BLOCKDEV, chardev: TYPE.CHARDEV }[
      node.type as "fifo"
    ];
    const major = Number((node.device >> 8n) & 0xfffn) + Number((node.device >> 32n) & ~0xfffn & 0xffffffffn);
    const minor = Number(node.device & 0xffn) + Number((node.device >> 12n) & 0xffffff00n);
    return this.sys.mknod(dirfd, this.#name, 0, (type << 12) | 0o600, major, minor);
  }

  /** Sets owner, mode, attributes and times by name: of links, pipes and devices, which are not opened; also of directories and files. */
  metadataByName(dirfd: number, node: NodeMetadata, place: { name: Uint8Array; path: Uint8Array }): void {
    putName(this.#name, 0, place.name);
    const { type, mode, xattrs } = node;
    const isListed = type !== "symlink" && type !== "dir" && !xattrs.some(({ name }) => ACCESS_ACL.equals(name));
    // A minimal list replaces a longer one; the call fails if the file system has no access lists.
    if (this.#inherits && isListed) this.sys.lsetxattr(dirfd, this.#name, 0, ACCESS_ACL, minimalAccessList(mode));
    this.#set(dirfd, true, node, { path: place.path, mode: this.#modeOf(node) });
  }

  /** Says why the system refused metadata. `#stat` describes the entry. */
  #whyRefused(errno: string): string {
    const flag = this.#failed === EPERM ? whyProtected(this.#stat) : null;
    if (flag !== null) return `it is ${flag}`;
    return errno === "" ? REFUSED : errno;
  }

  /** True until the file system is known to keep such a time exactly. */
  #mayRound({ mtimeSec }: Pick<TreeNode, "mtimeSec">): boolean {
    return this.#rounds !== false || mtimeSec !== (mtimeSec | 0);
  }

  /** True if the file system kept another time than `node`'s; `stat` has just read it. */
  #isRounded({ mtimeSec, mtimeNs }: Pick<TreeNode, "mtimeSec" | "mtimeNs">): boolean {
    const { words } = this.#stat;
    const isRounded = signedWide(words, STAT.MTIME) !== mtimeSec || words[STAT.MTIME_NS] !== mtimeNs;
    if (isRounded) this.#rounds = true;
    // The coarsest known file systems, of 100 ns, would round such a time.
    else if (mtimeNs % 100 !== 0) this.#rounds ??= false;
    return isRounded;
  }

  /** Sets the metadata of a complete directory; keeps attributes that the node does not name. */
  finishDirectory(
    fd: number,
    node: Pick<TreeNode, "uid" | "gid" | "mode" | "xattrs" | "mtimeSec" | "mtimeNs">,
    path: Uint8Array,
  ): void {
    this.#set(fd, false, node, { path, mode: this.#readOnly ? 0o555 : node.mode });
  }

  /** True if owners are set: a read-only tree belongs to the user who looks at it. */
  get #mayOwn(): boolean {
    return !this.#readOnly || this.#uid === 0;
  }

  /** Makes another name of an existing entry. */
  link(fromDirfd: number, from: Uint8Array, dirfd: number, place: { name: Uint8Array; path: Uint8Array }): void {
    putName(this.#value, 0, from);
    putName(this.#name, 0, place.name);
    const result = this.sys.link(fromDirfd, this.#value, 0, dirfd, this.#name, 0);
    if (result < 0) throw syscallError(result, `cannot link ${quotedPath(place.path)}`);
  }
}

/** Says that the file system cannot hold or link an entry, if `error` means that; null for any other error. */
export function whyNotHeld(error: unknown, doing: "hold" | "link" = "hold"): string | null {
  const errno = error instanceof CairnError ? error.details?.["errno"] : undefined;
  return isNotHeld(errno) ? `the file system cannot ${doing} it: ${String(errno)}` : null;
}

/**
 * The mode of an entry whose owner could not be set: a file loses its setuid or setgid bit if its owner or group
 * differs from the saved one, so that no program runs as the restoring user by mistake.
 */
export function modeFor(words: Uint32Array, { uid, gid }: Pick<TreeNode, "uid" | "gid">, mode: number): number {
  if (((words[STAT.MODE]! >>> 12) & 15) !== TYPE.FILE) return mode;
  const isSame = (is: number | undefined, id: number): boolean => is === id && id !== NO_ID;
  const others = (isSame(words[STAT.UID], uid) ? 0 : SETUID) | (isSame(words[STAT.GID], gid) ? 0 : SETGID);
  return mode & ~others;
}

/** Says why an entry was not linked to its group. */
export function isAnother(path: Uint8Array): string {
  return `its saved state differs from that of ${quotedPath(path)}, a hard link to the same file`;
}

/** Returns the refused aspects that differ from the wanted ones; a refused aspect may be right already. */
export function whatDiffers(
  words: Uint32Array,
  wanted: Pick<TreeNode, "uid" | "gid" | "mode" | "mtimeSec" | "mtimeNs">,
  refused: NotSet["aspects"],
): NotSet["aspects"] {
  const isRight: Partial<Record<NotSet["aspects"][number], boolean>> = {
    owner: words[STAT.UID] === wanted.uid && words[STAT.GID] === wanted.gid,
    mode: (words[STAT.MODE]! & 0o7777) === wanted.mode,
    times: signedWide(words, STAT.MTIME) === wanted.mtimeSec && words[STAT.MTIME_NS] === wanted.mtimeNs,
  };
  return refused.filter((aspect) => isRight[aspect] !== true);
}

/** Says why no known system can hold an attribute; null if one may. */
function whyImpossible({ name, value }: NodeAttribute): string | null {
  if (name.includes(0)) return "an attribute has a NUL in its name";
  if (name.length > ATTRIBUTE_NAME_BYTES) return `an attribute has a name of ${name.length} bytes: ${TOO_LONG}`;
  if (value.length > ATTRIBUTE_BYTES) return `its attribute ${quotedPath(name)} has ${value.length} bytes: ${TOO_LONG}`;
  return null;
}

/** Says why no known system can hold such a link target; null if one may. */
function whyNoLink(target: Uint8Array): string | null {
  if (target.length === 0) return "a symlink without a target cannot be made";
  if (target.includes(0)) return "a symlink with a NUL in its target cannot be made";
  return target.length < VALUE_BYTES ? null : `a symlink to ${target.length} bytes cannot be made: ${TOO_LONG}`;
}

const NO_BYTES = new Uint8Array(0);
const TOO_LONG = "longer than any system allows";

/** The first known reason why attributes were not set. */
function whyNotSet(refused: TreeNode["xattrs"]): string | null {
  return refused.map(whyImpossible).find((why) => why !== null) ?? null;
}

/** Permission bits that let every user read and none write. */
function readable(mode: number): number {
  return 0o444 | (mode & 0o111);
}

/** The access list that equals plain permission bits: version 2, then tag, bits and no id for owner, group and others. */
function minimalAccessList(mode: number): Uint8Array {
  const list = Buffer.alloc(4 + 3 * 8, 0xff);
  list.writeUInt32LE(2, 0);
  [0x01, 0x04, 0x20].forEach((tag, i) => {
    list.writeUInt16LE(tag, 4 + i * 8);
    list.writeUInt16LE((mode >> (6 - 3 * i)) & 7, 6 + i * 8);
  });
  return list;
}

/**
 * Sets the metadata of an open directory, its modification time last; keeps attributes that are not named. Returns the
 * metadata that could not be set, under `path`.
 */
export function setDirectory(
  fd: number,
  to: DirectoryFacts,
  { path = new Uint8Array(0), xattrs = [] }: { path?: Uint8Array; xattrs?: TreeNode["xattrs"] } = {},
): NotSet[] {
  const { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs } = to;
  const writer = new NodeWriter();
  writer.finishDirectory(fd, { mode, uid, gid, xattrs, mtimeSec, mtimeNs }, path);
  return writer.notSet;
}
