import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { threadId } from "node:worker_threads";
import { hasProc } from "../native.ts";
import { TEMPORARY_PREFIX, temporaryName } from "./durable.ts";
import { machine, pidIsAlive, processFacts, thisProcess } from "./lock-owner.ts";
import { namesIfThere, namesIn } from "./paths/names-in.ts";
import { clearAway, removeAll } from "./remove-all.ts";
import { readRegular } from "./regular-file.ts";
import { isSilent } from "./silent-mounts.ts";

/**
 * Prefix of folders for the unfinished files of one operation. The name has the operation's process, so that a later
 * process can check whether that process still runs.
 */
const PREFIX = "work-";
const HOUR_MS = 3600 * 1000;
/**
 * Ages after which the folder of a process on another machine, or in another container, counts as dead. Within a
 * machine the clocks agree, so a shorter age is enough for containers.
 */
const FOREIGN_AGE_MS = 24 * HOUR_MS;
const CONTAINER_AGE_MS = HOUR_MS;

let counter = 0;

/** Returns a path below `parent` for one operation of this process; nothing is made yet. */
export function newWorkDirectory(parent: string): string {
  const { startTime } = thisProcess();
  return path.join(parent, `${PREFIX}${machine()}-${process.pid}-${startTime || "0"}-${counter++}-${threadId}`);
}

/** Renames an operation's folder so that it counts as left by a killed process; removes it if the rename fails. */
export function leaveWorkDirectory(directory: string): void {
  // No process starts at 0, so the owner counts as gone.
  const name = `${PREFIX}${machine()}-${process.pid}-0-${randomBytes(8).toString("hex")}`;
  try {
    fs.renameSync(directory, path.join(path.dirname(directory), name));
  } catch {
    clearAway(directory);
  }
}

/** File in an operation's folder: the directory elsewhere in which the operation has unfinished entries. */
const ELSEWHERE = "elsewhere";

/**
 * Makes the folder of an operation below `parent`, which names a directory elsewhere: the unfinished entries of killed
 * processes there are removed with the folder. Returns its path; null if `parent` cannot be written.
 */
export function noteElsewhere(parent: string, directory: string): string | null {
  const place = newWorkDirectory(parent);
  try {
    fs.mkdirSync(place, { mode: 0o700 });
    fs.writeFileSync(path.join(place, ELSEWHERE), directory);
    return place;
  } catch {
    clearAway(place);
    return null;
  }
}

/** Returns the directory that an operation's folder names; null if it names none. */
function elsewhereOf(place: string): string | null {
  try {
    return readRegular(path.join(place, ELSEWHERE), { limit: 1 << 16 }).toString() || null;
  } catch {
    return null;
  }
}

/** Returns the directories in which killed processes may have left unfinished entries: `folder`, and each directory that a folder of `dead` names. */
export function placesOfUnfinished(folder: string, dead: readonly string[]): string[] {
  const places = new Set([folder, ...dead.flatMap((each) => elsewhereOf(each) ?? [])]);
  return [...places].filter((place) => !isSilent(place));
}

/**
 * Removes the folders of ended processes; folders of other machines and containers only if they are old. Returns
 * folders that cannot be removed, with the reason: they take space but do no harm. `spares`: true for a folder to keep.
 */
export function removeDeadWorkDirectories(
  parent: string,
  spares: (directory: string) => boolean = () => false,
): { directory: string; reason: unknown }[] {
  return deadWorkDirectories(parent).flatMap((directory) => {
    try {
      if (spares(directory)) return [];
      const elsewhere = elsewhereOf(directory);
      if (elsewhere !== null && isSilent(elsewhere)) return [];
      if (elsewhere !== null) removeUnfinished(elsewhere);
      removeAll(directory);
      return [];
    } catch (reason) {
      return [{ directory, reason }];
    }
  });
}

/** Returns the folders of processes that have ended. */
export function deadWorkDirectories(parent: string): string[] {
  const dead: string[] = [];
  for (const name of namesIn(parent)) {
    const match = /^work-([0-9a-z]+)-(\d+)-(\d+)-/.exec(name);
    if (match === null) continue;
    const directory = path.join(parent, name);
    if (isDead(directory, { boot: match[1]!, pid: Number(match[2]), start: match[3]! })) dead.push(directory);
  }
  return dead;
}

