import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { parsePatch, planOf, proofPage } from "./planted-faults.ts";
import { changedLines, reaches } from "./reach.ts";

const PATCH =
  "promise: Two stay\nfault: one stays\nkind: off by one\n--- a/src/a.ts\n+++ b/src/a.ts\n@@ -1 +1 @@\n-2\n+1\n";

test("a patch says what is promised, how the fault breaks it, and which files it changes", () => {
  const fault = { name: "x", promise: "Two stay", fault: "one stays", kind: "off by one", blind: false };
  assert.deepEqual(parsePatch("x", PATCH), { ...fault, files: ["src/a.ts"] });
  assert.equal(parsePatch("x", `blind: true\n${PATCH}`).blind, true);
  assert.throws(() => parsePatch("x", PATCH.replace("promise: Two stay\n", "")), /x\.patch must begin with/);
});

test("the test that saw a fault runs first, then unit tests from near to far, then flows; a test that imports nothing of it never", (t) => {
  const root = mkdtempSync(path.join(tmpdir(), "planted-"));
  t.after(() => rmSync(root, { recursive: true }));
  const write = (file: string, text: string): void => {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  };
  write("src/a.ts", "export const a = 2;\n");
  write("src/b.ts", 'export { a } from "./a.ts";\n');
  for (const [file, target] of [
    ["src/room/far.test.ts", "../b.ts"],
    ["src/a.test.ts", "./a.ts"],
    ["src/a.flow.test.ts", "./a.ts"],
    ["src/other.test.ts", "./other.ts"],
  ] as const)
    write(file, `import { a } from "${target}";\n`);
  const fault = parsePatch("x", PATCH);
  assert.deepEqual(planOf(root, fault, "ok"), ["src/a.test.ts", "src/room/far.test.ts"]);
  assert.deepEqual(planOf(root, fault, "short", { seenBy: "src/room/far.test.ts" }), [
    "src/room/far.test.ts",
    "src/a.test.ts",
    "src/a.flow.test.ts",
  ]);
});

test("the page of proof names the file that saw a fault, and a fault that nothing saw", () => {
  const faults = ["x", "y"].map((name) => parsePatch(name, PATCH));
  const page = proofPage(faults, {
    seen: { x: { tier: "ok", file: "src/a.test.ts", seconds: 1.5, spent: 2 }, y: null },
  });
  assert.match(page, /2 faults: 1 are seen by `npm run ok`, 0 by `npm test`/);
  assert.match(page, /\| Two stay \| one stays \| `npm run ok`: `src\/a\.test\.ts`, 1\.5 s \|/);
  assert.match(page, /\| Two stay \| one stays \| nothing \|/);
});

test("a test reaches a fault if it runs a line that the patch removes, or the line before added ones", () => {
  const patch = "--- a/src/a.ts\n+++ b/src/a.ts\n@@ -3,4 +3,4 @@\n x\n-y\n+z\n u\n+v\n w\n";
  assert.deepEqual([...changedLines(patch)], [["src/a.ts", [4, 4, 5]]]);
  assert.equal(reaches(new Map([["src/a.ts", new Set([5])]]), patch), true);
  assert.equal(reaches(new Map([["src/a.ts", new Set([3, 6])]]), patch), false);
});
