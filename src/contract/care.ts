import {
  about,
  count,
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
  storedCommand,
  text,
} from "./schema.ts";
import {
  allow,
  CallOptions,
  Conversion,
  EngineReason,
  EngineType,
  pointId,
  shownPlan,
  WorkspaceCallOptions,
  workspaceId,
  WorkspaceRef,
} from "./words.ts";

/** Verbs that set workspaces up, maintain them and end them. */

export const DoctorOptions = object({
  ...WorkspaceCallOptions.entries,
  repair: opt(flag("make the repairs that the findings name under `repair`")),
  breakLocks: opt(flag("take over another host's lock, even if its heartbeat cannot be checked"), {
    flags: "--force",
    text: "take over another host's lock; use it only if you know that the host is down",
  }),
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

const HOOKS = {
  before_save: orNull(text("null: none")),
  after_save: orNull(text()),
  before_backup: orNull(text()),
  after_backup: orNull(text()),
};
export const Hooks = object({ ...HOOKS, seconds: number("limit for each command") });
export type Hooks = Of<typeof Hooks>;
const hook = (when: string, name: string) =>
  opt(orNull(storedCommand(`command for the shell ${when}; null: none`)), {
    flags: `--${name} <command>`,
    text: `command for the shell ${when}; empty: none`,
  });
export const HooksEdit = object({
  beforeSave: hook(
    "before a save; files that it writes to $CAIRN_DUMPS are in the point; if it fails, nothing is saved",
    "before-save",
  ),
  afterSave: hook("after a save, also if the save fails", "after-save"),
  beforeBackup: hook("before `backup create` saves the folder; like before-save", "before-backup"),
  afterBackup: hook("after `backup create`, also if it fails", "after-backup"),
  seconds: opt(
    count("seconds after which a command is killed and counts as failed; default 3600"),
    "--time-limit <seconds>",
  ),
});
export type HooksEdit = Of<typeof HooksEdit>;

export const StoreInfo = object({
  repository: text("absolute; pass it to restic's `-r`"),
  password_file: text(),
  repository_id: text(),
  restic_command: text("a command, quoted for a shell, that lists the snapshots"),
  bytes: number(),
  points: number(),
});
export type StoreInfo = Of<typeof StoreInfo>;

// --------------------------------------------------------------------------------- setting up, releasing

const PLACED = "override a guard; later saves are then not refused because of the folder's place";
const ControlOptions = object({
  ...CallOptions.entries,
  controlDirectory: opt(place("path of the control directory, existing or new")),
});
export const OpenOptions = object({
  ...ControlOptions.entries,
  released: opt(flag("open a folder again that was released, if its points are found")),
});
export type OpenOptions = Of<typeof OpenOptions>;
export const RegisterOptions = object({
  ...ControlOptions.entries,
  name: opt(text("the workspace's name: 1 to 60 letters, digits, `-`, `_`; default: the folder's name"), {
    flags: "--name <name>",
    text: "name for the folder in listings; default: the folder's name (the workspace itself is called `main`)",
  }),
  engineType: opt(
    about(
      EngineType,
      "how points hold content; default: the best engine that works; `btrfs-snapshot` converts a plain folder on btrfs into a subvolume in place",
    ),
    "--engine <engine>",
  ),
  quotaBytes: opt(size("size to which saves may grow the store; default: no limit"), "--quota <size>"),
  allow: allow(PLACED, ["home", "nested", "git"]),
});
export type RegisterOptions = Of<typeof RegisterOptions>;
export const InitOptions = object({
  ...RegisterOptions.entries,
  allow: allow(PLACED, ["home", "nested", "git", "space", "holders"]),
  selfContained: opt(
    flag("make `<path>/main` the workspace and `<path>/.cairn` its control directory, in an absent or empty folder"),
    "--self-contained",
  ),
});
export type InitOptions = Of<typeof InitOptions>;
export const RelocateOptions = object({
  ...ControlOptions.entries,
  allow: allow("override a guard for the new path: `home`, `nested`, `git`", ["home", "nested", "git"]),
});
export type RelocateOptions = Of<typeof RelocateOptions>;

export const EngineOptions = object({
  ...CallOptions.entries,
  allow: allow("`holders`: convert even if the processes with open files cannot be listed", ["holders"]),
  plain: opt(flag("with `reflink-copy`: convert a subvolume back into a plain folder, in place")),
});
export type EngineOptions = Of<typeof EngineOptions>;
export const EngineResult = object({
  path: text(),
  engine: EngineType,
  engine_reasons: rows(EngineReason),
  conversion: opt(about(Conversion, "present if the folder had to be converted for the engine")),
});
export type EngineResult = Of<typeof EngineResult>;

export const WorkspaceInfo = object({
  ...WorkspaceRef.entries,
  present: flag("false: the folder is missing, or another folder is at its path"),
  points: number(),
  store_bytes: number("size of the store, which all workspaces of one control directory share"),
  last_save_at: orNull(text()),
  origin: opt(
    object(
      { workspace_id: workspaceId(), save_point_id: pointId() },
      "a fork: the workspace and the point of which it was made",
    ),
  ),
  problem: opt(text("why the other members could not be read")),
});
export type WorkspaceInfo = Of<typeof WorkspaceInfo>;

export const RelocateResult = object({ workspace: WorkspaceRef, from: text() });
export type RelocateResult = Of<typeof RelocateResult>;

export const ReleaseOptions = object({
  ...WorkspaceCallOptions.entries,
  deletePoints: opt(
    flag("also delete its save points, permanently; with the last workspace, the control directory too"),
  ),
  plan: shownPlan(),
});
export type ReleaseOptions = Of<typeof ReleaseOptions>;
export const ReleasePlan = object({
  id: text("the plan's id, for `plan` of a release with `deletePoints`"),
  workspace: WorkspaceRef,
  save_point_ids: rows(pointId(), "the points that are deleted, newest first"),
  control_directory_goes: flag("true: nothing else is in the control directory, which is deleted too"),
});
export type ReleasePlan = Of<typeof ReleasePlan>;
export const ReleaseResult = object({
  workspace: WorkspaceRef,
  points_deleted: number("0 if the points were kept"),
  points_kept: number("points that stay in the control directory"),
  bytes_freed: number("bytes freed in the store; only the file system knows the size of removed clones"),
  complete: flag("false: data of the points remains in the store; a warning says why"),
});
export type ReleaseResult = Of<typeof ReleaseResult>;
