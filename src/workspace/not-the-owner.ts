import { closeSync, fstatSync, lstatSync, openSync, statSync, unlinkSync } from "node:fs";
import { dirname, join } from "node:path";
import { reworded, toCairnError } from "../errors.ts";
import { temporaryName } from "../fs/durable.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import type { ControlPaths } from "./control-layout.ts";

/** What root writes into another user's control directory, state or cache is root's, and no one else's to read. */

/** Tells root, before something is written into a control directory, where that is another user's. */
export function warnRoot({ root }: ControlPaths, onWarning: ((message: string) => void) | undefined): void {
  const owner = process.geteuid?.() === 0 ? otherThanRoot(root) : null;
  if (owner === null) return;
  const { uid, gid } = owner;
  onWarning?.(
    `the save points of this folder belong to the user ${uid}, who may not read what root writes among them: work as that user (sudo -u '#${uid}' cairn …), or give it back afterwards: ${giveBack(root, uid, gid)}`,
  );
}

/** A failure of this user's in their own control directory, with what gives back what somebody else wrote in it. */
export function unlessNotOwn({ root }: ControlPaths, error: unknown): unknown {
  const failed = toCairnError(error);
  if (failed.code !== "permission" || failed.hint !== undefined || !failed.message.includes(root)) return error;
  const owner = otherThanRoot(root);
  if (owner === null || owner.uid !== process.geteuid?.()) return error;
  const { uid, gid } = owner;
  return reworded(failed, {
    hint: `what root or another user wrote among your save points is not yours to read; to get it: ${giveBack(root, uid, gid)}`,
  });
}

/**
 * Tells root, before something is written into directories that go by the environment (`su` and `sudo -E` keep HOME), or that
 * were named, which of them are another user's. `instead`: what else root can do than work as that user.
 */
export function warnRootOfPlaces(
  places: readonly string[],
  instead: string | null,
  onWarning: ((message: string) => void) | undefined,
): void {
  if (process.geteuid?.() !== 0) return;
  const others = places.flatMap((place) => {
    const found = firstOf(place, () => true);
    return found === null || found.uid === 0 ? [] : [{ ...found, place }];
  });
  if (others.length === 0) return;
  const lines = others.map(({ path, uid, gid }) => giveBack(path, uid, gid));
  const { uid } = others[0]!;
  const names = others.map(({ place }) => printablePath(place)).join(" and ");
  onWarning?.(
    `${names} ${others.length === 1 ? "belongs" : "belong"} to the user ${uid}, who may not use what root writes there: work as that user (sudo -u '#${uid}' cairn …)${instead === null ? "" : ` or ${instead}`}, or give it back afterwards: ${lines.join("; ")}`,
  );
}

/** A failure in one of this user's own directories, with what gives back what somebody else wrote there. */
export function unlessOthersWrote(places: readonly string[], error: unknown): unknown {
  const place = places.find((each) => toCairnError(error).message.includes(each));
  const hint = place === undefined ? null : hintOfOthers(place, error);
  return hint === null ? error : reworded(toCairnError(error), { hint });
}

/**
 * How this user gets back what somebody else wrote in a directory for their records or caches; null where that is not why
 * something failed in it, or it lies in nothing of theirs.
 */
export function hintOfOthers(place: string, error: unknown): string | null {
  const own = process.geteuid?.();
  if (own === undefined || own === 0 || !isClosedByAnother(error, own)) return null;
  const found = firstOf(place, (uid) => uid === own);
  if (found === null) return null;
  return `what root or another user wrote there is not yours to use; to get it: ${giveBack(found.path, found.uid, found.gid)}`;
}

/** Whether what the system refused lies in, or is, something that is not this user's. */
function isClosedByAnother(error: unknown, own: number): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    const { code, path } = each as NodeJS.ErrnoException;
    if (path === undefined || (code !== "EACCES" && code !== "EPERM")) continue;
    const found = firstOf(path, () => true);
    return found !== null && found.uid !== own;
  }
  return false;
}

/**
 * The first that fits of a path and the folders above it, by its owner, and the path that lies right in it, or
 * is it. What is not there or cannot be asked does not fit.
 */
function firstOf(place: string, fits: (uid: number) => boolean): { path: string; uid: number; gid: number } | null {
  for (let at = place, path = place; ; path = at, at = dirname(at)) {
    const owner = ownerOf(at);
    if (owner !== null && fits(owner.uid)) return { path, uid: owner.uid, gid: owner.gid };
    if (at === dirname(at)) return null;
  }
}

/**
 * Who made a record, where that is neither root nor this user; null also where it is not there. On file systems that give
 * what this process makes to somebody else, too (vfat, NFS for root), that one counts as this user.
 */
export function ownerBesidesUs(record: string): number | null {
  const uid = lstatSync(record, { throwIfNoEntry: false })?.uid;
  const own = process.geteuid?.();
  if (uid === undefined || own === undefined || uid === 0 || uid === own) return null;
  return ownerOfNew(dirname(record)) === uid ? null : uid;
}

function ownerOfNew(directory: string): number | null {
  const place = join(directory, temporaryName());
  try {
    const fd = openSync(place, "wx", 0o600);
    const { uid } = fstatSync(fd);
    closeSync(fd);
    unlinkSync(place);
    return uid;
  } catch {
    return null;
  }
}

function ownerOf(path: string): { uid: number; gid: number } | null {
  try {
    return statSync(path);
  } catch {
    return null;
  }
}

/** Whose a control directory is; null where it is root's, or cannot be asked: what the work itself meets there says more. */
function otherThanRoot(root: string): { uid: number; gid: number } | null {
  const owner = ownerOf(root);
  return owner === null || owner.uid === 0 ? null : owner;
}

/** Trees that points hold, and what is kept for people, have owners of their own. */
function giveBack(root: string, uid: number, gid: number): string {
  // Whoever chose the path writes into a line that root is told to run.
  const place = shellPath(root);
  return `sudo find ${place} \\( -path '*/points/*/tree' -o -path '*/kept' \\) -prune -o ! -user ${uid} -execdir chown -h ${uid}:${gid} {} +`;
}
