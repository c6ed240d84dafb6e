import fs from "node:fs";
import { isSubvolume, inodesChangedSince, subvolumeInfo } from "../../fs/linux/btrfs.ts";
import { attributesIn } from "../../fs/linux/own-attributes.ts";
import { inDirectory, openDirectory, outsideOwner } from "../../fs/linux/syscalls.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { joinRaw } from "../../fs/paths/safe-path.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { type Difference, differences } from "./tree-diff.ts";

/**
 * Compares two btrfs subvolumes if one is a snapshot of the other, or both are of one subvolume. btrfs tells which
 * inodes changed, so only these and the names in changed directories are compared.
 */

/** With more changed inodes, all entries are compared instead. */
const MOST = 20_000;

/**
 * Returns the differences in raw pre-order; a file with equal content may be among them. Null if btrfs does not tell
 * (only root may ask) or hard links need a scan. `later` is a snapshot. `since`: {@link transactionOf} the two.
 */
export async function changedSince(
  earlier: Buffer,
  later: Buffer,
  { since, most = MOST, signal }: { since: number; most?: number | undefined; signal?: AbortSignal | undefined },
): Promise<Difference[] | null> {
  const fd = openDirectory(later);
  try {
    const changed = await inodesChangedSince(fd, { since, most, signal });
    if (changed === null || changed.some(({ isDirectory, links }) => !isDirectory && links > 1)) return null;
    return await new ChangedTrees({ earlier, later, changed, pace: newPacer(signal) }).compare();
  } catch (error) {
    if (error instanceof Unclear) return null;
    throw error;
  } finally {
    fs.closeSync(fd);
  }
}

/** Returns the transaction until which two subvolumes were one; null if they have no known common origin. */
export function transactionOf(earlier: Buffer, later: Buffer): number | null {
  if (!isSubvolume(earlier) || !isSubvolume(later)) return null;
  const [then, now] = [inDirectory(earlier, subvolumeInfo), inDirectory(later, subvolumeInfo)];
  if (now.parentUuid === then.uuid) return now.otransid;
  if (then.parentUuid === null) return null;
  const isOfOne = then.parentUuid === now.parentUuid && then.otransid <= now.otransid;
  return then.parentUuid === now.uuid || isOfOne ? then.otransid : null;
}

/** Thrown at an entry that needs a scan. */
class Unclear extends Error {}

/** Names of a directory that are compared. */
interface Looked {
  /** true: the directory's own inode changed, so names may have been added and removed */
  isChanged: boolean;
  children: Map<string, Looked>;
}

function newLooked(): Looked {
  return { isChanged: false, children: new Map() };
}

class ChangedTrees {
  readonly #earlier: Buffer;
  readonly #later: Buffer;
  readonly #pace: Pacer;
  readonly #top = newLooked();
  readonly #found: Difference[] = [];

  constructor({
    earlier,
    later,
    changed,
    pace,
  }: {
    earlier: Buffer;
    later: Buffer;
    changed: readonly { path: Buffer }[];
    pace: Pacer;
  }) {
    this.#earlier = earlier;
    this.#later = later;
    this.#pace = pace;
    for (const { path } of changed) {
      let at = this.#top;
      for (const name of path.length === 0 ? [] : latin1(path).split("/")) {
        const child = at.children.get(name) ?? newLooked();
        at.children.set(name, child);
        at = child;
      }
      at.isChanged = true;
    }
  }

  async compare(): Promise<Difference[]> {
    await this.#directory(Buffer.alloc(0), this.#top, false);
    return this.#found;
  }

