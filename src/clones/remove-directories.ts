import fs from "node:fs";
import { joinPath } from "../formats/bytes.ts";
import { EACCES, ENOENT } from "../fs/linux/errno.ts";
import { DT, DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { letOwnerIn } from "../fs/owner-writes.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import {
  newStatBuffer,
  openDirectory,
  STAT,
  syscallError,
  type Syscalls,
  syscalls,
  TYPE,
} from "../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../native.ts";
import { WorkPool } from "../threads/work-pool.ts";

const BATCH = 64;
const DIRECTORY_TYPE = TYPE.DIRECTORY << 12;

export interface RemoveOutcome {
  /** directories that are empty now, each before the directories in it */
  emptied: Uint8Array[];
}

/** Removes all entries except directories, on one thread, until every directory was visited. */
export class DirectoryRemover {
  readonly #sys: Syscalls = syscalls();
  readonly #pool: WorkPool;
  readonly #root: number;
  readonly #listing = new DirectoryListing();
  readonly #stat = newStatBuffer();
  readonly #path: Arena = newArena(8192);
  readonly #emptied: Uint8Array[] = [];

  constructor(place: Uint8Array, pool: SharedArrayBuffer) {
    this.#pool = new WorkPool(pool);
    this.#root = openDirectory(Buffer.from(place));
  }

  run(): RemoveOutcome {
    try {
      for (let path = this.#pool.take(); path !== null; path = this.#pool.take()) {
        this.#directory(path);
        this.#pool.share();
      }
      return { emptied: this.#emptied };
    } catch (error) {
      this.#pool.stop();
      throw error;
    } finally {
      fs.closeSync(this.#root);
    }
  }

  #directory(path: Uint8Array): void {
    const sys = this.#sys;
    const fd = openBelow(sys, this.#root, path, DIRECTORY, this.#path);
    if (fd === ENOENT) return;
    if (fd < 0) throw syscallError(fd, `cannot open the directory ${quotedPath(path)}`);
    try {
      const listed = this.#listing.read(sys, fd);
      if (listed < 0) throw syscallError(listed, `cannot read the directory ${quotedPath(path)}`);
      if (path.length > 0) this.#emptied.push(path);
      const { names, offsets } = this.#listing;
      let opened = false;
      for (let i = 0; i < offsets.length; i++) {
        if (i % BATCH === 0) {
          this.#pool.checkStop();
          this.#pool.share();
        }
        const name = offsets[i]!;
        if (this.#isDirectory(fd, name)) {
          this.#child(fd, path, name);
          continue;
        }
        let result = sys.unlink(fd, names, name, false);
        if (result === EACCES && !opened) {
          opened = true;
          sys.fchmod(fd, 0o700);
          result = sys.unlink(fd, names, name, false);
        }
        if (result < 0 && result !== ENOENT)
          throw syscallError(result, `cannot remove an entry of ${quotedPath(path)}`);
      }
    } finally {
      sys.close(fd);
    }
  }

  #isDirectory(fd: number, name: number): boolean {
    const { names } = this.#listing;
    const type = names.bytes[name - 1]!;
    if (type !== DT.UNKNOWN) return type === DT.DIRECTORY;
    if (this.#sys.stat(fd, names, name, this.#stat) < 0) return false;
    return (this.#stat.words[STAT.MODE]! & 0xf000) === DIRECTORY_TYPE;
  }

  /** Queues a directory; makes it accessible first if it locks its owner out. */
  #child(fd: number, path: Uint8Array, name: number): void {
    const { names } = this.#listing;
    const known = this.#sys.stat(fd, names, name, this.#stat);
    if (known === ENOENT) return;
    if (known >= 0 && (this.#stat.words[STAT.MODE]! & 0o700) !== 0o700)
      letOwnerIn(this.#sys, { fd, name: names, at: name });
    const own = names.bytes.subarray(name, names.bytes.indexOf(0, name));
    this.#pool.push(joinPath(path, own));
  }
}
