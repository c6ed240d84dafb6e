import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";

test("the drawn session of the README shows what the commands print", () => {
  const tool = path.join(import.meta.dirname, "draw-session.ts");
  const { status, stderr } = spawnSync(process.execPath, [tool, "--check"], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
});
