import type { ObjectId, SavePointId, WorkspaceId } from "../../ids.ts";
import { Fields } from "../fields.ts";
import { checkRowsRule, type RowsRule } from "./checks.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, recordPath, type RecordedPath } from "./record.ts";

/**
 * The descriptor of a save point: written once, and replaced only by a removal of paths from the point. Its checksum,
 * the SHA-256 of the file's bytes, is kept outside.
 */

const DESCRIPTOR_FORMAT = "cairn.descriptor";
/** Version of points that hold a tree. Other points have version 1, which older programs can read. */
const HELD_VERSION = 2;
/** Version of points with databases by pages. */
const DESCRIPTOR_VERSION = 3;
/** The most omitted entries in the list; further ones are only counted. */
export const MAX_OMITTED = 1000;

/** The cause of the point. The causing operation may add fields. */
export interface Cause {
  /** `save`, `restore`, `undo`, `run`, `schedule`, `fork`, `backup`, `tool` or a word of the caller. */
  kind: string;
  [key: string]: unknown;
}

/** Mode, owner and modification time of the workspace's root, which no digest covers. */
export interface RootMetadata {
  mode: number;
  uid: number;
  gid: number;
  user: string;
  group: string;
  mtime_sec: number;
  mtime_ns: number;
  /**
   * The group's permissions in the access list of the root; `mode` has the list's mask instead. Absent if the root has
   * no list.
   */
  acl_group?: number;
}

/** A whole tree that a point holds: in `tree` beside its descriptor, or shared with another point. */
export interface HeldTree {
  /** The engine that made the tree. */
  engine: string;
  /** Time before the tree was made: its content is from this time or later. UTC with milliseconds. */
  at: string;
  /**
   * Time of the last change of an entry in the tree, in ms since 1970. Present if the descriptor was written before the
   * tree was made: a tree with another time is not this descriptor's.
   */
  last_change?: number;
  /**
   * Sequence number of an earlier point whose tree this point shares, unless a tree is beside this descriptor. Nothing
   * changed between both points.
   */
  tree_of?: number;
  /** SQLite databases that no process wrote while the tree was made. */
  still?: RecordedPath[];
}

export interface DescriptorContent {
  /** The tree blob of the workspace's root; "" if the point holds a tree and is not sealed yet. */
  tree: ObjectId | "";
  /** The snapshot's tree, with the path from `/` down to the workspace; "" as for `tree`. */
  snapshot_tree: ObjectId | "";
  /** The root's tree in the snapshot, without the databases that lie there by pages; absent: `tree`. */
  stored_tree?: ObjectId;
  /** For information only: a lost snapshot is written again. */
  snapshot: ObjectId | null;
  root: RootMetadata;
  /** Absent if the content was put into the store from the start. */
  held?: HeldTree;
}

export interface EntryCounts {
  files: number;
  directories: number;
  links: number;
  other: number;
}

/** Label of an entry that may be inconsistent: it was not read whole, or changed meanwhile. */
export interface ConsistencyLabel extends RecordedPath {
  label: string;
  [key: string]: unknown;
}

/** Returns the aspects of an entry that the point lacks, e.g. `["xattrs"]`; empty if the label names none. */
export function lackingAspects({ aspects }: ConsistencyLabel): string[] {
  return Array.isArray(aspects) ? aspects.map(String) : [];
}

export interface OmittedEntry extends RecordedPath {
  reason: string;
}

export interface IgnoreRules {
  /** True if `.cairnignore` files were applied. */
  ignore_file: boolean;
  exclude: string[];
  /** The ignore files that were applied: their directories and texts. */
  files?: (RecordedPath & { text: string; text_b64?: string })[];
  ignored_count: number;
  ignored_sample: RecordedPath[];
  /** True: the save entered file systems that were mounted inside. */
  cross_mounts?: boolean;
}

