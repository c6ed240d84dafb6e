import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { runShell } from "./shell-command.ts";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "cairn-shell-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

test("a command's stdout, the end of its stderr and its status are returned", async () => {
  const end = await runShell("cat; echo wrong >&2; exit 3", { cwd: "/", input: "given", mostBytes: 10 });
  assert.deepEqual([end.status, end.output.toString(), end.said, end.killed], [3, "given", "wrong\n", null]);
  const killed = await runShell("kill -9 $$", { cwd: "/" });
  assert.deepEqual([killed.status, killed.killed], [null, null]);
});

test("a command that prints without end is killed at its limit", async () => {
  const { status, output, killed } = await runShell("yes", { cwd: "/", mostBytes: 1000 });
  assert.deepEqual([status, killed], [null, "long"]);
  assert.ok(output.length <= 1000);
});

/** False also for a process that has ended and that its parent did not wait for. */
function alive(pidFile: string): boolean {
  const stat = `/proc/${readFileSync(pidFile, "utf8").trim()}/stat`;
  return existsSync(stat) && !readFileSync(stat, "utf8").includes(") Z ");
}

test("a late command is killed with its children", async (t) => {
  const pid = join(folderOf(t), "pid");
  const command = `sh -c 'echo $$ > "${pid}"; exec sleep 600' & wait`;
  const { status, killed } = await runShell(command, { cwd: "/", timeLimitMs: 500 });
  assert.deepEqual([status, killed, alive(pid)], [null, "late", false]);
});

test("a command that has ended leaves no child and waits for none", async (t) => {
  const pid = join(folderOf(t), "pid");
  // The child holds the output open. It has written its id before the shell ends.
  const command = `sh -c 'echo $$ > "${pid}"; exec sleep 600' & until [ -s "${pid}" ]; do :; done; echo done`;
  const { status, output } = await runShell(command, { cwd: "/", mostBytes: 100 });
  assert.deepEqual([status, output.toString(), alive(pid)], [0, "done\n", false]);
});

test("an abort ends a command", async () => {
  const stop = new AbortController();
  const running = runShell("kill -STOP $$", { cwd: "/", signal: stop.signal });
  stop.abort();
  await assert.rejects(running, { code: "interrupted" });
});
