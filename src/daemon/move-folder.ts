import { randomBytes } from "node:crypto";
import { lstatSync, readlinkSync, unlinkSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import type { GuardName } from "../contract/words.ts";
import { toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { FolderMove } from "../formats/records/daemon-state.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { linkInPlace } from "../fs/linux/exchange-folders.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import type { Told } from "../fs/unfinished.ts";
import { type Copied, removeUnlessWritten, replaceByCopy } from "../workspace/care/replace-folder.ts";

/**
 * A move of a folder onto the btrfs of the image, whose path becomes a link; or back. The folder's content is complete
 * at its path at every moment. The original is never removed.
 */
export const FOLDER_MOVE: Told = {
  kind: "folder-move",
  where: "`moves` in the state of root's daemon",
  steps: [
    "the record: path, target and the temporary path beside the folder",
    "all entries are copied with their metadata; both trees are read and compared; the record tells when the copy was complete",
    "● path and temporary path are exchanged",
    "the displaced folder is searched for later writes; if there are any, the two are exchanged again",
    "the workspace is listed at the target; the record is removed",
  ],
  before: "removes the copy, unless it was written to after it was complete",
  after: "goes on with the folder at the target; if neither state is certain, changes nothing and says so",
};

export interface MoveCall {
  allow?: readonly GuardName[] | undefined;
  signal?: AbortSignal | undefined;
  onWarning?: ((message: string) => void) | undefined;
}

/** The record of a move in the daemon's state. */
export interface MoveRecord {
  note(move: FolderMove): void;
  end(): void;
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
 * Runs a move whose intent is recorded. Throws `refused`, `conflict` and errors of the copy; unless the move is
 * committed, nothing has changed then.
 */
export async function moveFolder(move: FolderMove, call: MoveCall, record: MoveRecord): Promise<Copied> {
  const { back } = move;
  const [path, target, beside] = [move.path, move.target, move.aside].map((each) => Buffer.from(each)) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  const takeBackAndEnd = async (made: bigint): Promise<Buffer | null> => {
    // The two entries certainly have their own places, whatever others did to the path.
    const kept = await removeCopy(move, made);
    failpoint("daemon-move.copy-removed");
    record.end();
    return kept;
  };
  try {
    const copied = await replaceByCopy(
      back
        ? { path, source: target, beside, copy: beside, form: "plain", name: "daemon-move" }
        : { path, source: path, beside, copy: target, form: "subvolume", name: "daemon-move" },
      { known: (made) => record.note({ ...move, made: String(made) }), takeBack: takeBackAndEnd },
      call,
    );
    fsyncDirectory(dirname(move.path));
    return copied;
  } catch (error) {
    throw toCairnError(error, `move ${printablePath(path)}`);
  }
}

/**
 * The state of a move: `moved` if the path and the entry beside it have changed places, `not moved` if they certainly
 * have not, and `unknown` if both entries were changed by others.
 */
function stateOf({ path, target, aside, back, inode }: FolderMove): MoveEnd["state"] {
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

/** The end of a move. `kept`: the path of a copy that was written to, and therefore was not removed. */
export interface MoveEnd {
  state: "moved" | "not moved" | "unknown";
  kept: Buffer | null;
}

/**
 * Finishes a move that was killed after its commit. Takes back a move that was killed before its commit. If the state
 * is unknown, changes nothing.
 */
export async function finishMove(move: FolderMove): Promise<MoveEnd> {
  const state = stateOf(move);
  const kept = state === "not moved" ? await removeCopy(move, BigInt(move.made ?? 0)) : null;
  if (state === "moved" && move.back && lstatSync(move.aside, { throwIfNoEntry: false }) !== undefined)
    unlinkSync(move.aside);
  return { state, kept };
}

/**
 * Removes the copy of a move that has not taken place, and the link to the copy. Returns the path of a copy that was
 * written to since `made` (ns since 1970; 0: no program has used it): the copy stays.
 */
async function removeCopy({ aside, target, back }: FolderMove, made: bigint): Promise<Buffer | null> {
  const at = lstatSync(aside, { throwIfNoEntry: false });
  if (!back && at?.isSymbolicLink() === true && readlinkSync(aside) === target) unlinkSync(aside);
  return removeUnlessWritten(Buffer.from(back ? aside : target), made);
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
