import type { SavePointId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/** `backups.json` of a workspace: the newest backup of the workspace in each repository. For information only. */
export interface BackupsFile {
  /** Newest first. */
  backups: BackupNote[];
}

export interface BackupNote {
  repository_id: string;
  /** Without secrets. */
  location: string;
  snapshot_id: string;
  save_point_id: SavePointId;
  /**
   * Points that were backed up into this repository before, newest first. Their snapshots may have been removed since.
   */
  earlier?: SavePointId[];
  /** Time at which the snapshot was written. */
  at: string;
}

const FORMAT = "cairn.backups";
const VERSION = 1;

export function encodeBackups(file: BackupsFile): Uint8Array {
  return encodeChecked(file, (value) => encodeRecord(value, FORMAT, VERSION), decodeBackups);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeBackups(bytes: Uint8Array): BackupsFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.list("backups", (element, label) => {
    const note = new Fields(element, label);
    note.hex("repository_id", 64);
    note.text("location");
    note.hex("snapshot_id", 64);
    note.hex("save_point_id", 32);
    note.time("at");
    if (note.has("earlier")) note.texts("earlier");
  });
  return value as unknown as BackupsFile;
}