/** A removal of paths from a point: the point no longer has its former digest. */
export interface Rewriting {
  /** RFC 3339 */
  at: string;
  /** The removed entries, each with everything below it; at most the first 1000. */
  paths: RecordedPath[];
  /** The state digest before the removal, 64 hex digits; null if unknown. */
  digest_before: string | null;
}

export interface Descriptor {
  save_point_id: SavePointId;
  workspace_id: WorkspaceId;
  workspace_name: string;
  /** Position in the workspace's order, from 1. */
  sequence: number;
  /** `2026-11-20T09:15:19.123Z` */
  created_at: string;
  message: string;
  tags: string[];
  /** The id that the caller chose, beside `save_point_id`; also the first tag, for older programs. */
  chosen_id?: string;
  engine: string;
  effective_engine: string;
  degraded: string[];
  parent_id: SavePointId | null;
  restored_from: SavePointId | null;
  cause: Cause;
  content: DescriptorContent;
  state_digest: string | null;
  metadata_digest: string | null;
  /** False if entries were omitted. */
  complete: boolean;
  entries: EntryCounts;
  /** Bytes of all files. */
  bytes: number;
  /** Bytes that the save added to the store. */
  bytes_stored: number;
  unchanged: boolean;
  labels: ConsistencyLabel[];
  /** The first omitted entries, at most 1000. */
  omitted: OmittedEntry[];
  omitted_count: number;
  rules: IgnoreRules;
  /** Removals of paths from the point after it was made, oldest first. */
  rewritten?: Rewriting[];
  /** Queries whose rows name files, given by the save. */
  rows?: RowsRule[];
  /** True: a restore or an undo made the point, to keep the state before it. */
  undo: boolean;
  /** Id maps of the user namespace in which the save ran. The point has the outside ids. Absent: the namespace had all ids. */
  namespace?: { uids: IdRange[]; gids: IdRange[] };
}

/** First id inside, first id outside, number of ids. */
type IdRange = readonly number[];

/** Returns the list and number of omitted entries for a descriptor, in the order of their paths. */
export function omittedOf(
  entries: readonly { path: Uint8Array; reason: string }[],
): Pick<Descriptor, "omitted" | "omitted_count"> {
  const omitted = entries.slice(0, MAX_OMITTED).map(({ path, reason }) => ({ ...recordPath(path), reason }));
  return { omitted, omitted_count: entries.length };
}

/** Encodes a descriptor and reads it back. Throws `internal` if a field has an impossible value. */
export function encodeDescriptor(descriptor: Descriptor): Uint8Array {
  return encodeChecked(
    descriptor,
    (value) => encodeRecord(value, DESCRIPTOR_FORMAT, versionOf(value.content)),
    decodeDescriptor,
  );
}

function versionOf({ held, stored_tree: stored }: DescriptorContent): number {
  if (stored !== undefined) return DESCRIPTOR_VERSION;
  return held === undefined ? 1 : HELD_VERSION;
}

/** Decodes a descriptor; unknown fields stay. Throws `damaged`, naming the field, or `newer_version`. */
export function decodeDescriptor(bytes: Uint8Array): Descriptor {
  const { value, fields } = decodeRecord(bytes, DESCRIPTOR_FORMAT, DESCRIPTOR_VERSION);
  checkIdentity(fields);
  checkContent(fields.object("content"));
  fields.boolean("undo");
  if (fields.has("rows")) fields.list("rows", checkRowsRule);
  if (fields.has("namespace")) checkNamespace(fields.object("namespace"));
  checkState(fields);
  return value as unknown as Descriptor;
}

function checkNamespace(namespace: Fields): void {
  for (const key of ["uids", "gids"])
    namespace.list(key, (range) => {
      const isRange =
        Array.isArray(range) && range.length === 3 && range.every((id) => Number.isInteger(id) && id >= 0);
      if (!isRange) throw namespace.wrong(key, "ranges of ids, of three numbers each");
    });
}

