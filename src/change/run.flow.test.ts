import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

test("run saves before and after and records how the command ended", async (t) => {
  const { client, folder } = await testFolder(t, { a: "one" });
  const events: string[] = [];
  const result = await client.run(["sh", "-c", "echo two > b; exit 3"], {
    message: "turn 1",
    tags: ["turn"],
    cause: { agent: "x", kind: "not ours" },
    onCommand: (event, pid) => events.push(`${event} ${pid > 0}`),
  });
  assert.deepEqual([result.exit_code, result.signal, result.after_error], [3, null, null]);
  assert.deepEqual(result.changes, { added: 1, modified: 0, removed: 0 });
  assert.deepEqual(events, ["started true", "ended true"]);
  const { before, after } = result;
  assert.deepEqual([before.message, before.tags, before.cause["phase"]], ["turn 1", ["turn"], "before"]);
  assert.equal(after?.parent_id, before.save_point_id);
  const { duration_ms, ...cause } = after?.cause ?? {};
  assert.equal(typeof duration_ms, "number");
  assert.deepEqual(cause, {
    agent: "x",
    command: ["sh", "-c", "echo two > b; exit 3"],
    exit_code: 3,
    phase: "after",
    kind: "command",
  });
  assert.equal("read_bytes" in before, false);
  assert.equal(readFileSync(join(folder, "b"), "utf8"), "two\n");
});

test("run executes the command in the workspace's folder by default, and passes its arguments unchanged", async (t) => {
  const { client, folder, root } = await testFolder(t);
  await client.run(["touch", "here and $HOME"]);
  assert.ok(existsSync(join(folder, "here and $HOME")));
  await client.run(["touch", "there"], { cwd: root });
  assert.ok(existsSync(join(root, "there")));
  await assert.rejects(client.run(["true"], { cwd: join(root, "nowhere") }), hasCode("not_found"));
  assert.equal((await client.history()).save_points.length, 4);
});

test("run returns a shell's exit status for a command that cannot be started or is ended by a signal", async (t) => {
  const { client, write } = await testFolder(t);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const missing = await client.run(["no-such-program-anywhere"], { onWarning });
  assert.deepEqual([missing.exit_code, missing.after?.cause["exit_code"]], [127, 127]);
  write("plain", "no program");
  assert.equal((await client.run(["./plain"], { onWarning })).exit_code, 126);
  assert.match(warnings.join("\n"), /no such program[^]*may not execute it/);
  const killed = await client.run(["sh", "-c", "kill -9 $$"]);
  assert.deepEqual([killed.exit_code, killed.signal, killed.after?.cause["signal"]], [137, "SIGKILL", "SIGKILL"]);
  await assert.rejects(client.run([]), hasCode("usage"));
  await assert.rejects(client.run(["a\0b"]), hasCode("usage"));
});

test("run starts nothing when the first save fails", async (t) => {
  const { client, folder } = await testFolder(t);
  const stopped = AbortSignal.abort();
  await assert.rejects(client.run(["touch", "x"], { signal: stopped }), hasCode("interrupted"));
  assert.ok(!existsSync(join(folder, "x")));
});

test("an aborted run ends the command and reports that the state after the command was not saved", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const controller = new AbortController();
  const started = performance.now();
  const result = await client.run(["sleep", "60"], {
    signal: controller.signal,
    onCommand: (event) => {
      if (event === "started") setTimeout(() => controller.abort(), 50);
    },
  });
  assert.ok(performance.now() - started < 30_000);
  assert.deepEqual(
    [result.signal, result.exit_code, result.after, result.after_error?.code],
    ["SIGTERM", 143, null, "interrupted"],
  );
});

test("run cuts a very long command in the point's cause", async (t) => {
  const { client } = await testFolder(t);
  const { after } = await client.run(["true", ...Array.from({ length: 100 }, () => "x".repeat(1000))]);
  assert.equal(after?.cause["command_truncated"], true);
  assert.ok(JSON.stringify(after.cause).length < 40_000);
});

test("save refuses a cause without a kind and a cause that is too large", async (t) => {
  const { client } = await testFolder(t);
  await assert.rejects(client.save({ cause: {} as { kind: string } }), hasCode("usage"));
  await assert.rejects(client.save({ cause: { kind: "x", text: "y".repeat(70_000) } }), hasCode("usage"));
  const circular: { kind: string; self?: unknown } = { kind: "x" };
  circular.self = circular;
  await assert.rejects(client.save({ cause: circular }), hasCode("usage"));
});

test("run leaves no listener on the abort signal", async (t) => {
  const { client } = await testFolder(t);
  const { signal } = new AbortController();
  await client.run(["/nowhere/no-such-program"], { signal });
  await client.run(["true"], { signal });
  assert.equal(getEventListeners(signal, "abort").length, 0);
});
