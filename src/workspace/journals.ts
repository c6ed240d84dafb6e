import path from "node:path";
import { CairnError } from "../errors.ts";
import { shellPath } from "../fs/safe-path.ts";
import { ownerBesidesUs } from "./owners.ts";
import type { Workspace } from "./workspace.ts";
import { CLEANUP_JOURNAL, readCleanupJournal } from "./cleanup.ts";
import { CONVERT_JOURNAL, readConvertIntent } from "./convert.ts";
import { EXCHANGE_JOURNAL, readExchangeIntent } from "./exchange.ts";
import { isIntentPending } from "./intent-link.ts";
import { FOLDER_JOURNAL, readFolderIntent } from "./missing-folder.ts";
import { RESTORE_JOURNAL, RESTORE_STEPS, RestoreJournal } from "./restore-journal.ts";
import { readSealIntent, SEAL_JOURNAL } from "./seal-point.ts";

/** A kind of operation that may be under way in a workspace, as its journal directory says. */
export interface Journal {
  operation: "restore" | "cleanup" | "conversion" | "seal";
  /** Names in the directory; the first one's going is the commit: nobody looks for the others without it. */
  files: readonly [string, ...string[]];
  /** Null where it is not there. Throws `damaged`, `newer_version`. */
  read: (directory: string) => unknown;
}

export const JOURNALS: readonly Journal[] = [
  {
    operation: "restore",
    files: [RESTORE_JOURNAL, RESTORE_STEPS],
    read: (directory) => new RestoreJournal(directory).read(),
  },
  { operation: "restore", files: [EXCHANGE_JOURNAL], read: readExchangeIntent },
  { operation: "conversion", files: [CONVERT_JOURNAL], read: readConvertIntent },
  { operation: "restore", files: [FOLDER_JOURNAL], read: readFolderIntent },
  { operation: "cleanup", files: [CLEANUP_JOURNAL], read: readCleanupJournal },
  { operation: "seal", files: [SEAL_JOURNAL], read: readSealIntent },
];

/** True when something was interrupted that a journal directory tells of; cheap. */
export function isAnyJournalThere(directory: string): boolean {
  return JOURNALS.some(({ files: [first] }) => isIntentPending(directory, first));
}

/**
 * Throws `permission` where another user has left a restore or conversion that only they may finish: its journal says what is
 * moved where, with which owners and modes, and root's rights do nothing because another user's file says so.
 */
export function requireOwnJournals({ found }: Workspace): void {
  const directory = found.paths.journal;
  for (const { operation, files } of JOURNALS) {
    if (operation === "cleanup" || operation === "seal") continue;
    const owner = files.map((name) => ownerBesidesUs(path.join(directory, name))).find((uid) => uid !== null);
    if (owner === undefined) continue;
    throw new CairnError(
      "permission",
      `a ${operation} that the user ${owner} began is unfinished, and theirs to finish`,
      {
        hint: `as that user: sudo -u '#${owner}' cairn -C ${shellPath(found.folder)} status`,
        details: { journal: path.join(directory, files[0]), uid: owner },
      },
    );
  }
}
