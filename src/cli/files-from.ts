import { existsSync, readdirSync } from "node:fs";
import { resolve } from "node:path";
import { buffer } from "node:stream/consumers";
import { pathMatcher } from "../backup/open/paths.ts";
import { toCairnError } from "../errors.ts";
import { readRegular } from "../fs/regular-file.ts";
import type { Context } from "./context.ts";
import { printable } from "./render/format.ts";

const MAX_BYTES = 64 << 20;
const MEANS_SOMETHING = /[*?[\\]/;

/**
 * Returns the absolute paths of a file with one path or pattern per line; `-` is stdin. Skips empty lines and lines
 * that begin with `#`, and expands patterns as restic does, with a warning if a pattern matches nothing. Throws
 * `usage`, or system errors.
 */
export async function pathsFrom(context: Context, file: string): Promise<string[]> {
  let text: string;
  try {
    const bytes =
      file === "-"
        ? await buffer(process.stdin)
        : readRegular(context.absolute(file), { named: true, limit: MAX_BYTES });
    text = bytes.toString("utf8").replace(/^\uFEFF/, "");
  } catch (error) {
    throw toCairnError(error, `reading the paths in ${printable(file)}`);
  }
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .flatMap((line) => {
      if (!MEANS_SOMETHING.test(line)) return [resolve(context.cwd, line)];
      const found = expanded(line.startsWith("/") ? "" : context.cwd, line);
      if (found.length === 0)
        context.callOptions().onWarning?.(`no file matches the pattern ${printable(line)} in ${printable(file)}`);
      return found;
    });
}

/** Returns all paths that match a pattern below a folder; no part of the pattern matches a slash. */
function expanded(from: string, pattern: string): string[] {
  let found = [from];
  for (const part of pattern.split("/").filter((each) => each !== "")) {
    if (!MEANS_SOMETHING.test(part)) {
      found = found.map((path) => `${path}/${part}`);
      continue;
    }
    const fits = pathMatcher(`/${part}`, false);
    const isFitting = (name: string): boolean => fits(`/${Buffer.from(name).toString("latin1")}`);
    found = found.flatMap((path) =>
      namesIn(path)
        .filter(isFitting)
        .map((name) => `${path}/${name}`),
    );
  }
  return found.filter((path) => existsSync(path)).map((path) => resolve(path));
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(`${folder}/`);
  } catch {
    return [];
  }
}
