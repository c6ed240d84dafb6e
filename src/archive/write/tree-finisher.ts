import { comparePaths } from "../../formats/bytes.ts";
import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { canBeOne, type TreeNode } from "../../formats/restic/tree.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { changingInside } from "../../fs/owner-writes.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import { openDirectory, putName, syscallError, syscalls } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { HeldFiles, type HeldTree } from "./held-files.ts";
import type { LeftEntries } from "./left-entries.ts";
import type { HoleList } from "./data-runs.ts";
import { isAnother, NodeWriter, type NotSet } from "./node-writer.ts";
import type { LinkedEntry, WriteOutcome } from "./write-jobs.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const SLASH = 47;

/** An existing entry of a hard-link group. */
type Member = Pick<LinkedEntry, "path" | "node">;

interface Options {
  readOnly: boolean;
  sparse: boolean;
  /** set if the folder was not empty */
  left: LeftEntries | null;
  held: HeldTree | null;
  holes: ReadonlyMap<string, HoleList>;
  read(id: Uint8Array): Uint8Array;
}

/**
 * Finishes a written tree after the threads: makes hard links, and finishes directories that lock out their owner or
 * that several threads wrote into.
 */
export class TreeFinisher {
  readonly #options: Options;
  readonly #target: number;
  readonly #writer: NodeWriter;
  readonly #held: HeldFiles | null;
  readonly #path = newArena(8192);
  readonly #result: Pick<WriteOutcome, "files" | "bytes" | "damaged"> & { entries: number; notSet: NotSet[] } = {
    entries: 0,
    files: 0,
    bytes: 0,
    damaged: [],
    notSet: [],
  };

  constructor(target: Uint8Array, options: Options) {
    this.#options = options;
    this.#target = openDirectory(Buffer.from(target));
    this.#writer = new NodeWriter({ readOnly: options.readOnly, sparse: options.sparse });
    this.#held = options.held === null ? null : new HeldFiles(options.held);
  }

  /**
   * Writes the first member of each group and links the others to it, if they can be linked. Keeps the times of their
   * directories.
   */
  link(members: readonly LinkedEntry[]): void {
    const sorted = members.toSorted((a, b) => comparePaths(a.path, b.path));
    const first = new Map<string, Member>();
    for (let from = 0; from < sorted.length;) {
      const parent = parentOf(sorted[from]!.path);
      let to = from + 1;
      while (to < sorted.length && Buffer.compare(parentOf(sorted[to]!.path), parent) === 0) to++;
      this.#inside(parent, (dirfd) => {
        for (const member of sorted.slice(from, to))
          this.#writer.holds(member.path, "type", () => this.#member(dirfd, member, first));
      });
      from = to;
    }
  }

  /** Directories from the deepest up. */
  close(directories: WriteOutcome["closed"]): void {
    for (const { path, node } of directories.toSorted((a, b) => comparePaths(b.path, a.path))) {
      const fd = this.#open(path);
      this.#writer.finishDirectory(fd, node, path);
      syscalls().close(fd);
    }
  }

  result(): { entries: number; files: number; bytes: number; damaged: WriteOutcome["damaged"]; notSet: NotSet[] } {
    return { ...this.#result, notSet: this.#writer.notSet };
  }

  end(): void {
    this.#held?.close();
    fs.closeSync(this.#target);
  }

  #open(path: Uint8Array): number {
    const fd = openBelow(syscalls(), this.#target, path, DIRECTORY, this.#path);
    if (fd < 0) throw syscallError(fd, `cannot open the directory ${quotedPath(path)}`);
    return fd;
  }

  /** Works in a complete directory and keeps its mode and times. */
  #inside(directory: Uint8Array, work: (dirfd: number) => void): void {
    const sys = syscalls();
    const fd = this.#open(directory);
    try {
      changingInside(sys, fd, () => work(fd));
    } finally {
      sys.close(fd);
    }
  }

  #member(dirfd: number, { path, node, group }: LinkedEntry, first: Map<string, Member>): void {
    const place = { name: node.name, path };
    this.#options.left?.clear(dirfd, node.name);
    const existing = first.get(group);
    if (existing !== undefined && !canBeOne(existing.node, node))
      this.#writer.cannotLink(path, isAnother(existing.path));
    else if (existing !== undefined) {
      const link = (): void => this.#again(dirfd, place, { node, existing: existing.path });
      if (this.#writer.holds(path, "links", link)) return;
    }
    if (node.type !== "file") {
      if (!this.#writer.special(dirfd, node, place)) return;
      first.set(group, { path, node });
      this.#result.entries++;
      return;
    }
    try {
      const held = this.#held;
      const isCloned = held !== null && this.#writer.filledFile(dirfd, node, place, (to) => held.fill(path, node, to));
      const holes = this.#options.holes.get(Buffer.from(path).toString("latin1"));
      if (!isCloned)
        this.#writer.file(dirfd, node, { ...place, ...(holes === undefined ? {} : { holes }) }, this.#pieces(node));
      first.set(group, { path, node });
      this.#result.files++;
      this.#result.bytes += node.size;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      this.#result.damaged.push({ path, detail: error.message });
      this.#writer.remove(dirfd, node.name);
    }
  }

  #again(
    dirfd: number,
    place: { name: Uint8Array; path: Uint8Array },
    member: { node: TreeNode; existing: Uint8Array },
  ): void {
    const from = this.#open(parentOf(member.existing));
    try {
      this.#writer.link(from, nameOf(member.existing), dirfd, place);
      if (member.node.type === "file") this.#result.files++;
      else this.#result.entries++;
    } finally {
      syscalls().close(from);
    }
  }

  *#pieces(node: TreeNode): Iterable<Uint8Array> {
    const content = node.content ?? NO_NAME;
    for (let at = 0; at < content.length; at += 32) yield this.#options.read(content.subarray(at, at + 32));
  }
}

const NO_NAME = new Uint8Array(0);

function parentOf(path: Uint8Array): Uint8Array {
  return path.subarray(0, Math.max(path.lastIndexOf(SLASH), 0));
}

function nameOf(path: Uint8Array): Uint8Array {
  return path.subarray(path.lastIndexOf(SLASH) + 1);
}

/** Removes a file that could not be completed. */
export function removeBelow(target: Uint8Array, path: Uint8Array): void {
  const sys = syscalls();
  const arena = newArena(8192);
  const root = openDirectory(Buffer.from(target));
  const parent = openBelow(sys, root, parentOf(path), DIRECTORY, arena);
  fs.closeSync(root);
  if (parent < 0) return;
  putName(arena, 0, nameOf(path));
  sys.unlink(parent, arena, 0, false);
  sys.close(parent);
}
