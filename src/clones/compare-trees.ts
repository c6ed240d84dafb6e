import fs from "node:fs";
import { throwIfAborted, toCairnError } from "../errors.ts";
import { comparePaths, joinPath } from "../formats/bytes.ts";
import { isDigestedAttribute } from "../formats/digest.ts";
import { ENODATA, ENOENT } from "../fs/linux/errno.ts";
import { DirectoryListing } from "../fs/listing.ts";
import { openBelow } from "../fs/linux/open-below.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  newStatBuffer,
  openDirectory,
  signedWide,
  STAT,
  type StatBuffer,
  syscallError,
  syscalls,
  TYPE,
} from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";

/** Facts that tell a copy made by another program from its source tree, without reading a file. */
export interface TreeComparison {
  /** of all kinds, without the folder itself */
  entries: number;
  /** Raw paths that differ because the folder changed since; for added or removed names, their paths and the directory's. */
  changed: Uint8Array[];
  /** The first difference that no later change explains. */
  unlike: { path: Uint8Array; what: string } | null;
  /** Names of one file that are separate files in the copy; each group in raw pre-order. */
  split: Uint8Array[][];
  /** Other file systems that are mounted in the folder. */
  apart: Uint8Array[];
  /** The latest change time of the copy's inodes, in milliseconds since 1970. */
  newest: number;
}

export interface CompareCall {
  /** when the copy was begun, in milliseconds since 1970 */
  since: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number) => void) | undefined;
}

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
/** File times come from a clock that lags by up to a tick. */
const TICK_MS = 20;
/** JuiceFS does not update a directory's times for a change within 100 ms. */
const NAMES_TICK_MS = 120;
/** Longest time without a pause for other work of this process. */
const TURN_MS = 20;

/**
 * Compares a copy with its source folder, entry by entry: names, kinds, modes, owners, sizes, times, device numbers,
 * and the attributes that digests cover. Does not read contents. Throws `interrupted`, `permission`, `not_found`.
 */
export async function compareTrees(from: Uint8Array, copy: Uint8Array, call: CompareCall): Promise<TreeComparison> {
  const comparer = new TreeComparer(from, copy, call);
  try {
    return await comparer.run();
  } finally {
    comparer.close();
  }
}

/** The two sides of an entry; `fd` is its directory. */
class Side {
  readonly root: number;
  readonly listing = new DirectoryListing();
  readonly stat: StatBuffer = newStatBuffer();
  readonly list: Arena = newArena(64 * 1024);
  readonly value: Arena = newArena(64 * 1024);
  fd = -1;

  constructor(folder: Uint8Array) {
    this.root = openDirectory(Buffer.from(folder));
  }
}

interface Group {
  paths: Uint8Array[];
  /** inodes of these names in the copy */
  copies: Set<string>;
}

class TreeComparer {
  readonly #sys = syscalls();
  readonly #call: CompareCall;
  readonly #from: Side;
  readonly #copy: Side;
  readonly #path: Arena = newArena(8192);
  /** stands for the open directory itself */
  readonly #noName: Arena = newArena(1);
  readonly #open: Uint8Array[] = [new Uint8Array(0)];
  readonly #groups = new Map<string, Group>();
  readonly #changed = new Map<string, Uint8Array>();
  readonly #out: TreeComparison = { entries: 0, changed: [], unlike: null, split: [], apart: [], newest: 0 };
  #attributes: boolean;
  #turn = performance.now();

