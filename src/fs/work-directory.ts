import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { threadId } from "node:worker_threads";
import { hasProc } from "../native.ts";
import { TEMPORARY_PREFIX, temporaryName } from "./durable.ts";
import { machine, pidIsAlive, processFacts, thisProcess } from "./lock-owner.ts";
import { namesIfThere, namesIn } from "./paths/names-in.ts";
import { clearAway, removeAll } from "./remove-all.ts";

/**
 * A folder for one operation's unfinished files, named after its process, so that whoever comes later can tell
 * whether anybody still works in it.
 */
const PREFIX = "work-";
const HOUR_MS = 3600 * 1000;
/** Folders whose process cannot be asked: of another machine, or of another container on this one, which is seen at work sooner. */
const FOREIGN_AGE_MS = 24 * HOUR_MS;
const CONTAINER_AGE_MS = HOUR_MS;

let counter = 0;

/** A path below `parent` for one operation of this process; nothing is made yet. */
export function newWorkDirectory(parent: string): string {
  const { startTime } = thisProcess();
  return path.join(parent, `${PREFIX}${machine()}-${process.pid}-${startTime || "0"}-${counter++}-${threadId}`);
}

/** Leaves an operation's folder to whoever comes later, as a kill would; removes it if that cannot be. */
export function leaveWorkDirectory(directory: string): void {
  // No process began at 0, so the owner counts as gone.
  const name = `${PREFIX}${machine()}-${process.pid}-0-${randomBytes(8).toString("hex")}`;
  try {
    fs.renameSync(directory, path.join(path.dirname(directory), name));
  } catch {
    clearAway(directory);
  }
}

/**
 * Removes the folders of processes that are gone; another machine's or container's only when they are old. Returns those
 * that cannot be removed, with the system's reason: they cost room and hinder nobody. `spares`: a folder that stays.
 */
export function removeDeadWorkDirectories(
  parent: string,
  spares: (directory: string) => boolean = () => false,
): { directory: string; reason: unknown }[] {
  return deadWorkDirectories(parent).flatMap((directory) => {
    try {
      if (!spares(directory)) removeAll(directory);
      return [];
    } catch (reason) {
      return [{ directory, reason }];
    }
  });
}

/** The folders of processes that are gone. */
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
  // Without /proc it may be a process of another container.
  return hasProc() || !writtenWithin(Buffer.from(directory), CONTAINER_AGE_MS);
}

/**
 * Tells whether a folder or anything below it was written in the last so many milliseconds; what cannot be looked at
 * says nothing.
 */
export function writtenWithin(place: Buffer, ageMs: number): boolean {
  try {
    const facts = fs.lstatSync(place);
    // What is restored may be given any time, one to come too.
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

// A writer on another host or in another pid namespace cannot be asked, so what is young is left alone.
const YOUNG_MS = 3_600_000;

/** Ends the names of what somebody tries out, who holds no lock. */
export const PROBE = "-probe";

export interface RemoveLeftoversOptions {
  /** True: the caller holds the lock that every writer here holds, so whatever is left is nobody's. */
  exclusive?: boolean;
  /** Only this user's, with names that end so: for a place where others write too, and other work leaves what has a record. */
  ownEndingIn?: string;
}

/**
 * Removes what killed writers left in a directory under temporary names (files and folders). Without the lock
 * only what is over an hour old and whose writer is gone; what this user may not remove stays. Returns the names removed;
 * a missing directory is empty.
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
      // In a folder where everybody may write: it is its writer's to remove.
      if (!["EACCES", "EPERM"].includes((error as NodeJS.ErrnoException).code ?? "")) throw error;
    }
  }
  return removed;
}

function isOwn(place: string): boolean {
  return fs.lstatSync(place, { throwIfNoEntry: false })?.uid === process.geteuid?.();
}

/** Names of unfinished files and folders that say whose they are; `save` passes over them wherever they lie. */
export const UNFINISHED_NAME = /^\.cairn-tmp-(\d+)-[0-9a-f]{16}-([0-9a-z]+)-(\d+)(?:[-.][a-z]+)?$/;

/** A path beside `target` for what is not finished. What killed processes left there is removed first. */
export function unfinishedBeside(target: string): string {
  const directory = path.dirname(target);
  removeUnfinished(directory);
  return path.join(directory, temporaryName());
}

/** Removes from a folder of the user's what killed processes left unfinished; what cannot be removed stays. */
export function removeUnfinished(directory: string): void {
  for (const name of namesIn(directory)) {
    const place = path.join(directory, name);
    if (!UNFINISHED_NAME.test(name) || !isOwn(place) || !isAbandoned(place, name)) continue;
    try {
      removeAll(place);
    } catch {
      // It costs room and hinders nobody.
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
