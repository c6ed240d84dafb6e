import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import type { RetentionRules } from "../../formats/records/policy.ts";
import { applyRetention, before, parseSpan, type RetentionPoint } from "./retention.ts";

process.env["TZ"] = "UTC";
const NOW = Date.parse("2026-11-20T12:00:00Z");

/** Points from times, oldest first, called a, b, c, … */
function points(times: readonly string[], more: Partial<RetentionPoint> = {}): RetentionPoint[] {
  return times.map((time, i) => ({
    id: String.fromCharCode(97 + i),
    sequence: i + 1,
    time: Date.parse(time),
    tags: [],
    undo: false,
    ...more,
  }));
}

function kept(list: readonly RetentionPoint[], rules: RetentionRules): string {
  return applyRetention(list, rules, NOW)
    .filter(({ keep }) => keep)
    .map(({ id }) => id)
    .sort()
    .join("");
}

test("without a rule that keeps points, every point is kept", () => {
  const list = points(["2020-01-01T00:00:00Z", "2026-11-20T00:00:00Z"]);
  assert.equal(kept(list, {}), "ab");
  assert.equal(kept(list, { keepLast: 0 }), "ab");
  assert.equal(kept(list, { keepUndo: { count: 0 } }), "ab");
});

test("keep-last orders points by their times, as restic does, if the clock was set back", () => {
  const list = points(["2026-11-20T10:00:00Z", "2026-11-19T10:00:00Z", "2026-11-18T10:00:00Z"]);
  assert.equal(kept(list, { keepLast: 2 }), "ab");
  assert.equal(kept(list, { keepLast: 9 }), "abc");
  const same = points(["2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z", "2026-11-19T10:00:00Z"]);
  assert.equal(kept(same, { keepLast: 1 }), "b");
});

test("rules count whole points as if incomplete ones were not there, and keep what they kept before", () => {
  const days = ["2026-11-15", "2026-11-16", "2026-11-17", "2026-11-18", "2026-11-19"].map((day) => `${day}T09:00:00Z`);
  const list = points(days).map((point) => ({ ...point, incomplete: "ace".includes(point.id) }));
  assert.equal(kept(list, { keepLast: 1 }), "de");
  assert.equal(kept(list, { keepDaily: 2 }), "bde");
  const none = list.map((point) => ({ ...point, incomplete: true }));
  assert.equal(kept(none, { keepLast: 2 }), "de");
});

for (const [rule, times] of [
  ["keepHourly", ["2026-11-20T05:00:00Z", "2026-11-20T06:00:00Z", "2026-11-20T07:00:00Z", "2026-11-20T08:00:00Z"]],
  ["keepDaily", ["2026-11-15T05:00:00Z", "2026-11-16T06:00:00Z", "2026-11-17T07:00:00Z", "2026-11-18T08:00:00Z"]],
  ["keepWeekly", ["2026-10-07T05:00:00Z", "2026-10-14T06:00:00Z", "2026-10-21T07:00:00Z", "2026-10-28T08:00:00Z"]],
  ["keepMonthly", ["2026-06-07T05:00:00Z", "2026-07-14T06:00:00Z", "2026-08-21T07:00:00Z", "2026-09-28T08:00:00Z"]],
  ["keepYearly", ["2022-06-07T05:00:00Z", "2023-07-14T06:00:00Z", "2024-08-21T07:00:00Z", "2025-09-28T08:00:00Z"]],
] as const)
  test(`${rule} keeps one point of each period if the clock was set back and forth`, () => {
    const [a, b, c, d] = times;
    const later = (time: string): string => time.replace(":00:00Z", ":30:00Z");
    // a b c, then back: b c d a b
    const list = points([a, b, c, later(b), later(c), d, later(a), b]);
    assert.equal(kept(list, { [rule]: 4 }), "defg");
    assert.equal(kept(list, { [rule]: 3 }), "def");
    assert.equal(kept(list, { [rule]: 2 }), "ef");
  });

test("a point dated 1970 does not displace another point", () => {
  const list = points([
    "2026-11-16T10:00:00Z",
    "2026-11-17T10:00:00Z",
    "1970-01-01T00:00:10Z",
    "2026-11-18T10:00:00Z",
    "2026-11-19T10:00:00Z",
  ]);
  assert.equal(kept(list, { keepDaily: 3 }), "bde");
  assert.equal(kept(list, { keepLast: 4 }), "abde");
  assert.equal(kept(list, { keepDaily: 4 }), "abde");
  assert.equal(kept(list, { keepDaily: 5 }), "abcde");
  assert.equal(kept(list, { keepWithin: "30d" }), "abde");
});

test("keep-daily and other period rules keep the last point of each of the newest periods", () => {
  const list = points([
    "2026-11-17T10:00:00Z",
    "2026-11-18T09:10:00Z",
    "2026-11-18T09:50:00Z",
    "2026-11-19T10:00:00Z",
    "2026-11-20T10:00:00Z",
    "2026-11-20T10:30:00Z",
  ]);
  assert.equal(kept(list, { keepDaily: 2 }), "df");
  assert.equal(kept(list, { keepDaily: 10 }), "acdf");
  assert.equal(kept(list, { keepHourly: 3 }), "cdf");
  assert.equal(kept(list, { keepMonthly: 1 }), "f");
  assert.equal(kept(list, { keepYearly: 1, keepLast: 2 }), "ef");
});

