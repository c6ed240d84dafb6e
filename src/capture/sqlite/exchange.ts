import { existsSync, mkdirSync, readdirSync, renameSync, rmdirSync } from "node:fs";
import path from "node:path";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectory } from "../../fs/durable.ts";
import { moveToFree } from "../../fs/linux/exchange-folders.ts";
import { findHolders, type Holder, WHY_UNKNOWN } from "../../fs/linux/holders.ts";
import { pidIsAlive, thisProcess } from "../../fs/lock-owner.ts";
import { namesIfThere } from "../../fs/names-in.ts";
import { listedNames, printablePath, shellPath } from "../../fs/safe-path.ts";
import { SIDECARS } from "../../formats/sqlite-header.ts";

/**
 * A database and its sidecars give way to another one. The old files go into a folder beside them, the database first; then
 * ● the new one gets the name, and the folder the one under which it is kept. A kill before ● is taken back by whoever comes
 * next, a kill after it is finished.
 */
const ENDINGS = ["", ...SIDECARS];
const WORK = ".cairn-restore-";
const HOLDERS_BUDGET_MS = 5_000;

/** Processes that have a database or a sidecar of it open, this one too, and why some may not be seen. */
export function holdersOf(target: string): { holders: Holder[]; unknown: string[] } {
  const { holders, unknown } = findHolders(path.dirname(target), { budgetMs: HOLDERS_BUDGET_MS, includeSelf: true });
  const name = path.basename(target);
  const names = ENDINGS.map((ending) => Buffer.from(`${name}${ending}`));
  return {
    holders: holders.filter((holder) => names.some((each) => each.equals(holder.path))),
    unknown: unknown.map((reason) => WHY_UNKNOWN[reason]),
  };
}

/** Throws `refused` where somebody has the database open: what he writes would be lost, or damage the new one. */
function refuseHolders(target: string, folder: string): void {
  const { holders } = holdersOf(path.join(folder, path.basename(target)));
  if (holders.length === 0) return;
  const names = [...new Set(holders.map(({ command, pid }) => `${command} (pid ${pid})`))];
  throw new CairnError("refused", `${printablePath(target)} is open in ${listedNames(names)}`, {
    hint: "end it first, or write the content through SQLite, so that it sees it: --through-sqlite",
    details: { holders: holders.map(({ command, pid }) => ({ command, pid })) },
  });
}

/**
 * Puts a finished file in the place of a database. Returns the folder that the old one is kept in with its sidecars, under
 * their own names; null where there was none. Throws `refused` where it is open, and leaves all as it was.
 */
export function exchange(staged: string, target: string): string | null {
  const folder = path.dirname(target);
  refuseHolders(target, folder);
  const { startTime } = thisProcess();
  const work = path.join(folder, `${WORK}${process.pid}-${startTime || "0"}.${path.basename(target)}`);
  mkdirSync(work, { mode: 0o700 });
  failpoint("database-restore.begun");
  try {
    for (const ending of ENDINGS) {
      if (!existsSync(`${target}${ending}`)) continue;
      renameSync(`${target}${ending}`, path.join(work, `${path.basename(target)}${ending}`));
      failpoint("database-restore.set-aside");
    }
    // Nobody can open it any more; who did since the first look is seen now.
    refuseHolders(target, work);
    fsyncDirectory(work);
    moveToFree(Buffer.from(staged), Buffer.from(target));
  } catch (error) {
    takeBack(work, target);
    throw error;
  }
  failpoint("database-restore.exchanged");
  fsyncDirectory(folder);
  return keep(work, target);
}

/** Finishes or takes back what a killed restore of a database left. Throws `busy` where one is under way. */
export function recoverExchange(target: string): void {
  const folder = path.dirname(target);
  for (const name of namesIfThere(folder)) {
    const match = /^\.cairn-restore-(\d+)-(\d+)\.(.*)$/s.exec(name);
    if (match === null || match[3] !== path.basename(target)) continue;
    const [pid, start_time] = [Number(match[1]), match[2] === "0" ? "" : match[2]!];
    if (pidIsAlive({ pid, start_time }))
      throw new CairnError("busy", `${printablePath(target)} is being restored by process ${pid}`);
    const work = path.join(folder, name);
    if (existsSync(target)) keep(work, target);
    else takeBack(work, target);
  }
}

/** The sidecars first: a database without its log would be another one. */
function takeBack(work: string, target: string): void {
  for (const ending of ENDINGS.toReversed()) {
    const aside = path.join(work, `${path.basename(target)}${ending}`);
    if (!existsSync(aside)) continue;
    moveBack(aside, `${target}${ending}`, work);
    failpoint("database-restore.taken-back");
  }
  fsyncDirectory(path.dirname(target));
  rmdirSync(work);
}

function moveBack(aside: string, to: string, work: string): void {
  try {
    moveToFree(Buffer.from(aside), Buffer.from(to));
  } catch (error) {
    throw new CairnError("conflict", `${printablePath(to)} was made by another program while it was being restored`, {
      hint: `the old files lie in ${shellPath(work)}: move them back`,
      cause: error,
    });
  }
}

/** Gives what was set aside its lasting name; an empty folder goes. */
function keep(work: string, target: string): string | null {
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
