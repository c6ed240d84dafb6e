import { restoreBackupInPlace } from "../../backup/restore/restore-in-place.ts";
import type { LookOptions, RestoreInPlaceOptions, RestoreInPlaceResult } from "../../contract/index.ts";
import type { Hand } from "../../keep/hand.ts";
import { requireOwner } from "../../look/sources/operands.ts";

/** Makes the folder equal to a snapshot in the repository of the options or the kept one. */
export async function restoreFromBackup(
  { workspace, backups }: Hand,
  snapshot: string,
  options: RestoreInPlaceOptions & LookOptions,
): Promise<RestoreInPlaceResult> {
  requireOwner();
  return backups(workspace, options, async (access) =>
    restoreBackupInPlace(workspace, access, { ...options, snapshot }),
  );
}
