import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { checkLimits } from "./check-limits.ts";
import { linesByRoom, linesMessage } from "./source-lines.ts";

/** A src/ folder of these files; each folder has a README.md unless the files say otherwise. */
function sourceOf(t: TestContext, files: Record<string, string>): string {
  const source = mkdtempSync(path.join(tmpdir(), "cairn-limits-"));
  t.after(() => rmSync(source, { recursive: true }));
  for (const file of Object.keys(files)) {
    const folder = path.dirname(path.join(source, file));
    mkdirSync(folder, { recursive: true });
    if (folder !== source) writeFileSync(path.join(folder, "README.md"), "# it\n");
  }
  for (const [file, text] of Object.entries(files)) writeFileSync(path.join(source, file), text);
  return source;
}

const numbered = (count: number, text: (n: number) => string, folder = "fs"): Record<string, string> =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`${folder}/f${n}.ts`, text(n)]));

function found(t: TestContext, files: Record<string, string>, above: Record<string, number> = {}): string[] {
  return checkLimits(sourceOf(t, files), above).map(({ severity, file, message }) => `${severity} ${file}: ${message}`);
}

test("a folder with more than 25 files is an error, tests not counted", (t) => {
  const tests = { "fs/a.test.ts": "", "fs/testing-a.ts": "", "fs/a.contract.ts": "" };
  assert.deepEqual(found(t, { ...numbered(25, () => ""), ...tests }), []);
  assert.deepEqual(
    found(
      t,
      numbered(26, () => ""),
    ),
    ["error fs: 26 files in a folder, at most 25"],
  );
});

test("a chain of value imports with more than 15 files is an error", (t) => {
  const chain = (by: string) => numbered(16, (n) => (n < 15 ? `${by} "./f${n + 1}.ts";\n` : ""));
  const [error, ...others] = found(t, chain("import { x } from"));
  assert.match(error!, /^error : 16 files in the longest chain of value imports, at most 15: fs\/f0\.ts → fs\/f1\.ts/);
  assert.deepEqual(others, []);
  for (const erased of ["import type { x } from", "import { type x, type y } from", "export type { x } from"])
    assert.deepEqual(found(t, chain(erased)), [], erased);
});

test("a file that imports more than 20 others is an error, types counted", (t) => {
  const others = numbered(21, () => "");
  const all = Object.keys(others).map((file) => `import type { x } from "./${path.basename(file)}";\n`);
  assert.deepEqual(found(t, { ...others, "fs/a.ts": all.join("") }), [
    "error fs/a.ts: 21 files that one file imports, at most 20",
  ]);
});

test("a folder without README.md, or with one of more than 15 lines, is an error", (t) => {
  const source = sourceOf(t, { "fs/a.ts": "", "fs/linux/b.ts": "" });
  rmSync(path.join(source, "fs/README.md"));
  writeFileSync(path.join(source, "fs/linux/README.md"), "line\n".repeat(16));
  assert.deepEqual(
    checkLimits(source, {}).map(({ file, message }) => `${file}: ${message}`),
    ["fs/: no README.md: what it owns, its doors, what it never does", "fs/linux/README.md: 16 lines, at most 15"],
  );
});

test("a doc comment that refers to another comment, or has more than three lines, is an error", (t) => {
  const long = "/**\n * Reads it.\n * a\n * b\n * c\n */\n";
  const list = "/**\n * Reads it:\n * - a\n * - b\n * - c\n */\n";
  const [error] = found(t, { "fs/a.ts": `/** The same for b. */\n/** Reads it. */\n${long}${list}` });
  assert.equal(error, "error : 2 doc comments that do not stand alone, at most 0: fs/a.ts:1, fs/a.ts:3");
});

test("a count above its limit may fall and may not rise", (t) => {
  const files = { "fs/a.ts": "/** Whether it was. */\n/** Whether it is. */\n" };
  const key = "doc comments that do not stand alone";
  assert.deepEqual(found(t, files, { [key]: 2 }), []);
  assert.match(found(t, files, { [key]: 1 })[0]!, /^error/);
  assert.deepEqual(found(t, files, { [key]: 3 }), [`warning : ${key}: 2 now, lower ABOVE_LIMITS from 3`]);
});

test("lines are counted by room, with the change since the last release", (t) => {
  const source = sourceOf(t, { "a.ts": "1\n", "fs/b.ts": "1\n2\n", "fs/c/d.ts": "1\n", "fs/b.test.ts": "1\n" });
  assert.equal(linesMessage(linesByRoom(source), 3), "4 production lines, +1 since the last release: fs 3, (top) 1");
});

test("a comment with a pronoun as subject, 'what' as a noun or 'where' for 'if' is an error in each room", (t) => {
  const files = {
    "fs/a.ts":
      "/** What was read. */\n/** Says what changed. */\n// Null where\n// the rest is damaged.\nf(); // nothing of what is kept\n",
    "daemon/b.ts": "/**\n * Stops. It\n * waits first.\n */\n/** The place where files lie. */\n",
  };
  assert.deepEqual(
    found(t, files).filter((each) => !each.includes("stand alone")),
    [
      "error daemon: 1 comments with a pronoun as subject, at most 0: daemon/b.ts:1",
      'error fs: 2 comments with "what" as a noun, at most 0: fs/a.ts:1, fs/a.ts:5',
      'error fs: 1 comments with "where" for "if", at most 0: fs/a.ts:3',
    ],
  );
});
