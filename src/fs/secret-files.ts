import fs from "node:fs";
import { type Arena, newArena } from "../native.ts";
import { openBelow } from "./linux/open-below.ts";
import { openDirectory, syscalls } from "./linux/syscalls.ts";
import { suspectAt } from "./secret-names.ts";

/** Bytes that are read, because a key may follow the certificates of a whole chain. */
const LOOKED_AT = 256 << 10;
const FILE = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;

/**
 * Returns the kind of secret in a file, by its path below an open directory, and by its content if the name is not
 * enough. Null if the file is no secret. `scratch` has at least 4096 bytes.
 */
export function secretIn(directory: number, path: Uint8Array, scratch: Arena): string | null {
  const suspect = suspectAt(path);
  if (suspect?.holds === undefined) return suspect?.kind ?? null;
  const fd = openBelow(syscalls(), directory, path, FILE, scratch);
  if (fd < 0) return null;
  try {
    const stat = fs.fstatSync(fd);
    if (!stat.isFile()) return null;
    const head = Buffer.alloc(Math.min(stat.size, LOOKED_AT));
    return suspect.holds(head.toString("latin1", 0, fs.readSync(fd, head, 0, head.length, 0))) ? suspect.kind : null;
  } catch {
    // The save reports files that it cannot read.
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns the `suspects` below a folder that are secrets, by their content if the name is not enough. */
export function realSecrets<T extends { path: Uint8Array }>(folder: Uint8Array, suspects: readonly T[]): T[] {
  if (suspects.length === 0) return [];
  const [root, scratch] = [openDirectory(Buffer.from(folder)), newArena(4096)];
  try {
    return suspects.filter(({ path }) => secretIn(root, path, scratch) !== null);
  } finally {
    fs.closeSync(root);
  }
}
