import type { ControlId, SavePointId, WorkspaceId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { checkPath, type RecordedPath } from "./record.ts";

/** The process that does the work, identified as in a lock, so that others can tell whether it still runs. */
export interface PartialOwner {
  host: string;
  machine_id: string;
  boot_id: string;
  pid_namespace: string;
  pid: number;
  start_time: string;
}

/** The record of a folder that is being made elsewhere, or the folder of a view that is being removed. */
export interface PartialFile {
  purpose: "fork" | "restore" | "view";
  staging: RecordedPath;
  target: RecordedPath;
  owner: PartialOwner;
  /** Inode number of the new folder, if the file system keeps it. A folder with another inode must not be removed. */
  inode?: string;
  /** A name for the content that is being written: a later call that writes the same content may continue the work. */
  content?: string;
  /** The workspace that a fork creates for the folder; a recovery removes both. */
  workspace?: { id: WorkspaceId; point: SavePointId; inode: string };
  /** The control directory that a fork creates for itself. */
  control?: { path: string; id: ControlId };
  /** True: the entries are being moved into the target. */
  moving?: true;
  /** Mode of the target after the entries were moved. */
  mode?: number;
  /**
   * Folders without write permission for their owner, with their modes. The move opens these folders, then restores the
   * modes.
   */
  closed?: { path: string; path_b64?: string; mode: number }[];
  /** True: the target was complete, and is being removed. */
  closing?: true;
}

/** The record of a fork that is being removed. */
export interface ForkRemoval {
  owner: PartialOwner;
  workspace: { id: WorkspaceId; name: string };
  /** Path of the fork's folder. */
  target: RecordedPath;
  /** Name of the folder beside its path, from its move until it is removed or given back. */
  aside: string;
  /** Inode number of the folder, and when it was made, as in the workspace's record; null if that is unknown. */
  inode: string;
  made: string | null;
  /** The file system of the folder and its mount point, as in the workspace's record; absent if unknown. */
  filesystem_uuid?: string;
  mount_point?: RecordedPath;
  /** The point of the original workspace that has the fork's last state. */
  save_point_id: SavePointId;
  /** True: the fork is released, and the rest of its folder could not be removed; no process works on the folder. */
  rest?: boolean;
}

/** Prefix of the name of a fork's folder while it is being removed; 16 hex digits follow. */
export const ASIDE_PREFIX = ".cairn-removing-";

const PURPOSES = ["fork", "restore", "view"];
const OWNER_TEXTS = ["host", "machine_id", "boot_id", "pid_namespace", "start_time"];

export function checkPartial(fields: Fields): void {
  if (!PURPOSES.some((purpose) => fields.isText("purpose", purpose)))
    throw fields.wrong("purpose", `one of ${PURPOSES.join(", ")}`);
  checkPath(fields.object("staging"));
  checkPath(fields.object("target"));
  checkOwner(fields.object("owner"));
  fields.optionalText("content");
  if (fields.has("inode")) checkInode(fields);
  if (fields.has("workspace")) {
    const workspace = fields.object("workspace");
    workspace.hex("id", 32);
    workspace.hex("point", 32);
    checkInode(workspace);
  }
  if (fields.has("control")) {
    const control = fields.object("control");
    control.text("path");
    control.hex("id", 32);
  }
  if (fields.has("closed"))
    fields.list("closed", (element, label) => {
      const each = new Fields(element, label);
      checkPath(each);
      each.integer("mode", 0o7777);
    });
  if (fields.has("mode")) fields.integer("mode", 0o7777);
  for (const key of ["moving", "closing"]) if (fields.has(key)) fields.boolean(key);
}

export function checkForkRemoval(fields: Fields): void {
  checkOwner(fields.object("owner"));
  const workspace = fields.object("workspace");
  workspace.hex("id", 32);
  workspace.text("name");
  checkPath(fields.object("target"));
  // Only such a folder is moved or removed, whatever a record says.
  if (!new RegExp(`^\\${ASIDE_PREFIX}[0-9a-f]{16}$`).test(fields.text("aside")))
    throw fields.wrong("aside", `${ASIDE_PREFIX} and 16 hex digits`);
  checkInode(fields);
  if (!fields.isNull("made")) fields.text("made", 32);
  fields.optionalText("filesystem_uuid");
  if (fields.has("mount_point")) checkPath(fields.object("mount_point"));
  fields.hex("save_point_id", 32);
  if (fields.has("rest")) fields.boolean("rest");
}

function checkInode(fields: Fields): void {
  if (!/^\d{1,20}$/.test(fields.text("inode"))) throw fields.wrong("inode", "decimal digits");
}

function checkOwner(owner: Fields): void {
  for (const key of OWNER_TEXTS) owner.text(key);
  owner.integer("pid");
}
