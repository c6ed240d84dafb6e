import type { SavePointId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** Records of running cleanups. All decoders throw `damaged`, naming the field, or `newer_version`. */

export interface PlannedDrop {
  id: SavePointId;
  sequence: number;
  /** SHA-256 of the descriptor's bytes, in hex. */
  checksum: string;
}

/**
 * The record of a running removal of points. Writing the record is the commit: the next holder of the lock finishes the
 * removal.
 */
export interface CleanupFile {
  drop: PlannedDrop[];
  /** True: none of the content may stay in a pack. */
  thorough: boolean;
  /** True: pinned points are removed, too. */
  forced?: boolean;
}

/** `unfreed/<id>.json`: content that a removal left in the store. The next operation that frees space removes it. */
export interface UnfreedFile {
  /** Points whose marks in the store may also be left. */
  points: SavePointId[];
  /** As in `CleanupFile`. */
  thorough: boolean;
}

/**
 * The record of a removal of paths from points. Once it is written, the removal is decided: the next holder of the
 * workspace's lock finishes it.
 */
export interface RemovedPathsFile {
  at: string;
  /** Entries to remove, from the root of the workspace, each with everything below it. */
  paths: RecordedPath[];
  /** The points that hold one of the paths, by the names of their workspaces. */
  points: { workspace_name: string; ids: SavePointId[] }[];
}

const UNFREED = "cairn.unfreed";
const VERSION = 1;
const POINT_ID = /^[0-9a-f]{32}$/;

export function checkCleanup(fields: Fields): void {
  fields.list("drop", (element, label) => {
    const point = new Fields(element, label);
    point.hex("id", 32);
    point.integer("sequence", Number.MAX_SAFE_INTEGER, 1);
    point.hex("checksum", 64);
  });
  fields.boolean("thorough");
  if (fields.has("forced")) fields.boolean("forced");
}

export function checkRemovedPaths(fields: Fields): void {
  fields.time("at");
  fields.list("paths", (element, label) => checkPath(new Fields(element, label)));
  fields.list("points", (element, label) => {
    const points = new Fields(element, label);
    points.text("workspace_name");
    checkIds(points, "ids");
  });
}

export function encodeUnfreed(unfreed: UnfreedFile): Uint8Array {
  return encodeChecked(unfreed, (value) => encodeRecord(value, UNFREED, VERSION), decodeUnfreed);
}

export function decodeUnfreed(bytes: Uint8Array): UnfreedFile {
  const { value, fields } = decodeRecord(bytes, UNFREED, VERSION);
  checkIds(fields, "points");
  fields.boolean("thorough");
  return value as unknown as UnfreedFile;
}

function checkIds(fields: Fields, name: string): void {
  if (!fields.texts(name).every((id) => POINT_ID.test(id))) throw fields.wrong(name, "32 lower-case hex digits each");
}
