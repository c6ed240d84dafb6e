import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { runInThisContext } from "node:vm";
import { exportsOf, joinScripts, link, packageNames, readModules } from "./link.ts";

type Exports = Record<string, unknown>;

/** Links `sources` and returns a function that runs a module, and the keys of the modules that ran. */
async function linked(sources: Record<string, string>) {
  const root = mkdtempSync(path.join(tmpdir(), "cairn-link-"));
  try {
    for (const [file, text] of Object.entries(sources)) {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), text);
    }
    const modules = await readModules(root, [Object.keys(sources)[0]!], (text) => text);
    const texts = await link(modules, new Map([["a-package", "a-package-X.cjs"]]));
    const bodies = Object.assign({}, ...[...texts.values()].map((text) => runInThisContext(text) as object)) as Record<
      string,
      (require: (key: string) => unknown, exports: Exports, url: string) => void
    >;
    const ran = new Map<string, Exports>();
    const run = (key: string): Exports => {
      if (key === "./a-package-X.cjs") return { default: "the package", twice: (n: number) => 2 * n };
      if (key.startsWith("node:")) return process.getBuiltinModule(key) as unknown as Exports;
      const exports = ran.get(key) ?? {};
      if (!ran.has(key)) {
        ran.set(key, exports);
        bodies[key]!(run, exports, "file:///dist/cli.js");
      }
      return exports;
    };
    return { modules, run, ran: () => [...ran.keys()].toSorted(), texts };
  } finally {
    rmSync(root, { recursive: true });
  }
}

test("a module runs when one of its functions is first called", async () => {
  const { run, ran } = await linked({
    "src/room/a.ts": `import { twice, half as halved } from "./b.ts"; export function a(n: number) { return twice(n); }
      export const b = (n: number) => halved(n);`,
    "src/room/b.ts": `export function twice(n: number): number { return n * 2; } export async function half(n: number) { return n / 2; }`,
  });
  const { a, b } = run("room:a.ts") as { a(n: number): number; b(n: number): Promise<number> };
  assert.deepEqual(ran(), ["room:a.ts"]);
  assert.equal(a(21), 42);
  assert.equal(await b(8), 4);
  assert.deepEqual(ran(), ["room:a.ts", "room:b.ts"]);
});

test("a module of a class that is only constructed runs when an object is first made", async () => {
  const { run, ran } = await linked({
    "src/a.ts": `import { Thing } from "./b.ts"; export const made = (size: number) => new Thing(size, 2);`,
    "src/b.ts": `export class Thing { readonly sizes: number[]; constructor(...sizes: number[]) { this.sizes = sizes; } }`,
  });
  const made = run("floor:a.ts")["made"] as (size: number) => { sizes: number[] };
  assert.deepEqual(ran(), ["floor:a.ts"]);
  const things = [made(1), made(3)];
  assert.deepEqual(
    things.map(({ sizes }) => sizes),
    [
      [1, 2],
      [3, 2],
    ],
  );
  const { Thing } = run("floor:b.ts") as { Thing: new () => object };
  assert.ok(things.every((thing) => thing instanceof Thing && thing.constructor === Thing));
});

test("a module runs at once if its class or function as a value, or its constant is imported", async () => {
  for (const use of [
    "new Thing() instanceof Thing",
    "class extends Thing {}",
    "new Thing",
    "COUNT",
    "[1].map(twice)",
    "({ ...COUNT })",
    "typeof twice",
    "`${twice}`",
  ]) {
    const { run, ran } = await linked({
      "src/a.ts": `import { Thing, COUNT, twice } from "./room/b.ts"; export const used = () => ${use};`,
      "src/room/b.ts": `export class Thing {} export const COUNT = 3; export function twice(n: number) { return n * 2; }`,
    });
    (run("floor:a.ts")["used"] as () => unknown)();
    assert.deepEqual(ran(), ["floor:a.ts", "room:b.ts"], use);
  }
});

