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
  pick,
  rows,
  size,
  some,
  span,
  strict,
  text,
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
  RowsCheck,
  SavePoint,
  shownPlan,
  throwOnDamage,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";

/** Verbs that look at a workspace and its points, prove them, and remove points. */

/** Options of verbs that take any state of a folder. */
export const LookOptions = object({
  ...WorkspaceCallOptions.entries,
  repository: opt(
    custom<object>("object", "an object", (value) => typeof value === "object" && value !== null, {
      about: "an open repository for `backup:SNAPSHOT`; default: the one kept for the workspace, opened for the call",
      as: "open",
    }),
  ),
});
export type LookOptions = Of<typeof LookOptions>;

// --------------------------------------------------------------------------------- status, diff, show

export const Recovered = object({
  at: text("when the interruption was found; equal for all records of one recovery"),
  operation: text("the interrupted operation: `save`, `restore`, `cleanup`, `compaction`, …"),
  outcome: oneOf(["completed", "rolled_back"]),
  detail: text(),
  kept: rows(NamedPath, "paths left as they are: edited after the interruption, or refused by the file system"),
  incomplete: opt(about(Incomplete, "entries that an interrupted restore left out")),
});
export type Recovered = Of<typeof Recovered>;

export const StatusResult = object({
  workspace: WorkspaceRef,
  clean: flag(),
  changes: Changes,
  not_kept: NotKept,
  head: orNull(pointId()),
  head_incomplete: orNull(
    about(Incomplete, "entries that could not be recorded when head was saved; null if head is complete"),
  ),
  missing: rows(pointId(), "points whose content is missing now; they are usable again once the content is back"),
  latest: orNull(pointId()),
  detached: flag("true: the folder is based on an older point than the latest"),
  engine: EngineType,
  engine_reasons: rows(EngineReason),
  degraded: rows(Degradation, "features that the engine could not provide when `latest` was saved"),
  holders: orNull(
    rows(Holder, "processes that have files of the folder open for writing; null without the option `holders`"),
  ),
  ignored: rows(NamedPath, "paths that the ignore rules leave out now, at most 100"),
  store: object({ bytes: number(), points: number() }),
  recovered: rows(Recovered, "the last ten, oldest first"),
  last_save_at: orNull(text()),
  watched: flag("true: a daemon answered, and it watches the folder for changes"),
  last_backup: orNull(
    object({
      at: text("when the snapshot was written"),
      save_point_id: pointId(),
      snapshot_id: text(),
      location: text("the repository's address, without secrets"),
      saved_since: number("save points made since then"),
    }),
  ),
  last_proof_at: orNull(text("when `verify` last read `latest` again without finding a problem")),
});
export type StatusResult = Of<typeof StatusResult>;
export const StatusOptions = object({
  ...WorkspaceCallOptions.entries,
  holders: opt(flag("also list processes that have files of the folder open for writing; reads all of `/proc`")),
});
export type StatusOptions = Of<typeof StatusOptions>;