test("hours, days, weeks and months follow this machine's time zone", (t) => {
  process.env["TZ"] = "America/New_York";
  t.after(() => (process.env["TZ"] = "UTC"));
  // Of two local days morning and evening; each evening is the next day in UTC, the last one the next week and month.
  const list = points(["2026-11-28T14:00:00Z", "2026-11-29T01:00:00Z", "2026-11-29T14:00:00Z", "2026-11-30T01:00:00Z"]);
  assert.equal(kept(list, { keepDaily: 2 }), "bd");
  const month = points(["2026-11-30T14:00:00Z", "2026-12-01T01:00:00Z", "2026-12-01T14:00:00Z"]);
  assert.equal(kept(month, { keepMonthly: 2 }), "bc");
  const week = points(["2026-11-29T14:00:00Z", "2026-11-30T01:00:00Z", "2026-11-30T14:00:00Z"]);
  assert.equal(kept(week, { keepWeekly: 2 }), "bc");
  process.env["TZ"] = "Asia/Kolkata";
  const hours = points(["2026-11-20T10:20:00Z", "2026-11-20T10:40:00Z", "2026-11-20T11:10:00Z"]);
  assert.equal(kept(hours, { keepHourly: 2 }), "ac");
});

test("the oldest point stays if there are fewer periods than a rule keeps", () => {
  const list = points(["2023-01-05T10:00:00Z", "2023-05-05T10:00:00Z", "2024-01-01T10:00:00Z", "2026-11-01T10:00:00Z"]);
  assert.equal(kept(list, { keepYearly: 5 }), "abcd");
  assert.equal(kept(list, { keepYearly: "unlimited" }), "abcd");
  assert.equal(kept(list, { keepYearly: 3 }), "bcd");
  assert.equal(kept(list, { keepYearly: 2 }), "cd");
  assert.equal(kept(list, { keepLast: 2, keepYearly: 1 }), "cd");
  assert.equal(kept(list, { keepYearly: 5, maxAge: "3y" }), "cd");
  assert.deepEqual(applyRetention(list, { keepYearly: 5 }, NOW).at(-1)?.reasons, ["oldest yearly"]);
});

test("keep-weekly uses ISO weeks, also around new year", () => {
  const list = points(["2024-12-29T12:00:00Z", "2024-12-30T12:00:00Z", "2025-01-05T12:00:00Z", "2025-01-06T12:00:00Z"]);
  assert.equal(kept(list, { keepWeekly: 9 }), "acd");
  assert.equal(kept(list, { keepYearly: 2 }), "bd");
});

test("keep-within counts from the newest point that is not in the future", () => {
  const list = points([
    "2026-10-18T09:00:00Z",
    "2026-10-19T09:00:01Z",
    "2026-11-10T00:00:00Z",
    "2026-11-19T09:00:00Z",
    "2027-05-01T00:00:00Z",
  ]);
  assert.equal(kept(list, { keepWithin: "1m" }), "bcde");
  assert.equal(kept(list, { keepWithin: "10d" }), "cde");
  assert.equal(kept(list, { keepWithin: "1w2d10h" }), "cde");
  assert.equal(kept(list, { keepWithin: "1h" }), "de");
});

test("a point dated in the future by a wrong clock gets the time of the next point", () => {
  const list = points([
    "2026-10-01T08:00:00Z",
    "2031-01-01T08:00:00Z",
    "2031-01-01T09:00:00Z",
    "2026-10-02T08:00:00Z",
    "2026-10-03T08:00:00Z",
  ]);
  assert.equal(kept(list, { keepDaily: 3 }), "ade");
  assert.equal(kept(list, { keepYearly: 1 }), "e");
  assert.equal(kept(list, { keepWithin: "12h" }), "e");
});

test("keep-within-daily and other period rules with a span keep the newest point of each period in the span", () => {
  const list = points([
    "2025-06-01T08:00:00Z",
    "2026-10-01T08:00:00Z",
    "2026-11-17T08:00:00Z",
    "2026-11-17T08:30:00Z",
    "2026-11-18T08:00:00Z",
    "2026-11-19T08:00:00Z",
    "2026-11-19T08:00:01Z",
  ]);
  assert.equal(kept(list, { keepWithinHourly: "2d" }), "deg");
  assert.equal(kept(list, { keepWithinDaily: "2d1h" }), "deg");
  assert.equal(kept(list, { keepWithinDaily: "1d" }), "g");
  assert.equal(kept(list, { keepWithinWeekly: "2w" }), "g");
  assert.equal(kept(list, { keepWithinMonthly: "2m" }), "bg");
  assert.equal(kept(list, { keepWithinYearly: "9y" }), "ag");
  assert.equal(kept(list, { keepWithinYearly: "0d", keepLast: 1 }), "g");
  const days = points(["2026-11-18T08:00:00Z", "2026-11-18T09:00:00Z"]);
  assert.deepEqual(
    applyRetention(days, { keepWithinDaily: "9d" }, NOW).map(({ reasons: [first] }) => first),
    ["daily within 9d", "oldest daily within 9d"],
  );
});

