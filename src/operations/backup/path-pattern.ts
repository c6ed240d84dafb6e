import { normalize } from "node:path/posix";
import { CairnError } from "../../errors.ts";

/**
 * restic's patterns, which are Go's `filepath.Match` for each part between two slashes: `*`, `?`, `[a-z]`, `[^a-z]`, a
 * backslash before what stands for itself; and `**` as a part of its own for any number of directories, none among them.
 * Not those of an ignore file (`fs/ignore-pattern.ts`), which are git's.
 */

const NON_ASCII = /[\x80-\xff]/;
const MEANS_SOMETHING = /[\\^$.*+?()[\]{}|/]/;

/**
 * Whether a path in latin1, from `/`, fits. A pattern that begins with a slash is a whole path, any other the end of one.
 * Characters are those of UTF-8. Throws `usage` for an empty pattern and for one that can fit nothing.
 */
export function pathMatcher(pattern: string, ignoreCase: boolean): (path: string) => boolean {
  if (pattern === "") throw new CairnError("usage", "the pattern is empty");
  const wanted = normalize(pattern).replace(/(?<=.)\/$/, "");
  if (wanted === "/") return () => true;
  const isWhole = wanted.startsWith("/");
  const parts = wanted.slice(isWhole ? 1 : 0).split("/");
  const source = (isWhole ? parts : ["**", ...parts]).map((part) => partOf(part, pattern));
  const below = source.filter((part, i) => part !== DIRECTORIES || source[i - 1] !== DIRECTORIES).join("");
  const expression = new RegExp(`^${below}$`, ignoreCase ? "iu" : "u");
  return (path) => expression.test(NON_ASCII.test(path) ? Buffer.from(path, "latin1").toString("utf8") : path);
}

const ANY = "[^/]*";
const DIRECTORIES = `(?:/${ANY})*`;

/** The source of an expression for a slash and one part. */
function partOf(part: string, pattern: string): string {
  if (part === "**") return DIRECTORIES;
  const characters = Array.from(part);
  let source = "/";
  for (let at = 0; at < characters.length; at++) {
    const character = characters[at]!;
    if (character === "*") {
      if (!source.endsWith(ANY)) source += ANY;
    } else if (character === "?") source += "[^/]";
    else if (character === "[") {
      const set = setAt(characters, at + 1, pattern);
      source += set.source;
      at = set.end;
    } else {
      if (character === "\\") at++;
      source += literal(characters[at], pattern);
    }
  }
  return source;
}

/** What stands between brackets, from behind the first one; `end` is the place of the last. */
function setAt(characters: readonly string[], start: number, pattern: string): { source: string; end: number } {
  let at = start;
  const isNegated = characters[at] === "^";
  if (isNegated) at++;
  const member = (): string => {
    if (characters[at] === "-" || characters[at] === "]") throw unfit(pattern);
    if (characters[at] === "\\") at++;
    const character = characters[at++];
    if (character === undefined) throw unfit(pattern);
    return character;
  };
  let ranges = "";
  do {
    const first = member();
    let last = first;
    if (characters[at] === "-") {
      at++;
      last = member();
    }
    if (first.codePointAt(0)! <= last.codePointAt(0)!) ranges += `${escaped(first)}-${escaped(last)}`;
  } while (characters[at] !== "]");
  // No name has a slash, but the text of a path between two of them is not to be left.
  return { source: isNegated ? `[^${ranges}/]` : ranges === "" ? "[]" : `[${ranges}]`, end: at };
}

function literal(character: string | undefined, pattern: string): string {
  if (character === undefined) throw unfit(pattern);
  return MEANS_SOMETHING.test(character) ? `\\${character}` : character;
}

function escaped(character: string): string {
  return `\\u{${character.codePointAt(0)!.toString(16)}}`;
}

function unfit(pattern: string): CairnError {
  return new CairnError(
    "usage",
    `not a pattern, since a bracket or a backslash has no end: ${JSON.stringify(pattern)}`,
    {
      hint: "put a backslash before a character that stands for itself: \\[ \\] \\* \\? \\\\ and, between brackets, \\-",
    },
  );
}
