import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { runShell } from "./shell-command.ts";

const LIMITS = { timeoutMs: 60_000, mostBytes: 100 };

test("a shell command's status and the end of both its outputs are returned, in their order", async () => {
  const { exitCode, isTimedOut, output } = await runShell("echo one; echo two >&2; echo $WORD; pwd; exit 3", {
    ...LIMITS,
    env: { WORD: "three" },
  });
  assert.deepEqual([exitCode, isTimedOut, Buffer.from(output).toString()], [3, false, "one\ntwo\nthree\n/\n"]);
  const long = await runShell("seq 1 100000", LIMITS);
  assert.deepEqual([long.output.length, Buffer.from(long.output).toString().endsWith("99999\n100000\n")], [100, true]);
  assert.equal((await runShell("kill -TERM $$", LIMITS)).exitCode, null);
  assert.equal((await runShell("no (such syntax", LIMITS)).exitCode, 2);
});

test("a shell command that passes its time limit is killed with all its children", async () => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-shell-"));
  const pid = path.join(place, "pid");
  const ended = await runShell(`sleep 600 & echo $! > ${pid}; echo begun; wait`, { ...LIMITS, timeoutMs: 1500 });
  assert.deepEqual([ended.exitCode, ended.isTimedOut, Buffer.from(ended.output).toString()], [null, true, "begun\n"]);
  const child = Number(fs.readFileSync(pid, "utf8"));
  const state = fs.existsSync(`/proc/${child}/stat`) ? fs.readFileSync(`/proc/${child}/stat`, "utf8") : "Z";
  assert.match(state, /Z/, "it has ended");
  fs.rmSync(place, { recursive: true });
});

test("a process that a shell command leaves in the background delays nobody", async () => {
  const started = performance.now();
  const { exitCode, output } = await runShell("sleep 30 & echo done", LIMITS);
  assert.deepEqual([exitCode, Buffer.from(output).toString()], [0, "done\n"]);
  assert.ok(performance.now() - started < 20_000);
});

test("an abort kills a shell command", async () => {
  const stop = new AbortController();
  const running = runShell("sleep 600", { ...LIMITS, signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(running, { code: "interrupted" });
});
