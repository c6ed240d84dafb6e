import { Fields, type JsonObject } from "../fields.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/** A number, or all. */
export type KeepCount = number | "unlimited";

/** Rules for cleanups without their own rules. Members have restic's names; spans look like `30d`, `1y6m`. */
export interface StoredRetention {
  keep_undo?: { count?: number; within?: string };
  keep_last?: KeepCount;
  keep_within?: string;
  keep_hourly?: KeepCount;
  keep_daily?: KeepCount;
  keep_weekly?: KeepCount;
  keep_monthly?: KeepCount;
  keep_yearly?: KeepCount;
  keep_within_hourly?: string;
  keep_within_daily?: string;
  keep_within_weekly?: string;
  keep_within_monthly?: string;
  keep_within_yearly?: string;
  /** Each element is a tag, or several tags with commas between them; see `splitTags`. */
  keep_tags?: string[];
  max_bytes?: number;
  max_age?: string;
}

/** Rules with the names that the library uses. */
export interface RetentionRules {
  keepUndo?: { count?: number; within?: string };
  keepLast?: KeepCount;
  keepWithin?: string;
  keepHourly?: KeepCount;
  keepDaily?: KeepCount;
  keepWeekly?: KeepCount;
  keepMonthly?: KeepCount;
  keepYearly?: KeepCount;
  keepWithinHourly?: string;
  keepWithinDaily?: string;
  keepWithinWeekly?: string;
  keepWithinMonthly?: string;
  keepWithinYearly?: string;
  keepTags?: readonly string[];
  maxBytes?: number;
  maxAge?: string;
}

const NAMES: Readonly<Record<keyof StoredRetention, keyof RetentionRules>> = {
  keep_undo: "keepUndo",
  keep_last: "keepLast",
  keep_within: "keepWithin",
  keep_hourly: "keepHourly",
  keep_daily: "keepDaily",
  keep_weekly: "keepWeekly",
  keep_monthly: "keepMonthly",
  keep_yearly: "keepYearly",
  keep_within_hourly: "keepWithinHourly",
  keep_within_daily: "keepWithinDaily",
  keep_within_weekly: "keepWithinWeekly",
  keep_within_monthly: "keepWithinMonthly",
  keep_within_yearly: "keepWithinYearly",
  keep_tags: "keepTags",
  max_bytes: "maxBytes",
  max_age: "maxAge",
};

/** Returns rules with the names of `policy.json`. */
export function storedRetention(rules: RetentionRules): StoredRetention {
  return renamed(
    rules,
    Object.entries(NAMES).map(([stored, name]) => [name, stored]),
  );
}

/** Returns rules with the library's names. Drops members that this version does not know. */
export function retentionOf(stored: StoredRetention): RetentionRules {
  return renamed(stored, Object.entries(NAMES));
}

function renamed(members: object, names: readonly (readonly [from: string, to: string])[]): object {
  const values = members as JsonObject;
  return Object.fromEntries(
    names.flatMap(([from, to]) => ((values[from] ?? null) === null ? [] : [[to, values[from]]])),
  );
}

/** `policy.json` of a control directory. */
export interface PolicyFile {
  /** Null: not set; everything is kept. */
  retention: StoredRetention | null;
  /** Null: not set; a share of the file system. */
  quota_bytes: number | null;
  /** The newest sealed points of a workspace whose held trees are kept. Null: {@link KEPT_TREES}. */
  kept_trees: number | null;
}

/** A policy without settings. */
export const NO_POLICY: PolicyFile = { retention: null, quota_bytes: null, kept_trees: null };
/** Enough to go back at once to recent points; many snapshots make btrfs slow. */
export const KEPT_TREES = 8;
export const MAX_KEPT_TREES = 10_000;

const FORMAT = "cairn.policy";
const VERSION = 1;
const COUNTS = ["keep_last", "keep_hourly", "keep_daily", "keep_weekly", "keep_monthly", "keep_yearly"];
const SPANS = [
  "keep_within",
  "keep_within_hourly",
  "keep_within_daily",
  "keep_within_weekly",
  "keep_within_monthly",
  "keep_within_yearly",
  "max_age",
];
const SPAN = /^(?:\d{1,6}[ymwdh]){1,5}$/;

/** True for a span such as `30d`, `2w`, `12h` or `1y6m`. */
function isSpan(text: string): boolean {
  return SPAN.test(text);
}

/** Throws `damaged`, naming the member, if a rule has an invalid value. */
export function checkRules(rules: RetentionRules): void {
  checkRetention(new Fields(storedRetention(rules), "retention"));
}

/** Throws `damaged`, naming the member, if a stored rule has an invalid value. */
export function checkRetention(fields: Fields): void {
  for (const key of COUNTS) if (!fields.isText(key, "unlimited")) fields.optionalInteger(key);
  fields.optionalInteger("max_bytes");
  for (const key of SPANS) checkSpan(fields, key);
  if (fields.has("keep_tags")) fields.texts("keep_tags");
  if (!fields.has("keep_undo")) return;
  const undo = fields.object("keep_undo");
  undo.optionalInteger("count");
  checkSpan(undo, "within");
}

function checkSpan(fields: Fields, key: string): void {
  if (fields.has(key) && !isSpan(fields.text(key))) throw fields.wrong(key, "a span such as 30d, 2w or 1y6m");
}

/** Encodes a policy and reads it back. */
export function encodePolicy(policy: PolicyFile): Uint8Array {
  return encodeChecked(policy, (value) => encodeRecord(value, FORMAT, VERSION), decodePolicy);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodePolicy(bytes: Uint8Array): PolicyFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  if (fields.has("retention")) checkRetention(fields.object("retention"));
  if (fields.has("quota_bytes")) fields.integer("quota_bytes");
  if (fields.has("kept_trees")) fields.integer("kept_trees", MAX_KEPT_TREES);
  const set = Object.entries(NO_POLICY).map(([key, unset]) => [key, value[key] ?? unset]);
  return { ...value, ...Object.fromEntries(set) } as PolicyFile;
}
