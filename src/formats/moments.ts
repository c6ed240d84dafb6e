const UNIT_MS: Readonly<Record<string, number>> = {
  second: 1000,
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
};
/** Short names of units, without a plural s, which the pattern has removed. */
const SHORT_UNITS: Readonly<Record<string, string>> = {
  s: "second",
  sec: "second",
  m: "minute",
  min: "minute",
  h: "hour",
  hr: "hour",
  d: "day",
  w: "week",
};

/**
 * Converts a text to ms since 1970, or null: `2 hours ago`, `5m`, `last week`, `yesterday`, `yesterday 14:00`, `14:00`,
 * `2026-11-23`, `2026-11-23 14:00`, RFC 3339. `edge`: the last or first instant of a day or minute. Times without a zone are local.
 */
export function momentOf(text: string, now: number, edge: "first" | "last" = "last"): number | null {
  if (text.toLowerCase() === "now") return now;
  // `5m` and `2 days` are times too. Four hex digits such as `123d` are the start of an id.
  const short = /^[\da-f]{4,}$/i.test(text) ? null : /^(\d{1,6}|last) ?([a-z]+?)s?$/i.exec(text);
  const ago = /^(\d{1,6}|an?) ?([a-z]+?)s? ago$/i.exec(text) ?? short;
  const word = ago?.[2]!.toLowerCase() ?? "";
  const unit = SHORT_UNITS[word] ?? word;
  if (ago !== null && (UNIT_MS[unit] !== undefined || unit === "month" || unit === "year")) {
    const count = /^\d/.test(ago[1]!) ? Number(ago[1]) : 1;
    if (UNIT_MS[unit] !== undefined) return now - count * UNIT_MS[unit];
    const date = new Date(now);
    if (unit === "month") date.setMonth(date.getMonth() - count);
    else date.setFullYear(date.getFullYear() - count);
    return date.getTime();
  }
  const zoned = /^\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)$/i;
  if (zoned.test(text)) return validTime(Date.parse(text));
  const local = /^(?:(\d{4})-(\d\d)-(\d\d)|(today|yesterday))?(?:(?:^|[ T])(\d\d?):(\d\d)(?::(\d\d))?)?$/i.exec(text);
  if (local === null || text === "") return null;
  const [, year, month, day, relative, hour, minute, second] = local;
  const date = new Date(now);
  if (year !== undefined) date.setFullYear(Number(year), Number(month) - 1, Number(day));
  if (year !== undefined && (date.getMonth() !== Number(month) - 1 || date.getDate() !== Number(day))) return null;
  if (relative?.toLowerCase() === "yesterday") date.setDate(date.getDate() - 1);
  if (Number(hour ?? "0") > 23 || Number(minute ?? "0") > 59 || Number(second ?? "0") > 59) return null;
  // A minute means its last second, so that 14:00 finds a point that a list shows as 14:00.
  if (edge === "first") date.setHours(Number(hour ?? "0"), Number(minute ?? "0"), Number(second ?? "0"), 0);
  else date.setHours(Number(hour ?? "23"), Number(minute ?? "59"), Number(second ?? "59"), 999);
  return validTime(date.getTime());
}

function validTime(time: number): number | null {
  return Number.isNaN(time) ? null : time;
}

/** Returns a time in the local zone, for example `2026-11-23 14:00:00`. */
export function localTime(moment: number): string {
  const date = new Date(moment);
  return new Date(moment - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19).replace("T", " ");
}
