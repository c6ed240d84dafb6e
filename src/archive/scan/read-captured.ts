import fs from "node:fs";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { ENOENT, faultOfEntry } from "../../fs/linux/errno.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { arenaOver } from "../../native.ts";
import { RECORD_WORDS } from "../cache/scan-table.ts";
import { type HeldDatabase, recordOf, type Sidecar } from "./databases.ts";
import { EntryReader } from "./read-entry.ts";
import { isGone, type ScanThread } from "./scan-thread.ts";
import { MOVED_REASON, type NotedDatabase } from "./task.ts";

/** A noted database and the files to read for it; `held` is null if it is no database any more. */
export interface CapturedDatabase extends NotedDatabase {
  held: Pick<HeldDatabase, "image" | "sidecars"> | null;
}

/** Reads a database and its log files again into their records: from an image, or from its own file while the file is held. */
export function readCaptured(thread: ScanThread, { directory, name, held }: CapturedDatabase): void {
  const { sys, stat, table } = thread;
  const dirfd = thread.openDirectory(directory);
  if (dirfd < 0) return lose(thread, { directory, name }, dirfd);
  const reader = new EntryReader(thread);
  const names = arenaOver(table.names);
  try {
    for (const ending of ["", ...LOGS] as const) {
      const record = recordOf(table, directory, beside(name, ending));
      if (record < 0) continue;
      const at = table.records[record * RECORD_WORDS]!;
      const content = contentOf(held, ending);
      try {
        const result = sys.stat(dirfd, names, at, stat);
        // A log or journal without a name was removed at the end of its transaction.
        if (result < 0) {
          table.noRecord(record);
          if (result !== ENOENT)
            thread.noteOmitted(thread.entryPath(directory, beside(name, ending)), faultOfEntry(result));
        } else {
          table.touched[record] = 1;
          // Marks a database with a log as live in this tree's record, even if its files have not changed.
          const isLive =
            held?.image === null ? ending === "" && held.sidecars.length > 0 : ending === "" || content !== "empty";
          reader.read({ dirfd, names, name: at, record, directory, oldRecord: -1, content, isLive });
        }
      } finally {
        if (typeof content === "number") fs.closeSync(content);
      }
    }
  } finally {
    sys.close(dirfd);
  }
}

/** Takes a database out of the state whose directory cannot be opened any more: its content may be unread. */
function lose(thread: ScanThread, { directory, name }: NotedDatabase, result: number): void {
  const { table } = thread;
  for (const ending of ["", ...LOGS]) {
    const record = recordOf(table, directory, beside(name, ending));
    if (record >= 0) table.noRecord(record);
  }
  if (isGone(result)) thread.noteTorn(table.directoryPath(directory), MOVED_REASON);
  else thread.noteOmitted(thread.entryPath(directory, name), faultOfEntry(result));
}

function contentOf(held: CapturedDatabase["held"], ending: "" | Sidecar): number | "empty" | undefined {
  if (held === null) return undefined;
  const { image, sidecars } = held;
  if (ending !== "" && !sidecars.includes(ending)) return "empty";
  return image === null ? undefined : openRegular(`${image}${ending}`);
}
