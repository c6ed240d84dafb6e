import fs from "node:fs";
import { type Arena, newArena } from "../native.ts";
import { openBelow } from "./linux/open-below.ts";
import { openDirectory, syscalls } from "./linux/syscalls.ts";
import { suspectAt } from "./secret-names.ts";

/** A key may stand behind the certificates of a whole chain. */
const LOOKED_AT = 256 << 10;
const FILE = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;

/**
 * The kind of secret that a file is, by its path below a held directory and by its content where the name alone does not tell.
 * Null where it is none. `scratch` holds at least 4096 bytes.
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
    // The save says what it cannot read.
    return null;
  } finally {
    fs.closeSync(fd);
  }
}

/** Those of the files below a folder that look like secrets by their names and are none by their content are left away. */
export function realSecrets<T extends { path: Uint8Array }>(folder: Uint8Array, suspects: readonly T[]): T[] {
  if (suspects.length === 0) return [];
  const [root, scratch] = [openDirectory(Buffer.from(folder)), newArena(4096)];
  try {
    return suspects.filter(({ path }) => secretIn(root, path, scratch) !== null);
  } finally {
    fs.closeSync(root);
  }
}
