import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { chosenFiles, overLimits, summaryLines } from "./run-tests.ts";
import { isLong, LONG_TIER, rotated } from "./tiers.ts";

test("the summary names slow files, failures and reasons of skips, and ends with the counts", () => {
  const skipped = new Map([
    ["needs root", 2],
    ["restic is not installed", 5],
  ]);
  const durations = new Map([
    ["test/a.test.ts", 12_340],
    ["test/b.test.ts", 100],
  ]);
  assert.deepEqual(summaryLines({ passed: 10, failed: 1, skipped, failures: ["test/a.test.ts: b"], durations }), [
    "slow: test/a.test.ts (12.3 s)",
    "failed: test/a.test.ts: b",
    "skipped 5: restic is not installed",
    "skipped 2: needs root",
    "10 passed, 1 failed, 7 skipped",
  ]);
});

test("a file or a whole run that takes more processor seconds than its limit is named", () => {
  const limits = {
    "npm run ok": 100,
    "npm test": 50,
    "a file of npm test": 20,
    files: { "test/b.test.ts": { seconds: 30, reason: "boots a guest" } },
  };
  const took = (b: number): Map<string, { processor: number }> =>
    new Map([
      ["test/a.test.ts", { processor: 20 }],
      ["test/b.test.ts", { processor: b }],
    ]);
  assert.deepEqual(overLimits(took(30), limits), []);
  assert.deepEqual(overLimits(took(31), limits), [
    "over its limit: test/b.test.ts took 31 processor seconds, at most 30 (tools/limits.json)",
    "over its limit: 51 processor seconds, at most 50 (tools/limits.json)",
  ]);
});

test("a pattern after an exclamation mark excludes its files", () => {
  const here = path.relative(path.resolve(import.meta.dirname, ".."), import.meta.filename);
  const names = (patterns: string[]): string[] => chosenFiles(patterns).map((file) => path.basename(file));
  assert.ok(names(["tools/*.test.ts"]).includes(path.basename(here)));
  assert.equal(names(["tools/*.test.ts", "!**/run-tests.test.ts"]).includes(path.basename(here)), false);
  assert.deepEqual(names([here, `!${here}`]), []);
});

test("every test in test/ is called *.flow.test.ts, because it needs more than a unit", () => {
  assert.deepEqual(chosenFiles(["test/**/*.test.ts", "!**/*.flow.test.ts"]), []);
});

/** Runs one test file of these lines; the folder is for what it leaves. */
function runOf(t: TestContext, lines: string): { folder: string; said: string[] } {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-run-tests-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const file = path.join(folder, "some.test.ts");
  fs.writeFileSync(file, lines);
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const command = path.join(import.meta.dirname, "run-tests.ts");
  const ran = spawnSync(process.execPath, [command, "--quiet", file], {
    env: { ...env, TMPDIR: folder },
    encoding: "utf8",
  });
  return { folder, said: (ran.stdout + ran.stderr).trimEnd().split("\n") };
}

test("a skipped suite without other tests is counted with its reason", (t) => {
  const { said } = runOf(t, `require("node:test").describe("x", { skip: "no such program" }, () => {});`);
  assert.deepEqual(said, ["skipped 1: no such program", "0 passed, 0 failed, 1 skipped"]);
});

test("the files of a run share a compile cache that is removed when the run ends", (t) => {
  const { folder, said } = runOf(
    t,
    `const fs = require("node:fs");
    const compiled = require("node:module").getCompileCacheDir();
    require("node:test").test("x", () => fs.writeFileSync(__dirname + "/compiled", compiled));`,
  );
  assert.equal(said.at(-1), "1 passed, 0 failed, 0 skipped");
  assert.equal(fs.existsSync(fs.readFileSync(path.join(folder, "compiled"), "utf8")), false);
});

test("each line of the long tier names files that exist, and npm test keeps what stands for them", () => {
  const files = chosenFiles(["{src,test,tools,web/src}/**/*.test.ts"]).map((file) =>
    path.relative(path.resolve(import.meta.dirname, ".."), file),
  );
  for (const pattern of LONG_TIER)
    assert.ok(
      files.some((file) => pattern.test(file)),
      String(pattern),
    );
  for (const name of ["flows/machine-smoke", "flows/five-failures", "interop/restic-both-ways", "page/journeys"])
    assert.equal(isLong(`test/${name}.flow.test.ts`), false, name);
});

test("the long tier begins with another file at another commit, and leaves none out", () => {
  const files = ["a", "b", "c"];
  assert.deepEqual(rotated(files, "00000004f3"), ["b", "c", "a"]);
  assert.deepEqual(rotated(files, "00000000"), files);
  assert.deepEqual(rotated([], "00000001"), []);
});

test("a run whose time is over lists the files that it did not begin", () => {
  const command = path.join(import.meta.dirname, "run-tests.ts");
  const ran = spawnSync(process.execPath, [command, "--minutes", "0", "tools/link.test.ts"], { encoding: "utf8" });
  assert.match(ran.stdout, /^not run, the time was over: tools\/link\.test\.ts$/m);
  assert.match(ran.stdout, /^0 passed, 0 failed, 0 skipped$/m);
});
