import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, type RecordedPath } from "./record.ts";

/** State of a daemon: its backend and the folders that it serves. Layout: docs/formats/daemon-state.md. */
const FORMAT = "cairn.daemon-state";
const VERSION = 1;

/**
 * `btrfs-base`: folders are subvolumes of a btrfs, where they lie; `btrfs-loop`: they are moved into a btrfs in an image
 * file; `plain`: the engine of each is what its place offers.
 */
export const BACKENDS = ["btrfs-base", "btrfs-loop", "plain"] as const;
export type BackendType = (typeof BACKENDS)[number];
export type SelectionMethod = "config-override" | "persisted" | "auto-detect";

export interface DaemonState {
  backend: {
    type: BackendType;
    selection_method: SelectionMethod;
    /** When it was chosen. */
    selected_at: string;
    /** UUID of the file system below `data_root`; null for `plain`. */
    filesystem_uuid: string | null;
  };
  paths: {
    /** The folder below which workspaces lie with a btrfs backend; null for `plain`. */
    data_root: string | null;
    loop_image: LoopImage | null;
  };
  workspaces: ServedWorkspace[];
  /** Folders that are being moved onto the image, or back; absent: none. */
  moves?: FolderMove[];
  /** Snapshots that were taken over from ws-ckpt, by their workspace there; absent: none. */
  migrated?: { id: string; snapshots: string[] }[];
  schedules: {
    /** One of each thing that is done by the clock; absent: none. */
    runs?: ScheduledRun[];
    /** Jobs that fail or are late, while the configuration names an alarm; absent: none. */
    alarms?: RaisedAlarm[];
  };
}

/** Things that are done by the clock. */
export const SCHEDULED = ["cleanup", "backup", "verify", "restore-check", "prune"] as const;

/** The last times of one thing that is done by the clock. */
export interface ScheduledRun {
  /** One of `SCHEDULED`, or what a later version does. */
  kind: string;
  /** Location of the repository, never with a secret in it; null: none has a part in it. */
  repository: string | null;
  /** Id of the workspace; null: of none by itself. */
  workspace: string | null;
  /** When it was first asked for. */
  since: string;
  /** When the last run ended that was not stopped. */
  ran_at: string | null;
  /** When the last run ended that was good. */
  good_at: string | null;
  /** Failure of the last run; null: it was good, or there was none. */
  error: string | null;
  /** Code and hint of `error`; absent: it has none. */
  code?: string;
  hint?: string;
  /** Times at which a verification read each part of the packs last, or was first asked to. */
  parts_read_at?: string[];
}

/** One job that fails or is late, and whether its alarm was called. */
export interface RaisedAlarm {
  /** `save`, `backup`, `proof`, or another kind of run. */
  what: string;
  /** Id of the workspace; null: of none by itself. */
  workspace: string | null;
  repository: string | null;
  /** `well` only until the alarm was called. */
  state: "failed" | "late" | "well";
  since: string;
  /** True: the alarm was called for this state. */
  told: boolean;
}

export interface LoopImage {
  path: string;
  bytes: number;
  /** The device when it was mounted last; only to be read by people. */
  last_device: string | null;
  /** The mount point of an image that ws-ckpt made, which stays at its path; absent: it is this daemon's own. */
  mount?: string;
}

/** A folder whose path becomes a link to the target, or the other way round. Texts: such a path is UTF-8. */
export interface FolderMove {
  path: string;
  target: string;
  /** Beside the path: the link or the copy before they change places, the original after it. */
  aside: string;
  back: boolean;
  /** The folder's inode before it was moved, as text; empty for the way back. */
  inode: string;
}

export interface ServedWorkspace extends RecordedPath {
  id: string;
  registered_at: string;
  origin_backend: BackendType;
  control_directory: string;
  /** The folder's owner when it was registered; absent: not known, so that root alone may act on it. */
  owner_uid?: number;
  /** UUID of the folder's subvolume when it was registered; null for a plain folder. */
  subvolume_uuid: string | null;
  /** Points when they were last counted. */
  points: number;
  /** When a save by the clock found the folder equal to its newest point, or made it so. */
  saved_at?: string;
  /** The last save by the clock that failed; absent: a later one was good. */
  save_failed?: { at: string; code: string; message: string; hint: string | null };
  /** The path that is a link to the folder, where it was moved onto the image. */
  link?: string;
  /** Absent: it is kept. Else it is being given up, and the next start finishes that. */
  releasing?: { delete_points: boolean };
}

