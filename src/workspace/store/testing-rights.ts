import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";

/** What this process may do beyond the rights of its user: the kernel's bits; 0 where there is no such thing. */
function capabilities(): bigint {
  try {
    const line = /^CapEff:\s*([0-9a-f]+)$/mu.exec(fs.readFileSync("/proc/self/status", "latin1"));
    return BigInt(`0x${line?.[1] ?? "0"}`);
  } catch {
    return 0n;
  }
}

/** True when missing rights stop this process. */
export function rightsCount(): boolean {
  return capabilities() === 0n;
}

const DROP = ["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--"];

/** Runs the tests of a file whose names match in a process whose rights count; false when this machine cannot. */
export function runWithoutCapabilities(file: string, names = ".*"): boolean {
  if (spawnSync("setpriv", [...DROP, "true"]).status !== 0) return false;
  const { NODE_TEST_CONTEXT: _context, ...env } = process.env;
  const run = spawnSync("setpriv", [...DROP, process.execPath, "--test", `--test-name-pattern=${names}`, file], {
    env,
    encoding: "utf8",
    timeout: 60_000,
  });
  assert.equal(run.status, 0, `${run.stdout}\n${run.stderr}`);
  return true;
}
