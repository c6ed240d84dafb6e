import { chmodSync, fchmodSync, lstatSync, mkdirSync, statSync, type Stats } from "node:fs";
import { dirname, join } from "node:path";
import { shellPath } from "../../fs/safe-path.ts";

/**
 * Who else uses a repository's files: as in restic, the group, where it may read `config`. Then it may read each new file, and
 * do in each new folder what it may in the one around it.
 */
const GROUP_READS = 0o040;
/** Of what a group shares; nobody writes into a file that has its name. */
export const SHARED_FILE = 0o640;
const OWN_FOLDER = 0o700;
/** What the group may do in a folder, and that what is made in it is the group's too. */
const OF_GROUP = 0o2070;

/** Whether a `config` of this mode says so. */
export function tellsOfGroup(mode: number): boolean {
  return (mode & GROUP_READS) !== 0;
}

/** The mode of a folder of a shared repository, by that of the one around it. */
export function sharedFolder(around: number): number {
  return OWN_FOLDER | (around & OF_GROUP);
}

/** Whether a group shares the repository in this folder; null where there is none yet. */
export function isShared(root: string): boolean | null {
  const facts = statSync(join(root, "config"), { throwIfNoEntry: false });
  return facts === undefined ? null : tellsOfGroup(facts.mode);
}

/**
 * Makes one folder of a repository; one that is there is kept. The mode that the umask takes from it is given right after: who is
 * killed in between leaves one that the group cannot use.
 */
export function makeRepositoryFolder(path: string, shared: boolean): void {
  const mode = shared ? sharedFolder(statSync(dirname(path)).mode) : OWN_FOLDER;
  try {
    mkdirSync(path, { mode });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    return;
  }
  if (shared && (lstatSync(path).mode & OF_GROUP) !== (mode & OF_GROUP)) whereModesAreKept(() => chmodSync(path, mode));
}

/** Opens a file to the group before it gets its name. */
export function openFileToGroup(descriptor: number): void {
  whereModesAreKept(() => fchmodSync(descriptor, SHARED_FILE));
}

/** What those file systems say that have the same mode for all that is in them (FAT, many network ones). */
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

/** What opens a repository of which this user may not use all, as far as its `config` tells. */
export function hintOfClosed(root: string): string | undefined {
  let facts: Stats;
  try {
    facts = statSync(join(root, "config"));
  } catch {
    return undefined;
  }
  const place = shellPath(root);
  if (tellsOfGroup(facts.mode))
    return `a group shares the repository; what some of them may not use there is opened by: sudo chmod -R g+rwX ${place}`;
  if (facts.uid !== process.geteuid?.()) return undefined;
  return `what another user, e.g. root, has made there is given to its owner by: sudo find ${place} ! -user ${facts.uid} -execdir chown -h ${facts.uid} {} +`;
}