/** Encodes it to be read by people too, one member a line. */
export function encodeDaemonState(state: DaemonState): Uint8Array {
  const { format: _format, version: _version, ...members } = state as DaemonState & Record<string, unknown>;
  return Buffer.from(`${JSON.stringify({ format: FORMAT, version: VERSION, ...members }, null, 2)}\n`, "utf8");
}

/** Members that a later writer added are kept, at any depth. Throws `damaged` naming the field, or `newer_version`. */
export function decodeDaemonState(bytes: Uint8Array): DaemonState {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  const backend = fields.object("backend");
  oneOf(backend, "type", BACKENDS);
  oneOf(backend, "selection_method", ["config-override", "persisted", "auto-detect"]);
  backend.time("selected_at");
  if (!backend.isNull("filesystem_uuid")) backend.text("filesystem_uuid", 100);
  const paths = fields.object("paths");
  if (!paths.isNull("data_root")) paths.text("data_root");
  const image = paths.objectOrNull("loop_image");
  if (image !== null) {
    image.text("path");
    image.integer("bytes");
    if (!image.isNull("last_device")) image.text("last_device", 200);
    image.optionalText("mount");
  }
  fields.list("workspaces", checkWorkspace, 1 << 20);
  if (fields.has("moves"))
    fields.list("moves", (element, label) => {
      const move = new Fields(element, label);
      for (const key of ["path", "target", "aside", "inode"]) move.text(key);
      move.boolean("back");
    });
  if (fields.has("migrated"))
    fields.list("migrated", (element, label) => {
      const migrated = new Fields(element, label);
      migrated.text("id", 100);
      migrated.texts("snapshots");
    });
  const schedules = fields.object("schedules");
  if (schedules.has("runs")) schedules.list("runs", checkRun, 1 << 20);
  if (schedules.has("alarms")) schedules.list("alarms", checkAlarm, 1 << 20);
  return value as unknown as DaemonState;
}

function checkWorkspace(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  checkPath(fields);
  fields.hex("id", 32);
  fields.time("registered_at");
  oneOf(fields, "origin_backend", BACKENDS);
  fields.text("control_directory");
  if (!fields.isNull("subvolume_uuid")) fields.text("subvolume_uuid", 100);
  fields.integer("points");
  fields.optionalText("link");
  if (fields.has("releasing")) fields.object("releasing").boolean("delete_points");
  if (fields.has("saved_at")) fields.time("saved_at");
  if (fields.has("save_failed")) {
    const failed = fields.object("save_failed");
    failed.time("at");
    for (const key of ["code", "message"]) failed.text(key);
    if (!failed.isNull("hint")) failed.text("hint");
  }
  if (fields.has("owner_uid")) fields.integer("owner_uid", 2 ** 32 - 1);
}

function checkRun(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  fields.text("kind", 100);
  if (!fields.isNull("repository")) fields.text("repository");
  if (!fields.isNull("workspace")) fields.hex("workspace", 32);
  fields.time("since");
  for (const key of ["ran_at", "good_at"]) if (!fields.isNull(key)) fields.time(key);
  if (!fields.isNull("error")) fields.text("error");
  for (const key of ["code", "hint"]) fields.optionalText(key);
  if (fields.has("parts_read_at"))
    fields.list("parts_read_at", (at, part) => new Fields({ at }, part).time("at"), 1 << 20);
}

function checkAlarm(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  fields.text("what", 100);
  if (!fields.isNull("repository")) fields.text("repository");
  if (!fields.isNull("workspace")) fields.hex("workspace", 32);
  oneOf(fields, "state", ["failed", "late", "well"]);
  fields.time("since");
  fields.boolean("told");
}

function oneOf(fields: Fields, key: string, values: readonly string[]): void {
  if (!values.includes(fields.text(key, 100))) throw fields.wrong(key, `one of ${values.join(", ")}`);
}
