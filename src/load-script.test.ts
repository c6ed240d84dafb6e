import { strict as assert } from "node:assert";
import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { enableCompileCache, getCompileCacheDir } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeEach, afterEach, test } from "node:test";
import { pathToFileURL } from "node:url";
import { cacheOf, loadLibrary, loadModule, type ScriptFiles } from "./load-script.ts";

// A test run has no compile cache of its own.
enableCompileCache(path.join(tmpdir(), `cairn-load-script-cache-${process.pid}`));
let scratch: string;
let dist: string;
let cache: string;
let files: ScriptFiles;

beforeEach(() => {
  scratch = mkdtempSync(path.join(tmpdir(), "cairn-load-script-"));
  dist = path.join(scratch, "dist");
  cache = path.join("cairn-tests", path.basename(scratch));
  files = { main: "main-A.cjs", part: "part-B.cjs" };
  mkdirSync(dist);
  script("main-A.cjs", {
    "main:a.ts": `exports.answer = require("part:b.ts").twice(21); exports.url = __url;`,
    "main:more.ts": `exports.more = require("./npm-C.cjs").more;`,
  });
  script("part-B.cjs", {
    "part:b.ts": `exports.twice = (n) => n * 2;`,
    "part:unused.ts": `throw new Error("unused");`,
  });
  script("npm-C.cjs", { "./npm-C.cjs": `exports.more = require("node:path").sep + require("path/posix").sep;` });
});
afterEach(() => {
  rmSync(scratch, { recursive: true });
  rmSync(folder(), { recursive: true, force: true });
});

function script(name: string, modules: Record<string, string>): void {
  const members = Object.entries(modules).map(
    ([key, text]) => `"${key}": function (require, exports, __url) {${text}}`,
  );
  writeFileSync(path.join(dist, name), `({${members.join(",\n")}})`);
}

function load(key = "main:a.ts"): ReturnType<typeof loadModule> {
  return loadModule(key, files, pathToFileURL(path.join(dist, "cli.js")).href, path.join(cache, "cairn-save"));
}

function folder(): string {
  return path.join(getCompileCacheDir()!, cache);
}

function cached(): string[] {
  return readdirSync(folder())
    .toSorted()
    .map((name) => name.replace(/-[0-9a-f]+\./, "."));
}

function fileOf(ending: string): string {
  return path.join(
    folder(),
    readdirSync(folder()).find((name) => name.endsWith(ending))!,
  );
}

test("a module runs with the modules that it needs, and no other module of their scripts", () => {
  const { exports } = load();
  assert.equal(exports["answer"], 42);
  assert.equal(exports["url"], pathToFileURL(path.join(dist, "cli.js")).href);
});

test("the first run caches the text of its modules, the second their code, and the third reads only those", () => {
  load().keep();
  assert.deepEqual(cached(), ["cairn-save.cjs"]);
  load().keep();
  assert.deepEqual(cached(), ["cairn-save.cjs", "cairn-save.code"]);
  assert.doesNotMatch(readFileSync(fileOf(".cjs"), "latin1"), /unused/);
  const before = ["cjs", "code"].map((ending) => statSync(fileOf(ending), { bigint: true }).mtimeNs);
  rmSync(path.join(dist, "main-A.cjs"));
  rmSync(path.join(dist, "part-B.cjs"));
  const third = load();
  assert.equal(third.exports["answer"], 42);
  third.keep();
  assert.deepEqual(
    ["cjs", "code"].map((ending) => statSync(fileOf(ending), { bigint: true }).mtimeNs),
    before,
    "V8 took all of it",
  );
});

test("a run that needs more modules adds them to the cached script", () => {
  load().keep();
  load().keep();
  const { exports, keep } = load("main:more.ts");
  assert.equal(exports["more"], "//");
  keep();
  load("main:more.ts").keep();
  for (const name of readdirSync(dist)) rmSync(path.join(dist, name));
  assert.equal(load("main:more.ts").exports["more"], "//");
  assert.equal(load().exports["answer"], 42);
});

