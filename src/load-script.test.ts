import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import {
  chownSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { enableCompileCache, getCompileCacheDir } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeEach, afterEach, test } from "node:test";
import { pathToFileURL } from "node:url";
import { crc32 } from "node:zlib";
import { toCairnError } from "./errors.ts";
import { cacheOf, loadLibrary, loadModule, nameSources, type Scripts } from "./load-script.ts";

// A test run has no compile cache of its own.
enableCompileCache(path.join(tmpdir(), `cairn-load-script-cache-${process.pid}`));
let scratch: string;
let dist: string;
let cache: string;
let file: string;
/** Texts of the scripts by their group or key. */
let texts: Map<string, string>;

beforeEach(() => {
  scratch = mkdtempSync(path.join(tmpdir(), "cairn-load-script-"));
  dist = path.join(scratch, "dist");
  cache = path.join("cairn-tests", path.basename(scratch));
  file = "scripts-a1.cjs";
  texts = new Map();
  mkdirSync(dist);
  script("main", {
    "main:a.ts": `exports.answer = require("part:b.ts").twice(21); exports.url = __url;`,
    "main:more.ts": `exports.more = require("./npm.cjs").more;`,
    "main:later.ts": `exports.later = () => require("part:b.ts");`,
  });
  script("part", {
    "part:b.ts": `exports.twice = (n) => n * 2;`,
    "part:unused.ts": `throw new Error("unused");`,
  });
  script("./npm.cjs", { "./npm.cjs": `exports.more = require("node:path").sep + require("path/posix").sep;` });
});
afterEach(() => {
  rmSync(scratch, { recursive: true });
  rmSync(folder(), { recursive: true, force: true });
});

function script(part: string, modules: Record<string, string>): void {
  const members = Object.entries(modules).map(
    ([key, text]) => `"${key}": function (require, exports, __url) {${text}}`,
  );
  texts.set(part, `({${members.join(",\n")}})`);
}

function build(): Scripts {
  const parts: Record<string, [number, number]> = {};
  let all = Buffer.alloc(0);
  for (const [part, text] of texts) {
    parts[part] = [all.length, Buffer.byteLength(text)];
    all = Buffer.concat([all, Buffer.from(text)]);
  }
  writeFileSync(path.join(dist, file), all);
  return { file, parts };
}

function load(key = "main:a.ts", scripts = build()): ReturnType<typeof loadModule> {
  return loadModule(key, scripts, pathToFileURL(path.join(dist, "cli.js")).href, path.join(cache, "cairn-save"));
}

/** Empties the file of scripts: what runs now is not read from it. */
function emptied(): Scripts {
  const scripts = build();
  writeFileSync(path.join(dist, file), "");
  return scripts;
}

/** Names and times of the cached files. */
function written(): [string, bigint][] {
  return readdirSync(folder()).map((name) => [name, statSync(path.join(folder(), name), { bigint: true }).mtimeNs]);
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
  const third = load("main:a.ts", emptied());
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
  assert.equal(load("main:more.ts", emptied()).exports["more"], "//");
  assert.equal(load("main:a.ts", emptied()).exports["answer"], 42);
});

