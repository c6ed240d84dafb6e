import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "../records/record.ts";

/**
 * `original.json` of a workspace: the folder before its conversion, kept until the first point after the conversion.
 */
export interface OriginalFile extends RecordedPath {
  /** Decimal digits. A folder with another inode at the path is not the original. */
  inode: string;
  /** Decimal digits, ns since 1970. Changes to the original from this time on are missing in the converted folder. */
  unchanged_since: string;
  /** Highest sequence number at the time of recording. A point with a higher one allows the removal of the original. */
  after: number;
  at: string;
  /** True: the removal has begun. */
  going: boolean;
}

const FORMAT = "cairn.original";
const VERSION = 1;

export function encodeOriginal(original: OriginalFile): Uint8Array {
  return encodeChecked(original, (value) => encodeRecord(value, FORMAT, VERSION), decodeOriginal);
}

/** Throws `damaged`, naming the field, or `newer_version`; unknown fields stay. */
export function decodeOriginal(bytes: Uint8Array): OriginalFile {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  checkPath(fields);
  for (const key of ["inode", "unchanged_since"])
    if (!/^\d{1,20}$/.test(fields.text(key))) throw fields.wrong(key, "decimal digits");
  fields.integer("after");
  fields.time("at");
  fields.boolean("going");
  return value as unknown as OriginalFile;
}
