import assert from "node:assert/strict";
import { test } from "node:test";
import { hasCode } from "../keep/testing-folder.ts";
import { pathMatcher } from "./open/paths.ts";

function fits(pattern: string, path: string, ignoreCase = false): boolean {
  return pathMatcher(pattern, ignoreCase)(Buffer.from(path).toString("latin1"));
}

test("a pattern matches the end of a path, or the whole path if it begins with a slash", () => {
  assert.ok(fits("*.ts", "/a/b/c.ts") && !fits("*.ts", "/a/b.ts/c"));
  assert.ok(fits("src/*.ts", "/x/src/c.ts") && !fits("src/*.ts", "/x/src/y/c.ts"));
  assert.ok(fits("/src/*.ts", "/src/c.ts") && !fits("/src/*.ts", "/x/src/c.ts"));
  assert.ok(fits("[ab]?", "/a1") && !fits("[^ab]?", "/a1") && fits("a.b", "/a.b") && !fits("a.b", "/axb"));
  assert.ok(fits("/", "/x/y") && fits("/a/..", "/x"));
});

test("`**` matches any number of directories, also none", () => {
  for (const path of ["/x", "/x/y", "/x/y/z"]) assert.ok(fits("/x/**", path), path);
  assert.ok(!fits("/x/**", "/y/x/z"));
  for (const path of ["/a/n", "/a/b/n", "/a/b/c/n"]) assert.ok(fits("/a/**/n", path) && fits("a/**/**/n", path), path);
  assert.ok(fits("**/n", "/n") && fits("a**n", "/a-n") && !fits("a**n", "/a/n"));
});

test("a backslash makes the next character literal", () => {
  assert.ok(fits("c/\\[x\\]", "/c/[x]") && !fits("c/\\[x\\]", "/c/x"));
  assert.ok(fits("/c/\\*", "/c/*") && !fits("/c/\\*", "/c/x") && fits("a\\**", "/a*b"));
  assert.ok(fits("a\\\\b", "/a\\b") && !fits("a\\b", "/a\\b") && fits("[\\]x[*-]".replace("-", "\\-"), "/-"));
});

test("`.`, `..` and repeated slashes in a pattern are resolved", () => {
  for (const pattern of ["./c", "c/", "./c//", "/d/../c"]) assert.ok(fits(pattern, "/c"), pattern);
  assert.ok(fits("d//c", "/d/c"));
});

test("`?` and sets match whole UTF-8 characters, also with ignoreCase", () => {
  assert.ok(fits("?", "/é") && fits("[é-í]", "/é") && fits("[^a]", "/é") && !fits("??", "/é"));
  assert.ok(fits("É", "/é", true) && !fits("É", "/é") && !fits("Ã", "/ã") && fits("[A-C]", "/b", true));
  // A name that is not UTF-8.
  assert.ok(pathMatcher("caf*", false)("/caf\xe9") && pathMatcher("caf?", false)("/caf\xe9"));
});

test("only a caret negates a set, and a reversed range is empty", () => {
  assert.ok(fits("f[!1]", "/f!") && fits("f[!1]", "/f1") && !fits("f[!1]", "/f2"));
  assert.ok(fits("f[^1]", "/f2") && !fits("f[^1]", "/f1") && fits("[\\^]", "/^"));
  assert.ok(!fits("f[b-a]", "/fa") && fits("f[^b-a]", "/fa") && !fits("a[^b]c", "/a/c"));
});

test("pathMatcher refuses an invalid pattern", () => {
  for (const pattern of ["", "f[", "f[0-", "f[0-]", "[]a]", "[-a]", "[a-]", "a\\", "x/[/]"])
    assert.throws(() => pathMatcher(pattern, false), hasCode("usage"), pattern);
});
