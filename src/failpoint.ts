import { writeSync } from "node:fs";

/**
 * Places where a test may kill the process. `CAIRN_FAILPOINT=name` or `name:3` kills at the first or third
 * pass (counted per thread) with SIGKILL, so nothing is cleaned up; `CAIRN_FAILPOINT=list` writes a line
 * `failpoint NAME` to stderr at the first pass of each. Unset, a call is one comparison.
 */

const wanted = process.env["CAIRN_FAILPOINT"];
const passes = new Map<string, number>();

export function failpoint(name: string): void {
  if (wanted !== undefined && wanted !== "") pass(name, wanted);
}

function pass(name: string, setting: string): void {
  const count = (passes.get(name) ?? 0) + 1;
  passes.set(name, count);
  if (setting === "list") {
    if (count === 1) writeSync(2, `failpoint ${name}\n`);
    return;
  }
  const colon = setting.lastIndexOf(":");
  const target = colon < 0 ? setting : setting.slice(0, colon);
  const nth = colon < 0 ? 1 : Number(setting.slice(colon + 1));
  if (name === target && count === nth) process.kill(process.pid, "SIGKILL");
}
