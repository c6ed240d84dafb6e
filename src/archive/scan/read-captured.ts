import fs from "node:fs";
import { compareBytes } from "../../formats/bytes.ts";
import { beside, LOGS } from "../../formats/sqlite-header.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { arenaOver } from "../../native.ts";
import { D, DIRECTORY_WORDS, R, RECORD_WORDS } from "../cache/scan-table.ts";
import type { HeldDatabase, Sidecar } from "./databases.ts";
import { EntryReader } from "./read-entry.ts";
import type { ScanThread } from "./scan-thread.ts";

/** A noted database and the files to read for it; `held` is null if it is no database any more. */
export interface CapturedDatabase {
  directory: number;
  name: Uint8Array;
  held: Pick<HeldDatabase, "image" | "sidecars"> | null;
}

/** Reads a database and its log files again into their records: from an image, or from its own file while the file is held. */
export function readCaptured(thread: ScanThread, { directory, name, held }: CapturedDatabase): void {
  const { sys, stat, table } = thread;
  const dirfd = thread.openDirectory(directory);
  if (dirfd < 0) return;
  const reader = new EntryReader(thread);
  const names = arenaOver(table.names);
  try {
    for (const ending of ["", ...LOGS] as const) {
      const record = recordOf(thread, directory, beside(name, ending));
      if (record < 0) continue;
      const at = table.records[record * RECORD_WORDS]!;
      const content = contentOf(held, ending);
      try {
        // A log or journal without a name was removed at the end of its transaction.
        if (sys.stat(dirfd, names, at, stat) < 0) table.noRecord(record);
        else {
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

function contentOf(held: CapturedDatabase["held"], ending: "" | Sidecar): number | "empty" | undefined {
  if (held === null) return undefined;
  const { image, sidecars } = held;
  if (ending !== "" && !sidecars.includes(ending)) return "empty";
  return image === null ? undefined : openRegular(`${image}${ending}`);
}

/** The record of a name in a directory; -1 if there is none. */
function recordOf({ table }: ScanThread, directory: number, name: Uint8Array): number {
  const base = directory * DIRECTORY_WORDS;
  const first = table.directories[base + D.FIRST]!;
  for (let record = first; record < first + table.directories[base + D.COUNT]!; record++)
    if (table.records[record * RECORD_WORDS + R.MODE] !== 0 && compareBytes(table.recordName(record), name) === 0)
      return record;
  return -1;
}
