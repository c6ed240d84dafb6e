import { closeSync, constants, mkdirSync, openSync, rmSync, statSync } from "node:fs";
import { dirname, isAbsolute, join } from "node:path";
import { CairnError } from "../errors.ts";
import { durableMkdir, temporaryName } from "../fs/durable.ts";
import { acquireLock, type AcquireOptions, type Lock } from "../fs/lock.ts";
import { filesystemKind, mountOf } from "../fs/mounts.ts";
import { isAtOrBelow, joinRaw, printablePath, rawBytes } from "../fs/safe-path.ts";
import type { RawPath } from "../fs/safe-path.ts";
import type { ControlId } from "../ids.ts";
import { MOUNT_CONTROL } from "./control-layout.ts";
import { userStateDirectory } from "./registry.ts";
import { existingAncestor } from "./room.ts";

/** Where a new control directory goes. */

export interface ChosenControl {
  readonly root: string;
  readonly where: "given" | "user-state" | "mount-root";
  /** One sentence for a person. */
  readonly reason: string;
}

export interface ChooseOptions {
  id: ControlId;
  /** Absolute; the caller's wish goes before every rule. */
  controlDirectory?: string | undefined;
}

function isWritable(directory: Buffer): boolean {
  const probe = joinRaw(directory, temporaryName());
  try {
    mkdirSync(probe);
    rmSync(probe, { recursive: true });
    return true;
  } catch {
    return false;
  }
}

function placeLock(mountControl: string): string {
  return join(mountControl, "adopt.lock");
}

/**
 * The lock under which a control directory is made in a mount's root, whose control directories may be several users';
 * elsewhere the registry's, which comes first, is enough. Whoever holds them removes what is unfinished there.
 */
export async function lockPlace({ where, root }: ChosenControl, options: AcquireOptions): Promise<Lock | undefined> {
  if (where !== "mount-root") return undefined;
  const parent = dirname(root);
  durableMkdir(parent, { mode: 0o755 });
  return acquireLock(placeLock(parent), options);
}

/** Who came first has it to himself, also in a folder where everybody may write: what others make there is none of theirs. */
function isLockable(mountControl: string): boolean {
  try {
    closeSync(openSync(placeLock(mountControl), constants.O_RDWR | constants.O_NOFOLLOW));
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOENT";
  }
}

function mountRootOf(folder: RawPath): string | null {
  const point = mountOf(folder)?.mountPoint;
  // At the root itself the control directory would lie inside the workspace.
  if (point === undefined || point.equals(rawBytes(folder))) return null;
  const text = point.toString("utf8");
  const control = join(text, MOUNT_CONTROL);
  const fits = Buffer.from(text, "utf8").equals(point) && isWritable(existingAncestor(control)) && isLockable(control);
  return fits ? text : null;
}

/**
 * Where the control directory of a folder (its real path) goes: as told; else under the user's state directory when
 * that is on the folder's file system; else at the root of the folder's mount when that can be written and locked; else
 * under the user's state directory all the same. Makes nothing. Throws `refused` when it would lie inside the folder.
 */
export function chooseControlDirectory(folder: RawPath, options: ChooseOptions): ChosenControl {
  const state = join(userStateDirectory(), "control", options.id);
  if (options.controlDirectory !== undefined) return givenControl(folder, options.controlDirectory);
  const inside = isAtOrBelow(state, rawBytes(folder));
  const sameDevice = statSync(existingAncestor(state)).dev === statSync(folder).dev;
  if (sameDevice && !inside)
    return { root: state, where: "user-state", reason: "your state directory is on the same file system" };
  const mount = mountRootOf(folder);
  if (mount !== null) {
    const root = join(mount, MOUNT_CONTROL, options.id);
    return { root, where: "mount-root", reason: `it is on the folder's own file system, mounted at ${mount}` };
  }
  if (inside) throw controlInside(folder, state);
  return {
    root: state,
    where: "user-state",
    reason: "the folder's file system has no place outside it that can be written and locked",
  };
}

function givenControl(folder: RawPath, root: string): ChosenControl {
  if (!isAbsolute(root)) throw new CairnError("usage", `the control directory must be an absolute path, not ${root}`);
  const ancestor = existingAncestor(root);
  if (isAtOrBelow(root, rawBytes(folder)) || isAtOrBelow(ancestor, rawBytes(folder))) throw controlInside(folder, root);
  return { root, where: "given", reason: "it was asked for" };
}

function controlInside(folder: RawPath, root: string): CairnError {
  return new CairnError(
    "refused",
    `the control directory ${root} would lie inside ${printablePath(rawBytes(folder))}`,
    {
      hint: "name a place outside the folder with --control-dir",
    },
  );
}

/** What is doubtful about where a control directory lies, one sentence each. */
export function controlWarnings(root: string): string[] {
  const kind = filesystemKind(existingAncestor(root));
  if (kind.overlay) return [`${root} lies on an overlay: it is lost with the container; use --control-dir on a volume`];
  if (kind.place === "memory")
    return [`${root} lies in memory (${kind.name}): it is lost at the next restart; use --control-dir on a disk`];
  return [];
}