export const AgentEvent = object(
  {
    at: text("when the folder had been saved, or the save had failed, RFC 3339"),
    agent: text(),
    event: text("the tool's own word, for example `UserPromptSubmit`"),
    session: orNull(text()),
    turn: orNull(text("null if the tool has no turn ids, as Gemini CLI")),
    tool: orNull(text()),
    call: orNull(text("the tool's own id of the call, which its end has too")),
    prompt: orNull(text("the prompt, at most its first 64 KiB")),
    command: orNull(text("first line of the shell command")),
    no_text: opt(text("why the prompt or command is missing, although the tool passed it")),
    before: orNull(pointId("head before the save; null: none, or unknown")),
    save_point_id: orNull(
      pointId(
        "the new point, or head if nothing had changed; null: the save failed, or the event is a removal of the hooks",
      ),
    ),
    made: flag(),
    failed: orNull(text("why the folder could not be saved")),
    asked_at: orNull(
      text(
        "when the hook was called, if it returned before the folder was read: the point may hold later states of some files",
      ),
    ),
    called_at: opt(text("when the process of the hook started")),
    returned_at: opt(text("when the hook returned, if it was before the folder was read")),
    each: opt(oneOf(["tool", "turn"], "the beginning of a turn: if the installed hooks tell of tool calls")),
    duration_ms: opt(number("the end of a call: how long the tool says that it ran")),
    background: opt(text("a call whose command runs on in the background: its own id, or empty")),
    denied: opt(rows(text(), "ids of calls that did not run, because they were denied")),
    tasks: opt(rows(text(), "the end of a turn: ids of the background commands that run on")),
    notified: opt(text("a prompt by which the tool tells itself of the end of a background command: its call or id")),
  },
  "one call of an agent's hook, with the state of the folder at that time",
);
export type AgentEvent = Of<typeof AgentEvent>;
export const FailedHooks = object(
  {
    count: number(),
    since: text("when the first of them failed, RFC 3339"),
    last_at: text("when the last of them failed"),
    reason: text("first line of why the last of them failed"),
    over: flag("true: a later hook saved the folder"),
  },
  "hooks that could not save the folder, since the last one that could or within a day",
);
export type FailedHooks = Of<typeof FailedHooks>;
export const AgentHooks = object({
  agent: text(),
  last_hook: orNull(AgentEvent),
  last_point: orNull(AgentEvent),
  checked_at: orNull(text("when `agent install` last ran a hook as a check")),
  failed: orNull(FailedHooks),
});
export type AgentHooks = Of<typeof AgentHooks>;

export const DiffEntry = object({
  ...NamedPath.entries,
  change: oneOf(
    ["added", "removed", "modified", "renamed", "not_kept"],
    "`not_kept`: the entry is in the folder, but an ignore rule now leaves it out",
  ),
  kind: EntryKind,
  aspects: rows(Aspect, "aspects that differ; empty for added and removed"),
  from_path: opt(text()),
  from_path_b64: opt(text()),
  size_before: opt(number()),
  size_after: opt(number()),
});
export type DiffEntry = Of<typeof DiffEntry>;
export const DiffOptions = object({
  ...LookOptions.entries,
  paths: opt(some(PathInput, "only these paths"), { flags: "--path <path>", text: "only this path" }),
});
export type DiffOptions = Of<typeof DiffOptions>;
export const OTHER_STATE = "a point; for another state its operand with whole ids, such as `backup:ID:PATH`";
export const DiffResult = object({
  from: pointId(OTHER_STATE),
  to: orNull(pointId(`${OTHER_STATE}; null: the current folder`)),
  entries: rows(DiffEntry, "sorted by the bytes of their paths"),
});
export type DiffResult = Of<typeof DiffResult>;

export const ShowOptions = object({
  ...WorkspaceCallOptions.entries,
  limit: opt(count("list at most this many entries; 0: all (default)"), "-n, --limit <count>"),
  skip: opt(count("leave out this many of the first entries")),
  sort: opt(
    oneOf(
      ["name", "size", "time", "kind"],
      "order of the entries: `name` by the bytes of the names (default), `kind` directories first; names decide between equal entries",
    ),
  ),
  reverse: opt(flag("sort in the opposite order")),
});
export type ShowOptions = Of<typeof ShowOptions>;
export const ShowResult = object({
  ...NamedPath.entries,
  save_point: SavePoint,
  kind: EntryKind,
  entries: rows(ListedEntry, "the children of a directory, or the entry itself if it is no directory"),
  total: number("number of entries without `limit` and `skip`"),
});
export type ShowResult = Of<typeof ShowResult>;
export const ReadOptions = object({
  ...LookOptions.entries,
  offset: opt(count("leave out this many bytes at the beginning of the file")),
  length: opt(count("read at most this many bytes")),
  archive: opt(
    oneOf(
      ["tar", "zip"],
      "give an archive of the entry, for a folder with everything below it, instead of a file's bytes: `tar` in pax format, or `zip`",
    ),
    "--archive <format>",
  ),
  paths: opt(
    some(PathInput, "with `archive`: these entries, by their paths from the workspace's root; the path is empty then"),
  ),
});
export type ReadOptions = Of<typeof ReadOptions>;

// --------------------------------------------------------------------------------------------- history

