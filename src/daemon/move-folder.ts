import { randomBytes } from "node:crypto";
import { lstatSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { changedAfter } from "../clones/walk-entries.ts";
import { removeHeldTree } from "../clones/remove-held.ts";
import type { GuardName } from "../contract/words.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { FolderMove } from "../formats/records/daemon-state.ts";
import { copyInto } from "../fs/copy-folder.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { commitFileSystem, makeSubvolume } from "../fs/linux/btrfs.ts";
import { exchangePlaces, linkInPlace, makeInPlace } from "../fs/linux/exchange-folders.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { Told } from "../fs/unfinished.ts";
import {
  type Copied,
  changedInOriginal,
  momentNow,
  requireNoHolders,
  requireSameTrees,
  rootFacts,
} from "../workspace/care/convert.ts";

/**
 * A move of a folder onto the btrfs of the image, whose path becomes a link; or back. The folder's content is complete
 * at its path at every moment. The original is never removed.
 */
export const FOLDER_MOVE: Told = {
  kind: "folder-move",
  where: "`moves` in the state of root's daemon",
  steps: [
    "the record: path, target and the temporary path beside the folder",
    "all entries are copied with their metadata; both trees are read and compared",
    "● path and temporary path are exchanged",
    "the displaced folder is searched for later writes; if there are any, the two are exchanged again",
    "the workspace is listed at the target; the record is removed",
  ],
  before: "removes the copy",
  after: "goes on with the folder at the target; if neither state is certain, changes nothing and says so",
};

export interface MoveCall {
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
}

/** Plans the move of a folder (its real path) onto the mount. */
export function planMove(folder: string, mount: string): FolderMove {
  const id = randomBytes(8).toString("hex");
  const name = basename(folder)
    .replaceAll(/[^A-Za-z0-9._-]/g, "_")
    .slice(0, 60);
  const inode = lstatSync(folder, { bigint: true }).ino.toString();
  return {
    path: folder,
    target: join(mount, `${name}-${id}`),
    aside: join(dirname(folder), `.cairn-original-${id}`),
    back: false,
    inode,
  };
}

/** Plans the move back: the folder's path is a link to the target. */
export function planMoveBack(path: string, target: string): FolderMove {
  return {
    path,
    target,
    aside: join(dirname(path), `.cairn-original-${randomBytes(8).toString("hex")}`),
    back: true,
    inode: "",
  };
}

/**
 * Runs a move whose intent is recorded. Returns how much was copied and compared. Throws `refused`, `conflict` and errors of the copy; nothing has changed then.
 */
export async function moveFolder(move: FolderMove, call: MoveCall): Promise<Copied> {
  const [path, target, aside] = [move.path, move.target, move.aside].map((each) => Buffer.from(each)) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  const [source, copy] = move.back ? [target, aside] : [path, target];
  const at = lstatSync(path, { throwIfNoEntry: false });
  if (move.back && !(at?.isSymbolicLink() === true && readlinkSync(path) === move.target))
    throw new CairnError(
      "refused",
      `${printablePath(path)} is no longer a link to ${printablePath(target)}, and was left as it is`,
      {
        hint: "move the present file or folder away, and make the link again",
      },
    );
  requireNoHolders(source, call.allow);
  let isToKeep = false;
  try {
    if (move.back) makeInPlace(aside);
    else await makeSubvolume(target);
    failpoint("daemon-move.made");
    const since = await momentNow();
    await copyInto(source, copy, call.signal);
    if (!move.back) linkInPlace(aside, target);
    failpoint("daemon-move.copied");
    const copied = await requireSameTrees(source, copy, { signal: call.signal });
    await commitFileSystem(target);
    failpoint("daemon-move.compared");
    requireNoHolders(source, call.allow);
    const made = await momentNow();
    const facts = rootFacts(source);
    exchangePlaces(path, aside);
    failpoint("daemon-move.exchanged");
    const displaced = move.back ? target : aside;
    const changed =
      rootFacts(displaced) === facts ? await changedInOriginal(displaced, { since, made: 0n }) : Buffer.alloc(0);
    if (changed === null) {
      fsyncDirectory(dirname(move.path));
      return copied;
    }
    exchangePlaces(path, aside);
    const isWritten = lstatSync(copy, { bigint: true }).mtimeNs >= made || (await changedAfter(copy, made)) !== null;
    const kept = isWritten ? `; content that was written meanwhile lies in ${printablePath(copy)}` : "";
    const what = changed.length === 0 ? "the folder itself" : printablePath(changed);
    if (isWritten && !move.back) unlinkSync(move.aside);
    if (isWritten) isToKeep = true;
    throw new CairnError(
      "conflict",
      `${printablePath(source)} was written to while it was moved (${what}): it was not moved${kept}`,
      {
        hint: "try again when no program writes to the folder",
      },
    );
  } catch (error) {
    if (!isToKeep) await takeBack(move);
    throw toCairnError(error, `move ${printablePath(move.path)}`);
  }
}

/**
 * The state of a move: `moved` if the path and the entry beside it have changed places, `not moved` if they certainly
 * have not, and `unknown` if both entries were changed by others.
 */
function stateOf({ path, target, aside, back, inode }: FolderMove): "moved" | "not moved" | "unknown" {
  const [at, beside] = [path, aside].map((each) => lstatSync(each, { throwIfNoEntry: false, bigint: true }));
  const leads = (place: string, facts: typeof at): boolean =>
    facts?.isSymbolicLink() === true && readlinkSync(place) === target;
  if (back) {
    if (leads(path, at)) return "not moved";
    return at?.isDirectory() === true && (beside === undefined || leads(aside, beside)) ? "moved" : "unknown";
  }
  if (leads(path, at) || beside?.isDirectory() === true) return "moved";
  const isOriginal = at?.isDirectory() === true && at.ino.toString() === inode;
  return isOriginal && (beside === undefined || leads(aside, beside)) ? "not moved" : "unknown";
}

/**
 * Finishes a move that was killed after its commit. Removes the copy of a move that was killed before its commit. If
 * the state is unknown, changes nothing.
 */
export async function finishMove(move: FolderMove): Promise<"moved" | "not moved" | "unknown"> {
  const state = stateOf(move);
  if (state === "not moved") await takeBack(move);
  if (state === "moved" && move.back && lstatSync(move.aside, { throwIfNoEntry: false }) !== undefined)
    unlinkSync(move.aside);
  return state;
}

/** Removes the copy, which no program has used, if the state of the move is certainly `not moved`. */
async function takeBack(move: FolderMove): Promise<void> {
  if (stateOf(move) !== "not moved") return;
  const { aside, target, back } = move;
  const isAside = lstatSync(aside, { throwIfNoEntry: false }) !== undefined;
  if (isAside && back) await removeHeldTree(Buffer.from(aside));
  else if (isAside) unlinkSync(aside);
  if (!back && lstatSync(target, { throwIfNoEntry: false }) !== undefined) await removeHeldTree(Buffer.from(target));
}

/** Makes a missing link again. Returns true if it did. An entry at the link's path stays. */
export function linkAgain(link: string, target: string): boolean {
  try {
    if (lstatSync(link, { throwIfNoEntry: false }) !== undefined || !lstatSync(target).isDirectory()) return false;
    // Follows no link that another user has put above the path since.
    linkInPlace(Buffer.from(link), Buffer.from(target));
    return true;
  } catch {
    return false;
  }
}
