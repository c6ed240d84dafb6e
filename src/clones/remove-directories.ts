import fs from "node:fs";
import { joinPath } from "../formats/bytes.ts";
import { DIRECTORY, openBelow, openInside } from "../fs/linux/open-below.ts";
import { newStatBuffer, openDirectory, type Syscalls, syscalls } from "../fs/linux/syscalls.ts";
import {
  type DirectoryIdentity,
  factsIn,
  identityOf,
  isSameDirectory,
  letOwnerEmpty,
  unlinkFiles,
} from "../fs/remove-all.ts";
import { newArena } from "../native.ts";
import { WorkPool } from "../threads/work-pool.ts";

export interface RemoveTask {
  place: Uint8Array;
  /** of the directory at `place` */
  identity: DirectoryIdentity;
  pool: SharedArrayBuffer;
}

/**
 * Removes all entries except directories below a directory, on one of several threads. Leaves mounts, and
 * entries that cannot be removed. Does nothing if another directory is at the place.
 */
export function unlinkFilesBelow({ place, identity, pool: shared }: RemoveTask): null {
  const pool = new WorkPool(shared);
  const sys = syscalls();
  const inside: Syscalls["openBelow"] = (...where) => openInside(sys, ...where);
  const root = openDirectory(Buffer.from(place));
  const [path, listed, stat] = [newArena(8192), newArena(64 * 1024), newStatBuffer()];
  try {
    if (!isSameDirectory(identityOf(root), identity)) return null;
    for (let directory = pool.take(); directory !== null; directory = pool.take()) {
      const fd = openBelow(sys, root, directory, DIRECTORY, path, inside);
      if (fd < 0) continue;
      try {
        if (sys.fstat(fd, stat) >= 0) letOwnerEmpty(sys, fd, factsIn(stat));
        for (const name of unlinkFiles(sys, fd, listed)) {
          if (name !== null) pool.push(joinPath(directory, name));
          pool.checkStop();
          pool.share();
        }
      } finally {
        sys.close(fd);
      }
    }
    return null;
  } catch (error) {
    pool.stop();
    throw error;
  } finally {
    fs.closeSync(root);
  }
}
