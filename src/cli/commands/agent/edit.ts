import type * as jsonc from "jsonc-parser";
import { parse as parseToml } from "smol-toml";
import { isDeepStrictEqual } from "node:util";
import { CairnError } from "../../../errors.ts";
import { isOurs, jsonWithComments } from "../../../agents/json.ts";
import { MARK } from "../../../agents/tools.ts";

const { applyEdits, findNodeAtLocation, modify, parse, parseTree } = jsonWithComments;

/** The JSON that a tool reads: strict, with comments, or with comments and trailing commas. */
export type Syntax = "json" | "json with comments" | "jsonc";

export type Edit =
  /** A member of JSON. `fresh`: the text of a new file before the entry; by default an empty object. */
  | { form: "member"; file: string; syntax: Syntax; path: readonly string[]; value: unknown; fresh?: string }
  /** An element at the end of a list of JSON. Some tools identify the other elements by index. */
  | { form: "element"; file: string; syntax: Syntax; path: readonly string[]; value: unknown }
  /** A table of TOML, at the end of the file. */
  | { form: "table"; file: string; name: string; lines: readonly string[] }
  /** A whole file. With `yields` an existing file of another author stays; otherwise it is an error. */
  | { form: "file"; file: string; text: string; yields?: true };

/** Returns a file's text with an entry in it, unchanged if it has the entry. `text` null: there is no file. Throws `refused`. */
export function withEdit(edit: Edit, text: string | null): string {
  switch (edit.form) {
    case "file":
      return isForeign(edit, text) ? text : edit.text;
    case "table": {
      const without = withoutEdit(edit, text) ?? "";
      const block = [`[${edit.name}]`, ...edit.lines, ""].join("\n");
      const wanted = `${without}${without === "" || without.endsWith("\n") ? "" : "\n"}${without.trim() === "" ? "" : "\n"}${block}`;
      requireToml(edit.file, wanted);
      return wanted;
    }
    case "member":
    case "element": {
      const before = text ?? freshOf(edit);
      const root = requireJson(edit, before);
      if (edit.form === "member")
        return isDeepStrictEqual(at(root, edit.path), edit.value) ? before : set(before, edit.path, edit.value);
      const list = at(root, edit.path);
      if (list !== undefined && !Array.isArray(list)) throw odd(edit.file, edit.path);
      const own = (list ?? []).findLastIndex(isOurs);
      if (own >= 0)
        return isDeepStrictEqual((list as unknown[])[own], edit.value)
          ? before
          : set(before, [...edit.path, own], edit.value);
      if (list === undefined) return set(before, edit.path, [edit.value]);
      return set(before, [...edit.path, -1], edit.value);
    }
  }
}

/** True if a text has the entry, whatever version wrote it. The text was parsed by `withEdit`. */
export function hasEdit(edit: Edit, text: string): boolean {
  if (edit.form === "file") return text.includes(MARK);
  if (edit.form === "table") return at(parseToml(text), edit.name.split(".")) !== undefined;
  const value = at(parse(text), edit.path);
  return edit.form === "member" ? value !== undefined : Array.isArray(value) && value.some(isOurs);
}

