import { isUtf8 } from "node:buffer";

/**
 * One line of a gitignore file, compiled. Text is raw bytes decoded as latin1: one character, one byte.
 *
 * The `ignore` package does not fit: it asks every parent of a path again, so a folder that a deeper file includes again
 * (`!build/`) stays excluded, and it caches every path that it was asked about. A walk asks one name at a time.
 */

type Token = string | Uint8Array | typeof ANY | typeof STAR;
const ANY = 1;
const STAR = 2;
/** A `**` between two slashes of a pattern: any number of directories. */
const DIRECTORIES = null;

type Segment = readonly Token[] | typeof DIRECTORIES;

export interface IgnorePattern {
  /** `!…`: entries that an earlier pattern excludes are included again. */
  readonly negated: boolean;
  readonly directoriesOnly: boolean;
  /** True: the pattern matches the whole path from its file's directory. False: only the name. */
  readonly wholePath: boolean;
  readonly matches: (subject: string) => boolean;
  /** The one path that the pattern can match; null if every path has to be tried. */
  readonly place: string | null;
}

/**
 * Returns a path with every byte beyond ASCII replaced by the same character: the key of {@link IgnorePattern.place}.
 */
export function placeOfPath(path: string): string {
  return path.replaceAll(/[\x80-\xff]/g, HIGH);
}

/** Returns the place of a directory's entries, from the directory's path; `/` for the top. */
function placeInside(directory: string): string {
  return `${placeOfPath(directory)}/`;
}

const HIGH = "\x80";

/** A pattern for one byte beyond ASCII. */
const BEYOND_ASCII = "[![:print:][:cntrl:]]";

/**
 * Returns a pattern, without the leading slash, that matches this path. A byte that is not UTF-8 becomes a pattern for
 * any byte beyond ASCII.
 */
