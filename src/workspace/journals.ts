import { CLEANUP_JOURNAL, readCleanupJournal } from "./cleanup.ts";
import { CONVERT_JOURNAL, readConvertIntent } from "./convert-intent.ts";
import { EXCHANGE_JOURNAL, readExchangeIntent } from "./exchange.ts";
import { isIntentPending } from "./intent-link.ts";
import { FOLDER_JOURNAL, readFolderIntent } from "./missing-folder.ts";
import { RESTORE_JOURNAL, RESTORE_STEPS, RestoreJournal } from "./restore-journal.ts";
import { readSealIntent, SEAL_JOURNAL } from "./seal-point.ts";

/** What may be under way in a workspace, as its journal directory says. */
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

/** True when something in a journal directory was interrupted; cheap. */
export function isAnyJournalThere(directory: string): boolean {
  return JOURNALS.some(({ files: [first] }) => isIntentPending(directory, first));
}
