import {
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  statSync,
  type Stats,
} from "node:fs";
import { dirname, join } from "node:path";
import { shellPath } from "../../fs/paths/safe-path.ts";

/**
 * The mode bit of `config` that shares a repository with its group, as in restic: the group may read each new file, and
 * a new folder gets the group rights of its parent.
 */
const GROUP_READS = 0o040;
/** Mode of a shared file. Nobody writes into a file under its final name. */
export const SHARED_FILE = 0o640;
const OWN_FOLDER = 0o700;
/** Rights of the group in a folder, and the setgid bit, which gives new entries the same group. */
const OF_GROUP = 0o2070;

/** True if this mode of `config` shares the repository with its group. */
export function tellsOfGroup(mode: number): boolean {
  return (mode & GROUP_READS) !== 0;
}

/** Returns the mode of a folder in a shared repository; `around` is the mode of its parent. */
export function sharedFolder(around: number): number {
  return OWN_FOLDER | (around & OF_GROUP);
}

/** Returns the gid of the group that shares the repository; false if none does, null if there is no `config` yet. */
export function sharingGroup(root: string): number | false | null {
  const facts = lstatSync(join(root, "config"), { throwIfNoEntry: false });
  if (facts === undefined) return null;
  return tellsOfGroup(facts.mode) && facts.gid;
}

/**
 * Makes one folder of a repository; keeps an existing one. Then sets the sharing group and the mode bits that the umask
 * removed. A kill between both leaves a folder that the group cannot use.
 */
export function makeRepositoryFolder(path: string, group: number | false | null): void {
  const isShared = typeof group === "number";
  const mode = isShared ? sharedFolder(statSync(dirname(path)).mode) : OWN_FOLDER;
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return;
  }
  if (!isShared) return;
  // Another member of the group may have replaced the folder with a link.
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (fstatSync(descriptor).gid !== group) whereModesAreKept(() => fchownSync(descriptor, -1, group));
    const { mode: given } = fstatSync(descriptor);
    if ((given & OF_GROUP) !== (mode & OF_GROUP)) whereModesAreKept(() => fchmodSync(descriptor, mode));
  } finally {
    closeSync(descriptor);
  }
}

/** Gives a file to the group before it gets its name: its temporary folder may have another group. */
export function openFileToGroup(descriptor: number, group: number): void {
  if (fstatSync(descriptor).gid !== group) whereModesAreKept(() => fchownSync(descriptor, -1, group));
  whereModesAreKept(() => fchmodSync(descriptor, SHARED_FILE));
}

/** Errors of file systems that have one mode for all entries (FAT, many network file systems). */
const NO_MODES: ReadonlySet<string> = new Set(["EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/** True if a change of modes failed because the file system has none: the error can be ignored. */
export function keepsNoModes(error: unknown): boolean {
  return NO_MODES.has((error as NodeJS.ErrnoException).code ?? "");
}

function whereModesAreKept(change: () => void): void {
  try {
    change();
  } catch (error) {
    if (!keepsNoModes(error)) throw error;
  }
}

/**
 * Returns a command that makes a repository accessible for this user, as far as the owner and mode of `config` tell.
 */
export function hintOfClosed(root: string): string | undefined {
  let facts: Stats;
  try {
    facts = statSync(join(root, "config"));
  } catch {
    return undefined;
  }
  const place = shellPath(root);
  if (tellsOfGroup(facts.mode))
    return `a group shares the repository; to give the group access to all of its files, run: sudo chgrp -R ${facts.gid} ${place} && sudo chmod -R g+rwX ${place}`;
  if (facts.uid !== process.geteuid?.()) return undefined;
  return `to give the repository's owner the files that another user, for example root, made there, run: sudo find ${place} ! -user ${facts.uid} -execdir chown -h ${facts.uid} {} +`;
}