test("a span that reaches back beyond the earliest possible date has no limit", () => {
  for (const span of ["274000y", "999999y", "999999m999999y"])
    assert.equal(before(Date.UTC(2026, 10, 23), parseSpan(span)), Number.NEGATIVE_INFINITY, span);
});

test("keep-tag keeps points with the tag in spite of a maximum age", () => {
  const list = [
    ...points(["2020-01-01T00:00:00Z"], { tags: ["release"] }),
    ...points(["x", "2026-11-19T00:00:00Z"]).slice(1),
  ];
  assert.equal(kept(list, { keepTags: ["release"] }), "a");
  assert.equal(kept(list, { keepTags: ["release"], maxAge: "30d" }), "a");
  assert.equal(kept(list, { keepTags: ["other"] }), "");
});

test("keep-tag with several tags keeps points that have all of them, and an empty keep-tag points without tags", () => {
  const tags = [[], ["a"], ["a", "b"], ["a,b"], ["b", "c", "a"], ["c"]];
  const list = points(tags.map((_, i) => `2026-11-1${i}T00:00:00Z`)).map((point, i) => ({ ...point, tags: tags[i]! }));
  assert.equal(kept(list, { keepTags: ["a,b"] }), "cde");
  assert.equal(kept(list, { keepTags: [" b , a ", "c"] }), "cef");
  assert.equal(kept(list, { keepTags: ["a,"] }), "bce");
  for (const none of ["", ",", " "]) assert.equal(kept(list, { keepTags: [none] }), "a");
  assert.deepEqual(
    applyRetention(list, { keepTags: ["a,b", ""] }, NOW).map(({ reasons: [first] }) => first),
    ["no rule keeps it", "tag a,b", "tag a,b", "tag a,b", "no rule keeps it", "tag none"],
  );
});

test("an unlimited count keeps every point, or the last point of every period", () => {
  const list = points(["2024-11-17T10:00:00Z", "2025-11-18T09:10:00Z", "2026-11-18T09:50:00Z", "2026-11-19T10:00:00Z"]);
  assert.equal(kept(list, { keepLast: "unlimited" }), "abcd");
  assert.equal(kept(list, { keepYearly: "unlimited" }), "abd");
});

test("only keep-undo decides which undo points are kept: the newest by count, and those within its span", () => {
  const old = points(
    Array.from({ length: 25 }, () => "2026-01-01T00:00:00Z"),
    { undo: true },
  );
  const present = { id: "z", sequence: 100, time: NOW, tags: [], undo: false };
  const decisions = applyRetention([...old, present], { keepLast: 1 }, NOW);
  assert.deepEqual(
    decisions.filter(({ keep }) => !keep).map(({ id }) => id),
    ["e", "d", "c", "b", "a"],
  );
  assert.equal(kept([...old, present], { keepUndo: { count: 0, within: "0d" } }), "z");
  assert.equal(
    kept(points(["2026-11-01T00:00:00Z", "2026-11-19T00:00:00Z"], { undo: true }), {
      keepUndo: { count: 0, within: "2d" },
    }),
    "b",
  );
  const last = kept([...old, present], { keepLast: 1, keepUndo: { count: 1, within: "0d" } });
  assert.equal(last, "yz");
});

test("a maximum age drops points that a count would keep, but no younger points", () => {
  const list = points(["2026-01-01T00:00:00Z", "2026-11-01T00:00:00Z", "2026-11-19T00:00:00Z"]);
  assert.equal(kept(list, { maxAge: "30d" }), "bc");
  assert.equal(kept(list, { keepLast: 3, maxAge: "10d" }), "c");
});

test("each decision names the rules that apply", () => {
  const list = points(["2026-11-18T00:00:00Z", "2026-11-19T00:00:00Z"]);
  assert.deepEqual(applyRetention(list, { keepLast: 1, keepDaily: 1 }, NOW), [
    { id: "b", keep: true, reasons: ["last", "daily"] },
    { id: "a", keep: false, reasons: ["no rule keeps it"] },
  ]);
});

test("a span of months that ends on a missing day runs over into the next month, as in Go", () => {
  assert.equal(
    new Date(before(Date.parse("2026-03-31T00:00:00Z"), parseSpan("1m"))).toISOString(),
    "2026-03-03T00:00:00.000Z",
  );
  assert.equal(
    new Date(before(Date.parse("2024-02-29T06:00:00Z"), parseSpan("1y"))).toISOString(),
    "2023-03-01T06:00:00.000Z",
  );
  assert.equal(new Date(before(NOW, parseSpan("1y6m2w3d12h"))).toISOString(), "2025-05-03T00:00:00.000Z");
});

test("an invalid span is refused", () => {
  for (const text of ["", "5", "d", "-1d", "1.5d", "1d ", "1s"]) {
    assert.throws(
      () => parseSpan(text),
      (error) => error instanceof CairnError && error.code === "usage",
      text,
    );
  }
});
