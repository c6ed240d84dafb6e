import fs from "node:fs";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS } from "../../fs/scan-table.ts";
import { loadStatCache, type StatCache, writeStatCache } from "../../fs/stat-cache.ts";
import { newStatBuffer, putName, STAT, type StatBuffer, syscalls } from "../../fs/syscalls.ts";
import { newArena } from "../../native.ts";

/** What must be equal in a copy; inode and change time are the copy's own. */
const EQUAL = [
  [R.UID, STAT.UID],
  [R.GID, STAT.GID],
  [R.NLINK, STAT.NLINK],
  [R.SIZE, STAT.SIZE],
  [R.SIZE + 1, STAT.SIZE + 1],
  [R.MTIME, STAT.MTIME],
  [R.MTIME + 1, STAT.MTIME + 1],
  [R.MTIME_NS, STAT.MTIME_NS],
] as const;
const OWN = [
  [R.CTIME, STAT.CTIME],
  [R.CTIME + 1, STAT.CTIME + 1],
  [R.CTIME_NS, STAT.CTIME_NS],
  [R.INO, STAT.INO],
  [R.INO + 1, STAT.INO + 1],
] as const;

export interface CacheCopy {
  from: string;
  to: string;
  /** the state (32 bytes) that the folder was just written from; a cache of another one is of no use */
  tree: Uint8Array;
  folder: Uint8Array;
}

/**
 * Makes the stat cache of a folder that was just written from a state, out of the cache of the workspace in that
 * state, so that nothing has to be read again. Does nothing where the least thing does not fit: that costs a re-read.
 * Nobody else may write in the folder meanwhile.
 */
export function copyStatCache(copy: CacheCopy): boolean {
  const cache = loadStatCache(copy.from);
  if (cache === null || Buffer.compare(cache.tree, copy.tree) !== 0) return false;
  try {
    if (!new CacheCopier(cache, copy.folder).run()) return false;
    const { table } = cache;
    table.control[C.DIRECTORIES] = cache.directories;
    table.control[C.NAMES] = table.buffers.capacity.names;
    table.control[C.EXTRAS] = table.buffers.capacity.extras;
    writeStatCache(copy.to, table, null, { tree: cache.tree, epoch: cache.epoch });
    return true;
  } catch {
    return false;
  }
}

class CacheCopier {
  readonly #cache: StatCache;
  readonly #folder: Buffer;
  readonly #sys = syscalls();
  readonly #name = newArena(1024);
  readonly #stat: StatBuffer = newStatBuffer();

  constructor(cache: StatCache, folder: Uint8Array) {
    this.#cache = cache;
    this.#folder = Buffer.from(folder);
  }

  run(): boolean {
    const { table, directories } = this.#cache;
    for (let d = 0; d < directories; d++) {
      if (table.directories[d * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) return false;
      const path = table.directoryPath(d);
      const fd = fs.openSync(path.length === 0 ? this.#folder : Buffer.concat([this.#folder, SLASH, path]), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
      try {
        if (!this.#directory(d, fd)) return false;
      } finally {
        fs.closeSync(fd);
      }
    }
    return true;
  }

  #directory(directory: number, fd: number): boolean {
    const { table } = this.#cache;
    const words = table.records;
    const stat = this.#stat.words;
    const first = table.directories[directory * DIRECTORY_WORDS + D.FIRST]!;
    const end = first + table.directories[directory * DIRECTORY_WORDS + D.COUNT]!;
    for (let record = first; record < end; record++) {
      const base = record * RECORD_WORDS;
      const flags = table.recordFlags(record);
      if (words[base + R.MODE] === 0 || flags & (FLAG.OMITTED | FLAG.TORN)) return false;
      putName(this.#name, 0, table.recordName(record));
      if (this.#sys.stat(fd, this.#name, 0, this.#stat) < 0) return false;
      if ((stat[STAT.MODE]! & 0xffff) !== words[base + R.MODE]) return false;
      const isDirectory = words[base + R.MODE]! >>> 12 === 4;
      for (const [own, of] of EQUAL) {
        // A directory's size and number of links are its file system's business.
        if (isDirectory && own !== R.UID && own !== R.GID && own < R.MTIME) continue;
        if (words[base + own] !== stat[of]) return false;
      }
      for (const [own, of] of OWN) words[base + own] = stat[of]!;
      if (isDirectory) {
        words[base + R.NLINK] = stat[STAT.NLINK]!;
        words[base + R.SIZE] = stat[STAT.SIZE]!;
        words[base + R.SIZE + 1] = stat[STAT.SIZE + 1]!;
      }
      // Nobody has it open or mapped: it was written a moment ago under a name that nobody knows.
      table.setRecordFlags(record, flags & ~FLAG.YOUNG);
    }
    return true;
  }
}

const SLASH = Buffer.from("/");
