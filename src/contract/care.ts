import {
  about,
  anything,
  flag,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  place,
  rows,
  size,
  text,
} from "./schema.ts";
import { arg, verb } from "./verb.ts";
import {
  allow,
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  SealWhenIdleOptions,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";
import * as v from "valibot";

/** Verbs that set workspaces up, look after them and end them. */

export const DoctorOptions = object({
  ...WorkspaceCallOptions.entries,
  repair: opt(flag("make the repairs that the findings name under `repair`")),
  breakLocks: opt(flag("take over another host's lock, even if its heartbeat cannot be checked")),
});
export type DoctorOptions = Of<typeof DoctorOptions>;
export const Finding = object({
  kind: text(),
  severity: oneOf(["info", "warning", "damage"]),
  detail: text(),
  repair: opt(text("what `--repair` would do")),
  repaired: opt(flag("true if a repair fixed it")),
});
export type Finding = Of<typeof Finding>;
export const DoctorResult = object({
  healthy: flag("false: damage remains; exit 6"),
  findings: rows(Finding),
  engine: EngineType,
  engine_reasons: rows(EngineReason, "tested again if the folder exists"),
});
export type DoctorResult = Of<typeof DoctorResult>;
export const doctor = verb({
  about: "Finds problems of a workspace and its store, and repairs them.",
  options: DoctorOptions,
  output: DoctorResult,
});

export const StoreInfo = object({
  repository: text("absolute; pass it to restic's `-r`"),
  password_file: text(),
  repository_id: text(),
  restic_command: text("a command, quoted for a shell, that lists the snapshots"),
  bytes: number(),
  points: number(),
});
export type StoreInfo = Of<typeof StoreInfo>;
export const store = verb({
  about: "Tells where the store is, and how to open it with restic.",
  options: CallOptions,
  output: StoreInfo,
});

export const InspectOptions = object({
  ...CallOptions.entries,
  passwordFile: opt(place("file with the password, for an encrypted file outside a store")),
});
export type InspectOptions = Of<typeof InspectOptions>;
export const InspectResult = object({
  path: text(),
  format: text("for example `save-point-descriptor`, `stat-cache`, `restic-index`"),
  version: orNull(number()),
  bytes: number(),
  content: anything("the decoded file without secrets; long lists are cut at 1000 items, with a note"),
});
export type InspectResult = Of<typeof InspectResult>;
export const inspect = verb({
  about: "Decodes any file that Cairn writes.",
  takes: [arg("file", place())],
  options: InspectOptions,
  output: InspectResult,
  errors: ["unsupported"],
});

export const seal = verb({
  about: "Seals the points that are held only as clones.",
  options: WorkspaceCallOptions,
  output: object({ sealed: number("number of points that were read and stored") }),
});
export const sealWhenIdle = verb({
  about:
    "From now on seals the newest points while the client has no call in progress. The next call pauses it, `close` ends it.",
  options: SealWhenIdleOptions,
  output: v.void(),
  how: "at once",
});
export const workspacePath = verb({
  about: "Returns the absolute path of a workspace's folder.",
  takes: [arg("name", opt(text()))],
  output: text(),
  how: "at once",
  errors: ["not_found"],
});

// --------------------------------------------------------------------------------- setting up, releasing

export const InitOptions = object({
  ...CallOptions.entries,
  name: opt(text("the workspace's name: 1 to 60 letters, digits, `-`, `_`; default: the folder's name")),
  engineType: opt(
    about(
      EngineType,
      "default: the best engine that works; `btrfs-snapshot` converts a plain folder on btrfs into a subvolume in place",
    ),
  ),
  quotaBytes: opt(size("size to which saves may grow the store; default: no limit")),
  allow: allow("override a guard; later saves are then not refused because of the folder's place"),
});
export type InitOptions = Of<typeof InitOptions>;
const ControlOptions = object({
  ...CallOptions.entries,
  controlDirectory: opt(place("path of the control directory, existing or new")),
});
export const OpenOptions = object({
  ...ControlOptions.entries,
  released: opt(flag("open a folder again that was released, if its points are found")),
});
export type OpenOptions = Of<typeof OpenOptions>;
export const AdoptOptions = object({ ...InitOptions.entries, ...ControlOptions.entries });
export type AdoptOptions = Of<typeof AdoptOptions>;
export const RelocateOptions = object({
  ...ControlOptions.entries,
  allow: allow("override a guard for the new path: `home`, `nested`, `git`"),
});
export type RelocateOptions = Of<typeof RelocateOptions>;

export const EngineOptions = object({
  ...CallOptions.entries,
  allow: allow("`holders`: convert even if the processes with open files cannot be listed"),
  plain: opt(flag("with `reflink-copy`: convert a subvolume into a plain folder in place")),
});
export type EngineOptions = Of<typeof EngineOptions>;
export const EngineResult = object({
  path: text(),
  engine: EngineType,
  engine_reasons: rows(EngineReason),
  conversion: opt(about(Conversion, "present if the folder had to be converted for the engine")),
});
export type EngineResult = Of<typeof EngineResult>;
export const detectEngine = verb({
  about: "Returns the best engine for a folder, or the engine of a workspace. The tests leave nothing behind.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: EngineResult,
});
export const validateEngine = verb({
  about: "Fails with the reason if an engine does not work for a folder.",
  takes: [arg("path", place()), arg("type", EngineType)],
  options: CallOptions,
  output: v.void(),
  errors: ["unsupported"],
});
export const setEngine = verb({
  about:
    "Changes the engine of later points. `btrfs-snapshot` converts a plain folder on btrfs into a subvolume in place.",
  takes: [arg("type", EngineType)],
  options: EngineOptions,
  output: EngineResult,
  errors: ["unsupported", "refused", "permission", "conflict"],
});

export const WorkspaceInfo = object({
  ...WorkspaceRef.entries,
  present: flag("false: the folder is missing, or another folder is at its path"),
  points: number(),
  store_bytes: number("size of the store, which all workspaces of one control directory share"),
  last_save_at: orNull(text()),
  problem: opt(text("why the other members could not be read")),
});
export type WorkspaceInfo = Of<typeof WorkspaceInfo>;
export const listWorkspaces = verb({
  about: "Lists the workspaces in the user's registry.",
  options: CallOptions,
  output: rows(WorkspaceInfo),
});

export const RelocateResult = object({ workspace: WorkspaceRef, from: text() });
export type RelocateResult = Of<typeof RelocateResult>;
export const relocate = verb({
  about:
    "Records that a folder was moved. With `controlDirectory` it records the control directory's new path too; with two equal paths only that.",
  takes: [arg("oldPath", place()), arg("newPath", place())],
  options: RelocateOptions,
  output: RelocateResult,
  errors: ["not_found", "conflict"],
});

export const ReleaseOptions = object({
  ...WorkspaceCallOptions.entries,
  deletePoints: opt(flag("delete the points, and with the last workspace the control directory")),
});
export type ReleaseOptions = Of<typeof ReleaseOptions>;
export const ReleaseResult = object({
  workspace: WorkspaceRef,
  points_deleted: number("0 if the points were kept"),
  points_kept: number("points that stay in the control directory"),
  bytes_freed: number("bytes freed in the store; only the file system knows the size of removed clones"),
  complete: flag("false: data of the points remains in the store; a warning says why"),
});
export type ReleaseResult = Of<typeof ReleaseResult>;
export const release = verb({
  about: "Ends a workspace: its folder becomes an ordinary folder, and its files stay as they are.",
  options: ReleaseOptions,
  output: ReleaseResult,
});
export const forgetFolder = verb({
  about:
    "Removes a folder's record from the registry when its points are gone for good. False: the folder had no record.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: flag(),
  errors: ["conflict"],
});
export const find = verb({
  about: "Returns the nearest workspace at or above a path, or null.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: orNull(text()),
});