test("a script keeps its text if the text has characters beyond ASCII", () => {
  script("part-B.cjs", { "part:b.ts": `exports.twice = (n) => n * 2 + " é→😀";` });
  for (let run = 0; run < 3; run++) {
    const loaded = load();
    assert.equal(loaded.exports["answer"], "42 é→😀");
    loaded.keep();
  }
});

test("modules run and are cached again if the cached text or code is damaged, cut or empty", () => {
  for (const ending of [".cjs", ".code"]) {
    load().keep();
    load().keep();
    const whole = readFileSync(fileOf(ending));
    const flipped = Buffer.from(whole);
    flipped[whole.length >> 1]! ^= 1;
    for (const damaged of [flipped, whole.subarray(0, whole.length - 9), whole.subarray(0, 5), Buffer.alloc(0)]) {
      writeFileSync(fileOf(ending), damaged);
      const { exports, keep } = load();
      assert.equal(exports["answer"], 42);
      keep();
      assert.equal(readFileSync(fileOf(ending)).length, whole.length);
    }
  }
});

test("another build does not run the cached modules of this one", () => {
  load().keep();
  script("part-C.cjs", { "part:b.ts": `exports.twice = (n) => n * 3;` });
  files = { ...files, part: "part-C.cjs" };
  assert.equal(load().exports["answer"], 63);
});

test(
  "cached text and code of another user are not run",
  { skip: process.geteuid?.() === 0 ? false : "only root may give files away" },
  () => {
    for (const ending of [".cjs", ".code"]) {
      load().keep();
      load().keep();
      chownSync(fileOf(ending), 65_534, 65_534);
      const { exports, keep } = load();
      assert.equal(exports["answer"], 42);
      keep();
      assert.equal(statSync(fileOf(ending)).uid, 0, "written anew");
    }
  },
);

test("a module runs even if it cannot be cached", () => {
  mkdirSync(path.dirname(folder()), { recursive: true });
  writeFileSync(folder(), "a file");
  const { exports, keep } = load();
  assert.equal(exports["answer"], 42);
  keep();
  assert.equal(readFileSync(folder(), "utf8"), "a file");
});

test("cached files of other builds are kept for a day", () => {
  mkdirSync(folder(), { recursive: true });
  for (const name of ["cairn-old-0.cjs", "cairn-young-0.code", "foreign"])
    writeFileSync(path.join(folder(), name), "x");
  const before = Date.now() / 1000 - 90_000;
  for (const name of ["cairn-old-0.cjs", "foreign"]) utimesSync(path.join(folder(), name), before, before);
  load().keep();
  assert.deepEqual(cached(), ["cairn-save.cjs", "cairn-young.code", "foreign"]);
});

test("a module that failed fails again if it is needed again", () => {
  script("main-A.cjs", { "main:a.ts": `exports.part = () => require("part:b.ts");` });
  script("part-B.cjs", { "part:b.ts": `exports.half = true; throw new Error("no part");` });
  const { exports, keep } = load();
  for (let time = 0; time < 2; time++) assert.throws(exports["part"] as () => void, /no part/);
  keep();
});

test("an error of a module is passed on with its script's file in its stack", () => {
  script("part-B.cjs", { "part:b.ts": `throw new Error("no part");` });
  assert.throws(load, (error: Error) => error.message === "no part" && error.stack!.includes("part-B.cjs"));
});

test("two modules of the library share one instance of a module that both need", () => {
  const base = pathToFileURL(path.join(dist, "index.js")).href;
  const first = loadLibrary("main:a.ts", files, base);
  assert.deepEqual([first["answer"], first["url"]], [42, base]);
  assert.equal(loadLibrary("part:b.ts", files, base)["twice"], loadLibrary("part:b.ts", files, base)["twice"]);
});

test("the cached script depends on the command, wherever its word stands", () => {
  for (const [line, name] of [
    ["save -q", "cairn-save"],
    ["-C folder --json serve-context x", "cairn-serve-context"],
    ["--version", "cairn---version"],
    ["-C ../x", "cairn"],
    ["../x", "cairn"],
    ["", "cairn"],
  ] as const)
    assert.equal(cacheOf(line === "" ? [] : line.split(" ")), name, line);
});