export const HistoryOptions = object({
  ...CallOptions.entries,
  grep: opt(text("only points whose message, tags or cause contain this text (case is ignored)")),
  tag: opt(text("only points with this tag"), "--tag <tag>"),
  since: opt(
    text("only points of this time or later, for example `yesterday`, `2 hours ago`, `2026-11-23 14:00`"),
    "--since <time>",
  ),
  until: opt(text("only points of this time or earlier"), "--until <time>"),
  path: opt(about(PathInput, "only points that changed this path")),
  all: opt(flag("include undo points"), { text: "include undo points, and each save that changed nothing" }),
  skip: opt(count("leave out this many of the newest points that the other options list")),
  changes: opt(flag("also count what each point changed compared with the point that it was based on")),
});
export type HistoryOptions = Of<typeof HistoryOptions>;
export const HistoryResult = object({
  save_points: rows(SavePoint, "newest first; undo points only with `all`, or if the folder is based on one"),
  undo: orNull(about(SavePoint, "the undo point of the last operation; null before the first restore")),
  undo_by: opt(oneOf(["undo", "redo"], "the verb that goes back to `undo`")),
  head: orNull(pointId()),
  head_in_part: opt(flag("true if a part of the folder was restored to another state since `head`, and is still so")),
  latest: orNull(pointId()),
  damaged: rows(DamagedPoint),
  truncated: flag("true if the limit left points out"),
  total: opt(number("number of points that these options list without `limit` and `skip`; absent if a filter is set")),
  changes: opt(
    rows(
      orNull(about(Changes, "null if either point is not sealed or cannot be read")),
      "with `changes`: one for each of `save_points`, in the same order",
    ),
  ),
});
export type HistoryResult = Of<typeof HistoryResult>;
export const HistoryDaysOptions = object({ ...WorkspaceCallOptions.entries, ...pick(HistoryOptions, "all") });
export type HistoryDaysOptions = Of<typeof HistoryDaysOptions>;
export const HistoryDaysResult = object({
  days: rows(
    object({
      day: text("in the local time zone, for example `2026-11-26`"),
      points: number(),
      newest: pointId("the newest point of the day"),
      bytes: orNull(number("total size of the files in the newest point; null: not sealed, or unreadable")),
    }),
    "days that have points, newest first",
  ),
  total: number("points of all days"),
  copies_bytes: number(
    "about the size of all points if each were a copy of the folder: each counts as the newest point of its day",
  ),
});
export type HistoryDaysResult = Of<typeof HistoryDaysResult>;
export const EntryChange = object({
  change: oneOf(["added", "removed", "modified"]),
  kind: EntryKind,
  aspects: rows(
    Aspect,
    "aspects that differ; for a folder `content` if anything below it differs; empty for added and removed",
  ),
  size_before: opt(number()),
  size_after: opt(number()),
  back_to: opt(pointId("the earlier point that had the same state, times included: a restore or undo brought it back")),
});
export type EntryChange = Of<typeof EntryChange>;

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
  "a point that is not sealed, and could not be sealed at present",
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
  unverified: rows(UnverifiedPoint, "only from `verifyAll`; not empty: exit 10"),
  rows: rows(RowsCheck, "not from `verifyAll`: files that rows name, if the point was saved with `rows`"),
});
export type VerifyResult = Of<typeof VerifyResult>;

// --------------------------------------------------------------------------------------------- cleanup

/** A number, or all. */
export type KeepCount = number | "unlimited";
export const KeepCount = custom<KeepCount>('number | "unlimited"', "a number", () => true, { as: "count or all" });
const keep = (phrase: string) => opt(about(KeepCount, phrase));
export const BackupRetention = strict(
  {
    keepLast: keep("keep this many of the newest; unlimited: all"),
    keepWithin: opt(span("keep everything younger than this, e.g. 30d, 2w, 1y6m")),
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
    keepTags: opt(
      list(text(), "keep everything with all of these tags, separated by commas; '': everything without tags"),
      "--keep-tag <tag>",
    ),
  },
  "restic's rules; days, weeks, months and years are counted in the local time zone",
);
export type BackupRetention = Of<typeof BackupRetention>;
export const Retention = strict({
  ...BackupRetention.entries,
  keepUndo: opt(
    strict(
      {
        count: opt(count("keep this many of the newest undo points (saved before each restore or undo); default 20")),
        within: opt(span("also keep the undo points younger than this; default 30d")),
      },
      "for undo points; no other rule applies to them",
    ),
  ),
  maxBytes: opt(
    size(
      "remove the oldest points until the store is at most this large (500M, 20GiB), even if another rule would keep them; points that a tag keeps, pinned points, undo points and points of the last day stay",
    ),
    "--max-size <size>",
  ),
  maxAge: opt(
    span(
      "remove points older than this, even if another rule would keep them; points that a tag keeps and pinned points stay",
    ),
  ),
});
export type Retention = Of<typeof Retention>;

