import { createHash } from "node:crypto";
import { OwnersByName } from "../../archive/write/exact-nodes.ts";
import { takenBytes } from "../../clones/walk-entries.ts";
import type { RestoreBackupOptions } from "../../contract/snapshots.ts";
import type { LeftOut } from "../../contract/words.ts";
import { type CairnError, cannotBeWritten, toCairnError } from "../../errors.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { rawPath } from "../../formats/records/record.ts";
import { openToUmask } from "../../fs/make-folder.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { controlPaths } from "../../workspace/place/control-layout.ts";
import { unlessOthersWrote } from "../../workspace/place/owners.ts";
import { canTakeOver, isMountRoot, NewFolder, settlePartial } from "../../workspace/new-folder/new-folder.ts";
import { type DeadPartial, leftPartials } from "../../workspace/place/partials.ts";
import { notSetEntry, publicLeftOut } from "../../workspace/points/left-out.ts";
import { setLikeNode } from "../../workspace/points/root-changes.ts";
import { userStateDirectory } from "../../fs/users.ts";

/** Removes folders that killed restores left, except unfinished folders beside the same target, which are returned. */
export function settleEarlier(target: Buffer, onWarning: ((message: string) => void) | undefined): DeadPartial[] {
  const left = leftPartials(records());
  if (left.earlier !== null) onWarning?.(`${left.earlier.message}: ${left.earlier.hint}`);
  const dead = left.dead.filter(({ record }) => record.purpose === "restore");
  const isOfTarget = ({ record, committed }: DeadPartial): boolean =>
    !committed && record.content !== undefined && target.equals(rawPath(record.target));
  for (const each of dead) if (!isOfTarget(each)) settle(each, onWarning);
  return dead.filter(isOfTarget);
}

function settle(dead: DeadPartial, onWarning: ((message: string) => void) | undefined): void {
  const left = settlePartial(dead);
  if (left !== null) onWarning?.(left);
}

/** Restores of repositories belong to no workspace: their records are in the user's own state. */
function records(): ReturnType<typeof controlPaths> {
  return controlPaths(userStateDirectory());
}

/**
 * Returns a digest that names the content of a restore. `paths` null: everything; `folder` absent: the whole snapshot;
 * `isOver`: the restore writes over the target's entries.
 */
export function restoredContent(
  repository: string,
  snapshot: string,
  restore: {
    paths: readonly Uint8Array[] | null;
    folder: Uint8Array | undefined;
    isOver: boolean;
    ownershipByName: boolean;
  },
): string {
  const { paths, folder, isOver, ownershipByName } = restore;
  const base64 = (path: Uint8Array): string => Buffer.from(path).toString("base64");
  const words = [repository, snapshot, (paths ?? []).map(base64), ...(folder === undefined ? [] : [base64(folder)])];
  // Without this word, a restore over the target's entries could have the digest of one into a folder beside the
  // target.
  if (isOver) words.push("over");
  if (ownershipByName) words.push("by name");
  return createHash("sha256").update(JSON.stringify(words)).digest("hex");
}

/**
 * Removes other leftovers beside the target. Returns the unfinished restore of the same content that this one can
 * continue; null if there is none.
 */
export function settleOthers(
  left: readonly DeadPartial[],
  content: string,
  onWarning: ((message: string) => void) | undefined,
): DeadPartial | null {
  const own = left.find((dead) => dead.record.content === content && canTakeOver(dead)) ?? null;
  for (const dead of left) if (dead !== own) settle(dead, onWarning);
  return own;
}

/** Bytes that an unfinished restore already takes on the disk: they stay, or are freed for new content. */
export async function bytesIn(left: DeadPartial | null, signal: AbortSignal | undefined): Promise<number> {
  return left === null ? 0 : takenBytes(rawPath(left.record.staging), signal);
}

/**
 * Records a restore. Goes on without a record if none can be written; warns only if entries have to be moved into a
 * mount's root, which no later restore could then finish. `left`: the unfinished restore to continue, if possible.
 */
export function beginRestore(
  { target, content, left, isOver }: { target: Buffer; content: string; left: DeadPartial | null; isOver: boolean },
  onWarning: ((message: string) => void) | undefined,
): { partial: NewFolder; resumes: boolean } {
  if (left !== null) {
    const partial = takenOver(left);
    if (partial !== null) return { partial, resumes: true };
    settle(left, onWarning);
  }
  const unrecorded = (why: CairnError): void => onWarning?.(notRecorded(target, why));
  const partial = NewFolder.begin(records(), "restore", target, {
    content,
    inside: isOver,
    ...(isOver || isMountRoot(target) ? {} : { unrecorded }),
  });
  partial.noteMade();
  return { partial, resumes: false };
}

/** Gives a folder the snapshot's mode, owner and time, or those of a new folder. Returns attributes that could not be set. */
export function setRoot(
  folder: Buffer,
  node: TreeNode | null,
  { ownershipByName }: Pick<RestoreBackupOptions, "ownershipByName">,
): LeftOut[] {
  if (node === null) {
    openToUmask(folder);
    return [];
  }
  const notSet = setLikeNode(folder, ownershipByName === true ? new OwnersByName().of(node) : node);
  return notSet.map(notSetEntry).map(publicLeftOut);
}

/** Null too if the new owner cannot be recorded. */
function takenOver(left: DeadPartial): NewFolder | null {
  try {
    return NewFolder.takeOver(records(), left);
  } catch (error) {
    if (!cannotBeWritten(toCairnError(error))) throw error;
    return null;
  }
}

function notRecorded(target: Buffer, why: CairnError): string {
  const { message, hint } = toCairnError(unlessOthersWrote([userStateDirectory()], why));
  return `this restore could not be recorded: if it is killed, no later restore continues it or removes its folder beside ${printablePath(target)}: ${message}${hint === undefined ? "" : `; ${hint}`}`;
}
