import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";

/** The kernel's capability bits of this process; 0 on a system without them. */
function capabilities(): bigint {
  try {
    const line = /^CapEff:\s*([0-9a-f]+)$/mu.exec(fs.readFileSync("/proc/self/status", "latin1"));
    return BigInt(`0x${line?.[1] ?? "0"}`);
  } catch {
    return 0n;
  }
}

/** True if missing permissions stop this process. */
export function rightsCount(): boolean {
  return capabilities() === 0n;
}

const DROP = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"];

/** Runs matching tests of a file in a process without capabilities; false if this machine cannot. */
export function runWithoutCapabilities(file: string, names = ".*"): boolean {
  if (spawnSync("setpriv", [...DROP, "true"]).status !== 0) return false;
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const run = spawnSync("setpriv", [...DROP, process.execPath, "--test", `--test-name-pattern=${names}`, file], {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  const said = `${run.stdout}\n${run.stderr}`;
  assert.equal(run.status, 0, said);
  assert.match(run.stdout, /^ℹ pass [1-9]/mu, `no test passed that has the name ${names}: ${said}`);
  return true;
}
