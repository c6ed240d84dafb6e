import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { buildCommand } from "./fixtures/command.ts";

/** The examples of the documentation, as somebody would run them. */

// They name the package, which is this one as it was built.
buildCommand();

const EXAMPLES = path.resolve(import.meta.dirname, "../docs/examples");

interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

function scratch(t: TestContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), "cairn-examples-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function run(root: string, words: readonly string[], input = ""): Ran {
  const [name = "", ...rest] = words;
  const env = { ...process.env, XDG_STATE_HOME: path.join(root, "state") };
  const { status, stdout, stderr } = spawnSync(process.execPath, [path.join(EXAMPLES, name), ...rest], {
    env,
    input,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

test("the orchestrator example continues from its last point, even after a crash", (t) => {
  const root = scratch(t);
  const shared = path.join(root, "agent-7");
  const log = (): string[] =>
    readFileSync(path.join(shared, "main", "runs.log"), "utf8")
      .trimEnd()
      .split("\n");
  const first = run(root, ["orchestrator.ts", shared]);
  assert.deepEqual([first.status, first.stderr], [0, ""]);
  assert.match(first.stdout, /^a new workspace\nsaved [0-9a-f]{32}: 1 added, 0 modified\n$/);
  const second = run(root, ["orchestrator.ts", shared]);
  assert.match(
    second.stdout,
    /^at [0-9a-f]{32}: 0 created, 0 updated, 0 deleted\nsaved [0-9a-f]{32}: 0 added, 1 modified\n$/,
  );
  assert.equal(log().length, 2);
  assert.equal(run(root, ["orchestrator.ts", shared, "--crash"]).status, 1);
  assert.equal(log().length, 3);
  const after = run(root, ["orchestrator.ts", shared]);
  assert.match(after.stdout, /1 updated, 0 deleted\nwhat was there before: restore [0-9a-f]{32}\n/);
  assert.equal(log().length, 3);
  assert.ok(!log().includes("run after nothing", 1));
});

test("the agent hook example makes a point per turn, and its rollback keeps unsaved files in an undo point", (t) => {
  const root = scratch(t);
  const folder = path.join(root, "project");
  mkdirSync(folder);
  const file = path.join(folder, "work.txt");
  const hook = (event: object): Record<string, unknown> => {
    const { status, stdout, stderr } = run(root, ["agent-hook.ts", folder], JSON.stringify(event));
    assert.equal(stderr, "");
    const answer = JSON.parse(stdout) as Record<string, unknown>;
    assert.equal(status === 0, answer["ok"]);
    return answer;
  };
  const ids: string[] = [];
  for (let turn = 1; turn <= 3; turn++) {
    writeFileSync(file, `turn ${turn}\n`);
    const answer = hook({ event: "tool_result", session: "s1", turn, tool: "edit", input: { path: "work.txt" } });
    ids.push(String(answer["save_point_id"]));
  }
  const idle = hook({ event: "tool_result", session: "s1", turn: 4, tool: "think", input: null });
  assert.equal(idle["unchanged"], true);
  writeFileSync(file, "not saved\n");
  const back = hook({ event: "rollback", session: "s1", to: ids[0]!.slice(0, 12) });
  assert.equal(back["restored_to"], ids[0]);
  assert.equal(readFileSync(file, "utf8"), "turn 1\n");
  hook({ event: "rollback", session: "s1", to: String(back["undo_id"]) });
  assert.equal(readFileSync(file, "utf8"), "not saved\n");
  const missing = hook({ event: "rollback", session: "s1", to: "ffffffffffff" });
  assert.deepEqual([missing["ok"], missing["code"], missing["retryable"]], [false, "not_found", false]);
});
