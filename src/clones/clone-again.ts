import fs from "node:fs";
import { DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { newStatBuffer, putName, STAT, type StatBuffer, type Syscalls, TYPE } from "../fs/linux/syscalls.ts";
import { joinRaw } from "../fs/safe-path.ts";
import { newArena } from "../native.ts";
import { STAGING_NAME } from "../archive/scan/task.ts";
import { type DirectoryPair, type EntryCloner } from "./clone-entry.ts";

/** So often a directory is listed again, each time what is new in it is cloned. */
const LISTINGS = 3;

/** Work of a directory's cloner for {@link cloneAgain}. */
export interface AgainWork {
  entries: EntryCloner;
  listing: DirectoryListing;
  /** offsets of the names of the listing that are part of the state */
  wanted(): readonly number[];
  /** clones the entry of a name of the listing */
  clone(name: number): void;
}

/**
 * Clones what lies in a directory and was not cloned, for one in which names of its listing were gone: what they stood
 * for may have got other names. What is there to the end and is in no clone makes the directory a torn one, and so does
 * what was cloned under two names and cannot be taken away under one.
 */
export function cloneAgain(pair: DirectoryPair, work: AgainWork): void {
  const again = new CloneAgain(pair, work);
  for (let left = LISTINGS; left > 0; left--) if (!again.round()) return;
  if (!again.isComplete()) again.noteTorn();
}

class CloneAgain {
  readonly #pair: DirectoryPair;
  readonly #work: AgainWork;
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #before: StatBuffer = newStatBuffer();
  readonly #dot = newArena(8);
  /** inodes by name, of what was cloned or will not be: a mount, or what cannot be read */
  readonly #settled = new Map<string, bigint>();
  /** inodes of names that were gone */
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

  /** Lists the directory and clones what is new; whether something was gone again. */
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

  /** Names that are not settled, or stand for something that was lost. */
  #list(): number[] {
    const { listing, entries } = this.#work;
    const { sys } = entries;
    const open = (): number => sys.open(this.#pair.from, this.#dot, 0, DIRECTORY, 0);
    const fd = listing.openSteady(sys, open, { before: this.#before, after: this.#stat });
    // It was removed, and all in it.
    if (fd < 0) return [];
    sys.close(fd);
    return this.#work.wanted().filter((name) => {
      const before = this.#settled.get(listing.nameOf(name));
      const inode = listing.inodeOf(name);
      return before === undefined || (before !== inode && this.#lost.has(inode));
    });
  }

  /**
   * Tells whether the clone has nothing of a name, or has it no more: what was there before another entry got the name.
   */
  #isFree(name: number): boolean {
    const { sys } = this.#work.entries;
    const { listing } = this.#work;
    if (sys.stat(this.#pair.to, listing.names, name, this.#stat) < 0) return true;
    return this.#removed(listing.names, name, listing.nameOf(name));
  }

  #removed(names: DirectoryListing["names"], at: number, name: string): boolean {
    const { sys, linked, out } = this.#work.entries;
    // Others may yet link to one that has several names.
    const stays = linked.has(name) || this.#stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
    if (!stays && sys.unlink(this.#pair.to, names, at, false) >= 0) return (out.isUnsure = true);
    this.noteTorn();
    return false;
  }

  /** Removes under its old name what is there under a new name that was cloned. */
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

  /** Names that were gone when they were cloned: what they stood for is lost unless it was cloned by another. */
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

/** The two sides of a clone when all is cloned. */
interface Sides {
  /** open, and the source's path */
  from: number;
  target: number;
  root: Uint8Array;
  /** what is not meant to be in the clone, by path in latin1 */
  passedOver: ReadonlySet<string>;
  /** when the clone was begun, in milliseconds since 1970 */
  began: number;
}

/**
 * Directories of the source that have a directory which the clone has not, and which is older or has an older one in it,
 * among those in which one was gone when it was to be cloned: it has got another name. One that was removed, or made
 * meanwhile, is no matter.
 */
export function renamedAway(sys: Syscalls, gone: readonly Uint8Array[], sides: Sides): Uint8Array[] {
  const { from, target } = sides;
  const torn: Uint8Array[] = [];
  const seen = new Set<string>();
  const path = newArena(8192);
  for (const each of gone) {
    let parent = each;
    let fd: number;
    do {
      parent = parent.subarray(0, Math.max(parent.lastIndexOf(47), 0));
      fd = openBelow(sys, from, parent, DIRECTORY, path);
    } while (fd < 0 && parent.length > 0);
    if (fd < 0) continue;
    const key = Buffer.from(parent).toString("latin1");
    const own = seen.has(key) ? -1 : openBelow(sys, target, parent, DIRECTORY, path);
    seen.add(key);
    if (own >= 0 && lacksOne(sys, { fd, own, key }, sides)) torn.push(Uint8Array.from(parent));
    sys.close(fd);
    if (own >= 0) sys.close(own);
  }
  return torn;
}

function lacksOne(
  sys: Syscalls,
  { fd, own, key }: { fd: number; own: number; key: string },
  { root, passedOver, began }: Pick<Sides, "root" | "passedOver" | "began">,
): boolean {
  const listing = new DirectoryListing();
  const stat = newStatBuffer();
  const isDirectory = (of: number, name: number): boolean =>
    sys.stat(of, listing.names, name, stat) >= 0 && stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
  if (listing.read(sys, fd) < 0) return true;
  return listing.offsets.some((name) => {
    const text = listing.nameOf(name);
    const path = key === "" ? text : `${key}/${text}`;
    if (passedOver.has(path) || (key === "" && STAGING_NAME.test(text))) return false;
    return (
      isDirectory(fd, name) && !isDirectory(own, name) && holdsOlder(joinRaw(root, Buffer.from(path, "latin1")), began)
    );
  });
}

/** So many directories are looked at for one that is older; temporary ones are small. */
const LOOKED_AT = 10_000;

/** Tells whether a directory, or one in it, was there before a moment; true as well where nothing tells. */
function holdsOlder(place: Buffer, moment: number): boolean {
  const places = [place];
  try {
    for (let count = 0; count < places.length; count++) {
      const each = places[count]!;
      if (count >= LOOKED_AT || fs.lstatSync(each).birthtimeMs < moment) return true;
      for (const entry of fs.readdirSync(each, { withFileTypes: true, encoding: "buffer" }))
        if (entry.isDirectory()) places.push(joinRaw(each, entry.name));
    }
    return false;
  } catch {
    return true;
  }
}
