import { flag, number, object, type Of, oneOf, opt, orNull, rows, span, strict, text } from "./schema.ts";
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
export const Schedule = object({ workspace: WorkspaceRef, runs: rows(ScheduleRow, "scheduled work on the folder") });
export type Schedule = Of<typeof Schedule>;

const every = (what: string) => opt(orNull(span(`time between two ${what}; null: as usual`)));
export const ScheduleEdit = strict(
  {
    save: every("saves; usual: 1h"),
    backup: every("backups; usual: 1d"),
    verify: every("verifications of the repository; usual: never"),
    restoreCheck: every("restores of the newest backup to a temporary place; usual: never"),
    prune: every("removals of snapshots by the rules of `backup use`; usual: 1d"),
  },
  "an absent member stays as it is",
);
export type ScheduleEdit = Of<typeof ScheduleEdit>;
