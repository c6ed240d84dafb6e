import { isUtf8 } from "node:buffer";
import { toCairnError } from "../errors.ts";
import type { Context } from "./context.ts";
import { SaveOptions } from "../contract/points.ts";
import { pick } from "../contract/schema.ts";
import { grouped, type OptionDefinition } from "./definitions.ts";
import { VerbOptions } from "./options.ts";
import type { Input } from "./input.ts";
import { usage } from "./input.ts";
import { printable } from "./render/format.ts";
import { readRegular } from "../fs/regular-file.ts";

const EXCLUDE_FILE_OPTION: OptionDefinition = {
  flags: "--exclude-file <file>",
  text: "read patterns for --exclude from this file, one a line; may be repeated",
  repeat: true,
};

const SHARED = new VerbOptions(
  pick(
    SaveOptions,
    ...(["exclude", "excludeCaches", "excludeIfPresent", "excludeLargerThan", "reread", "crossMounts"] as const),
    ...(["databases", "secrets", "with", "rows", "hooks"] as const),
  ),
).definitions.concat(EXCLUDE_FILE_OPTION);

/** Returns the options of a save with `--exclude-file`; those of every save are a group. */
export function savingOptions(options: readonly OptionDefinition[]): readonly OptionDefinition[] {
  return grouped("saving", [...options, EXCLUDE_FILE_OPTION], SHARED);
}

const MAX_BYTES = 1 << 20;

/**
 * Returns the patterns of `--exclude-file`, then those of `--exclude`, because the last match decides. Throws `usage`,
 * or system errors of a file.
 */
export function readExcludes(context: Context, input: Input): string[] {
  const files = input.list("excludeFile").flatMap((file) => patternsIn(context.absolute(file), context.env));
  return [...files, ...input.list("exclude")];
}

function patternsIn(path: string, env: Context["env"]): string[] {
  let bytes: Buffer;
  try {
    bytes = readRegular(path, { named: true });
  } catch (error) {
    throw toCairnError(error, `reading the patterns in ${printable(path)}`);
  }
  if (bytes.length > MAX_BYTES) throw usage(`the pattern file ${printable(path)} is larger than 1 MiB`);
  // A misread pattern would silently exclude nothing.
  if (!isUtf8(bytes))
    throw usage(
      `the pattern file ${printable(path)} is not UTF-8`,
      "put such patterns into a .cairnignore file in the folder, which may contain any bytes",
    );
  return bytes
    .toString("utf8")
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .filter((line) => line.trim() !== "" && !line.startsWith("#"))
    .map((line) => notOfBorg(line, path))
    .map((line) => withVariable(line, path, env));
}

/**
 * Refuses borg's `- x`, `+ x` and `! x` of --patterns-from: here the first two match nothing, and `!` includes again.
 */
function notOfBorg(line: string, path: string): string {
  if (!/^(?:[-+!] |R \/|P (?:fm|sh|re|pp|pf)\s*$)/.test(line)) return line;
  throw usage(
    `${printable(line)} in ${printable(path)} is in the format of borg's --patterns-from`,
    "write one pattern a line, as in .cairnignore; !PATTERN includes paths again that an earlier line leaves out; escape a name that begins this way: \\- x",
  );
}

/** Replaces `$HOME/x` and `${HOME}/x` by paths, as in restic's files. A `$` elsewhere belongs to the name, as in `$RECYCLE.BIN`. */
function withVariable(line: string, path: string, env: Context["env"]): string {
  const [begin, not = "", braced, bare] = /^(!?)\$(?:\{(\w+)\}|(\w+))(?=\/|$)/.exec(line) ?? [];
  const name = braced ?? bare;
  if (begin === undefined || name === undefined) return line;
  const value = env[name];
  if (value?.startsWith("/") === true) return `${not}${value.replace(/\/+$/, "")}${line.slice(begin.length)}`;
  throw usage(
    `${printable(line)} in ${printable(path)} begins with a variable whose value in the environment is not an absolute path`,
    "write the path itself; write a name that begins with $ as [$]NAME",
  );
}
