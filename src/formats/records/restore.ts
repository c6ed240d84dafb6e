import type { SavePointId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { OPERATION_KINDS, type OperationKind } from "./control.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** Metadata that a directory is set to beside its extended attributes. */
export interface DirectoryFacts {
  mode: number;
  uid: number;
  gid: number;
  mtime_sec: number;
  mtime_ns: number;
}

/**
 * A directory inside the folder between which and its surroundings nothing can be renamed: something is mounted there,
 * or it is a subvolume. What changes below it is staged in it. With what it was before anything was made in it.
 */
export type PlaceApart = RecordedPath & DirectoryFacts;

/** `journal/restore.json`: a restore in place that is under way. Its file holds a checksum besides. */
export interface RestoreFile {
  target: SavePointId;
  undo_id: SavePointId;
  kind: OperationKind;
  paths: RecordedPath[] | null;
  keep_present?: boolean;
  /** absolute */
  staging: string;
  /** places that have a staging directory of their own, of the same name */
  apart?: PlaceApart[];
  root: DirectoryFacts | null;
  at: string;
}

const FORMAT = "cairn.restore";
/**
 * 1 knows no places apart. 3: the steps beside it may begin with a format line; older readers, which know none, are told
 * by this file that they are too old, and do not take those for damage. 4: kinds besides restore and undo.
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
