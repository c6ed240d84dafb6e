import fs from "node:fs";
import path from "node:path";
import { threadId } from "node:worker_threads";
import { processFacts, thisProcess } from "./lock-owner.ts";

/**
 * A folder for one operation's unfinished files, named after its process, so that whoever comes later can tell
 * whether anybody still works in it.
 */
const PREFIX = "work-";
const FOREIGN_AGE_MS = 24 * 3600 * 1000;

let counter = 0;

/** A path below `parent` for one operation of this process; nothing is made yet. */
export function newWorkDirectory(parent: string): string {
  const { bootId, startTime } = thisProcess();
  return path.join(parent, `${PREFIX}${bootId.slice(0, 8) || "noboot"}-${process.pid}-${startTime || "0"}-${counter++}-${threadId}`);
}

/** Removes the folders of processes that are gone; another machine's only when they are old. Best effort. */
export function removeDeadWorkDirectories(parent: string): void {
  for (const directory of deadWorkDirectories(parent)) fs.rmSync(directory, { recursive: true, force: true });
}

/** The folders of processes that are gone. */
export function deadWorkDirectories(parent: string): string[] {
  let names: string[];
  try {
    names = fs.readdirSync(parent);
  } catch {
    return [];
  }
  const dead: string[] = [];
  for (const name of names) {
    const match = /^work-([0-9a-z]+)-(\d+)-(\d+)-/.exec(name);
    if (match === null) continue;
    const directory = path.join(parent, name);
    if (isDead(directory, { boot: match[1]!, pid: Number(match[2]), start: match[3]! })) dead.push(directory);
  }
  return dead;
}

function isDead(directory: string, owner: { boot: string; pid: number; start: string }): boolean {
  const self = thisProcess();
  if (owner.boot !== (self.bootId.slice(0, 8) || "noboot")) {
    const facts = fs.statSync(directory, { throwIfNoEntry: false });
    return facts !== undefined && Date.now() - facts.mtimeMs > FOREIGN_AGE_MS;
  }
  const facts = processFacts(owner.pid);
  return facts === null || facts.startTime !== owner.start;
}
