import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { limitFindings, measuresOf, readmeFindings, sizeMeasures } from "./check-limits.ts";
import { figureOf, type Measure } from "./limits.ts";

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

/** Figures that every source has, and that these tests are not about. */
const ALWAYS = /^files (?:that other rooms import|in the longest chain of imports)/;

function found(t: TestContext, files: Record<string, string>, least: Record<string, number> = {}): string[] {
  const measures = measuresOf(sourceOf(t, files)).filter(({ limit }) => !ALWAYS.test(limit));
  return limitFindings(measures, { least, raised: [] }).map(({ severity, message }) => `${severity}: ${message}`);
}

function figures(measures: readonly Measure[]): Record<string, number> {
  return Object.fromEntries(measures.map((measure) => [figureOf(measure), measure.number]));
}

test("a folder with more than 25 files is an error, tests not counted", (t) => {
  const tests = { "fs/a.test.ts": "", "fs/testing-a.ts": "", "fs/a.contract.ts": "" };
  assert.deepEqual(found(t, { ...numbered(25, () => ""), ...tests }), []);
  assert.deepEqual(
    found(
      t,
      numbered(26, () => ""),
    ),
    ["error: files in a folder: fs: 26, at most 25"],
  );
});

test("a chain of value imports with more than 15 files is an error", (t) => {
  const chain = (by: string) => numbered(16, (n) => (n < 15 ? `${by} "./f${n + 1}.ts";\n` : ""));
  const [error, ...others] = found(t, chain("import { x } from"));
  assert.match(error!, /^error: files in the longest chain of value imports: 16, at most 15: fs\/f0\.ts → fs\/f1\.ts/);
  assert.deepEqual(others, []);
  for (const erased of ["import type { x } from", "import { type x, type y } from", "export type { x } from"])
    assert.deepEqual(found(t, chain(erased)), [], erased);
});

test("a file that imports more than 20 others is an error, types counted", (t) => {
  const others = numbered(21, () => "");
  const all = Object.keys(others).map((file) => `import type { x } from "./${path.basename(file)}";\n`);
  assert.deepEqual(found(t, { ...others, "fs/a.ts": all.join("") }), [
    "error: files that one file imports: fs/a.ts: 21, at most 20",
  ]);
});

test("a folder without README.md, or with one of more than 15 lines, is an error", (t) => {
  const source = sourceOf(t, { "fs/a.ts": "", "fs/linux/b.ts": "" });
  rmSync(path.join(source, "fs/README.md"));
  writeFileSync(path.join(source, "fs/linux/README.md"), "line\n".repeat(16));
  assert.deepEqual(
    readmeFindings(source).map(({ file, message }) => `${file}: ${message}`),
    ["fs/: no README.md: what it owns, its doors, what it never does", "fs/linux/README.md: 16 lines, at most 15"],
  );
});

test("a doc comment that refers to another comment, or has more than three lines, is an error", (t) => {
  const long = "/**\n * Reads it.\n * a\n * b\n * c\n */\n";
  const list = "/**\n * Reads it:\n * - a\n * - b\n * - c\n */\n";
  const [error] = found(t, { "fs/a.ts": `/** The same for b. */\n/** Reads it. */\n${long}${list}` });
  assert.equal(error, "error: doc comments that do not stand alone: 2, at most 0: fs/a.ts:1, fs/a.ts:3");
});

test("a count above its limit may fall and may not rise", (t) => {
  const files = { "fs/a.ts": "/** Whether it was. */\n/** Whether it is. */\n" };
  const key = "doc comments that do not stand alone";
  assert.deepEqual(found(t, files, { [key]: 2 }), []);
  assert.match(found(t, files, { [key]: 1 })[0]!, /^error/);
  assert.deepEqual(found(t, files, { [key]: 3 }), [
    `warning: ${key}: 2 now, lower it from 3: node tools/check-limits.ts --write`,
  ]);
});

test("a raise without a reason is an error", (t) => {
  const source = sourceOf(t, { "fs/a.ts": "" });
  const measures = measuresOf(source).filter(({ limit }) => !ALWAYS.test(limit));
  const messages = (reason: string): string[] =>
    limitFindings(measures, { least: {}, raised: [{ reason, to: { "files in a folder: fs": 30 } }] }).map(
      ({ message }) => message,
    );
  assert.deepEqual(messages(" because "), ["tools/limits.json raises files in a folder: fs without a reason"]);
  assert.deepEqual(messages("a folder for each call"), []);
});

test("production lines and AST nodes are counted by room, for src, web and packages, without tests", (t) => {
  const root = mkdtempSync(path.join(tmpdir(), "cairn-limits-"));
  t.after(() => rmSync(root, { recursive: true }));
  const files = {
    "src/top.ts": "x;\n",
    "src/fs/a.ts": "x;\ny;\n",
    "src/fs/deep/b.ts": "// a comment\n",
    "src/fs/a.test.ts": "x;\n",
    "src/fs/a.contract.ts": "x;\n",
    "src/fs/testing-a.ts": "x;\n",
    "web/src/page.tsx": "<p />;\n",
    "packages/model/index.ts": "x;\n",
    "packages/model/node_modules/x.ts": "x;\n",
  };
  for (const [file, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  }
  const counted = figures(sizeMeasures(root));
  assert.deepEqual(
    Object.entries(counted).filter(([figure]) => figure.startsWith("production lines")),
    Object.entries({
      "production lines": 6,
      "production lines: fs": 3,
      "production lines: packages": 1,
      "production lines: top": 1,
      "production lines: web": 1,
    }),
  );
  // A program, a statement and an identifier.
  assert.equal(counted["AST nodes: top"], 3);
  assert.equal(counted["AST nodes: fs"], 5 + 1);
});

test("files that other rooms import are counted, by types and dynamic imports too", (t) => {
  const source = sourceOf(t, {
    "fs/a.ts": 'import { b } from "./b.ts";\n',
    "fs/b.ts": "",
    "fs/c.ts": "",
    "fs/d.ts": "",
    "top.ts": "",
    "cli/a.ts": 'import type { c } from "../fs/c.ts";\nimport { x } from "../top.ts";\nimport("../fs/d.ts");\n',
  });
  const counted = figures(measuresOf(source));
  assert.equal(counted["files that other rooms import"], 2);
  assert.equal(counted["files that other rooms import: fs"], 2);
  assert.equal(counted["files in the longest chain of value imports"], 2);
});

test("the chain of imports with lazy ones goes on where a file is loaded when it is needed", (t) => {
  const source = sourceOf(t, {
    "fs/a.ts": 'import { b } from "./b.ts";\n',
    "fs/b.ts": 'const load = () => import("./c.ts");\n',
    "fs/c.ts": 'import { d } from "./d.ts";\n',
    "fs/d.ts": "",
  });
  const counted = figures(measuresOf(source));
  assert.equal(counted["files in the longest chain of imports, lazy ones too"], 4);
  assert.equal(counted["files in the longest chain of value imports"], 2);
});
