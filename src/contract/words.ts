import type { ControlId, SavePointId, WorkspaceId } from "../ids.ts";
import {
  about,
  callback,
  custom,
  type Entries,
  flag,
  list,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  path,
  rows,
  text,
} from "./schema.ts";

/** Schemas that several verbs use. */

export const EngineType = oneOf(
  ["btrfs-snapshot", "juicefs-clone", "reflink-copy", "copy"],
  "how a point holds content",
);
export type EngineType = Of<typeof EngineType>;
export const IntegrityState = oneOf(["verified", "unverified", "damaged", "unknown"], "result of the last `verify`");
export type IntegrityState = Of<typeof IntegrityState>;
export const Consistency = oneOf(
  ["transaction-consistent", "crash-consistent", "torn-possible", "rules-not-applied", "credentials", "owner-unknown"],
  "consistency of a live entry; `credentials`: a file that holds credentials, going by its name; `rules-not-applied`: an ignore file larger than 1 MiB in a clone, whose rules were not applied; `owner-unknown`: its owner or group has no id in the user namespace of the save, and a restore leaves the present owner",
);
export type Consistency = Of<typeof Consistency>;
export const EntryKind = oneOf(["file", "directory", "symlink", "fifo", "socket", "chardev", "blockdev"]);
export type EntryKind = Of<typeof EntryKind>;
export const Aspect = oneOf(["content", "mode", "type", "owner", "times", "xattrs", "target", "links"]);
export type Aspect = Of<typeof Aspect>;
export const GuardName = oneOf(
  ["home", "nested", "git", "space", "holders", "unmounted", "ignored"],
  "a guard to override: `home` a home directory, `nested` a folder inside or above another workspace, `git` a folder inside `.git`, `space` less free space than estimated, `holders` Cairn cannot find out which processes have files open, `unmounted` the empty mount point of a disk that is not mounted, `ignored` entries of a fork that ignore rules keep out of every point",
);
export type GuardName = Of<typeof GuardName>;
const GUARDED: Readonly<Record<GuardName, string>> = {
  home: "a home directory",
  nested: "a folder inside or above another workspace",
  git: "a .git directory",
  space: "a disk that may be too small",
  holders: "Cairn cannot find out which processes have files open",
  unmounted: "a folder whose own disk is not mounted",
  ignored: "with --remove: ignored entries, which are then saved too",
};
/** Guards to override; `values` are the command's guards, whose help is `help` or lists them. */
export const allow = (phrase: string, values: readonly GuardName[] = [], help?: string) => {
  const text = help ?? `override a guard: ${values.map((value) => `${value} (${GUARDED[value]})`).join(", ")}`;
  return opt(list(GuardName, phrase), { flags: "--allow <guard>", text, values });
};

/** The id of the plan that the caller was shown; `--plan` of the same command prints it. */
export const shownPlan = () =>
  opt(
    text("id of a plan: nothing is changed, with `stale_plan`, if anything else would be done now"),
    "--apply <plan>",
  );

/** A path as text, or its raw bytes if it is not UTF-8. */
export type PathInput = string | Uint8Array;
export const PathInput = path();

const id = <T extends string>(name: string, phrase?: string) =>
  custom<T>(name, "an id", (value) => typeof value === "string", { about: phrase });
export const pointId = (phrase?: string) => id<SavePointId>("SavePointId", phrase);
export const workspaceId = (phrase?: string) => id<WorkspaceId>("WorkspaceId", phrase);
export const controlId = (phrase?: string) => id<ControlId>("ControlId", phrase);

/** A parameter that names any state of a folder; see `operand.ts`. */
export const operand = () =>
  text(
    "a state of a folder: a save point, `POINT:PATH`, `NAME:POINT:PATH` of another workspace, `backup:SNAPSHOT:PATH`, a folder (`/…`, `./…`, `~/…`), or `.` for the current folder",
  );
