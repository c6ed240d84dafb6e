import fs from "node:fs";
import { DT, DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { quotedPath } from "../fs/safe-path.ts";
import { faultOfEntry } from "../fs/linux/errno.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  errnoName,
  newStatBuffer,
  openDirectory,
  sameContentStat,
  STAT,
  type StatBuffer,
  syscallError,
  TYPE,
} from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";
import { STAGING_NAME } from "../archive/scan/task.ts";
import { cloneAgain } from "./clone-again.ts";
import { type CloneOutcome, deviceOf, type DirectoryPair, EntryCloner } from "./clone-entry.ts";
import { CloneLinks, type CloneTask } from "./clone-links.ts";
import { WorkPool } from "../threads/work-pool.ts";

const FILE = 8;
/** Entries between two looks at whether to stop, or whether another thread waits. */
const BATCH = 32;
/** Rights without which nothing below a finished directory could be reached by its owner. */
const OWNER_ENTERS = 0o500;

/** Clones directories on one thread until none is left anywhere. */
export class DirectoryCloner {
  readonly #pool: WorkPool;
  readonly #entries: EntryCloner;
  readonly #from: number;
  readonly #to: number;
  readonly #listing = new DirectoryListing();
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #before: StatBuffer = newStatBuffer();
  readonly #path = newArena(8192);
  /** names that are left out, by the path of their directory */
  readonly #skip = new Map<string, Set<string>>();

  constructor(task: CloneTask) {
    this.#pool = new WorkPool(task.pool);
    this.#from = openDirectory(Buffer.from(task.from));
    this.#to = openDirectory(Buffer.from(task.to));
    const links = new CloneLinks(task.links);
    this.#entries = new EntryCloner(task, { pool: this.#pool, links, target: this.#to });
    for (const path of task.skip) {
      const slash = path.lastIndexOf("/");
      const parent = path.slice(0, Math.max(slash, 0));
      this.#skip.set(parent, (this.#skip.get(parent) ?? new Set()).add(path.slice(slash + 1)));
    }
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
    const to = openBelow(sys, this.#to, path, DIRECTORY, this.#path);
    try {
      if (to < 0) throw syscallError(to, `cannot open the directory ${quotedPath(path)}`);
      const stat = this.#stat.words.slice();
      const pair = { path, from, to, device: deviceOf(this.#stat) };
      this.#entries.gone.clear();
      this.#entries.linked.clear();
      this.#all(pair);
      const hasMoved = this.#entries.gone.size > 0;
      if (hasMoved) this.#again(pair);
      if (path.length === 0) return;
      out.entries++;
      // Its names are those of that moment only where it was not changed while it was listed.
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

  /** The directories in a directory first, so that another thread has something to do. */
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

  /** Clones what has another name by now than when the directory was listed. */
  #again(pair: DirectoryPair): void {
    cloneAgain(pair, {
      entries: this.#entries,
      listing: this.#listing,
      wanted: () => this.#wanted(pair.path),
      clone: (name) => {
        if (this.#isDirectory(pair, name)) this.#child(pair, name);
        else this.#entry(pair, this.#listing.names, name);
      },
    });
  }

  #wanted(path: Uint8Array): readonly number[] {
    const skip = this.#skip.size === 0 ? undefined : this.#skip.get(Buffer.from(path).toString("latin1"));
    const { names, offsets } = this.#listing;
    if (skip === undefined && path.length > 0) return offsets;
    const bytes = Buffer.from(names.bytes.buffer);
    return offsets.filter((at) => {
      const name = bytes.toString("latin1", at, bytes.indexOf(0, at));
      return skip?.has(name) !== true && !(path.length === 0 && STAGING_NAME.test(name));
    });
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
