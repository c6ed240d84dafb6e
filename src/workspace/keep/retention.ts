import { CairnError } from "../../errors.ts";
import { checkRules, type KeepCount, type RetentionRules } from "../../formats/records/policy.ts";
import { splitTags } from "../../formats/restic/snapshot.ts";

/**
 * Decides which points a set of rules keeps, with restic's rules and meaning. Hours, days, ISO weeks, months and years
 * are of this machine's time zone. Otherwise the decision depends on the arguments alone.
 */

/** The properties of a point that rules use. */
export interface RetentionPoint {
  id: string;
  /** order of points with the same time */
  sequence: number;
  /** milliseconds since 1970 */
  time: number;
  tags: readonly string[];
  /** made by a restore or an undo: only `keepUndo` applies */
  undo: boolean;
  /** entries are missing: rules count whole points as if this one were not there */
  incomplete?: boolean;
}

export interface RetentionDecision {
  id: string;
  keep: boolean;
  /** the rules that keep the point, or the limit that drops it */
  reasons: string[];
}

const DEFAULT_KEEP_UNDO = { count: 20, within: "30d" } as const;

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

interface Span {
  years: number;
  months: number;
  days: number;
  hours: number;
}

/** Parses a span such as `30d`, `2w`, `12h` or `1y6m`, in any order. Throws `usage`. */
export function parseSpan(text: string): Span {
  const span: Span = { years: 0, months: 0, days: 0, hours: 0 };
  if (!/^(?:\d{1,6}[ymwdh])+$/.test(text)) {
    throw new CairnError("usage", `not a span of time: ${JSON.stringify(text.slice(0, 40))}`, {
      hint: "use one of at least 1h, such as 12h, 30d, 2w or 1y6m",
    });
  }
  for (const [, digits, unit] of text.matchAll(/(\d+)([ymwdh])/g)) {
    const count = Number(digits);
    if (unit === "y") span.years += count;
    else if (unit === "m") span.months += count;
    else if (unit === "w") span.days += 7 * count;
    else if (unit === "d") span.days += count;
    else span.hours += count;
  }
  return span;
}

/**
 * Returns the instant one span before `time`. A day that the month lacks overflows into the next month, as in Go.
 * Returns -Infinity if no date is so early.
 */
export function before(time: number, span: Span): number {
  const at = new Date(time);
  const instant =
    Date.UTC(
      at.getUTCFullYear() - span.years,
      at.getUTCMonth() - span.months,
      at.getUTCDate() - span.days,
      at.getUTCHours(),
      at.getUTCMinutes(),
      at.getUTCSeconds(),
      at.getUTCMilliseconds(),
    ) -
    span.hours * HOUR_MS;
  return Number.isNaN(instant) ? Number.NEGATIVE_INFINITY : instant;
}

function isEmpty(span: Span): boolean {
  return span.years === 0 && span.months === 0 && span.days === 0 && span.hours === 0;
}

/** Returns the local wall clock time as a date in UTC. */
function onTheWall(time: number): Date {
  return new Date(time - new Date(time).getTimezoneOffset() * MINUTE_MS);
}

/** Returns equal numbers for two instants in the same period. The argument comes from {@link onTheWall}. */
const PERIODS = {
  // The hour that occurs twice when summer time ends counts as one.
  hourly: (at: Date) => Math.floor(at.getTime() / HOUR_MS),
  daily: (at: Date) => at.getUTCFullYear() * 10_000 + at.getUTCMonth() * 100 + at.getUTCDate(),
  weekly: isoWeek,
  monthly: (at: Date) => at.getUTCFullYear() * 100 + at.getUTCMonth(),
  yearly: (at: Date) => at.getUTCFullYear(),
} as const;

const PERIOD_RULES = [
  { period: "hourly", count: "keepHourly", within: "keepWithinHourly" },
  { period: "daily", count: "keepDaily", within: "keepWithinDaily" },
  { period: "weekly", count: "keepWeekly", within: "keepWithinWeekly" },
  { period: "monthly", count: "keepMonthly", within: "keepWithinMonthly" },
  { period: "yearly", count: "keepYearly", within: "keepWithinYearly" },
] as const;

