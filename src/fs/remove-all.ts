import fs from "node:fs";
import { CairnError } from "../errors.ts";
import { type Arena, newArena } from "../native.ts";
import { newPacer } from "../pacer.ts";
import { destroyOpenSubvolume, isSubvolume } from "./linux/btrfs.ts";
import { ROOT_INODE } from "./linux/btrfs-abi.ts";
import { EACCES, EBUSY, EEXIST, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY, EXDEV } from "./linux/errno.ts";
import { nameOf, parentOf } from "./linux/exchange-folders.ts";
import { mountsBelow } from "./linux/mounts.ts";
import { insideOwner } from "./linux/user-namespace.ts";
import { DIRECTORY, mountIdOf, openInside } from "./linux/open-below.ts";
import {
  errnoName,
  newStatBuffer,
  openDirectory,
  openOwnWay,
  putName,
  STAT,
  type StatBuffer,
  type Syscalls,
  syscalls,
  wide,
} from "./linux/syscalls.ts";
import { DT } from "./listing.ts";
import { letOwnerIn, setMode } from "./owner-writes.ts";
import { listedNames, printablePath, rawBytes, type RawPath, shellPath } from "./paths/safe-path.ts";

/**
 * Removes a tree by open directories: each directory is opened by its name below its open parent, no link is followed
 * and no mount is entered, and changes go through open descriptors. So directories, links or mounts that others put
 * there meanwhile cannot redirect the removal.
 */

/** Identifies a directory as long as it exists. */
export interface DirectoryIdentity {
  readonly device: bigint;
  readonly inode: string;
  /** Time of the creation in ns since 1970; null if the file system keeps none. */
  readonly born: string | null;
}

/** Accepts the directory to remove. */
type Only = (found: DirectoryIdentity) => boolean;

/**
 * Removes the entry `name` of the open directory `parent` with everything below it, of any kind and mode; a missing entry
 * is fine. Yields between steps. Returns false if `only` does not accept the entry. Throws `refused` if a file system is
 * mounted at the entry or below it. In both cases nothing was removed. Throws the system's error.
 */
export function* removal(parent: number, name: Uint8Array, only?: Only): Generator<void, boolean> {
  const walk = new Removal(parent);
  try {
    return yield* walk.run(name, only);
  } finally {
    walk.close();
  }
}

/** Removes an entry as {@link removal} does, with pauses for other callers. */
export async function removeEntry(parent: number, name: Uint8Array, only?: Only): Promise<boolean> {
  const pace = newPacer(undefined);
  const steps = removal(parent, name, only);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
    await pace();
  }
}

/** Removes the entry at a path as {@link removal} does, without a pause. Throws `conflict` if another user's link is in the path. */
export function removeAll(place: RawPath): void {
  removeOnly(place);
}

/** Removes a directory as {@link removeAll} does. Returns false, without a change, for an entry that `only` does not accept. */
export function removeOnly(place: RawPath, only?: Only): boolean {
  return inParent(place, (parent, name) => removeNow(parent, name, only)) ?? true;
}

