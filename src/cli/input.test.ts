import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { toWorkspacePath } from "./context.ts";
import { checkSpan, parseBase64, parseSize, parseWait } from "./input.ts";

const usage = { code: "usage" };

test("parseSize takes units as powers of 1024", () => {
  assert.deepEqual(
    ["0", "1000", "1k", "1.5 KiB", "2GB", "1TiB"].map((text) => parseSize(text, "--x")),
    [0, 1000, 1024, 1536, 2 ** 31, 2 ** 40],
  );
  for (const text of ["", "-1", "1x", "1e9", "9999999T", "0x10"]) assert.throws(() => parseSize(text, "--x"), usage);
});

test("parseWait takes a number without a unit as seconds", () => {
  assert.deepEqual(
    ["0", "10", "1.5s", "250ms", "2m", "1h"].map((text) => parseWait(text, "--x")),
    [0, 10_000, 1500, 250, 120_000, 3_600_000],
  );
  for (const text of ["", "-1", "1d", "soon", "10000h"]) assert.throws(() => parseWait(text, "--x"), usage);
});

test("checkSpan accepts numbers with units of hours to years", () => {
  for (const text of ["30d", "2w", "1y6m", "12h"]) assert.equal(checkSpan(text, "--x"), text);
  for (const text of ["", "30", "d", "1s"]) assert.throws(() => checkSpan(text, "--x"), usage);
});

test("parseBase64 refuses base64 with unused bits or other characters", () => {
  assert.deepEqual([...parseBase64("/2E=", "--x")], [0xff, 0x61]);
  assert.deepEqual([...parseBase64("/2E", "--x")], [0xff, 0x61]);
  for (const text of ["", "/2F=", "a b", "-_8="]) assert.throws(() => parseBase64(text, "--x"), usage);
});

test("toWorkspacePath resolves a path from the current folder and refuses one outside the workspace", () => {
  assert.equal(toWorkspacePath("/w", "/w", "a/../b"), "b");
  assert.equal(toWorkspacePath("/w", "/w/sub", "a/"), "sub/a");
  assert.equal(toWorkspacePath("/w", "/w/sub", ".."), "");
  assert.equal(toWorkspacePath("/w", "/w", "..a"), "..a");
  assert.equal(toWorkspacePath("/w", "/x", "/w/a"), "a");
  for (const path of ["../w2", "..", "/x", "/w2/a", ""]) assert.throws(() => toWorkspacePath("/w", "/w", path), usage);
});

test("toWorkspacePath resolves a path from the root if the current folder lies outside the workspace", () => {
  assert.equal(toWorkspacePath("/w", "/nowhere", "a/b"), "a/b");
  assert.throws(() => toWorkspacePath("/w", "/nowhere", "../x"), usage);
  assert.throws(() => toWorkspacePath("/w", "/nowhere", "/x"), usage);
});

test("toWorkspacePath follows a link to the workspace, but no link inside it", () => {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), "cairn-path-")));
  try {
    mkdirSync(join(folder, "real/sub"), { recursive: true });
    symlinkSync(join(folder, "real"), join(folder, "link"));
    symlinkSync("/etc", join(folder, "real/out"));
    const root = join(folder, "real");
    assert.equal(toWorkspacePath(root, folder, "link/sub/new/file"), "sub/new/file");
    assert.equal(toWorkspacePath(root, root, "out"), "out");
  } finally {
    rmSync(folder, { recursive: true });
  }
});
