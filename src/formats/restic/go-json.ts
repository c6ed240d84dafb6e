import { isPrintable } from "./go-printable.ts";
import type { ByteWriter } from "../bytes.ts";

/**
 * Text in Go's encoding, byte for byte: encoding/json strings (with escapes for HTML) and file names, which restic
 * first passes through strconv.Quote so that any bytes survive.
 */

/** 1 for a byte that needs no escape in a quoted name or a JSON string. */
export const PLAIN = new Uint8Array(256);
for (let c = 0x20; c < 0x7f; c++) PLAIN[c] = 1;
for (const c of '"\\<>&') PLAIN[c.charCodeAt(0)] = 0;

const BACKSLASH = 0x5c;
/** Escape letters of Go and C for the bytes 7 to 13. */
const LETTERS = "abtnvfr";

/**
 * Decodes one UTF-8 sequence as Go does. Returns code point × 8 + length, or -1 if the bytes at `i` are no valid
 * sequence. Surrogates and overlong forms are invalid.
 */
export function decodeRune(b: Uint8Array, i: number, end: number): number {
  const c = b[i]!;
  if (c < 0x80) return c * 8 + 1;
  if (c < 0xc2 || c > 0xf4 || i + 1 >= end) return -1;
  const c1 = b[i + 1]!;
  if ((c1 & 0xc0) !== 0x80) return -1;
  if (c < 0xe0) return (((c & 0x1f) << 6) | (c1 & 0x3f)) * 8 + 2;
  if (i + 2 >= end) return -1;
  const c2 = b[i + 2]!;
  if ((c2 & 0xc0) !== 0x80) return -1;
  if (c < 0xf0) {
    const rune = ((c & 0x0f) << 12) | ((c1 & 0x3f) << 6) | (c2 & 0x3f);
    return rune < 0x800 || (rune >= 0xd800 && rune < 0xe000) ? -1 : rune * 8 + 3;
  }
  if (i + 3 >= end) return -1;
  const c3 = b[i + 3]!;
  if ((c3 & 0xc0) !== 0x80) return -1;
  const rune = ((c & 0x07) << 18) | ((c1 & 0x3f) << 12) | ((c2 & 0x3f) << 6) | (c3 & 0x3f);
  return rune < 0x10000 || rune > 0x10ffff ? -1 : rune * 8 + 4;
}

function isPlain(b: Uint8Array): boolean {
  for (let i = 0; i < b.length; i++) if (PLAIN[b[i]!] === 0) return false;
  return true;
}

function appendUnicodeEscape(w: ByteWriter, rune: number): void {
  w.ascii("\\u");
  w.ascii(rune.toString(16).padStart(4, "0"));
}

/** Appends a file name: quoted as by strconv.Quote, but without the quotes, then escaped for a JSON string. */
export function appendGoName(w: ByteWriter, name: Uint8Array): void {
  const n = name.length;
  w.reserve(n);
  const to = w.bytes;
  let p = w.length;
  for (let i = 0; i < n; i++) {
    const c = name[i]!;
    if (PLAIN[c] === 0) return appendOddName(w, name);
    to[p++] = c;
  }
  w.length = p;
}

function appendOddName(w: ByteWriter, name: Uint8Array): void {
  const n = name.length;
  w.reserve(n * 6);
  for (let i = 0; i < n;) {
    const c = name[i]!;
    if (c < 0x80) {
      appendNameByte(w, c);
      i++;
      continue;
    }
    const rune = decodeRune(name, i, n);
    if (rune < 0) {
      w.ascii("\\\\x");
      w.hex(HEX_SOURCE, c, c + 1);
      i++;
      continue;
    }
    const codePoint = rune >> 3;
    const end = i + (rune & 7);
    if (isPrintable(codePoint)) w.appendRange(name, i, end);
    else if (codePoint < 0x10000) w.ascii(`\\\\u${codePoint.toString(16).padStart(4, "0")}`);
    else w.ascii(`\\\\U${codePoint.toString(16).padStart(8, "0")}`);
    i = end;
  }
}

/** All byte values in order, to write a single one with `hex`. */
const HEX_SOURCE = Uint8Array.from({ length: 256 }, (_, i) => i);

function appendNameByte(w: ByteWriter, c: number): void {
  if (PLAIN[c] === 1) w.u8(c);
  else if (c === 0x22) w.ascii('\\\\\\"');
  else if (c === BACKSLASH) w.ascii("\\\\\\\\");
  else if (c === 0x3c || c === 0x3e || c === 0x26) appendUnicodeEscape(w, c);
  else if (c >= 7 && c <= 13) w.ascii(`\\\\${LETTERS[c - 7]}`);
  else {
    w.ascii("\\\\x");
    w.hex(HEX_SOURCE, c, c + 1);
  }
}

