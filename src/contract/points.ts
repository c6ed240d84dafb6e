import { type ErrorCode, ERROR_TABLE } from "../errors.ts";
import {
  about,
  callback,
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
  text,
} from "./schema.ts";
import {
  allow,
  Cause,
  Changes,
  EntryKind,
  Holder,
  LeftOut,
  LeftOutReason,
  NamedPath,
  NotKept,
  PathInput,
  pointId,
  SavePoint,
  target,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";

/** Verbs that make points, go back to them and mark them. A target is an id, a unique prefix, `latest`, `head`, `head~N` or a time. */

const left = () => rows(LeftOut, "what was left out; not empty: exit 10");
const duration = () => number("milliseconds");

// ------------------------------------------------------------------------------------------------- save

export const SaveOptions = object({
  ...WorkspaceCallOptions.entries,
  message: opt(message("what this state is")),
  tags: opt(list(text(), "a tag")),
  id: opt(text("an id of your own for the point: a word that no other point of the workspace has as its id or tag")),
  cause: opt(about(Cause, 'what led to it, for example {"kind":"tool_call","tool":"bash"}; default {"kind":"person"}')),
  onDetached: opt(
    oneOf(["continue", "refuse"], "`refuse`: fail with `detached` when the folder stands at an older point"),
  ),
  skipUnchanged: opt(flag("make no point when nothing changed; the answer is head")),
  reread: opt(flag("read every file, whatever its times say")),
  exclude: opt(list(text(), "leave out, as in .cairnignore, or a whole path")),
  excludeCaches: opt(flag("leave out what lies in folders with a CACHEDIR.TAG")),
  excludeIfPresent: opt(
    list(
      text(),
      "leave out what lies beside an entry of that name, or beside a file that begins with that header: NAME[:HEADER]",
    ),
  ),
  excludeLargerThan: opt(size("leave out larger files (100M, 2GiB)")),
  crossMounts: opt(flag("go into other file systems mounted inside")),
  databases: opt(
    oneOf(
      ["auto", "copy"],
      "SQLite databases that are in use: `auto` captures them, `copy` takes their files as they are",
    ),
  ),
  with: opt(
    list(
      text(),
      "DATABASE=FOLDER: the database's rows name files in the folder, which are read after it; one that is gone then is listed",
    ),
  ),
  secrets: opt(flag("false: files that look like credentials are left out")),
  allow: allow("override a guard"),
});
export type SaveOptions = Of<typeof SaveOptions>;

export const Secrets = orNull(
  rows(
    object({ ...NamedPath.entries, kind: text() }),
    "files of the point that look like credentials, by their names; null until it is sealed",
  ),
);

export type Secrets = Of<typeof Secrets>;

export const SaveResult = object({
  ...SavePoint.entries,
  made: flag("false: nothing had changed, so no point was made and this one is head"),
  changes: orNull(about(Changes, "against head; null where a clone was made without being read")),
  read_bytes: number(),
  duration_ms: duration(),
  left_out: rows(LeftOut, "what the point does not hold; exit 10 when `complete` is false"),
  not_kept: NotKept,
  secrets: Secrets,
});
export type SaveResult = Of<typeof SaveResult>;

export const ImportOptions = object({
  ...WorkspaceCallOptions.entries,
  ...pick(SaveOptions, "message", "tags", "id", "cause"),
  createdAt: opt(text("when the tree was made, in UTC, as 2026-11-23T14:00:00Z; default: now")),
  pinned: opt(flag("no cleanup removes it")),
});
export type ImportOptions = Of<typeof ImportOptions>;

// ---------------------------------------------------------------------------------------- restore, undo

const method = {
  method: opt(
    oneOf(
      ["exchange", "entries"],
      "`exchange`: whole trees change places, also where it cannot be known who has them open; `entries`: entry by entry",
    ),
  ),
  throughSqlite: opt(
    flag("write into SQLite databases that a process has open, so that it sees the content; else they are refused"),
  ),
};
export const MethodOption = object(method);
export type MethodOption = Of<typeof MethodOption>;
/** True for a call that writes into databases that a process has open, which it opens by their paths. */
export const throughSqlite = ({ options }: Readonly<Record<string, unknown>>): boolean =>
  (options as MethodOption | undefined)?.throughSqlite === true;
const why = { cause: opt(about(Cause, "why, for the undo point")) };
export const UndoOptions = object({ ...WorkspaceCallOptions.entries, ...method, ...why });
export type UndoOptions = Of<typeof UndoOptions>;

export const RestoreOptions = object({
  ...WorkspaceCallOptions.entries,
  ...method,
  target: target(),
  paths: opt(
    some(
      PathInput,
      "only these and what is under them; what the target does not have is removed; in neither: `not_found`",
    ),
  ),
  keepPresent: opt(flag("let entries stay that the target does not have")),
  to: opt(place("write into this absent or empty folder instead; the workspace is not touched")),
  allow: allow(
    "with `to`, `space` writes also where there seems to be too little; `unmounted` restores into the empty mount point of a disk that is not mounted",
  ),
  ...why,
});
export type RestoreOptions = Of<typeof RestoreOptions>;

export const RestoreChanges = object({
  created: number(),
  updated: number(),
  deleted: number(),
  metadata: number("entries whose content was right and whose mode, owner, times or attributes were set"),
});
export type RestoreChanges = Of<typeof RestoreChanges>;

export const RestoreResult = object({
  restored_to: orNull(pointId("null when there was nothing to restore to")),
  undo_id: orNull(pointId("a restore to it brings back what was there; null when the folder was not touched")),
  changes: orNull(about(RestoreChanges, "null where whole trees changed places: nothing was compared")),
  left_out: left(),
  unlinked: rows(
    NamedPath,
    "with `paths`: entries that are files of their own now, as their other names were not asked for",
  ),
  method: oneOf(["exchange", "entries"]),
  duration_ms: duration(),
});
export type RestoreResult = Of<typeof RestoreResult>;

export const PlanEntry = object({
  ...NamedPath.entries,
  action: oneOf(["create", "update", "delete", "metadata", "keep"]),
  kind: EntryKind,
  size: opt(number("bytes to be written")),
  reason: opt(about(LeftOutReason, "why it would be kept")),
});
export type PlanEntry = Of<typeof PlanEntry>;

export const RestorePlan = object({
  id: text(),
  restored_to: pointId(),
  entries: rows(PlanEntry),
  left_out: rows(LeftOut, "as far as it is known beforehand, and where the restore goes entry by entry"),
  holders: rows(Holder),
});
export type RestorePlan = Of<typeof RestorePlan>;

// ------------------------------------------------------------------------------------- fork, view, run

export const ForkOptions = object({
  ...WorkspaceCallOptions.entries,
  name: opt(text("the new workspace's name; default: the folder's, made unique")),
  standalone: opt(flag("give the fork its own control directory, where `init` would make one")),
  allow: allow("override a guard"),
});
export type ForkOptions = Of<typeof ForkOptions>;
export const ForkResult = object({
  workspace: WorkspaceRef,
  started_from: pointId(),
  save_point: about(SavePoint, "the first point of the new workspace"),
  left_out: left(),
});
export type ForkResult = Of<typeof ForkResult>;

export const ViewLease = object(
  {
    view_id: text(),
    save_point_id: pointId(),
    path: text("absolute"),
    opened_at: text(),
    method: text("`copy`: the files were written there; engines that clone have cheaper ways"),
  },
  "a read-only folder with a point's content; no cleanup removes that point until the view is closed",
);
export type ViewLease = Of<typeof ViewLease>;

export const RunOptions = object({
  ...WorkspaceCallOptions.entries,
  message: opt(message("message of both points")),
  tags: opt(list(text(), "a tag of both points")),
  cause: opt(record("keys that are added to the cause of the second point")),
  cwd: opt(place("where the command runs, absolute; default: the workspace")),
  stdout: opt(
    oneOf(["inherit", "stderr"], "`stderr`: the command's stdout goes to our standard error; default `inherit`"),
  ),
  onCommand: opt(
    callback<(event: "started" | "ended", pid: number) => void>(
      '(event: "started" | "ended", pid: number) => void',
      "told just before and just after the command; between them signals are the command's",
    ),
  ),
});
export type RunOptions = Of<typeof RunOptions>;
export const RunResult = object({
  command: rows(text()),
  before: SavePoint,
  after: orNull(about(SavePoint, "null when that save failed")),
  exit_code: number("128 and the signal's number when a signal ended it; 127 or 126 when it could not be started"),
  signal: orNull(text()),
  duration_ms: number("of the command alone"),
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
