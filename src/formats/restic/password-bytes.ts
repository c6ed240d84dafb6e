/**
 * Returns what of a file or of a command's output is the password, as restic takes it. It is bytes: text would make one
 * and the same of all that is no UTF-8, and other passwords would open what it opens.
 */

/** Unicode's white space, the same as Go's `unicode.IsSpace`. */
const WHITE = Array.from(
  "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000",
  (each) => Buffer.from(each),
);
const UTF8_MARK = Buffer.from([0xef, 0xbb, 0xbf]);

/** The password in a file: without a byte order mark, UTF-16 that has one as UTF-8, without white space at both ends. */
export function passwordOfFile(bytes: Uint8Array): Uint8Array {
  return trimPassword(withoutMark(Buffer.from(bytes)));
}

/** Without white space at both ends. */
export function trimPassword(bytes: Uint8Array): Uint8Array {
  let rest = Buffer.from(bytes);
  for (let white = at(rest, 0); white > 0; white = at(rest, 0)) rest = rest.subarray(white);
  for (let white = atEnd(rest); white > 0; white = atEnd(rest)) rest = rest.subarray(0, -white);
  return rest;
}

/**
 * The text that Cairn took a password for before 2026-12, from all that the file or command gave; null where it is the same.
 * Only for opening what was made with it.
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

/** Counts the bytes of white space that begin there. */
function at(bytes: Buffer, offset: number, of: readonly Buffer[] = WHITE): number {
  const found = of.find((each) => bytes.subarray(offset, offset + each.length).equals(each));
  return found?.length ?? 0;
}

function atEnd(bytes: Buffer): number {
  const found = WHITE.find((each) => bytes.subarray(-each.length).equals(each));
  return found?.length ?? 0;
}
