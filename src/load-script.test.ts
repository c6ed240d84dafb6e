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
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeEach, afterEach, test } from "node:test";
import { pathToFileURL } from "node:url";
import { loadLibrary, loadScript } from "./load-script.ts";

let scratch: string;
let dist: string;
let kept: string;

beforeEach(() => {
  scratch = mkdtempSync(path.join(tmpdir(), "cairn-load-script-"));
  dist = path.join(scratch, "dist");
  kept = path.join(scratch, "kept", "cairn-main");
  mkdirSync(dist);
  script("main-A.cjs", `exports.answer = require("./part-B.cjs").twice(21); exports.url = __url;`);
  script("part-B.cjs", `exports.twice = (n) => n * 2;`);
});
afterEach(() => rmSync(scratch, { recursive: true }));

function script(name: string, text: string): void {
  writeFileSync(path.join(dist, name), `(function (require, exports, __url) {${text}\n})`);
}

function load(): ReturnType<typeof loadScript> {
  return loadScript("main-A.cjs", pathToFileURL(path.join(dist, "cli.js")).href, kept);
}

function keptFiles(): string[] {
  return readdirSync(kept).map((name) => `${name} ${statSync(path.join(kept, name), { bigint: true }).mtimeNs}`);
}

test("a script runs with the scripts that it requires, and the next run uses its cached code", () => {
  const first = load();
  assert.equal(first.exports["answer"], 42);
  assert.equal(first.exports["url"], pathToFileURL(path.join(dist, "cli.js")).href);
  first.keep();
  assert.deepEqual(readdirSync(kept).toSorted(), ["main-A.cjs.code", "part-B.cjs.code"]);
  const before = keptFiles();
  const second = load();
  assert.equal(second.exports["answer"], 42);
  second.keep();
  assert.deepEqual(keptFiles(), before, "V8 took all of it");
});

test("a script keeps its text if the text has characters beyond ASCII", () => {
  script("part-B.cjs", `exports.twice = (n) => n * 2 + " é→😀";`);
  for (let run = 0; run < 2; run++) {
    const loaded = load();
    assert.equal(loaded.exports["answer"], "42 é→😀");
    loaded.keep();
  }
});

test("a script runs and is cached again if its cached code is damaged, cut or empty", () => {
  load().keep();
  const file = path.join(kept, "part-B.cjs.code");
  const whole = readFileSync(file);
  const flipped = Buffer.from(whole);
  flipped[whole.length >> 1]! ^= 1;
  for (const damaged of [flipped, whole.subarray(0, whole.length - 9), whole.subarray(0, 5), Buffer.alloc(0)]) {
    writeFileSync(file, damaged);
    const { exports, keep } = load();
    assert.equal(exports["answer"], 42);
    keep();
    assert.equal(readFileSync(file).length, whole.length);
  }
});

test("a changed script runs even if cached code of a text of the same length exists", () => {
  load().keep();
  script("part-B.cjs", `exports.twice = (n) => n * 3;`);
  assert.equal(load().exports["answer"], 63);
});

test(
  "cached code of another user is not run",
  { skip: process.geteuid?.() === 0 ? false : "only root may give files away" },
  () => {
    load().keep();
    const file = path.join(kept, "part-B.cjs.code");
    chownSync(file, 65_534, 65_534);
    const { exports, keep } = load();
    assert.equal(exports["answer"], 42);
    keep();
    assert.equal(statSync(file).uid, 0, "written anew");
  },
);

test("a script runs even if its code cannot be cached", () => {
  writeFileSync(path.join(scratch, "kept"), "a file");
  const { exports, keep } = load();
  assert.equal(exports["answer"], 42);
  keep();
  assert.equal(readFileSync(path.join(scratch, "kept"), "utf8"), "a file");
});

test("cached code of removed scripts is kept for a day", () => {
  load().keep();
  const old = path.join(kept, "part-OLD.cjs.code");
  const young = path.join(kept, "part-YOUNG.cjs.code");
  for (const file of [old, young]) writeFileSync(file, "x");
  const before = Date.now() / 1000 - 90_000;
  utimesSync(old, before, before);
  rmSync(path.join(kept, "part-B.cjs.code"));
  load().keep();
  assert.deepEqual(readdirSync(kept).toSorted(), ["main-A.cjs.code", "part-B.cjs.code", "part-YOUNG.cjs.code"]);
});

test("a script that failed fails again if it is required again", () => {
  script("main-A.cjs", `exports.part = () => require("./part-B.cjs");`);
  script("part-B.cjs", `exports.half = true; throw new Error("no part");`);
  const { exports, keep } = load();
  for (let time = 0; time < 2; time++) assert.throws(exports["part"] as () => void, /no part/);
  keep();
});

test("an error of a script is passed on with the script's file in its stack", () => {
  script("part-B.cjs", `throw new Error("no part");`);
  assert.throws(load, (error: Error) => error.message === "no part" && error.stack!.includes("part-B.cjs"));
});

test("two scripts of the library share one instance of a script that both require", () => {
  script("other-C.cjs", `exports.twice = require("./part-B.cjs").twice;`);
  const base = pathToFileURL(path.join(dist, "index.js")).href;
  const first = loadLibrary("main-A.cjs", base);
  assert.deepEqual([first["answer"], first["url"]], [42, base]);
  assert.equal(loadLibrary("other-C.cjs", base)["twice"], loadLibrary("part-B.cjs", base)["twice"]);
});
