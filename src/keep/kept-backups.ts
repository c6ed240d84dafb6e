import type { OpenRepository } from "../backup/open/open-repository.ts";
import type { BackupRepository } from "../contract/repositories.ts";
import type { LookOptions } from "../contract/looking.ts";
import { advice, CairnError, line, word } from "../errors.ts";
import type { StorageFactory } from "../repository/storage/location.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { backupRepository, failedToOpen } from "./kept-repository.ts";
import { accessOf, openRepository } from "./opened-repository.ts";
import { passwordOf } from "./tasks.ts";

/**
 * Runs `work` with the repository of the options, else with the one kept for the workspace. Throws `not_found` if none
 * is kept.
 */
export async function withBackups<T>(
  openStorage: StorageFactory,
  workspace: Workspace,
  { repository: given, ...options }: LookOptions,
  work: (access: OpenRepository) => Promise<T>,
): Promise<T> {
  if (given !== undefined) return accessOf("backup:SNAPSHOT", given as BackupRepository).during(options, work);
  const kept = backupRepository(workspace);
  if (kept === null)
    throw new CairnError("not_found", "no repository is kept for this folder, so backup:SNAPSHOT means nothing", {
      hint: advice`name one: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`,
    });
  const password = async (): Promise<Uint8Array> => passwordOf(kept, options.signal);
  const opening = { ...options, repository: kept.repository, password };
  await using open = await openRepository({ openStorage, parts: workspace.parts }, opening).catch(failedToOpen);
  return await accessOf("backup:SNAPSHOT", open).during(options, work);
}
