import type { SavePointId, WorkspaceId } from "../../ids.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/** `views/<id>.json`: an open view. The record stays until the view is closed, even if its process ends. */
export interface ViewFile {
  view_id: string;
  save_point_id: SavePointId;
  workspace_id: WorkspaceId;
  /** absolute */
  path: string;
  opened_at: string;
  method: string;
}

const FORMAT = "cairn.view";
const VERSION = 1;

export function encodeView(view: ViewFile): Uint8Array {
  return encodeChecked(view, (value) => encodeRecord(value, FORMAT, VERSION), decodeView);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeView(bytes: Uint8Array): ViewFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.hex("view_id", 16);
  fields.hex("save_point_id", 32);
  fields.hex("workspace_id", 32);
  fields.text("path");
  fields.time("opened_at");
  fields.text("method");
  return value as unknown as ViewFile;
}
