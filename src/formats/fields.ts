import { CairnError } from "../errors.ts";
import { parseTime } from "./go-time.ts";

/**
 * Reads the members of one JSON object of a file, each with its type and bounds. A wrong member is `damaged`, and the
 * message names file and field. `rest` returns the members that were not read.
 */

const MAX_JSON_BYTES = 256 * 1024 * 1024;

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export type JsonObject = Record<string, unknown>;

/** Parses UTF-8 JSON. Throws `damaged`; the message begins with the second parameter. */
export function parseJson(bytes: Uint8Array, what: string): unknown {
  if (bytes.length > MAX_JSON_BYTES) throw new CairnError("damaged", `${what}: too long, with ${bytes.length} bytes`);
  try {
    return JSON.parse(decoder.decode(bytes));
  } catch (error) {
    throw new CairnError("damaged", `${what}: not valid JSON in UTF-8`, { cause: error });
  }
}

export class Fields {
  readonly what: string;
  readonly #members: JsonObject;
  readonly #asked: string[] = [];

  constructor(value: unknown, what: string) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw new CairnError("damaged", `${what}: not an object`);
    }
    this.what = what;
    this.#members = value as JsonObject;
  }

  #get(key: string): unknown {
    this.#asked.push(key);
    return Object.hasOwn(this.#members, key) ? this.#members[key] : undefined;
  }

  /** Returns the error for a field with another value than `wanted`. */
  wrong(key: string, wanted: string): CairnError {
    const state = Object.hasOwn(this.#members, key) ? "is not" : "is missing; expected";
    return new CairnError("damaged", `${this.what}: field ${JSON.stringify(key)} ${state} ${wanted}`);
  }

  /** True if the member exists and is not null. */
  has(key: string): boolean {
    const value = this.#get(key);
    return value !== undefined && value !== null;
  }

  /** True if the member is exactly this text. */
  isText(key: string, text: string): boolean {
    return this.#get(key) === text;
  }

  isNull(key: string): boolean {
    return this.#get(key) === null;
  }

  text(key: string, max = 1 << 20): string {
    const value = this.#get(key);
    if (typeof value !== "string" || value.length > max) throw this.wrong(key, `a text of at most ${max} characters`);
    return value;
  }

  optionalText(key: string): string | undefined {
    return this.#get(key) === undefined ? undefined : this.text(key);
  }

  boolean(key: string): boolean {
    const value = this.#get(key);
    if (typeof value !== "boolean") throw this.wrong(key, "true or false");
    return value;
  }

  /** An integer from `min` (default 0) to `max` (default the largest safe one). */
  integer(key: string, max = Number.MAX_SAFE_INTEGER, min = 0): number {
    const value = this.#get(key);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < min || value > max) {
      throw this.wrong(key, `an integer from ${min} to ${max}`);
    }
    return value;
  }

  /** A finite number. */
  number(key: string): number {
    const value = this.#get(key);
    if (typeof value !== "number" || !Number.isFinite(value)) throw this.wrong(key, "a number");
    return value;
  }

  /** An integer from 0 to `max`; 0 if absent. */
  optionalInteger(key: string, max = Number.MAX_SAFE_INTEGER): number {
    return this.has(key) ? this.integer(key, max) : 0;
  }

  /** Exactly `digits` lower-case hex digits. */
  hex(key: string, digits: number): string {
    const value = this.#get(key);
    if (typeof value !== "string" || value.length !== digits || !isHex(value)) {
      throw this.wrong(key, `${digits} lower-case hex digits`);
    }
    return value;
  }

  hexOrNull(key: string, digits: number): string | null {
    return this.#get(key) === null ? null : this.hex(key, digits);
  }

  base64(key: string, max = 1 << 24): Uint8Array {
    const text = this.text(key, max);
    const value = Buffer.from(text, "base64");
    if (value.toString("base64") !== text) throw this.wrong(key, "base64");
    return value;
  }

  /** An RFC 3339 time; returns its text unchanged. */
  time(key: string): string {
    const value = this.text(key, 64);
    if (parseTime(value) === null) throw this.wrong(key, "a time in RFC 3339");
    return value;
  }

  /** A list of at most `max` elements, each read by `read`. */
  list<T>(key: string, read: (element: unknown, label: string) => T, max = 1 << 24): T[] {
    const value = this.#get(key);
    if (!Array.isArray(value) || value.length > max) throw this.wrong(key, `a list of at most ${max} elements`);
    return value.map((element, i) => read(element, `${this.what}: ${key}[${i}]`));
  }

  texts(key: string): string[] {
    return this.list(key, (element) => {
      if (typeof element !== "string") throw this.wrong(key, "a list of texts");
      return element;
    });
  }

  /** A list of texts. Null and absent mean an empty list, as in Go. */
  textsOrNone(key: string): string[] {
    return this.has(key) ? this.texts(key) : [];
  }

  /** A member that is an object. */
  object(key: string): Fields {
    const value = this.#get(key);
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong(key, "an object");
    return new Fields(value, `${this.what}: ${key}`);
  }

  objectOrNull(key: string): Fields | null {
    return this.#get(key) === null ? null : this.object(key);
  }

  /** Throws `newer_version`, with the version found, if the file has another version. */
  requireVersion(wanted: number): void {
    const found = this.#get("version");
    if (found === wanted) return;
    if (found === undefined) throw this.wrong("version", String(wanted));
    throw new CairnError(
      "newer_version",
      `${this.what} is of version ${JSON.stringify(found)}; this program knows ${wanted}`,
      { hint: "a newer Cairn wrote it: use that version or a later one", details: { actual: found, expected: wanted } },
    );
  }

  /** Returns the members that were not read, to be written back unchanged. */
  rest(): JsonObject {
    const asked = new Set(this.#asked);
    return Object.fromEntries(Object.entries(this.#members).filter(([key]) => !asked.has(key)));
  }
}

/** Returns JSON with the escapes of Go's encoder. Only strings can contain the escaped characters. */
export function goJsonText(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** A loop is faster than a regular expression, which V8 first interprets: thousands of descriptors are read. */
function isHex(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x30 || code > 0x66 || (code > 0x39 && code < 0x61)) return false;
  }
  return true;
}
