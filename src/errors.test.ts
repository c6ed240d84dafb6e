import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError, reworded, toCairnError } from "./errors.ts";

test("a system's error keeps its meaning, and a full disk has a way out", () => {
  const full = Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
  const told = toCairnError(full, "writing a pack");
  assert.deepEqual([told.code, told.message], ["no_space", `writing a pack: ${full.message}`]);
  assert.match(told.hint ?? "", /^free some space/);
  assert.equal(told.cause, full);
  const missing = toCairnError(Object.assign(new Error("ENOENT"), { code: "ENOENT" }));
  assert.deepEqual([missing.code, missing.hint], ["not_found", undefined]);
  const long = toCairnError(Object.assign(new Error("ENAMETOOLONG: name too long"), { code: "ENAMETOOLONG" }));
  assert.deepEqual([long.code, long.retryable], ["unsupported", false]);
  assert.equal(toCairnError(new TypeError("x is not a function")).code, "internal");
  const memory = toCairnError(new RangeError("Array buffer allocation failed"));
  assert.deepEqual([memory.code, memory.retryable], ["io", true]);
  assert.match(memory.hint ?? "", /more memory/);
  const kernel = new RangeError("WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance");
  assert.deepEqual([toCairnError(kernel).code, toCairnError(kernel).hint], ["io", memory.hint]);
  assert.equal(toCairnError(new RangeError("Invalid array buffer length")).code, "internal");
  const lost = toCairnError(Object.assign(new Error("Cannot find module 'koffi'"), { code: "MODULE_NOT_FOUND" }));
  assert.deepEqual([lost.code, lost.retryable], ["unsupported", false]);
  const denied = Object.assign(new Error("fsync API is disabled"), { code: "ERR_ACCESS_DENIED" });
  assert.match(toCairnError(denied).hint ?? "", /without `--permission`/);
  assert.equal(toCairnError(denied).code, "unsupported");
  assert.equal(toCairnError(told), told);
});

test("a path of thousands of characters is cut in the message of a failed call", () => {
  const path = `/begin/${"x".repeat(3000)}/end`;
  const error = Object.assign(new Error(`ENAMETOOLONG: name too long, rename '${path}' -> '${path}'`), {
    code: "ENAMETOOLONG",
  });
  const { message } = toCairnError(error, "move");
  assert.ok(message.length < 800, message);
  assert.match(message, /^move: ENAMETOOLONG: name too long, rename '\/begin\/x+…x+\/end' -> '\/begin\/x+…x+\/end'$/);
});

test("an error in other words keeps what they leave out", () => {
  const first = new CairnError("busy", "locked by 7", { hint: "wait", details: { pid: 7 } });
  const other = reworded(first, { message: "the store is locked by 7" });
  assert.deepEqual(
    [other.code, other.message, other.hint, other.details, other.cause],
    ["busy", "the store is locked by 7", "wait", { pid: 7 }, first],
  );
  const cause = new Error("why");
  const hinted = reworded(first, { hint: "go", cause });
  assert.deepEqual([hinted.message, hinted.hint, hinted.cause], ["locked by 7", "go", cause]);
});

test("of two failures the first is told where the other came while it was cleared away", () => {
  const first = Object.assign(new Error("ENOTCONN: socket is not connected, read"), { code: "ENOTCONN" });
  const both = new SuppressedError(new Error("close failed"), first, "An error was suppressed during disposal");
  const told = toCairnError(both, "read a file");
  assert.equal(told.code, toCairnError(first).code);
  assert.match(told.message, /^read a file: ENOTCONN/);
  assert.match(told.hint ?? "", /mount the file system again/);
});
