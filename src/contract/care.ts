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
  repair: opt(flag("do what the findings say under `repair`")),
  breakLocks: opt(flag("take over another host's lock, even when its heartbeat cannot be judged")),
});
export type DoctorOptions = Of<typeof DoctorOptions>;
export const Finding = object({
  kind: text(),
  severity: oneOf(["info", "warning", "damage"]),
  detail: text(),
  repair: opt(text("what `--repair` does about it")),
  repaired: opt(flag("set by a repair")),
});
export type Finding = Of<typeof Finding>;
export const DoctorResult = object({
  healthy: flag("false: damage is left, exit 6"),
  findings: rows(Finding),
  engine: EngineType,
  engine_reasons: rows(EngineReason, "tried anew where the folder is there"),
});
export type DoctorResult = Of<typeof DoctorResult>;
export const doctor = verb({
  about: "Finds what is wrong, and mends it.",
  options: DoctorOptions,
  output: DoctorResult,
});

export const StoreInfo = object({
  repository: text("absolute; what restic's `-r` takes"),
  password_file: text(),
  repository_id: text(),
  restic_command: text("quoted for a shell; lists the snapshots"),
  bytes: number(),
  points: number(),
});
export type StoreInfo = Of<typeof StoreInfo>;
export const store = verb({
  about: "Says where the store is, and how restic opens it.",
  options: CallOptions,
  output: StoreInfo,
});

export const InspectOptions = object({
  ...CallOptions.entries,
  passwordFile: opt(place("the password of an encrypted file that lies outside a store")),
});
export type InspectOptions = Of<typeof InspectOptions>;
export const InspectResult = object({
  path: text(),
  format: text("as `save-point-descriptor`, `stat-cache`, `restic-index`"),
  version: orNull(number()),
  bytes: number(),
  content: anything("the decoded file without secrets; a long list is cut at 1000 and says so"),
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
  about: "Seals the points that only clones hold.",
  options: WorkspaceCallOptions,
  output: object({ sealed: number("how many points were read and stored") }),
});
export const sealWhenIdle = verb({
  about:
    "From now on seals the newest points whenever no call of this client is under way; the next call stops it, `close` ends it.",
  options: SealWhenIdleOptions,
  output: v.void(),
  how: "at once",
});
export const workspacePath = verb({
  about: "The folder of a workspace, absolute.",
  takes: [arg("name", opt(text()))],
  output: text(),
  how: "at once",
  errors: ["not_found"],
});

// --------------------------------------------------------------------------------- setting up, releasing

export const InitOptions = object({
  ...CallOptions.entries,
  name: opt(text("the workspace's name, 1 to 60 letters, digits, `-`, `_`; default: the folder's")),
  engineType: opt(
    about(
      EngineType,
      "default: the best that works; `btrfs-snapshot` makes a plain folder on btrfs a subvolume in place",
    ),
  ),
  quotaBytes: opt(size("how large the store may grow by saves; default: any size")),
  allow: allow("override a guard; later saves are not refused for where the folder lies"),
});
export type InitOptions = Of<typeof InitOptions>;
const ControlOptions = object({
  ...CallOptions.entries,
  controlDirectory: opt(place("where the control directory is, or shall be")),
});
export const OpenOptions = object({
  ...ControlOptions.entries,
  released: opt(flag("take up again a folder that was released, where its points are found")),
});
export type OpenOptions = Of<typeof OpenOptions>;
export const AdoptOptions = object({ ...InitOptions.entries, ...ControlOptions.entries });
export type AdoptOptions = Of<typeof AdoptOptions>;
export const RelocateOptions = object({
  ...ControlOptions.entries,
  allow: allow("override a guard of the new place: `home`, `nested`, `git`"),
});
export type RelocateOptions = Of<typeof RelocateOptions>;

export const EngineOptions = object({
  ...CallOptions.entries,
  allow: allow("`holders`: convert although open files cannot be known"),
  plain: opt(flag("with `reflink-copy`: a subvolume is made a plain folder in place")),
});
export type EngineOptions = Of<typeof EngineOptions>;
export const EngineResult = object({
  path: text(),
  engine: EngineType,
  engine_reasons: rows(EngineReason),
  conversion: opt(about(Conversion, "where the folder had to be converted for the engine")),
});
export type EngineResult = Of<typeof EngineResult>;
export const detectEngine = verb({
  about: "The best engine for a folder, or the one that a workspace has; nothing is left behind.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: EngineResult,
});
export const validateEngine = verb({
  about: "Fails with the reason where an engine does not work.",
  takes: [arg("path", place()), arg("type", EngineType)],
  options: CallOptions,
  output: v.void(),
  errors: ["unsupported"],
});
export const setEngine = verb({
  about:
    "Changes how further points hold content; `btrfs-snapshot` makes a plain folder on btrfs a subvolume in place.",
  takes: [arg("type", EngineType)],
  options: EngineOptions,
  output: EngineResult,
  errors: ["unsupported", "refused", "permission", "conflict"],
});

export const WorkspaceInfo = object({
  ...WorkspaceRef.entries,
  present: flag("false: the folder is gone or is another one"),
  points: number(),
  store_bytes: number("of the store, which all workspaces of one control directory share"),
  last_save_at: orNull(text()),
  problem: opt(text("why the rest could not be read")),
});
export type WorkspaceInfo = Of<typeof WorkspaceInfo>;
export const listWorkspaces = verb({
  about: "Lists the workspaces that the user's registry knows.",
  options: CallOptions,
  output: rows(WorkspaceInfo),
});

export const RelocateResult = object({ workspace: WorkspaceRef, from: text() });
export type RelocateResult = Of<typeof RelocateResult>;
export const relocate = verb({
  about:
    "Tells that a folder was moved; with `controlDirectory` that the control directory was, or only that where both paths are the same.",
  takes: [arg("oldPath", place()), arg("newPath", place())],
  options: RelocateOptions,
  output: RelocateResult,
  errors: ["not_found", "conflict"],
});

export const ReleaseOptions = object({
  ...WorkspaceCallOptions.entries,
  deletePoints: opt(flag("remove the points and, with the last workspace, the control directory")),
});
export type ReleaseOptions = Of<typeof ReleaseOptions>;
export const ReleaseResult = object({
  workspace: WorkspaceRef,
  points_deleted: number("0 when they were kept"),
  points_kept: number("points that stay in the control directory"),
  bytes_freed: number("of the store; what a clone took up is known to the file system alone"),
  complete: flag("false: something of the points is left in a store that stays; a warning says why"),
});
export type ReleaseResult = Of<typeof ReleaseResult>;
export const release = verb({
  about: "Stops keeping a folder; its files stay as they are.",
  options: ReleaseOptions,
  output: ReleaseResult,
});
export const forgetFolder = verb({
  about: "Forgets where a folder's points lay, when they are gone for good; false: it was not known.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: flag(),
  errors: ["conflict"],
});
export const find = verb({
  about: "The nearest workspace at or above a path, or null.",
  takes: [arg("path", place())],
  options: CallOptions,
  output: orNull(text()),
});
