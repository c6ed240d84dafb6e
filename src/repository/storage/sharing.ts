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
 * The bit of `config` that shares a repository with its group, as in restic: then the group may read each new file, and
 * has in each new folder the rights that it has in the one around.
 */
const GROUP_READS = 0o040;
/** Mode of a file that a group shares; nobody writes into a file that has its name. */
export const SHARED_FILE = 0o640;
const OWN_FOLDER = 0o700;
/** Rights of the group in a folder, and the bit by which new entries belong to the group too. */
const OF_GROUP = 0o2070;

/** True for the mode of a `config` that shares with the group. */
export function tellsOfGroup(mode: number): boolean {
  return (mode & GROUP_READS) !== 0;
}

/** The mode of a folder of a shared repository, by that of the one around it. */
export function sharedFolder(around: number): number {
  return OWN_FOLDER | (around & OF_GROUP);
}

/** The group that shares the repository in this folder; false where none does, null where there is no repository yet. */
export function sharingGroup(root: string): number | false | null {
  const facts = lstatSync(join(root, "config"), { throwIfNoEntry: false });
  if (facts === undefined) return null;
  return tellsOfGroup(facts.mode) && facts.gid;
}

/**
 * Makes one folder of a repository; one that is there is kept. Its group, where another is the sharing one, and the mode that
 * the umask takes from it are given right after: who is killed in between leaves one that the group cannot use.
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
  // Others of the group may have put a link there.
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (fstatSync(descriptor).gid !== group) whereModesAreKept(() => fchownSync(descriptor, -1, group));
    const { mode: given } = fstatSync(descriptor);
    if ((given & OF_GROUP) !== (mode & OF_GROUP)) whereModesAreKept(() => fchmodSync(descriptor, mode));
  } finally {
    closeSync(descriptor);
  }
}

/** Opens a file to the group before it gets its name: it does not lie in the folder that would give it its group. */
export function openFileToGroup(descriptor: number, group: number): void {
  if (fstatSync(descriptor).gid !== group) whereModesAreKept(() => fchownSync(descriptor, -1, group));
  whereModesAreKept(() => fchmodSync(descriptor, SHARED_FILE));
}

/** Errors of file systems that have one mode for all entries (FAT, many network ones). */
const NO_MODES: ReadonlySet<string> = new Set(["EPERM", "EACCES", "ENOTSUP", "EOPNOTSUPP", "ENOSYS"]);

/** True of the error of a change of modes on such a one: nothing more can be done, nor has to be. */
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

/** Says how to open a repository that this user may not use whole, as far as its `config` tells. */
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
