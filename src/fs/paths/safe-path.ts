import { isUtf8 } from "node:buffer";
import { advice, CairnError, call, either, type Hint } from "../../errors.ts";

/** A path in Node's forms: text (UTF-8) or raw bytes. */
export type RawPath = string | Buffer;

const SLASH = 0x2f;
const DOT = 0x2e;

/** A view over the same bytes as a Buffer, or the UTF-8 bytes of a text. */
export function rawBytes(path: string | Uint8Array): Buffer {
  if (typeof path === "string") return Buffer.from(path, "utf8");
  return Buffer.from(path.buffer, path.byteOffset, path.byteLength);
}

function unfit(path: Uint8Array, reason: string): CairnError {
  return new CairnError("usage", `unsafe path ${quotedPath(path.subarray(0, 200))}: ${reason}`, {
    hint: "use a path relative to the workspace, without . or .. parts",
  });
}

function reasonAgainst(path: Buffer, start: number, end: number): string | undefined {
  if (end === start) return "it has an empty part";
  if (path[start] !== DOT) return undefined;
  if (end - start === 1) return "it has the part .";
  return end - start === 2 && path[start + 1] === DOT ? "it has the part .." : undefined;
}

/**
 * The names of a relative raw path, each a view into it. The empty path is the root: no names. Throws `usage` if the
 * path is absolute, has a NUL, or has a part that is empty, `.` or `..`.
 */
export function splitRaw(path: string | Uint8Array): Buffer[] {
  const bytes = rawBytes(path);
  if (bytes.length === 0) return [];
  if (bytes[0] === SLASH) throw unfit(bytes, "it is absolute");
  if (bytes.includes(0)) throw unfit(bytes, "it holds a NUL byte");
  const parts: Buffer[] = [];
  for (let start = 0; start <= bytes.length;) {
    const slash = bytes.indexOf(SLASH, start);
    const end = slash < 0 ? bytes.length : slash;
    const reason = reasonAgainst(bytes, start, end);
    if (reason !== undefined) throw unfit(bytes, reason);
    parts.push(bytes.subarray(start, end));
    start = end + 1;
  }
  return parts;
}

/** Throws `usage` if a name cannot be an entry of a directory. */
export function checkName(name: string | Uint8Array): void {
  const bytes = rawBytes(name);
  if (bytes.length === 0) throw unfit(bytes, "it is empty");
  if (splitRaw(bytes).length !== 1) throw unfit(bytes, "it is more than one name");
}

/**
 * Joins `root`, `/` and `relative` after a check. The text of the result stays inside the root; links are checked by
 * the calls that open the path.
 */
export function joinRaw(root: string | Uint8Array, relative: string | Uint8Array): Buffer {
  splitRaw(relative);
  const base = rawBytes(root);
  const rest = rawBytes(relative);
  if (rest.length === 0) return Buffer.from(base);
  const slash = base.length > 0 && base[base.length - 1] === SLASH ? 0 : 1;
  const joined = Buffer.allocUnsafe(base.length + slash + rest.length);
  joined.set(base, 0);
  if (slash === 1) joined[base.length] = SLASH;
  joined.set(rest, base.length + slash);
  return joined;
}

/** Normalizes a relative path that a person typed: `./a//b/` becomes `a/b`; the root is empty. */
export function normalizeTyped(path: string | Uint8Array): Buffer {
  const bytes = rawBytes(path);
  if (bytes[0] === SLASH) throw unfit(bytes, "it is absolute");
  const parts = bytes
    .toString("latin1")
    .split("/")
    .filter((part) => part !== "" && part !== ".");
  const joined = Buffer.from(parts.join("/"), "latin1");
  splitRaw(joined);
  return joined;
}

/** True if `path` is `ancestor` or lies below it, by the text of two normal absolute paths. */
export function isAtOrBelow(path: string | Uint8Array, ancestor: string | Uint8Array): boolean {
  const inner = rawBytes(path);
  const outer = rawBytes(ancestor);
  if (outer.length === 1 && outer[0] === SLASH) return inner[0] === SLASH;
  if (inner.length < outer.length || inner.compare(outer, 0, outer.length, 0, outer.length) !== 0) return false;
  return inner.length === outer.length || inner[outer.length] === SLASH;
}

/** Returns a function that keeps the rows about a folder and the entries below it, with paths relative to the folder. */
export function movedBelow(folder: Uint8Array): <T extends { path: Uint8Array }>(list: readonly T[]) => T[] {
  const lead = rawBytes(folder);
  return (list) =>
    list.flatMap((each) => {
      const path = rawBytes(each.path);
      return isAtOrBelow(path, lead) ? [{ ...each, path: path.subarray(lead.length + 1) }] : [];
    });
}

function escapeByte(byte: number): string {
  return `\\x${byte.toString(16).padStart(2, "0")}`;
}

