import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { OperationList, RestoreResult, Turn, TurnsResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";

/** Turns of agents from their hooks' events, and the way back to before a turn. */

const CLAUDE = { session_id: "claude-session", prompt_id: "p1" };
let count = 0;

class Project {
  readonly folder = path.join(SCRATCH, `turns-${count++}`);

  constructor() {
    this.write("src/a", "one");
    this.write("b", "one");
    cairnOk(["save", this.folder]);
  }

  write(name: string, content: string): void {
    fs.mkdirSync(path.dirname(path.join(this.folder, name)), { recursive: true });
    fs.writeFileSync(path.join(this.folder, name), content);
  }

  names(): string[] {
    const names = fs.readdirSync(this.folder, { recursive: true, encoding: "utf8" });
    return names.filter((name) => fs.statSync(path.join(this.folder, name)).isFile()).toSorted();
  }

  hook(tool: string, event: string, facts: object = {}): void {
    const input = JSON.stringify({ hook_event_name: event, cwd: this.folder, ...facts });
    const done = spawnSync(process.execPath, [buildCommand(), "agent", "hook", tool, "--verbose"], { input });
    assert.equal(done.status, 0, done.stderr.toString());
  }

  run(...args: string[]): Outcome {
    return cairn(["-C", this.folder, ...args]);
  }

  turns(...args: string[]): TurnsResult {
    return cairnOk(["-C", this.folder, "turns", ...args]).data as unknown as TurnsResult;
  }

  /** A turn of Claude Code in which a shell command removes `src` and makes `c`. */
  claudeTurn(): void {
    const call = { ...CLAUDE, tool_name: "Bash", tool_input: { command: "rm -rf src\ntouch c" } };
    this.hook("claude-code", "UserPromptSubmit", { ...CLAUDE, prompt: "\nRefactor it\nplease" });
    this.hook("claude-code", "PreToolUse", call);
    fs.rmSync(path.join(this.folder, "src"), { recursive: true });
    this.write("c", "new");
    this.hook("claude-code", "PostToolUse", call);
    this.hook("claude-code", "Stop", CLAUDE);
  }

  /** A turn of Gemini CLI, which has no turn ids. */
  geminiTurn(prompt: string, content: string): void {
    const facts = { session_id: "gemini-session", prompt };
    this.hook("gemini", "BeforeAgent", facts);
    this.write("b", content);
    this.hook("gemini", "AfterAgent", facts);
  }
}

test("turns lists the prompt, the shell commands, the changed paths and the session of each turn", () => {
  const project = new Project();
  project.claudeTurn();
  project.geminiTurn("do b", "two");
  project.geminiTurn("do nothing", "two");
  const { turns, sessions, more } = project.turns();
  const shown = turns.map(({ agent, prompt, commands, paths, changed, ended_at: at }: Turn) => ({
    agent,
    prompt,
    commands,
    changed,
    paths: paths.map(({ path: name }) => name),
    isEnded: at !== null,
  }));
  const gemini = { agent: "gemini", commands: [], isEnded: true };
  assert.deepEqual(shown, [
    // The same content was written again.
    { ...gemini, prompt: "do nothing", changed: 1, paths: ["b"] },
    { ...gemini, prompt: "do b", changed: 1, paths: ["b"] },
    {
      agent: "claude-code",
      prompt: "Refactor it",
      commands: ["rm -rf src"],
      changed: 3,
      isEnded: true,
      paths: ["c", "src", "src/a"],
    },
  ]);
  assert.deepEqual(
    [sessions.map(({ session, turns: own }) => [session, own]), more],
    [
      [
        ["gemini-session", 2],
        ["claude-session", 1],
      ],
      0,
    ],
  );
  assert.deepEqual(project.turns("--session", "claude", "-n", "5").turns, turns.slice(2));
});

test("rewind restores what tools and shell commands changed, as one operation that undo reverts", () => {
  const project = new Project();
  project.claudeTurn();
  const [turn] = project.turns().turns;
  const { data } = project.run("rewind");
  assert.deepEqual([data["restored_to"], project.names()], [turn!.before, ["b", "src/a"]]);
  const { operations } = project.run("operations").data as unknown as OperationList;
  assert.deepEqual(
    operations.map(({ kind }) => kind),
    ["rewind"],
  );
  assert.equal(project.run("undo").status, 0);
  assert.deepEqual(project.names(), ["b", "c"]);
  const some = project.run("rewind", turn!.turn_id, "--only", "src").data as unknown as RestoreResult;
  assert.deepEqual([some.changes?.created, project.names()], [2, ["b", "c", "src/a"]]);
});

test("rewind refuses to revert changes of another session, and reverts them with --over", () => {
  const project = new Project();
  project.claudeTurn();
  project.geminiTurn("do b", "two");
  const refused = project.run("rewind", "2");
  assert.deepEqual([refused.status, refused.error!.code], [7, "refused"]);
  assert.match(refused.error!.message, /gemini gemini-s: "b"/);
  assert.deepEqual(project.names(), ["b", "c"], "nothing was changed");
  // Not what lies elsewhere.
  assert.equal(project.run("rewind", "--session", "claude", "--only", "src").status, 0);
  assert.deepEqual(project.names(), ["b", "c", "src/a"]);
  assert.equal(project.run("rewind", "2", "--over").status, 0);
  assert.deepEqual(project.names(), ["b", "src/a"]);
  assert.equal(fs.readFileSync(path.join(project.folder, "b"), "utf8"), "one");
});

test("rewind is refused for a turn whose first point was saved after its hook had returned", () => {
  const project = new Project();
  const cause = { kind: "tool_call", agent: "codex", event: "UserPromptSubmit", session: "s", turn: "t" };
  const late = JSON.stringify({ ...cause, asked_at: new Date(Date.now() - 9000).toISOString() });
  cairnOk(["save", project.folder, "--cause", late]);
  const [turn] = project.turns().turns;
  assert.equal(turn!.before, null);
  assert.match(turn!.why_not!, /after the hook had returned/);
  assert.deepEqual([project.run("rewind").status, project.run("rewind").error!.code], [3, "not_found"]);
  for (const [words, code] of [
    [["rewind", "7"], "not_found"],
    [["rewind", "zzzz"], "not_found"],
    [["rewind", "ab"], "not_found"],
  ] as const)
    assert.equal(project.run(...words).error!.code, code, words.join(" "));
});
