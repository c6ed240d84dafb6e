import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "./ignore.ts";
import type { FoundIgnoreFile } from "./ignore.ts";
import { patternOfPath } from "./ignore-pattern.ts";

/** All files of a tree that the rules keep, and the ignore files met on the way. */
function keptBy(rules: IgnoreRules, root: string): { kept: string[]; found: FoundIgnoreFile[] } {
  const kept: string[] = [];
  const found: FoundIgnoreFile[] = [];
  function walk(parent: IgnoreRules, directory: string): void {
    const absolute = Buffer.concat([Buffer.from(`${root}/`), Buffer.from(directory, "latin1")]);
    const entries = readdirSync(absolute, { withFileTypes: true, encoding: "buffer" });
    const own = entries.find((entry) => entry.name.toString() === IGNORE_FILE && entry.isFile());
    const bytes = own === undefined ? null : readFileSync(Buffer.concat([absolute, Buffer.from(`/${IGNORE_FILE}`)]));
    if (bytes !== null) found.push({ directory, text: bytes.toString("latin1") });
    const inside = IgnoreRules.enterDirectory(parent, directory, parent.needsFiles ? bytes : null);
    for (const entry of entries) {
      const name = entry.name.toString("latin1");
      const path = directory === "" ? name : `${directory}/${name}`;
      if (path === ".git" || inside.ignores(name, entry.isDirectory())) continue;
      if (entry.isDirectory()) walk(inside, path);
      else kept.push(path);
    }
  }
  walk(rules, "");
  return { kept: kept.sort(), found };
}

function keptByGit(root: string, excludes: string[]): string[] {
  const options = excludes.map((pattern) => `--exclude=${pattern}`);
  const bytes = execFileSync("git", ["ls-files", "-o", "-z", `--exclude-per-directory=${IGNORE_FILE}`, ...options], {
    cwd: root,
  });
  return bytes
    .toString("latin1")
    .split("\0")
    .filter((path) => path !== "")
    .sort();
}

function makeTree(files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), "cairn-ignore-"));
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  }
  return root;
}

function compare(files: Record<string, string>, excludes: string[] = []): void {
  const root = makeTree(files);
  try {
    execFileSync("git", ["init", "-q"], { cwd: root });
    assert.deepEqual(
      keptBy(IgnoreRules.fromExcludes(excludes), root).kept,
      keptByGit(root, excludes),
      JSON.stringify({ files, excludes }),
    );
  } finally {
    rmSync(root, { recursive: true });
  }
}

const TREE = Object.fromEntries(
  [
    "a",
    "b/a",
    "b/c/a",
    "b/c/d.log",
    "build/x",
    "src/build/x",
    "src/build/y.o",
    "src/a.o",
    "src/deep/er/a.o",
    "Build/x",
    "foo bar",
    "#x",
    "!y",
    "tr ",
    "x]y",
    "br[a",
  ].map((path) => [path, ""]),
);

const RULES: [string, string][] = [
  ["a name", "a\n"],
  ["a folder at any depth", "build/\n"],
  ["an anchored folder", "/build\n"],
  ["a suffix", "*.o\n"],
  ["taking back in", "*.o\n!src/a.o\n"],
  ["a path in the middle", "b/c\n"],
  ["double stars", "**/er\nb/**\n!b/a\n"],
  ["double stars inside", "src/**/a.o\n"],
  ["comments, escapes and blanks", "# no\n\\#x\n\\!y\ntr\\ \nfoo bar   \n"],
  ["brackets", "[ab]\nx[]]y\nbr\\[a\n*.[!l]\n"],
  ["classes and ranges", "b/c/[[:alpha:]].[[:lower:]][a-p]g\n[[:nope:]]\n"],
  ["unclosed brackets", "br[a\n"],
  ["question marks", "?\nsrc/?.o\n"],
  ["carriage returns and a byte order mark", "\ufeffa\r\n*.log\r\n"],
  ["a star for the rest", "src/*\n!src/deep\n"],
  ["one place after another", "/src/*\n!/src/a.o\n!/src/build/\n/src/build/x\nfoo\\ ba[r]\n/b/c/a\n!b/c/\\a\n"],
  ["a star for the top", "/*\n!/b\n!/x\\]y\n/b/*/\n"],
  ["names and places in turns", "/b/a\n!a\n/b/c/a\n*.log\n!/b/c/*\n/b/c/a\n"],
  ["nothing at all", "\n\r\n!\n/\n"],
];

for (const [name, text] of RULES) {
  test(`IgnoreRules keep the same files as git for ${name}`, () => compare({ ...TREE, [IGNORE_FILE]: text }));
}

test("IgnoreRules keep the same files as git for nested ignore files and excludes", () => {
  compare({ ...TREE, [IGNORE_FILE]: "build/\n*.o\n", [`src/${IGNORE_FILE}`]: "!build/\n/deep/er\n!a.o\n" });
  compare({ ...TREE, [IGNORE_FILE]: "!a\n" }, ["a", "src/*", "!src/a.o"]);
});

