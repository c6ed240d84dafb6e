import { existsSync, lstatSync, mkdirSync, readdirSync, renameSync, rmdirSync, unlinkSync } from "node:fs";
import path from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { exchangePlaces, moveToFree } from "../../fs/linux/exchange-folders.ts";
import { pidIsAlive, thisProcess } from "../../fs/lock-owner.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { SIDECARS } from "../../formats/sqlite-header.ts";
import { holdOrRefuse, THROUGH } from "./quiet-database.ts";

/**
 * Replaces a database and its sidecars by another database, while no process has it open. The new file goes into a
 * folder beside them, its inode in its name, then the old sidecars; ● the new file and the old one change places, and
 * the folder gets its lasting name. The next call takes a kill before ● back, and finishes one after it.
 */
const ENDINGS = ["", ...SIDECARS];
const WORK = ".cairn-restore-";
/** Prefix of the new file's name in the folder; of the old file's after the exchange. */
const NEW = "new-";

/**
 * Puts a finished file in the place of a database. Returns the folder of the old one with its sidecars, under their own
 * names; null if there was none. Throws `refused`, and changes nothing, if the database is open.
 */
export function exchange(staged: string, target: string): string | null {
  using held = holdOrRefuse([Buffer.from(target)]);
  const folder = path.dirname(target);
  const { startTime } = thisProcess();
  const work = path.join(folder, `${WORK}${process.pid}-${startTime || "0"}.${path.basename(target)}`);
  mkdirSync(work, { mode: 0o700 });
  failpoint("database-restore.begun");
  const next = path.join(work, `${NEW}${inodeOf(staged)}`);
  try {
    renameSync(staged, next);
    for (const ending of SIDECARS) {
      if (!existsSync(`${target}${ending}`)) continue;
      renameSync(`${target}${ending}`, path.join(work, `${path.basename(target)}${ending}`));
      failpoint("database-restore.set-aside");
    }
    fsyncDirectory(work);
    const isThere = existsSync(target);
    if (isThere) exchangeFiles(next, target);
    else moveToFree(Buffer.from(next), Buffer.from(target));
    failpoint("database-restore.named");
    if (held.isWanted()) {
      if (!isThere) renameSync(target, next);
      throw new CairnError("refused", `${printablePath(target)} was opened while it was being restored`, {
        hint: THROUGH,
      });
    }
  } catch (error) {
    takeBack(work, target);
    throw error;
  }
  failpoint("database-restore.exchanged");
  fsyncDirectory(folder);
  return keep(work, target);
}

/** If the file system has no exchange: three renames, during which the old file has its own name in the work folder. */
function exchangeFiles(next: string, target: string): void {
  try {
    exchangePlaces(Buffer.from(next), Buffer.from(target));
  } catch (error) {
    const errno = toCairnError(error).details?.["errno"];
    if (errno !== "EINVAL" && errno !== "ENOSYS") throw error;
    const aside = path.join(path.dirname(next), path.basename(target));
    renameSync(target, aside);
    renameSync(next, target);
    renameSync(aside, next);
  }
}

function inodeOf(place: string): string | undefined {
  return lstatSync(place, { bigint: true, throwIfNoEntry: false })?.ino.toString();
}

/** Finishes or takes back a killed restore of a database. Throws `busy` if one is running. */
export function recoverExchange(target: string): void {
  const folder = path.dirname(target);
  for (const name of namesIfThere(folder)) {
    const match = /^\.cairn-restore-(\d+)-(\d+)\.(.*)$/s.exec(name);
    if (match === null || match[3] !== path.basename(target)) continue;
    const [pid, start_time] = [Number(match[1]), match[2] === "0" ? "" : match[2]!];
    if (pidIsAlive({ pid, start_time }))
      throw new CairnError("busy", `${printablePath(target)} is being restored by process ${pid}`);
    const work = path.join(folder, name);
    const next = readdirSync(work).find((each) => each.startsWith(NEW));
    const isOld = next !== undefined && inodeOf(target) !== next.slice(NEW.length);
    if (existsSync(target) && !isOld) keep(work, target);
    else takeBack(work, target);
  }
}

/** Puts the database back first, if it was exchanged: its old sidecars would damage the new one. */
function takeBack(work: string, target: string): void {
  const next = readdirSync(work).find((each) => each.startsWith(NEW));
  const isNew = next === undefined ? false : inodeOf(target) === next.slice(NEW.length);
  const staged = next === undefined ? null : path.join(work, next);
  if (isNew && staged !== null) exchangeFiles(staged, target);
  for (const ending of ENDINGS.toReversed()) {
    const aside = path.join(work, `${path.basename(target)}${ending}`);
    if (!existsSync(aside)) continue;
    moveBack(aside, `${target}${ending}`, work);
    failpoint("database-restore.taken-back");
  }
  fsyncDirectory(path.dirname(target));
  if (staged !== null) unlinkSync(staged);
  rmdirSync(work);
}

function moveBack(aside: string, to: string, work: string): void {
  try {
    moveToFree(Buffer.from(aside), Buffer.from(to));
  } catch (error) {
    throw new CairnError("conflict", `${printablePath(to)} was made by another program while it was being restored`, {
      hint: `move the old files back from ${shellPath(work)}`,
      cause: error,
    });
  }
}

/** Gives the folder of replaced files its lasting name; removes an empty one. */
function keep(work: string, target: string): string | null {
  const old = readdirSync(work).find((each) => each.startsWith(NEW));
  if (old !== undefined) renameSync(path.join(work, old), path.join(work, path.basename(target)));
  if (readdirSync(work).length === 0) {
    rmdirSync(work);
    return null;
  }
  const stamp = new Date().toISOString().replaceAll(/[-:]|\.\d+/g, "");
  for (let count = 0; ; count++) {
    const kept = `${target}.before-${stamp}${count === 0 ? "" : `-${count}`}`;
    if (existsSync(kept)) continue;
    renameSync(work, kept);
    fsyncDirectory(path.dirname(target));
    return kept;
  }
}
