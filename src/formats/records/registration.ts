import type { ControlId, WorkspaceId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** An entry of a user's registry: a folder, and the control directory that keeps its points. */
export interface Registration extends RecordedPath {
  /** Absolute path of the control directory. */
  control: RecordedPath;
  control_id: ControlId;
  workspace_id: WorkspaceId;
  workspace_name: string;
  registered_at: string;
}

const FORMAT = "cairn.registration";
const VERSION = 1;

/** Encodes a registration and reads it back. */
export function encodeRegistration(record: Registration): Uint8Array {
  return encodeChecked(record, (value) => encodeRecord(value, FORMAT, VERSION), decodeRegistration);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeRegistration(bytes: Uint8Array): Registration {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  checkPath(fields);
  checkPath(new Fields(value["control"], FORMAT));
  fields.hex("control_id", 32);
  fields.hex("workspace_id", 32);
  fields.text("workspace_name");
  fields.time("registered_at");
  return value as unknown as Registration;
}
