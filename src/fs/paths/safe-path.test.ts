import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { CairnError } from "../../errors.ts";
import {
  checkName,
  displayPath,
  isAtOrBelow,
  joinRaw,
  normalizeTyped,
  pathOfDisplayed,
  printablePath,
  quotedPath,
  shellPath,
  shellQuote,
  splitRaw,
} from "./safe-path.ts";

const ODD = Buffer.from([0x61, 0xff, 0x2f, 0x0a, 0xc3, 0xa4]);

function isUsage(error: unknown): boolean {
  return error instanceof CairnError && error.code === "usage";
}

test("a relative path is split into its raw names", () => {
  assert.deepEqual(splitRaw("a/b c/…").map(String), ["a", "b c", "…"]);
  assert.deepEqual(splitRaw(""), []);
  assert.deepEqual(splitRaw(ODD), [Buffer.from([0x61, 0xff]), Buffer.from([0x0a, 0xc3, 0xa4])]);
  assert.deepEqual(splitRaw("..a/.b/...").map(String), ["..a", ".b", "..."]);
});

for (const path of ["/", "/a", "a//b", "a/", ".", "..", "a/..", "../a", "a/./b", "a\0b", "./a"]) {
  test(`a join is refused when the path is ${JSON.stringify(path)}`, () => {
    assert.throws(() => joinRaw("/root", path), isUsage);
    assert.throws(() => splitRaw(path), isUsage);
  });
}

test("a join never leaves the root when names are random", () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 12 }), (bytes) => {
      let joined: Buffer;
      try {
        joined = joinRaw("/r", bytes);
      } catch (error) {
        return isUsage(error);
      }
      return isAtOrBelow(joined, "/r") && !joined.toString("latin1").split("/").includes("..");
    }),
  );
});

test("a join keeps the root when the path is empty and adds one slash when it is not", () => {
  assert.equal(joinRaw("/r", "").toString(), "/r");
  assert.equal(joinRaw("/", "a").toString(), "/a");
});

test("one name is refused when it is none or more than one", () => {
  for (const name of ["", "a/b", "..", "."]) assert.throws(() => checkName(name), isUsage);
  checkName("...");
});

test("typed paths are put in their one form", () => {
  assert.equal(normalizeTyped("./a//b/").toString(), "a/b");
  assert.equal(normalizeTyped(".").toString(), "");
  assert.throws(() => normalizeTyped("a/../b"), isUsage);
  assert.throws(() => normalizeTyped("/a"), isUsage);
});

test("a displayed path has base64 only when it is not UTF-8, and leads back", () => {
  assert.deepEqual(displayPath(Buffer.from("a\nä")), { path: "a\nä" });
  const shown = displayPath(ODD);
  assert.equal(shown.path, "a\\xff/\nä");
  assert.deepEqual(pathOfDisplayed(shown), ODD);
  assert.throws(() => pathOfDisplayed({ path: "a", path_b64: "*" }), CairnError);
});

test("a printed path cannot steer a terminal", () => {
  assert.equal(printablePath("a\u001b[31m\nb\u202ec\u009b"), "a\\x1b[31m\\nb\\u202ec\\x9b");
});

test("a quoted path names what is not UTF-8, and its quotation marks end it nowhere", () => {
  assert.equal(quotedPath(ODD), '"a\\xff/\\nä"');
  assert.equal(quotedPath('a "b"'), '"a \\"b\\""');
});

test("words are quoted as a shell takes them", () => {
  assert.deepEqual(["a/b-c", "a b", "it's", ""].map(shellQuote), ["a/b-c", "'a b'", `'it'\\''s'`, "''"]);
});

test("a path in a line to be run is one word that the shell leaves alone", () => {
  assert.equal(shellPath("/a b/$(id)`id`"), "'/a b/$(id)`id`'");
  assert.equal(shellPath(Buffer.from("/it's\n")), `'/it'\\''s\\n'`);
});

test("being below goes by whole names", () => {
  assert.equal(isAtOrBelow("/a/b", "/a"), true);
  assert.equal(isAtOrBelow("/ab", "/a"), false);
  assert.equal(isAtOrBelow("/a", "/a"), true);
  assert.equal(isAtOrBelow("/a", "/"), true);
  assert.equal(isAtOrBelow("/a", "/a/b"), false);
});