  constructor(from: Uint8Array, copy: Uint8Array, call: CompareCall) {
    this.#call = call;
    this.#from = new Side(from);
    try {
      this.#copy = new Side(copy);
    } catch (error) {
      fs.closeSync(this.#from.root);
      throw toCairnError(error, "comparing the copy");
    }
    this.#attributes = this.#sys.flistxattr(this.#from.root, this.#from.list) >= 0;
  }

  close(): void {
    for (const { root } of [this.#from, this.#copy]) fs.closeSync(root);
  }

  async run(): Promise<TreeComparison> {
    for (let path = this.#open.pop(); path !== undefined && this.#out.unlike === null; path = this.#open.pop()) {
      await this.#breathe();
      await this.#directory(path);
    }
    const out = this.#out;
    out.changed = [...this.#changed.values()];
    for (const { paths, copies } of this.#groups.values())
      if (paths.length > 1 && copies.size > 1) out.split.push(paths.toSorted(comparePaths));
    this.#call.onProgress?.(out.entries);
    return out;
  }

  async #breathe(): Promise<void> {
    if (performance.now() - this.#turn < TURN_MS) return;
    await new Promise((resolve) => setImmediate(resolve));
    throwIfAborted(this.#call.signal);
    this.#call.onProgress?.(this.#out.entries);
    this.#turn = performance.now();
  }

  async #directory(path: Uint8Array): Promise<void> {
    const sides = [this.#from, this.#copy];
    try {
      for (const side of sides) {
        side.fd = openBelow(this.#sys, side.root, path, DIRECTORY, this.#path);
        // The entry that was compared by name is gone; its parent's times have changed.
        if (side.fd === ENOENT && side === this.#from) return this.#isChanged(path);
        if (side.fd < 0) throw syscallError(side.fd, `cannot open the directory ${quotedPath(path)}`);
        const listed = side.listing.read(this.#sys, side.fd);
        if (listed < 0) throw syscallError(listed, `cannot read the directory ${quotedPath(path)}`);
      }
      this.#look(this.#from, this.#noName, 0);
      const moved = this.#isRecent(NAMES_TICK_MS);
      if (path.length === 0) {
        this.#look(this.#copy, this.#noName, 0);
        this.#compare(path, this.#noName, 0);
      }
      await this.#names(path, moved);
    } finally {
      for (const side of sides) {
        if (side.fd >= 0) this.#sys.close(side.fd);
        side.fd = -1;
      }
    }
  }

  /** Both listings are in raw order. */
  async #names(path: Uint8Array, moved: boolean): Promise<void> {
    const [a, b] = [this.#from.listing, this.#copy.listing];
    for (let i = 0, j = 0; i < a.count || j < b.count;) {
      await this.#breathe();
      const order = i === a.count ? 1 : j === b.count ? -1 : Buffer.compare(nameAt(a, i), nameAt(b, j));
      if (order === 0) {
        this.#entry(path, a.names, { own: a.offsets[i]!, copy: b.offsets[j]!, moved });
        i++;
        j++;
        continue;
      }
      const [listing, at] = order < 0 ? [a, i++] : [b, j++];
      const own = joinPath(path, nameAt(listing, at));
      const recent = moved || (order < 0 && this.#look(this.#from, a.names, a.offsets[at]!) && this.#isRecent());
      if (recent) for (const each of [path, own]) this.#isChanged(each);
      else this.#out.unlike ??= { path: own, what: order < 0 ? "is not in the clone" : "is only in the clone" };
    }
  }

  #entry(directory: Uint8Array, names: Arena, at: { own: number; copy: number; moved: boolean }): void {
    const path = joinPath(directory, names.bytes.subarray(at.own, names.bytes.indexOf(0, at.own)));
    const copied = this.#look(this.#copy, this.#copy.listing.names, at.copy);
    if (!this.#look(this.#from, names, at.own) || !copied) return this.#isChanged(directory);
    this.#out.entries++;
    const { words } = this.#from.stat;
    const type = words[STAT.MODE]! >>> 12;
    if (words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) return void this.#out.apart.push(path);
    if (!this.#compare(path, names, at.own)) return;
    if (type === TYPE.DIRECTORY) this.#open.push(path);
    else if (words[STAT.NLINK]! > 1) this.#member(path);
  }

  #member(path: Uint8Array): void {
    const key = inode(this.#from.stat);
    const group = this.#groups.get(key) ?? { paths: [], copies: new Set<string>() };
    group.paths.push(path);
    group.copies.add(inode(this.#copy.stat));
    this.#groups.set(key, group);
  }

  /** Reads the facts of an entry of the open directory, or of the directory itself for an empty name; false if it is gone. */
  #look(side: Side, names: Arena, name: number): boolean {
    const known =
      names === this.#noName ? this.#sys.fstat(side.fd, side.stat) : this.#sys.stat(side.fd, names, name, side.stat);
    if (known === ENOENT) return false;
    if (known < 0) throw syscallError(known, "cannot look at an entry");
    if (side === this.#copy) this.#out.newest = Math.max(this.#out.newest, changeTime(side.stat));
    return true;
  }

  /** True if both are equal, or of one kind and the folder's entry changed since. */
  #compare(path: Uint8Array, names: Arena, name: number): boolean {
    const [a, b] = [this.#from.stat.words, this.#copy.stat.words];
    const what = differenceOf(a, b) ?? this.#attributesDiffer(names, name);
    if (what === null) {
      // A recent write may not show in these facts. An equal change time, if the copy keeps it, excludes one.
      if (this.#isRecent() && !sameTime(a, b, STAT.CTIME)) this.#isChanged(path);
      return true;
    }
    if (this.#isRecent()) this.#isChanged(path);
    else this.#out.unlike ??= { path, what: `has another ${what}` };
    return a[STAT.MODE]! >>> 12 === b[STAT.MODE]! >>> 12 && this.#out.unlike === null;
  }

  #isRecent(tick = TICK_MS): boolean {
    return changeTime(this.#from.stat) >= this.#call.since - tick;
  }

  #isChanged(path: Uint8Array): void {
    this.#changed.set(Buffer.from(path).toString("latin1"), path);
  }

  #attributesDiffer(names: Arena, name: number): string | null {
    if (!this.#attributes) return null;
    const own = this.#attributesOf(this.#from, names, name);
    const other = this.#attributesOf(this.#copy, names, name);
    if (own.size !== other.size) return "set of attributes";
    for (const [each, value] of own) if (other.get(each) !== value) return `attribute ${each}`;
    return null;
  }

  #attributesOf(side: Side, names: Arena, name: number): Map<string, string> {
    const found = new Map<string, string>();
    const { fd, list, value } = side;
    const own = names === this.#noName;
    const length = own ? this.#sys.flistxattr(fd, list) : this.#sys.llistxattr(fd, names, name, list);
    for (let at = 0; at < length;) {
      const end = list.bytes.indexOf(0, at);
      const attribute = list.bytes.slice(at, end);
      const size = !isDigestedAttribute(attribute)
        ? ENODATA
        : own
          ? this.#sys.fgetxattr(fd, list, at, value, 0)
          : this.#sys.lgetxattr(fd, names, name, attribute, value, 0);
      const key = Buffer.from(attribute).toString("latin1");
      if (size >= 0) found.set(key, Buffer.from(value.bytes.subarray(0, size)).toString("latin1"));
      at = end + 1;
    }
    return found;
  }
}

/** Names the first difference of two entries; null if they are equal. Ignores size and links of directories, which depend on the file system. */
function differenceOf(a: Uint32Array, b: Uint32Array): string | null {
  const same = (...words: number[]): boolean => words.every((word) => a[word] === b[word]);
  const type = a[STAT.MODE]! >>> 12;
  if (type !== b[STAT.MODE]! >>> 12) return "kind";
  if (!same(STAT.MODE)) return "mode";
  if (!same(STAT.UID, STAT.GID)) return "owner";
  if (type !== TYPE.DIRECTORY && !same(STAT.SIZE, STAT.SIZE + 1)) return "size";
  if (!sameTime(a, b, STAT.MTIME)) return "time";
  return same(STAT.RDEV_MAJOR, STAT.RDEV_MINOR) ? null : "device number";
}

/** Seconds in two words, nanoseconds in the third. */
function sameTime(a: Uint32Array, b: Uint32Array, at: number): boolean {
  return a[at] === b[at] && a[at + 1] === b[at + 1] && a[at + 2] === b[at + 2];
}

function changeTime({ words }: StatBuffer): number {
  return signedWide(words, STAT.CTIME) * 1000 + words[STAT.CTIME_NS]! / 1e6;
}

function inode({ words }: StatBuffer): string {
  return `${words[STAT.INO + 1]}:${words[STAT.INO]}`;
}

function nameAt({ names, offsets }: DirectoryListing, index: number): Uint8Array {
  const at = offsets[index]!;
  return names.bytes.subarray(at, names.bytes.indexOf(0, at));
}
