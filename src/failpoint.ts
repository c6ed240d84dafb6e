import { existsSync, openSync, readSync, writeSync } from "node:fs";

/**
 * Places where a test may kill or stop the process; passes are counted per thread. Unset, a call is one comparison.
 * `CAIRN_FAILPOINT=`
 * - `name` or `name:3` kills at the first or third pass with SIGKILL, so nothing is cleaned up;
 * - `#7` kills at the seventh pass of any, and names it on stderr first;
 * - `name@PATH` or `name:3@PATH` names it on stderr and waits there until PATH vanishes;
 * - `each@PIPE` names every pass on stderr, and waits at each for a byte from the named pipe PIPE;
 * - `list` writes a line `failpoint NAME` to stderr at the first pass of each, `trace` at every pass.
 */

const wanted = process.env["CAIRN_FAILPOINT"];
const passes = new Map<string, number>();
let total = 0;
let pipe: number | undefined;

export function failpoint(name: string): void {
  if (wanted !== undefined && wanted !== "") pass(name, wanted);
}

function pass(name: string, setting: string): void {
  const count = (passes.get(name) ?? 0) + 1;
  passes.set(name, count);
  total += 1;
  if (setting === "list" || setting === "trace") {
    if (count === 1 || setting === "trace") writeSync(2, `failpoint ${name}\n`);
    return;
  }
  if (setting.startsWith("#")) {
    if (total === Number(setting.slice(1))) kill(name);
    return;
  }
  if (setting.startsWith("each@")) {
    writeSync(2, `failpoint ${name}\n`);
    readSync((pipe ??= openSync(setting.slice(5), "r")), new Uint8Array(1));
    return;
  }
  const [, target, nth, path] = /^([^:@]*)(?::(\d+))?(?:@(.*))?$/s.exec(setting)!;
  if (name !== target || count !== Number(nth ?? 1)) return;
  if (path === undefined) kill(name);
  writeSync(2, `failpoint ${name}\n`);
  while (existsSync(path)) sleep(2);
}

function kill(name: string): never {
  writeSync(2, `failpoint ${name}\n`);
  process.kill(process.pid, "SIGKILL");
  // Another thread may get the signal first, so this thread must do nothing more.
  for (;;) sleep(1000);
}

function sleep(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}
