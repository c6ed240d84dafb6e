import fs from "node:fs";
import { directoryOf } from "../formats/bytes.ts";
import { fsyncAsync } from "../fs/linux/flush.ts";
import { findHolders } from "../fs/linux/holders.ts";
import { openBelow } from "../fs/linux/open-below.ts";
import { newStatBuffer, openDirectory, STAT, syscalls, TYPE } from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const WRITE = fs.constants.O_WRONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
/**
 * Milliseconds to look for open files, about the time of a clone. A clone may lack last writes of processes not yet
 * examined.
 */
const BUDGET_MS = 1000;

/**
 * Flushes files of a folder that processes have open for writing, on a file system that keeps writes until close or
 * sync. Skips files that cannot be opened, and processes that cannot be examined. Returns the raw paths of the synced
 * files.
 */
export async function flushOpenFiles(folder: Uint8Array): Promise<Uint8Array[]> {
  const root = Buffer.from(folder);
  const { holders } = findHolders(root, { budgetMs: BUDGET_MS, includeSelf: true });
  const paths = new Map<string, Uint8Array>();
  for (const { kind, path } of holders)
    if (kind === "open-write" || kind === "mapping") paths.set(path.toString("latin1"), path);
  if (paths.size === 0) return [];
  const held = openDirectory(root);
  try {
    const flushed = await Promise.all(
      [...paths.values()].map(async (path) => ((await flush(held, path)) ? [path] : [])),
    );
    return flushed.flat();
  } finally {
    fs.closeSync(held);
  }
}

async function flush(root: number, path: Uint8Array): Promise<boolean> {
  const fd = isRegular(root, path) ? openBelow(syscalls(), root, path, WRITE, newArena(8192)) : -1;
  if (fd < 0) return false;
  try {
    // Needs a writable descriptor: on others the file system has nothing to flush.
    await fsyncAsync(fd);
    return true;
  } catch {
    return false;
  } finally {
    syscalls().close(fd);
  }
}

/** Opening and closing a pipe would be noticed at its other end. */
function isRegular(root: number, path: Uint8Array): boolean {
  const sys = syscalls();
  const directory = openBelow(sys, root, directoryOf(path), READ, newArena(8192));
  if (directory < 0) return false;
  const stat = newStatBuffer();
  const name = newArena(512);
  name.bytes.set(path.subarray(path.lastIndexOf(0x2f) + 1).subarray(0, 511));
  const known = sys.stat(directory, name, 0, stat);
  sys.close(directory);
  return known >= 0 && stat.words[STAT.MODE]! >>> 12 === TYPE.FILE;
}