/**
 * Appends the inside of a Go JSON string. Each byte that is not UTF-8 becomes `\ufffd`, so such bytes are lost.
 * Backspace and form feed have short escapes, as in Go since 1.22.
 */
export function appendGoString(w: ByteWriter, value: Uint8Array): void {
  if (isPlain(value)) {
    w.append(value);
    return;
  }
  const n = value.length;
  w.reserve(n * 6);
  for (let i = 0; i < n;) {
    const c = value[i]!;
    if (c < 0x80) {
      appendStringByte(w, c);
      i++;
      continue;
    }
    const rune = decodeRune(value, i, n);
    if (rune < 0) {
      w.ascii("\\ufffd");
      i++;
      continue;
    }
    const end = i + (rune & 7);
    const codePoint = rune >> 3;
    if (codePoint === 0x2028 || codePoint === 0x2029) appendUnicodeEscape(w, codePoint);
    else w.appendRange(value, i, end);
    i = end;
  }
}

function appendStringByte(w: ByteWriter, c: number): void {
  if (PLAIN[c] === 1 || c === 0x7f) w.u8(c);
  else if (c === 0x22) w.ascii('\\"');
  else if (c === BACKSLASH) w.ascii("\\\\");
  else if (c >= 8 && c <= 13 && c !== 11) w.ascii(`\\${LETTERS[c - 7]}`);
  else appendUnicodeEscape(w, c);
}

/** Appends text as the inside of a Go JSON string. */
export function appendGoText(w: ByteWriter, text: string): void {
  appendGoString(w, Buffer.from(text, "utf8"));
}

function hexValue(text: string, at: number, digits: number): number {
  if (at + digits > text.length) return -1;
  let value = 0;
  for (let i = at; i < at + digits; i++) {
    const c = text.charCodeAt(i) | 0x20;
    const digit = c >= 48 && c <= 57 ? c - 48 : c >= 97 && c <= 102 ? c - 87 : -1;
    // Setting bit 5 folds letters; it would also fold control characters onto digits.
    if (digit < 0 || (digit < 10 && text.charCodeAt(i) !== c)) return -1;
    value = value * 16 + digit;
  }
  return value;
}

function octalValue(text: string, at: number): number {
  const digits = text.slice(at, at + 3);
  if (!/^[0-3][0-7]{2}$/.test(digits)) return -1;
  return Number.parseInt(digits, 8);
}

function pushRune(out: number[], rune: number): boolean {
  if (rune < 0 || rune > 0x10ffff || (rune >= 0xd800 && rune < 0xe000)) return false;
  if (rune < 0x80) out.push(rune);
  else if (rune < 0x800) out.push(0xc0 | (rune >> 6), 0x80 | (rune & 0x3f));
  else if (rune < 0x10000) out.push(0xe0 | (rune >> 12), 0x80 | ((rune >> 6) & 0x3f), 0x80 | (rune & 0x3f));
  else {
    out.push(0xf0 | (rune >> 18), 0x80 | ((rune >> 12) & 0x3f));
    out.push(0x80 | ((rune >> 6) & 0x3f), 0x80 | (rune & 0x3f));
  }
  return true;
}

const ESCAPES: Record<string, number> = { "\\": 92, '"': 34, a: 7, b: 8, t: 9, n: 10, v: 11, f: 12, r: 13 };

/** Reads one escape after the backslash at `at`; returns the position after it, or -1. */
function unquoteEscape(text: string, at: number, out: number[]): number {
  const letter = text[at + 1] ?? "";
  const simple = ESCAPES[letter];
  if (simple !== undefined) {
    out.push(simple);
    return at + 2;
  }
  if (letter === "x") {
    const value = hexValue(text, at + 2, 2);
    if (value < 0) return -1;
    out.push(value);
    return at + 4;
  }
  if (letter === "u") return pushRune(out, hexValue(text, at + 2, 4)) ? at + 6 : -1;
  if (letter === "U") return pushRune(out, hexValue(text, at + 2, 8)) ? at + 10 : -1;
  const value = octalValue(text, at + 1);
  if (value < 0) return -1;
  out.push(value);
  return at + 4;
}

/** Decodes a name in the form of strconv.Quote, after the removal of JSON escapes; null if it is invalid. */
export function unquoteGoName(text: string): Uint8Array | null {
  if (!text.includes("\\")) return text.includes('"') || text.includes("\n") ? null : Buffer.from(text, "utf8");
  const out: number[] = [];
  for (let i = 0; i < text.length;) {
    const unit = text.charCodeAt(i);
    if (unit === BACKSLASH) {
      i = unquoteEscape(text, i, out);
      if (i < 0) return null;
      continue;
    }
    if (unit === 0x22 || unit === 0x0a) return null;
    const rune = text.codePointAt(i)!;
    if (!pushRune(out, rune)) pushRune(out, 0xfffd);
    i += rune > 0xffff ? 2 : 1;
  }
  return Uint8Array.from(out);
}
