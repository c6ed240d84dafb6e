import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import path from "node:path";
import { test } from "node:test";
import { newMeter } from "./processor-time.ts";

const JOINING = path.join(import.meta.dirname, "join-group.ts");

test("a meter counts the work of a process that nobody waited for, and no waiting", (t) => {
  const meter = newMeter();
  if (meter === null) return t.skip("this user may make no control group");
  t.after(() => meter.end());
  const run = (script: string): number => {
    const before = meter.seconds();
    const args = ["--import", JOINING, "-e", script];
    const { status, stderr } = spawnSync(process.execPath, args, {
      env: { ...process.env, ...meter.environment },
      encoding: "utf8",
    });
    assert.equal(status, 0, stderr);
    return meter.seconds() - before;
  };
  // A shell that ends at once leaves its child to the first process, which works until the pipe is closed.
  const work = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
  const orphan = `require("node:child_process").execFileSync("sh", ["-c", "(${work}) & :"], { stdio: "inherit" })`;
  const idle = run(`require("node:child_process").execFileSync("sleep", ["0"])`);
  assert.ok(run(orphan) > idle, "the orphan counts");
});
