import fs from "node:fs";
import { directoryOf } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { cloneAnswer, cloneFile, isFragmented } from "../../fs/linux/reflink.ts";
import {
  newStatBuffer,
  openDirectory,
  putName,
  signedWide,
  STAT,
  type StatBuffer,
  type Syscalls,
  syscalls,
  TYPE,
  wide,
} from "../../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../../native.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const EXTENT_LIMIT = 100_000;
/** Clocks are sometimes set back a little. */
const SLACK_MS = 1000;

/** A held tree: plain data. */
export interface HeldTree {
  place: string;
  /** when it was complete, in milliseconds since 1970 */
  made: number;
}

/**
 * The files of a held tree, to be cloned by restores. Gives out no file that changed after the tree was made, or whose
 * directories did. A change within a second of that moment must show in size or modification time.
 */
export class HeldFiles {
  readonly #sys: Syscalls = syscalls();
  readonly #root: number;
  readonly #limit: number;
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #path: Arena = newArena(8192);
  /** directories by path in latin1; true if unchanged since the tree was made */
  readonly #asMade = new Map<string, boolean>();
  #directory: Uint8Array | null = null;
  #fd = -1;
  #refused = false;

  constructor({ place, made }: HeldTree) {
    this.#root = openTree(place);
    this.#limit = latestChange(made);
  }

  /**
   * Fills an open empty file with the tree's file at a raw path, whose content must be the node's. False if the tree
   * lacks that content or it cannot be cloned: then the open file may hold any bytes.
   */
  fill(where: Uint8Array, node: TreeNode, to: number): boolean {
    if (this.#refused || this.#root < 0) return false;
    const directory = this.#open(directoryOf(where));
    if (directory < 0) return false;
    putName(this.#path, 0, where.subarray(where.lastIndexOf(47) + 1));
    const from = this.#sys.open(directory, this.#path, 0, READ, 0);
    if (from < 0) return false;
    try {
      if (!this.#is(node, from)) return false;
      if (isFragmented(from, wide(this.#stat.words, STAT.BLOCKS) * 512, EXTENT_LIMIT)) return false;
      const answer = cloneAnswer(cloneFile(from, to));
      // If one clone is refused, most others are.
      this.#refused = answer === "refused";
      return answer === "cloned" && this.#is(node, from);
    } finally {
      this.#sys.close(from);
    }
  }

  close(): void {
    if (this.#fd >= 0) this.#sys.close(this.#fd);
    this.#fd = -1;
    this.#directory = null;
    if (this.#root >= 0) fs.closeSync(this.#root);
  }

  #is(node: TreeNode, fd: number): boolean {
    const { words } = this.#stat;
    return (
      this.#unchanged(fd) &&
      words[STAT.MODE]! >>> 12 === TYPE.FILE &&
      wide(words, STAT.SIZE) === node.size &&
      signedWide(words, STAT.MTIME) === node.mtimeSec &&
      words[STAT.MTIME_NS] === node.mtimeNs
    );
  }

  #unchanged(fd: number): boolean {
    const { words } = this.#stat;
    if (this.#sys.fstat(fd, this.#stat) < 0) return false;
    return signedWide(words, STAT.CTIME) * 1000 + words[STAT.CTIME_NS]! / 1e6 <= this.#limit;
  }

  /** Keeps the last directory open. -1 for a directory that changed, or lies below a changed one. */
  #open(directory: Uint8Array): number {
    if (this.#directory !== null && Buffer.compare(directory, this.#directory) === 0) return this.#fd;
    if (this.#fd >= 0) this.#sys.close(this.#fd);
    this.#directory = Uint8Array.from(directory);
    this.#fd = this.#isAsMade(directory) ? openBelow(this.#sys, this.#root, directory, DIRECTORY, this.#path) : -1;
    return this.#fd;
  }

  #isAsMade(directory: Uint8Array): boolean {
    const key = Buffer.from(directory).toString("latin1");
    const known = this.#asMade.get(key);
    if (known !== undefined) return known;
    let is = directory.length === 0 || this.#isAsMade(directoryOf(directory));
    if (is) {
      const fd = openBelow(this.#sys, this.#root, directory, DIRECTORY, this.#path);
      is = fd >= 0 && this.#unchanged(fd);
      if (fd >= 0) this.#sys.close(fd);
    }
    this.#asMade.set(key, is);
    return is;
  }
}

/** Opens a held tree; -1 if it is gone: a tree may be removed while its point is read. */
function openTree(place: string): number {
  try {
    return openDirectory(place);
  } catch {
    return -1;
  }
}

/** The latest change time of entries made by a moment, both in ms since 1970. */
export function latestChange(moment: number): number {
  return moment + SLACK_MS;
}