function isoWeek(at: Date): number {
  // An ISO week belongs to the year of its Thursday.
  const thursday = new Date(
    Date.UTC(at.getUTCFullYear(), at.getUTCMonth(), at.getUTCDate() + 3 - ((at.getUTCDay() + 6) % 7)),
  );
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  return thursday.getUTCFullYear() * 100 + Math.floor((thursday.getTime() - first) / (7 * 24 * HOUR_MS)) + 1;
}

/** Tells if a rule keeps ordinary points. Without such a rule all of them stay, apart from the limits. */
export function keepsByRule(rules: RetentionRules): boolean {
  const counts = [rules.keepLast, ...PERIOD_RULES.map(({ count }) => rules[count])];
  const spans = [rules.keepWithin, ...PERIOD_RULES.map(({ within }) => rules[within])];
  return (
    counts.some((count) => mostOf(count) > 0) ||
    spans.some((span) => span !== undefined && !isEmpty(parseSpan(span))) ||
    (rules.keepTags?.length ?? 0) > 0
  );
}

function mostOf(count: KeepCount | undefined): number {
  return count === "unlimited" ? Number.POSITIVE_INFINITY : (count ?? 0);
}

/**
 * Decides for each point of one workspace, newest first by time. Each period counts once, even if the clock was set
 * back. `maxAge` drops older points despite other rules, but not tagged ones. `maxBytes` is left to the caller, who
 * knows the sizes.
 */
export function applyRetention(
  points: readonly RetentionPoint[],
  rules: RetentionRules,
  now: number,
): RetentionDecision[] {
  const times = believedTimes(points, now);
  const sorted = points
    .map((point) => ({ ...point, time: times.get(point.id)! }))
    .toSorted((a, b) => b.time - a.time || b.sequence - a.sequence);
  const ordinary = sorted.filter(({ undo }) => !undo);
  const undo = undoReasons(sorted, rules, latestOf(sorted, now));
  const whole = ordinary.filter(({ incomplete }) => incomplete !== true);
  // An incomplete point may have the only copy of entries newer than the last whole point: neither is dropped for the other.
  const kept = new Map([whole, ordinary].flatMap((of) => [...ordinaryReasons(of, rules, latestOf(of, now))]));
  const oldest = rules.maxAge === undefined ? null : before(now, parseSpan(rules.maxAge));
  return sorted.map((point) => {
    const reasons = (point.undo ? undo : kept).get(point.id) ?? [];
    const tooOld = oldest !== null && point.time < oldest && !isKeptByTag(reasons);
    if (tooOld) return { id: point.id, keep: false, reasons: [`older than ${rules.maxAge}`] };
    if (reasons.length > 0) return { id: point.id, keep: true, reasons };
    return {
      id: point.id,
      keep: false,
      reasons: [point.undo ? "undo point, not kept by keep-undo" : "no rule keeps it"],
    };
  });
}

/** Returns each point's time by its id. A point dated in the future by a wrong clock gets the time of the next point. */
export function believedTimes(
  points: readonly Pick<RetentionPoint, "id" | "sequence" | "time">[],
  now: number,
): Map<string, number> {
  let after: number | null = null;
  const newestFirst = points.toSorted((a, b) => b.sequence - a.sequence);
  return new Map(
    newestFirst.map(({ id, time }) => {
      if (time <= now) after = time;
      return [id, after ?? time];
    }),
  );
}

/** Tells if a tag keeps a point: then neither age nor size drops the point. */
export function isKeptByTag(reasons: readonly string[]): boolean {
  return reasons.some((reason) => reason.startsWith("tag "));
}

/** Returns the newest time that is not in the future. */
function latestOf(points: readonly RetentionPoint[], now: number): number {
  return points.reduce((newest, { time }) => (time > newest && time <= now ? time : newest), 0);
}

