import { resolve } from "node:path";
import { checkProbes } from "../../backup/open/checks.ts";
import type { BackupRetention } from "../../contract/looking.ts";
import type { KeptPlace, KeptRepository, KeptRepositoryEdit } from "../../contract/repositories.ts";
import type { CreateBackupResult } from "../../contract/snapshots.ts";
import type { WorkspaceCallOptions } from "../../contract/words.ts";
import { advice, CairnError, either, line, toCairnError, word } from "../../errors.ts";
import type { ScheduledKind } from "../../formats/records/schedule.ts";
import type { KeptRepositoryFile } from "../../formats/records/kept-repository.ts";
import { retentionOf, storedRetention } from "../../formats/records/policy.ts";
import { acquireLock } from "../../fs/lock.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { splitLocation } from "../../repository/storage/location.ts";
import { checkRetention } from "../../workspace/keep/retention.ts";
import { readKeptRepository, writeKeptRepository } from "../../workspace/place/control-directory.ts";
import type { FoundWorkspace } from "../../workspace/place/find-workspace.ts";
import type { WorkspacePaths } from "../../workspace/place/control-layout.ts";
import { ownerBesidesUs, requireNotOthers } from "../../workspace/place/owners.ts";
import { lockingOf } from "../../workspace/place/registry.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { checkAlarmSyntax, requireShellSyntax } from "./alarm.ts";
import { callIfNews, stateOf } from "./raised.ts";
import { failureOf, readSchedule, recordRun, runOf } from "./schedule.ts";
import type { Opened } from "../hand.ts";

/** Backups into one repository, and the care of that repository: a row of the daemon's configuration, or `backup use`. */
export interface BackupRow extends KeptPlace {
  /** The folder; null: all folders that are served. */
  workspace: string | null;
  every_ms: number;
  /** Null: packs are not read on a schedule. */
  verify_every_ms: number | null;
  /** The time within which each pack is read again; null: every verification reads all packs. */
  read_all_within_ms: number | null;
  restore_check_every_ms: number | null;
  /** Commands that ask a copy of each backup, and each copy that is restored for a check. */
  probe: readonly string[];
  /** Rules by which snapshots of these workspaces are forgotten before each prune; null: all stay. */
  keep: BackupRetention | null;
  prune_every_ms: number | null;
  /** Alarm of `backup use`; absent in a row of the configuration. */
  on_failure?: string | null;
}

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

/** Returns the probes of backups into the workspace's repository. Throws as {@link backupRepository} does. */
export function keptProbes({ found }: Workspace): readonly string[] {
  return ownRecord(found.paths)?.probe ?? [];
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

/**
 * Runs a backup into the workspace's backup repository, records how it ended, and calls `on_failure` if that is news.
 * If that call fails, warns, and a later backup calls again.
 */
export async function recordingEnd<T extends Pick<CreateBackupResult, "incomplete">>(
  within: Opened["within"],
  options: WorkspaceCallOptions,
  backUp: () => Promise<T>,
): Promise<T> {
  const found = await within(options.workspaceName, async (workspace) => workspace.found);
  const kept = ownRecord(found.paths);
  if (kept === null) return backUp();
  const { repository } = kept;
  const workspace = { id: found.workspace.id, path: displayPath(found.folder).path };
  const ended = async (how: Parameters<typeof recordRun>[1]): Promise<void> => {
    try {
      const run = await recordRun({ kind: "backup", workspace: workspace.id, repository }, how);
      const job = { what: "backup" as const, workspace, repository, lastSuccessAt: run.good_at, ...stateOf(run) };
      await callIfNews(kept.on_failure ?? null, job, { signal: options.signal, retryMs: 0 });
    } catch (failed) {
      options.onWarning?.(`${toCairnError(failed).message}; a later backup calls the alarm again`);
    }
  };
  let result: T;
  try {
    result = await backUp();
  } catch (error) {
    if (options.signal?.aborted !== true && toCairnError(error).code !== "interrupted") await ended(failureOf(error));
    throw error;
  }
  await ended({ error: null, ...unreadIn(result) });
  return result;
}

/** Returns the entries that a backup could not read, for the record. */
export function unreadIn({ incomplete }: Pick<CreateBackupResult, "incomplete">): { unread?: string[] } {
  return incomplete === null ? {} : { unread: incomplete.left_out.map(({ path }) => path) };
}

/** Milliseconds between two backups of a folder, and between two runs of its rules, unless a person set others. */
const DAY_MS = 86_400_000;

/** Returns the workspace's backup repository as a row of a schedule; null if none is kept. Throws as {@link backupRepository} does. */
export function keptRow({ paths, folder, workspace }: FoundWorkspace): BackupRow | null {
  const kept = ownRecord(paths);
  if (kept === null) return null;
  const { repository, password_file, password_command, age_identity, retention, probe = [], on_failure = null } = kept;
  const { every = {} } = readSchedule({ workspace: workspace.id, repository: null });
  const span = (kind: ScheduledKind, usual = 0): number | null => (every[kind] ?? usual) || null;
  return {
    workspace: displayPath(folder).path,
    ...{ repository, password_file, password_command, age_identity, probe, on_failure },
    keep: retention === null ? null : retentionOf(retention),
    every_ms: span("backup", DAY_MS) ?? DAY_MS,
    verify_every_ms: span("verify"),
    read_all_within_ms: null,
    restore_check_every_ms: span("restore-check"),
    prune_every_ms: retention === null ? null : span("prune", DAY_MS),
  };
}

/** Reads the record. Refuses another user's, as its files and commands are used with this user's rights. */
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
