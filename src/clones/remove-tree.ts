import { comparePaths } from "../formats/bytes.ts";
import fs from "node:fs";
import { CairnError, toCairnError } from "../errors.ts";
import { ENOENT } from "../fs/linux/errno.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { makePrivate } from "../fs/owner-writes.ts";
import { quotedPath } from "../fs/paths/safe-path.ts";
import { openDirectory, putName, syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";
import type { Thread } from "../threads/worker-thread.ts";
import { firstFailure, withThreads } from "../threads/threads.ts";
import { CLONE, type CloneWork } from "./clone-work.ts";
import { WorkPool } from "../threads/work-pool.ts";

/**
 * Removes a tree of any modes and path lengths; does nothing if there is none. Follows no link. Throws `refused` if it
 * is not a directory, `permission`, and errors of the file system.
 */
export async function removeTree(place: Uint8Array): Promise<void> {
  const at = Buffer.from(place);
  const stat = fs.lstatSync(at, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) throw new CairnError("refused", `${quotedPath(at)} is not a directory`);
  try {
    await withThreads({ kind: CLONE }, async (threads) => removeBy(threads, at));
  } catch (error) {
    throw toCairnError(error, `removing ${quotedPath(at)}`);
  }
}

async function removeBy(threads: readonly Thread<CloneWork>[], at: Buffer): Promise<void> {
  const pool = WorkPool.create(threads.length);
  makePrivate(at);
  const asked = await Promise.allSettled(
    threads.map(async (thread) =>
      thread.ask({ kind: "clone-remove", place: at, pool: pool.shared }).finally(() => {
        if (!thread.usable) pool.stop();
      }),
    ),
  );
  removeEmptied(
    at,
    firstFailure(asked).flatMap(({ emptied }) => emptied),
  );
  fs.rmdirSync(at);
}

/** Removes directories from the end of the tree's order to its start: children before their parent. */
function removeEmptied(place: Buffer, directories: Uint8Array[]): void {
  const sys = syscalls();
  const root = openDirectory(place);
  const arena = newArena(8192);
  let parent: Uint8Array | null = null;
  let fd = -1;
  try {
    for (const path of directories.toSorted((a, b) => comparePaths(b, a))) {
      const slash = path.lastIndexOf(47);
      const own = path.subarray(0, Math.max(slash, 0));
      if (parent === null || Buffer.compare(parent, own) !== 0) {
        if (fd >= 0) sys.close(fd);
        fd = openBelow(sys, root, own, DIRECTORY, arena);
        if (fd < 0 && fd !== ENOENT) throw syscallError(fd, `cannot open the directory ${quotedPath(own)}`);
        parent = own;
      }
      if (fd < 0) continue;
      putName(arena, 0, path.subarray(slash + 1));
      const result = sys.unlink(fd, arena, 0, true);
      if (result < 0 && result !== ENOENT)
        throw syscallError(result, `cannot remove ${quotedPath(path.subarray(slash + 1))}`);
    }
  } finally {
    if (fd >= 0) sys.close(fd);
    fs.closeSync(root);
  }
}
