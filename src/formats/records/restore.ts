import type { SavePointId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { OPERATION_KINDS, type OperationKind } from "./control.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** Metadata to set on a directory, besides its extended attributes. */
export interface DirectoryFacts {
  mode: number;
  uid: number;
  gid: number;
  mtime_sec: number;
  mtime_ns: number;
}

/**
 * A mount point or subvolume inside the folder: nothing can be renamed across its boundary, so changes below it are
 * staged inside it. The facts are from before staging.
 */
export type PlaceApart = RecordedPath & DirectoryFacts;

/** `journal/restore.json`: a running restore in place. The file also has a checksum. */
export interface RestoreFile {
  target: SavePointId;
  undo_id: SavePointId;
  kind: OperationKind;
  paths: RecordedPath[] | null;
  keep_present?: boolean;
  /** absolute */
  staging: string;
  /** places with a staging directory of their own, which has the same name */
  apart?: PlaceApart[];
  root: DirectoryFacts | null;
  at: string;
}

const FORMAT = "cairn.restore";
/**
 * Version 1 has no places apart. 3: the steps file may begin with a format line; older programs must refuse it as
 * newer, not as damaged. 4: kinds other than restore and undo.
 */
const VERSION = 4;

export function encodeRestore(restore: RestoreFile): Uint8Array {
  return encodeChecked(restore, (value) => encodeRecord(value, FORMAT, VERSION), decodeRestore);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeRestore(bytes: Uint8Array): RestoreFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.hex("target", 32);
  fields.hex("undo_id", 32);
  if (!OPERATION_KINDS.some((kind) => fields.isText("kind", kind)))
    throw fields.wrong("kind", OPERATION_KINDS.join(", "));
  if (fields.has("paths")) fields.list("paths", (element, label) => checkPath(new Fields(element, label)));
  fields.text("staging");
  if (fields.has("apart"))
    fields.list("apart", (element, label) => {
      const place = new Fields(element, label);
      checkPath(place);
      checkFacts(place);
    });
  const root = fields.objectOrNull("root");
  if (root !== null) checkFacts(root);
  fields.time("at");
  return value as unknown as RestoreFile;
}

function checkFacts(facts: Fields): void {
  facts.integer("mode", 0o7777);
  for (const key of ["uid", "gid"]) facts.integer(key, 0xffffffff);
  facts.integer("mtime_sec", Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  facts.integer("mtime_ns", 999_999_999);
}
