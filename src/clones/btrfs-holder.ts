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
import { syscallError, syscalls, TICK_MS } from "../fs/linux/syscalls.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { Degradation } from "../contract/index.ts";
import type { Captured, HolderCall, TreeHolder } from "./holder.ts";
import { isAsAnnounced } from "./as-made.ts";
import { errnoOf, held, named, NO_LINK, removeSnapshot } from "./remove-held.ts";
import { filesChangedAfter } from "./walk-entries.ts";

const NEW_FILE = fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_EXCL | fs.constants.O_NOFOLLOW;
/** Number of snapshots to try while other processes write into the folder. */
const ATTEMPTS = 3;

/**
 * Holds trees as btrfs snapshots: one ioctl, whatever the number of files, which writes out the page cache and commits.
 * Facts of it:
 * - A snapshot lacks content written between the flush and the commit: the capture detects that and makes the snapshot
 * again; after the last attempt such files count as torn.
 * - A subvolume inside is an empty directory in a snapshot: each is named as the degradation `nested_subvolume`, and as
 * apart. The caller looks for mounts.
 * - A read-only snapshot can be renamed within its directory but not moved to another (the directory above it can).
 * - Removal takes no time by files, except for an ordinary user without `user_subvol_rm_allowed`: then it goes entry by
 * entry, and again after a kill.
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
 * Makes snapshots until the folder did not change during one: the file system takes names at the end of the call, and
 * content at its beginning. After the last attempt, names the files that may be cut short.
 */
async function capture(from: Buffer, to: Buffer, call: HolderCall): Promise<Captured> {
  return heldSubvolume(from, async (source) => {
    throwIfAborted(call.signal);
    const { settles, isFine } = await ways(call.temporary);
    for (let attempt = 1; ; attempt++) {
      throwIfAborted(call.signal);
      // Otherwise the snapshot call itself writes the pending changes out; they count as a change, and the snapshot
      // is made again.
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

/** The time of the last change, at least a clock tick ago; null if other processes keep writing. Waits once. */
async function comeToRest(source: number): Promise<number | null> {
  for (const wait of [true, false]) {
    const { changed } = subvolumeInfo(source);
    const since = Date.now() - changed;
    // A time in the future comes from a clock that was set back.
    if (since > TICK_MS || since < -TICK_MS) return changed;
    if (wait) await setTimeout(TICK_MS - since + 1);
  }
  return null;
}

/**
 * True if no transaction since the snapshot has changed the folder's tree, after all pending writes have reached it.
 * May miss a write that is still running, as a snapshot does.
 */
async function isStill(root: Buffer, place: Buffer, temporary: string): Promise<boolean | null> {
  try {
    return await held(root, (folder) =>
      held(
        place,
        async (tree) => {
          // Looks for a committed change first: this usually decides, and needs no flush.
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

/** Calls `settleSubvolume` with the name of our own folder on the same file system, which no other process removes. */
function settleBeside(source: number, taken: Buffer): Promise<boolean> {
  return held(parentOf(taken), (parent) => settleSubvolume(source, parent, nameOf(taken)));
}

/** True if neither a folder nor its snapshot changed since one was made from the other; ignores pending writes. */
function isAsIn(folder: number, tree: number): boolean {
  const [now, then] = [subvolumeInfo(folder), subvolumeInfo(tree)];
  const made = then.parentUuid === now.uuid ? then : now.parentUuid === then.uuid ? now : null;
  if (made === null || !then.readOnly || then.ctransid > then.otransid) return false;
  return now.ctransid <= made.otransid && now.generation <= made.otransid;
}

/** Kernel behaviour beyond its guarantees. */
interface Ways {
  /** `settleSubvolume` works; false also if two changes may have the same time. */
  readonly settles: boolean;
  /** Two changes of a tree never have the same time. */
  readonly isFine: boolean;
}

const UNKNOWN: Ways = { settles: false, isFine: false };
let known: Ways | undefined;

/** Tries the kernel's behaviour once, in a folder on btrfs. Repeats the try if it was not possible. */
async function ways(temporary: string | undefined): Promise<Ways> {
  if (temporary === undefined) return UNKNOWN;
  try {
    known ??= await tryWays(Buffer.from(newWorkDirectory(temporary)));
    return known;
  } catch {
    return UNKNOWN;
  }
}

/** Longer than any content that btrfs keeps inline in a tree. */
const TRIED_BYTES = 8192;
/** In a single try, another process may just have flushed everything. */
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
          // A new file each round: rewriting a file starts its writeback when it is closed.
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

/**
 * Removes a snapshot that is to be made again. False if this user may not remove it as a whole: then it is used as it
 * is.
 */
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
      // Listed before and after, so that a subvolume that comes or goes meanwhile is not missed.
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
