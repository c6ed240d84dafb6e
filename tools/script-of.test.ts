import assert from "node:assert/strict";
import { test } from "node:test";
import { runInThisContext } from "node:vm";
import { checkAcyclic, scriptOf } from "./script-of.ts";

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

test("a module runs as a script with what it imports, and exports under its names", async () => {
  const text = [
    'import {\n  one,\n  two as deux\n} from "./a-B1.js";',
    'import "./c-D2.js";',
    'var sum = one + deux, later = () => import("./e-F3.js");',
    "function place() {\n  return __url;\n}",
    "export {\n  sum,\n  place as where,\n  later\n};\n",
  ].join("\n");
  const exports = run(text, { "./a-B1.cjs": { one: 1, two: 2 }, "./e-F3.cjs": { late: true } });
  assert.equal(exports["sum"], 3);
  assert.equal((exports["where"] as () => string)(), "file:///dist/cli.js");
  assert.deepEqual(await (exports["later"] as () => Promise<unknown>)(), { late: true });
  assert.equal(run("var lib = () => 5;\nexport default lib();\n")["default"], 5);
});

test("a module is refused when it exports a variable, or has an import or export of another form", () => {
  assert.throws(() => scriptOf("let n = 1;\nexport {\n  n\n};\n", "it.js"), /it.js exports the variable n/);
  for (const text of ['import fs from "node:fs";\n', "export const n = 1;\n", 'x = import("node:fs");\n'])
    assert.throws(() => scriptOf(text, "it.js"), /no script can have/, text);
});

test("scripts are refused when they import each other", () => {
  const chain = new Map([
    ["a", ["b", "c"]],
    ["b", ["c"]],
    ["c", []],
  ]);
  checkAcyclic(chain);
  chain.set("c", ["a"]);
  assert.throws(() => checkAcyclic(chain), /a, b, c, a/);
});