/** Removes an entry as {@link removal} does, without a pause. */
export function removeNow(parent: number, name: Uint8Array, only?: Only): boolean {
  const steps = removal(parent, name, only);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

/**
 * Throws `refused` if a file system is mounted at a path or below it. Callers ask before the first step of a change that
 * ends with the removal of `place`.
 */
export function requireUnmounted(place: RawPath): void {
  inParent(place, (parent, name) => {
    const path = newArena(name.length + 1);
    putName(path, 0, name);
    const fd = openInside(syscalls(), parent, path, 0, DIRECTORY);
    if (fd === EXDEV) throw failure(fd, "remove", { parent, name });
    if (fd < 0) return;
    try {
      requireNoMounts(fd, place);
    } finally {
      fs.closeSync(fd);
    }
  });
}

/** Calls `work` with the open parent of an entry. Undefined if the parent is missing. */
function inParent<T>(place: RawPath, work: (parent: number, name: Buffer) => T): T | undefined {
  const path = rawBytes(place);
  const parent = openParent(path);
  if (parent === null) return undefined;
  try {
    return work(parent, nameOf(path));
  } catch (error) {
    // The system's error names only an entry below `path`.
    if (!(error instanceof CairnError)) (error as Error).message += `, while removing ${printablePath(path)}`;
    throw error;
  } finally {
    fs.closeSync(parent);
  }
}

function openParent(path: Buffer): number | null {
  try {
    return openOwnWay(path.includes(0x2f) ? parentOf(path) : DOT, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ENOTDIR") return null;
    throw error;
  }
}

/**
 * Removes leftovers of an operation at its end. Ignores errors, so that they hide no earlier failure; a later cleanup
 * removes the rest, as after a kill.
 */
export function clearAway(place: RawPath): void {
  try {
    removeAll(place);
  } catch {
    // If the file system is gone, the operation fails, too.
  }
}

interface Level {
  readonly name: Uint8Array;
  /** -1 while the directory is closed */
  fd: number;
  readonly facts: Facts;
  /** entries that are still to be removed */
  readonly left: Uint8Array[];
  readonly round: number;
}

interface Facts {
  readonly device: number;
  readonly inode: bigint;
  readonly mount: number;
  readonly mode: number;
  readonly uid: number;
}

const OWNER = 0o700;
/**
 * The most open directories of one branch. Directories further up are closed, and reopened through `..` of the next
 * one.
 */
const MOST_OPEN = 64;
/** The most tries to empty a directory into which others write, or whose listing misses entries because others are removed. */
const MOST_ROUNDS = 100;
const LISTED_BYTES = 64 * 1024;
/** Offsets in a record of a listing: its length, its type and its name. */
const RECORD = { LENGTH: 16, TYPE: 18, NAME: 19 } as const;
const SUBVOLUME = BigInt(ROOT_INODE);
const DOT = Buffer.from(".");
const ABOVE = Buffer.from("..");

class Removal {
  readonly #sys = syscalls();
  readonly #parent: number;
  readonly #name = newArena(1024);
  readonly #stat = newStatBuffer();
  readonly #levels: Level[] = [];
  #listed: Arena | null = null;

  constructor(parent: number) {
    this.#parent = parent;
  }

  close(): void {
    for (const { fd } of this.#levels) if (fd >= 0) this.#sys.close(fd);
  }

  *run(name: Uint8Array, only: Only | undefined): Generator<void, boolean> {
    if (!(yield* this.#enter(name, 0, only))) return false;
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      const next = level.left.pop();
      if (next === undefined) yield* this.#leave();
      else yield* this.#enter(next, 0);
    }
    return true;
  }

  /**
   * Removes one entry of the innermost open directory. If it is a directory itself, removes the files in it and opens
   * it as the next level. Returns false if `only` does not accept the entry.
   */
  *#enter(name: Uint8Array, round: number, only?: Only): Generator<void, boolean> {
    const above = this.#levels.at(-1);
    const parent = above === undefined ? this.#parent : this.#held(above);
    const fd = this.#open(parent, name, only);
    if (fd === ENOENT) return true;
    const isOther = fd === ENOTDIR || fd === ELOOP;
    if (isOther && only !== undefined) return false;
    if (isOther || fd === EACCES) {
      // A directory that this user may not list may be empty.
      const result = this.#unlink(parent, name, !isOther);
      if (result >= 0 || result === ENOENT) return true;
      if (isOther) throw failure(result, "remove", { parent, name });
    }
    if (fd < 0) throw failure(fd, "open", { parent, name });
    try {
      if (only !== undefined && !only(identityOf(fd))) {
        this.#sys.close(fd);
        return false;
      }
      if (above === undefined) requireNoMounts(fd, name);
    } catch (error) {
      this.#sys.close(fd);
      throw error;
    }
    yield* this.#push(parent, { name, fd, facts: this.#factsOf(fd), left: [], round });
    return true;
  }

  *#push(parent: number, level: Level): Generator<void> {
    this.#levels.push(level);
    const far = this.#levels.at(-1 - MOST_OPEN);
    if (far !== undefined && far.fd >= 0) {
      this.#sys.close(far.fd);
      far.fd = -1;
    }
    const { fd, facts, left } = level;
    if (facts.inode === SUBVOLUME && isSubvolume(fd) && destroyOpenSubvolume(parent, fd)) {
      this.#drop();
      return;
    }
    letOwnerEmpty(this.#sys, fd, facts);
    for (const name of unlinkFiles(this.#sys, fd, (this.#listed ??= newArena(LISTED_BYTES)))) {
      if (name === null) yield;
      else left.push(Buffer.from(name));
    }
  }

  /** Removes the directory of the last level, which is empty. */
  *#leave(): Generator<void> {
    const level = this.#levels.at(-1)!;
    const above = this.#levels.at(-2);
    const parent = above === undefined ? this.#parent : this.#held(above, level);
    const { name, round } = level;
    this.#drop();
    const result = this.#unlink(parent, name, true);
    if (result === 0 || result === ENOENT) return;
    const isNotEmpty = result === ENOTEMPTY || result === EEXIST;
    if (!isNotEmpty || round >= MOST_ROUNDS) throw failure(result, "remove", { parent, name });
    yield* this.#enter(name, round + 1);
  }

  #drop(): void {
    const { fd } = this.#levels.pop()!;
    this.#sys.close(fd);
  }

  /** Returns the descriptor of a level. Reopens a closed level through the level below it. */
  #held(level: Level, below?: Level): number {
    if (level.fd < 0) {
      putName(this.#name, 0, ABOVE);
      const fd = this.#sys.open(below!.fd, this.#name, 0, DIRECTORY, 0);
      if (fd < 0) throw failure(fd, "open", level);
      level.fd = fd;
      if (!isSameFolder(this.#factsOf(fd), level.facts)) throw failure(ENOTDIR, "remove the content of", level);
    }
    return level.fd;
  }

  #open(parent: number, name: Uint8Array, only: Only | undefined): number {
    putName(this.#name, 0, name);
    const fd = openInside(this.#sys, parent, this.#name, 0, DIRECTORY);
    if (fd !== EACCES) return fd;
    const isMeant = (found: number): boolean =>
      mountIdOf(found) === mountIdOf(parent) && only?.(identityOf(found)) !== false;
    if (!letOwnerIn(this.#sys, { fd: parent, name: this.#name, at: 0 }, isMeant)) return fd;
    return openInside(this.#sys, parent, this.#name, 0, DIRECTORY);
  }

  #unlink(fd: number, name: Uint8Array, isDirectory: boolean): number {
    putName(this.#name, 0, name);
    return this.#sys.unlink(fd, this.#name, 0, isDirectory);
  }

  #factsOf(fd: number): Facts {
    const looked = this.#sys.fstat(fd, this.#stat);
    if (looked < 0) throw failure(looked, "look at", { name: DOT });
    return factsIn(this.#stat);
  }
}

/**
 * Removes the entries of an open directory except directories, with `listed` as memory for its list. Returns the name of
 * each entry that is left, valid until the next one, and null when the caller may pause. Throws if the directory
 * cannot be listed.
 */
export function* unlinkFiles(sys: Syscalls, fd: number, listed: Arena): Generator<Uint8Array | null> {
  const { bytes } = listed;
  for (;;) {
    const filled = sys.getdents(fd, listed, 0);
    if (filled < 0) throw failure(filled, "list", { name: DOT });
    if (filled === 0) return;
    for (let at = 0; at < filled; at += bytes[at + RECORD.LENGTH]! | (bytes[at + RECORD.LENGTH + 1]! << 8)) {
      const start = at + RECORD.NAME;
      const type = bytes[at + RECORD.TYPE]!;
      if (type !== DT.DIRECTORY && type !== DT.UNKNOWN) {
        const result = sys.unlink(fd, listed, start, false);
        if (result === 0 || result === ENOENT) continue;
        // The entry is a directory by now, or its error is reported later.
      }
      const name = bytes.subarray(start, bytes.indexOf(0, start));
      const isDots = name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e));
      if (!isDots) yield name;
    }
    yield null;
  }
}

/** Lets this user change the entries of an own open directory, if its mode forbids that. */
export function letOwnerEmpty(sys: Syscalls, fd: number, { mode, uid }: Pick<Facts, "mode" | "uid">): void {
  // A failed chmod is ignored: the errors of the entries then tell why the directory stays.
  if ((mode & OWNER) !== OWNER && uid === process.geteuid?.()) sys.fchmod(fd, (mode & 0o7777) | OWNER);
}

/** Throws `refused` if a file system is mounted below an open directory. */
export function requireNoMounts(fd: number, shown: RawPath | Uint8Array): void {
  refuseMounts(mountsBelow(fd, mountIdOf(fd)), printablePath(shown));
}

function refuseMounts(mounts: readonly { mountPoint: Buffer }[], shown: string): void {
  if (mounts.length === 0) return;
  const places = mounts.map(({ mountPoint }) => printablePath(mountPoint));
  throw new CairnError("refused", `${shown} cannot be removed: a file system is mounted at ${listedNames(places)}`, {
    hint: `unmount it first: umount ${shellPath(mounts.at(-1)!.mountPoint)}`,
    details: { mounts: places },
  });
}

/** Returns the identity of an open directory. Some file systems give a directory another inode number after its last close. */
export function identityOf(fd: number): DirectoryIdentity {
  const { dev, ino, birthtimeNs } = fs.fstatSync(fd, { bigint: true });
  return { device: dev, inode: ino.toString(), born: birthtimeNs > 0n ? birthtimeNs.toString() : null };
}

export function isSameDirectory(one: DirectoryIdentity, other: DirectoryIdentity): boolean {
  return one.device === other.device && one.inode === other.inode && one.born === other.born;
}

export function factsIn({ words }: StatBuffer): Facts {
  return {
    device: words[STAT.DEV_MAJOR]! * 4294967296 + words[STAT.DEV_MINOR]!,
    inode: BigInt(words[STAT.INO + 1]!) * 4294967296n + BigInt(words[STAT.INO]!),
    mount: wide(words, STAT.MOUNT_ID),
    mode: words[STAT.MODE]! & 0xffff,
    uid: insideOwner(words),
  };
}

function isSameFolder(one: Facts, other: Facts): boolean {
  return one.device === other.device && one.inode === other.inode && one.mount === other.mount;
}

/** Returns the error of an entry, `refused` if the entry is a mount point by now. */
function failure(
  result: number,
  doing: string,
  { parent, name }: { parent?: number | undefined; name: Uint8Array },
): Error {
  const shown = printablePath(name);
  if (parent !== undefined && (result === EXDEV || result === EBUSY))
    refuseMounts(
      mountsBelow(parent, mountIdOf(parent)).filter(({ mountPoint }) => nameOf(mountPoint).equals(name)),
      shown,
    );
  const code = errnoName(-result);
  const message = `${code}: cannot ${doing} ${shown}`;
  return Object.assign(new Error(message), { code, errno: result });
}

/** Returns the message that another entry has replaced the directory that was made at a place. */
export function otherFolder(place: RawPath): string {
  return `${printablePath(place)} is not the folder that Cairn made there`;
}

/**
 * A folder made at a path whose name others may change. The open descriptor detects a replacement, also on file systems
 * that renumber closed directories.
 */
export class MadeFolder {
  readonly #place: RawPath;
  #fd: number | null = null;

  constructor(place: RawPath) {
    this.#place = place;
  }

  /** Opens the folder at the place, whose identity counts from now on. Throws if the entry is not a directory, or is a link. */
  hold(): void {
    this.letGo();
    this.#fd = openDirectory(this.#place);
  }

  /** Closes the folder and forgets its identity. */
  letGo(): void {
    if (this.#fd !== null) fs.closeSync(this.#fd);
    this.#fd = null;
  }

  [Symbol.dispose](): void {
    this.letGo();
  }

  /** Null while the folder is not open. */
  identity(): DirectoryIdentity | null {
    return this.#fd === null ? null : identityOf(this.#fd);
  }

  chmod(mode: number): void {
    setMode(this.#fd!, mode);
  }

  /** True if the folder is at its place. */
  isThere(): boolean {
    if (this.#fd === null) return false;
    const made = fs.fstatSync(this.#fd, { bigint: true });
    const there = fs.lstatSync(this.#place, { bigint: true, throwIfNoEntry: false });
    return there?.dev === made.dev && there.ino === made.ino;
  }

  /**
   * Removes the folder with everything in it. Returns false, without a change, if another folder is at its place.
   * Without an identity removes any entry at the place.
   */
  remove(): boolean {
    const made = this.identity();
    if (made !== null) return removeOnly(this.#place, (found) => isSameDirectory(found, made));
    removeAll(this.#place);
    return true;
  }
}
