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
import {
  allow,
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  WorkspaceCallOptions,
  WorkspaceRef,
} from "./words.ts";

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

export const StoreInfo = object({
  repository: text("absolute; what restic's `-r` takes"),
  password_file: text(),
  repository_id: text(),
  restic_command: text("quoted for a shell; lists the snapshots"),
  bytes: number(),
  points: number(),
});
export type StoreInfo = Of<typeof StoreInfo>;

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

export const WorkspaceInfo = object({
  ...WorkspaceRef.entries,
  present: flag("false: the folder is gone or is another one"),
  points: number(),
  store_bytes: number("of the store, which all workspaces of one control directory share"),
  last_save_at: orNull(text()),
  problem: opt(text("why the rest could not be read")),
});
export type WorkspaceInfo = Of<typeof WorkspaceInfo>;

export const RelocateResult = object({ workspace: WorkspaceRef, from: text() });
export type RelocateResult = Of<typeof RelocateResult>;

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
