import type { BackupRetention } from "../contract/looking.ts";
import type { BackupRepository, KeptPlace } from "../contract/repositories.ts";
import type { CreateBackupResult } from "../contract/snapshots.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { toCairnError } from "../errors.ts";
import { retentionOf } from "../formats/records/policy.ts";
import type { ScheduledKind } from "../formats/records/schedule.ts";
import { displayPath } from "../fs/paths/safe-path.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { Opened } from "./hand.ts";
import { ownRecord, requireKept } from "./kept-repository.ts";
import { callIfNews, stateOf } from "./raised.ts";
import { failureOf, readSchedule, recordRun } from "./schedule.ts";

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

/** Returns the probes of backups into the workspace's repository. Throws `refused` if another user set it. */
export function keptProbes({ found }: Workspace): readonly string[] {
  return ownRecord(found.paths)?.probe ?? [];
}

/** Returns `into`, which is refused unless it is the repository of the workspace's former backups. */
export function keptOnly(
  within: Opened["within"],
  { workspaceName }: WorkspaceCallOptions,
  into: BackupRepository | Promise<BackupRepository>,
): Promise<BackupRepository> {
  const checked = Promise.resolve(into).then(async (repository) => {
    await requireKept(await within(workspaceName, async ({ found }) => found), repository.info);
    return repository;
  });
  // A failure may come before the await.
  checked.catch(() => undefined);
  return checked;
}

/**
 * Runs a backup into the workspace's backup repository, records how it ended, and calls `on_failure` if that is news.
 * If that call fails, warns, and a later backup calls again.
 */
export async function recordingEnd<T extends Pick<CreateBackupResult, "incomplete" | "left_out">>(
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

/** Left out by rules, and not because of a failure. */
const BY_RULE: ReadonlySet<string> = new Set(["mounted", "excluded"]);

/** Returns the entries that a backup and its save could not read, for the record. */
export function unreadIn({ incomplete, left_out: leftOut }: Pick<CreateBackupResult, "incomplete" | "left_out">): {
  unread?: string[];
} {
  // A save that finds nothing else new makes no point, so the older point does not name its entries.
  const entries = [...(incomplete?.left_out ?? []), ...leftOut.filter(({ reason }) => !BY_RULE.has(reason))];
  const unread = [...new Set(entries.map(({ path }) => path))].slice(0, 100);
  return unread.length === 0 ? {} : { unread };
}

/** Milliseconds between two backups of a folder, and between two runs of its rules, unless a person set others. */
const DAY_MS = 86_400_000;

/** Returns the workspace's backup repository as a row of a schedule; null if none is kept. Throws `refused` if another user set it. */
export function keptRow({ paths, folder, workspace }: FoundWorkspace): BackupRow | null {
  const kept = ownRecord(paths);
  if (kept === null) return null;
  const { repository, password_file, password_command, age_identity, retention, probe = [], on_failure = null } = kept;
  const { every = {} } = readSchedule({ workspace: workspace.id, repository: null });
  const span = (kind: ScheduledKind, usual = 0): number | null => (every[kind] ?? usual) || null;
  return {
    workspace: displayPath(folder).path,
    repository,
    password_file,
    password_command,
    age_identity,
    probe,
    on_failure,
    keep: retention === null ? null : retentionOf(retention),
    every_ms: span("backup", DAY_MS) ?? DAY_MS,
    verify_every_ms: span("verify"),
    read_all_within_ms: null,
    restore_check_every_ms: span("restore-check"),
    prune_every_ms: retention === null ? null : span("prune", DAY_MS),
  };
}
