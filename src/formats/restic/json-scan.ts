import { CairnError } from "../../errors.ts";

/**
 * JSON with the source text of every value: integers beyond 2⁵³ keep their digits, and unknown members can be written
 * back unchanged.
 */

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/**
 * Returns the text of UTF-8 bytes that are one valid JSON value. Throws `damaged`; the message begins with the second
 * parameter.
 */
export function jsonText(bytes: Uint8Array, what: string): string {
  let text: string;
  try {
    text = decoder.decode(bytes);
    JSON.parse(text);
  } catch (error) {
    throw new CairnError("damaged", `${what}: not valid JSON in UTF-8`, { cause: error });
  }
  return text;
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

/** Returns the position after the string whose opening quote is at `at`. */
function skipString(text: string, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x5c) i++;
    else if (code === 0x22) return i + 1;
  }
  return text.length;
}

function skipSpace(text: string, at: number): number {
  let i = at;
  while (i < text.length && isSpace(text.charCodeAt(i))) i++;
  return i;
}

/** Returns the position after the value that starts at `at`. The text must be valid JSON. */
function skipValue(text: string, at: number): number {
  const code = text.charCodeAt(at);
  if (code === 0x22) return skipString(text, at);
  let i = at;
  if (code !== 0x7b && code !== 0x5b) {
    for (; i < text.length; i++) {
      const c = text.charCodeAt(i);
      if (c === 0x2c || c === 0x7d || c === 0x5d || isSpace(c)) break;
    }
    return i;
  }
  for (let depth = 0; i < text.length;) {
    const c = text.charCodeAt(i);
    if (c === 0x22) {
      i = skipString(text, i);
      continue;
    }
    i++;
    if (c === 0x7b || c === 0x5b) depth++;
    else if ((c === 0x7d || c === 0x5d) && --depth === 0) break;
  }
  return i;
}

/**
 * Returns the members of a valid JSON object: key → source text of the value, in order. Of equal keys the last counts.
 * Null if the value is no object.
 */
export function jsonMembers(text: string): Map<string, string> | null {
  let i = skipSpace(text, 0);
  if (text[i] !== "{") return null;
  const members = new Map<string, string>();
  i = skipSpace(text, i + 1);
  while (i < text.length && text[i] !== "}") {
    const keyEnd = skipString(text, i);
    const key = JSON.parse(text.slice(i, keyEnd)) as string;
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = skipValue(text, start);
    members.set(key, text.slice(start, end));
    i = skipSpace(text, end);
    if (text[i] === ",") i = skipSpace(text, i + 1);
  }
  return members;
}

/** Returns the source texts of the elements of a valid JSON array; null if the value is no array. */
export function jsonElements(text: string): string[] | null {
  let i = skipSpace(text, 0);
  if (text[i] !== "[") return null;
  const elements: string[] = [];
  i = skipSpace(text, i + 1);
  while (i < text.length && text[i] !== "]") {
    const end = skipValue(text, i);
    elements.push(text.slice(i, end));
    i = skipSpace(text, end);
    if (text[i] === ",") i = skipSpace(text, i + 1);
  }
  return elements;
}
