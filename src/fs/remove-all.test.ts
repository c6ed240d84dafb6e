import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { CairnError, toCairnError } from "../errors.ts";
import { durableWrite, orderedWrite } from "./durable.ts";
import { clearAway, removeAll } from "./remove-all.ts";

/** Where nothing can be: what is tried there fails, and what clears up after it fails otherwise. */
const NOWHERE = path.join(os.tmpdir(), "x".repeat(300));

test("a failed fs.rmSync whose error has an empty code becomes a retryable io error", () => {
  let thrown: unknown;
  try {
    fs.rmSync(NOWHERE, { recursive: true, force: true });
  } catch (error) {
    thrown = error;
  }
  assert.equal((thrown as NodeJS.ErrnoException).code, "", "Node names it, so this needs no care any more");
  const told = toCairnError(thrown);
  assert.deepEqual([told.code, told.retryable, told.message.startsWith("rm: ")], ["io", true, true]);
});

test("durableWrite and orderedWrite throw the write's error even if removing the temporary file fails", () => {
  clearAway(NOWHERE);
  for (const write of [durableWrite, orderedWrite])
    assert.throws(
      () => write(path.join(NOWHERE, "file"), Buffer.from("x")),
      (error) => error instanceof CairnError && error.message.includes("ENAMETOOLONG"),
    );
});

test("clearAway removes a folder that contains a read-only directory", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-clear-"));
  fs.mkdirSync(path.join(folder, "closed/in"), { recursive: true });
  fs.chmodSync(path.join(folder, "closed"), 0o500);
  clearAway(folder);
  assert.equal(fs.existsSync(folder), false);
});

test("removeAll removes a symbolic link without changing its target, even if fs.rmSync fails with EPERM", (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-clear-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  fs.mkdirSync(path.join(folder, "theirs/closed"), { recursive: true });
  fs.chmodSync(path.join(folder, "theirs/closed"), 0o555);
  fs.symlinkSync("theirs", path.join(folder, "link"));
  const rm = t.mock.method(fs, "rmSync", () => {
    throw Object.assign(new Error("EPERM"), { code: "EPERM" });
  });
  removeAll(path.join(folder, "link"));
  rm.mock.restore();
  assert.deepEqual(fs.readdirSync(folder), ["theirs"]);
  assert.equal(fs.statSync(path.join(folder, "theirs/closed")).mode & 0o777, 0o555);
});
