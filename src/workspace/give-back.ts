import fs from "node:fs";
import { failpoint } from "../failpoint.ts";
import { fsyncDirectory } from "../fs/durable.ts";
import { printablePath } from "../fs/safe-path.ts";
import { isExchangePending } from "./exchange.ts";
import { makeHoldable } from "./holdable-folder.ts";
import { announceFolder, forgetAnnounced, isFolderAnnounced, isFolderThere, requirePlace } from "./missing-folder.ts";
import { isRestorePending } from "./restore-journal.ts";
import type { Workspace } from "./workspace.ts";

/**
 * Has a restore give back a folder that is not there. Intent: a link in the journal directory. Then the folder is made,
 * empty, and restored as any other. Commit: that restore's own; before it the folder goes again, after it the folder is
 * recorded as the workspace's and the link goes, before the restore's journal does. For the holder of the workspace's lock.
 */
export async function givingBack<T>(workspace: Workspace, restore: () => Promise<T>): Promise<T> {
  if (isFolderThere(workspace.root)) return restore();
  try {
    await makeMissing(workspace);
    return await restore();
  } catch (error) {
    takeBackFolder(workspace);
    throw error;
  }
}

/** Makes the folder again, empty, for its owner alone. Throws `refused` where its path is no place for it. */
export async function makeMissing(workspace: Workspace): Promise<void> {
  const { found, root } = workspace;
  requirePlace(found);
  announceFolder(found.paths.journal);
  fsyncDirectory(found.paths.journal);
  failpoint("give-back.intent");
  await makeHoldable(workspace, root);
  failpoint("give-back.made");
}

/** Removes a folder that was only made, unless something was put into it or its restore is to be finished; null where there was none. */
export function takeBackFolder({
  found,
  root,
}: Workspace): { operation: string; outcome: string; detail: string; kept: unknown[] } | null {
  const { journal } = found.paths;
  if (!isFolderAnnounced(journal) || isRestorePending(journal) || isExchangePending(journal)) return null;
  try {
    fs.rmdirSync(root);
  } catch (error) {
    const name = (error as NodeJS.ErrnoException).code ?? "";
    if (!["ENOENT", "ENOTEMPTY", "EEXIST"].includes(name)) throw error;
  }
  failpoint("give-back.taken-back");
  forgetAnnounced(journal);
  const detail = `the restore of the missing folder ${printablePath(root)} had not begun`;
  return { operation: "restore", outcome: "rolled_back", detail, kept: [] };
}
