import { resolve } from "node:path";
import { checkProbes } from "../backup/open/checks.ts";
import type { KeptRepository, KeptRepositoryEdit } from "../contract/repositories.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { advice, CairnError, either, line, reworded, toCairnError, word } from "../errors.ts";
import type { KeptRepositoryFile } from "../formats/records/kept-repository.ts";
import { retentionOf, storedRetention } from "../formats/records/policy.ts";
import { acquireLock } from "../fs/lock.ts";
import { splitLocation } from "../repository/storage/location.ts";
import { checkRetention } from "../workspace/keep/retention.ts";
import { readKeptRepository, writeKeptRepository } from "../workspace/place/control-directory.ts";
import type { WorkspacePaths } from "../workspace/place/control-layout.ts";
import { ownerBesidesUs, requireNotOthers } from "../workspace/place/owners.ts";
import { lockingOf } from "../workspace/place/registry.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { shellPath, shellQuote } from "../fs/paths/safe-path.ts";
import type { RepositoryInfo } from "../contract/snapshots.ts";
import { checkAlarmSyntax, requireShellSyntax } from "./alarm.ts";
import { runOf } from "./schedule.ts";

/** Returns the workspace's backup repository; null if none is set. Throws `refused` if another user set it. */
export function backupRepository({ found }: Workspace): KeptRepository | null {
  const kept = ownRecord(found.paths);
  if (kept === null) return null;
  const { retention, repository, password_file, password_command, age_identity } = kept;
  const { on_failure = null, probe = [] } = kept;
  const { good_at } = runOf({ kind: "backup", workspace: found.workspace.id, repository });
  const rules = retention === null ? null : retentionOf(retention);
  return { repository, password_file, password_command, age_identity, on_failure, probe, retention: rules, good_at };
}

/**
 * Sets a workspace's backup repository, or changes the given settings of the present one; null: removes it. Throws
 * `usage`, `busy`.
 */
export async function setBackupRepository(
  workspace: Workspace,
  edit: KeptRepositoryEdit | null,
  options: WorkspaceCallOptions,
): Promise<KeptRepository | null> {
  const { control, paths } = workspace.found;
  const changes = edit === null ? null : changesOf(edit);
  if (typeof edit?.onFailure === "string") await checkAlarmSyntax(edit.onFailure);
  for (const probe of edit?.probe ?? []) await requireShellSyntax(probe);
  requireNotOthers(control);
  using _lock = await acquireLock(control.lock, lockingOf("backup use", options));
  if (changes === null) writeKeptRepository(paths, null);
  else {
    const former = changes.repository === undefined ? ownRecord(paths) : formerOf(paths, options);
    if (former === null)
      throw new CairnError("usage", "no repository is kept for this folder yet", {
        hint: advice`name one: ${line("backup use -r REPOSITORY", "setBackupRepository", { repository: word("repository") })}`,
      });
    writeKeptRepository(paths, { repository: "", ...former, ...changes });
  }
  return backupRepository(workspace);
}

/** Reads the record. Refuses another user's, as its files and commands are used with this user's rights. */
export function ownRecord(paths: WorkspacePaths): KeptRepositoryFile | null {
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

/**
 * Notes the id of the workspace's backup repository at its first backup. Throws `refused` if another repository lies at
 * that place, for example one that was made while the disk was not mounted.
 */
export async function requireKept(found: FoundWorkspace, { repository_id }: RepositoryInfo): Promise<void> {
  const isKnown = (kept: KeptRepositoryFile | null): boolean => kept === null || kept.repository_id === repository_id;
  if (isKnown(ownRecord(found.paths))) return;
  using _lock = await acquireLock(found.control.lock, lockingOf("backup", {}));
  const kept = ownRecord(found.paths);
  if (kept === null || isKnown(kept)) return;
  const { repository, repository_id: noted } = kept;
  if (noted === undefined) return writeKeptRepository(found.paths, { ...kept, repository_id });
  const folder = shellPath(found.folder);
  throw new CairnError(
    "refused",
    `${repository} is not the repository of this folder's former backups: its id is ${repository_id.slice(0, 8)}, not ${noted.slice(0, 8)}`,
    {
      hint: advice`see that its disk is mounted; to back up into the new repository: ${line(`backup use ${folder} -r ${shellQuote(repository)}`, "setBackupRepository", { repository })}`,
    },
  );
}

/** Throws an error of opening a kept repository, without the advice to make one: its disk may not be mounted. */
export function failedToOpen(error: unknown): never {
  if (!isAbsent(error)) throw error;
  throw reworded(error, { hint: "check that its disk is mounted, or its server can be reached" });
}

/** True for the error of a place without a repository. */
export function isAbsent(error: unknown): error is CairnError {
  return error instanceof CairnError && error.code === "not_found" && error.details?.["location"] !== undefined;
}

/**
 * Returns the settings that stay when the repository is replaced. A record that is damaged or another user's is
 * replaced whole.
 */
function formerOf(paths: WorkspacePaths, { onWarning }: WorkspaceCallOptions): Omit<KeptRepositoryFile, "repository"> {
  try {
    return ownRecord(paths) ?? NOTHING_KEPT;
  } catch (error) {
    onWarning?.(`the former settings were not kept: ${toCairnError(error).message}`);
    return NOTHING_KEPT;
  }
}

const NOTHING_KEPT: KeptRepositoryFile = {
  repository: "",
  password_file: null,
  password_command: null,
  age_identity: null,
  retention: null,
};

function changesOf(edit: KeptRepositoryEdit): Partial<KeptRepositoryFile> {
  const { repository, passwordFile, passwordCommand, ageIdentity, onFailure, probe, retention } = edit;
  if ((passwordFile ?? null) !== null && (passwordCommand ?? null) !== null)
    throw new CairnError("usage", "a password can come from a file or from a command, not from both");
  const changes: Partial<KeptRepositoryFile> = {};
  if (repository !== undefined) changes.repository = keptLocation(repository);
  if (repository !== undefined) changes.repository_id = undefined;
  if (passwordFile !== undefined) changes.password_file = passwordFile === null ? null : resolve(passwordFile);
  if (passwordCommand !== undefined) changes.password_command = passwordCommand;
  // A password file replaces a command, and the reverse.
  if ((passwordFile ?? null) !== null) changes.password_command = null;
  if ((passwordCommand ?? null) !== null) changes.password_file = null;
  if (ageIdentity !== undefined) changes.age_identity = ageIdentity === null ? null : resolve(ageIdentity);
  if (onFailure !== undefined) changes.on_failure = onFailure;
  if (probe !== undefined) checkProbes((changes.probe = [...(probe ?? [])]));
  if (retention !== undefined && retention !== null) checkRetention(retention);
  if (retention !== undefined) changes.retention = retention === null ? null : storedRetention(retention);
  return changes;
}

/** Returns a location as it is stored: local paths absolute. Throws `usage` if it has a password. */
export function keptLocation(location: string): string {
  const { scheme, rest } = splitLocation(location);
  if (scheme === "local") return resolve(rest);
  if (/\/\/[^/@]*:[^/@]*@/.test(rest))
    throw new CairnError("usage", "the address contains a password, and Cairn stores no passwords", {
      hint: "remove the password from the address, and set RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD in the environment",
    });
  return location;
}
