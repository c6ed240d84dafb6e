import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { reworded, toCairnError } from "../../errors.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { isSilent } from "../../fs/silent-mounts.ts";
import { removeDeadWorkDirectories, removeLeftovers, removeUnfinished } from "../../fs/work-directory.ts";
import { writeRegular } from "../../fs/regular-file.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { holdsCompletePack } from "../../repository/packs/abandoned-packs.ts";
import type { WorkspaceId } from "../../ids.ts";
import { type ControlPaths, statCachePath } from "../place/control-layout.ts";
import { hasRoom } from "../place/room.ts";
import type { Workspace } from "./workspace.ts";

/** Writing a cache never takes this long. */
const OLD_CACHE_MS = 600_000;

/**
 * Removes temporary files of killed processes; cheap. The caller holds the workspace's lock. `usesPacks`: packs that a killed
 * save has completed stay for the caller's save, if there is room.
 */
export function removeTemporaries({ found }: Workspace, usesPacks = false): void {
  const { control, paths, controlFile } = found;
  removeDeadWorkDirectories(
    control.temporary,
    (directory) => usesPacks && hasRoom(control.root, 0) && holdsCompletePack(directory),
  );
  for (const directory of [paths.root, paths.journal]) removeLeftovers(directory, { exclusive: true });
  removeLeftovers(control.root);
  // A process that is writing a cache right now loses the cache file, and continues without an error.
  removeLeftovers(control.cache, { exclusive: true });
  if (!isSilent(found.folder)) removeUnfinished(found.folder.toString("utf8"));
  // A killed `init` left files beside a self-contained control directory.
  if (controlFile.self_contained) removeLeftovers(path.dirname(control.root));
  removeOldCaches(control.cache);
}

/**
 * Runs `work`, which frees room or rolls back. If there is no room for it, deletes the spare file, then all caches, and
 * runs it again, so `work` must be repeatable. Throws the errors of `work`, with a hint for `no_space`.
 */
export async function makingRoom<T>(control: ControlPaths, work: () => T | Promise<T>): Promise<T> {
  for (const giveUp of [giveUpSpare, giveUpCaches]) {
    try {
      return await work();
    } catch (error) {
      if (toCairnError(error).code !== "no_space") throw error;
    }
    giveUp(control);
    // btrfs frees room only with its next commit, which a flush of the directory is not. A full disk may refuse the flush.
    await flushFileSystem(control.root).catch(() => undefined);
  }
  try {
    return await work();
  } catch (error) {
    const failure = toCairnError(error);
    if (failure.code !== "no_space") throw error;
    const hint = `free some space on the file system of ${control.root}, then try again`;
    throw reworded(failure, { hint, cause: error });
  }
}

/** More bytes than the locks, records and plans of a removal need. */
const SPARE_BYTES = 1 << 20;

/**
 * Makes a spare file, if there is room, that a cleanup deletes if it lacks room. Held trees may fill a disk, and then
 * removing files from the folder frees nothing; on a full btrfs even a lock file has no room. If there is no room now, a
 * later call makes the file.
 */
export function keepSpareRoom({ root, cache, spare }: ControlPaths, holdsTrees: boolean): void {
  if (!holdsTrees && filesystemKind(root).name !== "btrfs") return;
  if (fs.lstatSync(spare, { throwIfNoEntry: false })?.size === SPARE_BYTES || !hasRoom(cache, SPARE_BYTES)) return;
  try {
    makeFolder(cache);
    // Random bytes, which no file system can compress.
    writeRegular(spare, randomBytes(SPARE_BYTES));
  } catch {
    // An incomplete file helps, too.
  }
}

/** Removes the stat cache of a removed workspace, and the files beside it. */
export function removeStatCaches(control: ControlPaths, id: WorkspaceId): void {
  const name = path.basename(statCachePath(control, id));
  for (const each of fs.readdirSync(control.cache))
    if (each.startsWith(name)) fs.rmSync(path.join(control.cache, each), { force: true });
}

function giveUpSpare({ spare }: ControlPaths): void {
  fs.rmSync(spare, { force: true });
}

function giveUpCaches({ cache: directory }: ControlPaths): void {
  try {
    for (const name of fs.readdirSync(directory)) removeAll(path.join(directory, name));
  } catch {
    // The second attempt reports the missing room.
  }
}

function removeOldCaches(directory: string): void {
  try {
    for (const name of fs.readdirSync(directory)) {
      if (!/\.\d+(-\d+)?(\.tmp)?$/.test(name)) continue;
      const place = path.join(directory, name);
      if (Date.now() - fs.lstatSync(place).mtimeMs > OLD_CACHE_MS) removeAll(place);
    }
  } catch {
    // Old caches only cost room.
  }
}
