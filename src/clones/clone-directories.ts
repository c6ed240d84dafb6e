import fs from "node:fs";
import { DT, DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import { faultOfEntry } from "../fs/linux/errno.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  errnoName,
  newStatBuffer,
  openDirectory,
  putName,
  sameContentStat,
  STAT,
  type StatBuffer,
  syscallError,
  TYPE,
} from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";
import { isYoung, tickOf } from "../archive/scan/stat-words.ts";
import { STAGING_NAME } from "../archive/scan/task.ts";
import { type CloneOutcome, deviceOf, type DirectoryPair, EntryCloner } from "./clone-entry.ts";
import { CloneLinks, type CloneTask } from "./clone-links.ts";
import { WorkPool } from "../threads/work-pool.ts";

const FILE = 8;
/** Entries between two checks for an abort and for waiting threads. */
const BATCH = 32;
/** Number of times that a directory with vanished names is listed again, each time to clone its new entries. */
const LISTINGS = 3;
/** Rights that the owner needs to reach anything below a finished directory. */
const OWNER_ENTERS = 0o500;

/** Clones directories on one thread until none is left anywhere. */
export class DirectoryCloner {
  readonly #pool: WorkPool;
  readonly #entries: EntryCloner;
  readonly #from: number;
  readonly #to: number;
  readonly #began: number;
  readonly #listing = new DirectoryListing();
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #before: StatBuffer = newStatBuffer();
  readonly #path = newArena(8192);

  constructor(task: CloneTask) {
    this.#pool = new WorkPool(task.pool);
    this.#from = openDirectory(Buffer.from(task.from));
    this.#to = openDirectory(Buffer.from(task.to));
    this.#began = task.began;
    const links = new CloneLinks(task.links);
    this.#entries = new EntryCloner(task, { pool: this.#pool, links, target: this.#to });
  }

