import assert from "node:assert/strict";
import { test } from "node:test";
import { runInThisContext } from "node:vm";
import { checkAcyclic, checkConstantExports, scriptOf } from "./script-of.ts";

function run(text: string, others: Record<string, object> = {}): Record<string, unknown> {
  const exports = {};
  const body = runInThisContext(scriptOf(text, "it.js")) as (
    require: (name: string) => unknown,
    exports: object,
  ) => void;
  body((name) => others[name], exports);
  return exports;
}

test("scriptOf makes a module into a script with the same imports and exports", () => {
  const text = [
    'import {\n  one,\n  two$1 as deux\n} from "./a-B1.js";',
    'import "./c-D2.js";',
    "var sum = one + deux;",
    "function place() {\n  return 5;\n}",
    "export {\n  sum,\n  place as where\n};\n",
  ].join("\n");
  const exports = run(text, { "./a-B1.cjs": { one: 1, two$1: 2 } });
  assert.equal(exports["sum"], 3);
  assert.equal((exports["where"] as () => number)(), 5);
});

test("a source file that exports a variable is refused", () => {
  for (const kept of ["export const n = 1;", "export function n() {}", "let n = 1;\nexport const m = n;"])
    checkConstantExports(kept, "it.ts");
  for (const refused of ["import 'a';\nexport let n = 1;", "export var n;"])
    assert.throws(() => checkConstantExports(refused, "it.ts"), /it.ts exports the variable n/, refused);
});

test("scriptOf refuses a module with an import or export of another form", () => {
  for (const text of [
    'import fs from "node:fs";\n',
    "export const n = 1;\n",
    'x = import("node:fs");\n',
    'x = import("./e-F3.js");\n',
    "export default lib();\n",
  ])
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
