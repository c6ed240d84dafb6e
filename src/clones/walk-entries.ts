import fs from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { ENOENT } from "../fs/linux/errno.ts";
import { DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import {
  newStatBuffer,
  openDirectory,
  signedWide,
  STAT,
  syscallError,
  syscalls,
  TYPE,
  wide,
} from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";
import { newPacer } from "../pacer.ts";

/** Bits of the ATTRIBUTES word: the entry cannot be changed, or only be appended to. */
const IMMUTABLE = 0x10;
const APPEND_ONLY = 0x20;
const BILLION = 1_000_000_000n;
const OWNER_LISTS = 0o500;

/** An entry that a walk visits; only valid until the next. */
interface WalkedEntry {
  /** below the root, raw bytes */
  path(): Buffer;
  /** its statx words, indexed by {@link STAT} */
  readonly stat: Uint32Array;
}

/**
 * Visits every entry below a folder, directories before their entries, across mounts and subvolumes; reads no file and
 * follows no link. Skips entries that vanish meanwhile. `visit` returns false to skip a directory. Throws `permission`
 * for a directory that cannot be listed, `interrupted`.
 */
export async function walkEntries(
  root: Uint8Array,
  visit: (entry: WalkedEntry) => boolean | void,
  signal?: AbortSignal,
): Promise<void> {
  const sys = syscalls();
  const pace = newPacer(signal);
  const listing = new DirectoryListing();
  const stat = newStatBuffer();
  const scratch = newArena(8192);
  const held = openDirectory(Buffer.from(root));
  const open: Uint8Array[] = [new Uint8Array(0)];
  try {
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      const fd = openBelow(sys, held, directory, DIRECTORY, scratch);
      if (fd === ENOENT) continue;
      if (fd < 0) throw syscallError(fd, `cannot open the directory ${quotedPath(directory)}`);
      try {
        const listed = listing.read(sys, fd);
        if (listed < 0) throw syscallError(listed, `cannot read the directory ${quotedPath(directory)}`);
        const { names, offsets } = listing;
        for (const name of offsets) {
          const known = sys.stat(fd, names, name, stat);
          if (known === ENOENT) continue;
          const path = pathOf(directory, names.bytes, name);
          if (known < 0) throw syscallError(known, `cannot look at ${quotedPath(path())}`);
          const entered = visit({ path, stat: stat.words }) !== false;
          if (entered && stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY) open.push(path());
          await pace();
        }
      } finally {
        sys.close(fd);
      }
    }
  } finally {
    fs.closeSync(held);
  }
}

function pathOf(directory: Uint8Array, bytes: Uint8Array, name: number): () => Buffer {
  return () => {
    const own = Buffer.from(bytes.subarray(name, bytes.indexOf(0, name)));
    return directory.length === 0 ? own : Buffer.concat([directory, Buffer.from("/"), own]);
  };
}

/** Longer than a tick of the file system's clock. */
const TICK_MS = 20;

/** Returns a moment (ns since 1970) later than all changes before the call and earlier than all changes after it. */
export async function momentNow(): Promise<bigint> {
  await sleep(TICK_MS);
  const now = BigInt(Date.now()) * 1_000_000n;
  await sleep(TICK_MS);
  return now;
}

/** The path of an entry below a folder whose inode changed at or after a moment (ns since 1970); null if there is none. */
export async function changedAfter(root: Uint8Array, moment: bigint, signal?: AbortSignal): Promise<Buffer | null> {
  let found: Buffer | null = null;
  await walkEntries(
    root,
    ({ path, stat }) => {
      if (found !== null) return false;
      if (changeTime(stat) >= moment) found = path();
      return found === null;
    },
    signal,
  );
  return found;
}

/** The paths of entries below a folder that `fits` accepts (in latin1), without entries below an accepted one. */
export async function pathsBelow(
  root: Uint8Array,
  fits: (path: string) => boolean,
  signal?: AbortSignal,
): Promise<Buffer[]> {
  const found: Buffer[] = [];
  await walkEntries(
    root,
    ({ path }) => {
      const own = path();
      if (!fits(own.toString("latin1"))) return true;
      found.push(own);
      return false;
    },
    signal,
  );
  return found;
}

/** Disk space in bytes of everything below a folder, except entries of directories that lock their owner out. */
export async function takenBytes(root: Uint8Array, signal?: AbortSignal): Promise<number> {
  let bytes = 0;
  await walkEntries(
    root,
    ({ stat }) => {
      const mode = stat[STAT.MODE]!;
      const isDirectory = mode >>> 12 === TYPE.DIRECTORY;
      bytes += (wide(stat, STAT.BLOCKS) * 512) / (isDirectory ? 1 : stat[STAT.NLINK]!);
      return (mode & OWNER_LISTS) === OWNER_LISTS;
    },
    signal,
  );
  return Math.round(bytes);
}

/** The paths of all regular files whose inode changed at or after a moment. */
export async function filesChangedAfter(root: Uint8Array, moment: bigint, signal?: AbortSignal): Promise<Buffer[]> {
  const found: Buffer[] = [];
  await walkEntries(
    root,
    ({ path, stat }) => {
      if (stat[STAT.MODE]! >>> 12 === TYPE.FILE && changeTime(stat) >= moment) found.push(path());
    },
    signal,
  );
  return found;
}

function changeTime(stat: Uint32Array): bigint {
  return BigInt(signedWide(stat, STAT.CTIME)) * BILLION + BigInt(stat[STAT.CTIME_NS]!);
}

/** Entries that keep a folder from being cloned as a whole and then removed. */
interface Obstacles {
  /** subvolumes inside */
  subvolumes: Buffer[];
  /** entries that the system lets no user change or remove */
  fixed: Buffer[];
}

/** Finds subvolumes inside a folder on btrfs, which it does not enter, and entries that cannot be changed. */
export async function findObstacles(root: Uint8Array, signal?: AbortSignal): Promise<Obstacles> {
  const found: Obstacles = { subvolumes: [], fixed: [] };
  const own = statOf(root);
  await walkEntries(
    root,
    ({ path, stat }) => {
      if ((stat[STAT.ATTRIBUTES]! & (IMMUTABLE | APPEND_ONLY)) !== 0) found.fixed.push(path());
      const isApart = stat[STAT.DEV_MAJOR] !== own[STAT.DEV_MAJOR] || stat[STAT.DEV_MINOR] !== own[STAT.DEV_MINOR];
      if (isApart) found.subvolumes.push(path());
      return !isApart;
    },
    signal,
  );
  return found;
}

function statOf(folder: Uint8Array): Uint32Array {
  const fd = openDirectory(Buffer.from(folder));
  const stat = newStatBuffer();
  const known = syscalls().fstat(fd, stat);
  fs.closeSync(fd);
  if (known < 0) throw syscallError(known, `cannot look at ${quotedPath(folder)}`);
  return stat.words;
}
