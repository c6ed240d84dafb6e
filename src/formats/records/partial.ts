import type { ControlId, SavePointId, WorkspaceId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** The process that is at work, as in a lock: what tells whether it still is. */
export interface PartialOwner {
  host: string;
  machine_id: string;
  boot_id: string;
  pid_namespace: string;
  pid: number;
  start_time: string;
}

/** `partial/<id>.json`: a folder that is being made elsewhere, or a view's that is being taken away. */
export interface PartialFile {
  purpose: "fork" | "restore" | "view";
  staging: RecordedPath;
  target: RecordedPath;
  owner: PartialOwner;
  /** The inode number of the folder that was made, where it lasts: another that lies there is nobody's to remove. */
  inode?: string;
  /** Content that is being written, in a word of the caller's: whoever is about to write the same may go on with it. */
  content?: string;
  /** Workspace that a fork makes beside the folder, to be taken back with it. */
  workspace?: { id: WorkspaceId; point: SavePointId; inode: string };
  /** A control directory that a fork makes for itself. */
  control?: { path: string; id: ControlId };
  /** The entries are on their way into the target. */
  moving?: true;
  /** Mode of the target once the entries are in it. */
  mode?: number;
  /** Folders among them that their owner may not write to, which have to be opened to be moved, with the modes that they get back. */
  closed?: { path: string; path_b64?: string; mode: number }[];
  /** The target was whole, and is being taken away. */
  closing?: true;
}

const FORMAT = "cairn.partial";
const VERSION = 1;
const PURPOSES = ["fork", "restore", "view"];
const OWNER_TEXTS = ["host", "machine_id", "boot_id", "pid_namespace", "start_time"];

export function encodePartial(partial: PartialFile): Uint8Array {
  return encodeChecked(partial, (value) => encodeRecord(value, FORMAT, VERSION), decodePartial);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodePartial(bytes: Uint8Array): PartialFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
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
  return value as unknown as PartialFile;
}

function checkInode(fields: Fields): void {
  if (!/^\d{1,20}$/.test(fields.text("inode"))) throw fields.wrong("inode", "decimal digits");
}

function checkOwner(owner: Fields): void {
  for (const key of OWNER_TEXTS) owner.text(key);
  owner.integer("pid");
}
