import { statSync } from "node:fs";
import { reworded, toCairnError } from "../errors.ts";
import { shellPath } from "../fs/safe-path.ts";
import type { ControlPaths } from "./control-layout.ts";

/** What root writes into another user's control directory is root's, and no one else's to read. */

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

/** Whose a control directory is; null where it is root's, or cannot be asked: what the work itself meets there says more. */
function otherThanRoot(root: string): { uid: number; gid: number } | null {
  try {
    const owner = statSync(root);
    return owner.uid === 0 ? null : owner;
  } catch {
    return null;
  }
}

/** Trees that points hold, and what is kept for people, have owners of their own. */
function giveBack(root: string, uid: number, gid: number): string {
  // Whoever chose the path writes into a line that root is told to run.
  const place = shellPath(root);
  return `sudo find ${place} \\( -path '*/points/*/tree' -o -path '*/kept' \\) -prune -o ! -user ${uid} -execdir chown -h ${uid}:${gid} {} +`;
}
