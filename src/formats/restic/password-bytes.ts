/**
 * Extracts the password from a file or a command's output, as restic does. A password is bytes: as text, all invalid
 * UTF-8 would become equal, and wrong passwords would fit.
 */

/** Unicode's white space, the same as Go's `unicode.IsSpace`. */
const WHITE = Array.from(
  "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
  (each) => Buffer.from(each),
);
const UTF8_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/**
 * Returns the password in a file: removes a byte order mark, converts UTF-16 with a mark to UTF-8, removes white space
 * at both ends.
 */
export function passwordOfFile(bytes: Uint8Array): Uint8Array {
  return trimPassword(withoutMark(Buffer.from(bytes)));
}

/** Removes white space at both ends. */
export function trimPassword(bytes: Uint8Array): Uint8Array {
  let rest = Buffer.from(bytes);
  for (let white = at(rest, 0); white > 0; white = at(rest, 0)) rest = rest.subarray(white);
  for (let white = atEnd(rest); white > 0; white = atEnd(rest)) rest = rest.subarray(0, -white);
  return rest;
}

/**
 * Returns the password that Cairn derived before 2026-12 from the whole file or output; null if it is the same. Only
 * for opening repositories made with it.
 */
export function formerPassword(all: Uint8Array, password: Uint8Array): string | null {
  const text = Buffer.from(all).toString("utf8").trim();
  return text === "" || Buffer.from(text).equals(password) ? null : text;
}

function withoutMark(bytes: Buffer): Buffer {
  if (at(bytes, 0, [UTF8_MARK]) > 0) return bytes.subarray(UTF8_MARK.length);
  const [first, second] = bytes;
  const isLittle = first === 0xff && second === 0xfe;
  if (!isLittle && !(first === 0xfe && second === 0xff)) return bytes;
  const units = Buffer.from(bytes.subarray(2, bytes.length & ~1));
  const half = bytes.length % 2 === 1 ? "\ufffd" : "";
  return Buffer.from((isLittle ? units : units.swap16()).toString("utf16le") + half);
}

/** Returns the length of the white space character at `offset`, in bytes; 0 if there is none. */
function at(bytes: Buffer, offset: number, of: readonly Buffer[] = WHITE): number {
  const found = of.find((each) => bytes.subarray(offset, offset + each.length).equals(each));
  return found?.length ?? 0;
}

function atEnd(bytes: Buffer): number {
  const found = WHITE.find((each) => bytes.subarray(-each.length).equals(each));
  return found?.length ?? 0;
}