test("a script keeps its text if the text has characters beyond ASCII", () => {
  script("part", { "part:b.ts": `exports.twice = (n) => n * 2 + " é→😀";` });
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

test("a process keeps its modules once, whatever it loads after that", () => {
  for (let run = 0; run < 4; run++) {
    const { exports, keep } = load("main:later.ts");
    keep();
    const first = written();
    keep();
    assert.deepEqual(written(), first, `${run}`);
    (exports["later"] as () => unknown)();
    keep();
    const after = written();
    // The third run finds the code of the first two, so it has not written before it loads the part.
    if (run !== 2) assert.deepEqual(after, first, `${run}`);
    keep();
    assert.deepEqual(written(), after, `${run}`);
  }
  const { exports } = load("main:later.ts", emptied());
  assert.equal((exports["later"] as () => { twice(n: number): number })().twice(2), 4);
});

test("a cached text whose checksum is right, but which is no script, is cached again", () => {
  load().keep();
  const content = Buffer.from("({");
  const header = Buffer.alloc(8);
  for (const at of [0, 4]) header.writeUInt32LE(crc32(content), at);
  writeFileSync(fileOf(".cjs"), Buffer.concat([header, content]));
  const { exports, keep } = load();
  assert.equal(exports["answer"], 42);
  keep();
  assert.equal(load("main:a.ts", emptied()).exports["answer"], 42);
});

test("a module is loaded from the open file if the build is removed or replaced", () => {
  for (const change of [
    () => rmSync(dist, { recursive: true }),
    () => {
      writeFileSync(path.join(dist, "new"), "another build");
      renameSync(path.join(dist, "new"), path.join(dist, file));
    },
  ]) {
    const { exports } = load("main:later.ts");
    change();
    assert.equal((exports["later"] as () => { twice(n: number): number })().twice(2), 4);
    mkdirSync(dist, { recursive: true });
  }
});

test("a script that cannot be read is a missing file of the package, and no missing file of the user", () => {
  const scripts = build();
  const { exports } = load("main:later.ts", scripts);
  writeFileSync(path.join(dist, file), "");
  const missing = (error: unknown): boolean => {
    const { code, message } = toCairnError(error);
    return code === "unsupported" && /a file of the package .* is missing: .*scripts-a1/.test(message);
  };
  assert.throws(exports["later"] as () => void, missing);
  rmSync(path.join(dist, file));
  assert.throws(() => load("main:a.ts", scripts), missing);
});

test("a cached file that is a link is neither read nor written through", () => {
  for (const ending of [".cjs", ".code"]) {
    load().keep();
    load().keep();
    const elsewhere = path.join(scratch, `elsewhere${ending}`);
    const at = fileOf(ending);
    renameSync(at, elsewhere);
    symlinkSync(elsewhere, at);
    const before = statSync(elsewhere, { bigint: true }).mtimeNs;
    const { exports, keep } = load();
    assert.equal(exports["answer"], 42);
    keep();
    assert.ok(lstatSync(at).isFile(), "written anew");
    assert.equal(statSync(elsewhere, { bigint: true }).mtimeNs, before);
  }
});

test("another build does not run the cached modules of this one", () => {
  load().keep();
  script("part", { "part:b.ts": `exports.twice = (n) => n * 3;` });
  file = "scripts-c3.cjs";
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

test("old files of killed writes are removed after a day, and folders stay", () => {
  mkdirSync(folder(), { recursive: true });
  const killed = ["cairn-save-a1.cjs.x7.tmp", "cairn-save-0.code.tmp", "cairn-save-a1.code.y8.tmp"];
  for (const name of killed) writeFileSync(path.join(folder(), name), "x");
  mkdirSync(path.join(folder(), "cairn-main"));
  const before = Date.now() / 1000 - 90_000;
  for (const name of [...killed.slice(1), "cairn-main"]) utimesSync(path.join(folder(), name), before, before);
  load().keep();
  assert.deepEqual(cached(), ["cairn-main", "cairn-save.cjs", "cairn-save.cjs.x7.tmp"]);
});

test("a module that failed fails again if it is needed again", () => {
  script("main", { "main:a.ts": `exports.part = () => require("part:b.ts");` });
  script("part", { "part:b.ts": `exports.half = true; throw new Error("no part");` });
  const { exports, keep } = load();
  for (let time = 0; time < 2; time++) assert.throws(exports["part"] as () => void, /no part/);
  keep();
});

test("an error of a module is passed on with its script's file in its stack", () => {
  script("part", { "part:b.ts": `throw new Error("no part");` });
  assert.throws(load, (error: Error) => error.message === "no part" && error.stack!.includes("scripts-a1.cjs/part"));
});

test("a library whose scripts are not beside it names the bundler", () => {
  const scripts = build();
  rmSync(path.join(dist, file));
  assert.throws(() => loadLibrary("main:a.ts", scripts, pathToFileURL(path.join(dist, "index.js")).href), {
    code: "ERR_MODULE_NOT_FOUND",
    message: /--external:cairnstate/,
  });
});

test("two modules of the library share one instance of a module that both need", () => {
  const base = pathToFileURL(path.join(dist, "index.js")).href;
  const scripts = build();
  const first = loadLibrary("main:a.ts", scripts, base);
  assert.deepEqual([first["answer"], first["url"]], [42, base]);
  assert.equal(loadLibrary("part:b.ts", scripts, base)["twice"], loadLibrary("part:b.ts", scripts, base)["twice"]);
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

test("stacks name the source files of modules, in scripts and in the cached script", () => {
  script("main-part", {
    "main-part:c/d.ts": "const text = `two\nlines`;\nexports.fail = () => { throw new Error(text); };",
  });
  const before = Error.prepareStackTrace;
  try {
    for (const made of [build, emptied]) {
      const loaded = load("main-part:c/d.ts", made());
      nameSources(loaded);
      assert.throws(loaded.exports["fail"] as () => void, ({ stack }: Error) => {
        const [message, more, first, second] = stack!.split("\n");
        assert.deepEqual([message, more], ["Error: two", "lines"]);
        assert.match(first!, /^ +at .*\(src\/main\/part\/c\/d\.ts\)$/);
        assert.match(second!, /:\d+:\d+/);
        return true;
      });
      loaded.keep();
    }
  } finally {
    Error.prepareStackTrace = before;
  }
});

test("an error that nobody catches is told by its message, and ends the process", () => {
  const code = `import { endUncaught } from ${JSON.stringify(new URL("load-script.ts", import.meta.url).href)};
    process.on("uncaughtException", endUncaught);
    setTimeout(() => { throw new TypeError("no such thing"); });`;
  const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], { encoding: "utf8" });
  assert.equal(status, 1);
  assert.match(stderr, /^cairn: unexpected failure: TypeError: no such thing\n {4}at /m);
});
