import { resolve } from "node:path";
import type { KeptRepository, KeptRepositoryEdit } from "../contract/repositories.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { advice, CairnError, either, line, word } from "../errors.ts";
import type { KeptRepositoryFile } from "../formats/records/kept-repository.ts";
import { retentionOf, storedRetention } from "../formats/records/policy.ts";
import { acquireLock } from "../fs/lock.ts";
import { splitLocation } from "../repository/storage/location.ts";
import { checkRetention } from "../workspace/keep/retention.ts";
import { readKeptRepository, writeKeptRepository } from "../workspace/place/control-directory.ts";
import type { WorkspacePaths } from "../workspace/place/control-layout.ts";
import { ownerBesidesUs, warnRoot } from "../workspace/place/owners.ts";
import { lockingOf } from "../workspace/place/registry.ts";
import type { Workspace } from "../workspace/open/workspace.ts";

/** The repository that was kept for a workspace; null where none is. Throws `refused` where another user kept it. */
export function backupRepository({ found }: Workspace): KeptRepository | null {
  const kept = ownRecord(found.paths);
  if (kept === null) return null;
  const { retention, repository, password_file, password_command, age_identity } = kept;
  const rules = retention === null ? null : retentionOf(retention);
  return { repository, password_file, password_command, age_identity, retention: rules };
}

/** Keeps another repository, or what an edit changes of the one that is kept; null keeps none. Throws `usage`, `busy`. */
export async function setBackupRepository(
  workspace: Workspace,
  edit: KeptRepositoryEdit | null,
  options: WorkspaceCallOptions,
): Promise<KeptRepository | null> {
  const { control, paths } = workspace.found;
  const changes = edit === null ? null : changesOf(edit);
  warnRoot(control, options.onWarning);
  using _lock = await acquireLock(control.lock, lockingOf("backup use", options));
  if (changes === null) writeKeptRepository(paths, null);
  else {
    // Nothing of the former goes on, so it may be damaged or another user's.
    const former = changes.repository === undefined ? ownRecord(paths) : NOTHING_KEPT;
    if (former === null)
      throw new CairnError("usage", "no repository is kept for this folder yet", {
        hint: advice`name one: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`,
      });
    writeKeptRepository(paths, { ...former, ...changes });
  }
  return backupRepository(workspace);
}

/** Reads the record, whose files and commands are read and run with this user's rights. */
function ownRecord(paths: WorkspacePaths): KeptRepositoryFile | null {
  const owner = ownerBesidesUs(paths.repository);
  if (owner === null) return readKeptRepository(paths);
  throw new CairnError(
    "refused",
    `the repository of this folder was recorded by the user ${owner}, in ${paths.repository}`,
    {
      hint: advice`${either("name one with -r", "open one that is named")}, or keep one of your own: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`,
    },
  );
}

const NOTHING_KEPT: KeptRepositoryFile = {
  repository: "",
  password_file: null,
  password_command: null,
  age_identity: null,
  retention: null,
};

function changesOf(edit: KeptRepositoryEdit): Partial<KeptRepositoryFile> {
  const { repository, passwordFile, passwordCommand, ageIdentity, retention } = edit;
  if ((passwordFile ?? null) !== null && (passwordCommand ?? null) !== null)
    throw new CairnError("usage", "a password can come from a file or from a command, not from both");
  const changes: Partial<KeptRepositoryFile> = {};
  if (repository !== undefined) changes.repository = keptLocation(repository);
  if (passwordFile !== undefined) changes.password_file = passwordFile === null ? null : resolve(passwordFile);
  if (passwordCommand !== undefined) changes.password_command = passwordCommand;
  // The one takes the place of the other.
  if ((passwordFile ?? null) !== null) changes.password_command = null;
  if ((passwordCommand ?? null) !== null) changes.password_file = null;
  if (ageIdentity !== undefined) changes.age_identity = ageIdentity === null ? null : resolve(ageIdentity);
  if (retention !== undefined && retention !== null) checkRetention(retention);
  if (retention !== undefined) changes.retention = retention === null ? null : storedRetention(retention);
  return changes;
}

/** A location as it is kept: local ones absolute. Throws `usage` for one with a password in it. */
export function keptLocation(location: string): string {
  const { scheme, rest } = splitLocation(location);
  if (scheme === "local") return resolve(rest);
  if (/\/\/[^/@]*:[^/@]*@/.test(rest))
    throw new CairnError("usage", "the address contains a password, and Cairn stores no passwords", {
      hint: "remove the password from the address, and set RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in the environment",
    });
  return location;
}