type Reasons = Map<string, string[]>;

function add(reasons: Reasons, id: string, reason: string): void {
  const known = reasons.get(id);
  if (known === undefined) reasons.set(id, [reason]);
  else known.push(reason);
}

/** Keeps the newest `count` undo points, and those within the span. */
function undoReasons(sorted: readonly RetentionPoint[], rules: RetentionRules, latest: number): Reasons {
  const reasons: Reasons = new Map();
  const count = rules.keepUndo?.count ?? DEFAULT_KEEP_UNDO.count;
  const span = parseSpan(rules.keepUndo?.within ?? DEFAULT_KEEP_UNDO.within);
  const since = isEmpty(span) ? Number.POSITIVE_INFINITY : before(latest, span);
  sorted
    .filter(({ undo }) => undo)
    .forEach(({ id, time }, i) => {
      if (i < count || time > since) add(reasons, id, "keep-undo");
    });
  return reasons;
}

/** Reason of a point that stays because no rule keeps or drops it. */
export const RULELESS = "kept: no rule removes it";

function ordinaryReasons(points: readonly RetentionPoint[], rules: RetentionRules, latest: number): Reasons {
  const reasons: Reasons = new Map();
  if (!keepsByRule(rules)) {
    for (const { id } of points) add(reasons, id, RULELESS);
    return reasons;
  }
  for (const { id, tags } of points)
    for (const rule of rules.keepTags ?? []) if (hasTags(tags, rule)) add(reasons, id, `tag ${rule || "none"}`);
  const { keepWithin } = rules;
  for (const { id } of pointsWithin(points, keepWithin, latest)) add(reasons, id, `within ${keepWithin}`);
  points.slice(0, mostOf(rules.keepLast)).forEach(({ id }) => add(reasons, id, "last"));
  const oldest = points.at(-1)?.id;
  for (const { period, count, within } of PERIOD_RULES) {
    const rule = { period, oldest, reasons };
    keepPeriods(points, mostOf(rules[count]), { ...rule, name: period });
    const span = rules[within];
    const recent = pointsWithin(points, span, latest);
    keepPeriods(recent, Number.POSITIVE_INFINITY, { ...rule, name: `${period} within ${span}` });
  }
  return reasons;
}

/** Keeps the newest point of each of the `most` newest periods. If there are fewer periods, also keeps the oldest point. */
function keepPeriods(
  points: readonly RetentionPoint[],
  most: number,
  rule: { period: keyof typeof PERIODS; name: string; oldest: string | undefined; reasons: Reasons },
): void {
  let left = most;
  let last: number | null = null;
  for (const { id, time } of points) {
    if (left <= 0) break;
    const value = PERIODS[rule.period](onTheWall(time));
    if (value === last && id !== rule.oldest) continue;
    add(rule.reasons, id, value === last ? `oldest ${rule.name}` : rule.name);
    last = value;
    left--;
  }
}

/** Tells if a point has all tags of a rule, separated by commas; an empty rule means no tags. */
function hasTags(tags: readonly string[], rule: string): boolean {
  const wanted = splitTags(rule);
  if (wanted.length === 0) return tags.length === 0;
  return tags.includes(rule) || wanted.every((tag) => tags.includes(tag));
}

/** Returns the points within a span before the latest time; none without a span. */
function pointsWithin(
  points: readonly RetentionPoint[],
  text: string | undefined,
  latest: number,
): readonly RetentionPoint[] {
  const span = parseSpan(text ?? "0h");
  if (isEmpty(span)) return [];
  const since = before(latest, span);
  return points.filter(({ time }) => time > since);
}

/** Throws `usage` for an invalid value of a rule. */
export function checkRetention(retention: RetentionRules): void {
  try {
    checkRules(retention);
  } catch (error) {
    throw new CairnError("usage", (error as Error).message, { cause: error });
  }
}
