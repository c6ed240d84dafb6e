import { Fields } from "../fields.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/**
 * `/.cairn/checks.json` of a snapshot: questions to a restored copy, with the answers. The file has no time and no id,
 * so that equal checks of equal states have equal bytes.
 */

const FORMAT = "cairn.checks";
const VERSION = 1;

/** The most probes of one backup, and the most bytes that each may print. */
export const MOST_PROBES = 64;
export const MOST_OUTPUT = 64 << 10;

/** The most characters of a command or query that is stored, so that a receipt with all of them stays readable. */
export const MOST_COMMAND = 4096;

/** A query whose rows name files of a folder. Paths are relative to the saved folder. */
export interface RowsRule {
  database: RecordedPath;
  folder: RecordedPath;
  query: string;
}

/** A command of the user, and its answer on a copy of the saved folder. */
export interface ProbeRecord {
  command: string;
  /** Exit status; null if the command was stopped. */
  status: number | null;
  /** Stdout in base64. The copy's path is written `$DIR`. */
  output_b64: string;
}

export interface SnapshotChecks {
  rows: RowsRule[];
  probes: ProbeRecord[];
}

export function encodeChecks(checks: SnapshotChecks): Uint8Array {
  return encodeChecked(checks, (value) => encodeRecord(value, FORMAT, VERSION), decodeChecks);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeChecks(bytes: Uint8Array): SnapshotChecks {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.list("rows", checkRowsRule);
  fields.list(
    "probes",
    (element, label) => {
      const probe = new Fields(element, label);
      probe.text("command", MOST_COMMAND);
      if (!probe.isNull("status")) probe.integer("status", 255);
      probe.base64("output_b64", MOST_OUTPUT * 2);
    },
    MOST_PROBES,
  );
  return value as unknown as SnapshotChecks;
}

/** Checks one rule of a list. */
export function checkRowsRule(element: unknown, label: string): void {
  const rule = new Fields(element, label);
  checkPath(rule.object("database"));
  checkPath(rule.object("folder"));
  rule.text("query", MOST_COMMAND);
}
