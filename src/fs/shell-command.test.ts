import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { eventually } from "../../test/fixtures/eventually.ts";
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

test("a shell command whose children count ends with the last of them, and at the time limit names one that still runs", async () => {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-shell-"));
  const [dump, gate] = ["dump", "gate"].map((name) => path.join(place, name)) as [string, string];
  const asked = { ...LIMITS, awaitsChildren: true };
  // The child has closed the pipes of the command, as `gzip > dump &` of bash's >(…) has.
  const writes = `mkfifo ${gate}; { read word < ${gate}; echo "$word" > ${dump}; } > /dev/null 2>&1 &`;
  const running = runShell(writes, asked);
  await eventually("the pipe", () => fs.existsSync(gate));
  fs.writeFileSync(gate, "whole\n");
  const whole = await running;
  assert.deepEqual([whole.exitCode, whole.child, fs.readFileSync(dump, "utf8")], [0, null, "whole\n"]);
  const late = await runShell("sleep 600 > /dev/null 2>&1 & true", { ...asked, timeoutMs: 300 });
  assert.deepEqual([late.exitCode, late.isTimedOut, late.child], [null, true, "sleep"]);
  // A service of its own session is no child.
  const service = await runShell("setsid sleep 5 > /dev/null 2>&1 & true", asked);
  assert.deepEqual([service.exitCode, service.child], [0, null]);
  fs.rmSync(place, { recursive: true });
});

test("an abort kills a shell command", async () => {
  const stop = new AbortController();
  const running = runShell("sleep 600", { ...LIMITS, signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(running, { code: "interrupted" });
});

test("an answer is stdout alone, with the input and the environment that were given", async () => {
  const asked = { ...LIMITS, isAnswer: true, input: "given", onlyEnv: { PATH: process.env["PATH"], ONE: "1" } };
  const { exitCode, output, said } = await runShell("cat; echo $ONE$HOME; echo wrong >&2; exit 3", asked);
  assert.deepEqual([exitCode, Buffer.from(output).toString(), said], [3, "given1\n", "wrong\n"]);
});

test("a command whose answer is too long is killed", async () => {
  const { exitCode, isTooLong } = await runShell("yes", { ...LIMITS, isAnswer: true });
  assert.deepEqual([exitCode, isTooLong], [null, true]);
  const whole = await runShell("printf %100s", { ...LIMITS, isAnswer: true });
  assert.deepEqual([whole.exitCode, whole.isTooLong, whole.output.length], [0, false, 100]);
});
