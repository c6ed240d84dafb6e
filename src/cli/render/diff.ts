import { append } from "../../append.ts";
import type { DiffEntry } from "../../contract/index.ts";
import { decodeText, textHunks } from "../../look/text-diff.ts";
import { formatBytes, formatCount, plural, printable, shownPath } from "./format.ts";
import type { Style } from "./style.ts";

const SIGNS = { added: "A", removed: "D", modified: "M", renamed: "R", not_kept: "I" } as const;

/** One line of an entry: `M src/a.ts (content, mode) 1.2 KiB → 1.3 KiB`. */
export function renderEntryLine(entry: DiffEntry, style: Style): string {
  const { green: added, red: removed, yellow: modified, cyan: renamed } = style;
  const colours = { added, removed, modified, renamed, not_kept: modified };
  const slash = entry.kind === "directory" ? "/" : "";
  const from = entry.from_path === undefined ? "" : `${printable(entry.from_path)}${slash} → `;
  const notes = entry.change === "not_kept" ? ["ignored by a rule now"] : entry.aspects;
  const aspects = notes.length === 0 ? "" : style.dim(` (${notes.join(", ")})`);
  return `${colours[entry.change](SIGNS[entry.change])} ${from}${shownPath(entry.path)}${slash}${aspects}${describeSizes(entry, style)}`;
}

function describeSizes(entry: DiffEntry, style: Style): string {
  const { size_before: before, size_after: after } = entry;
  if (entry.kind !== "file") return "";
  if (before !== undefined && after !== undefined)
    return before === after ? "" : style.dim(`  ${formatBytes(before)} → ${formatBytes(after)}`);
  const size = after ?? before;
  return size === undefined ? "" : style.dim(`  ${formatBytes(size)}`);
}

/** Counts a renamed entry as one added and one removed, as the status and the history do. */
export function renderSummary(entries: readonly DiffEntry[]): string {
  const counts = { added: 0, removed: 0, modified: 0, not_kept: 0 };
  for (const { change } of entries)
    for (const each of change === "renamed" ? (["added", "removed"] as const) : [change]) counts[each]++;
  const parts = Object.entries(counts).filter(([, count]) => count > 0);
  const words = parts.map(
    ([change, count]) => `${formatCount(count)} ${change === "not_kept" ? "no longer saved" : change}`,
  );
  const sum = parts.reduce((all, [, count]) => all + count, 0);
  const renamed = sum > entries.length ? ` (${formatCount(sum - entries.length)} renamed)` : "";
  return entries.length === 0 ? "no difference" : `${plural(sum, "entry")}: ${words.join(", ")}${renamed}`;
}

export interface TextDiff {
  entry: DiffEntry;
  /** Null: the file does not exist on that side. */
  before: Uint8Array | null;
  after: Uint8Array | null;
}

const NOTHING = new Uint8Array(0);
/** Returns a unified diff of two texts; null if they differ too much. For other content a line says that it differs, as in git. */
export function renderTextDiff(diff: TextDiff, style: Style): string | null {
  const before = decodeText(diff.before ?? NOTHING);
  const after = decodeText(diff.after ?? NOTHING);
  const oldName = diff.before === null ? "/dev/null" : `a/${printable(diff.entry.from_path ?? diff.entry.path)}`;
  const newName = diff.after === null ? "/dev/null" : `b/${printable(diff.entry.path)}`;
  if (before === null || after === null) return style.bold(`Binary files ${oldName} and ${newName} differ`);
  const hunks = textHunks(before, after);
  if (hunks === null) return null;
  // Without a tab patch takes the text after a blank for a time.
  const [old, now] = [oldName, newName].map((name) => (name.includes(" ") ? `${name}\t` : name));
  const lines = [style.bold(`--- ${old}`), style.bold(`+++ ${now}`)];
  for (const hunk of hunks) {
    const section = hunk.section === null ? "" : ` ${printable(hunk.section)}`;
    lines.push(style.cyan(`@@ -${hunk.old_start},${hunk.old_lines} +${hunk.new_start},${hunk.new_lines} @@`) + section);
    append(
      lines,
      hunk.lines.map((line) => colourLine(line, style)),
    );
  }
  return lines.join("\n");
}

function colourLine(line: string, style: Style): string {
  const shown = line.replace(/\r$/, "␍").split("\t").map(printable).join("\t");
  if (line.startsWith("+")) return style.green(shown);
  if (line.startsWith("-")) return style.red(shown);
  return shown;
}
