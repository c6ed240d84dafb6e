import { damaged } from "../../errors.ts";
import { type JsonObject, parseJson } from "../fields.ts";
import { isObject } from "./manifest.ts";

/** Index records of a bundle: docs/formats/ovpack.md. */

export interface IndexRecord {
  record_id: string;
  path: string;
  kind: "file" | "directory";
  /** 0: abstract, 1: overview, 2: content. */
  level: number;
  text?: string | null;
  scalars?: JsonObject | null;
  /** Layout C: the owner, a name below `viking://user/`. */
  user_id?: string;
  /** Position of the vector, in floats. */
  vector?: { dense: { offset: number; dimensions: number } } | null;
}

/** Throws `damaged` with `at` and the wrong field. */
export function checkRecord(
  value: unknown,
  { kinds, at }: { kinds: ReadonlyMap<string, string>; at: Record<string, unknown> },
): IndexRecord {
  if (!isObject(value)) throw damaged("an index record is not a JSON object", at);
  const { record_id: id, path, kind, level, text, scalars, vector } = value;
  const wrong = (field: string): never => {
    throw damaged(`an index record has a wrong ${field}`, { ...at, field });
  };
  if (typeof id !== "string" || id === "") wrong("record_id");
  if (typeof path !== "string" || !kinds.has(path)) wrong("path");
  if (kind !== kinds.get(path as string)) wrong("kind");
  if (!Number.isInteger(level) || (level as number) < 0 || (level as number) > 2) wrong("level");
  if (text !== undefined && text !== null && typeof text !== "string") wrong("text");
  if (scalars !== undefined && scalars !== null && !isObject(scalars)) wrong("scalars");
  if (vector !== undefined && vector !== null) {
    const { dense } = vector as { dense?: { offset?: unknown; dimensions?: unknown } };
    if (!Number.isSafeInteger(dense?.offset) || !Number.isSafeInteger(dense?.dimensions)) wrong("vector");
  }
  return value as unknown as IndexRecord;
}

/** Characters that some readers of text take for a line end. */
const LINE_ENDS = /[\u0085\u2028\u2029]/g;

/** Returns one line of the file of records, with its line end. */
export function encodeRecord(record: object): string {
  const line = JSON.stringify(sorted(record));
  return `${line.replace(LINE_ENDS, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`)}\n`;
}

export function decodeRecord(line: Uint8Array, at: Record<string, unknown>): unknown {
  try {
    return parseJson(line, "an index record");
  } catch {
    throw damaged("an index record is not a JSON object", at);
  }
}

/** Returns the records in the manifest of layout A, by path. Throws `damaged`. */
export function inlineRecords(vectors: unknown, kinds: ReadonlyMap<string, string>): IndexRecord[] {
  if (vectors === undefined || vectors === null) return [];
  if (!isObject(vectors)) throw damaged("the manifest's vectors are not an object", { field: "vectors" });
  const records: IndexRecord[] = [];
  for (const [path, listed] of Object.entries(vectors)) {
    const field = `vectors[${JSON.stringify(path)}]`;
    if (!Array.isArray(listed)) throw damaged(`${field} is not a list`, { path, field });
    for (const [index, value] of (listed as unknown[]).entries()) {
      const at = { path, index, field };
      if (!isObject(value)) throw damaged(`${field} has an element that is not an object`, at);
      const numbered = { ...value, record_id: recordId(records.length), path, kind: kinds.get(path) };
      records.push(checkRecord(numbered, { kinds, at }));
    }
  }
  return records;
}

/** Returns the id of the record at a position, from 0. */
export function recordId(index: number): string {
  return `r${String(index + 1).padStart(6, "0")}`;
}

const MOST_NESTED = 200;

/** Returns a copy in which all objects have their members sorted by name. */
export function sorted(value: unknown, depth = 0): unknown {
  if (depth > MOST_NESTED) throw damaged("the manifest is nested too deeply", { field: "manifest" });
  if (Array.isArray(value)) return value.map((each) => sorted(each, depth + 1));
  if (!isObject(value)) return value;
  const names = Object.keys(value).toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  // A member called __proto__ must stay an ordinary member.
  return Object.fromEntries(names.map((name) => [name, sorted(value[name], depth + 1)]));
}
