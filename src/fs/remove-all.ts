import fs from "node:fs";
import { type Arena, newArena } from "../native.ts";
import { destroyOpenSubvolume, isSubvolume } from "./linux/btrfs.ts";
import { ROOT_INODE } from "./linux/btrfs-abi.ts";
import { EACCES, EBUSY, EEXIST, ELOOP, ENOENT, ENOTDIR, ENOTEMPTY } from "./linux/errno.ts";
import { nameOf, parentOf } from "./linux/exchange-folders.ts";
import { DT } from "./listing.ts";
import { letOwnerIn } from "./owner-writes.ts";
import { printablePath, rawBytes, type RawPath } from "./paths/safe-path.ts";
import { errnoName, newStatBuffer, openDirectory, putName, STAT, type StatBuffer, syscalls } from "./linux/syscalls.ts";

/**
 * Removes the entry at a path, also directories whose modes forbid it and read-only subvolumes of btrfs; a missing
 * entry is fine. Follows no link below the entry's parent, even if one is put there meanwhile. Throws the system's
 * error.
 */
export function removeAll(place: RawPath): void {
  try {
    // rmSync also works through open directories, without native calls, but changes no modes and removes no subvolume as a whole.
    fs.rmSync(place, { recursive: true, force: true });
  } catch {
    inParent(place, (parent, name) => removeBelow(parent, name));
  }
}

/** Removes a directory if `only` accepts its identity; false, without a change, for another entry. */
export function removeOnly(place: RawPath, only: (found: DirectoryIdentity) => boolean): boolean {
  return inParent(place, (parent, name) => removeBelow(parent, name, { only }));
}

/**
 * Removes leftovers of an operation at its end. Ignores errors, so that they hide no earlier failure; a later cleanup
 * removes the rest, as after a kill.
 */
export function clearAway(place: string): void {
  try {
    removeAll(place);
  } catch {
    // If the file system is gone, the operation fails, too.
  }
}

