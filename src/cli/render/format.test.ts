import assert from "node:assert/strict";
import { test } from "node:test";
import {
  firstLine,
  formatAge,
  formatInstant,
  formatMinute,
  formatBytes,
  formatCount,
  formatCounts,
  formatDuration,
  formatMode,
  limited,
  plural,
  printable,
} from "./format.ts";
import { makeStyle, PLAIN, wantsColour } from "./style.ts";
import { renderTable } from "./table.ts";

test("formatBytes prints three digits and a unit", () => {
  const sizes = [0, 1, 999, 1000, 1024, 1536, 10_240, 1_048_576, 1_048_575, 2 ** 31, 2 ** 53];
  assert.deepEqual(sizes.map(formatBytes), [
    "0 B",
    "1 B",
    "999 B",
    "0.98 KiB",
    "1 KiB",
    "1.5 KiB",
    "10 KiB",
    "1 MiB",
    "1 MiB",
    "2 GiB",
    "8 PiB",
  ]);
});

test("formatDuration gets coarser for longer durations", () => {
  assert.deepEqual([0, 4.4, 999, 1000, 1240, 59_900, 59_960, 125_000, 12_000_000].map(formatDuration), [
    "0 ms",
    "4 ms",
    "999 ms",
    "1 s",
    "1.24 s",
    "59.9 s",
    "1 min 0 s",
    "2 min 5 s",
    "3 h 20 min",
  ]);
});

test("formatAge prints one unit, also for times in the future", () => {
  const now = Date.parse("2026-11-20T12:00:00Z");
  const age = (instant: string): string => formatAge(instant, now);
  assert.equal(age("2026-11-20T11:59:58Z"), "just now");
  assert.equal(age("2026-11-20T11:59:00Z"), "1 minute ago");
  assert.equal(age("2026-11-20T09:00:00Z"), "3 hours ago");
  assert.equal(age("2026-11-10T12:00:00Z"), "10 days ago");
  assert.equal(age("2025-11-20T12:00:00Z"), "12 months ago");
  assert.equal(age("2026-11-20T12:05:00Z"), "in 5 minutes");
  assert.equal(age("nonsense"), "nonsense");
});

test("formatCounts prints counts with words, and `nothing` for zeros", () => {
  assert.equal(formatCounts({ added: 1200, modified: 0, removed: 1 }), "1,200 added, 1 removed");
  assert.equal(formatCounts({ added: 0 }), "nothing");
  assert.deepEqual([0, 999, 1000, 1_234_567, -1000].map(formatCount), ["0", "999", "1,000", "1,234,567", "-1,000"]);
  assert.deepEqual([plural(1, "entry"), plural(0, "entry"), plural(2, "file")], ["1 entry", "0 entries", "2 files"]);
});

test("printable escapes control characters and direction marks", () => {
  assert.equal(printable("a\u001b[2Jb\nc\td\u0085\u202e\u2066é"), "a\\u001b[2Jb\\nc\\td\\u0085\\u202e\\u2066é");
  assert.equal(firstLine("one\ntwo"), "one");
});

test("formatMode prints modes as ls does", () => {
  assert.equal(formatMode("file", 0o644), "-rw-r--r--");
  assert.equal(formatMode("directory", 0o1777), "drwxrwxrwt");
  assert.equal(formatMode("file", 0o4755), "-rwsr-xr-x");
  assert.equal(formatMode("file", 0o6644), "-rwSr-Sr--");
  assert.equal(formatMode("file", 0o1666), "-rw-rw-rwT");
});

test("limited ends a long list with the number of further items", () => {
  assert.deepEqual(limited(["a", "b", "c"], 3, PLAIN), ["a", "b", "c"]);
  assert.deepEqual(limited(["a", "b", "c"], 2, PLAIN), ["a", "b", "c"], "one more is shown itself");
  assert.deepEqual(limited(["a", "b", "c"], 1, PLAIN), ["a", "… and 2 more (all with --json)"]);
});

test("wantsColour needs a terminal or FORCE_COLOR, and no NO_COLOR", () => {
  assert.equal(wantsColour(true, {}), true);
  assert.equal(wantsColour(false, { FORCE_COLOR: "1", TERM: "dumb" }), true);
  assert.equal(wantsColour(false, { FORCE_COLOR: "0" }), false);
  assert.equal(wantsColour(true, { FORCE_COLOR: "1", NO_COLOR: "1" }), false);
  assert.equal(wantsColour(true, { NO_COLOR: "" }), true);
  assert.equal(wantsColour(true, { NO_COLOR: "0" }), false);
  assert.equal(wantsColour(false, {}), false);
});

test("renderTable aligns columns with wide letters and colours", async () => {
  const style = makeStyle(true);
  assert.deepEqual(
    await renderTable(
      [
        ["a", "1", "x"],
        ["bbb", "22", ""],
      ],
      [1],
    ),
    ["a     1  x", "bbb  22"],
  );
  assert.deepEqual(
    await renderTable([
      ["日本", "x"],
      ["a", "y"],
    ]),
    ["日本  x", "a     y"],
  );
  assert.deepEqual(
    await renderTable([
      [style.red("ab"), "x"],
      ["abc", "y"],
    ]),
    [`${style.red("ab")}   x`, "abc  y"],
  );
});

test("formatMinute prints local date and time, and the distance if it is more than a day ahead", () => {
  const now = Date.parse("2026-11-20T12:00:00Z");
  for (const near of ["2019-03-04T05:06:07Z", "2026-11-20T11:59:58Z", "2026-11-20T12:05:00Z"])
    assert.equal(formatMinute(near, now), formatInstant(near).slice(0, 16));
  assert.match(formatMinute("2031-01-02T00:00:00Z", now), /^203\d-\d\d-\d\d \d\d:\d\d \(in 4 years\)$/);
  assert.equal(formatMinute("nonsense", now), "nonsense");
});
