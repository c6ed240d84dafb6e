import { type ErrorCode, ERROR_TABLE } from "../errors.ts";
import { DiffEntry } from "./looking.ts";
import {
  about,
  callback,
  count,
  custom,
  flag,
  list,
  message,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  pick,
  place,
  record,
  rows,
  size,
  some,
  storedCommand,
  text,
} from "./schema.ts";
import {
  allow,
  Cause,
  Changes,
  EntryKind,
  Holder,
  hookRuns,
  LeftOut,
  LeftOutReason,
  NamedPath,
  NotKept,
  PathInput,
  pointId,
  RowsCheck,
  runsHooks,
  SavePoint,
  shownPlan,
  target,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";

/** Verbs that make points, go back to them and mark them. A target is an id, a unique prefix, `latest`, `head`, `head~N` or a time. */

const left = () => rows(LeftOut, "entries that were left out; not empty: exit 10");
const duration = () => number("milliseconds");

// ------------------------------------------------------------------------------------------------- save

export const SaveOptions = object({
  ...WorkspaceCallOptions.entries,
  message: opt(message("description of this state"), "-m, --message <text>"),
  tags: opt(list(text(), "a tag"), "-t, --tag <tag>"),
  id: opt(text("your own id for the point: a word that no other point of the workspace has as id or tag"), "--id <id>"),
  cause: opt(
    about(
      Cause,
      'what led to the point, for example {"kind":"tool_call","tool":"bash"}; default {"kind":"person"} for the command and a daemon, {"kind":"program"} for the library',
    ),
    "--cause <json>",
  ),
  onDetached: opt(
    oneOf(
      ["continue", "refuse"],
      "`refuse`: fail with `detached` if the folder is based on an older point than the latest",
    ),
    {
      flags: "--refuse-detached",
      text: "fail if you have gone back to an older point and not saved since",
      value: "refuse",
    },
  ),
  skipUnchanged: opt(flag("if nothing changed, make no point and report head instead")),
  reread: opt(flag("read every file, even if its size and times are unchanged")),
  exclude: opt(
    list(text(), "leave out paths that match this pattern, as in .cairnignore, or this whole path"),
    "--exclude <pattern>",
  ),
  excludeCaches: opt(flag("leave out the content of folders that have a CACHEDIR.TAG file")),
  excludeIfPresent: opt(
    list(
      text(),
      "leave out the content of folders that contain NAME, except NAME itself; with :HEADER only if that file begins with HEADER",
    ),
    "--exclude-if-present <name[:header]>",
  ),
  excludeLargerThan: opt(size("leave out files larger than this (100M, 2GiB)")),
  crossMounts: opt(flag("include other file systems mounted inside the folder")),
  databases: opt(
    oneOf(
      ["auto", "copy"],
      "SQLite databases in use: `auto` captures a consistent image, `copy` copies their files as they are",
    ),
  ),
  with: opt(
    list(
      text(),
      "DATABASE=FOLDER, for a database whose rows refer to files in FOLDER: read the folder after the database, and list files that were deleted in between",
    ),
    "--with <db=folder>",
  ),
  rows: opt(
    list(
      storedCommand(),
      "query of the database of `with` (the first of the first, and so on) with the columns path, relative to FOLDER, and perhaps size and sha256: each file is compared, and listed if it is missing or different",
    ),
    "--rows <query>",
  ),
  secrets: opt(flag("false: leave out files that look like credentials"), {
    flags: "--no-secrets",
    text: "leave out files that look like credentials",
    value: false,
  }),
  hooks: runsHooks(),
  allow: allow("override a guard", ["home", "nested", "git", "space", "holders", "unmounted"]),
});
export type SaveOptions = Of<typeof SaveOptions>;

export const Secrets = orNull(
  rows(
    object({ ...NamedPath.entries, kind: text() }),
    "files of the point whose names suggest credentials; null until sealed",
  ),
);

export type Secrets = Of<typeof Secrets>;

export const SaveResult = object({
  ...SavePoint.entries,
  made: flag("false: nothing had changed, so no point was made, and the answer is head"),
  changes: orNull(about(Changes, "changes since head; null if a clone was made without being read")),
  read_bytes: number(),
  duration_ms: duration(),
  left_out: rows(LeftOut, "entries that the point does not hold; exit 10 if `complete` is false"),
  not_kept: NotKept,
  secrets: Secrets,
  rows: rows(RowsCheck, "results of `rows`"),
  hooks: hookRuns(),
});
export type SaveResult = Of<typeof SaveResult>;

export const ImportOptions = object({
  ...WorkspaceCallOptions.entries,
  ...pick(SaveOptions, "message", "tags", "id", "cause"),
  createdAt: opt(text("when the tree was made, in UTC, for example 2026-11-23T14:00:00Z; default: now")),
  pinned: opt(flag("protect the point from every cleanup")),
  parent: opt(orNull(text("id of the parent point; null: it has none; default: head"))),
  isHead: opt(flag("whether the folder is based on the point; default: if it is the newest imported one")),
});
export type ImportOptions = Of<typeof ImportOptions>;

// ---------------------------------------------------------------------------------------- restore, undo

export const method = {
  method: opt(
    oneOf(
      ["exchange", "entries"],
      "`exchange`: swap the whole folder at once, even if the processes that have it open cannot be listed; `entries`: restore entry by entry",
    ),
  ),
  throughSqlite: opt(
    flag(
      "overwrite SQLite databases that another process has open, through SQLite; without this the restore is refused",
    ),
  ),
  takeOwnership: opt(
    flag(
      "replace files of other users, too, whose owner or group cannot be kept: the new files belong to you; without this they stay and are listed",
    ),
  ),
};
export const MethodOption = object(method);
export type MethodOption = Of<typeof MethodOption>;
/** True for a call that writes into databases that a process has open: the call opens them by their paths. */
export const throughSqlite = ({ options }: Readonly<Record<string, unknown>>): boolean =>
  (options as MethodOption | undefined)?.throughSqlite === true;
export const why = {
  cause: opt(about(Cause, "cause to record in the undo point")),
  plan: shownPlan(),
};
export const UndoOptions = object({
  ...WorkspaceCallOptions.entries,
  ...method,
  over: opt(flag("also revert entries that were changed since; without this they stay and are listed")),
  expected: opt(
    pointId(
      "the undo point of the operation that is to be reverted, or of its last undo or redo; `conflict` if another one is next",
    ),
  ),
  count: opt(
    count("this many operations, the newest first; `undo_id` is the state before all of them; default 1"),
    "-n, --count <count>",
  ),
  ...why,
});
export type UndoOptions = Of<typeof UndoOptions>;
export const PlanUndoOptions = object({
  ...WorkspaceCallOptions.entries,
  ...pick(UndoOptions, "over", "expected", "count", "takeOwnership"),
});
export type PlanUndoOptions = Of<typeof PlanUndoOptions>;

export const RestoreOptions = object({
  ...WorkspaceCallOptions.entries,
  ...method,
  target: target(),
  paths: opt(
    some(
      PathInput,
      "only these paths and everything below them; removes entries that the target does not have; `not_found` if a path is in neither the target nor the folder",
    ),
  ),
  keepPresent: opt(flag("keep entries that the target does not have")),
  keepGit: opt(flag("leave git's own state as it is: every `.git`, with its branches and its index")),
  to: opt(
    place(
      "restore into this absent or empty folder; the workspace is not changed. `target` may have a path then, `POINT:PATH`: the content of that folder",
    ),
    {
      flags: "--to <dir>",
      text: "restore into this absent or empty folder; the workspace is not changed",
    },
  ),
  allow: allow(
    "`space` (with `to`) skips the check for free space; `unmounted` restores into the empty mount point of a disk that is not mounted",
    ["space", "unmounted"],
    "space (with --to): skip the check for free space; unmounted: restore even if the folder's own disk is not mounted",
  ),
  ...why,
});
export type RestoreOptions = Of<typeof RestoreOptions>;

export const RestoreChanges = object({
  created: number(),
  updated: number(),
  deleted: number(),
  metadata: number("entries of which only mode, owner, times or attributes were set"),
});
export type RestoreChanges = Of<typeof RestoreChanges>;

export const MovedRef = object({
  ...NamedPath.entries,
  ref: text("for example `refs/heads/main`, or `HEAD`"),
  before: orNull(text("object id, or the name of another ref; null: the ref comes")),
  after: orNull(text("null: the ref goes")),
});
export type MovedRef = Of<typeof MovedRef>;
const moved = () =>
  opt(
    rows(MovedRef, "refs of git that move, come or go, each with the path of its git directory; absent if none does"),
  );

export const PlanEntry = object({
  ...NamedPath.entries,
  action: oneOf(["create", "update", "delete", "metadata", "keep"]),
  kind: EntryKind,
  size: opt(number("bytes to write")),
  reason: opt(about(LeftOutReason, "why the entry would be kept")),
});
export type PlanEntry = Of<typeof PlanEntry>;

export const RestoreResult = object({
  restored_to: orNull(pointId("null if there was no point to restore to")),
  undo_id: orNull(
    pointId("the undo point: restoring it brings back the former state; null if the folder was not changed"),
  ),
  changes: orNull(about(RestoreChanges, "null if the whole folder was swapped: nothing was compared")),
  left_out: left(),
  unlinked: rows(
    NamedPath,
    "with `paths`: hard links that are separate files now, because their other names were not restored",
  ),
  method: oneOf(["exchange", "entries"]),
  turns: opt(
    rows(
      object({
        turn_id: text(),
        prompt: orNull(text("first line")),
        unchanged: opt(flag("the turn changed nothing, and was passed over")),
      }),
      "a rewind: the turns that it took back, newest first",
    ),
  ),
  operation: opt(
    object(
      { kind: text(), at: text("RFC 3339"), restored_to: pointId() },
      "undo and redo: the operation that was reverted",
    ),
  ),
  refs: moved(),
  changed: opt(
    rows(
      PlanEntry,
      "the first ten entries that were changed, those of git last; absent if the whole folder was swapped or nothing was done",
    ),
  ),
  through_sqlite: opt(
    rows(
      object({ ...NamedPath.entries, read_again: flag("true if it was read again through SQLite and is equal") }),
      "databases in use that were written through SQLite",
    ),
  ),
  duration_ms: duration(),
});
export type RestoreResult = Of<typeof RestoreResult>;

/** Kinds of operations, and of the causes of their undo points. */
export const OPERATION_KINDS = ["restore", "rewind", "adopt", "undo", "redo"] as const;

export const Operation = object({
  kind: oneOf(OPERATION_KINDS),
  at: text("RFC 3339"),
  undo_id: orNull(pointId("the point of the state before; null if the operation changed nothing")),
  restored_to: pointId(),
  paths: orNull(rows(NamedPath, "the paths that were restored; null for the whole folder")),
  cause: orNull(about(Cause, "the cause of the undo point; null if there is none")),
  is_undone: flag("true: an undo reverted the operation, and no redo brought it back"),
});
export type Operation = Of<typeof Operation>;

export const OperationList = object({
  operations: rows(Operation, "newest first, at most 200"),
  undo: orNull(text("`at` of the operation that `undo` reverts next")),
  redo: orNull(text("`at` of the operation that `redo` brings back next")),
});
export type OperationList = Of<typeof OperationList>;

export const RestorePlan = object({
  id: text("the plan's id, for `plan` of the call that does it"),
  restored_to: pointId(),
  entries: rows(PlanEntry),
  left_out: rows(LeftOut, "entries known to be left out; only for a restore entry by entry"),
  refs: moved(),
  holders: rows(Holder),
});
export type RestorePlan = Of<typeof RestorePlan>;

export const tagEdit = {
  add: opt(list(text(), "tags to add")),
  remove: opt(list(text(), "a tag to remove"), {
    flags: "-r, --remove <tag>",
    text: "tags to remove, separated by commas",
  }),
};

// ------------------------------------------------------------------------------------- fork, view, run

export const ForkOptions = object({
  ...WorkspaceCallOptions.entries,
  name: opt(
    text("the new workspace's name; default: the new folder's name, made unique; with `standalone`: `main`"),
    "--name <name>",
  ),
  standalone: opt(
    flag("give the fork its own control directory, at the default path, so that it does not need the original"),
  ),
  allow: allow("override a guard", ["home", "nested", "git", "space", "ignored"]),
});
export type ForkOptions = Of<typeof ForkOptions>;
export const ForkResult = object({
  workspace: WorkspaceRef,
  started_from: pointId(),
  save_point: about(SavePoint, "the first point of the new workspace"),
  left_out: left(),
});
export type ForkResult = Of<typeof ForkResult>;

export const RemoveForkOptions = object({
  ...WorkspaceCallOptions.entries,
  allow: allow("`ignored`: entries that ignore rules keep out of every point are saved and removed, too"),
  plan: shownPlan(),
});
export type RemoveForkOptions = Of<typeof RemoveForkOptions>;
export const ForkRemovalPlan = object({
  id: text("the plan's id, for `plan` of `removeFork`"),
  workspace: about(WorkspaceRef, "the fork that goes"),
  save_point_ids: rows(pointId(), "the fork's points that go, newest first"),
  entries: orNull(
    rows(
      DiffEntry,
      "changes of the folder since the fork's newest point, which the original's new point has too; null if the folder is missing or there is no point",
    ),
  ),
});
export type ForkRemovalPlan = Of<typeof ForkRemovalPlan>;
export const RemovedFork = object({
  workspace: about(WorkspaceRef, "the fork that is gone"),
  save_point_id: pointId("the point of the original that has the fork's last state"),
  rest: orNull(about(NamedPath, "where the folder lies if some of it could not be removed; null if nothing is left")),
  left_out: left(),
});
export type RemovedFork = Of<typeof RemovedFork>;

export const ViewLease = object(
  {
    view_id: text(),
    save_point_id: pointId(),
    path: text("absolute"),
    opened_at: text(),
    method: text("`copy`: the files were written into the folder; the clone engines use cheaper ways"),
  },
  "a read-only folder with a point's content; no cleanup removes the point until the view is closed",
);
export type ViewLease = Of<typeof ViewLease>;

export const RunOptions = object({
  ...WorkspaceCallOptions.entries,
  message: opt(message("message for both points"), "-m, --message <text>"),
  tags: opt(list(text(), "a tag for both points"), "-t, --tag <tag>"),
  cause: opt(record("keys to add to the cause of the second point")),
  cwd: opt(place("working directory of the command, absolute; default: the workspace")),
  stdout: opt(oneOf(["inherit", "stderr"], "`stderr`: send the command's stdout to Cairn's stderr; default `inherit`")),
  onCommand: opt(
    callback<(event: "started" | "ended", pid: number) => void>(
      '(event: "started" | "ended", pid: number) => void',
      "called just before and just after the command; in between, signals go to the command",
    ),
  ),
});
export type RunOptions = Of<typeof RunOptions>;
export const RunResult = object({
  command: rows(text()),
  before: SavePoint,
  after: orNull(about(SavePoint, "null if the second save failed")),
  exit_code: number(
    "128 plus the signal's number if a signal ended the command; 127 or 126 if it could not be started",
  ),
  signal: orNull(text()),
  duration_ms: number("duration of the command alone"),
  changes: orNull(Changes),
  after_error: orNull(
    object({
      code: custom<ErrorCode>("ErrorCode", "a code", (value) => Object.hasOwn(ERROR_TABLE, value as string)),
      message: text(),
      hint: opt(text()),
    }),
  ),
});
export type RunResult = Of<typeof RunResult>;

// --------------------------------------------------------------------------------------------- bisect
