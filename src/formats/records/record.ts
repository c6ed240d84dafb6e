import { CairnError } from "../../errors.ts";
import { Fields, parseJson, type JsonObject } from "../fields.ts";

/**
 * Cairn's small JSON files: `{format, version, …}` and a final newline. Decoding checks the known fields and returns
 * the parsed object itself, so that fields of a later version survive a rewrite, at any depth.
 */

/** A parsed record of a known format and version, and its fields to check. */
export interface RawRecord {
  value: JsonObject;
  fields: Fields;
}

/**
 * Parses a record. Throws `damaged` if it is no JSON object or has another format, `newer_version` if its version is
 * above `version`.
 */
export function decodeRecord(bytes: Uint8Array, format: string, version: number): RawRecord {
  const value = parseJson(bytes, format);
  const fields = new Fields(value, format);
  const found = fields.text("format", 200);
  if (found !== format) throw fields.wrong("format", JSON.stringify(format));
  checkVersion(fields, "version", version);
  return { value: value as JsonObject, fields };
}

/** Throws `newer_version` if the integer field is above `known`. */
export function checkVersion(fields: Fields, key: string, known: number): number {
  const version = fields.integer(key, Number.MAX_SAFE_INTEGER, 1);
  if (version <= known) return version;
  throw new CairnError("newer_version", `${fields.what}: ${key} ${version}; this program knows ${known}`, {
    hint: "a newer Cairn has worked here: use it from now on",
  });
}

/** Returns the bytes of a record: format and version first, then the other members in their order. */
export function encodeRecord(value: object, format: string, version: number): Uint8Array {
  const { format: _format, version: _version, ...members } = value as JsonObject;
  return Buffer.from(`${JSON.stringify({ format, version, ...members })}\n`, "utf8");
}

/** Encodes a record and reads it back, so that no unreadable record is written. Throws `internal`. */
export function encodeChecked<T extends object>(
  value: T,
  encode: (value: T) => Uint8Array,
  decode: (bytes: Uint8Array) => T,
): Uint8Array {
  const bytes = encode(value);
  try {
    decode(bytes);
  } catch (error) {
    throw new CairnError("internal", `the encoded record cannot be decoded: ${(error as Error).message}`, {
      cause: error,
    });
  }
  return bytes;
}

/** A path in a record: text, and the raw bytes in base64 if they are not UTF-8. */
export interface RecordedPath {
  path: string;
  path_b64?: string;
}

/** Records a raw path. */
export function recordPath(raw: Uint8Array): RecordedPath {
  const path = Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  const text = path.toString("utf8");
  return Buffer.from(text, "utf8").equals(path) ? { path: text } : { path: text, path_b64: path.toString("base64") };
}

/** Returns the raw bytes of a recorded path. */
export function rawPath(recorded: RecordedPath): Uint8Array {
  return recorded.path_b64 === undefined
    ? Buffer.from(recorded.path, "utf8")
    : Buffer.from(recorded.path_b64, "base64");
}

/** Checks `path` and `path_b64` of an element. */
export function checkPath(fields: Fields): void {
  fields.text("path");
  if (fields.has("path_b64")) fields.base64("path_b64");
}
