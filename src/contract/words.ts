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
export const IntegrityState = oneOf(["verified", "unverified", "damaged", "unknown"], "what the last `verify` found");
export type IntegrityState = Of<typeof IntegrityState>;
export const Consistency = oneOf(
  ["transaction-consistent", "crash-consistent", "torn-possible", "rules-not-applied", "credentials"],
  "consistency of an entry that was live; `credentials`: by its name it is a file with some; `rules-not-applied`: an ignore file of more than 1 MiB in a clone, which hides nothing",
);
export type Consistency = Of<typeof Consistency>;
export const EntryKind = oneOf(["file", "directory", "symlink", "fifo", "socket", "chardev", "blockdev"]);
export type EntryKind = Of<typeof EntryKind>;
export const Aspect = oneOf(["content", "mode", "type", "owner", "times", "xattrs", "target", "links"]);
export type Aspect = Of<typeof Aspect>;
export const GuardName = oneOf(
  ["home", "nested", "git", "space", "holders", "unmounted"],
  "a guard to override: `home` a home directory, `nested` inside or above another workspace, `git` inside a `.git`, `space` less free space than estimated, `holders` open files that cannot be known, `unmounted` the folder is the empty mount point of a disk that is not mounted",
);
export type GuardName = Of<typeof GuardName>;
export const allow = (phrase: string) => opt(list(GuardName, phrase));

/** A path as text, or its raw bytes where it is not UTF-8. */
export type PathInput = string | Uint8Array;
export const PathInput = path();

const id = <T extends string>(name: string, phrase?: string) =>
  custom<T>(name, "an id", (value) => typeof value === "string", { about: phrase });
export const pointId = (phrase?: string) => id<SavePointId>("SavePointId", phrase);
export const workspaceId = (phrase?: string) => id<WorkspaceId>("WorkspaceId", phrase);
export const controlId = (phrase?: string) => id<ControlId>("ControlId", phrase);

/** A parameter that names a save point. */
export const target = () =>
  text("a save point: id, unique prefix, `latest`, `head`, `head~N`, a tag of its own or a time such as `2 hours ago`");

export const NamedPath = object({
  path: text("with `\\xff` for each byte that is not UTF-8"),
  path_b64: opt(text("the exact bytes in base64, where the path is not UTF-8")),
});
export type NamedPath = Of<typeof NamedPath>;

/** The cause of a save point. Other keys are kept as they are; at most 64 KiB as JSON. */
export interface Cause {
  kind: "person" | "tool_call" | "command" | "schedule" | "restore" | "undo" | (string & {});
  [key: string]: unknown;
}
export const Cause = custom<Cause>(
  '{ kind: "person" | "tool_call" | "command" | "schedule" | "restore" | "undo" | (string & {}); [key: string]: unknown }',
  "an object",
  (value) => typeof value === "object" && value !== null && !Array.isArray(value),
  { about: "other keys are kept as they are; at most 64 KiB as JSON" },
);

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
      "entries; points in a cleanup, trees in `trees`, blobs in `uploading`, where a backup's snapshot counts as one more; never falls within a phase",
    ),
    total: opt(number("absent while it is not known")),
    bytes: opt(
      number(
        "bytes handled in this phase; in `uploading` those that have reached the repository, of a stream about those",
      ),
    ),
    total_bytes: opt(number("absent while it is not known")),
    current: opt(text("what is being worked on: a path, a point, the owner of a lock")),
  },
  "how far a call is; about ten a second at most",
);
export type Progress = Of<typeof Progress>;

const onWarning = opt(
  callback<(message: string) => void>("(message: string) => void", "told what is worth a line and no failure"),
);
export const CallOptions = object(
  {
    signal: opt(
      custom<AbortSignal>(
        "AbortSignal",
        "an AbortSignal",
        (value) => typeof (value as AbortSignal | null)?.addEventListener === "function",
        {
          about: "ends the call within 100 ms with `interrupted`; the state is exactly old or exactly new",
          as: "signal",
        },
      ),
    ),
    onProgress: opt(callback<(progress: Progress) => void>("(progress: Progress) => void", "told how far the call is")),
    onWarning,
    lockTimeoutMs: opt(number("how long to wait for another writer, default 10 000; then `busy`")),
  },
  "A callback that throws changes nothing of its call: the process is warned once (`CairnWarning`).",
);
export type CallOptions = Of<typeof CallOptions>;
export const throwOnDamage = () =>
  opt(flag("throw `damaged` instead of returning what has problems, which are `details.problems` then"));
export const WorkspaceCallOptions = object({
  ...CallOptions.entries,
  workspaceName: opt(text("default: the workspace that was opened, else `main`; `not_found`")),
});
export type WorkspaceCallOptions = Of<typeof WorkspaceCallOptions>;
export const SealWhenIdleOptions = object({ idleMs: opt(number("milliseconds, default 2000")), onWarning });
export type SealWhenIdleOptions = Of<typeof SealWhenIdleOptions>;

