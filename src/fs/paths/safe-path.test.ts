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
  hintOfTwin,
  twinOf,
} from "./safe-path.ts";

const ODD = Buffer.from([0x61, 0xff, 0x2f, 0x0a, 0xc3, 0xa4]);

function isUsage(error: unknown): boolean {
  return error instanceof CairnError && error.code === "usage";
}

test("splitRaw splits a relative path into names as bytes", () => {
  assert.deepEqual(splitRaw("a/b c/…").map(String), ["a", "b c", "…"]);
  assert.deepEqual(splitRaw(""), []);
  assert.deepEqual(splitRaw(ODD), [Buffer.from([0x61, 0xff]), Buffer.from([0x0a, 0xc3, 0xa4])]);
  assert.deepEqual(splitRaw("..a/.b/...").map(String), ["..a", ".b", "..."]);
});

for (const path of ["/", "/a", "a//b", "a/", ".", "..", "a/..", "../a", "a/./b", "a\0b", "./a"]) {
  test(`joinRaw and splitRaw refuse the path ${JSON.stringify(path)}`, () => {
    assert.throws(() => joinRaw("/root", path), isUsage);
    assert.throws(() => splitRaw(path), isUsage);
  });
}

test("joinRaw never returns a path outside the root for random bytes", () => {
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

test("joinRaw returns the root if the path is empty, and otherwise adds one slash", () => {
  assert.equal(joinRaw("/r", "").toString(), "/r");
  assert.equal(joinRaw("/", "a").toString(), "/a");
});

test("checkName refuses an empty name, `.`, `..` and a name with a slash", () => {
  for (const name of ["", "a/b", "..", "."]) assert.throws(() => checkName(name), isUsage);
  checkName("...");
});

test("normalizeTyped removes `./`, repeated slashes and the final slash, and refuses `..`", () => {
  assert.equal(normalizeTyped("./a//b/").toString(), "a/b");
  assert.equal(normalizeTyped(".").toString(), "");
  assert.throws(() => normalizeTyped("a/../b"), isUsage);
  assert.throws(() => normalizeTyped("/a"), isUsage);
});

test("displayPath adds base64 only if a path is not UTF-8, and pathOfDisplayed returns the same bytes", () => {
  assert.deepEqual(displayPath(Buffer.from("a\nä")), { path: "a\nä" });
  const shown = displayPath(ODD);
  assert.equal(shown.path, "a\\xff/\nä");
  assert.deepEqual(pathOfDisplayed(shown), ODD);
  assert.throws(() => pathOfDisplayed({ path: "a", path_b64: "*" }), CairnError);
});

test("printablePath escapes control characters", () => {
  assert.equal(printablePath("a\u001b[31m\nb\u202ec\u009b"), "a\\x1b[31m\\nb\\u202ec\\x9b");
});

test("quotedPath escapes quotation marks and bytes that are not UTF-8", () => {
  assert.equal(quotedPath(ODD), '"a\\xff/\\nä"');
  assert.equal(quotedPath('a "b"'), '"a \\"b\\""');
});

test("shellQuote quotes words only if a shell needs it", () => {
  assert.deepEqual(["a/b-c", "a b", "it's", ""].map(shellQuote), ["a/b-c", "'a b'", `'it'\\''s'`, "''"]);
});

test("shellPath returns one shell word in which nothing is expanded", () => {
  assert.equal(shellPath("/a b/$(id)`id`"), "'/a b/$(id)`id`'");
  assert.equal(shellPath(Buffer.from("/it's\n")), `'/it'\\''s\\n'`);
});

test("isAtOrBelow compares whole names", () => {
  assert.equal(isAtOrBelow("/a/b", "/a"), true);
  assert.equal(isAtOrBelow("/ab", "/a"), false);
  assert.equal(isAtOrBelow("/a", "/a"), true);
  assert.equal(isAtOrBelow("/a", "/"), true);
  assert.equal(isAtOrBelow("/a", "/a/b"), false);
});

test("twinOf finds a path whose names have another Unicode form, and the hint shows its bytes", () => {
  const [nfc, nfd] = ["caf\u00e9", "cafe\u0301"];
  const at =
    (...there: string[]) =>
    (path: Uint8Array) =>
      there.includes(Buffer.from(path).toString("utf8"));
  assert.equal(twinOf(Buffer.from(nfc), at(nfd))?.toString(), nfd);
  assert.equal(twinOf(Buffer.from(nfd), at(nfc))?.toString(), nfc);
  assert.equal(twinOf(Buffer.from(`${nfc}/${nfc}`), at(nfc, `${nfc}/${nfd}`))?.toString(), `${nfc}/${nfd}`);
  assert.equal(twinOf(Buffer.from(nfc), at("cafe")), undefined);
  assert.equal(twinOf(Buffer.from([0xff]), at(nfd)), undefined);
  assert.match(hintOfTwin(Buffer.from(nfd)), /: \$'cafe\\xcc\\x81'$/);
});