  run(): CloneOutcome {
    try {
      for (let path = this.#pool.take(); path !== null; path = this.#pool.take()) {
        this.#directory(path);
        this.#pool.share();
      }
      return this.#entries.outcome();
    } catch (error) {
      this.#pool.stop();
      throw error;
    } finally {
      this.#entries.close();
      fs.closeSync(this.#from);
      fs.closeSync(this.#to);
    }
  }

  #directory(path: Uint8Array): void {
    const { sys, out } = this.#entries;
    const open = (): number => openBelow(sys, this.#from, path, DIRECTORY, this.#path);
    const from = this.#listing.openSteady(sys, open, { before: this.#before, after: this.#stat });
    if (from < 0) return this.#lost(path, from);
    const isSteady = sameContentStat(this.#before.words, this.#stat.words);
    out.mayLackMoved ||= isYoung(this.#stat.words, tickOf(this.#stat.words), this.#began / 1000);
    const to = openBelow(sys, this.#to, path, DIRECTORY, this.#path);
    try {
      if (to < 0) throw syscallError(to, `cannot open the directory ${quotedPath(path)}`);
      const stat = this.#stat.words.slice();
      const pair = { path, from, to, device: deviceOf(this.#stat) };
      this.#entries.gone.clear();
      this.#entries.linked.clear();
      this.#all(pair);
      const hasMoved = this.#entries.gone.size > 0;
      out.mayLackMoved ||= hasMoved;
      if (hasMoved) this.#again(pair);
      if (path.length === 0) return;
      out.entries++;
      // The source record is valid only if the directory did not change while it was listed.
      if (isSteady && !hasMoved) this.#entries.madeFrom(to, stat);
      if ((stat[STAT.MODE]! & OWNER_ENTERS) === OWNER_ENTERS) this.#entries.metadata(from, to, stat, () => path);
      else out.closed.push({ path, stat });
    } finally {
      sys.close(from);
      if (to >= 0) sys.close(to);
    }
  }

  #lost(path: Uint8Array, result: number): void {
    const { out } = this.#entries;
    if (path.length === 0) throw syscallError(result, "cannot read the folder");
    if (errnoName(-result) !== "ENOENT") out.omitted.push({ path, reason: faultOfEntry(result) });
    out.gone.push(path);
  }

  /** Queues the subdirectories first, so that other threads have work. */
  #all(pair: DirectoryPair): void {
    const { names } = this.#listing;
    const offsets = this.#wanted(pair.path);
    const later: number[] = [];
    for (const name of offsets) {
      if (this.#isDirectory(pair, name)) this.#child(pair, name);
      else later.push(name);
    }
    this.#pool.advance(offsets.length - later.length);
    for (let i = 0; i < later.length; i++) {
      if (i % BATCH === 0) {
        this.#pool.checkStop();
        this.#pool.share();
        if (i > 0) this.#pool.advance(BATCH);
      }
      this.#entry(pair, names, later[i]!);
    }
    this.#pool.advance(later.length === 0 ? 0 : ((later.length - 1) % BATCH) + 1);
  }

  /** Clones an entry that is no directory. */
  #entry(pair: DirectoryPair, names: Arena, name: number): void {
    const type = names.bytes[name - 1]!;
    if (type === FILE || type === DT.UNKNOWN) this.#entries.file(pair, names, name);
    else this.#entries.other(pair, names, name);
  }

  /**
   * Lists a directory again and clones entries that have no clone yet: a listed name that vanished may have been
   * renamed. The directory counts as torn if an entry still cannot be cloned, or if a clone under an old name cannot be
   * removed.
   */
  #again(pair: DirectoryPair): void {
    const again = new CloneAgain(pair, {
      entries: this.#entries,
      listing: this.#listing,
      wanted: () => this.#wanted(pair.path),
      clone: (name) => {
        if (this.#isDirectory(pair, name)) this.#child(pair, name);
        else this.#entry(pair, this.#listing.names, name);
      },
    });
    for (let left = LISTINGS; left > 0; left--) if (!again.round()) return;
    if (!again.isComplete()) again.noteTorn();
  }

  /** Offsets of the names of the listing that are part of the state. */
  #wanted(path: Uint8Array): readonly number[] {
    const { offsets } = this.#listing;
    return path.length > 0 ? offsets : offsets.filter((at) => !STAGING_NAME.test(this.#listing.nameOf(at)));
  }

  #isDirectory(pair: DirectoryPair, name: number): boolean {
    const { sys } = this.#entries;
    const type = this.#listing.names.bytes[name - 1]!;
    if (type !== DT.UNKNOWN) return type === DT.DIRECTORY;
    if (sys.stat(pair.from, this.#listing.names, name, this.#stat) < 0) return false;
    return this.#stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
  }

  /** Makes a directory and queues it, unless it cannot be read or another file system is mounted there. */
  #child(pair: DirectoryPair, name: number): void {
    const { sys, out } = this.#entries;
    const { names } = this.#listing;
    const fd = sys.open(pair.from, names, name, DIRECTORY, 0);
    if (fd < 0) return this.#entries.omit(pair, names, name, fd);
    const known = sys.fstat(fd, this.#stat);
    sys.close(fd);
    if (known < 0) return this.#entries.omit(pair, names, name, known);
    const path = this.#entries.pathOf(pair.path, names, name);
    if (this.#stat.words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) return void out.mounts.push(path);
    const made = sys.mkdir(pair.to, names, name, 0o700);
    if (made < 0) throw syscallError(made, `cannot make the directory ${quotedPath(path)}`);
    this.#pool.push(path);
  }
}

/** Callbacks of a directory's cloner for {@link CloneAgain}. */
interface AgainWork {
  entries: EntryCloner;
  listing: DirectoryListing;
  wanted(): readonly number[];
  /** clones the entry of a name of the listing */
  clone(name: number): void;
}

/** A directory that is listed again, and the entries of it in the clone. */
class CloneAgain {
  readonly #pair: DirectoryPair;
  readonly #work: AgainWork;
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #before: StatBuffer = newStatBuffer();
  readonly #dot = newArena(8);
  /** inodes by name, of entries that are cloned or will not be: a mount, or an unreadable entry */
  readonly #settled = new Map<string, bigint>();
  /** inodes of names that had vanished */
  #lost = new Set<bigint>();
  #isTorn = false;

  constructor(pair: DirectoryPair, work: AgainWork) {
    this.#pair = pair;
    this.#work = work;
    putName(this.#dot, 0, Buffer.from("."));
    for (const name of work.wanted()) this.#settle(name);
    this.#takeGone();
  }

  #settle(name: number): void {
    const { listing } = this.#work;
    this.#settled.set(listing.nameOf(name), listing.inodeOf(name));
  }

  /** Lists the directory and clones new entries. True if a name vanished again. */
  round(): boolean {
    const missing = this.#list();
    const now = new Set<bigint>();
    for (const name of missing) {
      if (!this.#isFree(name)) continue;
      this.#work.clone(name);
      this.#settle(name);
      now.add(this.#work.listing.inodeOf(name));
    }
    const gone = this.#takeGone();
    this.#takeAway(new Set([...now].filter((inode) => !gone.has(inode))));
    return this.#lost.size > 0;
  }

  isComplete(): boolean {
    return !this.#list().some((name) => this.#lost.has(this.#work.listing.inodeOf(name)));
  }

  noteTorn(): void {
    if (!this.#isTorn) this.#work.entries.out.torn.push(this.#pair.path);
    this.#isTorn = true;
  }

  /** Names that are not settled, or that belong to a lost entry. */
  #list(): number[] {
    const { listing, entries } = this.#work;
    const { sys } = entries;
    const open = (): number => sys.open(this.#pair.from, this.#dot, 0, DIRECTORY, 0);
    const fd = listing.openSteady(sys, open, { before: this.#before, after: this.#stat });
    // The directory was removed with its content.
    if (fd < 0) return [];
    sys.close(fd);
    return this.#work.wanted().filter((name) => {
      const before = this.#settled.get(listing.nameOf(name));
      const inode = listing.inodeOf(name);
      return before === undefined || (before !== inode && this.#lost.has(inode));
    });
  }

  /** True if the clone has no entry of a name, after removing an entry that had the name before. */
  #isFree(name: number): boolean {
    const { sys } = this.#work.entries;
    const { listing } = this.#work;
    if (sys.stat(this.#pair.to, listing.names, name, this.#stat) < 0) return true;
    return this.#removed(listing.names, name, listing.nameOf(name));
  }

  #removed(names: DirectoryListing["names"], at: number, name: string): boolean {
    const { sys, linked, out } = this.#work.entries;
    // An entry with several names stays: other names may yet link to it.
    const stays = linked.has(name) || this.#stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
    if (!stays && sys.unlink(this.#pair.to, names, at, false) >= 0) return (out.isUnsure = true);
    this.noteTorn();
    return false;
  }

  /** Removes clones under old names of entries that were cloned again under new names. */
  #takeAway(now: ReadonlySet<bigint>): void {
    const { entries } = this.#work;
    const there = new Set(this.#work.wanted().map((name) => this.#work.listing.nameOf(name)));
    const arena = newArena(512);
    for (const [name, inode] of this.#settled) {
      if (there.has(name) || !now.has(inode)) continue;
      putName(arena, 0, Buffer.from(name, "latin1"));
      if (entries.sys.stat(this.#pair.to, arena, 0, this.#stat) >= 0) this.#removed(arena, 0, name);
      this.#settled.delete(name);
    }
  }

  /** Collects names that vanished before they were cloned: their entries are lost unless they are cloned under another name. */
  #takeGone(): Set<bigint> {
    const { gone } = this.#work.entries;
    this.#lost = new Set();
    for (const name of gone) {
      const inode = this.#settled.get(name);
      if (inode !== undefined) this.#lost.add(inode);
      this.#settled.delete(name);
    }
    gone.clear();
    const all = new Set(this.#lost);
    for (const inode of this.#settled.values()) this.#lost.delete(inode);
    return all;
  }
}
