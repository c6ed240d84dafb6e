import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { reworded, toCairnError } from "../../errors.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { removeDeadWorkDirectories, removeLeftovers, removeUnfinished } from "../../fs/work-directory.ts";
import { writeRegular } from "../../fs/regular-file.ts";
import { holdsCompletePack } from "../../repository/packs/abandoned-packs.ts";
import type { WorkspaceId } from "../../ids.ts";
import { type ControlPaths, statCachePath } from "../place/control-layout.ts";
import { hasRoom } from "../place/room.ts";
import type { Workspace } from "./workspace.ts";

/** No cache takes this long to be written. */
const OLD_CACHE_MS = 600_000;

/**
 * Removes leftovers of killed processes under temporary names; cheap. For the holder of the workspace's lock. `usesPacks`: packs
 * that a killed save has completed stay as long as there is room, for the caller's save.
 */
export function removeTemporaries({ found }: Workspace, usesPacks = false): void {
  const { control, paths, controlFile } = found;
  removeDeadWorkDirectories(
    control.temporary,
    (directory) => usesPacks && hasRoom(control.root, 0) && holdsCompletePack(directory),
  );
  for (const directory of [paths.root, paths.journal]) removeLeftovers(directory, { exclusive: true });
  removeLeftovers(control.root);
  // Whoever writes there at this moment does without what it was writing.
  removeLeftovers(control.cache, { exclusive: true });
  removeUnfinished(found.folder.toString("utf8"));
  // A killed attempt to make it lies beside a self-contained control directory.
  if (controlFile.self_contained) removeLeftovers(path.dirname(control.root));
  removeOldCaches(control.cache);
}

/**
 * Does what frees room, or goes back. Where there is none left for it, the spare room and then all caches are given up, which
 * can be made again, and it is done once more; so it must be repeatable. Throws what it throws, `no_space` with a way out.
 */
export async function makingRoom<T>(control: ControlPaths, work: () => T | Promise<T>): Promise<T> {
  for (const giveUp of [giveUpSpare, giveUpCaches]) {
    try {
      return await work();
    } catch (error) {
      if (toCairnError(error).code !== "no_space") throw error;
    }
    giveUp(control);
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

/** More than the locks, records and plans of a removal take. */
const SPARE_BYTES = 1 << 20;

/**
 * Keeps some room for what frees room, as a cache that is given up for it: points that hold trees may fill a disk, and
 * then nothing that is removed from the folder makes any. Where there is little left it waits until there is more.
 */
export function keepSpareRoom({ cache, spare }: ControlPaths): void {
  if (fs.lstatSync(spare, { throwIfNoEntry: false })?.size === SPARE_BYTES || !hasRoom(cache, SPARE_BYTES)) return;
  try {
    makeFolder(cache);
    // Of bytes that no file system makes smaller.
    writeRegular(spare, randomBytes(SPARE_BYTES));
  } catch {
    // What there is of it helps too.
  }
}

/** Removes the stat cache of a workspace that is gone, and what lies beside that. */
export function removeStatCaches(control: ControlPaths, id: WorkspaceId): void {
  const name = path.basename(statCachePath(control, id));
  for (const each of fs.readdirSync(control.cache))
    if (each.startsWith(name)) fs.rmSync(path.join(control.cache, each), { force: true });
}

function giveUpSpare({ cache, spare }: ControlPaths): void {
  fs.rmSync(spare, { force: true });
  // Some file systems give the room back with their next commit only.
  fsyncDirectory(cache);
}

function giveUpCaches({ cache: directory }: ControlPaths): void {
  try {
    for (const name of fs.readdirSync(directory))
      fs.rmSync(path.join(directory, name), { recursive: true, force: true });
    fsyncDirectory(directory);
  } catch {
    // Then the second attempt says what is missing.
  }
}

function removeOldCaches(directory: string): void {
  try {
    for (const name of fs.readdirSync(directory)) {
      if (!/\.\d+(-\d+)?(\.tmp)?$/.test(name)) continue;
      const place = path.join(directory, name);
      if (Date.now() - fs.lstatSync(place).mtimeMs > OLD_CACHE_MS) fs.rmSync(place, { force: true });
    }
  } catch {
    // Caches cost nothing but room.
  }
}