/** Length in bytes of the valid UTF-8 sequence at `at`, 0 if there is none. */
function sequenceLength(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length++) {
    if (isUtf8(bytes.subarray(at, at + length))) return length;
  }
  return 0;
}

function escapeInvalid(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    text += length === 0 ? escapeByte(bytes[at]!) : bytes.toString("utf8", at, at + length);
    at += Math.max(1, length);
  }
  return text;
}

export interface DisplayedPath {
  /** The exact text if the bytes are UTF-8, else with `\xHH` for other bytes. */
  path: string;
  /** The raw bytes in base64, only if they are not UTF-8. */
  path_b64?: string;
}

/** Returns a raw path in the form of JSON output. */
export function displayPath(path: string | Uint8Array): DisplayedPath {
  if (typeof path === "string") return { path };
  const bytes = rawBytes(path);
  if (isUtf8(bytes)) return { path: bytes.toString("utf8") };
  return { path: escapeInvalid(bytes), path_b64: bytes.toString("base64") };
}

/**
 * Returns the path that reads like a missing one, but has accents in another Unicode form (NFC or NFD). Each name may
 * have its own form. Undefined if none is there.
 */
export function twinOf(path: Uint8Array, isThere: (path: Uint8Array) => boolean): Buffer | undefined {
  const bytes = rawBytes(path);
  if (!isUtf8(bytes)) return undefined;
  let found = "";
  for (const name of bytes.toString("utf8").split("/")) {
    const next = [name, name.normalize("NFC"), name.normalize("NFD")]
      .map((form) => (found === "" ? form : `${found}/${form}`))
      .find((form) => isThere(Buffer.from(form, "utf8")));
    if (next === undefined) return undefined;
    found = next;
  }
  const twin = Buffer.from(found, "utf8");
  return twin.equals(bytes) ? undefined : twin;
}

/** Explains how to name a twin: its bytes as a shell's `$'…'`, for it looks like the path that was given. */
export function hintOfTwin(twin: Uint8Array): string {
  const text = Buffer.from(twin).toString("utf8");
  const typed = Array.from(text, (each) => (each > "~" ? [...Buffer.from(each)].map(escapeByte).join("") : each)).join(
    "",
  );
  return `a path that looks the same is there, with its accents in another Unicode form: $'${typed.replaceAll("'", "\\'")}'`;
}

/** Returns the raw path for which `displayPath` made `shown`. Throws `damaged` if `path_b64` is not base64. */
export function pathOfDisplayed(shown: DisplayedPath): Buffer {
  if (shown.path_b64 === undefined) return Buffer.from(shown.path, "utf8");
  const bytes = Buffer.from(shown.path_b64, "base64");
  if (bytes.toString("base64") !== shown.path_b64) throw new CairnError("damaged", "path_b64 is not base64");
  return bytes;
}

// Control characters and the marks that turn the direction of text: a name must not steer a terminal.
// oxlint-disable-next-line no-control-regex
const STEERING = /[\u0000-\u001f\u007f-\u009f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

function escapeCharacter(character: string): string {
  if (character === "\n") return "\\n";
  if (character === "\t") return "\\t";
  const code = character.charCodeAt(0);
  return code < 0x100 ? escapeByte(code) : `\\u${code.toString(16).padStart(4, "0")}`;
}

/** Returns a raw path for a terminal: escapes bytes that are not UTF-8 and characters that control a terminal. */
export function printablePath(path: string | Uint8Array): string {
  return displayPath(path).path.replace(STEERING, escapeCharacter);
}

/** Returns a printable path in quotation marks, for messages and hints. */
export function quotedPath(path: string | Uint8Array): string {
  return `"${printablePath(path).replaceAll('"', '\\"')}"`;
}

/** Quotes a word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** Quotes a path for a command line that a person copies: the shell expands nothing in it, and it cannot control the terminal. */
export function shellPath(path: string | Uint8Array): string {
  return shellQuote(printablePath(path));
}

/** A command line that releases a folder, after a program has opened it. */
export const releaseLine = (folder: string | Uint8Array): Hint =>
  opened(folder, `release ${shellPath(folder)}`, call("release"));

export const restoreLine = (folder: string | Uint8Array): Hint =>
  opened(folder, `-C ${shellPath(folder)} restore latest`, call("restore", "restore", { target: "latest" }));

function opened(folder: string | Uint8Array, command: string, then: Hint): Hint {
  return either(`cairn ${command}`, advice`${call("open", "open", printablePath(folder))} and ${then}`);
}

const LISTED = 5;

/** Lists the first few names for a message, and the number of the other names. */
export function listedNames(names: readonly string[], between = ", "): string {
  const some = names.slice(0, LISTED).join(between);
  return names.length > LISTED ? `${some} and ${names.length - LISTED} more` : some;
}
