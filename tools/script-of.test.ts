import assert from "node:assert/strict";
import { isAscii } from "node:buffer";
import { test } from "node:test";
import { runInThisContext } from "node:vm";
import { checkAcyclic, checkConstantExports, scriptOf } from "./script-of.ts";

function run(text: string, others: Record<string, object> = {}): Record<string, unknown> {
  const exports = {};
  const body = runInThisContext(scriptOf(text, "it.js")) as (
    require: (name: string) => unknown,
    exports: object,
    url: string,
  ) => void;
  body((name) => others[name], exports, "file:///dist/cli.js");
  return exports;
}

test("scriptOf makes a module into a script with the same imports and exports", async () => {
  const text = [
    'import {\n  one,\n  two$1 as deux\n} from "./a-B1.js";',
    'import "./c-D2.js";',
    'var sum = one + deux, later = () => import("./e-F3.js");',
    "function place() {\n  return __url;\n}",
    "export {\n  sum,\n  place as where,\n  later\n};\n",
  ].join("\n");
  const exports = run(text, { "./a-B1.cjs": { one: 1, two$1: 2 }, "./e-F3.cjs": { late: true } });
  assert.equal(exports["sum"], 3);
  assert.equal((exports["where"] as () => string)(), "file:///dist/cli.js");
  assert.deepEqual(await (exports["later"] as () => Promise<unknown>)(), { late: true });
  assert.equal(run("var lib = () => 5;\nexport default lib();\n")["default"], 5);
});

test("scriptOf makes ASCII of a module that has other characters only in comments", () => {
  const text = 'var A = class {\n  /** What → was told. */\n  n = "\\u2192";\n};\nexport {\n  A\n};\n';
  const script = scriptOf(text, "it.js");
  assert.match(script, /\/\*\* What \? was told\. \*\//);
  assert.equal(new (run(text)["A"] as new () => { n: string })().n, "→");
  assert.ok(isAscii(Buffer.from(script)));
});

test("a source file that exports a variable is refused", () => {
  for (const kept of ["export const n = 1;", "export function n() {}", "let n = 1;\nexport const m = n;"])
    checkConstantExports(kept, "it.ts");
  for (const refused of ["import 'a';\nexport let n = 1;", "export var n;"])
    assert.throws(() => checkConstantExports(refused, "it.ts"), /it.ts exports the variable n/, refused);
});

test("scriptOf refuses a module with an import or export of another form", () => {
  for (const text of ['import fs from "node:fs";\n', "export const n = 1;\n", 'x = import("node:fs");\n'])
    assert.throws(() => scriptOf(text, "it.js"), /no script can have/, text);
});

test("scripts that require each other are refused", () => {
  const chain = new Map([
    ["a", ["b", "c"]],
    ["b", ["c"]],
    ["c", []],
  ]);
  checkAcyclic(chain);
  chain.set("c", ["a"]);
  assert.throws(() => checkAcyclic(chain), /a, b, c, a/);
});
