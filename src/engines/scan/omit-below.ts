import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, type ScanTable } from "../../fs/scan-table.ts";

/**
 * Takes what lies below directories that could not be read to their end out of the state, too: others may have read it
 * before somebody renamed the directory.
 */
export function omitBelow(table: ScanTable): void {
  // A directory's number is above its parent's.
  for (let directory = 1; directory < table.control[C.DIRECTORIES]!; directory++) {
    const parent = table.directories[directory * DIRECTORY_WORDS + D.PARENT]!;
    if (table.directories[parent * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.OMITTED)
      table.addDirectoryFlag(directory, DIRECTORY_FLAG.OMITTED);
  }
}