function inParent<T>(place: RawPath, work: (parent: number, name: Buffer) => T): T {
  const path = rawBytes(place);
  const parent = path.includes(0x2f) ? parentOf(path) : Buffer.from(".");
  const fd = fs.openSync(parent, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    return work(fd, nameOf(path));
  } catch (error) {
    // The error names only an entry below `path`.
    (error as Error).message += `, while removing ${printablePath(path)}`;
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/**
 * Removes a tree by open directories: each directory is opened by its name below its open parent, no link is followed,
 * and changes go through open descriptors. So directories or links that others exchange meanwhile cannot redirect the
 * removal.
 */

/** Numbers that identify a directory as long as it exists. */
export interface DirectoryIdentity {
  readonly device: number;
  readonly inode: string;
}

export interface RemovalOptions {
  /** Removes only a directory that this function accepts. */
  only?: ((found: DirectoryIdentity) => boolean) | undefined;
}

/**
 * Removes an entry of an open directory with everything below it, whatever its kind and modes; a missing entry is fine.
 * Does not enter mounts. Yields between steps. Returns false, without a change, if `only` does not accept the entry.
 * Throws the system's error.
 */
export function* removal(parent: number, name: Uint8Array, options: RemovalOptions = {}): Generator<void, boolean> {
  const walk = new Removal(parent);
  try {
    return yield* walk.run(name, options);
  } finally {
    walk.close();
  }
}

/** Removes an entry and everything below it, without a pause. */
function removeBelow(parent: number, name: Uint8Array, options: RemovalOptions = {}): boolean {
  const steps = removal(parent, name, options);
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

interface Level {
  readonly name: Uint8Array;
  /** -1 while the directory is closed */
  fd: number;
  readonly facts: Facts;
  /** directories in this one that are still to be removed */
  readonly left: Uint8Array[];
  readonly round: number;
}

interface Facts extends DirectoryIdentity {
  mode: number;
  uid: number;
}

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const OWNER = 0o700;
/**
 * The most open directories of one branch. Directories further up are closed, and reopened through `..` of the next
 * one.
 */
const MOST_OPEN = 64;
/** The most tries to empty a directory into which others write, or whose listing misses entries that are moved meanwhile. */
const MOST_ROUNDS = 3;
const LISTED_BYTES = 64 * 1024;
/** Offsets in a record of a listing: its length, its type and its name. */
const RECORD = { LENGTH: 16, TYPE: 18, NAME: 19 } as const;
const SUBVOLUME = String(ROOT_INODE);
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

  *run(name: Uint8Array, { only }: RemovalOptions): Generator<void, boolean> {
    if (only === undefined) {
      if (!this.#isRemoved(this.#parent, name)) yield* this.#enter(name, 0);
    } else {
      const fd = this.#open(this.#parent, name, only);
      if (fd === ENOENT) return true;
      if (fd === ENOTDIR || fd === ELOOP) return false;
      if (fd < 0) throw failure(fd, "open", name);
      const facts = this.#factsOf(fd);
      if (!only(facts)) {
        this.#sys.close(fd);
        return false;
      }
      yield* this.#push({ name, fd, facts, left: [], round: 0 });
    }
    for (let level = this.#levels.at(-1); level !== undefined; level = this.#levels.at(-1)) {
      const next = level.left.pop();
      if (next === undefined) yield* this.#leave();
      else if (!this.#isRemoved(this.#held(level), next)) yield* this.#enter(next, 0);
    }
    return true;
  }

  /** True if one call removed the entry, or if it was gone. */
  #isRemoved(fd: number, name: Uint8Array): boolean {
    const result = this.#unlink(fd, name, true);
    if (result === 0 || result === ENOENT) return true;
    // A mount of another file system: nothing in it may be touched.
    if (result === EBUSY) throw failure(result, "remove", name);
    if (result !== ENOTDIR) return false;
    const unlinked = this.#unlink(fd, name, false);
    if (unlinked === 0 || unlinked === ENOENT) return true;
    throw failure(unlinked, "remove", name);
  }

  /** Removes all entries of the last level's directory except directories. */
  *#enter(name: Uint8Array, round: number): Generator<void> {
    const above = this.#levels.at(-1);
    const parent = above === undefined ? this.#parent : this.#held(above);
    const fd = this.#open(parent, name);
    if (fd === ENOENT) return;
    if (fd === ENOTDIR || fd === ELOOP) {
      // The directory was just exchanged. The new entry is removed, but not a link's target.
      const unlinked = this.#unlink(parent, name, false);
      if (unlinked < 0 && unlinked !== ENOENT) throw failure(unlinked, "remove", name);
      return;
    }
    if (fd < 0) throw failure(fd, "open", name);
    yield* this.#push({ name, fd, facts: this.#factsOf(fd), left: [], round });
  }

  *#push(level: Level): Generator<void> {
    const above = this.#levels.at(-1);
    const parent = above === undefined ? this.#parent : this.#held(above);
    this.#levels.push(level);
    const far = this.#levels.at(-1 - MOST_OPEN);
    if (far !== undefined && far.fd >= 0) {
      this.#sys.close(far.fd);
      far.fd = -1;
    }
    if (this.#isDestroyed(parent, level)) {
      this.#drop();
      return;
    }
    const { mode, uid } = level.facts;
    // A failed chmod is ignored: the errors of the entries then tell why the directory stays.
    if ((mode & OWNER) !== OWNER && uid === process.geteuid?.()) this.#sys.fchmod(level.fd, (mode & 0o7777) | OWNER);
    yield* this.#unlinkFiles(level);
  }

  #isDestroyed(parent: number, { fd, facts }: Level): boolean {
    return facts.inode === SUBVOLUME && isSubvolume(fd) && destroyOpenSubvolume(parent, fd);
  }

  *#unlinkFiles(level: Level): Generator<void> {
    const listed = (this.#listed ??= newArena(LISTED_BYTES));
    const { bytes } = listed;
    for (;;) {
      const filled = this.#sys.getdents(level.fd, listed, 0);
      if (filled < 0) throw failure(filled, "list", level.name);
      if (filled === 0) return;
      for (let at = 0; at < filled; at += bytes[at + RECORD.LENGTH]! | (bytes[at + RECORD.LENGTH + 1]! << 8)) {
        const start = at + RECORD.NAME;
        const name = bytes.subarray(start, bytes.indexOf(0, start));
        if (name[0] === 0x2e && (name.length === 1 || (name.length === 2 && name[1] === 0x2e))) continue;
        const type = bytes[at + RECORD.TYPE]!;
        const isFile = type !== DT.DIRECTORY && type !== DT.UNKNOWN;
        if (isFile) {
          const result = this.#sys.unlink(level.fd, listed, start, false);
          if (result === 0 || result === ENOENT) continue;
          // The entry is a directory by now, or its error is reported later.
        }
        level.left.push(Buffer.from(name));
      }
      yield;
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
    if (!isNotEmpty || round >= MOST_ROUNDS) throw failure(result, "remove", name);
    yield* this.#enter(name, round + 1);
  }

  #drop(): void {
    const { fd } = this.#levels.pop()!;
    this.#sys.close(fd);
  }

  /** Returns the descriptor of a level. Reopens a closed level through the level below it. */
  #held(level: Level, below?: Level): number {
    if (level.fd < 0) {
      const fd = this.#open(below!.fd, ABOVE);
      if (fd < 0) throw failure(fd, "open", level.name);
      level.fd = fd;
      if (!isSameDirectory(this.#factsOf(fd), level.facts)) throw moved(level.name);
    }
    return level.fd;
  }

  #open(parent: number, name: Uint8Array, only?: RemovalOptions["only"]): number {
    putName(this.#name, 0, name);
    const fd = this.#sys.open(parent, this.#name, 0, DIRECTORY, 0);
    if (fd !== EACCES) return fd;
    const isMeant = (facts: StatBuffer): boolean => only?.(factsIn(facts)) !== false;
    if (!letOwnerIn(this.#sys, { fd: parent, name: this.#name, at: 0 }, isMeant)) return fd;
    return this.#sys.open(parent, this.#name, 0, DIRECTORY, 0);
  }

  #unlink(fd: number, name: Uint8Array, isDirectory: boolean): number {
    putName(this.#name, 0, name);
    return this.#sys.unlink(fd, this.#name, 0, isDirectory);
  }

  #factsOf(fd: number): Facts {
    const looked = this.#sys.fstat(fd, this.#stat);
    if (looked < 0) throw failure(looked, "look at", DOT);
    return factsIn(this.#stat);
  }
}

/** Returns the identity of an open directory. Some file systems give a directory another inode number after its last close. */
export function identityOf(fd: number): DirectoryIdentity {
  const stat = newStatBuffer();
  const looked = syscalls().fstat(fd, stat);
  if (looked < 0) throw failure(looked, "look at", DOT);
  return factsIn(stat);
}

function factsIn({ words }: StatBuffer): Facts {
  return {
    device: words[STAT.DEV_MAJOR]! * 4294967296 + words[STAT.DEV_MINOR]!,
    inode: (BigInt(words[STAT.INO + 1]!) * 4294967296n + BigInt(words[STAT.INO]!)).toString(),
    mode: words[STAT.MODE]! & 0xffff,
    uid: words[STAT.UID]!,
  };
}

export function isSameDirectory(one: DirectoryIdentity, other: DirectoryIdentity): boolean {
  return one.device === other.device && one.inode === other.inode;
}

function moved(name: Uint8Array): Error {
  return failure(ENOTDIR, "remove the content of", name);
}

function failure(result: number, doing: string, name: Uint8Array): Error {
  const code = errnoName(-result);
  const message = `${code}: cannot ${doing} ${printablePath(name)}`;
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
    fs.fchmodSync(this.#fd!, mode);
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
