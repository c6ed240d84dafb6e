import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { type Layer, WEB_LAYERS } from "./architecture-rules.ts";
import { checkArchitecture } from "./check-architecture.ts";

/** The errors (`file: message`) found in a src/ folder of these files; a name with a slash at the end is an empty folder. */
function errorsIn(t: TestContext, files: Record<string, string>, layers?: readonly Layer[]): string[] {
  const source = mkdtempSync(path.join(tmpdir(), "cairn-architecture-"));
  t.after(() => rmSync(source, { recursive: true }));
  for (const [file, text] of Object.entries(files)) {
    if (file.endsWith("/")) {
      mkdirSync(path.join(source, file), { recursive: true });
      continue;
    }
    mkdirSync(path.dirname(path.join(source, file)), { recursive: true });
    writeFileSync(path.join(source, file), text);
  }
  return checkArchitecture(source, layers)
    .filter((finding) => finding.severity === "error")
    .map((finding) => `${finding.file}: ${finding.message}`);
}

test("a tree that keeps the rules has no findings", (t) => {
  const files = {
    "errors.ts": "export class CairnError {}\n",
    "formats/tree.ts": 'import { CairnError } from "../errors.ts";\nimport { x } from "./x.ts";\n',
    "formats/x.ts": 'import { Buffer } from "node:buffer";\n// import { y } from "../cli/y.ts";\n',
    "formats/tree.test.ts": 'import { y } from "../cli/y.ts";\n',
    "cli/y.ts": 'import { Command } from "commander";\n',
  };
  assert.deepEqual(errorsIn(t, files), []);
});

for (const statement of [
  'import { seal } from "../crypto/seal.ts";',
  'import type { Seal } from "../crypto/seal.ts";',
  'import {\n  a,\n  seal,\n} from "../crypto/seal.ts";',
  'export * from "../crypto/seal.ts";',
  'import "../crypto/seal.ts";',
  'const seal = await import("../crypto/seal.ts");',
  'new Worker(new URL("../crypto/seal.ts", import.meta.url));',
]) {
  test(`an import from a higher layer is an error if it is written as ${JSON.stringify(statement)}`, (t) => {
    const errors = errorsIn(t, { "formats/tree.ts": `${statement}\n`, "crypto/seal.ts": "export const seal = 1;\n" });
    assert.equal(errors.length, 1);
    assert.match(
      errors[0] ?? "",
      /^formats\/tree\.ts: formats may not import crypto \(crypto\/seal\.ts\): byte layouts are pure/,
    );
  });
}

test("an import cycle of three files is an error", (t) => {
  const errors = errorsIn(t, {
    "fs/a.ts": 'import "./b.ts";\n',
    "fs/b.ts": 'import "./c.ts";\n',
    "fs/c.ts": 'import "./a.ts";\n',
    "fs/d.ts": 'import "./a.ts";\n',
  });
  assert.deepEqual(errors.length, 1);
  assert.match(errors[0] ?? "", /import cycle: fs\/. → fs\/|import cycle/);
});

test("a file with more than 800 lines is an error", (t) => {
  assert.deepEqual(errorsIn(t, { "fs/a.ts": "\n".repeat(800) }), []);
  assert.match(errorsIn(t, { "fs/a.ts": "\n".repeat(801) }).join(""), /801 lines/);
});

test("an empty folder, an unknown layer and names like utils and helpers are errors", (t) => {
  const errors = errorsIn(t, { "fs/utils/a.ts": "", "fs/helpers.ts": "", "capture/": "", "web/x.ts": "" });
  assert.equal(errors.length, 4);
  for (const name of ["fs/utils/", "fs/helpers.ts", "capture/: an empty folder", "web is no layer"]) {
    assert.ok(
      errors.some((error) => error.includes(name)),
      name,
    );
  }
});

test("a package is an error if it is imported outside its home", (t) => {
  const koffi = 'createRequire(import.meta.url)("koffi");\n';
  assert.deepEqual(errorsIn(t, { "native.ts": koffi }), []);
  const errors = errorsIn(t, {
    "fs/a.ts": koffi,
    "fs/b.ts": 'import koffi from "koffi";\n',
    "fs/c.ts": 'import { Command } from "commander";\n',
  });
  assert.equal(errors.length, 3);
});

