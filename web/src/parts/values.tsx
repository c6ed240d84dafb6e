import type { JSX } from "preact";
import { Words } from "./name.tsx";
import { count } from "./numbers.ts";
import { timesIn } from "./times.ts";

/** Times for people, in the browser's time zone, and counts of changes. */

const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" });
const WHOLE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const STEPS: readonly (readonly [Intl.RelativeTimeFormatUnit, number])[] = [
  ["year", 31_557_600],
  ["month", 2_629_800],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function timeOfDay(at: string): string {
  return TIME.format(new Date(at));
}

export function dayName(at: string | Date): string {
  return DAY.format(new Date(at));
}

export function wholeTime(at: string): string {
  return WHOLE.format(new Date(at));
}

/** `3 hours ago`. */
export function ago(at: string, now = Date.now()): string {
  const seconds = (new Date(at).getTime() - now) / 1000;
  for (const [unit, length] of STEPS)
    if (Math.abs(seconds) >= length) return AGO.format(Math.round(seconds / length), unit);
  return seconds > -60 && seconds <= 0 ? "just now" : AGO.format(Math.round(seconds), "second");
}

/** A time in words, for example `3 hours ago`, with the full time in its tooltip. */
export function When({ at, as = ago }: { at: string; as?: (at: string) => string }): JSX.Element {
  return (
    <time dateTime={at} title={wholeTime(at)}>
      {as(at)}
    </time>
  );
}

/** A sentence of the server, with its times in words. */
export function Told({ text }: { text: string }): JSX.Element {
  return <>{timesIn(text).map((part, i) => (i % 2 === 1 ? <When at={part} /> : <Words text={part} isWhole />))}</>;
}

/** Returns the tags in a text that separates them by commas. */
export function tagsIn(text: string): string[] {
  return text
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "");
}

/** Counts of changed entries: `+3 ~2 −1`. */
export function Counts({
  added,
  modified,
  removed,
}: {
  added: number;
  modified: number;
  removed: number;
}): JSX.Element {
  const spoken = `${count(added)} added, ${count(modified)} modified, ${count(removed)} removed`;
  return (
    <span class="counts" role="img" aria-label={spoken} title={spoken}>
      {added > 0 && <span class="added">+{count(added)}</span>}
      {modified > 0 && <span class="modified">~{count(modified)}</span>}
      {removed > 0 && <span class="removed">−{count(removed)}</span>}
      {added + modified + removed === 0 && <span class="faint">no change</span>}
    </span>
  );
}
