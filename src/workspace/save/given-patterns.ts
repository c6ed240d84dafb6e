import { lstatSync, realpathSync } from "node:fs";
import { advice, CairnError, option } from "../../errors.ts";
import { refuseBorgPattern } from "../../fs/borg-pattern.ts";
import { normalizeTyped } from "../../fs/paths/safe-path.ts";
import { SECRET_PATTERNS } from "../../fs/secret-names.ts";
import type { Attachments } from "../store/engine.ts";
import type { SaveInput } from "./record-point.ts";

const MEANS_SOMETHING = /[*?[\\]/;

/**
 * Converts typed patterns to patterns of an ignore file: the folder's own path and `./` mean the folder's root. Warns
 * of an absolute path outside the folder, and of one that is also inside. Throws `usage` for the folder itself and for
 * borg's syntax.
 */
export function givenPatterns(
  folder: Buffer,
  patterns: readonly string[],
  onWarning: ((warning: string) => void) | undefined,
): string[] {
  return patterns.map((pattern) => {
    const negation = pattern.startsWith("!") ? "!" : "";
    const typed = pattern.slice(negation.length);
    refuseBorgPattern(typed);
    if (typed.startsWith("./")) return `${negation}${typed.slice(1)}`;
    const [, first = ""] = typed.split("/");
    if (!typed.startsWith("/") || first === "") return pattern;
    const below = belowFolder(folder, typed);
    if (isThere(Buffer.concat([folder, Buffer.from(`/${first}`)]))) {
      if (below !== null) {
        const form = /^\/*$/.test(below) ? "" : `; for that path on this machine use .${below}`;
        onWarning?.(`the pattern ${typed} starts at the saved folder, which has that path${form}`);
      }
      return pattern;
    }
    if (below === null) {
      if (!MEANS_SOMETHING.test(typed) && isThere(typed))
        onWarning?.(`the pattern ${typed} starts at the saved folder, which has no ${first}: it leaves nothing out`);
      return pattern;
    }
    if (/^\/*$/.test(below))
      throw new CairnError("usage", `${pattern} is the folder itself: nothing would be left to save`);
    return `${negation}${below}`;
  });
}

/**
 * Returns all patterns of a save, as they are recorded. Given patterns override those for credentials. Throws as {@link
 * givenPatterns} does.
 */
export function patternsOf(folder: Buffer, { exclude = [], secrets, onWarning }: SaveInput): string[] {
  return [...(secrets === false ? SECRET_PATTERNS : []), ...givenPatterns(folder, exclude, onWarning)];
}

/** Returns the part of a pattern below the folder's path, links resolved; null for a path outside the folder. */
function belowFolder(folder: Buffer, pattern: string): string | null {
  for (let end = pattern.indexOf("/", 1); ; end = pattern.indexOf("/", end + 1)) {
    const path = end < 0 ? pattern : pattern.slice(0, end);
    const real = MEANS_SOMETHING.test(path) ? null : realPathIfThere(path);
    if (real === null) return null;
    if (folder.equals(real)) return pattern.slice(path.length);
    if (end < 0) return null;
  }
}

function isThere(path: string | Buffer): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}

function realPathIfThere(path: string): Buffer | null {
  try {
    return realpathSync.native(path, "buffer");
  } catch {
    return null;
  }
}

/** Reads DATABASE=FOLDER, both below the folder that is saved, and their queries. Warns of files that are not compared. Throws `usage`. */
export function attachmentsOf({ with: given = [], rows = [], onWarning }: SaveInput): Attachments[] {
  if (rows.length > 0 && rows.length !== given.length)
    throw new CairnError(
      "usage",
      `each query of --rows needs its --with DATABASE=FOLDER: found ${rows.length} and ${given.length}`,
    );
  if (given.length > 0 && rows.length === 0)
    onWarning?.(
      `${given.join(", ")}: the files are read after the rows that name them, but nothing is compared; --rows QUERY compares them`,
    );
  return given.map((text, i) => {
    const at = text.lastIndexOf("=");
    if (at <= 0 || at === text.length - 1)
      throw new CairnError("usage", `--with ${JSON.stringify(text)} does not have the form DATABASE=FOLDER`, {
        hint: advice`name a database and the folder of the files that its rows name: ${option({ with: ["mail.db=attachments"] })}`,
      });
    const [database, folder] = [normalizeTyped(text.slice(0, at)), normalizeTyped(text.slice(at + 1))];
    return { database, folder, query: rows[i] ?? null };
  });
}