test("a file in formats/ is an error if it reads a disk or a clock", (t) => {
  const errors = errorsIn(t, {
    "formats/a.ts": 'import { readFileSync } from "node:fs";\n',
    "formats/b.ts": "const time = Date.now();\n",
    "formats/c.test.ts": 'import { readFileSync } from "node:fs";\n',
    "fs/d.ts": "const time = Date.now();\n",
  });
  assert.deepEqual(
    errors.map((error) => error.split(":")[0]),
    ["formats/a.ts", "formats/b.ts"],
  );
});

test("a list that is spread into push is an error, on one line or several", (t) => {
  const files = {
    "fs/one.ts": "export const add = (all: string[], more: string[]): number => all.push(...more);\n",
    "fs/other.ts": "export const add = (all: string[], more: string[]): number =>\n  all.push(\n    ...more,\n  );\n",
    "fs/single.ts": "export const add = (all: string[], more: string): number => all.push(more);\n",
    "fs/one.test.ts": "export const add = (all: string[], more: string[]): number => all.push(...more);\n",
  };
  const errors = errorsIn(t, files).map((error) => error.split(":")[0]);
  assert.deepEqual(errors, ["fs/one.ts", "fs/other.ts"]);
});

test("a worker script that imports the file that starts it is no cycle", (t) => {
  const files = {
    "archive/a.ts": 'new Worker(new URL("./b-worker.ts", import.meta.url));\n',
    "archive/b-worker.ts": 'import "./a.ts";\n',
  };
  assert.deepEqual(errorsIn(t, files), []);
});

test("an import of a storage is an error in every file except compose.ts", (t) => {
  const local = 'import { LocalStorage } from "./repository/storage/local.ts";\n';
  const errors = errorsIn(t, {
    "repository/storage/local.ts": "",
    "repository/open.ts": 'import { LocalStorage } from "./storage/local.ts";\n',
    "compose.ts": local,
    "index.ts": local,
  });
  assert.deepEqual(
    errors.map((error) => error.split(":")[0]),
    ["index.ts", "repository/open.ts"],
  );
});

test("an import is an error if its target is missing, a test or outside src", (t) => {
  const errors = errorsIn(t, {
    "fs/a.ts": 'import "./gone.ts";\nimport "./b.test.ts";\nimport "../../tools/x.ts";\n',
    "fs/b.test.ts": "",
  });
  assert.equal(errors.length, 3);
});

test("a recursive removal by Node is an error, on one line or several, but not of a file or in a test", (t) => {
  const files = {
    "fs/one.ts": "rmSync(join(a, b(c(d))), { recursive: true, force: true });\n",
    "fs/other.ts": "await fs.promises.rm(\n  place,\n  { force: true, recursive: true },\n);\n",
    "fs/third.ts": "fs.rmdirSync(place, { recursive: true });\n",
    "fs/file.ts": "rmSync(file, { force: true });\nmkdirSync(place, { recursive: true });\n",
    "fs/file.test.ts": "rmSync(place, { recursive: true });\n",
  };
  assert.deepEqual(
    errorsIn(t, files).map((error) => error.split(":")[0]),
    ["fs/one.ts", "fs/other.ts", "fs/third.ts"],
  );
});

test("a part of the page that imports a view or a call is an error", (t) => {
  const files = {
    "app/calls.ts": "export const call = 1;\n",
    "parts/name.tsx": 'import { call } from "../app/calls.ts";\n',
    "views/point.tsx": 'import { Name } from "../parts/name.tsx";\nimport "../styles/point.css";\n',
  };
  assert.deepEqual(errorsIn(t, files, WEB_LAYERS), [
    "parts/name.tsx: parts may not import app (app/calls.ts): components know no call and no view",
  ]);
});

test("a verb's function is an error if another file imports it, or the verb's own before it is called", (t) => {
  const lazily = 'export const run = async () => (await import("./save.run.ts")).save();\n';
  const files = { "verbs/points/save.ts": lazily, "verbs/points/save.run.ts": "export const save = 1;\n" };
  assert.deepEqual(errorsIn(t, files), []);
  const typed = { ...files, "verbs/points/save.run.ts": 'import type { Saved } from "./save.ts";\n' };
  assert.deepEqual(errorsIn(t, typed), []);
  assert.deepEqual(
    errorsIn(t, {
      ...files,
      "verbs/points/save.ts": `import type { save } from "./save.run.ts";\n`,
      "verbs/points/run.ts": lazily,
    }),
    [
      "verbs/points/run.ts: imports verbs/points/save.run.ts, which only the verb's file beside it may",
      "verbs/points/save.ts: imports verbs/points/save.run.ts before the verb is called",
    ],
  );
});
