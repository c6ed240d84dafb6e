import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { temporaryFolder } from "../workspace/store/testing-store.ts";
import { removeTree } from "./remove-held.ts";

test("removeTree fails with `io` if shared memory is refused, and works afterwards", async (t) => {
  const tree = path.join(temporaryFolder(t), "tree");
  fs.mkdirSync(path.join(tree, "a", "b"), { recursive: true });
  const whole = globalThis.SharedArrayBuffer;
  t.after(() => (globalThis.SharedArrayBuffer = whole));
  globalThis.SharedArrayBuffer = new Proxy(whole, {
    construct() {
      throw new RangeError("Array buffer allocation failed");
    },
  });
  for (let i = 0; i < 8; i++) await assert.rejects(removeTree(Buffer.from(tree)), { code: "io", retryable: true });
  globalThis.SharedArrayBuffer = whole;
  await removeTree(Buffer.from(tree));
  assert.ok(!fs.existsSync(tree));
});
