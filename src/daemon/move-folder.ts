import { randomBytes } from "node:crypto";
import { lstatSync, mkdirSync, readlinkSync, symlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { changedAfter } from "../clones/walk-entries.ts";
import { removeHeldTree } from "../clones/remove-held.ts";
import type { GuardName } from "../contract/words.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { FolderMove } from "../formats/records/daemon-state.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { commitFileSystem, makeSubvolume } from "../fs/linux/btrfs.ts";
import { exchangePlaces } from "../fs/linux/exchange-folders.ts";
import { removeAll } from "../fs/remove-all.ts";
import { printablePath } from "../fs/safe-path.ts";
import { momentNow, requireNoHolders, requireSameTrees } from "../workspace/place/convert.ts";
import { run } from "./loop-image.ts";

/**
 * Moves a folder onto the btrfs of the image, and its path becomes a link; or back. Steps of both:
 * - Intent: the state names path, target and what lies beside the path meanwhile.
 * - Stage: a copy of all entries with their metadata. Verify: both are read and compared.
 * - Commit ●: the path and what lies beside it change places in one call.
 * - What was displaced is searched for what was written since; if there is any, the two change places again.
 * A kill before the commit removes the copy, a kill after it leaves the new place; the folder's content is whole at its path at
 * every instant. The original is never removed.
 */

export interface MoveCall {
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
}

/** The plan of a move of a folder (its real path) onto the mount. */
export function planMove(folder: string, mount: string): FolderMove {
  const id = randomBytes(8).toString("hex");
  const target = join(mount, `${basename(folder).slice(0, 100)}-${id.slice(0, 8)}`);
  return { path: folder, target, aside: join(dirname(folder), `.cairn-original-${id}`), back: false };
}

/** The plan of the way back: the folder's path is a link to the target. */
export function planMoveBack(path: string, target: string): FolderMove {
  return { path, target, aside: join(dirname(path), `.cairn-original-${randomBytes(8).toString("hex")}`), back: true };
}

/** Carries a move out whose intent is recorded. Throws `refused`, `conflict` and what the copy meets; all is as it was then. */
export async function moveFolder(move: FolderMove, call: MoveCall): Promise<void> {
  const [path, target, aside] = [move.path, move.target, move.aside].map((each) => Buffer.from(each)) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  const [source, copy] = move.back ? [target, aside] : [path, target];
  requireNoHolders(source, call.allow);
  try {
    if (move.back) mkdirSync(aside, { mode: 0o700 });
    else await makeSubvolume(target);
    failpoint("daemon-move.made");
    const since = await momentNow();
    run("cp", ["-a", "--reflink=auto", "--", `${source.toString("utf8")}/.`, copy.toString("utf8")]);
    if (!move.back) symlinkSync(move.target, move.aside);
    failpoint("daemon-move.copied");
    await requireSameTrees(source, copy, { signal: call.signal });
    await commitFileSystem(target);
    failpoint("daemon-move.compared");
    requireNoHolders(source, call.allow);
    exchangePlaces(path, aside);
    failpoint("daemon-move.exchanged");
    const displaced = move.back ? target : aside;
    const changed = await changedAfter(displaced, since);
    if (changed === null) return fsyncDirectory(dirname(move.path));
    exchangePlaces(path, aside);
    throw new CairnError(
      "conflict",
      `${printablePath(source)} was written to while it was moved (${printablePath(changed)})`,
      {
        hint: "it is as it was; try again when nobody writes into it",
      },
    );
  } catch (error) {
    await takeBack(move);
    throw toCairnError(error, `move ${printablePath(move.path)}`);
  }
}

/** True where the path and what lay beside it have changed places. */
export function isMoved({ path, target, back }: FolderMove): boolean {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  if (facts === undefined) return false;
  const isLink = facts.isSymbolicLink() && readlinkSync(path) === target;
  return back ? facts.isDirectory() : isLink;
}

/** Finishes a move that was killed after its commit, or removes what one left that was killed before. */
export async function finishMove(move: FolderMove): Promise<"moved" | "taken back"> {
  if (!isMoved(move)) {
    await takeBack(move);
    return "taken back";
  }
  if (move.back && lstatSync(move.aside, { throwIfNoEntry: false })?.isSymbolicLink() === true) unlinkSync(move.aside);
  return "moved";
}

/** Removes the copy, which nobody has seen. What lies at the path stays. */
async function takeBack(move: FolderMove): Promise<void> {
  if (isMoved(move)) return;
  const { aside, target, back } = move;
  const facts = lstatSync(aside, { throwIfNoEntry: false });
  if (back && facts?.isDirectory() === true) removeAll(aside);
  if (back) return;
  if (facts?.isSymbolicLink() === true && readlinkSync(aside) === target) unlinkSync(aside);
  if (lstatSync(target, { throwIfNoEntry: false }) !== undefined) await removeHeldTree(Buffer.from(target));
}

/** Makes a link that is gone again; true when it did. Something else at its place stays. */
export function linkAgain(link: string, target: string): boolean {
  try {
    if (lstatSync(link, { throwIfNoEntry: false }) !== undefined || !lstatSync(target).isDirectory()) return false;
    symlinkSync(target, link);
    return true;
  } catch {
    return false;
  }
}
