import { flag, number, object, type Of, oneOf, opt, orNull, rows, strict, text } from "./schema.ts";
import { WorkspaceCallOptions, WorkspaceRef } from "./words.ts";

/** Scheduled work on a folder: what is due, and when it ran. */

export const ScheduledKind = oneOf(["save", "backup", "verify", "restore-check", "prune"]);
const RunError = orNull(object({ code: text(), message: text(), hint: orNull(text()) }));
const repository = () => orNull(text("address of the repository, without a password; null: none is involved"));

export const DueOptions = object({ ...WorkspaceCallOptions.entries });
export type DueOptions = Of<typeof DueOptions>;
export const DueResult = object({
  ran: rows(object({ kind: ScheduledKind, repository: repository(), error: RunError }), "the work that was due"),
  save_point_id: orNull(text("the point that was made; null: nothing was due or had changed")),
  snapshot_id: orNull(text("the snapshot that was made; null: nothing was due or had changed")),
  removed: rows(text(), "snapshots that the kept rules no longer keep"),
  partly: flag("true: the point or the snapshot lacks a part of the folder, or a command after it failed: exit 10"),
});
export type DueResult = Of<typeof DueResult>;

export const ScheduleRow = object({
  kind: ScheduledKind,
  repository: repository(),
  every_ms: number(),
  ran_at: orNull(text("when the last run ended")),
  good_at: orNull(text("when the last good run ended")),
  next_at: text("when the next run is due; a past time: as soon as possible"),
  failing_since: orNull(text("when the first of the runs ended that failed since the last good one")),
  failures: number("failed runs since the last good one"),
  error: RunError,
});
export type ScheduleRow = Of<typeof ScheduleRow>;
export const Schedule = object({
  workspace: WorkspaceRef,
  last_save_at: orNull(text("when the newest point was made, or the folder was last found equal to it")),
  last_backup_at: orNull(text("when the newest backup succeeded, with or without changes")),
  last_verify_at: orNull(text("when a repository of the folder was last verified without finding damage")),
  last_proof_at: orNull(text("when a restored backup was last found equal to what was saved")),
  next_at: orNull(text("when the next work is due; null: nothing is scheduled")),
  runs: rows(ScheduleRow, "scheduled work on the folder"),
  problems: rows(text(), "work that fails or is late, one sentence each"),
});
export type Schedule = Of<typeof Schedule>;

const every = (what: string, name: string, usual: string) =>
  opt(orNull(text(`time between two ${what}, for example 12h or 7d; null or '': as usual, ${usual}`)), {
    flags: `--${name} <time>`,
    text: `time between two ${what}, e.g. 30m, 12h or 7d ('': as usual, ${usual})`,
  });
export const ScheduleEdit = strict(
  {
    save: every("saves", "save", "1h"),
    backup: every("backups", "backup", "1d"),
    verify: every("verifications of the repository", "verify", "never"),
    restoreCheck: every("restores of the newest backup as a test", "restore-check", "never"),
    prune: every("removals of snapshots by the rules of `backup use`", "prune", "1d"),
  },
  "an absent member stays as it is",
);
export type ScheduleEdit = Of<typeof ScheduleEdit>;
