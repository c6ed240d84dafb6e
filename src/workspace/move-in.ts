import fs from "node:fs";
import { CairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { PartialFile } from "../formats/partial.ts";
import { rawPath, recordPath } from "../formats/record.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { moveToFree, setModeInPlace } from "../fs/exchange-folders.ts";

/**
 * Moving what was written up into a folder that stays. A directory that its owner may not write to cannot be moved to another
 * one: it is opened for that. Its mode is in the record before, so that whoever comes after a kill closes it again.
 */

type Closed = NonNullable<PartialFile["closed"]>;

const SLASH = Buffer.from("/");
const OPEN = 0o200;
const ALL = 0o7777;
const OWNER_ALL = 0o700;

/** Those to record before anything is moved. */
export function closedFolders(staging: Buffer): Closed {
  return fs.readdirSync(staging, { encoding: "buffer" }).flatMap((name) => {
    const facts = fs.lstatSync(Buffer.concat([staging, SLASH, name]));
    const mode = facts.mode & ALL;
    return facts.isDirectory() && (mode & 0o200) === 0 ? [{ ...recordPath(name), mode }] : [];
  });
}

/** Moves what was written up into the target. An entry whose name is taken there stays where it is and is returned. */
export function moveIn(record: PartialFile, onMoved: (name: Buffer) => void = () => undefined): Buffer[] {
  const staging = Buffer.from(rawPath(record.staging));
  const target = Buffer.from(rawPath(record.target));
  const taken: Buffer[] = [];
  // What comes into it is open to nobody else meanwhile.
  if (record.mode !== undefined) tryMode(target, record.mode | OWNER_ALL);
  for (const name of fs.readdirSync(staging, { encoding: "buffer" })) {
    try {
      moveOne(record, name, { from: staging, to: target });
      onMoved(name);
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "already_exists") throw error;
      taken.push(name);
    }
    failpoint("partial.moved");
  }
  closeOpened(record, target, taken);
  if (taken.length === 0) {
    fs.rmdirSync(staging);
    if (record.mode !== undefined) tryMode(target, record.mode);
  }
  fsyncDirectory(target);
  return taken;
}

/** Throws `already_exists` where the name is taken. */
export function moveOne(record: PartialFile, name: Buffer, { from, to }: { from: Buffer; to: Buffer }): void {
  const [before, after] = [from, to].map((folder) => Buffer.concat([folder, SLASH, name])) as [Buffer, Buffer];
  const mode = record.closed?.find((each) => name.equals(rawPath(each)))?.mode;
  if (mode === undefined) return moveToFree(before, after);
  setModeInPlace(before, mode | OPEN);
  failpoint("partial.opened");
  try {
    moveToFree(before, after);
  } catch (error) {
    setModeInPlace(before, mode);
    throw error;
  }
  failpoint("partial.moved-open");
  setModeInPlace(after, mode);
}

/** As far as this user may and its file system has modes: who restores sets it again, and tells what cannot be set. */
export function tryMode(target: Buffer, mode: number): void {
  try {
    setModeInPlace(target, mode);
  } catch {
    // It stays as it is.
  }
}

/** Of a move that was killed before it could do that itself, whichever way it went. What took a name meanwhile is not ours. */
function closeOpened({ closed = [] }: PartialFile, target: Buffer, taken: readonly Buffer[]): void {
  for (const each of closed) {
    if (taken.some((name) => name.equals(rawPath(each)))) continue;
    const folder = Buffer.concat([target, SLASH, rawPath(each)]);
    const facts = fs.lstatSync(folder, { throwIfNoEntry: false });
    if (facts?.isDirectory() === true && (facts.mode & ALL) === (each.mode | OPEN)) setModeInPlace(folder, each.mode);
  }
}