export const CleanupOptions = object({
  ...WorkspaceCallOptions.entries,
  retention: opt(about(Retention, "default: the policy; without a policy only undo points are removed")),
  only: opt(some(text(), "remove exactly these points, instead of applying rules; a pinned point is `refused`")),
  force: opt(flag("also remove named points that are pinned")),
});
export type CleanupOptions = Of<typeof CleanupOptions>;
export const RunCleanupOptions = object({ ...CleanupOptions.entries, plan: shownPlan() });
export type RunCleanupOptions = Of<typeof RunCleanupOptions>;
export const CleanupReason = object({
  save_point_id: pointId(),
  keep: flag(),
  reasons: rows(text(), "the rules that keep the point, or the reason for its removal"),
});
export type CleanupReason = Of<typeof CleanupReason>;
export const CleanupPlan = object({
  id: text("the plan's id, for `plan` of `runCleanup` with the same options: removes exactly these points, or nothing"),
  plan_id: text("the same as `id`, its older name"),
  created_at: text(),
  protected_save_points: rows(pointId()),
  protected_by_history: number("how many protected points are head, latest or kept for undo"),
  candidate_count: number(),
  reclaimable_save_points: rows(pointId()),
  reclaimable_bytes_estimate: number("size of content that no other point holds"),
  reasons: rows(CleanupReason),
  removals_pending: flag("true: the store still holds data of points removed earlier; any cleanup removes it"),
});
export type CleanupPlan = Of<typeof CleanupPlan>;
export const POINT_FACTS = {
  save_point_id: pointId(),
  workspace_name: text(),
  undo: flag("made by a restore or an undo"),
  pinned: flag(),
};
export const StillHeld = object({
  points: rows(
    object({
      ...POINT_FACTS,
      files: number("files of this point that share content with the removed points"),
      paths: rows(
        NamedPath,
        "a few of these files, first those that look like credentials and the removed points' own files",
      ),
    }),
    "at most 100, of all workspaces of the control directory",
  ),
  point_count: number("number of all such points"),
  not_looked_at: rows(
    pointId(),
    "points that were not compared, because they are not sealed, damaged or too many; at most 100",
  ),
  not_looked_at_count: number(),
  repositories: rows(
    object({
      location: text(),
      save_point_ids: rows(pointId(), "removed points or points with their content; at most 100"),
    }),
    "repositories that hold backups of such points",
  ),
});
export type StillHeld = Of<typeof StillHeld>;
export const CleanupResult = object({
  removed: rows(pointId()),
  bytes_freed: number("bytes freed in the store; only the file system knows the size of removed clones"),
  complete: flag("false: data of points that were removed by name remains; a warning says why"),
  still_held: orNull(
    about(
      StillHeld,
      "other places that still hold content of points that were removed by name; null after a cleanup by rules",
    ),
  ),
});
export type CleanupResult = Of<typeof CleanupResult>;

export const PolicyResult = object({
  retention: orNull(about(Retention, "null: never set; everything is kept")),
  quota_bytes: orNull(number("quota of the control directory; null: none")),
  kept_trees: orNull(number("for how many of the newest sealed points the clone is kept; null: 8")),
});
export type PolicyResult = Of<typeof PolicyResult>;
export const PolicyEdit = strict(
  {
    retention: opt(orNull(Retention)),
    quotaBytes: opt(orNull(size("size to which saves may grow the store")), "--quota <size>"),
    keptTrees: opt(
      orNull(
        number(
          "for how many of the newest sealed points to keep the clone, so that a restore can swap the whole folder at once: 0 to 10 000; default 8",
        ),
      ),
      "--keep-trees <count>",
    ),
  },
  "an absent member stays as it is; null removes the setting",
);
export type PolicyEdit = Of<typeof PolicyEdit>;
