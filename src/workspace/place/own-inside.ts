import { existsSync, readdirSync, realpathSync } from "node:fs";
import { type Mount, readMounts, resolveMount } from "../../fs/linux/mounts.ts";
import { isAtOrBelow, joinRaw } from "../../fs/safe-path.ts";
import { userCacheDirectory } from "../../fs/users.ts";
import { lacksItsFile } from "./control-directory.ts";
import { controlPaths, MOUNT_CONTROL, SELF_CONTAINED_CONTROL } from "./control-layout.ts";
import { controlOf, listRegistered, userStateDirectory } from "./registry.ts";

/** Tells what Cairn itself keeps inside a folder, which is never part of a point. */

/** The real path; the path itself where there is none. */
export function realOrItself(path: string): Buffer {
  try {
    return realpathSync.native(Buffer.from(path), "buffer");
  } catch {
    return Buffer.from(path);
  }
}

/** True for a folder with a control directory's file and workspaces, or with all else of one where the file was lost. */
export function isControlDirectory(path: string): boolean {
  const control = controlPaths(path);
  return existsSync(control.workspaces) && (existsSync(control.file) || lacksItsFile(control));
}

/**
 * The control directories below a folder, as far as they are known: the user's, registered ones, and those directly
 * in it. They are never part of a point, also where a guard was overridden.
 */
export function controlDirectoriesInside(folder: Buffer): string[] {
  const known = new Set([...controlsAt(folder), ...knownControls()]);
  return [...known].filter((control) => existsSync(control) && isAtOrBelow(realOrItself(control), folder)).sort();
}

/**
 * Lists what Cairn itself keeps below a folder, by its real path: control directories, and this user's cache, which
 * each call changes. It is never part of a point.
 */
export function ownInside(folder: Buffer): Buffer[] {
  const cache = ownCache().filter((path) => isAtOrBelow(path, folder) && !path.equals(folder));
  return [...controlDirectoriesInside(folder).map(realOrItself), ...cache];
}

/** Finds this user's cache, where there is one. */
function ownCache(): Buffer[] {
  const cache = userCacheDirectory();
  return existsSync(cache) ? [realOrItself(cache)] : [];
}

/** The user's state directory, and registered control directories. */
function knownControls(): string[] {
  const registered = listRegistered().flatMap(({ registration }) =>
    registration === null ? [] : [controlOf(registration)],
  );
  const state = userStateDirectory();
  return existsSync(state) ? [...registered, state] : registered;
}

/**
 * The control directories, and the cache, on what is mounted at some places: directly at their roots, and those that are known by another
 * path of the same file system, as through a bind mount.
 */
export function controlDirectoriesOn(mounted: readonly Mount[]): Buffer[] {
  const all = readMounts();
  const known = [...knownControls().map(realOrItself), ...ownCache()].flatMap((real) => {
    const on = resolveMount(real, all);
    return on === null ? [] : [{ device: on.device, inside: insideOf(on, real) }];
  });
  return mounted.flatMap(({ device, root, mountPoint }) => {
    const shared = joinRaw(mountPoint, MOUNT_CONTROL);
    const directly = [
      ...controlsAt(mountPoint).map((path) => Buffer.from(path)),
      ...(existsSync(shared) ? [shared] : []),
    ];
    const seen = known.filter((each) => each.device === device && isAtOrBelow(each.inside, root));
    return [
      ...directly,
      ...seen.map(({ inside }) => joinRaw(mountPoint, inside.subarray(root.length === 1 ? 1 : root.length + 1))),
    ];
  });
}

/** The path of an entry in its file system, whatever directory of that is mounted. */
function insideOf({ root, mountPoint }: Mount, path: Buffer): Buffer {
  return joinRaw(root, path.subarray(mountPoint.length === 1 ? 1 : mountPoint.length + 1));
}

/** Control directories directly in a folder, whether registered or not. */
function controlsAt(folder: Buffer): string[] {
  const text = folder.toString("utf8");
  const controls = isControlDirectory(`${text}/${SELF_CONTAINED_CONTROL}`) ? [`${text}/${SELF_CONTAINED_CONTROL}`] : [];
  const shared = `${text}/${MOUNT_CONTROL}`;
  try {
    for (const name of readdirSync(shared))
      if (isControlDirectory(`${shared}/${name}`)) controls.push(`${shared}/${name}`);
  } catch {
    // None there.
  }
  return controls;
}
