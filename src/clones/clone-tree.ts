import { append } from "../append.ts";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { comparePaths, latin1 } from "../formats/bytes.ts";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { DirectoryListing } from "../fs/listing.ts";
import { DIRECTORY, openBelow } from "../fs/linux/open-below.ts";
import { cloneAnswer, cloneFile, cloneTo, isOtherFileSystem } from "../fs/linux/reflink.ts";
import { ownIds } from "../fs/linux/user-namespace.ts";
import { changingInside } from "../fs/owner-writes.ts";
import { isAtOrBelow, joinRaw, quotedPath } from "../fs/paths/safe-path.ts";
import {
  errnoName,
  newStatBuffer,
  openDirectory,
  putName,
  STAT,
  syscallError,
  type Syscalls,
  syscalls,
  TYPE,
} from "../fs/linux/syscalls.ts";
import { bitsOfNewFiles } from "../fs/linux/mounts.ts";
import { newArena } from "../native.ts";
import { STAGING_NAME } from "../archive/scan/task.ts";
import type { Thread } from "../threads/worker-thread.ts";
import { firstFailure, withThreads } from "../threads/threads.ts";
import { type CloneOutcome, type CloneTreeResult, EntryCloner, newOutcome, otherFileSystem } from "./clone-entry.ts";
import { CloneLinks, newSharedLinks, type CloneTask } from "./clone-links.ts";
import { CLONE, type CloneWork } from "./clone-work.ts";
import { WorkPool } from "../threads/work-pool.ts";

export interface CloneTreeOptions {
  /** the folder, absolute, raw bytes */
  from: Uint8Array;
  /** place of the clone: does not exist, or is an empty directory; absolute, raw bytes */
  to: Uint8Array;
  /** files in more pieces than this are copied: cloning them is slow and keeps them fragmented */
  extentLimit?: number;
  /** note the source of each entry, for {@link CloneTreeResult.origins} */
  origins?: boolean;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number) => void) | undefined;
}

const EXTENT_LIMIT = 100_000;
const PROGRESS_MS = 100;

/**
 * Clones a folder's whole tree to another place on the same file system: content shared, metadata copied exactly,
 * nothing synced. On failure the partial clone stays, for `removeTree`. Throws `unsupported` (nothing is left then),
 * `no_space`, `already_exists`, `interrupted`, `not_found`, `refused` for a place inside the folder.
 */
export async function cloneTree(options: CloneTreeOptions): Promise<CloneTreeResult> {
  throwIfAborted(options.signal);
  const to = Buffer.from(options.to);
  if (isAtOrBelow(to, options.from))
    throw new CairnError("refused", `the clone ${quotedPath(to)} would lie inside the folder to clone`);
  const inodes = checkSource(Buffer.from(options.from));
  const made = prepare(to);
  try {
    probe(options.from, to);
  } catch (error) {
    if (made) fs.rmdirSync(to);
    throw error;
  }
  failpoint("clone.place-made");
  return withThreads({ kind: CLONE, signal: options.signal }, async (threads) => fill(options, inodes, threads));
}

/** Clones into the prepared place with these threads. */
async function fill(
  options: CloneTreeOptions,
  inodes: number,
  threads: readonly Thread<CloneWork>[],
): Promise<CloneTreeResult> {
  const began = Date.now();
  const pool = WorkPool.create(threads.length);
  const task: CloneTask = {
    from: options.from,
    to: options.to,
    began,
    extentLimit: options.extentLimit ?? EXTENT_LIMIT,
    newBits: bitsOfNewFiles(Buffer.from(options.to)),
    origins: options.origins ?? false,
    pool: pool.shared,
    links: newSharedLinks(inodes),
  };
  const stop = (): void => pool.stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  const timer =
    options.onProgress === undefined
      ? undefined
      : setInterval(() => options.onProgress!(pool.progress), PROGRESS_MS).unref();
  try {
    const asked = await Promise.allSettled(
      threads.map(async (thread) =>
        // If one thread has died, the others would wait for it.
        thread.ask({ kind: "clone-tree", task }).finally(() => {
          if (!thread.usable) pool.stop();
        }),
      ),
    );
    const outcome = merge(firstFailure(asked));
    failpoint("clone.filled");
    finish(task, pool, { outcome, began });
    throwIfAborted(options.signal);
    options.onProgress?.(outcome.entries);
    const { closed: _closed, gone: _gone, isUnsure: _unsure, ...result } = outcome;
    return result;
  } finally {
    clearInterval(timer);
    options.signal?.removeEventListener("abort", stop);
  }
}

