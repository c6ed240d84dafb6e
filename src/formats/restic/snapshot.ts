import { CairnError } from "../../errors.ts";
import type { ObjectId } from "../../ids.ts";
import { Fields, goJsonText, parseJson, type JsonObject } from "../fields.ts";

/** A restic snapshot, with restic's field names. Its tree has the path from the root, one node a level. */
export interface Snapshot {
  /** RFC 3339, up to nanoseconds; the time of the saved state, not of the upload. */
  time: string;
  parent?: ObjectId;
  tree: ObjectId;
  paths: string[];
  hostname: string;
  username: string;
  uid: number;
  gid: number;
  excludes?: string[];
  tags?: string[];
  original?: ObjectId;
  program_version?: string;
  summary?: JsonObject;
  /** Members of other writers, written back unchanged. */
  extra?: JsonObject;
}

/** Returns the JSON bytes of a snapshot, in Go's order. Omits empty members. */
export function encodeSnapshot(snapshot: Snapshot): Uint8Array {
  const { extra, ...s } = snapshot;
  const members: JsonObject = { time: s.time, parent: s.parent, tree: s.tree, paths: s.paths };
  if (s.hostname !== "") members["hostname"] = s.hostname;
  if (s.username !== "") members["username"] = s.username;
  if (s.uid !== 0) members["uid"] = s.uid;
  if (s.gid !== 0) members["gid"] = s.gid;
  if (s.excludes !== undefined && s.excludes.length > 0) members["excludes"] = s.excludes;
  if (s.tags !== undefined && s.tags.length > 0) members["tags"] = s.tags;
  const tail = { original: s.original, program_version: s.program_version, summary: s.summary };
  return Buffer.from(goJsonText({ ...members, ...tail, ...extra }), "utf8");
}

/** Reads a snapshot of any writer. Throws `damaged`, naming the field. */
export function decodeSnapshot(bytes: Uint8Array): Snapshot {
  const fields = new Fields(parseJson(bytes, "snapshot"), "snapshot");
  const snapshot: Snapshot = {
    time: fields.time("time"),
    tree: fields.hex("tree", 64) as ObjectId,
    paths: fields.textsOrNone("paths"),
    hostname: fields.optionalText("hostname") ?? "",
    username: fields.optionalText("username") ?? "",
    uid: fields.optionalInteger("uid", 0xffffffff),
    gid: fields.optionalInteger("gid", 0xffffffff),
  };
  if (fields.has("parent")) snapshot.parent = fields.hex("parent", 64) as ObjectId;
  if (fields.has("excludes")) snapshot.excludes = fields.texts("excludes");
  if (fields.has("tags")) snapshot.tags = fields.texts("tags");
  if (fields.has("original")) snapshot.original = fields.hex("original", 64) as ObjectId;
  if (fields.has("program_version")) snapshot.program_version = fields.text("program_version");
  if (fields.has("summary")) snapshot.summary = fields.object("summary").rest();
  const extra = fields.rest();
  if (Object.keys(extra).length > 0) snapshot.extra = extra;
  return snapshot;
}

/** Splits tags at commas as restic does: removes white space around each, and drops empty ones. */
export function splitTags(text: string): string[] {
  return text
    .split(",")
    .map((tag) => tag.trim())
    .filter((tag) => tag !== "");
}

const MAX_TAG_LENGTH = 1000;

/** Control and other invisible characters: two names that differ only by them look alike. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;

/**
 * Throws `usage` for a tag that is empty, has white space at an end, an invisible character, or more than 1000
 * characters.
 */
export function checkTags(tags: readonly string[]): void {
  const wrong = tags.find(
    (each) => each === "" || each.trim() !== each || each.length > MAX_TAG_LENGTH || UNSEEN.test(each),
  );
  if (wrong === undefined) return;
  throw new CairnError("usage", `not a tag: ${JSON.stringify(wrong.slice(0, 80))}`, {
    hint: `use 1 to ${MAX_TAG_LENGTH} visible characters, without white space at the start or end`,
  });
}