function isDead(directory: string, owner: { boot: string; pid: number; start: string }): boolean {
  const self = machine();
  if (owner.boot !== self) {
    const age = owner.boot.split("x")[0] === self.split("x")[0] ? CONTAINER_AGE_MS : FOREIGN_AGE_MS;
    return !writtenWithin(Buffer.from(directory), age);
  }
  if (processFacts(owner.pid) !== null) return !pidIsAlive({ pid: owner.pid, start_time: owner.start });
  if (pidIsAlive({ pid: owner.pid, start_time: "" })) return false;
  // Without /proc the process may belong to another container.
  return hasProc() || !writtenWithin(Buffer.from(directory), CONTAINER_AGE_MS);
}

/** True if a folder or an entry below it was written within the last `ageMs` milliseconds. Skips entries that are not readable. */
export function writtenWithin(place: Buffer, ageMs: number): boolean {
  try {
    const facts = fs.lstatSync(place);
    // A restored entry may have any time, even a future one.
    if (Math.abs(Date.now() - facts.mtimeMs) <= ageMs) return true;
    if (!facts.isDirectory()) return false;
    return fs.readdirSync(place, "buffer").some((name) => writtenWithin(Buffer.concat([place, SLASH, name]), ageMs));
  } catch {
    return false;
  }
}

const SLASH = Buffer.from("/");

function writerIsGone(name: string): boolean {
  const pid = Number.parseInt(name.slice(TEMPORARY_PREFIX.length), 10);
  if (!Number.isSafeInteger(pid) || pid <= 0) return true;
  return !pidIsAlive({ pid, start_time: "" });
}

// A writer on another host or in another pid namespace cannot be checked, so young entries stay.
const YOUNG_MS = 3_600_000;

/** Suffix of temporary names of probes, which are made without a lock. */
export const PROBE = "-probe";

export interface RemoveLeftoversOptions {
  /** True: the caller holds the lock that every writer here holds, so no other writer is active. */
  exclusive?: boolean;
  /**
   * Removes only entries of this user with this suffix: for a folder in which other operations have temporary entries
   * with records of their own.
   */
  ownEndingIn?: string;
}

/**
 * Removes temporary files and folders of killed writers in a directory. Without `exclusive`, removes only entries over
 * an hour old whose writer has ended. Entries that this user may not remove stay. Returns the removed names; none if
 * the directory is missing.
 */
export function removeLeftovers(directory: string, options: RemoveLeftoversOptions = {}): string[] {
  const removed: string[] = [];
  const { ownEndingIn: end } = options;
  for (const name of namesIfThere(directory)) {
    if (!name.startsWith(TEMPORARY_PREFIX)) continue;
    const place = path.join(directory, name);
    if (end !== undefined && !(name.endsWith(end) && isOwn(place))) continue;
    if ((options.exclusive !== true || name.endsWith(PROBE)) && !isAbandoned(place, name)) continue;
    try {
      removeAll(place);
      removed.push(name);
    } catch (error) {
      // In a folder that everybody may write to only the writer can remove the entry. An entry with a mount inside stays.
      if (!["EACCES", "EPERM", "refused"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
  return removed;
}

function isOwn(place: string): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false })?.uid === process.geteuid?.();
}

/** Names of unfinished files and folders, which include the writer's process; `save` skips them everywhere. */
export const UNFINISHED_NAME = /^\.cairn-tmp-(\d+)-[0-9a-f]{16}-([0-9a-z]+)-(\d+)(?:[-.][a-z]+)?$/;

/**
 * Returns a path beside `target` for an unfinished entry. First removes unfinished entries of killed processes there.
 */
export function unfinishedBeside(target: string): string {
  const directory = path.dirname(target);
  removeUnfinished(directory);
  return path.join(directory, temporaryName());
}

/** Paths of this user's unfinished entries of killed processes in a user's folder. */
export function unfinishedIn(directory: string): string[] {
  const isDeadOne = (name: string): boolean => {
    const place = path.join(directory, name);
    return UNFINISHED_NAME.test(name) && isOwn(place) && isAbandoned(place, name);
  };
  return namesIn(directory)
    .filter(isDeadOne)
    .map((name) => path.join(directory, name));
}

/** Removes unfinished entries of killed processes from a user's folder; entries that cannot be removed stay. */
export function removeUnfinished(directory: string): void {
  for (const place of unfinishedIn(directory)) {
    try {
      removeAll(place);
    } catch {
      // The entry takes space but does no harm.
    }
  }
}

function isAbandoned(place: string, name: string): boolean {
  const owner = UNFINISHED_NAME.exec(name);
  if (owner !== null) return isDead(place, { pid: Number(owner[1]), boot: owner[2]!, start: owner[3]! });
  try {
    return Date.now() - fs.lstatSync(place).mtimeMs > YOUNG_MS && writerIsGone(name);
  } catch {
    return false;
  }
}
