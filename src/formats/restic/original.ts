import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "../records/record.ts";

/** `original.json` of a workspace: the folder as it was before its conversion, kept until the first point after that. */
export interface OriginalFile extends RecordedPath {
  /** Decimal digits: what else lies at the path is not it. */
  inode: string;
  /** Decimal digits, ns since 1970: what of it changed at or after that moment is in the converted folder no more. */
  unchanged_since: string;
  /** Highest sequence number when it was recorded: a point with a larger one lets it go. */
  after: number;
  at: string;
  /** Its removal has begun. */
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
