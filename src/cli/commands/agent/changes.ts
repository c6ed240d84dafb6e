import { lstatSync, mkdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Whom } from "../../../agents/covered.ts";
import { object } from "../../../contract/schema.ts";
import { shownPlan } from "../../../contract/words.ts";
import { planIdOf, requirePlan } from "../../../crypto/plan-id.ts";
import { durableWrite, readSmallFile } from "../../../fs/durable.ts";
import { removeUnfinished } from "../../../fs/work-directory.ts";
import type { Context } from "../../context.ts";
import type { Input } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { applyLine, listedNames, printable } from "../../render/format.ts";
import { type Edit, hasEdit } from "./edit.ts";

/** The files that an installation or a removal changes: planned, shown, and written. */

const LIMIT = 64 << 20;
const APPLY = new VerbOptions(object({ plan: shownPlan() }).entries);
export const PLAN_OPTIONS = [
  { flags: "--plan", text: "print the changed files, and write nothing" },
  ...APPLY.definitions,
];

/** The tool, the persons and the folder of a call. */
export interface Place {
  tool: string;
  whom: Whom;
  /** the workspace's folder, or the folder that becomes a workspace */
  folder: string;
}

export interface Change {
  file: string;
  before: string | null;
  text: string | null;
  /** topmost folder that `install` made for the file */
  made?: string | null;
  /** names of the entries that come or go, for example `hooks.Stop` */
  entries: string[];
}

/** Returns the files with all edits. Every edit is applied in memory before any file is written. */
export function changesOf(edits: readonly Edit[], apply: (edit: Edit, text: string | null) => string | null): Change[] {
  return [...Map.groupBy(edits, ({ file }) => file)].map(([file, own]) => {
    const before = textOf(file);
    const text = own.reduce((so, edit) => apply(edit, so), before);
    const changed = own.filter((edit) => isIn(edit, before) !== isIn(edit, text));
    return { file, before, text, entries: [...new Set(changed.map(nameOf))] };
  });
}

const isIn = (edit: Edit, text: string | null): boolean => text !== null && hasEdit(edit, text);

function nameOf(edit: Edit): string {
  if (edit.form === "file") return "the whole file";
  return edit.form === "table" ? edit.name : edit.path.join(".");
}

/** Tells how a file changes. */
function howOf({ before, text }: Change): "created" | "deleted" | "edited" | "unchanged" {
  if (text === before) return "unchanged";
  return text === null ? "deleted" : before === null ? "created" : "edited";
}

export const textOf = (file: string): string | null => readSmallFile(file, LIMIT, true)?.toString("utf8") ?? null;

/** Writes one file as a whole with its present mode; for a link, the link's target. Returns the topmost folder that it made. */
export function write({ file, before, text }: Change): string | null {
  if (text === before) return null;
  const isLink = lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  const target = isLink ? realpathSync(file) : file;
  if (text === null) {
    rmSync(target, { force: true });
    return null;
  }
  const made = mkdirSync(dirname(target), { recursive: true }) ?? null;
  const mode = statSync(target, { throwIfNoEntry: false })?.mode ?? 0o644;
  // A killed command leaves a copy of the settings.
  removeUnfinished(dirname(target));
  durableWrite(target, Buffer.from(text), { mode: mode & 0o777 });
  return made;
}

/** The files with their new content, and the id of this plan. */
export function dataOf(verb: "install" | "remove", { tool, whom, folder }: Place, changes: readonly Change[]) {
  const about = { tool, for: whom, folder: whom === "all-mine" ? null : folder };
  const files = changes.map(({ file, text, before }) => ({ path: file, changed: text !== before, text: text ?? "" }));
  const told = files.map((each, i) => ({ ...each, how: howOf(changes[i]!), entries: changes[i]!.entries }));
  return { ...about, files: told, plan_id: planIdOf(["agent", verb, about, ...files]) };
}

type Data = ReturnType<typeof dataOf>;

/** Throws `stale_plan` if the caller was shown other files, or other content of them. */
export function requireShown(context: Context, input: Input, { files, plan_id: id }: Data): void {
  const changed = files.flatMap((each) => (each.changed ? [printable(each.path)] : []));
  requirePlan(APPLY.read(context, input).plan, id, () =>
    changed.length === 0 ? "no file would change now" : `it would change ${listedNames(changed)} otherwise now`,
  );
}

/** Returns the new content of each file. */
export const contentsOf = ({ style }: Context, { files, plan_id: id }: Data): string =>
  [...files.map(({ path, text }) => `${style.bold(printable(path))}\n${text}`), applyLine(id, style)].join("\n");

export const shown = (changes: readonly Change[]): string[] =>
  changes.map(
    ({ file, text, before }) =>
      `  ${text === before ? "unchanged" : text === null ? "removed" : "written"}: ${printable(file)}`,
  );
