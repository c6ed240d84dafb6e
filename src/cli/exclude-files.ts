import { isUtf8 } from "node:buffer";
import { toCairnError } from "../errors.ts";
import type { Context } from "./context.ts";
import type { OptionDefinition } from "./definitions.ts";
import type { Input } from "./input.ts";
import { usage } from "./input.ts";
import { printable } from "./render/format.ts";
import { readRegular } from "../fs/regular-file.ts";

export const EXCLUDE_FILE_OPTION: OptionDefinition = {
  flags: "--exclude-file <file>",
  text: "read patterns for --exclude from this file, one a line; may be repeated",
  repeat: true,
};

const MAX_BYTES = 1 << 20;

/**
 * The patterns of `--exclude-file` and, after them, so that they have the last word, those of `--exclude`. Throws `usage`, or what
 * the system says of a file.
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
  // A pattern that is read otherwise than it was meant would hide nothing, in silence.
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

/** `- x`, `+ x` and `! x` are what borg's --patterns-from reads; here the first two would fit nothing, and `!` takes back. */
function notOfBorg(line: string, path: string): string {
  if (!/^(?:[-+!] |R \/|P (?:fm|sh|re|pp|pf)\s*$)/.test(line)) return line;
  throw usage(
    `${printable(line)} in ${printable(path)} is in the format of borg's --patterns-from`,
    "write one pattern a line, as in .cairnignore; !PATTERN includes paths again that an earlier line leaves out; escape a name that begins this way: \\- x",
  );
}

/** `$HOME/x` and `${HOME}/x` are paths, as in restic's files; a `$` elsewhere is a name's own, as in `$RECYCLE.BIN`. */
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
