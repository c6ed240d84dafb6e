import fs from "node:fs";
import { failpoint } from "../failpoint.ts";
import type { Recovery } from "../formats/control.ts";
import { temporaryName } from "../fs/durable.ts";
import { moveToFree, parentOf } from "../fs/exchange-folders.ts";
import { printablePath } from "../fs/safe-path.ts";
import { makeHoldable } from "./holdable-folder.ts";
import {
  announceFolder,
  forgetAnnounced,
  identityOf,
  isFolderAnnounced,
  isFolderThere,
  requirePlace,
} from "./missing-folder.ts";
import { EXCHANGE_JOURNAL, isIntentPending, readFolderIntent, RESTORE_JOURNAL } from "./journals.ts";
import type { Workspace } from "./workspace.ts";

/**
 * Has a restore give back a folder that is not there. Intent: a link in the journal directory names what is made. Then the
 * folder is made aside, empty, takes its path where that is free, and is restored as any other. Commit: that restore's own; before it the folder goes again, after it the folder is
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
  const { journal } = found.paths;
  requirePlace(found);
  if (isFolderAnnounced(journal)) removeMade(workspace);
  const aside = temporaryName();
  const place = Buffer.concat([parentOf(root), Buffer.from(`/${aside}`)]);
  announceFolder(journal, { aside, made: null });
  failpoint("give-back.intent");
  await makeHoldable(workspace, place);
  failpoint("give-back.made");
  announceFolder(journal, { aside, made: identityOf(place) });
  failpoint("give-back.known");
  moveToFree(place, root);
  failpoint("give-back.moved");
}

/**
 * Removes a folder that was only made, unless something was put into it, somebody else made one since, or its restore is
 * to be finished; null where there was none.
 */
export function takeBackFolder(workspace: Workspace): Recovery | null {
  const { found, root } = workspace;
  const { journal } = found.paths;
  if (!isFolderAnnounced(journal) || [RESTORE_JOURNAL, EXCHANGE_JOURNAL].some((name) => isIntentPending(journal, name)))
    return null;
  removeMade(workspace);
  failpoint("give-back.taken-back");
  forgetAnnounced(journal);
  const detail = `the restore of the missing folder ${printablePath(root)} had not begun`;
  return { operation: "restore", outcome: "rolled_back", detail, kept: [] };
}

function removeMade({ found, root }: Workspace): void {
  const intent = readFolderIntent(found.paths.journal);
  if (intent === null) return;
  removeEmpty(Buffer.concat([parentOf(root), Buffer.from(`/${intent.aside}`)]));
  if (intent.made !== null && identityOf(root) === intent.made) removeEmpty(root);
}

/** What cannot be removed stays: it is in use, or not empty, or nothing may be changed there. */
function removeEmpty(folder: Buffer): void {
  try {
    fs.rmdirSync(folder);
  } catch (error) {
    if (typeof (error as NodeJS.ErrnoException).code !== "string") throw error;
  }
}
