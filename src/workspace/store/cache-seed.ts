import fs from "node:fs";
import path from "node:path";
import { joinPath } from "../../formats/bytes.ts";
import { C, D, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS } from "../../archive/cache/scan-table.ts";
import { loadStatCache, type StatCache, statCacheTree, writeStatCache } from "../../archive/cache/stat-cache.ts";
import { newStatBuffer, putName, signedWide, STAT, type StatBuffer, syscalls, TYPE } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { readRegular, writeRegular } from "../../fs/regular-file.ts";
import {
  CTIME_WORDS,
  hasWords,
  INODE_WORDS,
  MTIME_WORDS,
  OWNER_WORDS,
  SIZE_WORDS,
  type StatWords,
} from "../../archive/scan/stat-words.ts";

/** Words that are equal in a copied entry; inode and change time differ. */
const EQUAL = [...OWNER_WORDS, ...MTIME_WORDS];
/** Equal in files only: each file system has its own sizes and link counts of directories. */
const EQUAL_IN_FILES: StatWords = [[R.NLINK, STAT.NLINK], ...SIZE_WORDS];
const OWN = [...CTIME_WORDS, ...INODE_WORDS];

/**
 * A seed lets a fork use the stat cache of the workspace that it was made from. The seed is a hard link to that cache
 * beside the path of the fork's own cache. The first scan of the fork takes over entries that are unchanged.
 */
interface Seed {
  /** stat cache of the workspace that the folder was written from */
  from: string;
  /** place of the folder's own cache */
  to: string;
  /** the state (32 bytes) that was written into the folder; a cache of another state is no use */
  tree: Uint8Array;
  /** complete, its own times set last; no other process uses the folder yet */
  folder: Uint8Array;
}

/** Makes the seed, if the stat cache `seed.from` describes the state `seed.tree`. */
export function leaveSeed(seed: Seed): void {
  try {
    if (!isCacheOf(seed.from, seed.tree)) return;
    const { ctimeNs } = fs.lstatSync(Buffer.from(seed.folder), { bigint: true });
    writeRegular(`${seed.to}-indexes`, readRegular(`${seed.from}-indexes`));
    // The other workspace replaces its cache and never writes into it.
    fs.linkSync(seed.from, `${seed.to}${MARK}${ctimeNs}`);
  } catch {
    // Without a seed the first look reads everything.
  }
}

function isCacheOf(file: string, tree: Uint8Array): boolean {
  const cached = statCacheTree(file);
  return cached !== null && Buffer.compare(cached, tree) === 0;
}

/**
 * Makes a workspace's stat cache from its seed; null without a usable seed. An entry whose change time is later than
 * the folder was written is read again; nobody can set change times.
 */
export function takeSeed(statCache: string, folder: Uint8Array): StatCache | null {
  const seed = seedOf(statCache);
  if (seed === null) return null;
  try {
    const cache = loadStatCache(seed.file);
    if (cache === null) return null;
    new CacheCopier(cache, folder, seed.written).run();
    const { table } = cache;
    table.control[C.DIRECTORIES] = cache.directories;
    table.control[C.NAMES] = table.buffers.capacity.names;
    table.control[C.EXTRAS] = table.buffers.capacity.extras;
    writeStatCache(statCache, table, null, { tree: cache.tree, epoch: cache.epoch });
    return loadStatCache(statCache);
  } catch {
    return null;
  } finally {
    clearAway(seed.file);
  }
}

const MARK = "-seed-";

function seedOf(statCache: string): { file: string; written: bigint } | null {
  const prefix = `${path.basename(statCache)}${MARK}`;
  let names: string[];
  try {
    names = fs.readdirSync(path.dirname(statCache));
  } catch {
    return null;
  }
  const name = names.find((each) => each.startsWith(prefix) && /^\d{1,19}$/.test(each.slice(prefix.length)));
  return name === undefined
    ? null
    : { file: path.join(path.dirname(statCache), name), written: BigInt(name.slice(prefix.length)) };
}

class CacheCopier {
  readonly #cache: StatCache;
  readonly #folder: Buffer;
  readonly #sys = syscalls();
  readonly #name = newArena(1024);
  readonly #stat: StatBuffer = newStatBuffer();

  readonly #written: bigint;

  /** `written`: nanoseconds since 1970, by the folder's file system */
  constructor(cache: StatCache, folder: Uint8Array, written: bigint) {
    this.#cache = cache;
    this.#written = written;
    this.#folder = Buffer.from(folder);
  }

  run(): void {
    const { table, directories } = this.#cache;
    for (let d = 0; d < directories; d++) {
      const path = table.directoryPath(d);
      let fd: number;
      try {
        fd = fs.openSync(joinPath(this.#folder, path), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
      } catch {
        continue;
      }
      try {
        this.#directory(d, fd);
      } finally {
        fs.closeSync(fd);
      }
    }
  }

  /** Unchanged entries get the inode and change time of the copy. Others get inode 0, so that a scan reads them. */
  #directory(directory: number, fd: number): void {
    const { table } = this.#cache;
    const words = table.records;
    const stat = this.#stat.words;
    const first = table.directories[directory * DIRECTORY_WORDS + D.FIRST]!;
    const end = first + table.directories[directory * DIRECTORY_WORDS + D.COUNT]!;
    for (let record = first; record < end; record++) {
      const base = record * RECORD_WORDS;
      const flags = table.recordFlags(record);
      putName(this.#name, 0, table.recordName(record));
      if (this.#sys.stat(fd, this.#name, 0, this.#stat) < 0 || !this.#isAsWritten(record)) {
        // No inode has the number 0.
        words[base + R.INO] = 0;
        words[base + R.INO + 1] = 0;
        continue;
      }
      for (const [own, of] of OWN) words[base + own] = stat[of]!;
      if (words[base + R.MODE]! >>> 12 === TYPE.DIRECTORY)
        for (const [own, of] of EQUAL_IN_FILES) words[base + own] = stat[of]!;
      // An entry that was young in the other folder has not changed here since.
      table.setRecordFlags(record, flags & ~FLAG.YOUNG);
    }
  }

  #isAsWritten(record: number): boolean {
    const words = this.#cache.table.records;
    const stat = this.#stat.words;
    const base = record * RECORD_WORDS;
    const isDirectory = words[base + R.MODE]! >>> 12 === TYPE.DIRECTORY;
    if (words[base + R.MODE] === 0 || (stat[STAT.MODE]! & 0xffff) !== words[base + R.MODE]) return false;
    if (BigInt(signedWide(stat, STAT.CTIME)) * 1_000_000_000n + BigInt(stat[STAT.CTIME_NS]!) > this.#written)
      return false;
    return hasWords(words, base, stat, EQUAL) && (isDirectory || hasWords(words, base, stat, EQUAL_IN_FILES));
  }
}
