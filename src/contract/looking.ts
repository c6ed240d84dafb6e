import {
  about,
  count,
  custom,
  flag,
  list,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  rows,
  size,
  some,
  span,
  strict,
  text,
  texts,
} from "./schema.ts";
import {
  Aspect,
  CallOptions,
  Changes,
  DamagedPoint,
  Degradation,
  EngineReason,
  EngineType,
  EntryKind,
  Holder,
  Incomplete,
  ListedEntry,
  NamedPath,
  NotKept,
  PathInput,
  pointId,
  SavePoint,
  throwOnDamage,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";

/** Verbs that look at a workspace and its points, prove them, and remove points. */

// --------------------------------------------------------------------------------- status, diff, show

export const Recovered = object({
  at: text("when it was found; the same for all that one call recovered"),
  operation: text("what was interrupted: `save`, `restore`, `cleanup`, `compaction`, …"),
  outcome: oneOf(["completed", "rolled_back"]),
  detail: text(),
  kept: rows(NamedPath, "left as they are: edited after the interruption, or refused by the file system"),
  incomplete: opt(about(Incomplete, "what an interrupted restore left out")),
});
export type Recovered = Of<typeof Recovered>;

export const StatusResult = object({
  workspace: WorkspaceRef,
  clean: flag(),
  changes: Changes,
  not_kept: NotKept,
  head: orNull(pointId()),
  head_incomplete: orNull(
    about(Incomplete, "what could not be recorded when head was saved; null when head is complete"),
  ),
  missing: rows(pointId(), "points whose content is not there now; they count again once it is back"),
  latest: orNull(pointId()),
  detached: flag("true: the folder stands at an older point than the latest"),
  engine: EngineType,
  engine_reasons: rows(EngineReason),
  degraded: rows(Degradation, "what the engine could not do when `latest` was saved"),
  holders: rows(Holder),
  ignored: rows(NamedPath, "what the ignore rules hide now, at most 100"),
  store: object({ bytes: number(), points: number() }),
  recovered: rows(Recovered, "the last ten, oldest first"),
  last_save_at: orNull(text()),
  watched: flag("true: a daemon answered, and is told of what changes in the folder"),
  last_backup: orNull(
    object({
      at: text("when its snapshot was written"),
      save_point_id: pointId(),
      snapshot_id: text(),
      location: text("of the repository, without a secret"),
      saved_since: number("save points made since that one"),
    }),
  ),
  last_proof_at: orNull(text("when `verify` read `latest` again and found it whole")),
});
export type StatusResult = Of<typeof StatusResult>;

export const DiffEntry = object({
  ...NamedPath.entries,
  change: oneOf(
    ["added", "removed", "modified", "renamed", "not_kept"],
    "`not_kept`: the folder has it, and a rule leaves it out now",
  ),
  kind: EntryKind,
  aspects: rows(Aspect, "what differs; empty for added and removed"),
  from_path: opt(text()),
  from_path_b64: opt(text()),
  size_before: opt(number()),
  size_after: opt(number()),
});
export type DiffEntry = Of<typeof DiffEntry>;
export const DiffOptions = object({ ...WorkspaceCallOptions.entries, paths: opt(some(PathInput, "only these")) });
export type DiffOptions = Of<typeof DiffOptions>;
export const DiffResult = object({
  from: pointId(),
  to: orNull(pointId("null: the folder as it is now")),
  entries: rows(DiffEntry, "in order of their paths' bytes"),
});
export type DiffResult = Of<typeof DiffResult>;

const Row = orNull(texts());
export const DiffDatabaseResult = object({
  ...NamedPath.entries,
  from: pointId(),
  to: orNull(pointId("null: the folder as it is now")),
  schema: rows(
    object({
      type: oneOf(["table", "index", "view", "trigger"]),
      name: text(),
      sql_before: orNull(text()),
      sql_after: orNull(text()),
    }),
    "what is defined otherwise",
  ),
  tables: rows(
    object({
      name: text(),
      key: list(text(), "the columns by which rows are the same row; `rowid` where it has no key"),
      added: number(),
      removed: number(),
      changed: number(),
      rows: rows(object({ before: Row, after: Row }), "the first of each kind, by column as SQL literals"),
      problem: opt(text("why its rows were not compared")),
    }),
    "of both, whose rows differ",
  ),
});
export type DiffDatabaseResult = Of<typeof DiffDatabaseResult>;
export const DiffDatabaseOptions = object({
  ...WorkspaceCallOptions.entries,
  limit: opt(count("rows that are listed of each kind and table, default 10; all are counted")),
});
export type DiffDatabaseOptions = Of<typeof DiffDatabaseOptions>;

export const ShowResult = object({
  ...NamedPath.entries,
  save_point: SavePoint,
  kind: EntryKind,
  entries: rows(ListedEntry, "the children of a directory; of anything else the entry itself"),
});
export type ShowResult = Of<typeof ShowResult>;

// --------------------------------------------------------------------------------------------- history

export const HistoryOptions = object({
  ...CallOptions.entries,
  grep: opt(text("only where message, tag or cause contain the text; case does not matter")),
  tag: opt(text("only points with this tag")),
  since: opt(text("only points of this time or later: `yesterday`, `2 hours ago`, `2026-11-23 14:00`")),
  until: opt(text("only points of this time or earlier")),
  path: opt(about(PathInput, "only points in which this path differs from the point before")),
  all: opt(flag("undo points too")),
});
export type HistoryOptions = Of<typeof HistoryOptions>;
export const HistoryResult = object({
  save_points: rows(SavePoint, "newest first; undo points only with `all`, or where the folder stands at one"),
  undo: orNull(about(SavePoint, "the undo point that `undo` goes back to; null before the first restore")),
  head: orNull(pointId()),
  latest: orNull(pointId()),
  damaged: rows(DamagedPoint),
  truncated: flag("true when the limit left something out"),
});
export type HistoryResult = Of<typeof HistoryResult>;
export const EntryChange = object({
  change: oneOf(["added", "removed", "modified"]),
  kind: EntryKind,
  aspects: rows(Aspect, "what differs, `content` also where it is below a folder; empty for added and removed"),
  size_before: opt(number()),
  size_after: opt(number()),
  back_to: opt(pointId("the point that had it so before, times too: a restore or undo brought it back")),
});
export type EntryChange = Of<typeof EntryChange>;
export const WhyOptions = object({
  ...WorkspaceCallOptions.entries,
  limit: opt(count("at most so many; 0 is all (default)")),
});
export type WhyOptions = Of<typeof WhyOptions>;
export const WhyResult = object({
  ...NamedPath.entries,
  changes: rows(
    object({ save_point: SavePoint, ...EntryChange.entries }),
    "newest first, against the point before; undo points too",
  ),
  damaged: rows(DamagedPoint),
  truncated: flag("true when the limit left something out"),
});
export type WhyResult = Of<typeof WhyResult>;

// ---------------------------------------------------------------------------------------------- verify

export const VerifyProblem = object({
  point: orNull(pointId()),
  path: opt(text()),
  path_b64: opt(text()),
  kind: text(
    "`descriptor`, `store`, `index`, `pack`, `snapshot`, `manifest`, `tree`, `held_tree`, `content`, `digest`, `workspace`",
  ),
  detail: text(),
  hint: text(),
});
export type VerifyProblem = Of<typeof VerifyProblem>;
export const UnverifiedPoint = object(
  { point: pointId(), workspace_name: text(), detail: text(), hint: text() },
  "a point that is not sealed, and could not be sealed for now",
);
export type UnverifiedPoint = Of<typeof UnverifiedPoint>;
export const VerifyOptions = object({
  ...CallOptions.entries,
  deep: opt(flag("also hash each large file as a whole, and read the clones of sealed points")),
  throwOnDamage: throwOnDamage(),
});
export type VerifyOptions = Of<typeof VerifyOptions>;
export const VerifyResult = object({
  checked: object({ points: number(), files: number(), bytes: number() }),
  problems: rows(VerifyProblem, "not empty: exit 6"),
  unverified: rows(UnverifiedPoint, "of `verifyAll`; not empty: exit 10"),
});
export type VerifyResult = Of<typeof VerifyResult>;

// --------------------------------------------------------------------------------------------- cleanup

/** A number, or all that there are. */
export type KeepCount = number | "unlimited";
export const KeepCount = custom<KeepCount>('number | "unlimited"', "a number", () => true, { as: "count or all" });
const keep = (phrase: string) => opt(about(KeepCount, phrase));
export const BackupRetention = strict(
  {
    keepLast: keep("keep this many of the newest; unlimited: all"),
    keepWithin: opt(span("keep all that are younger than this, e.g. 30d, 2w, 1y6m")),
    keepHourly: keep("keep the last of each hour, for this many hours"),
    keepDaily: keep("keep the last of each day, for this many days"),
    keepWeekly: keep("keep the last of each week, for this many weeks"),
    keepMonthly: keep("keep the last of each month, for this many months"),
    keepYearly: keep("keep the last of each year, for this many years"),
    keepWithinHourly: opt(span("keep the last of each hour within this span before the newest")),
    keepWithinDaily: opt(span("keep the last of each day within this span")),
    keepWithinWeekly: opt(span("keep the last of each week within this span")),
    keepWithinMonthly: opt(span("keep the last of each month within this span")),
    keepWithinYearly: opt(span("keep the last of each year within this span")),
    keepTags: opt(list(text(), "keep those that have all of these tags, separated by commas; '': those without tags")),
  },
  "restic's rules; days, weeks, months and years are those of the local time zone",
);
export type BackupRetention = Of<typeof BackupRetention>;
export const Retention = strict({
  ...BackupRetention.entries,
  keepUndo: opt(
    strict(
      { count: opt(number("default 20")), within: opt(span("default 30d")) },
      "undo points; they count for no other rule",
    ),
  ),
  maxBytes: opt(size("drop the oldest until the store is at most so large")),
  maxAge: opt(span("drop what is older")),
});
export type Retention = Of<typeof Retention>;

export const CleanupOptions = object({
  ...WorkspaceCallOptions.entries,
  retention: opt(about(Retention, "default: the policy; without one only undo points are candidates")),
  only: opt(some(text(), "exactly these points instead of rules; a pinned one is `refused`")),
});
export type CleanupOptions = Of<typeof CleanupOptions>;
export const CleanupReason = object({
  save_point_id: pointId(),
  keep: flag(),
  reasons: rows(text(), "the rules that keep it, or what drops it"),
});
export type CleanupReason = Of<typeof CleanupReason>;
export const CleanupPlan = object({
  plan_id: text(),
  created_at: text(),
  protected_save_points: rows(pointId()),
  protected_by_history: number("how many of them are head, latest or kept for undo"),
  candidate_count: number(),
  reclaimable_save_points: rows(pointId()),
  reclaimable_bytes_estimate: number("content that no other point holds"),
  reasons: rows(CleanupReason),
  removals_pending: flag(
    "true: something of points that were removed before is still in the store; running any plan removes it",
  ),
});
export type CleanupPlan = Of<typeof CleanupPlan>;
export const StillHeld = object({
  points: rows(
    object({
      save_point_id: pointId(),
      workspace_name: text(),
      undo: flag("made by a restore or an undo"),
      pinned: flag(),
      files: number("its files with content of what was removed"),
      paths: rows(NamedPath, "a few of them, those that look like credentials and what the removed points had first"),
    }),
    "at most 100, of all workspaces of the control directory",
  ),
  point_count: number("all of them"),
  not_looked_at: rows(pointId(), "points that were not compared: not sealed, damaged or too many; at most 100"),
  not_looked_at_count: number(),
  repositories: rows(
    object({
      location: text(),
      save_point_ids: rows(pointId(), "removed points or points with their content; at most 100"),
    }),
    "into which such points were backed up",
  ),
});
export type StillHeld = Of<typeof StillHeld>;
export const CleanupResult = object({
  removed: rows(pointId()),
  bytes_freed: number("of the store; what a clone took up is known to the file system alone"),
  complete: flag("false: something of points that were asked for by name is left; a warning says why"),
  still_held: orNull(
    about(StillHeld, "what else holds content of points that were asked for by name; null after a cleanup by rules"),
  ),
});
export type CleanupResult = Of<typeof CleanupResult>;

export const PolicyResult = object({
  retention: orNull(about(Retention, "null: never set, everything is kept")),
  quota_bytes: orNull(number("of the control directory; null: none")),
  kept_trees: orNull(number("of how many of the newest sealed points the clone stays; null: 8")),
});
export type PolicyResult = Of<typeof PolicyResult>;
export const PolicyEdit = strict(
  { retention: opt(orNull(Retention)), quotaBytes: opt(orNull(size())), keptTrees: opt(orNull(number("0 to 10 000"))) },
  "an absent member stays as it is, null takes the setting away",
);
export type PolicyEdit = Of<typeof PolicyEdit>;
