import { receiptsAbout } from "../../backup/restore/receipt.ts";
import { newest, runOf } from "../../keep/schedule.ts";
import { requireOwner } from "../../look/sources/operands.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { readBackupNotes } from "../../workspace/place/backup-notes.ts";
import type { Receipts } from "./receipts.ts";

/** The most receipts that are listed. */
const MOST = 100;
/** The most save points without a proof that are named for a repository. */
const MOST_OWED = 10;

/** Lists this user's receipts about the repositories of a workspace, and the backups that none of them proves. Asks no repository. */
export function receipts(workspace: Workspace): Receipts {
  const { found } = workspace;
  requireOwner();
  const notes = readBackupNotes(found.paths);
  const all = receiptsAbout(new Set(notes.map(({ repository_id: id }) => id)));
  const debt = notes.map(({ repository_id, location, save_point_id, earlier = [], at }) => {
    const own = all.filter(({ body, isOwn }) => body.repository_id === repository_id && isOwn());
    const proven = new Set(own.map(({ body }) => body.save_point_id));
    const backups = [...new Set([save_point_id, ...earlier])];
    const owed = backups.filter((id) => !proven.has(id));
    return {
      repository: location,
      repository_id,
      backups: backups.length,
      unproven: owed.length,
      owed: owed.slice(0, MOST_OWED).map((id) => ({
        save_point_id: id,
        created_at: workspace.readable(id)?.descriptor.created_at ?? null,
      })),
      proven_at: newest(own.map(({ body }) => body.made_at)),
      verified_at: runOf({ kind: "verify", repository: location, workspace: null }).good_at,
      backed_up_at: at,
    };
  });
  const listed = all.slice(0, MOST).map(({ name, file, body: { made_at, repository_id, snapshot_id, target } }) => {
    return { name, file, made_at, repository_id, snapshot_id, target };
  });
  return { receipts: listed, debt };
}