/** A parameter that names a save point. */
export const target = () =>
  text("a save point: id, unique prefix, `latest`, `head`, `head~N`, a tag of its own or a time such as `2 hours ago`");

export const NamedPath = object({
  path: text("with `\\xff` for each byte that is not UTF-8"),
  path_b64: opt(text("the exact bytes in base64, if the path is not UTF-8")),
});
export type NamedPath = Of<typeof NamedPath>;

/**
 * The cause of a save point. Other keys are kept unchanged, at most 64 KiB as JSON. With an `event`, `prompt` and `command` go into
 * the record of agents' events alone.
 */
export interface Cause {
  kind:
    | "person"
    | "program"
    | "tool_call"
    | "command"
    | "schedule"
    | "restore"
    | "rewind"
    | "adopt"
    | "undo"
    | "redo"
    | (string & {});
  [key: string]: unknown;
}
export const Cause = custom<Cause>(
  '{ kind: "person" | "program" | "tool_call" | "command" | "schedule" | "restore" | "rewind" | "adopt" | "undo" | "redo" | (string & {}); [key: string]: unknown }',
  "an object",
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  {
    about:
      "other keys are kept as they are, at most 64 KiB as JSON; with an `event`, `prompt` and `command` are kept in the record of agents' events alone",
  },
);

export const HookRun = object({
  hook: oneOf(["before_save", "after_save", "before_backup", "after_backup"]),
  exit_code: orNull(number("null: a signal or the time limit ended the command")),
  duration_ms: number(),
  output: text("the end of stdout and stderr, at most 4 KiB"),
});
export type HookRun = Of<typeof HookRun>;
/** Makes the member of a result that lists the hooks of a call. */
export const hookRuns = () =>
  opt(
    rows(
      HookRun,
      "the workspace's hooks that ran, in their order; absent if none did; exit 10 if one failed after the save or backup",
    ),
  );
/** Makes the option by which a call runs no hooks. */
export const runsHooks = () =>
  opt(flag("false: run none of the workspace's hooks; default: unless an agent or `run` makes the save"), {
    flags: "--no-hooks",
    text: "do not run the commands that `cairn hooks` keeps for the workspace",
    value: false,
  });

export const ProgressPhase = oneOf([
  "waiting",
  "recovering",
  "scanning",
  "storing",
  "trees",
  "committing",
  "planning",
  "restoring",
  "verifying",
  "cleaning",
  "compacting",
  "repairing",
  "rewriting",
  "indexing",
  "uploading",
  "downloading",
]);
export type ProgressPhase = Of<typeof ProgressPhase>;
export const Progress = object(
  {
    phase: ProgressPhase,
    done: number(
      "entries; in a cleanup points, in `trees` trees, in `uploading` blobs plus one for the snapshot; never falls within a phase",
    ),
    total: opt(number("absent while unknown")),
    bytes: opt(
      number(
        "bytes handled in this phase; in `uploading` bytes that have reached the repository, for a stream approximately",
      ),
    ),
    total_bytes: opt(number("absent while unknown")),
    current: opt(text("the current path, point or lock owner")),
  },
  "progress of a call; at most about ten reports a second",
);
export type Progress = Of<typeof Progress>;

export const onWarning = opt(
  callback<(message: string) => void>(
    "(message: string) => void",
    "called with each warning: a problem that does not make the call fail",
  ),
);
export const CallOptions = object(
  {
    signal: opt(
      custom<AbortSignal>(
        "AbortSignal",
        "an AbortSignal",
        (value) => typeof (value as AbortSignal | null)?.addEventListener === "function",
        {
          about:
            "aborts the call within 100 ms with `interrupted`; the state is exactly the old or exactly the new one",
          as: "signal",
        },
      ),
    ),
    onProgress: opt(
      callback<(progress: Progress) => void>("(progress: Progress) => void", "called with the progress of the call"),
    ),
    onWarning,
    lockTimeoutMs: opt(number("milliseconds to wait for another writer before `busy`; default 10 000")),
  },
  "A callback that throws does not affect its call. The process gets one warning (`CairnWarning`).",
);
export type CallOptions = Of<typeof CallOptions>;
export const throwOnDamage = () =>
  opt(flag("throw `damaged` if there are problems, instead of returning them; `details.problems` has them"));
