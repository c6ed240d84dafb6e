import { renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type BackupNote, decodeBackups, encodeBackups } from "../../formats/records/backups-file.ts";
import { readSmallFile, temporaryName } from "../../fs/durable.ts";
import type { WorkspacePaths } from "./control-layout.ts";

/**
 * The last backups of a workspace, for information only: the repository itself decides. So the file is written without
 * a lock and without a sync, and an unreadable file counts as empty.
 */

const MAX_BYTES = 4 << 20;
const MOST = 64;
const MOST_EARLIER = 1000;

/** The notes, newest first; empty if the file is unreadable. */
export function readBackupNotes(paths: WorkspacePaths): BackupNote[] {
  try {
    const bytes = readSmallFile(paths.backups, MAX_BYTES);
    return bytes === null ? [] : decodeBackups(bytes).backups;
  } catch {
    return [];
  }
}

/** Notes the newest backup into a repository. A failed write does not affect the backup. */
export function noteBackup(paths: WorkspacePaths, note: BackupNote): void {
  const known = readBackupNotes(paths);
  const others = known.filter(({ repository_id: id }) => id !== note.repository_id);
  const before = known.find(({ repository_id: id }) => id === note.repository_id);
  const sent = before === undefined ? [] : [before.save_point_id, ...(before.earlier ?? [])];
  const earlier = sent.filter((id) => id !== note.save_point_id).slice(0, MOST_EARLIER);
  const temporary = join(dirname(paths.backups), temporaryName());
  try {
    writeFileSync(temporary, encodeBackups({ backups: [{ ...note, earlier }, ...others].slice(0, MOST) }), {
      mode: 0o600,
    });
    renameSync(temporary, paths.backups);
  } catch {
    rmSync(temporary, { force: true });
  }
}