export function patternOfPath(path: Buffer): string {
  if (isUtf8(path)) return path.toString("utf8").replaceAll(/[\\*?[\s]/g, "\\$&");
  return path
    .toString("latin1")
    .replaceAll(/[\\*?[\s\x80-\xff]/g, (byte) => (byte < HIGH ? `\\${byte}` : BEYOND_ASCII));
}

function setRange(members: Uint8Array, from: number, to: number): void {
  for (let code = from; code <= to; code++) members[code] = 1;
}

// The ASCII ranges of the twelve POSIX classes, as pairs of first and last character.
const POSIX_CLASSES: Record<string, string> = {
  alnum: "09AZaz",
  alpha: "AZaz",
  blank: "  \t\t",
  cntrl: "\x00\x1f\x7f\x7f",
  digit: "09",
  graph: "!~",
  lower: "az",
  print: " ~",
  punct: "!/:@[`{~",
  space: "  \t\n\r\r",
  upper: "AZ",
  xdigit: "09AFaf",
};

function addClass(members: Uint8Array, name: string): boolean {
  const ranges = Object.hasOwn(POSIX_CLASSES, name) ? POSIX_CLASSES[name]! : undefined;
  if (ranges === undefined) return false;
  for (let at = 0; at < ranges.length; at += 2) setRange(members, ranges.charCodeAt(at), ranges.charCodeAt(at + 1));
  return true;
}

interface ScannedBracket {
  readonly members: Uint8Array;
  readonly end: number;
}

/** Parses a bracket expression that begins at `start`; null if it is not closed or names an unknown class. */
function scanBracket(pattern: string, start: number): ScannedBracket | null {
  const members = new Uint8Array(256);
  let at = start + 1;
  const negated = pattern[at] === "!" || pattern[at] === "^";
  if (negated) at++;
  // The lower end of a range, -1 if no range may begin here.
  let previous = -1;
  for (let first = true; first || pattern[at] !== "]"; first = false) {
    let character = pattern[at];
    if (character === undefined) return null;
    if (character === "[" && pattern[at + 1] === ":") {
      const close = pattern.indexOf("]", at + 2);
      if (close < 0) return null;
      if (close > at + 2 && pattern[close - 1] === ":") {
        if (!addClass(members, pattern.slice(at + 2, close - 1))) return null;
        previous = -1;
        at = close + 1;
        continue;
      }
    }
    const next = pattern[at + 1];
    const isRange = character === "-" && previous >= 0 && next !== undefined && next !== "]";
    if (isRange) character = pattern[++at]!;
    if (character === "\\") character = pattern[++at];
    if (character === undefined) return null;
    const code = character.charCodeAt(0);
    if (isRange) setRange(members, previous, code);
    else members[code] = 1;
    previous = isRange ? -1 : code;
    at++;
  }
  if (negated) for (let code = 0; code < 256; code++) members[code] = 1 - members[code]!;
  return { members, end: at + 1 };
}

/** Returns the tokens of one part; null if the part can match nothing. */
function tokenize(part: string): Token[] | null {
  const tokens: Token[] = [];
  for (let at = 0; at < part.length;) {
    const character = part[at]!;
    if (character === "*") {
      if (tokens.at(-1) !== STAR) tokens.push(STAR);
      at++;
    } else if (character === "[") {
      const scanned = scanBracket(part, at);
      if (scanned === null) return null;
      tokens.push(scanned.members);
      at = scanned.end;
    } else if (character === "\\") {
      if (at + 1 >= part.length) return null;
      tokens.push(part[at + 1]!);
      at += 2;
    } else {
      tokens.push(character === "?" ? ANY : character);
      at++;
    }
  }
  return tokens;
}

function matchesOne(token: Token, character: string): boolean {
  if (typeof token === "string") return token === character;
  return token === ANY || (token as Uint8Array)[character.charCodeAt(0) & 0xff] === 1;
}

/**
 * Matches one name against a glob. Goes back only to the last star, so the time is at most the product of both lengths.
 */
function matchName(tokens: readonly Token[], name: string): boolean {
  let token = 0;
  let at = 0;
  let starToken = -1;
  let starAt = 0;
  while (at < name.length) {
    const current = tokens[token];
    if (current === STAR) {
      starToken = token++;
      starAt = at;
    } else if (current !== undefined && matchesOne(current, name[at]!)) {
      token++;
      at++;
    } else if (starToken >= 0) {
      token = starToken + 1;
      at = ++starAt;
    } else {
      return false;
    }
  }
  while (tokens[token] === STAR) token++;
  return token === tokens.length;
}

/** Matches the parts of a path; `**` takes the role of the star. */
function matchPath(segments: readonly Segment[], path: string): boolean {
  const names = path.split("/");
  let segment = 0;
  let at = 0;
  let starSegment = -1;
  let starAt = 0;
  while (at < names.length) {
    const current = segments[segment];
    if (current === DIRECTORIES) {
      // A final `**` stands for at least one name: `a/**` matches the entries of `a`, not `a`.
      if (segment === segments.length - 1) return true;
      starSegment = segment++;
      starAt = at;
    } else if (current !== undefined && matchName(current, names[at]!)) {
      segment++;
      at++;
    } else if (starSegment >= 0) {
      segment = starSegment + 1;
      at = ++starAt;
    } else {
      return false;
    }
  }
  return segment === segments.length;
}

const GLOB = /[*?[\\]/;

type Compiled = Pick<IgnorePattern, "matches" | "place">;

function compileName(body: string): Compiled | null {
  const tail = body.slice(1);
  const place = null;
  if (!GLOB.test(body)) return { matches: (name) => name === body, place };
  if (body[0] === "*" && !GLOB.test(tail)) return { matches: (name) => name.endsWith(tail), place };
  const tokens = tokenize(body);
  return tokens === null ? null : { matches: (name) => matchName(tokens, name), place };
}

function compilePath(body: string): Compiled | null {
  const anchored = body.startsWith("/") ? body.slice(1) : body;
  if (!GLOB.test(anchored)) return { matches: (path) => path === anchored, place: placeOfPath(anchored) };
  const folder = anchored.endsWith("/*") ? anchored.slice(0, -1) : null;
  if (folder !== null && !GLOB.test(folder))
    return { matches: liesIn(folder), place: placeInside(folder.slice(0, -1)) };
  const segments: Segment[] = [];
  for (const part of splitParts(anchored)) {
    if (/^\*\*+$/.test(part)) {
      if (segments.length === 0 || segments.at(-1) !== DIRECTORIES) segments.push(DIRECTORIES);
      continue;
    }
    const tokens = tokenize(part);
    if (tokens === null) return null;
    segments.push(tokens);
  }
  return { matches: (path) => matchPath(segments, path), place: placeOf(segments) };
}

/** `folder` ends with a slash. */
function liesIn(folder: string): (path: string) => boolean {
  return (path) => path.startsWith(folder) && !path.includes("/", folder.length);
}

/** Returns the one entry that the parts lead to, or the one directory if the last part is a star; null if several places match. */
function placeOf(segments: readonly Segment[]): string | null {
  const last = segments.at(-1);
  const isInside = last?.length === 1 && last[0] === STAR;
  const names = (isInside ? segments.slice(0, -1) : segments).map((segment) => {
    const characters = segment?.map((token) => (isBeyondAscii(token) ? HIGH : token));
    return characters?.every((token) => typeof token === "string") === true ? characters.join("") : null;
  });
  if (names.includes(null)) return null;
  return isInside ? placeInside(names.join("/")) : placeOfPath(names.join("/"));
}

function isBeyondAscii(token: Token): boolean {
  return token instanceof Uint8Array && token.every((member, code) => (member === 1) === code >= 0x80);
}

/** Splits at slashes. An escaped slash splits, too; a slash inside brackets does not. */
function splitParts(body: string): string[] {
  const parts: string[] = [];
  let start = 0;
  for (let at = 0; at < body.length; at++) {
    const escapes = body[at] === "\\";
    if (body[at] === "/" || (escapes && body[at + 1] === "/")) {
      parts.push(body.slice(start, at));
      if (escapes) at++;
      start = at + 1;
    } else if (escapes) {
      at++;
    } else if (body[at] === "[") {
      const scanned = scanBracket(body, at);
      if (scanned !== null) at = scanned.end - 1;
    }
  }
  parts.push(body.slice(start));
  return parts;
}

/** Cuts trailing blanks without a backslash before them. */
function trimTrailingBlanks(line: string): string {
  let end = 0;
  for (let at = 0; at < line.length; at++) {
    if (line[at] === "\\") at++;
    else if (line[at] === " ") continue;
    end = Math.min(at + 1, line.length);
  }
  return line.slice(0, end);
}

/** Compiles one line; null for blank lines, comments and patterns that can match nothing. */
export function compilePattern(line: string): IgnorePattern | null {
  if (line === "" || line.startsWith("#")) return null;
  let body = trimTrailingBlanks(line);
  const negated = body.startsWith("!");
  if (negated) body = body.slice(1);
  const directoriesOnly = body.endsWith("/");
  if (directoriesOnly) body = body.slice(0, -1);
  if (body === "") return null;
  const wholePath = body.includes("/");
  const compiled = wholePath ? compilePath(body) : compileName(body);
  return compiled === null ? null : { negated, directoriesOnly, wholePath, ...compiled };
}

const BYTE_ORDER_MARK = "\xef\xbb\xbf";

/** Compiles the lines of an ignore file (its bytes decoded as latin1), in their order. */
export function compilePatterns(text: string): IgnorePattern[] {
  const patterns: IgnorePattern[] = [];
  const body = text.startsWith(BYTE_ORDER_MARK) ? text.slice(BYTE_ORDER_MARK.length) : text;
  for (const line of body.split("\n")) {
    const pattern = compilePattern(line.endsWith("\r") ? line.slice(0, -1) : line);
    if (pattern !== null) patterns.push(pattern);
  }
  return patterns;
}