export const WorkspaceCallOptions = object({
  ...CallOptions.entries,
  workspaceName: opt(text("default: the opened workspace, else `main`; `not_found` if no workspace has the name")),
});
export type WorkspaceCallOptions = Of<typeof WorkspaceCallOptions>;

export const PathLabel = object({
  ...NamedPath.entries,
  label: Consistency,
  reason: opt(text()),
  recovered: opt(
    flag("true: the point holds the database after SQLite's recovery, not its files as they were on disk"),
  ),
  aspects: opt(rows(Aspect, "the aspects that could not be read, if the rest of the entry was stable")),
});
export type PathLabel = Of<typeof PathLabel>;

export const Degradation = object({
  what: text("the feature that was wanted: `engine`, `holes`, `exact-times`, …"),
  reason: text(),
});
export type Degradation = Of<typeof Degradation>;

export const SavePoint = object({
  save_point_id: pointId("32 hex digits"),
  workspace_name: text(),
  created_at: text(),
  sequence: number("position among the workspace's points, from 1; a cleanup leaves gaps"),
  message: text("empty if none was given"),
  tags: rows(text()),
  engine: about(EngineType, "the requested engine"),
  payload_root_hash: orNull(text("the state digest, 64 hex digits; null until sealed")),
  descriptor_checksum: text("SHA-256 of the descriptor, 64 hex digits"),
  integrity_state: IntegrityState,
  parent_id: orNull(pointId("the point that the folder was based on; null for the first")),
  restored_from: orNull(pointId("the parent, if it was not the latest point")),
  cause: about(Cause, "what led to the point"),
  metadata_digest: orNull(text("64 hex digits; null until sealed")),
  sealed: flag("false while only a clone holds the content; digests and counts are null meanwhile"),
  entries: orNull(number("recorded entries without the root; null until sealed")),
  bytes: orNull(number("total size of the files; null until sealed")),
  bytes_stored: number(
    "bytes that the point added to the store; until sealed, bytes of databases in use that its clone does not share with the folder",
  ),
  unchanged: flag("true if nothing had changed since the parent"),
  complete: flag("false if something could not be recorded; an incomplete point proves nothing"),
  pinned: flag("true: no cleanup removes the point"),
  labels: rows(PathLabel, "consistency of live entries"),
  labels_known: flag("false until sealed: SQLite has not looked at the databases, and `labels` may lack some"),
  rewritten: opt(
    rows(
      object({
        at: text(),
        paths: rows(NamedPath, "at most 1000"),
        digest_before: orNull(text("the state digest before")),
      }),
      "removals of paths from the point after it was made, oldest first",
    ),
  ),
  effective_engine: about(EngineType, "the engine that made the point"),
  degraded: rows(Degradation, "features that the engine could not provide"),
});
export type SavePoint = Of<typeof SavePoint>;

export const DamagedPoint = object(
  {
    save_point_id: orNull(pointId("taken from the file's name; null if the name has no id")),
    detail: text(),
    hint: text(),
  },
  "a point whose descriptor cannot be read; other points are listed all the same",
);
export type DamagedPoint = Of<typeof DamagedPoint>;

