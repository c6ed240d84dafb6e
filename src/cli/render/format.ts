import { formatCount, plural } from "../../formats/sizes.ts";
import type { Style } from "./style.ts";

export { formatBytes, formatCount, plural } from "../../formats/sizes.ts";
export { listedNames, shellQuote } from "../../fs/paths/safe-path.ts";

/** `4 ms`, `1.24 s`, `2 min 5 s`, `3 h 20 min`. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 999.5) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 59_950) return `${Number((milliseconds / 1000).toFixed(milliseconds < 9_995 ? 2 : 1))} s`;
  const seconds = Math.round(milliseconds / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** `just now`, `5 minutes ago`, `in 2 days`. */
export function formatAge(instant: string, now: number): string {
  const seconds = Math.round((now - Date.parse(instant)) / 1000);
  if (Number.isNaN(seconds)) return instant;
  const size = Math.abs(seconds);
  if (size < 10) return "just now";
  const [count, unit] =
    size < 60
      ? [size, "second"]
      : size < 3600
        ? [Math.round(size / 60), "minute"]
        : size < 86_400
          ? [Math.round(size / 3600), "hour"]
          : size < 86_400 * 60
            ? [Math.round(size / 86_400), "day"]
            : size < 86_400 * 730
              ? [Math.round(size / (86_400 * 30.44)), "month"]
              : [Math.round(size / (86_400 * 365.25)), "year"];
  const text = plural(count, unit);
  return seconds >= 0 ? `${text} ago` : `in ${text}`;
}

/** Local time, to the second: `2026-11-20 10:11:12`. */
export function formatInstant(instant: string): string {
  const date = new Date(instant);
  if (Number.isNaN(date.getTime())) return instant;
  const two = (value: number): string => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

const DAY_MS = 86_400_000;

/** Local time to the minute, for lists; a target may have this form. `2031-01-02 10:11 (in 4 years)`. */
export function formatMinute(instant: string, now: number): string {
  const age = now - Date.parse(instant);
  if (Number.isNaN(age)) return instant;
  const minute = formatInstant(instant).slice(0, -":00".length);
  return age > -DAY_MS ? minute : `${minute} (${formatAge(instant, now)})`;
}

/** A time before now, for sentences. */
export const shownTime = (instant: string): string => formatMinute(instant, Date.now());

/** `3 added, 1 modified`; `nothing` if all counts are zero. */
export function formatCounts(counts: object): string {
  const parts = Object.entries(counts).filter(([, count]) => (count as number) > 0);
  return parts.length === 0
    ? "nothing"
    : parts.map(([word, count]) => `${formatCount(count as number)} ${word}`).join(", ");
}

// Names may come from anybody: they must not control the terminal or look like another line.
// oxlint-disable-next-line no-control-regex
const UNPRINTABLE = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]/g;

/** Shows control characters and direction marks as escapes. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
}

/** Shows a path below a folder; the folder itself is `.`. */
export function shownPath(path: string): string {
  return path === "" ? "." : printable(path);
}

export function firstLine(text: string): string {
  return printable(text.split("\n", 1)[0] ?? "");
}

/** For example `drwxr-sr-t`, from a kind and its permission bits. */
export function formatMode(kind: string, mode: number): string {
  const first: Record<string, string> = {
    directory: "d",
    symlink: "l",
    fifo: "p",
    socket: "s",
    chardev: "c",
    blockdev: "b",
  };
  let text = first[kind] ?? "-";
  for (const shift of [6, 3, 0]) {
    const bits = (mode >> shift) & 7;
    const special = (mode >> 9) & (shift === 6 ? 4 : shift === 3 ? 2 : 1);
    const letter = shift === 0 ? "t" : "s";
    const run = bits & 1 ? (special ? letter : "x") : special ? letter.toUpperCase() : "-";
    text += (bits & 4 ? "r" : "-") + (bits & 2 ? "w" : "-") + run;
  }
  return text;
}

/** At most `limit` lines, then the number of the others. A single other line is there itself. */
export function limited(lines: readonly string[], limit: number, style: Style): string[] {
  if (lines.length <= limit + 1) return [...lines];
  return [...lines.slice(0, limit), style.dim(`… and ${formatCount(lines.length - limit)} more (all with --json)`)];
}

/** Returns the last line of a plan: how to carry out the plan. */
export function applyLine(plan: string, style: Style): string {
  return style.dim(`to do exactly this, or nothing: add --apply ${plan} in place of --plan`);
}