export const PathLabel = object({
  ...NamedPath.entries,
  label: Consistency,
  reason: opt(text()),
  recovered: opt(flag("true: the point has the database as SQLite recovered it, and not the files as they lay there")),
  aspects: opt(rows(Aspect, "the parts that could not be read, where the rest was at rest")),
});
export type PathLabel = Of<typeof PathLabel>;

export const Degradation = object({
  what: text("what was wanted: `engine`, `holes`, `exact-times`, …"),
  reason: text(),
});
export type Degradation = Of<typeof Degradation>;

export const SavePoint = object({
  save_point_id: pointId("32 hex digits"),
  workspace_name: text(),
  created_at: text(),
  sequence: number("its place in the workspace's order, from 1; a cleanup leaves gaps"),
  message: text("empty when none was given"),
  tags: rows(text()),
  engine: about(EngineType, "the engine that was asked for"),
  payload_root_hash: orNull(text("the state digest, 64 hex digits; null until sealed")),
  descriptor_checksum: text("SHA-256 of the descriptor, 64 hex digits"),
  integrity_state: IntegrityState,
  parent_id: orNull(pointId("the point that the folder stood at; null for the first")),
  restored_from: orNull(pointId("that point, when it was not the latest")),
  cause: about(Cause, "what led to it"),
  metadata_digest: orNull(text("64 hex digits; null until sealed")),
  sealed: flag("false while only a clone has its content: digests and counts are null then"),
  entries: orNull(number("recorded entries without the root; null until sealed")),
  bytes: orNull(number("sum of the sizes of its files; null until sealed")),
  bytes_stored: number("what it added to the store"),
  unchanged: flag("true when nothing had changed since its parent"),
  complete: flag("false when something could not be recorded; such a point proves nothing"),
  pinned: flag("true: no cleanup removes it"),
  labels: rows(PathLabel, "consistency of what was live"),
  effective_engine: about(EngineType, "the engine that made it"),
  degraded: rows(Degradation, "what the engine could not do"),
});
export type SavePoint = Of<typeof SavePoint>;

export const DamagedPoint = object(
  { save_point_id: orNull(pointId("as far as its name tells")), detail: text(), hint: text() },
  "a point whose descriptor cannot be read; it hides no other",
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
  "`damaged`: the store does not hold it whole any more; `mounted`: another file system is mounted there; `excluded`: a cache or a large file that the save was told to leave out; `not_permitted`: a right is missing; `io_error`: the file system failed while it was written, was full or is read-only; `not_saved`: kept, because the undo point does not hold it whole; `keep_present`: kept, because what the target does not have was to stay; `taken_out`: of the snapshot by a rewrite; `changed_since`: kept, because it was changed during the restore and stays as it is",
);
export type LeftOutReason = Of<typeof LeftOutReason>;
export const LeftOut = object({
  ...NamedPath.entries,
  reason: LeftOutReason,
  detail: text(),
  aspects: opt(rows(Aspect, "the parts that were not set, as `owner`; absent when it is the whole entry")),
});
export type LeftOut = Of<typeof LeftOut>;
export const Incomplete = object({
  count: number(),
  left_out: rows(LeftOut, "the first 100"),
});
export type Incomplete = Of<typeof Incomplete>;

export const Changes = object(
  { added: number(), modified: number("metadata alone counts, times too"), removed: number() },
  "counts of entries",
);
export type Changes = Of<typeof Changes>;

export const NotKept = object({
  count: number("entries that head has and the folder too, and that a rule leaves out now; not counted as removed"),
  paths: rows(NamedPath, "the first 100, without what lies below them"),
});
export type NotKept = Of<typeof NotKept>;

export const WorkspaceRef = object({
  name: text(),
  path: text("absolute"),
  path_b64: opt(text("the exact bytes in base64, where the path is not UTF-8")),
  id: workspaceId(),
  engine: EngineType,
  control_directory: text("absolute"),
});
export type WorkspaceRef = Of<typeof WorkspaceRef>;

export const EngineReason = object({
  engine: EngineType,
  chosen: flag(),
  reason: text("why it was chosen or passed over"),
  hint: opt(text("what would make it usable")),
});
export type EngineReason = Of<typeof EngineReason>;

export const Conversion = object(
  {
    original: text("where the folder lies as it was, absolute; it stays until somebody removes it"),
    original_b64: opt(text()),
    entries: number("what was copied and compared"),
    bytes: number(),
    duration_ms: number(),
  },
  "a plain folder that was made a subvolume in place",
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
  uid: number(),
  gid: number(),
  user: text(),
  group: text(),
  target: opt(text("of links")),
  target_b64: opt(text()),
});
export type ListedEntry = Of<typeof ListedEntry>;

/** Members of the `data` of commands that answer a save point. */
export const pointData = { save_point: SavePoint };

/** Members that `--json` adds for the content of a file. */
export const contentData = {
  content_b64: text("of a file of at most 256 MiB; without `--json` the bytes go to stdout"),
};

/** JSON has snake_case names, also of the rules of a policy. */
export function inSnakeCase(entries: Entries): Entries {
  const snake = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
  return Object.fromEntries(Object.entries(entries).map(([name, schema]) => [snake(name), schema]));
}
