import { CairnError } from "../errors.ts";

/**
 * Operands name a state of a folder, or a path in it, in the same way everywhere: `POINT[:PATH]`, `NAME:POINT[:PATH]`,
 * `backup:SNAPSHOT[:PATH]`, `.` for the workspace's folder now, and any other folder that begins with `/`, `./`, `../`
 * or `~`. A repository's location is never part of an operand.
 */

/** One way to read an operand. Paths are written with slashes, from the state's root; empty for the root. */
export type Operand =
  | { readonly kind: "folder"; readonly folder: string }
  | { readonly kind: "backup"; readonly snapshot: string; readonly path: string }
  | { readonly kind: "point"; readonly point: string; readonly path: string };

/** The workspace's folder now. */
export const NOW = ".";
/** The word alone is the name of a point. */
const BACKUP = /^backup:/;
const FOLDER = /^(?:\/|\.\.?(?:\/|$)|~(?:\/|$))/;
/** A time at the beginning of a word; it has its own colons. */
const TIME =
  /^(?:\d{4}-\d\d-\d\d[ T]|(?:today|yesterday) )?\d\d?:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?(?=:|$)/i;
const LOCATION = /^(?:local|sftp|rest|s3|b2|azure|gs|swift|rclone|https?):/;

export function isFolderOperand(text: string): boolean {
  return FOLDER.test(text);
}

export function isBackupOperand(text: string): boolean {
  return BACKUP.test(text);
}

/** True for the location of a repository, which people may give by mistake. */
export function isLocation(text: string): boolean {
  return LOCATION.test(text);
}

/**
 * Returns the ways to read an operand, the likeliest first. For example `a:b:c` is the path `b:c` in the point `a`, or
 * the path `c` in the newest point `b` of the workspace `a`. Throws `usage`.
 */
export function readOperand(text: string): readonly Operand[] {
  if (isBackupOperand(text)) {
    const [snapshot, path = ""] = splitWord(text.slice("backup:".length));
    if (snapshot === "")
      throw new CairnError("usage", `${text} names no snapshot`, {
        hint: "for example backup:latest, or backup:latest:PATH",
      });
    return [{ kind: "backup", snapshot, path }];
  }
  const isFolder = isFolderOperand(text);
  const [point, path = ""] = splitWord(text);
  const found: Operand[] = [isFolder ? { kind: "folder", folder: text } : { kind: "point", point, path }];
  // The name of another workspace is one word, or its folder, which may have colons in its path.
  const ends = isFolder ? colonsIn(text) : text.length > point.length ? [point.length] : [];
  for (const end of ends) {
    const [inOther, below = ""] = splitWord(text.slice(end + 1));
    found.push({ kind: "point", point: `${text.slice(0, end)}:${inOther}`, path: below });
  }
  return found;
}

function colonsIn(text: string): number[] {
  return Array.from(text.matchAll(/:/g), ({ index }) => index);
}

/**
 * Splits a word at the colon into a name and a path, which is undefined for everything. Names of points and snapshots
 * have no colon, but times have.
 */
export function splitWord(text: string): [string, string | undefined] {
  const colon = text.indexOf(":", TIME.exec(text)?.[0].length ?? 0);
  if (colon === -1) return [text, undefined];
  const path = text
    .slice(colon + 1)
    .replace(/^(?:\.\/+)+/, "")
    .replace(/(?<=.)\/+$/, "");
  return [text.slice(0, colon), path === "" || path === "." ? undefined : path];
}
