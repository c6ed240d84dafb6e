import { checkPath, decodeRecord, encodeRecord, type RecordedPath } from "./record.ts";

/**
 * Marks a folder of root's daemon for users who cannot read the daemon's records. Layout: docs/formats/daemon-state.md.
 */
export interface DaemonMark extends RecordedPath {
  /** The daemon's socket. */
  socket: string;
  /** The path of a link to the folder. */
  link?: string;
}

const FORMAT = "cairn.daemon-mark";
const VERSION = 1;

export function encodeDaemonMark(mark: DaemonMark): Uint8Array {
  return encodeRecord(mark, FORMAT, VERSION);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeDaemonMark(bytes: Uint8Array): DaemonMark {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  checkPath(fields);
  fields.text("socket");
  fields.optionalText("link");
  return value as unknown as DaemonMark;
}
