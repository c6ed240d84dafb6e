import type { SavePointId } from "../../ids.ts";
import type { Fields } from "../fields.ts";
import { checkEntries, type Operation, OPERATION_KINDS } from "./control.ts";

/** Metadata to set on a directory, besides its extended attributes. */
export interface DirectoryFacts {
  mode: number;
  uid: number;
  gid: number;
  mtime_sec: number;
  mtime_ns: number;
}

/** The record of a running restore in place. */
export interface RestoreFile extends Omit<Operation, "restored_to" | "partly" | "head_before"> {
  target: SavePointId;
  /** absolute */
  staging: string;
  root: DirectoryFacts | null;
}

export function checkRestore(fields: Fields): void {
  fields.hex("target", 32);
  fields.hex("undo_id", 32);
  checkKind(fields);
  checkEntries(fields);
  fields.text("staging");
  const root = fields.objectOrNull("root");
  if (root !== null) checkFacts(root);
  fields.time("at");
}

export function checkExchange(fields: Fields): void {
  for (const key of ["target", "undo_id", "uuid"]) fields.hex(key, 32);
  checkKind(fields);
  if (!/^\.cairn-restore-[0-9a-f]{16}$/.test(fields.text("staging")))
    throw fields.wrong("staging", "the name of a staging folder");
}

function checkKind(fields: Fields): void {
  if (!OPERATION_KINDS.some((kind) => fields.isText("kind", kind)))
    throw fields.wrong("kind", OPERATION_KINDS.join(", "));
}

function checkFacts(facts: Fields): void {
  facts.integer("mode", 0o7777);
  for (const key of ["uid", "gid"]) facts.integer(key, 0xffffffff);
  facts.integer("mtime_sec", Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  facts.integer("mtime_ns", 999_999_999);
}