  /** Compares a directory that both trees have. `isAll`: compare every entry. */
  async #directory(path: Buffer, looked: Looked, isAll: boolean): Promise<void> {
    await this.#pace();
    const names =
      isAll || looked.isChanged
        ? [...new Set([...this.#names(this.#earlier, path), ...this.#names(this.#later, path)])]
        : [...looked.children.keys()];
    using before = new Entries(joinRaw(this.#earlier, path));
    using after = new Entries(joinRaw(this.#later, path));
    for (const name of names.toSorted()) {
      const own = path.length === 0 ? Buffer.from(name, "latin1") : joinRaw(path, Buffer.from(name, "latin1"));
      const child = looked.children.get(name);
      const [was, is] = [before.node(name), after.node(name)];
      if (was === null && is === null) continue;
      const isSame = was !== null && is !== null && was.inode === is.inode;
      // The entry is unchanged, and at the same path.
      if (!isAll && child === undefined && isSame) continue;
      const [a, b] = [was?.node ?? null, is?.node ?? null];
      const aspects = a === null || b === null ? [] : differences(a, b);
      if (a === null || b === null || aspects.length > 0) this.#found.push({ path: own, before: a, after: b, aspects });
      if (a?.type === "dir" && b?.type === "dir") await this.#directory(own, child ?? newLooked(), !isSame);
      else if (a?.type === "dir") await this.#all(own, "before");
      if (b?.type === "dir" && a?.type !== "dir") await this.#all(own, "after");
    }
  }

  /** Adds all entries below a directory that only one tree has. */
  async #all(path: Buffer, side: "before" | "after"): Promise<void> {
    await this.#pace();
    const tree = side === "before" ? this.#earlier : this.#later;
    using entries = new Entries(joinRaw(tree, path));
    for (const name of this.#names(tree, path).toSorted()) {
      const own = joinRaw(path, Buffer.from(name, "latin1"));
      const node = entries.node(name)?.node ?? null;
      if (node === null) continue;
      const nodes = side === "before" ? { before: node, after: null } : { before: null, after: node };
      this.#found.push({ path: own, ...nodes, aspects: [] });
      if (node.type === "dir") await this.#all(own, side);
    }
  }

  #names(tree: Buffer, path: Buffer): string[] {
    return fs.readdirSync(joinRaw(tree, path), { encoding: "buffer" }).map((name) => latin1(name));
  }
}

const TYPES: readonly [keyof fs.StatsBase<bigint>, TreeNode["type"]][] = [
  ["isFile", "file"],
  ["isDirectory", "dir"],
  ["isSymbolicLink", "symlink"],
  ["isBlockDevice", "dev"],
  ["isCharacterDevice", "chardev"],
  ["isFIFO", "fifo"],
  ["isSocket", "socket"],
];

class Entries {
  readonly #place: Buffer;
  readonly #fd: number;
  readonly #device: bigint;

  constructor(place: Buffer) {
    this.#place = place;
    this.#fd = fs.openSync(place, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW);
    this.#device = fs.fstatSync(this.#fd, { bigint: true }).dev;
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.#fd);
  }

  /** Returns the node and inode of an entry; null if it is missing. The node's content equals no other file's. */
  node(name: string): { node: TreeNode; inode: bigint } | null {
    const raw = Buffer.from(name, "latin1");
    const place = joinRaw(this.#place, raw);
    const facts = fs.lstatSync(place, { bigint: true, throwIfNoEntry: false });
    if (facts === undefined) return null;
    const type = TYPES.find(([is]) => (facts[is] as () => boolean)())?.[1];
    const xattrs = attributesIn(this.#fd, raw);
    const isOdd = type === undefined || xattrs === null || facts.dev !== this.#device;
    // Hard links need all of their names to be compared.
    if (isOdd || (type !== "dir" && facts.nlink > 1n)) throw new Unclear();
    const seconds = facts.mtimeNs / 1_000_000_000n - (facts.mtimeNs % 1_000_000_000n < 0n ? 1n : 0n);
    const node: TreeNode = {
      name: raw,
      type,
      mode: Number(facts.mode) & 0o7777,
      mtimeSec: Number(seconds),
      mtimeNs: Number(facts.mtimeNs - seconds * 1_000_000_000n),
      ...outsideOwner(place, facts),
      user: "",
      group: "",
      inode: 0n,
      deviceId: 0n,
      links: 0,
      size: type === "file" ? Number(facts.size) : 0,
      xattrs,
      device: type === "dev" || type === "chardev" ? facts.rdev : 0n,
      ...(type === "symlink" ? { linktarget: fs.readlinkSync(place, { encoding: "buffer" }) } : {}),
      ...(type === "file" ? { content: place } : {}),
      ...(type === "dir" ? { subtree: EMPTY } : {}),
    };
    return { node, inode: facts.ino };
  }
}

const EMPTY = new Uint8Array(0);

/** The entry at a path, as a node whose content equals no other file's; null if there is none, undefined if a scan has to tell. */
export function nodeAt(place: Buffer): TreeNode | null | undefined {
  const slash = place.lastIndexOf("/");
  using entries = new Entries(place.subarray(0, slash));
  try {
    return entries.node(latin1(place.subarray(slash + 1)))?.node ?? null;
  } catch (error) {
    if (error instanceof Unclear) return undefined;
    throw error;
  }
}
