import fs from "node:fs";
import { openBelow } from "../fs/linux/open-below.ts";
import { quotedPath } from "../fs/safe-path.ts";
import {
  newStatBuffer,
  openDirectory,
  putName,
  signedWide,
  STAT,
  syscallError,
  syscalls,
} from "../fs/linux/syscalls.ts";
import { newArena } from "../native.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

/**
 * Makes the names of each group names of one file again, the first one's, in a tree that nobody else uses; the
 * directories keep their times. Throws `permission` where a directory cannot be written to.
 */
export function relink(tree: Uint8Array, groups: readonly (readonly Uint8Array[])[]): void {
  if (groups.length === 0) return;
  const sys = syscalls();
  const root = openDirectory(Buffer.from(tree));
  const [path, from, to, noName] = [newArena(8192), newArena(512), newArena(512), newArena(1)];
  const stat = newStatBuffer();
  const parentOf = (entry: Uint8Array): { fd: number; name: Uint8Array } => {
    const slash = entry.lastIndexOf(0x2f);
    const fd = openBelow(sys, root, entry.subarray(0, Math.max(slash, 0)), DIRECTORY, path);
    if (fd < 0) throw syscallError(fd, `cannot open the directory of ${quotedPath(entry)}`);
    return { fd, name: entry.subarray(slash + 1) };
  };
  const link = (first: { fd: number; name: Uint8Array }, entry: Uint8Array): void => {
    const own = parentOf(entry);
    try {
      putName(to, 0, own.name);
      putName(from, 0, first.name);
      const { words } = stat;
      for (const result of [
        sys.fstat(own.fd, stat),
        sys.unlink(own.fd, to, 0, false),
        sys.link(first.fd, from, 0, own.fd, to, 0),
        sys.utimens(own.fd, noName, 0, signedWide(words, STAT.MTIME), words[STAT.MTIME_NS]!),
      ])
        if (result < 0) throw syscallError(result, `cannot link ${quotedPath(entry)} again`);
    } finally {
      sys.close(own.fd);
    }
  };
  try {
    for (const [name, ...others] of groups) {
      const first = parentOf(name!);
      try {
        for (const entry of others) link(first, entry);
      } finally {
        sys.close(first.fd);
      }
    }
  } finally {
    fs.closeSync(root);
  }
}
