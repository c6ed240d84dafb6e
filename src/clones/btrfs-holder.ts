import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { setTimeout } from "node:timers/promises";
import { throwIfAborted } from "../errors.ts";
import {
  createSnapshot,
  destroySubvolume,
  makeSubvolume,
  type NestedSubvolume,
  nestedSubvolumes,
  requireSubvolume,
  settleSubvolume,
  subvolumeInfo,
} from "../fs/linux/btrfs.ts";
import { nameOf, parentOf } from "../fs/linux/exchange-folders.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { syscallError, syscalls } from "../fs/linux/syscalls.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { Degradation } from "../contract/index.ts";
import type { Captured, HolderCall, TreeHolder } from "./holder.ts";
import { isAsAnnounced } from "./as-made.ts";
import { errnoOf, held, named, NO_LINK, removeSnapshot } from "./remove-held.ts";
import { filesChangedAfter } from "./walk-entries.ts";

const NEW_FILE = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_NOFOLLOW;
/** The clock of inodes moves so often at the least: of two writes within it only the first changes a time. */
const TICK_MS = 10;
/** So many snapshots are made while others write into the folder. */
const ATTEMPTS = 3;

/**
 * Holds trees as btrfs snapshots: one ioctl, whatever the number of files, which writes out the page cache and commits.
 * Facts of it:
 * - Content that is written between the two is not in it: that is looked up, the capture made again, and after the last
 * attempt the files are torn.
 * - A subvolume inside is an empty directory in a snapshot: each is named as the degradation `nested_subvolume`, and
 * apart. Mounts are the caller's to look at.
 * - A read-only snapshot can be renamed within its directory but not moved to another (the directory above it can).
 * - Removal takes no time by files, except for an ordinary user without `user_subvol_rm_allowed`: there it goes entry
 * by entry, and again after a kill.
 */
export function btrfsHolder(): TreeHolder {
  return {
    type: "btrfs-snapshot",
    atomic: true,
    capture: (root, place, call) => capture(Buffer.from(root), Buffer.from(place), call),
    isStill: (root, place, temporary) => isStill(Buffer.from(root), Buffer.from(place), temporary),
    materialise: (place, target, call) => materialise(Buffer.from(place), Buffer.from(target), call),
    remove: (place) => removeSnapshot(Buffer.from(place)),
  };
}

/**
 * Makes snapshots until one is of a folder in which nothing was written meanwhile: the file system takes names at the
 * end of the call, and content at its beginning. After the last attempt the files that may be cut short are named.
 */
async function capture(from: Buffer, to: Buffer, call: HolderCall): Promise<Captured> {
  return heldSubvolume(from, async (source) => {
    throwIfAborted(call.signal);
    const { settles, isFine } = await ways(call.temporary);
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(call.signal);
      // Else the call that makes the snapshot does it, which shows as a change, and the snapshot is made again.
      if (settles) await settleBeside(source, parentOf(to));
      const rest = isFine ? subvolumeInfo(source).changed : await comeToRest(source);
      const began = Date.now();
      const before = nestedSubvolumes(source);
      const announce = before.length === 0 ? call.announce : undefined;
      if (rest !== null) announce?.(rest);
      const captured = await snapshot(source, to, { readOnly: true, before, call });
      if (rest !== null && isAsAnnounced(to, rest))
        return announce === undefined ? captured : { ...captured, announced: true };
      if (attempt < ATTEMPTS && (await takeBack(to))) continue;
      try {
        return { ...captured, torn: await filesChangedAfter(to, BigInt(began - TICK_MS) * 1_000_000n, call.signal) };
      } catch (error) {
        await removeSnapshot(to);
        throw error;
      }
    }
  });
}

/** The time of the last change, which is a tick of the clock ago; null where others go on writing. Waits once. */
async function comeToRest(source: number): Promise<number | null> {
  for (const wait of [true, false]) {
    const { changed } = subvolumeInfo(source);
    const since = Date.now() - changed;
    // One from the future is of a clock that was put back.
    if (since > TICK_MS || since < -TICK_MS) return changed;
    if (wait) await setTimeout(TICK_MS - since + 1);
  }
  return null;
}

/**
 * No transaction since the snapshot's own has changed the folder's tree, once everything that was written has reached it.
 * A write that is not done when this begins may be missing, as in a snapshot.
 */
async function isStill(root: Buffer, place: Buffer, temporary: string): Promise<boolean | null> {
  try {
    return await held(root, (folder) =>
      held(
        place,
        async (tree) => {
          // Mostly it is not, and that is known at once.
          if (!isAsIn(folder, tree)) return false;
          if (!(await ways(temporary)).settles || !(await settleBeside(folder, place))) return null;
          return isAsIn(folder, tree);
        },
        NO_LINK,
      ),
    );
  } catch {
    return null;
  }
}

