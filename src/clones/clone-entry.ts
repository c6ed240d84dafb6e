import fs from "node:fs";
import { CairnError } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import { MAGIC, WRITER_BYTES } from "../formats/sqlite-header.ts";
import { ELOOP, ENOENT, ENXIO, EPERM, faultOfEntry, HAS_NO_ATTRIBUTE, isNotHeld } from "../fs/linux/errno.ts";
import { isWriteLocked } from "../fs/linux/kernel-lock.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { OriginList } from "../archive/cache/origins.ts";
import {
  cloneAnswer,
  cloneFile,
  generationOf,
  isFragmented,
  isOtherFileSystem,
  takeOverMarks,
  takeOverNoCow,
} from "../fs/linux/reflink.ts";
import { NO_ID, ownIds } from "../fs/linux/user-namespace.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import {
  errnoName,
  newStatBuffer,
  putName,
  sameContentStat,
  signedWide,
  STAT,
  type StatBuffer,
  syscallError,
  type Syscalls,
  syscalls,
  TYPE,
  wide,
} from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";
import { diskTrouble, modeFor, type NotSet, whatDiffers } from "../archive/write/node-writer.ts";
import type { CloneLinks, CloneTask } from "./clone-links.ts";
import type { WorkPool } from "../threads/work-pool.ts";

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const CREATE = fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_NOFOLLOW;
const O_NOATIME = fs.constants.O_NOATIME ?? 0;
const PIECE = 1024 * 1024;
/** The size of a database is a multiple of this. */
const SMALLEST_PAGE = 512;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Counts and lists of cloned and omitted entries. */
export interface CloneTreeResult {
  /** of all kinds, without the folder itself */
  entries: number;
  /** regular files; each name of a hard-link group counts */
  files: number;
  /** their sizes, once for a group */
  bytes: number;
  /** files that share their content with the source, and files whose content was copied */
  cloned: number;
  copied: number;
  /** why files were copied: the name of the error of the first refusal, and how many were in too many pieces */
  refusal: string | null;
  fragmented: number;
  /** further names of entries that were made already */
  linked: number;
  /** entries that could not be read, or not be made; they are not there */
  omitted: { path: Uint8Array; reason: string }[];
  /** files that changed again while they were cloned once more; they are there */
  torn: Uint8Array[];
  /**
   * logs and journals of SQLite databases, by name, that are not empty or just were; and databases that changed after
   * the clone began, whose journal may have come and gone unseen, or that a program has begun to write to
   */
  logs: Uint8Array[];
  /** other file systems, left out */
  mounts: Uint8Array[];
  /** metadata that the system refused to set; the entry exists */
  notSet: NotSet[];
  /** sources of the entries, as `OriginList` has them; empty if not requested */
  origins: Uint32Array[];
  /** True if an entry may have moved between two directories meanwhile, so that the clone has it twice or not at all. */
  mayLackMoved: boolean;
}

/** Result of one thread. */
export interface CloneOutcome extends CloneTreeResult {
  /** directories that are complete except for metadata that would lock their owner out */
  closed: { path: Uint8Array; stat: Uint32Array }[];
  /** directories that vanished or became inaccessible after they were made */
  gone: Uint8Array[];
  /** True if an entry was removed after its origin was noted: its inode number may have been reused. */
  isUnsure: boolean;
}

/** True for the name of a log or journal. Checks the last letter first, which excludes nearly all names. */
function isLogName(bytes: Uint8Array, name: number): boolean {
  const end = bytes.indexOf(0, name);
  if (bytes[end - 1] !== 0x6c) return false;
  return /-(?:wal|journal)$/.test(Buffer.from(bytes.subarray(Math.max(name, end - 8), end)).toString("latin1"));
}

export function newOutcome(): CloneOutcome {
  const counts = { entries: 0, files: 0, bytes: 0, cloned: 0, copied: 0, fragmented: 0, linked: 0 };
  const lists = { omitted: [], torn: [], logs: [], mounts: [], notSet: [], origins: [], closed: [], gone: [] };
  return { ...counts, ...lists, refusal: null, isUnsure: false, mayLackMoved: false };
}

/** The two sides of a directory that is being cloned, both held. */
export interface DirectoryPair {
  path: Uint8Array;
  from: number;
  to: number;
  /** device of the source, to detect files of another file system */
  device: number;
}