/** The number of inodes in use on the folder's file system; 0 if it does not report them. */
function checkSource(from: Buffer): number {
  try {
    const { files, ffree } = fs.statfsSync(from);
    return files - ffree;
  } catch (error) {
    throw toCairnError(error, "the folder cannot be cloned");
  }
}

/** Makes the target, or takes an empty one, without inheritable access lists; true if it was made. */
function prepare(to: Buffer): boolean {
  let made = true;
  try {
    fs.mkdirSync(to, 0o700);
  } catch (error) {
    made = false;
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw toCairnError(error, "the clone cannot be made");
    if (!fs.lstatSync(to).isDirectory() || fs.readdirSync(to).length > 0)
      throw new CairnError("already_exists", `cannot clone to ${quotedPath(to)}: the path exists already`);
  }
  const sys = syscalls();
  const fd = openDirectory(to);
  try {
    const name = newArena(64);
    for (const list of ["system.posix_acl_default", "system.posix_acl_access"]) {
      putName(name, 0, Buffer.from(list));
      sys.fremovexattr(fd, name, 0);
    }
    // On some mounts new entries would inherit the parent's group.
    const { uid, gid } = ownIds();
    sys.fchown(fd, uid, gid);
    sys.fchmod(fd, 0o700);
  } finally {
    fs.closeSync(fd);
  }
  return made;
}

/** Clones a file inside the target, then removes it. Throws `unsupported` if cloning does not work there, or not from the source. */
function probe(from: Uint8Array, to: Buffer): void {
  const sys = syscalls();
  const names = ["a", "b"].map((name) => Buffer.from(`.probe-${randomBytes(8).toString("hex")}${name}`));
  const places = names.map((name) => Buffer.concat([to, Buffer.from("/"), name]));
  const directory = openDirectory(to);
  const fds: number[] = [directory];
  try {
    const source = fs.openSync(places[0]!, "wx+", 0o600);
    fds.push(source);
    // A hole: content would have to be written to the disk first.
    fs.ftruncateSync(source, 65_536);
    const arena = newArena(64);
    putName(arena, 0, names[1]!);
    const clone = cloneTo(sys, source, { directory, names: arena, name: 0 });
    if (clone >= 0) {
      fds.push(clone);
      return checkSameFileSystem(from, clone);
    }
    if (cloneAnswer(clone) !== "refused") throw syscallError(clone, "cloning a file");
    throw new CairnError("unsupported", `the file system clones no files: ${errnoName(-clone)}`, {
      hint: "use btrfs, or xfs that was made with reflink=1",
    });
  } catch (error) {
    throw toCairnError(error, "trying whether files can be cloned");
  } finally {
    for (const fd of fds) fs.closeSync(fd);
    for (const place of places) fs.rmSync(place, { force: true });
  }
}

/** A directory cannot be cloned, but Linux checks its file system first, and allows clones between subvolumes. */
function checkSameFileSystem(from: Uint8Array, file: number): void {
  const source = openDirectory(Buffer.from(from));
  const isOther = isOtherFileSystem(cloneFile(source, file));
  fs.closeSync(source);
  if (isOther) throw otherFileSystem();
}

function merge(outcomes: readonly CloneOutcome[]): CloneOutcome {
  const all = newOutcome();
  for (const each of outcomes) {
    for (const count of ["entries", "files", "bytes", "cloned", "copied", "fragmented", "linked"] as const)
      all[count] += each[count];
    all.refusal ??= each.refusal;
    for (const list of ["omitted", "torn", "logs", "mounts", "notSet", "origins", "closed", "gone"] as const)
      for (const entry of each[list]) (all[list] as unknown[]).push(entry);
    all.isUnsure ||= each.isUnsure;
    all.mayLackMoved ||= each.mayLackMoved || each.gone.length > 0;
  }
  if (all.isUnsure) all.origins = [];
  return all;
}

/**
 * Finishes a filled clone: removes directories that vanished from the source, sets metadata that locks the owner out,
 * then the root's.
 */
