import { lstatSync, realpathSync } from "node:fs";
import { resolve } from "node:path";
import { CairnError } from "../errors.ts";
import { refuseBorgPattern } from "../fs/borg-pattern.ts";
import { IgnoreRules } from "../fs/ignore.ts";

const MEANS_SOMETHING = /[*?[\\]/;
/** What shells replace, but not in quotes nor behind `--exclude=`. */
const SHELLS_OWN = /^(?:~|\$\{?\w+\}?)$/;

type OnWarning = ((warning: string) => void) | undefined;

/**
 * Patterns of an ignore file as people type them for a folder: one that begins with the folder's own path counts from there,
 * and so does what follows `./`; where the folder has that path in it too, it is that, which is warned of. So is one that
 * only leads to something elsewhere, as it hides nothing. `usage` for the folder itself, and for what is written as for borg.
 */
export function givenPatterns(folder: Buffer, patterns: readonly string[], onWarning: OnWarning): string[] {
  return patterns.flatMap((pattern) => {
    const negation = pattern.startsWith("!") ? "!" : "";
    const typed = pattern.slice(negation.length);
    refuseBorgPattern(typed);
    if (typed.startsWith("./")) return `${negation}${typed.slice(1)}`;
    if (!typed.startsWith("/")) {
      if (negation === "") warnOfRelative(folder, typed, onWarning);
      return pattern;
    }
    const below = belowFolder(folder, typed);
    const wholes = below === null ? belowByPattern(folder, typed) : [below];
    if (wholes.length > 0 && isInside(folder, typed)) {
      const form = /^\/*$/.test(wholes[0]!) ? "" : `; for what has that path on this machine: .${wholes[0]!}`;
      onWarning?.(`${typed} counts from the folder that is saved, which has one${form}`);
      return pattern;
    }
    if (wholes.length === 0) warnOfOther(folder, typed, onWarning);
    if (below !== null && /^\/*$/.test(below))
      throw new CairnError("usage", `${pattern} is the folder itself: nothing would be left to save`);
    return wholes.length === 0 ? pattern : wholes.map((each) => `${negation}${each}`);
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

/** As {@link belowFolder}, where `*` or the like leads to the folder; `**` may end there in several ways. */
function belowByPattern(folder: Buffer, pattern: string): string[] {
  const parts = pattern.replace(/\/+$/, "").split("/");
  if (MEANS_SOMETHING.test(parts[1] ?? "")) return [];
  const at = folder.lastIndexOf("/");
  const above = folder.subarray(1, Math.max(at, 1)).toString("latin1");
  const name = folder.subarray(at + 1).toString("latin1");
  const found: string[] = [];
  // What fits the folder itself, or one above it, is of a list for other folders: `/tmp/*`.
  for (let end = 2; end < parts.length; end++) {
    const rules = IgnoreRules.enterDirectory(IgnoreRules.fromExcludes([parts.slice(0, end).join("/")]), above, null);
    if (!rules.ignores(name, true)) continue;
    const rest = parts.slice(parts[end - 1] === "**" ? end - 1 : end);
    found.push(`/${rest.join("/")}${pattern.endsWith("/") ? "/" : ""}`);
  }
  return found;
}

/** Of a path that is typed from where one stands, from the topmost folder on (as borg lists it), or as a shell would read it. */
function warnOfRelative(folder: Buffer, pattern: string, onWarning: OnWarning): void {
  const [first = "", ...more] = pattern.split("/");
  const isAbove = first === "..";
  if (more.length === 0 || first === "" || (!isAbove && isThere(Buffer.concat([folder, Buffer.from(`/${first}`)]))))
    return;
  if (SHELLS_OWN.test(first))
    return onWarning?.(
      `${pattern} leaves nothing out: ${first} was not replaced by the shell, and the folder has none`,
    );
  if (MEANS_SOMETHING.test(first)) return;
  for (const from of [process.cwd(), "/"]) {
    const whole = `${resolve(from, first)}/${more.join("/")}`;
    const below = belowFolder(folder, whole) ?? belowByPattern(folder, whole)[0];
    // From the folder itself it is what it counts as.
    if (below === undefined || /^\/*$/.test(below) || below === `/${pattern}`) continue;
    return onWarning?.(
      `${pattern} counts from the folder that is saved, in which there is no ${first}: it leaves nothing out; for what has that path on this machine: .${below}`,
    );
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