/** Clones entries that are no directories, and the metadata of all; one per thread. */
export class EntryCloner {
  readonly sys: Syscalls = syscalls();
  readonly out: CloneOutcome = newOutcome();
  /** vanished names of the present directory, and names of files with hard links, in latin1 */
  readonly gone = new Set<string>();
  readonly linked = new Set<string>();
  readonly #task: CloneTask;
  readonly #pool: WorkPool;
  readonly #links: CloneLinks;
  readonly #target: number;
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #after: StatBuffer = newStatBuffer();
  readonly #made: StatBuffer = newStatBuffer();
  /** the target before this thread listed anything: changes from then on have no earlier time */
  readonly #began: StatBuffer = newStatBuffer();
  readonly #origins: OriginList | null;
  readonly #list: Arena = newArena(64 * 1024);
  readonly #value: Arena = newArena(128 * 1024);
  readonly #path: Arena = newArena(8192);
  /** Failure of the file system while it set metadata of the present entry. */
  #trouble: string | null = null;
  readonly #noName: Arena = newArena(1);
  readonly #uid = ownIds().uid;
  readonly #gid = ownIds().gid;
  #noAtime = O_NOATIME;
  /** directory of the last link's first name */
  #firstDirectory: Uint8Array | null = null;
  #firstFd = -1;