test("a name that a module passes on runs its own module when it is first read", async () => {
  const { modules, run, ran } = await linked({
    "src/index.ts": `export * from "./b.ts"; export { c as d } from "./c.ts"; export type { T } from "./t.ts";`,
    "src/b.ts": `export const b = 1; export function f() { return 2; }`,
    "src/c.ts": `import { f } from "./b.ts"; export const c = 3; export { f };`,
  });
  assert.deepEqual(exportsOf("src/index.ts", modules).toSorted(), ["b", "d", "f"]);
  const exports = run("floor:index.ts");
  assert.deepEqual(Object.keys(exports).toSorted(), ["b", "d", "f"]);
  assert.deepEqual(ran(), ["floor:index.ts"]);
  assert.equal(exports["d"], 3);
  assert.deepEqual(ran(), ["floor:c.ts", "floor:index.ts"]);
  assert.equal((run("floor:c.ts")["f"] as () => number)(), 2);
});

test("packages, built-in modules, import() and import.meta.url work in a script", async () => {
  const { modules, run } = await linked({
    "src/a.ts": `import what, { twice } from "a-package"; import fs, { existsSync } from "node:fs"; import * as path from "node:path";
      export const all = [what, twice(2), existsSync("/"), fs.existsSync("/"), path.sep, import.meta.url];
      export const later = () => import("./b.ts");`,
    "src/b.ts": `/** Only a → comment. */ export const b = "→";`,
  });
  assert.deepEqual(run("floor:a.ts")["all"], ["the package", 4, true, true, "/", "file:///dist/cli.js"]);
  assert.equal((await (run("floor:a.ts")["later"] as () => Promise<Exports>)())["b"], "→");
  assert.deepEqual(packageNames(modules), new Map([["a-package", new Set(["default", "twice"])]]));
});

test("the names taken from a package are those that the sources use, or all if they use it as a whole", async () => {
  const { modules } = await linked({
    "src/a.ts": `import * as v from "some"; import * as w from "whole"; import "./b.ts"; export const a = [v.one, v.two(), w];`,
    "src/b.ts": `export const b = () => import("later");`,
  });
  assert.deepEqual(
    packageNames(modules),
    new Map<string, Set<string> | null>([
      ["some", new Set(["one", "two"])],
      ["whole", null],
      ["later", null],
    ]),
  );
});

test("an import() runs its module though the function has a variable called require", async () => {
  const { run } = await linked({
    "src/a.ts": `export async function a(require: string) { return { require, ...(await import("./b.ts")) }; }`,
    "src/b.ts": "export const b = 2;",
  });
  const { a } = run("floor:a.ts") as { a(name: string): Promise<Exports> };
  assert.deepEqual(await a("x"), { require: "x", b: 2 });
});

test("a module is passed on as a whole, and refused if it is imported as a whole and by its default export", async () => {
  const other = { "src/b.ts": "export const b = 2;" };
  const { run } = await linked({ "src/a.ts": 'export * as ns from "./b.ts";', ...other });
  assert.deepEqual(run("floor:a.ts")["ns"], { b: 2 });
  const text = 'import d, * as ns from "./b.ts"; export const c = [d, ns];';
  await assert.rejects(linked({ "src/a.ts": text, ...other }), /a.ts has what no script can have: src\/b.ts as ns/);
});

test("the name of the file of scripts depends on all of their text, and each part is a script", () => {
  const joined = joinScripts(
    new Map([
      ["a", "({a: '→'})"],
      ["./b.cjs", "({b: 1})"],
    ]),
  );
  const parts = Object.entries(joined.parts).map(([part, [start, length]]) => {
    return [
      part,
      Buffer.from(joined.text)
        .subarray(start, start + length)
        .toString(),
    ];
  });
  assert.deepEqual(parts, [
    ["a", "({a: '→'})"],
    ["./b.cjs", "({b: 1})"],
  ]);
  assert.notEqual(
    joinScripts(
      new Map([
        ["a", "({a: '→'})"],
        ["./b.cjs", "({b: 2})"],
      ]),
    ).file,
    joined.file,
  );
  assert.throws(() => joinScripts(new Map([["a", "({a: )"]])), SyntaxError);
});

test("text in a template that looks like an import is refused", async () => {
  const text = 'export const text = `\nimport { b } from "./b.ts";\n`;';
  await assert.rejects(linked({ "src/a.ts": text }), /a.ts has what no script can have: import \{ b \}/);
});

test("modules that import each other, and exported variables, are refused", async () => {
  await assert.rejects(
    linked({ "src/a.ts": `import "./b.ts"; export const a = 1;`, "src/b.ts": `import "./a.ts";` }),
    /import each other/,
  );
  await assert.rejects(linked({ "src/a.ts": "export let n = 1;" }), /exports the variable n/);
});