/** Returns the text of a file without an entry; null: the file becomes empty. Throws `refused` for text that does not parse. */
export function withoutEdit(edit: Edit, text: string | null): string | null {
  if (text === null) return null;
  switch (edit.form) {
    case "file":
      return isForeign(edit, text) ? text : null;
    case "table": {
      requireToml(edit.file, text);
      const lines = text.split("\n");
      const first = lines.findIndex((line) => line.trim() === `[${edit.name}]`);
      if (first < 0) {
        const tables = parseToml(text) as Record<string, unknown>;
        if (at(tables, edit.name.split(".")) !== undefined) throw odd(edit.file, edit.name.split("."));
        return text;
      }
      const isOwn = (line: string): boolean => !/^\s*\[/.test(line) || line.trim().startsWith(`[${edit.name}.`);
      const next = lines.findIndex((line, i) => i > first && !isOwn(line));
      // Comments and empty lines before the next table belong to that table.
      const last = lines.slice(0, next < 0 ? lines.length : next).findLastIndex((line) => !/^\s*(?:#|$)/.test(line));
      const rest = lines.slice(last + 1);
      const begin = first > 0 && lines[first - 1]!.trim() === "" ? first - 1 : first;
      const left = [...lines.slice(0, begin), ...(rest.length === 0 ? [""] : rest)].join("\n");
      const [was, now] = [text, left].map((each) => parseToml(each) as Record<string, unknown>);
      if (!isDeepStrictEqual(without(was!, edit.name.split(".")), without(now!, edit.name.split("."))))
        throw odd(edit.file, edit.name.split("."));
      return left.trim() === "" ? null : left;
    }
    case "member":
    case "element": {
      const root = requireJson(edit, text);
      let left = text;
      if (edit.form === "member") left = set(text, edit.path, undefined);
      else {
        const list = at(root, edit.path);
        if (Array.isArray(list))
          for (let i = list.length - 1; i >= 0; i--)
            if (isOurs(list[i])) left = set(left, [...edit.path, i], undefined);
      }
      if (left !== text) left = withoutEmpty(left, edit.path);
      const [now, fresh] = [left, freshOf(edit)].map((each) => each.replaceAll(/\s/g, ""));
      return now === "{}" || now === fresh ? null : left;
    }
  }
}

const freshOf = (edit: Edit): string => (edit.form === "member" ? edit.fresh : undefined) ?? "{}\n";

/** Removes empty objects and lists, from the inside out. */
function withoutEmpty(text: string, path: readonly string[]): string {
  let left = text;
  for (let end = path.length; end > 0; end--) {
    const here = at(parse(left) as unknown, path.slice(0, end));
    if (here === undefined || (typeof here === "object" && here !== null && Object.keys(here).length === 0))
      left = set(left, path.slice(0, end), undefined);
    else break;
  }
  return left;
}

/** Changes one place; all bytes beside it stay. */
function set(text: string, path: readonly (string | number)[], value: unknown): string {
  const root = parseTree(text)!;
  if (value === undefined) return cut(text, findNodeAtLocation(root, [...path]));
  const edits = modify(text, [...path], value, { isArrayInsertion: path.at(-1) === -1 });
  const [edit] = edits;
  if (edit === undefined || edits.length > 1) return applyEdits(text, edits);
  // The new value is indented below the levels that exist already.
  let depth = path.findIndex((_, i) => findNodeAtLocation(root, path.slice(0, i + 1)) === undefined);
  if (depth < 0) depth = path.length - 1;
  const inner = UNIT.repeat(depth + 1);
  const [, comma = "", core = "", last = ""] = /^(,?)([^]*?)(,?)$/.exec(edit.content.trim())!;
  const isMember = core.startsWith('"') && edit.length === 0;
  const pretty = JSON.stringify(JSON.parse(isMember ? `{${core}}` : core), null, UNIT);
  const lines = (
    isMember
      ? pretty
          .split("\n")
          .slice(1, -1)
          .map((line) => line.slice(UNIT.length))
      : pretty.split("\n")
  ).join(`\n${inner}`);
  const isReplaced = edit.length > 0;
  const isLineNext = /^,?[ \t]*\r?\n/.test(text.slice(edit.offset));
  const content = isReplaced
    ? lines
    : `${comma}\n${inner}${lines}${last}${isLineNext || last !== "" ? "" : `\n${UNIT.repeat(depth)}`}`;
  return applyEdits(text, [{ ...edit, content }]);
}

const UNIT = "  ";

/** Removes a member or element, with the comma that came with it. A single one may have a trailing comma. */
function cut(text: string, node: jsonc.Node | undefined): string {
  const item = node?.parent?.type === "property" ? node.parent : node;
  const siblings = item?.parent?.children;
  if (item === undefined || siblings === undefined) return text;
  const place = siblings.indexOf(item);
  const [before, after] = [siblings[place - 1], siblings[place + 1]];
  const begin = before === undefined ? item.offset : before.offset + before.length;
  const isOnly = before === undefined && after === undefined;
  const comma = isOnly ? (/^\s*,/.exec(text.slice(item.offset + item.length))?.[0].length ?? 0) : 0;
  const end = before === undefined && after !== undefined ? after.offset : item.offset + item.length + comma;
  return text.slice(0, begin) + text.slice(end);
}

function at(root: unknown, path: readonly string[]): unknown {
  let here = root;
  for (const name of path) {
    if (typeof here !== "object" || here === null || !Object.hasOwn(here, name)) return undefined;
    here = (here as Record<string, unknown>)[name];
  }
  return here;
}

function without(root: Record<string, unknown>, path: readonly string[]): Record<string, unknown> {
  const [name, ...rest] = path;
  const copy = { ...root };
  const inner = copy[name!];
  if (rest.length === 0) delete copy[name!];
  else if (typeof inner === "object" && inner !== null) {
    copy[name!] = without(inner as Record<string, unknown>, rest);
    if (Object.keys(copy[name!] as object).length === 0) delete copy[name!];
  }
  return copy;
}

function requireJson(
  { file, syntax, path }: Edit & { syntax: Syntax; path: readonly string[] },
  text: string,
): unknown {
  const errors: jsonc.ParseError[] = [];
  const root = parse(text, errors, {
    allowTrailingComma: syntax === "jsonc",
    disallowComments: syntax === "json",
  }) as unknown;
  if (errors.length > 0 || typeof root !== "object" || root === null || Array.isArray(root)) throw odd(file, []);
  for (let end = 1; end < path.length; end++) {
    const here = at(root, path.slice(0, end));
    if (here !== undefined && (typeof here !== "object" || here === null || Array.isArray(here)))
      throw odd(file, path.slice(0, end));
  }
  return root;
}

function requireToml(file: string, text: string): void {
  try {
    parseToml(text);
  } catch (error) {
    throw new CairnError(
      "refused",
      `${file} is not valid TOML, or would not be after the change: ${(error as Error).message.split("\n")[0]}`,
      { hint: "fix the file first, or add the entry by hand: --plan shows it" },
    );
  }
}

/** True if another author wrote the file, and the entry yields to it. Throws `already_exists` if the entry does not yield. */
function isForeign({ file, yields }: Edit & { form: "file" }, text: string | null): text is string {
  if (text === null || text.includes(MARK)) return false;
  if (yields === true) return true;
  throw new CairnError("already_exists", `${file} exists already, and was not written by Cairn`, {
    hint: "rename that file",
  });
}

function odd(file: string, path: readonly string[]): CairnError {
  const what = path.length === 0 ? "is not JSON that its tool can read" : `has ${path.join(".")} in an unexpected form`;
  return new CairnError("refused", `${file} ${what}, so nothing was written`, {
    hint: "fix the file first, or add the entry by hand: --plan shows it",
  });
}