  constructor(task: CloneTask, shared: { pool: WorkPool; links: CloneLinks; target: number }) {
    this.#task = task;
    this.#pool = shared.pool;
    this.#links = shared.links;
    this.#target = shared.target;
    this.sys.fstat(this.#target, this.#began);
    this.#origins = task.origins ? new OriginList() : null;
  }

  /** Returns the result so far. */
  outcome(): CloneOutcome {
    if (this.#origins !== null) this.out.origins = [this.#origins.take()];
    return this.out;
  }

  close(): void {
    if (this.#firstFd >= 0) this.sys.close(this.#firstFd);
    this.#firstFd = -1;
  }

  pathOf(directory: Uint8Array, names: Arena, name: number): Buffer {
    const own = names.bytes.subarray(name, names.bytes.indexOf(0, name));
    return joinPath(directory, own);
  }

  file(pair: DirectoryPair, names: Arena, name: number): void {
    for (let attempt = 1; ; attempt++) {
      const from = this.#openSource(pair.from, names, name);
      if (from === ENOENT) return this.omit(pair, names, name, from);
      if (from === ELOOP || from === ENXIO) return this.other(pair, names, name);
      if (from < 0) return this.omit(pair, names, name, from);
      try {
        const { words } = this.#stat;
        const known = this.sys.fstat(from, this.#stat);
        if (known < 0) return this.omit(pair, names, name, known);
        if (words[STAT.MODE]! >>> 12 !== TYPE.FILE) return this.other(pair, names, name);
        const isLinked = words[STAT.NLINK]! > 1;
        if (isLinked) this.linked.add(nameOf(this.pathOf(pair.path, names, name)));
        const settled = isLinked ? this.#grouped(pair, names, name, from) : this.#make(pair, names, name, from);
        if (settled || attempt === 2) {
          if (!settled) this.out.torn.push(this.pathOf(pair.path, names, name));
          return;
        }
        this.sys.unlink(pair.to, names, name, false);
      } finally {
        this.sys.close(from);
      }
    }
  }

  #openSource(dirfd: number, names: Arena, name: number): number {
    const fd = this.sys.open(dirfd, names, name, READ | this.#noAtime, 0);
    if (fd !== EPERM || this.#noAtime === 0) return fd;
    // Only a file's owner may open it with O_NOATIME.
    const again = this.sys.open(dirfd, names, name, READ, 0);
    if (again >= 0) this.#noAtime = 0;
    return again;
  }

  omit(pair: DirectoryPair, names: Arena, name: number, result: number): void {
    const path = this.pathOf(pair.path, names, name);
    if (result === ENOENT) {
      this.gone.add(nameOf(path));
      // The log's database may have been cloned before its transaction ended.
      if (isLogName(names.bytes, name)) this.out.logs.push(path);
    } else this.out.omitted.push({ path, reason: faultOfEntry(result) });
  }

  /** A file with several names: made once, then linked. */
  #grouped(pair: DirectoryPair, names: Arena, name: number, from: number): boolean {
    const path = this.pathOf(pair.path, names, name);
    const slot = this.#slot(generationOf(from));
    if (!this.#links.claim(slot, () => this.#pool.checkStop())) {
      this.#link(pair, names, name, this.#links.first(slot));
      this.out.files++;
      return true;
    }
    let made = false;
    const settledBefore = this.out.omitted.length;
    try {
      // A changing group counts as torn at once: other names may link to it from now on.
      if (!this.#make(pair, names, name, from)) this.out.torn.push(path);
      made = this.out.omitted.length === settledBefore;
    } finally {
      this.#links.made(slot, made ? path : null);
    }
    return true;
  }

  /**
   * Returns the slot of an inode. If the file system has no generations, the change time tells reused inode numbers
   * apart.
   */
  #slot(generation: number | null): number {
    const { words } = this.#stat;
    const stamp = generation ?? Math.imul(words[STAT.CTIME]!, 0x9e3779b1) ^ words[STAT.CTIME_NS]!;
    return this.#links.slotOf({ device: this.#device(), low: words[STAT.INO]!, high: words[STAT.INO + 1]!, stamp });
  }

  #link(pair: DirectoryPair, names: Arena, name: number, first: Uint8Array): void {
    const slash = first.lastIndexOf(47);
    const parent = first.subarray(0, Math.max(slash, 0));
    if (this.#firstDirectory === null || Buffer.compare(parent, this.#firstDirectory) !== 0) {
      this.close();
      this.#firstFd = openBelow(this.sys, this.#target, parent, DIRECTORY, this.#path);
      if (this.#firstFd < 0) throw syscallError(this.#firstFd, `cannot open the directory ${quotedPath(parent)}`);
      this.#firstDirectory = Uint8Array.from(parent);
    }
    putName(this.#path, 0, first.subarray(slash + 1));
    const result = this.sys.link(this.#firstFd, this.#path, 0, pair.to, names, name);
    if (result < 0) throw syscallError(result, `cannot link ${quotedPath(this.pathOf(pair.path, names, name))}`);
    this.out.linked++;
    this.out.entries++;
  }

  /** Makes the entry of an open file that `#stat` describes; false if the file changed meanwhile. */
  #make(pair: DirectoryPair, names: Arena, name: number, from: number): boolean {
    const { sys } = this;
    const listed = sys.flistxattr(from, this.#list);
    const mode = this.#createdMode(listed > 0);
    const to = sys.open(pair.to, names, name, CREATE, mode);
    if (to < 0) throw syscallError(to, `cannot create ${quotedPath(this.pathOf(pair.path, names, name))}`);
    try {
      const before = this.#stat.words;
      const size = wide(before, STAT.SIZE);
      let how: "cloned" | "copied" | "empty" = "empty";
      if (size > 0) {
        const failed = this.#content(pair, names, name, { from, to });
        if (typeof failed === "number") {
          this.omit(pair, names, name, failed);
          sys.unlink(pair.to, names, name, false);
          return true;
        }
        how = failed;
      }
      this.#apply({ from, to, listed, mode }, before, () => this.pathOf(pair.path, names, name));
      const known = sys.fstat(from, this.#after);
      const settled = known >= 0 && sameContentStat(before, this.#after.words);
      if (settled) this.madeFrom(to, before);
      if (this.#tellsOfUse(from, names, name)) this.out.logs.push(this.pathOf(pair.path, names, name));
      this.#count(size, how);
      return settled;
    } finally {
      sys.close(to);
    }
  }

  /** True for an open file that is the log of a database in use, or a database that may be in the middle of a transaction. */
  #tellsOfUse(from: number, names: Arena, name: number): boolean {
    const { words } = this.#stat;
    const size = wide(words, STAT.SIZE);
    const isLog = isLogName(names.bytes, name);
    if (isLog && size > 0) return true;
    const later = signedWide(words, STAT.CTIME) - signedWide(this.#began.words, STAT.CTIME);
    const isLater = later > 0 || (later === 0 && words[STAT.CTIME_NS]! >= this.#began.words[STAT.CTIME_NS]!);
    if (isLog) return isLater;
    if (size === 0 || size % SMALLEST_PAGE !== 0) return false;
    const read = this.sys.read(from, this.#value, 0, MAGIC.length, 0);
    const isDatabase = read === MAGIC.length && MAGIC.equals(this.#value.bytes.subarray(0, MAGIC.length));
    return isDatabase && (isLater || isWriteLocked(from, WRITER_BYTES));
  }

  /** Notes why a file is copied instead of cloned. Throws if no file can be cloned. */
  #noteRefusal(result: number, pair: DirectoryPair, path: () => string): void {
    if (cloneAnswer(result) === "full") throw syscallError(result, `cannot clone ${path()}`);
    if (isOtherFileSystem(result) && this.#device() === pair.device) throw otherFileSystem();
    this.out.refusal ??= errnoName(-result);
  }

  /** Notes the source of an open entry, with the stat words that the source still had after the copy. */
  madeFrom(to: number, source: Uint32Array): void {
    if (this.#origins !== null && this.sys.fstat(to, this.#made) >= 0) this.#origins.add(this.#made.words, source);
  }

  /** Notes the source of an entry that is not opened, unless the name now means another entry. */
  #madeByName(pair: DirectoryPair, names: Arena, name: number): void {
    if (this.#origins === null || this.sys.stat(pair.from, names, name, this.#after) < 0) return;
    const before = this.#stat.words;
    const after = this.#after.words;
    const same = before[STAT.INO] === after[STAT.INO] && before[STAT.INO + 1] === after[STAT.INO + 1];
    if (same && sameContentStat(before, after) && this.sys.stat(pair.to, names, name, this.#made) >= 0)
      this.#origins.add(this.#made.words, before);
  }

  #count(size: number, how: "cloned" | "copied" | "empty"): void {
    this.out.entries++;
    this.out.files++;
    this.out.bytes += size;
    if (how === "cloned") this.out.cloned++;
    if (how === "copied") this.out.copied++;
  }

  /** Writes a file. Returns minus errno if the source cannot be read. Throws if the target cannot be written. */
  #content(
    pair: DirectoryPair,
    names: Arena,
    name: number,
    { from, to }: { from: number; to: number },
  ): "cloned" | "copied" | number {
    const path = (): string => quotedPath(this.pathOf(pair.path, names, name));
    if (!isFragmented(from, wide(this.#stat.words, STAT.BLOCKS) * 512, this.#task.extentLimit)) {
      let result = cloneFile(from, to);
      if (cloneAnswer(result) === "refused" && takeOverNoCow(from, to)) result = cloneFile(from, to);
      if (cloneAnswer(result) === "cloned") return "cloned";
      this.#noteRefusal(result, pair, path);
    } else this.out.fragmented++;
    const result = copyContent(this.sys, from, to, {
      size: wide(this.#stat.words, STAT.SIZE),
      checkStop: () => this.#pool.checkStop(),
      path,
    });
    return result < 0 ? result : "copied";
  }

  #device(): number {
    return deviceOf(this.#stat);
  }

  /** The final mode, if a new file can be created with it: that saves a call. */
  #createdMode(attributes: boolean): number {
    const { words } = this.#stat;
    const mode = words[STAT.MODE]! & 0o7777;
    const own = words[STAT.UID] === this.#uid && words[STAT.GID] === this.#gid;
    return own && !attributes && (mode & ~this.#task.newBits) === 0 ? mode : 0o600;
  }

  /** Owner, attributes, marks, mode and times of an open directory. */
  metadata(from: number, to: number, words: Uint32Array, path: () => Uint8Array): void {
    if (from >= 0) takeOverMarks(from, to);
    const listed = from >= 0 ? this.sys.flistxattr(from, this.#list) : 0;
    this.#apply({ from, to, listed, mode: -1 }, words, path);
  }

  /**
   * Sets metadata in an order in which no step undoes another. `listed`: length of the source's attribute names;
   * `mode`: the entry's present mode.
   */
  #apply(
    entry: { from: number; to: number; listed: number; mode: number },
    words: Uint32Array,
    path: () => Uint8Array,
  ): void {
    const { sys } = this;
    const { to } = entry;
    const aspects: NotSet["aspects"] = [];
    this.#trouble = null;
    if (!this.#isOwned(words, (uid, gid) => sys.fchown(to, uid, gid))) aspects.push("owner");
    if (!this.#attributes(entry.from, to, entry.listed)) aspects.push("xattrs");
    const mode = words[STAT.MODE]! & 0o7777;
    const isLost = aspects.includes("owner") && sys.fstat(to, this.#made) >= 0;
    const given = isLost ? modeFor(this.#made.words, { uid: words[STAT.UID]!, gid: words[STAT.GID]! }, mode) : mode;
    if ((entry.mode !== given && !this.#isSet(sys.fchmod(to, given))) || given !== mode) aspects.push("mode");
    if (!this.#isSet(sys.utimens(to, this.#noName, 0, signedWide(words, STAT.MTIME), words[STAT.MTIME_NS]!)))
      aspects.push("times");
    if (aspects.length > 0) this.#note(path, sys.fstat(to, this.#made), { words, aspects });
  }

  /** Notes refused metadata of a made entry that differs from the source's stat words. Uses the entry's stat in `#made`. */
  #note(path: () => Uint8Array, known: number, refused: { words: Uint32Array; aspects: NotSet["aspects"] }): void {
    const { words } = refused;
    const [uid, gid, mode] = [words[STAT.UID]!, words[STAT.GID]!, words[STAT.MODE]! & 0o7777];
    const wanted = { uid, gid, mode, mtimeSec: signedWide(words, STAT.MTIME), mtimeNs: words[STAT.MTIME_NS]! };
    const aspects = known < 0 ? refused.aspects : whatDiffers(this.#made.words, wanted, refused.aspects);
    if (aspects.length > 0)
      this.out.notSet.push({
        path: Uint8Array.from(path()),
        aspects,
        detail: this.#trouble ?? "the system refuses it",
      });
  }

  /** Sets the group first: a user who may not change the owner may still change the group. */
  #isOwned(words: Uint32Array, own: (uid: number, gid: number) => number): boolean {
    const uid = words[STAT.UID]!;
    const gid = words[STAT.GID]!;
    const isGrouped = gid === this.#gid || (gid !== NO_ID && this.#isSet(own(NO_ID, gid)));
    return (uid === this.#uid || (uid !== NO_ID && this.#isSet(own(uid, NO_ID)))) && isGrouped;
  }

  #isSet(result: number): boolean {
    this.#trouble ??= diskTrouble(result);
    return result >= 0;
  }

  /** `listed`: length of the source's attribute names, or minus errno. False if the target lacks some. */
  #attributes(from: number, to: number, listed: number): boolean {
    let all = listed > 0 || HAS_NO_ATTRIBUTE.has(listed);
    for (let at = 0; at < listed; at = this.#list.bytes.indexOf(0, at) + 1) {
      const size = this.sys.fgetxattr(from, this.#list, at, this.#value, 0);
      if (
        size < 0
          ? !HAS_NO_ATTRIBUTE.has(size)
          : !this.#isSet(this.sys.fsetxattr(to, this.#list, at, this.#value, 0, size))
      )
        all = false;
    }
    return all;
  }

  /** Clones a link, pipe, socket or device; or notes that the name now has another kind of entry. */
  other(pair: DirectoryPair, names: Arena, name: number): void {
    const known = this.sys.stat(pair.from, names, name, this.#stat);
    if (known < 0) return this.omit(pair, names, name, known);
    const { words } = this.#stat;
    const type = words[STAT.MODE]! >>> 12;
    // The entry is being replaced: it had another kind when it was listed.
    if (type === TYPE.FILE || type === TYPE.DIRECTORY)
      return void this.out.omitted.push({ path: this.pathOf(pair.path, names, name), reason: "it is being replaced" });
    if (words[STAT.NLINK]! < 2) return void this.#special(pair, names, name);
    const path = this.pathOf(pair.path, names, name);
    this.linked.add(nameOf(path));
    const slot = this.#slot(null);
    if (!this.#links.claim(slot, () => this.#pool.checkStop()))
      return this.#link(pair, names, name, this.#links.first(slot));
    let made = false;
    try {
      made = this.#special(pair, names, name);
    } finally {
      this.#links.made(slot, made ? path : null);
    }
  }

  #special(pair: DirectoryPair, names: Arena, name: number): boolean {
    const { sys } = this;
    const { words } = this.#stat;
    const link = words[STAT.MODE]! >>> 12 === TYPE.LINK;
    let result: number;
    if (link) {
      const length = sys.readlink(pair.from, names, name, this.#value);
      if (length < 0) {
        this.omit(pair, names, name, length);
        return false;
      }
      this.#value.bytes[length] = 0;
      result = sys.symlink(this.#value, 0, pair.to, names, name);
    } else {
      const mode = (words[STAT.MODE]! & 0xf000) | 0o600;
      result = sys.mknod(pair.to, names, name, mode, words[STAT.RDEV_MAJOR]!, words[STAT.RDEV_MINOR]!);
    }
    if (result < 0) {
      if (!isNotHeld(errnoName(-result)))
        throw syscallError(result, `cannot make ${quotedPath(this.pathOf(pair.path, names, name))}`);
      this.omit(pair, names, name, result);
      return false;
    }
    this.#metadataByName(pair, names, name, link);
    this.#madeByName(pair, names, name);
    this.out.entries++;
    return true;
  }

  /** Like `metadata`, for entries that are not opened. */
  #metadataByName(pair: DirectoryPair, names: Arena, name: number, link: boolean): void {
    const { sys } = this;
    const { words } = this.#stat;
    const aspects: NotSet["aspects"] = [];
    this.#trouble = null;
    if (!this.#isOwned(words, (uid, gid) => sys.lchown(pair.to, names, name, uid, gid))) aspects.push("owner");
    const listed = sys.llistxattr(pair.from, names, name, this.#list);
    if (!this.#attributesByName(pair, names, name, listed)) aspects.push("xattrs");
    if (!link && (words[STAT.MODE]! & 0o7777) !== 0o600)
      if (!this.#isSet(sys.chmod(pair.to, names, name, words[STAT.MODE]! & 0o7777))) aspects.push("mode");
    const times = sys.utimens(pair.to, names, name, signedWide(words, STAT.MTIME), words[STAT.MTIME_NS]!);
    if (!this.#isSet(times)) aspects.push("times");
    if (aspects.length > 0)
      this.#note(() => this.pathOf(pair.path, names, name), sys.stat(pair.to, names, name, this.#made), {
        words,
        aspects,
      });
  }

  #attributesByName(pair: DirectoryPair, names: Arena, name: number, listed: number): boolean {
    const { sys } = this;
    let all = listed > 0 || HAS_NO_ATTRIBUTE.has(listed);
    for (let at = 0; at < listed;) {
      const end = this.#list.bytes.indexOf(0, at);
      const attribute = this.#list.bytes.subarray(at, end);
      const size = sys.lgetxattr(pair.from, names, name, attribute, this.#value, 0);
      const value = this.#value.bytes.subarray(0, Math.max(size, 0));
      if (size < 0 ? !HAS_NO_ATTRIBUTE.has(size) : sys.lsetxattr(pair.to, names, name, attribute, value) < 0)
        all = false;
      at = end + 1;
    }
    return all;
  }
}

function nameOf(path: Buffer): string {
  return path.toString("latin1", path.lastIndexOf(47) + 1);
}

export function otherFileSystem(): CairnError {
  return new CairnError(
    "unsupported",
    "the two folders are on different file systems; files can be cloned only within one",
  );
}

export function deviceOf({ words }: StatBuffer): number {
  return Math.imul(words[STAT.DEV_MAJOR]!, 1 << 20) ^ words[STAT.DEV_MINOR]!;
}

let buffer: Arena | undefined;

/**
 * Copies the content of an open file into an empty one, without its holes: 0, or minus errno if the source cannot be
 * read. Throws if the target cannot be written. For files that the file system does not clone.
 */
function copyContent(
  sys: Syscalls,
  from: number,
  to: number,
  file: { size: number; checkStop(): void; path(): string },
): number {
  buffer ??= newArena(PIECE);
  const { size } = file;
  for (let at = 0; at < size;) {
    const data = sys.seek(from, at, SEEK_DATA);
    if (data === ENXIO) break;
    if (data < 0) return data;
    const hole = sys.seek(from, data, SEEK_HOLE);
    if (hole < 0) return hole;
    const end = Math.min(hole, size);
    for (at = data; at < end;) {
      file.checkStop();
      const n = sys.read(from, buffer, 0, Math.min(PIECE, end - at), at);
      if (n < 0) return n;
      if (n === 0) return 0;
      for (let done = 0; done < n;) {
        const written = sys.write(to, buffer, done, n - done, at + done);
        if (written < 0) throw syscallError(written, `cannot write ${file.path()}`);
        done += written;
      }
      at += n;
    }
    at = Math.max(at, hole);
  }
  const result = sys.ftruncate(to, size);
  if (result < 0) throw syscallError(result, `cannot write ${file.path()}`);
  return 0;
}
