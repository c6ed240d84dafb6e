import assert from "node:assert/strict";
import { test } from "node:test";
import type { Progress } from "../contract/index.ts";
import { describeProgress, makeProgress } from "./progress.ts";
import type { ProgressMode, ProgressReporter } from "./progress.ts";

interface Watched {
  reporter: ProgressReporter;
  written: () => string;
  wait: (milliseconds: number) => void;
}

function watch(mode: ProgressMode, isTerminal: boolean, quiet = false): Watched {
  let [text, now] = ["", 0];
  const sink = { write: (piece: string) => void (text += piece), isTerminal, columns: 60 };
  return {
    reporter: makeProgress(sink, { mode, quiet, clock: () => now }),
    written: () => text,
    wait: (milliseconds) => void (now += milliseconds),
  };
}

const STEP = { phase: "storing", done: 1200, total: 4800, bytes: 2048, current: "src/\u001b[31ma.ts" } as const;

test("describeProgress returns one line without control characters", () => {
  assert.equal(describeProgress(STEP), "storing 1,200 of 4,800, 2 KiB  src/\\u001b[31ma.ts");
  assert.equal(describeProgress({ phase: "committing", done: 0 }), "committing");
});

test("describeProgress shortens a long path in the middle", () => {
  const line = describeProgress({ ...STEP, current: `begin/${"deep/".repeat(1000)}end.ts` });
  assert.match(line, /  begin\/deep.*….*deep\/end\.ts$/u);
  assert.ok(line.length < 200, line);
});

test("progress shows bytes with their total and rate", () => {
  const reading = { phase: "scanning", done: 0, bytes: 0 } as const;
  for (const [mode, terminal] of [
    ["plain", false],
    ["auto", true],
  ] as const) {
    const { reporter, written, wait } = watch(mode, terminal);
    reporter.report(reading);
    wait(2000);
    reporter.report({ ...reading, bytes: 600 << 20 });
    assert.match(written(), /scanning 0, 600 MiB, 300 MiB\/s/);
    // Another phase has a rate of its own.
    reporter.report({ phase: "restoring", done: 0, total: 1, bytes: 1 << 20, total_bytes: 4 << 20 });
    wait(2000);
    reporter.report({ phase: "restoring", done: 0, total: 1, bytes: 3 << 20, total_bytes: 4 << 20 });
    assert.match(written(), terminal ? /restoring 0 of 1, 3 MiB of 4/ : /restoring 0 of 1, 3 MiB of 4 MiB, 1 MiB\/s/);
    if (terminal) assert.match(written(), /█{3}░{7} {2}37 % {2}0:04 restoring/);
  }
});

test("the progress bar appears after a moment, is redrawn at most ten times a second and is removed", () => {
  const { reporter, written, wait } = watch("auto", true);
  reporter.report(STEP);
  assert.equal(written(), "");
  wait(300);
  for (let i = 0; i < 50; i++) reporter.report(STEP);
  assert.equal(written().split("\r").length, 2);
  assert.match(written(), /██░{8} {2}25 % {2}0:00 storing/);
  assert.ok(written().length < 80);
  reporter.finish();
  assert.ok(written().endsWith("\r\u001b[2K"));
});

test("a transfer shows its bytes, and 100 % only at its end", () => {
  const step = { phase: "uploading", done: 300, total: 301, bytes: 4 << 20, total_bytes: 8 << 20 } as const;
  assert.equal(describeProgress(step), "uploading 4 MiB of 8 MiB");
  assert.equal(describeProgress({ ...step, bytes: 0 }), "uploading 0 B of 8 MiB");
  const { reporter, written, wait } = watch("auto", true);
  const shows = (progress: Progress, words: RegExp): void => {
    wait(3_723_000);
    reporter.report(progress);
    assert.match(written().split("\r").at(-1)!, words);
  };
  shows(step, / 50 % {2}1:02:03 uploading/);
  shows({ ...step, bytes: 8 << 20 }, / 99 % /);
  shows({ ...step, bytes: 8 << 20, done: 301 }, /100 % /);
});

test("plain progress reports the end of each phase whose beginning it reported", () => {
  const { reporter, written, wait } = watch("plain", false);
  const end = { ...STEP, done: STEP.total };
  reporter.report(end);
  wait(2000);
  reporter.report(STEP);
  for (let i = 0; i < 3; i++) reporter.report(end);
  assert.equal(written(), `0:02 ${describeProgress(STEP)}\n0:02 ${describeProgress(end)}\n`);
});

test("progress prints nothing if the work is short", () => {
  for (const terminal of [true, false]) {
    const { reporter, written } = watch("auto", terminal);
    reporter.report(STEP);
    reporter.finish();
    assert.equal(written(), "");
  }
});

test("progress prints plain lines on request, and nothing on a pipe by default", () => {
  for (const [mode, terminal] of [
    ["plain", false],
    ["plain", true],
    ["auto", false],
  ] as const) {
    const { reporter, written, wait } = watch(mode, terminal);
    wait(2000);
    reporter.report(STEP);
    reporter.report(STEP);
    assert.equal(written(), mode === "auto" ? "" : `0:02 ${describeProgress(STEP)}\n`);
  }
});

test("tell() prints the progress at once, even with -q", () => {
  for (const [mode, terminal, line] of [
    ["auto", false, `${describeProgress(STEP)}\n`],
    ["auto", true, `${describeProgress(STEP)}\n`],
    ["json", false, `${JSON.stringify(STEP)}\n`],
  ] as const) {
    const { reporter, written } = watch(mode, terminal, true);
    reporter.report(STEP);
    const before = written().length;
    reporter.tell();
    assert.equal(written().slice(before), line);
  }
  const { reporter, written, wait } = watch("auto", true);
  wait(300);
  reporter.report(STEP);
  reporter.tell();
  assert.ok(written().endsWith(`\r\u001b[2K${describeProgress(STEP)}\n`), "in place of the bar");
});

test("JSON progress is complete even with -q", () => {
  const { reporter, written } = watch("json", true, true);
  reporter.report(STEP);
  assert.equal(written(), `${JSON.stringify(STEP)}\n`);
  const silent = watch("auto", true, true);
  silent.wait(10_000);
  silent.reporter.report(STEP);
  assert.equal(silent.written(), "");
});