/** `settleSubvolume` by the name of a folder of our own on the same file system, which nobody takes away meanwhile. */
function settleBeside(source: number, taken: Buffer): Promise<boolean> {
  return held(parentOf(taken), (parent) => settleSubvolume(source, parent, nameOf(taken)));
}

/**
 * Tells whether a folder's tree is as it was when a snapshot was made of it, or it of the snapshot; without what is
 * being written.
 */
function isAsIn(folder: number, tree: number): boolean {
  const [now, then] = [subvolumeInfo(folder), subvolumeInfo(tree)];
  const made = then.parentUuid === now.uuid ? then : now.parentUuid === then.uuid ? now : null;
  if (made === null || !then.readOnly || then.ctransid > then.otransid) return false;
  return now.ctransid <= made.otransid && now.generation <= made.otransid;
}

/** Facts of the kernel beyond what it promises. */
interface Ways {
  /** `settleSubvolume` does what it is for; false also where two changes may have the same time. */
  readonly settles: boolean;
  /** Two changes of a tree never have the same time. */
  readonly isFine: boolean;
}

const UNKNOWN: Ways = { settles: false, isFine: false };
let known: Ways | undefined;

/** Tried once, in a folder on btrfs; again where it could not be. */
async function ways(temporary: string | undefined): Promise<Ways> {
  if (temporary === undefined) return UNKNOWN;
  try {
    known ??= await tryWays(Buffer.from(newWorkDirectory(temporary)));
    return known;
  } catch {
    return UNKNOWN;
  }
}

/** Longer than what btrfs keeps in a tree itself. */
const TRIED_BYTES = 8192;
/** Once, somebody else may just have had everything written out. */
const TRIES = 2;
/** Shorter than any tick of the system's clock. */
const FINE_MS = 0.9;

async function tryWays(place: Buffer): Promise<Ways> {
  makeFolder(parentOf(place));
  await makeSubvolume(place);
  try {
    return await held(parentOf(place), (parent) =>
      held(place, async (root) => {
        let isFine = false;
        for (let round = 0; round < TRIES; round++) {
          // Another each time: one that is written anew is on its way to the disk when it is closed.
          writeNew(root, `tried-${round}`, randomBytes(TRIED_BYTES));
          const { changed } = subvolumeInfo(root);
          const isRefused = await settleSubvolume(root, parent, nameOf(place));
          const moved = subvolumeInfo(root).changed - changed;
          if (!isRefused || moved === 0) return { settles: false, isFine };
          isFine ||= moved > 0 && moved < FINE_MS;
        }
        return { settles: true, isFine };
      }),
    );
  } finally {
    await removeSnapshot(place);
  }
}

/** False where the user may not remove a snapshot as a whole, so that it has to do. */
async function takeBack(place: Buffer): Promise<boolean> {
  try {
    await held(parentOf(place), (parent) => destroySubvolume(parent, nameOf(place)));
  } catch (error) {
    if (errnoOf(error) === "EPERM") return false;
    await removeSnapshot(place);
  }
  return true;
}

async function materialise(from: Buffer, to: Buffer, call: HolderCall): Promise<Captured> {
  return heldSubvolume(from, (source) =>
    snapshot(source, to, { readOnly: false, before: nestedSubvolumes(source), call }),
  );
}

function heldSubvolume<T>(path: Buffer, work: (fd: number) => Promise<T>): Promise<T> {
  return held(path, (fd) => {
    requireSubvolume(fd, printablePath(path));
    return work(fd);
  });
}

async function snapshot(
  source: number,
  to: Buffer,
  { readOnly, before, call }: { readOnly: boolean; before: readonly NestedSubvolume[]; call: HolderCall },
): Promise<Captured> {
  throwIfAborted(call.signal);
  return held(parentOf(to), async (parent) => {
    await createSnapshot(source, parent, nameOf(to), { readOnly });
    try {
      throwIfAborted(call.signal);
      // Asked on both sides, so that one that comes or goes meanwhile is not missed.
      const nested = [...before, ...nestedSubvolumes(source)];
      return { degraded: asDegradations(nested), apart: nested.flatMap(({ path }) => path ?? []), torn: [] };
    } catch (error) {
      await removeSnapshot(to);
      throw error;
    }
  });
}

function asDegradations(nested: readonly NestedSubvolume[]): Degradation[] {
  const shown = nested.map(({ id, path }) => (path === null ? `the subvolume with the id ${id}` : printablePath(path)));
  return [...new Set(shown)].toSorted().map((reason) => ({ what: "nested_subvolume", reason }));
}

function writeNew(parent: number, name: string, content: Uint8Array): void {
  const fd = syscalls().open(parent, named(Buffer.from(name)), 0, NEW_FILE, 0o600);
  if (fd < 0) throw syscallError(fd, `make ${name}`);
  try {
    fs.writeFileSync(fd, content);
  } finally {
    fs.closeSync(fd);
  }
}