export const LeftOutReason = oneOf(
  [
    "unreadable",
    "damaged",
    "changing",
    "vanished",
    "mounted",
    "excluded",
    "not_permitted",
    "io_error",
    "unsupported",
    "not_saved",
    "keep_present",
    "taken_out",
    "changed_since",
  ],
  "`damaged`: the store no longer holds the whole entry; `mounted`: another file system is mounted there; `excluded`: a cache or a large file that an option of the save leaves out; `not_permitted`: a permission is missing; `io_error`: the file system failed, was full or is read-only; `not_saved`: kept, because the undo point does not hold the whole entry; `keep_present`: kept by the option of that name, because the target does not have the entry; `taken_out`: removed from the snapshot by a rewrite; `changed_since`: kept as it is, because the entry changed during the restore",
);
export type LeftOutReason = Of<typeof LeftOutReason>;
export const LeftOut = object({
  ...NamedPath.entries,
  reason: LeftOutReason,
  detail: text(),
  aspects: opt(
    rows(Aspect, "the aspects that were not set, for example `owner`; absent if the whole entry was left out"),
  ),
});
export type LeftOut = Of<typeof LeftOut>;
export const Incomplete = object({
  count: number(),
  left_out: rows(LeftOut, "the first 100"),
});
export type Incomplete = Of<typeof Incomplete>;

export const Changes = object(
  {
    added: number(),
    modified: number("includes entries of which only metadata changed, times too"),
    removed: number(),
  },
  "counts of entries",
);
export type Changes = Of<typeof Changes>;

export const NotKept = object({
  count: number(
    "entries that are in head and in the folder, but that an ignore rule now leaves out; not counted as removed",
  ),
  paths: rows(NamedPath, "the first 100, without the entries below them"),
});
export type NotKept = Of<typeof NotKept>;

export const WorkspaceRef = object({
  name: text(),
  path: text("absolute"),
  path_b64: opt(text("the exact bytes in base64, if the path is not UTF-8")),
  id: workspaceId(),
  engine: EngineType,
  control_directory: text("absolute"),
});
export type WorkspaceRef = Of<typeof WorkspaceRef>;

export const EngineReason = object({
  engine: EngineType,
  chosen: flag(),
  reason: text("why the engine was or was not chosen"),
  hint: opt(text("how to make the engine usable")),
});
export type EngineReason = Of<typeof EngineReason>;

export const Conversion = object(
  {
    original: text("absolute path of the original folder; it stays until you remove it"),
    original_b64: opt(text()),
    entries: number("entries that were copied and compared"),
    bytes: number(),
    duration_ms: number(),
  },
  "conversion of a plain folder into a subvolume, in place",
);
export type Conversion = Of<typeof Conversion>;

export const Holder = object(
  { ...NamedPath.entries, pid: number(), command: text() },
  "a process that has a file of the workspace open for writing",
);
export type Holder = Of<typeof Holder>;

export const ListedEntry = object({
  ...NamedPath.entries,
  kind: EntryKind,
  mode: number("permission bits with setuid, setgid and sticky"),
  size: number("of files"),
  modified_at: text(),
  uid: number("outside the user namespace of the save; 4294967295: not known"),
  gid: number(),
  user: text(),
  group: text(),
  target: opt(text("of links")),
  target_b64: opt(text()),
});
export type ListedEntry = Of<typeof ListedEntry>;

export const RowsCheck = object(
  {
    ...NamedPath.entries,
    folder: text(),
    named: number("rows that name a file"),
    wrong: number("rows whose file is missing or different; not 0: exit 10"),
    files: rows(object({ ...NamedPath.entries, detail: text() }), "the first 100 of them"),
  },
  "a database, and the comparison of the files that its rows name with the files of the folder",
);
export type RowsCheck = Of<typeof RowsCheck>;

/** Members of the `data` of commands that answer with a save point. */
export const pointData = { save_point: SavePoint };

/** Members that `--json` adds for the content of a file. */
export const contentData = {
  content_b64: text("content of a file of at most 256 MiB; without `--json` the bytes go to stdout"),
};

/** Returns members with names in snake_case, also those of a policy's rules. */
export function inSnakeCase(entries: Entries): Entries {
  const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(entries).map(([name, schema]) => [snake(name), schema]));
}