function randomSource(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test("IgnoreRules keep the same files as git for random patterns", () => {
  const seed = Number(process.env["CAIRN_TEST_SEED"] ?? 20_261_120);
  const random = randomSource(seed);
  const pieces = [
    "a",
    "b",
    "ab",
    "*",
    "?",
    "/",
    "/",
    "**/",
    "/**",
    "[ab]",
    "[!a]",
    "[a-",
    "\\a",
    ".",
    "[[:alpha:]]",
    "c",
  ];
  const names = ["a", "b", "ab", "c", "a.b", "abc"];
  for (let round = 0; round < 40; round++) {
    const files: Record<string, string> = {};
    for (let count = 0; count < 12; count++) {
      const parts = Array.from({ length: 1 + random(3) }, () => names[random(names.length)]!);
      files[parts.join("/") + (random(2) === 0 ? "/leaf" : ".f")] = "";
    }
    const line = (): string =>
      (random(4) === 0 ? "!" : "") +
      Array.from({ length: 1 + random(4) }, () => pieces[random(pieces.length)]!).join("") +
      (random(4) === 0 ? "/" : "");
    // A star pair that is not a whole part is "like a single star" in git's manual, but not always in git.
    const lines = Array.from({ length: 4 }, line).filter((text) => !/[^/!]\*\*|\*\*[^/]|\*\*\*/.test(text));
    files[IGNORE_FILE] = `${lines.join("\n")}\n`;
    compare(files);
  }
});

test("ignore patterns are case-sensitive", () => {
  const rules = IgnoreRules.fromExcludes(["build"]);
  assert.equal(rules.ignores("build", true), true);
  assert.equal(rules.ignores("Build", true), false);
});

test("ignore patterns match names that are not UTF-8 byte by byte", () => {
  const rules = IgnoreRules.fromExcludes(["ä*"]);
  const inside = IgnoreRules.enterDirectory(rules, "d", Buffer.from([0x21, 0xff, 0x3f, 0x0a, 0xff, 0x2a, 0x0a]));
  assert.equal(inside.ignores(Buffer.from("äb").toString("latin1"), false), true);
  assert.equal(inside.ignores("\xffab", false), true);
  assert.equal(inside.ignores("\xfeab", false), false);
});

test("enterDirectory returns the parent's rules if the directory has no ignore file", () => {
  const rules = IgnoreRules.fromExcludes([]);
  assert.equal(rules.empty, true);
  assert.equal(IgnoreRules.enterDirectory(rules, "a", null), rules);
});

test("IgnoreRules.fromRecord uses the recorded rules, even if the ignore files have changed", () => {
  const root = makeTree({ ...TREE, [IGNORE_FILE]: "*.o\n", [`src/${IGNORE_FILE}`]: "/build\n" });
  try {
    const before = IgnoreRules.fromExcludes(["*.log"]);
    const { kept, found } = keptBy(before, root);
    const record = JSON.parse(JSON.stringify(before.record(found)));
    assert.deepEqual(
      record.files.map((file: { path: string }) => file.path),
      ["", "src"],
    );
    writeFileSync(join(root, IGNORE_FILE), "*\n");
    writeFileSync(join(root, `src/${IGNORE_FILE}`), "*\n");
    const again = IgnoreRules.fromRecord(record);
    assert.deepEqual(keptBy(again, root).kept, kept);
    assert.deepEqual(again.record([]), record);
  } finally {
    rmSync(root, { recursive: true });
  }
});

test("an IgnoreRules record keeps patterns and paths that are not UTF-8", () => {
  const rules = IgnoreRules.fromExcludes([]);
  const record = JSON.parse(JSON.stringify(rules.record([{ directory: "\xff", text: "\xfe*\n" }])));
  const inside = IgnoreRules.enterDirectory(IgnoreRules.fromRecord(record), "\xff", null);
  assert.equal(inside.ignores("\xfez", false), true);
  assert.equal(inside.ignores("z", false), false);
});

test("enterDirectory refuses an ignore file above the size limit", () => {
  const rules = IgnoreRules.fromExcludes([]);
  assert.throws(
    () => IgnoreRules.enterDirectory(rules, "", Buffer.alloc(MAX_IGNORE_FILE_BYTES + 1)),
    (error) => error instanceof CairnError && error.code === "refused",
  );
});

test("patternOfPath matches any non-ASCII byte in place of a byte that is not UTF-8", () => {
  const [folder, kept] = ["caf\xe8", "caf\xe8/a\xa0"].map((path) => patternOfPath(Buffer.from(path, "latin1")));
  const rules = IgnoreRules.fromExcludes([`/${folder}/*`, `!/${kept}`, "/ä/*", "/ü"]);
  const inside = (directory: string): IgnoreRules => IgnoreRules.enterDirectory(rules, directory, null);
  assert.equal(inside("caf\xe9").ignores("x", false), true);
  assert.equal(inside("caf\xe9").ignores("a\xff", false), false);
  assert.equal(inside("caf\xe9").ignores("aa", false), true);
  assert.equal(inside("cafe").ignores("x", false), false);
  assert.equal(inside("\xc3\xa4").ignores("x", false), true);
  assert.equal(inside("\xc3\xb6").ignores("x", false), false);
  assert.equal(rules.ignores("\xc3\xbc", false), true);
  assert.equal(rules.ignores("\xc3\xbd", false), false);
});

test("IgnoreRules match 20,000 paths against 40,000 patterns of single paths within 20 seconds", () => {
  const folders = Array.from({ length: 20_000 }, (_, i) => `d${i % 200}/p${i}/cache`);
  const top = IgnoreRules.fromExcludes(folders.flatMap((path) => [`/${path}/*`, `!/${path}/CACHEDIR.TAG`]));
  const started = performance.now();
  for (const path of folders) {
    const inside = IgnoreRules.enterDirectory(top, path, null);
    assert.deepEqual([inside.ignores("a", false), inside.ignores("CACHEDIR.TAG", false)], [true, false]);
  }
  assert.ok(performance.now() - started < 20_000);
});

test("an ignore pattern with 60 stars is matched within 20 seconds", () => {
  const rules = IgnoreRules.fromExcludes(["*a".repeat(60) + "b"]);
  const started = performance.now();
  assert.equal(rules.ignores("a".repeat(250), false), false);
  assert.ok(performance.now() - started < 20_000);
});
