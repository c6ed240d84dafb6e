import { lstatSync, realpathSync } from "node:fs";
import { CairnError } from "../errors.ts";

const MEANS_SOMETHING = /[*?[\\]/;

type OnWarning = ((warning: string) => void) | undefined;

/**
 * Patterns of an ignore file as people type them for a folder: one that begins with the folder's own path counts from there,
 * and so does what follows `./`; where the folder has that path in it too, it is that, which is warned of. So is one that
 * only leads to something elsewhere, as it hides nothing. `usage` for the folder itself.
 */
export function givenPatterns(folder: Buffer, patterns: readonly string[], onWarning: OnWarning): string[] {
  return patterns.map((pattern) => {
    const negation = pattern.startsWith("!") ? "!" : "";
    const typed = pattern.slice(negation.length);
    if (typed.startsWith("./")) return `${negation}${typed.slice(1)}`;
    if (!typed.startsWith("/")) return pattern;
    const below = belowFolder(folder, typed);
    if (below !== null && isInside(folder, typed)) {
      const form = /^\/*$/.test(below) ? "" : `; for what has that path on this machine: .${below}`;
      onWarning?.(`${typed} counts from the folder that is saved, which has one${form}`);
      return pattern;
    }
    if (below === null) warnOfOther(folder, typed, onWarning);
    else if (/^\/*$/.test(below))
      throw new CairnError("usage", `${pattern} is the folder itself: nothing would be left to save`);
    return `${negation}${below ?? typed}`;
  });
}

/** What follows the folder's path, by whatever links that leads there; null where the pattern is of no path in it. */
function belowFolder(folder: Buffer, pattern: string): string | null {
  for (let end = pattern.indexOf("/", 1); ; end = pattern.indexOf("/", end + 1)) {
    const path = end < 0 ? pattern : pattern.slice(0, end);
    if (path.length > 1) {
      const real = MEANS_SOMETHING.test(path) ? null : realPathIfThere(path);
      if (real === null) return null;
      if (folder.equals(real)) return pattern.slice(path.length);
    }
    if (end < 0) return null;
  }
}

function warnOfOther(folder: Buffer, pattern: string, onWarning: OnWarning): void {
  if (MEANS_SOMETHING.test(pattern) || firstOf(pattern) === "" || !isThere(pattern) || isInside(folder, pattern))
    return;
  onWarning?.(
    `${pattern} counts from the folder that is saved, in which there is no ${firstOf(pattern)}: it leaves nothing out`,
  );
}

function firstOf(pattern: string): string {
  return pattern.split("/")[1] ?? "";
}

/** Whether the folder has something by the first name of a pattern. */
function isInside(folder: Buffer, pattern: string): boolean {
  return isThere(Buffer.concat([folder, Buffer.from(`/${firstOf(pattern)}`)]));
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
