import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { CairnError, cannotBeWritten, type Hint, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { PartialFile } from "../../formats/records/partial.ts";
import { rawPath, recordPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import { durableRemove, fsyncDirectory } from "../../fs/durable.ts";
import { moveInPlace, moveToFree, parentOf, setModeInPlace } from "../../fs/linux/exchange-folders.ts";
import { newOwner } from "../../fs/lock-owner.ts";
import { makeOneFolder, makeRealFolder } from "../../fs/make-folder.ts";
import { isMountPoint, keepsInodes, ownEntries } from "../../fs/linux/mounts.ts";
import { MadeFolder, otherFolder, removeAll, removeOnly } from "../../fs/remove-all.ts";
import { printablePath, quotedPath } from "../../fs/paths/safe-path.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { realPathOf } from "../place/find-workspace.ts";
import { requireNotOthers } from "../place/owners.ts";
import { type DeadPartial, PARTIAL_PREFIX, partialIn } from "../place/partials.ts";

/**
 * A folder that is made under a temporary name beside its place, recorded in the control directory first, and put in
 * place by one rename. In a mount's root or the process's current folder, entries are moved in one by one; after a kill
 * the next command finishes that move.
 */

/** Throws `already_exists` unless a path (its real path) is absent or free. */
export function requireFree(
  target: Buffer,
  besides: readonly DeadPartial[] = [],
  hint: Hint = "name a folder that is absent or empty",
): void {
  const facts = fs.lstatSync(target, { throwIfNoEntry: false });
  if (facts === undefined || (facts.isDirectory() && isFree(target, besides))) return;
  throw new CairnError(
    "already_exists",
    `${printablePath(target)} is ${facts.isDirectory() ? "not empty" : "there already"}`,
    { hint },
  );
}

/** Returns the real path of an absent or empty folder. Throws unless `folder` is an absolute path of one. */
export function freeFolder(folder: string): string {
  if (!path.isAbsolute(folder)) throw new CairnError("usage", `the folder must be an absolute path, not ${folder}`);
  const real = realPathOf(folder);
  requireFree(real);
  return real.toString("utf8");
}

/** True for an empty folder. The file system's own entries at its root and known unfinished folders do not count. */
export function isFree(target: Buffer, besides: readonly DeadPartial[]): boolean {
  const names = fs.readdirSync(target);
  if (names.length === 0) return true;
  const left = besides.map(({ record }) => Buffer.from(rawPath(record.staging)).subarray(target.length + 1));
  const own = [...ownEntries(target), ...left.map((name) => name.toString("utf8"))];
  return names.every((name) => own.includes(name));
}

/** True for a folder at which a file system is mounted. */
export function isMountRoot(folder: Buffer): boolean {
  return fs.existsSync(folder) && isMountPoint(folder);
}

/** Tells if this process's current folder is `folder`: the process would not see a folder that replaces it. */
function isCurrentFolder(folder: Buffer): boolean {
  try {
    const [there, current] = [folder, "."].map((each) => fs.statSync(each, { bigint: true }));
    return there!.dev === current!.dev && there!.ino === current!.ino;
  } catch {
    return false;
  }
}

/**
 * Tells if the folder cannot be replaced: the root of a mount, or for a restore the current folder. A fork may need a
 * subvolume, which is made beside it.
 */
function staysThere(purpose: PartialFile["purpose"], target: Buffer): boolean {
  return isMountRoot(target) || (purpose === "restore" && isCurrentFolder(target));
}

export interface BeginOptions {
  /** id of the content that is written, for {@link NewFolder.takeOver} */
  content?: string | undefined;
  /** writes inside the target, which keeps its entries, and then moves entries up one by one */
  inside?: boolean;
  /**
   * Only for folders outside the control directory: true, or a function that gets the reason, lets the work go on if the control
   * directory is read-only or full. Then a kill leaves the unfinished folder beside its place.
   */
  unrecorded?: boolean | ((why: CairnError) => void);
}

export class NewFolder {
  readonly staging: Buffer;
  readonly #target: Buffer;
  readonly #file: string;
  readonly #control: ControlPaths;
  #record: PartialFile;
  #isRecorded = true;
  readonly #made: MadeFolder;

  private constructor(control: ControlPaths, file: string, record: PartialFile) {
    this.#control = control;
    this.#file = file;
    this.#record = record;
    this.staging = Buffer.from(rawPath(record.staging));
    this.#target = Buffer.from(rawPath(record.target));
    this.#made = new MadeFolder(this.staging);
  }

  static #of(
    control: ControlPaths,
    purpose: PartialFile["purpose"],
    place: { target: Buffer; inside: string; content?: string | undefined },
  ): NewFolder {
    const { target, inside, content } = place;
    const suffix = randomBytes(8).toString("hex");
    const staging = Buffer.concat([target, Buffer.from(`${inside}${PARTIAL_PREFIX}${suffix}`)]);
    return new NewFolder(control, path.join(control.partial, `${suffix}.json`), {
      purpose,
      staging: recordPath(staging),
      target: recordPath(target),
      owner: newOwner(purpose, false),
      ...(content === undefined ? {} : { content }),
    });
  }

  /** Records the new folder and makes the directory to write into. `target`: real path, free. */
  static begin(
    control: ControlPaths,
    purpose: PartialFile["purpose"],
    target: Buffer,
    options: BeginOptions = {},
  ): NewFolder {
    const { content } = options;
    const folder = NewFolder.#of(control, purpose, {
      target,
      inside: options.inside === true || staysThere(purpose, target) ? "/" : "",
      content,
    });
    const { staging } = folder;
    folder.#begin(options);
    failpoint("partial.recorded");
    try {
      makeRealFolder(parentOf(staging), 0o777);
      makeOneFolder(staging, 0o700);
      folder.hold();
      if (fs.readdirSync(staging).length > 0) throw folder.#otherError();
    } catch (error) {
      folder.end();
      throw toCairnError(error, `make a folder beside ${printablePath(target)}`);
    }
    failpoint("partial.made");
    return folder;
  }

  /**
   * Takes over an unfinished folder of a process that ended; its content is unverified. Null if there is none, another
   * process was faster, or another folder lies there.
   */
  static takeOver(control: ControlPaths, dead: DeadPartial): NewFolder | null {
    const { file, record, committed } = dead;
    if (committed) return null;
    const { purpose, content, inode } = record;
    const target = Buffer.from(rawPath(record.target));
    const folder = NewFolder.#of(control, purpose, {
      target,
      inside: isInside(record) || staysThere(purpose, target) ? "/" : "",
      content,
    });
    if (inode !== undefined) folder.#record = { ...folder.#record, inode };
    folder.#write();
    failpoint("partial.recorded");
    const before = Buffer.from(rawPath(record.staging));
    try {
      moveInPlace(before, folder.staging);
    } catch {
      folder.end();
      return null;
    }
    failpoint("partial.taken-over");
    // A user who may write beside the target can have put another folder or a link there.
    if (!folder.#holdsOwn(inode)) {
      putBack(folder.staging, before);
      folder.end();
      return null;
    }
    durableRemove(file);
    // The folder may have its final mode already.
    folder.#made.chmod(0o700);
    return folder;
  }

  /** Records that a folder is about to be removed; nothing is made. */
  static beginClosing(control: ControlPaths, purpose: PartialFile["purpose"], target: Buffer): NewFolder {
    const folder = NewFolder.#of(control, purpose, { target, inside: "" });
    folder.#record = { ...folder.#record, closing: true };
    folder.#write();
    failpoint("partial.closing");
    return folder;
  }

  get record(): PartialFile {
    return this.#record;
  }

  /** True if entries are moved into the target, which stays the same folder. */
  get movesIn(): boolean {
    return isInside(this.#record);
  }

  /** Opens the folder at the temporary name and treats it as the one that was made, also after a caller replaced it. */
  hold(): void {
    this.#made.hold();
  }

  /** Closes the folder before it is removed for another one. */
  letGo(): void {
    this.#made.letGo();
  }

  /** Records the folder's inode, for recovery after a kill. Not for a folder that will be replaced. */
  noteMade(): void {
    const made = this.#made.identity();
    if (made === null || !keepsInodes(this.staging)) return;
    this.#record = { ...this.#record, inode: made.inode };
    try {
      this.#write();
    } catch {
      // The folder is already recorded, without its inode.
    }
  }

  #holdsOwn(inode: string | undefined): boolean {
    try {
      this.hold();
    } catch {
      return false;
    }
    return (inode === undefined || this.#made.identity()?.inode === inode) && isOwnDirectory(this.staging);
  }

  #otherError(): CairnError {
    return new CairnError("conflict", otherFolder(this.staging), {
      hint: "find out which other user may change entries of its parent folder",
    });
  }

  /** Records the workspace or control directory that is made next. */
  note(more: Pick<PartialFile, "workspace" | "control">): void {
    this.#record = { ...this.#record, ...more };
    this.#write();
  }

  /**
   * Gives the folder its name. Throws `already_exists` if another entry has that name by now. `mode`: the later mode of
   * a target into which entries are moved.
   */
  commit(mode?: number): void {
    if (!this.#made.isThere()) throw this.#otherError();
    if (isInside(this.#record)) return this.#moveIn(mode);
    try {
      moveInPlace(this.staging, this.#target);
    } catch (error) {
      requireFree(this.#target);
      throw toCairnError(error, `put ${printablePath(this.#target)} in place`);
    }
    fsyncDirectory(parentOf(this.#target));
    failpoint("partial.renamed");
  }

  /** Moves all entries in, or moves them back if that fails. */
  #moveIn(mode: number | undefined): void {
    const target = printablePath(this.#target);
    const closed = closedFolders(this.staging);
    const modeBefore = fs.statSync(this.#target).mode & 0o7777;
    this.#record = {
      ...this.#record,
      moving: true,
      ...(mode === undefined ? {} : { mode }),
      ...(closed.length === 0 ? {} : { closed }),
    };
    this.#write();
    failpoint("partial.moving");
    const moved: Buffer[] = [];
    try {
      const taken = moveIn(this.#record, (name) => void moved.push(name));
      if (taken.length === 0) return;
      const first = quotedPath(taken[0]!);
      throw new CairnError(
        "already_exists",
        `another program made ${first} in ${target} meanwhile; nothing was written there`,
        {
          hint: "name a folder that is absent or empty",
        },
      );
    } catch (error) {
      for (const name of moved.toReversed()) moveOne(this.#record, name, { from: this.#target, to: this.staging });
      if (mode !== undefined) tryMode(this.#target, modeBefore);
      const { moving: _moving, closed: _closed, mode: _mode, ...before } = this.#record;
      this.#record = before;
      this.#write();
      throw toCairnError(error, `put ${target} in place`);
    }
  }

  /** Removes the record. Everything is in place and recorded elsewhere. */
  end(): void {
    this.letGo();
    if (this.#isRecorded) partialIn(this.#control, this.#file).end();
  }

  /**
   * Removes the written folder. A move that cannot be taken back is left to the next command, which finishes it. Keeps
   * a foreign folder in its place and tells `onWarning`.
   */
  abandon(onWarning?: (message: string) => void): void {
    if (this.#record.moving === true) return this.letGo();
    try {
      if (!this.#removed()) onWarning?.(`${otherFolder(this.staging)}: it is not removed`);
      // The removal becomes durable before the record goes, so that no power cut brings the folder back.
      if (this.#isRecorded) fsyncDirectory(parentOf(this.staging));
      this.end();
    } catch {
      // The next command removes it by the record; the first failure is reported already.
      this.letGo();
    }
  }

  #removed(): boolean {
    // While the folder is being replaced, only its owner can be checked.
    const isKnown = this.#made.identity() !== null || fs.lstatSync(this.staging, MAY_LACK) === undefined;
    return (isKnown || isOwnDirectory(this.staging)) && this.#made.remove();
  }

  #begin({ unrecorded }: BeginOptions): void {
    try {
      this.#write();
    } catch (error) {
      const why = toCairnError(error);
      const isNoPlace = cannotBeWritten(why) || why.code === "refused";
      if (unrecorded === undefined || unrecorded === false || !isNoPlace) throw error;
      this.#isRecorded = false;
      if (unrecorded !== true) unrecorded(why);
    }
  }

  #write(): void {
    if (!this.#isRecorded) return;
    requireNotOthers(this.#control);
    partialIn(this.#control, this.#file).begin(this.#record);
  }
}

/** Moves a folder back to its old path, because it was not the recorded folder. */
function putBack(from: Buffer, to: Buffer): void {
  try {
    moveToFree(from, to);
  } catch {
    // The folder stays at its new place.
  }
}

/** Tells if {@link NewFolder.takeOver} would find the unfinished folder. */
export function canTakeOver({ record, committed }: DeadPartial): boolean {
  const staging = Buffer.from(rawPath(record.staging));
  return !committed && isOwnDirectory(staging) && isAsRecorded(record, staging);
}

/** Returns false if a folder other than the recorded one lies there. */
function isAsRecorded({ inode }: PartialFile, staging: Buffer): boolean {
  const there = fs.lstatSync(staging, { bigint: true, throwIfNoEntry: false });
  return inode === undefined || there === undefined || (there.isDirectory() && there.ino.toString() === inode);
}

/** True for a directory (not a link to one) that belongs to the user of this process. */
function isOwnDirectory(folder: Buffer): boolean {
  const facts = fs.lstatSync(folder, { throwIfNoEntry: false });
  return facts?.isDirectory() === true && facts.uid === process.geteuid?.();
}

function isInside(record: PartialFile): boolean {
  return parentOf(Buffer.from(rawPath(record.staging))).equals(Buffer.from(rawPath(record.target)));
}

/**
 * Finishes or removes the unfinished folder; the caller handles the other things it made. Keeps entries whose names are
 * taken by now, and a foreign folder. Returns a text about kept entries, else null.
 */
export function settlePartial(dead: DeadPartial): string | null {
  const { record, file } = dead;
  const staging = Buffer.from(rawPath(record.staging));
  const { inode } = record;
  const isDirectory = fs.lstatSync(staging, { throwIfNoEntry: false })?.isDirectory() === true;
  let taken: Buffer[] = [];
  let isOurs = isAsRecorded(record, staging);
  if (isOurs && record.moving === true && isDirectory) taken = moveIn(record);
  else if (isOurs && inode !== undefined) isOurs = removeOnly(staging, (found) => found.inode === inode);
  else if (isOurs) removeAll(staging);
  failpoint("partial.settled");
  durableRemove(file);
  if (!isOurs) return `${otherFolder(staging)}: it is not removed`;
  const [first] = taken;
  if (first === undefined) return null;
  const others = taken.length > 1 ? ` and ${plural(taken.length - 1, "other")}` : "";
  const target = printablePath(Buffer.from(rawPath(record.target)));
  return `another program made ${quotedPath(first)}${others} in ${target} meanwhile: the entries that belong there stay in ${printablePath(staging)}`;
}

const MAY_LACK = { throwIfNoEntry: false } as const;

/**
 * A directory without write permission for its owner cannot be moved to another parent, so its mode is opened for the
 * move. The record has its mode first, so that recovery after a kill sets it again.
 */

type Closed = NonNullable<PartialFile["closed"]>;

const SLASH = Buffer.from("/");
const OPEN = 0o200;
const ALL = 0o7777;
const OWNER_ALL = 0o700;

/** Lists the directories to record before any move. */
function closedFolders(staging: Buffer): Closed {
  return fs.readdirSync(staging, { encoding: "buffer" }).flatMap((name) => {
    const facts = fs.lstatSync(Buffer.concat([staging, SLASH, name]));
    const mode = facts.mode & ALL;
    return facts.isDirectory() && (mode & 0o200) === 0 ? [{ ...recordPath(name), mode }] : [];
  });
}

/** Moves the written entries up into the target. Returns entries whose names are taken; they stay. */
export function moveIn(record: PartialFile, onMoved: (name: Buffer) => void = () => undefined): Buffer[] {
  const staging = Buffer.from(rawPath(record.staging));
  const target = Buffer.from(rawPath(record.target));
  const taken: Buffer[] = [];
  // Other users cannot open the target while entries are moved in.
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

/** Moves an entry. Throws `already_exists` if the name is taken. */
function moveOne(record: PartialFile, name: Buffer, { from, to }: { from: Buffer; to: Buffer }): void {
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

/** Sets a mode if this user and the file system allow it: a later restore sets it again and reports a failure. */
function tryMode(target: Buffer, mode: number): void {
  try {
    setModeInPlace(target, mode);
  } catch {
    // The mode stays as it is.
  }
}

/**
 * Sets the modes of directories again that a killed move left open, at either place. Skips `taken` names: another
 * process made those entries.
 */
function closeOpened({ closed = [] }: PartialFile, target: Buffer, taken: readonly Buffer[]): void {
  for (const each of closed) {
    if (taken.some((name) => name.equals(rawPath(each)))) continue;
    const folder = Buffer.concat([target, SLASH, rawPath(each)]);
    const facts = fs.lstatSync(folder, { throwIfNoEntry: false });
    if (facts?.isDirectory() === true && (facts.mode & ALL) === (each.mode | OPEN)) setModeInPlace(folder, each.mode);
  }
}
