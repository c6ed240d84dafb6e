import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, type RecordedPath } from "./record.ts";

/** State of a daemon: its backend and the folders that it serves. Layout: docs/formats/daemon-state.md. */
const FORMAT = "cairn.daemon-state";
const VERSION = 1;

/**
 * `btrfs-base`: folders are subvolumes of a btrfs, in their places. `btrfs-loop`: folders are moved into a btrfs in an
 * image file. `plain`: each folder uses the engine that its file system offers.
 */
export const BACKENDS = ["btrfs-base", "btrfs-loop", "plain"] as const;
export type BackendType = (typeof BACKENDS)[number];
export type SelectionMethod = "config-override" | "persisted" | "auto-detect";

export interface DaemonState {
  backend: {
    type: BackendType;
    selection_method: SelectionMethod;
    /** Time of the selection. */
    selected_at: string;
    /** UUID of the file system below `data_root`; null for `plain`. */
    filesystem_uuid: string | null;
  };
  paths: {
    /** The folder that holds the workspaces of a btrfs backend; null for `plain`. */
    data_root: string | null;
    loop_image: LoopImage | null;
  };
  workspaces: ServedWorkspace[];
  /** Folders that are being moved onto the image or back; absent if none. */
  moves?: FolderMove[];
  /** Snapshots that were migrated from ws-ckpt, by their ws-ckpt workspace; absent if none. */
  migrated?: { id: string; snapshots: string[] }[];
  /** Empty: the times of scheduled work are in records of their own. */
  schedules: object;
}

export interface LoopImage {
  path: string;
  bytes: number;
  /** The device of the last mount; for people only. */
  last_device: string | null;
  /** The mount point of an image that ws-ckpt made, which stays in its place; absent for the daemon's own image. */
  mount?: string;
}

/**
 * A folder that is replaced by a link to `target`, or a link that is replaced by the folder. The paths are texts: only
 * UTF-8 paths are moved.
 */
export interface FolderMove {
  path: string;
  target: string;
  /** A path beside `path`. Before the exchange it holds the link or the copy, after it the original. */
  aside: string;
  back: boolean;
  /** The folder's inode before the move, as text; empty on the way back. */
  inode: string;
  /** When the copy was complete, in ns since 1970 as text; absent before. A copy with later writes is not removed. */
  made?: string;
}

export interface ServedWorkspace extends RecordedPath {
  id: string;
  registered_at: string;
  origin_backend: BackendType;
  control_directory: string;
  /** The folder's owner at registration; absent if unknown: then only root may act on it. */
  owner_uid?: number;
  /** UUID of the folder's subvolume at registration; null for a plain folder. */
  subvolume_uuid: string | null;
  /** Number of points at the last count. */
  points: number;
  /** The path of a link to the folder, if the folder was moved onto the image. */
  link?: string;
  /** Present while the daemon gives the folder up; the next start finishes that. */
  releasing?: { delete_points: boolean };
}

/** Encodes one member a line, for people too. */
export function encodeDaemonState(state: DaemonState): Uint8Array {
  const { format: _format, version: _version, ...members } = state as DaemonState & Record<string, unknown>;
  return Buffer.from(`${JSON.stringify({ format: FORMAT, version: VERSION, ...members }, null, 2)}\n`, "utf8");
}

/** Keeps members of later versions, at any depth. Throws `damaged`, naming the field, or `newer_version`. */
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
      move.optionalText("made");
    });
  if (fields.has("migrated"))
    fields.list("migrated", (element, label) => {
      const migrated = new Fields(element, label);
      migrated.text("id", 100);
      migrated.texts("snapshots");
    });
  fields.object("schedules");
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
  if (fields.has("owner_uid")) fields.integer("owner_uid", 2 ** 32 - 1);
}

function oneOf(fields: Fields, key: string, values: readonly string[]): void {
  if (!values.includes(fields.text(key, 100))) throw fields.wrong(key, `one of ${values.join(", ")}`);
}