function finish(task: CloneTask, pool: WorkPool, { outcome, began }: { outcome: CloneOutcome; began: number }): void {
  const sys = syscalls();
  const from = openDirectory(Buffer.from(task.from));
  const target = openDirectory(Buffer.from(task.to));
  const entries = new EntryCloner(task, { pool, links: new CloneLinks(task.links), target });
  const path = newArena(8192);
  try {
    for (const each of outcome.gone.toSorted((a, b) => comparePaths(b, a))) removeEmpty(sys, target, each);
    const passedOver = [...outcome.mounts, ...outcome.omitted.map((each) => each.path)].map(latin1);
    const sides = { from, target, root: task.from, passedOver: new Set(passedOver), began };
    append(outcome.torn, renamedAway(sys, outcome.gone, sides));
    const empty = new Uint8Array(0);
    for (const { path: each, stat } of outcome.closed.toSorted((a, b) => comparePaths(b.path, a.path))) {
      const source = openBelow(sys, from, each, DIRECTORY, path);
      const own = openBelow(sys, target, each, DIRECTORY, path);
      if (own >= 0) entries.metadata(source, own, stat, () => each);
      if (source >= 0) sys.close(source);
      if (own >= 0) sys.close(own);
    }
    const stat = newStatBuffer();
    const known = sys.fstat(from, stat);
    if (known < 0) throw syscallError(known, "cannot look at the folder");
    entries.metadata(from, target, stat.words, () => empty);
    append(outcome.notSet, entries.out.notSet);
  } finally {
    fs.closeSync(from);
    fs.closeSync(target);
  }
}

/** Removes a directory whose source vanished after it was made; its parent keeps its mode and times. */
function removeEmpty(sys: Syscalls, target: number, directory: Uint8Array): void {
  const arena = newArena(8192);
  const slash = directory.lastIndexOf(47);
  const parent = openBelow(sys, target, directory.subarray(0, Math.max(slash, 0)), DIRECTORY, arena);
  if (parent < 0) return;
  putName(arena, 0, directory.subarray(slash + 1));
  try {
    changingInside(sys, parent, () => sys.unlink(parent, arena, 0, true));
  } finally {
    sys.close(parent);
  }
}

/** The two sides of a finished clone. */
interface Sides {
  /** open, and the source's path */
  from: number;
  target: number;
  root: Uint8Array;
  /** entries that are left out of the clone on purpose, by path in latin1 */
  passedOver: ReadonlySet<string>;
  /** when the clone was begun, in milliseconds since 1970 */
  began: number;
}

/**
 * Returns source directories that have a child directory missing in the clone, if that child, or one in it, existed
 * before the clone began: it is a renamed one of the vanished directories. A removed or new directory is no loss.
 */
export function renamedAway(sys: Syscalls, gone: readonly Uint8Array[], sides: Sides): Uint8Array[] {
  const { from, target } = sides;
  const torn: Uint8Array[] = [];
  const seen = new Set<string>();
  const path = newArena(8192);
  for (const each of gone) {
    let parent = each;
    let fd: number;
    do {
      parent = parent.subarray(0, Math.max(parent.lastIndexOf(47), 0));
      fd = openBelow(sys, from, parent, DIRECTORY, path);
    } while (fd < 0 && parent.length > 0);
    if (fd < 0) continue;
    const key = Buffer.from(parent).toString("latin1");
    const own = seen.has(key) ? -1 : openBelow(sys, target, parent, DIRECTORY, path);
    seen.add(key);
    if (own >= 0 && lacksOne(sys, { fd, own, key }, sides)) torn.push(Uint8Array.from(parent));
    sys.close(fd);
    if (own >= 0) sys.close(own);
  }
  return torn;
}

function lacksOne(
  sys: Syscalls,
  { fd, own, key }: { fd: number; own: number; key: string },
  { root, passedOver, began }: Pick<Sides, "root" | "passedOver" | "began">,
): boolean {
  const listing = new DirectoryListing();
  const stat = newStatBuffer();
  const isDirectory = (of: number, name: number): boolean =>
    sys.stat(of, listing.names, name, stat) >= 0 && stat.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
  if (listing.read(sys, fd) < 0) return true;
  return listing.offsets.some((name) => {
    const text = listing.nameOf(name);
    const path = key === "" ? text : `${key}/${text}`;
    if (passedOver.has(path) || (key === "" && STAGING_NAME.test(text))) return false;
    return (
      isDirectory(fd, name) && !isDirectory(own, name) && holdsOlder(joinRaw(root, Buffer.from(path, "latin1")), began)
    );
  });
}

/** Number of directories to look at for an old one; temporary trees are small. */
const LOOKED_AT = 10_000;

/** True if a directory, or one in it, existed before a moment; also if that cannot be told. */
function holdsOlder(place: Buffer, moment: number): boolean {
  const places = [place];
  try {
    for (let count = 0; count < places.length; count++) {
      const each = places[count]!;
      if (count >= LOOKED_AT || fs.lstatSync(each).birthtimeMs < moment) return true;
      for (const entry of fs.readdirSync(each, { withFileTypes: true, encoding: "buffer" }))
        if (entry.isDirectory()) places.push(joinRaw(each, entry.name));
    }
    return false;
  } catch {
    return true;
  }
}
