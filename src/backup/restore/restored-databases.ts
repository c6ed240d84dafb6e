import fs from "node:fs";
import { join } from "node:path";
import { isDatabase } from "../../capture/sqlite/header.ts";
import { joinPath } from "../../formats/bytes.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { ENOENT } from "../../fs/linux/errno.ts";
import { DirectoryListing } from "../../fs/listing.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { openPrivate } from "../../fs/owner-writes.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { newStatBuffer, openDirectory, putName, STAT, syscallError, syscalls, TYPE } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { newPacer } from "../../pacer.ts";

/** A restored database, taken out of its tree. */
export interface RestoredDatabase {
  /** Below the folder, raw bytes. */
  path: Buffer;
  /** Path where the database lies now, alone with its journal. */
  file: string;
}

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const NAME = "database";
const MAX_NAME_BYTES = 255;

/**
 * Finds the databases in a folder that is no longer needed, at any depth, and moves each into `aside`, an empty folder
 * beside it, for one step: SQLite takes paths of 512 bytes and makes files beside its database. Changes modes so that
 * every entry can be opened. Throws the system's error, `interrupted`.
 */
export async function* restoredDatabases(
  folder: Buffer,
  aside: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<RestoredDatabase> {
  const walk = new DatabaseWalk(folder, aside);
  const pace = newPacer(signal);
  try {
    for (let directory = walk.next(); directory !== undefined; directory = walk.next()) {
      for (const name of walk.open(directory)) {
        await pace();
        if (!walk.isDatabase(name)) continue;
        yield { path: joinPath(directory, name), file: walk.takeOut(name) };
        walk.emptyAside();
      }
    }
  } finally {
    walk.close();
  }
}

/** Walks directories; holds one open at a time. */
class DatabaseWalk {
  readonly #sys = syscalls();
  readonly #names = newArena(8192);
  readonly #stat = newStatBuffer();
  readonly #listing = new DirectoryListing();
  readonly #root: number;
  readonly #aside: string;
  readonly #asideFd: number;
  readonly #found: Buffer[] = [Buffer.alloc(0)];
  #directory: Buffer = Buffer.alloc(0);
  #fd = -1;

  constructor(folder: Buffer, aside: string) {
    this.#root = openPrivate(folder);
    this.#aside = aside;
    this.#asideFd = openDirectory(aside);
  }

  /** The next directory, below the folder. */
  next(): Buffer | undefined {
    return this.#found.pop();
  }

  /** Opens a directory and returns the names of its files. Queues its subdirectories, and makes them accessible. */
  open(directory: Buffer): Buffer[] {
    this.#release();
    this.#directory = directory;
    this.#fd = this.#checked(openBelow(this.#sys, this.#root, directory, DIRECTORY, this.#names), directory);
    this.#checked(this.#listing.read(this.#sys, this.#fd), directory);
    const { names, offsets } = this.#listing;
    const all = offsets.map((at) => Buffer.from(names.bytes.subarray(at, names.bytes.indexOf(0, at))));
    return all.filter((name) => {
      const type = this.#typeOf(name);
      if (type === TYPE.DIRECTORY) {
        this.#chmod(name, 0o700);
        this.#found.push(joinPath(directory, name));
      }
      return type === TYPE.FILE;
    });
  }

  /** True if a file of the directory is a database; false for a log that was moved with its database. */
  isDatabase(name: Buffer): boolean {
    if (this.#typeOf(name) !== TYPE.FILE) return false;
    this.#chmod(name, 0o600);
    putName(this.#names, 0, name);
    const fd = this.#sys.open(this.#fd, this.#names, 0, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW, 0);
    this.#checked(fd, joinPath(this.#directory, name));
    try {
      return isDatabase(fd);
    } finally {
      this.#sys.close(fd);
    }
  }

  /** Moves a database aside with its journal. Returns its new path. */
  takeOut(name: Buffer): string {
    this.#move(name, NAME);
    for (const ending of LOGS) {
      const journal = beside(name, ending);
      if (journal.length > MAX_NAME_BYTES || this.#typeOf(journal) !== TYPE.FILE) continue;
      this.#chmod(journal, 0o600);
      this.#move(journal, `${NAME}${ending}`);
    }
    return join(this.#aside, NAME);
  }

  emptyAside(): void {
    for (const name of fs.readdirSync(this.#aside)) fs.rmSync(join(this.#aside, name));
  }

  close(): void {
    this.#release();
    for (const fd of [this.#root, this.#asideFd]) this.#sys.close(fd);
  }

  #release(): void {
    if (this.#fd >= 0) this.#sys.close(this.#fd);
    this.#fd = -1;
  }

  /** The type of an entry of the directory; null if it has no such entry. */
  #typeOf(name: Buffer): number | null {
    putName(this.#names, 0, name);
    const known = this.#sys.stat(this.#fd, this.#names, 0, this.#stat);
    if (known === ENOENT) return null;
    this.#checked(known, joinPath(this.#directory, name));
    return this.#stat.words[STAT.MODE]! >>> 12;
  }

  #chmod(name: Buffer, mode: number): void {
    putName(this.#names, 0, name);
    this.#checked(this.#sys.chmod(this.#fd, this.#names, 0, mode), joinPath(this.#directory, name));
  }

  #move(name: Buffer, to: string): void {
    const at = putName(this.#names, 0, name);
    putName(this.#names, at, Buffer.from(to));
    const moved = this.#sys.rename(this.#fd, this.#names, 0, this.#asideFd, this.#names, at, 0);
    this.#checked(moved, joinPath(this.#directory, name));
  }

  #checked(result: number, path: Uint8Array): number {
    if (result < 0) throw syscallError(result, `cannot look for databases at ${quotedPath(path)}`);
    return result;
  }
}