/** Checks the fields that sealing fills: digests, counts, omitted entries, rules. */
export function checkState(fields: Fields): void {
  fields.hexOrNull("state_digest", 64);
  fields.hexOrNull("metadata_digest", 64);
  fields.boolean("complete");
  const entries = fields.object("entries");
  for (const key of ["files", "directories", "links", "other"]) entries.integer(key);
  fields.integer("bytes");
  fields.integer("bytes_stored");
  fields.boolean("unchanged");
  fields.list("labels", checkLabel);
  const omitted = fields.list("omitted", checkOmitted, MAX_OMITTED);
  fields.integer("omitted_count", Number.MAX_SAFE_INTEGER, omitted.length);
  checkRules(fields.object("rules"));
  if (fields.has("rewritten")) fields.list("rewritten", checkRewriting);
}

function checkRewriting(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  fields.time("at");
  fields.list("paths", (path, name) => checkPath(new Fields(path, name)), MAX_OMITTED);
  fields.hexOrNull("digest_before", 64);
}

function checkIdentity(fields: Fields): void {
  fields.hex("save_point_id", 32);
  fields.hex("workspace_id", 32);
  fields.text("workspace_name");
  fields.integer("sequence", Number.MAX_SAFE_INTEGER, 1);
  if (!/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(fields.time("created_at"))) {
    throw fields.wrong("created_at", "a UTC time with milliseconds");
  }
  fields.text("message");
  fields.texts("tags");
  fields.optionalText("chosen_id");
  if (fields.text("engine") === "") throw fields.wrong("engine", "the name of an engine");
  if (fields.text("effective_engine") === "") throw fields.wrong("effective_engine", "the name of an engine");
  fields.texts("degraded");
  fields.hexOrNull("parent_id", 32);
  fields.hexOrNull("restored_from", 32);
  const cause = fields.object("cause");
  if (cause.text("kind") === "") throw cause.wrong("kind", "a word");
}

function checkContent(content: Fields): void {
  const isOpen = content.has("held") && content.text("tree") === "";
  if (content.has("held")) checkHeld(content.object("held"));
  if (isOpen) {
    if (content.text("snapshot_tree") !== "") throw content.wrong("snapshot_tree", "empty, as the tree is");
  } else checkTrees(content);
  const root = content.object("root");
  root.integer("mode", 0o7777);
  root.integer("uid", 0xffffffff);
  root.integer("gid", 0xffffffff);
  root.text("user");
  root.text("group");
  root.integer("mtime_sec", Number.MAX_SAFE_INTEGER, Number.MIN_SAFE_INTEGER);
  root.integer("mtime_ns", 999999999);
  if (root.has("acl_group")) root.integer("acl_group", 7);
}

function checkHeld(held: Fields): void {
  if (held.text("engine") === "") throw held.wrong("engine", "the name of an engine");
  held.time("at");
  if (held.has("last_change")) held.number("last_change");
  if (held.has("still")) held.list("still", (element, label) => checkPath(new Fields(element, label)));
  if (held.has("tree_of")) held.integer("tree_of", Number.MAX_SAFE_INTEGER, 1);
}

/** Checks the ids of the content in the store. */
export function checkTrees(content: Fields): void {
  content.hex("tree", 64);
  content.hex("snapshot_tree", 64);
  if (content.has("stored_tree")) content.hex("stored_tree", 64);
  content.hexOrNull("snapshot", 64);
}

function checkLabel(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  checkPath(fields);
  fields.text("label");
}

function checkOmitted(element: unknown, label: string): void {
  const fields = new Fields(element, label);
  checkPath(fields);
  fields.text("reason");
}

function checkRules(rules: Fields): void {
  rules.boolean("ignore_file");
  rules.texts("exclude");
  rules.integer("ignored_count");
  if (rules.has("cross_mounts")) rules.boolean("cross_mounts");
  rules.list("ignored_sample", (element, label) => checkPath(new Fields(element, label)), MAX_OMITTED);
}
