import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { OperationList, RestorePlan, RestoreResult, Turn, TurnsResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH, startCairn } from "../fixtures/command.ts";

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

  content(name: string): string {
    return fs.readFileSync(path.join(this.folder, name), "utf8");
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

test("what `cairn agent` records of itself is no sign that the tool tells of its calls", () => {
  for (const event of ["InstallCheck", "Removal"]) {
    const project = new Project();
    project.hook("gemini", event, { session_id: "cairn", tool_name: "agent gemini" });
    project.hook("gemini", "BeforeAgent", { session_id: "s", prompt: "run" });
    project.write("b", "of the agent");
    project.hook("gemini", "AfterAgent", { session_id: "s" });
    const [turn] = project.turns().turns;
    assert.deepEqual([turn!.prompt, turn!.changed], ["run", 1], event);
  }
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
  const some = project.run("rewind", turn!.turn_id, "--path", "src").data as unknown as RestoreResult;
  assert.deepEqual([some.changes?.created, project.names()], [2, ["b", "c", "src/a"]]);
});

test("rewind takes back one session's changes and leaves those of another session and of the person", () => {
  const project = new Project();
  project.claudeTurn();
  project.geminiTurn("do b", "two");
  project.write("mine", "of the person");
  // The newest session has one turn: the way to the session before it is named.
  const [older] = project.turns("--session", "claude").turns;
  const tooFar = project.run("rewind", "2");
  assert.equal(tooFar.error!.code, "not_found");
  assert.match(tooFar.error!.hint!, new RegExp(`cairn .*rewind ${older!.turn_id}.* another session`));
  const back = project.run("rewind", "--session", "claude");
  assert.deepEqual([back.status, project.names()], [0, ["b", "mine", "src/a"]], back.stdout + back.stderr);
  assert.equal(project.content("b"), "two");
  assert.equal(project.run("undo").status, 0);
  assert.deepEqual(project.names(), ["b", "c", "mine"]);
  const all = project.run("rewind", "--session", "claude", "--over");
  assert.deepEqual([all.status, project.names(), project.content("b")], [0, ["b", "src/a"], "one"]);
});

test("rewind leaves the edits that a person saves and does not save after a turn", () => {
  const project = new Project();
  project.claudeTurn();
  for (let i = 0; i < 20; i++) project.write(`person/${i}`, "edited");
  for (let i = 0; i < 3; i++) {
    project.write(`saved/${i}`, "edited");
    cairnOk(["save", project.folder]);
  }
  project.write("b", "edited");
  const back = project.run("rewind");
  assert.equal(back.status, 0, back.stdout + back.stderr);
  assert.deepEqual(back.data["changes"], { created: 2, updated: 0, deleted: 1, metadata: 0 });
  assert.deepEqual([project.content("b"), project.names().length], ["edited", 25]);
  assert.equal(project.run("undo").status, 0);
  assert.deepEqual([project.names().includes("c"), project.names().length], [true, 25]);
});

test("rewind names an entry that somebody edited after the turn, and with --strict changes nothing", () => {
  const project = new Project();
  project.claudeTurn();
  project.write("c", "edited by the person");
  const strict = project.run("rewind", "--strict");
  assert.deepEqual([strict.status, strict.error!.code], [7, "refused"]);
  assert.match(strict.error!.message, /"c" \(changed since\)/);
  assert.deepEqual([project.names(), project.turns().turns[0]!.taken_back], [["b", "c"], false]);
  const back = project.run("rewind");
  assert.equal(back.status, 10);
  const left = back.data["left_out"] as RestoreResult["left_out"];
  assert.deepEqual(
    left.map(({ path: where, reason }) => [where, reason]),
    [["c", "changed_since"]],
  );
  assert.deepEqual([project.names(), project.content("c")], [["b", "c", "src/a"], "edited by the person"]);
});

test("a chmod after a turn survives the turn's rewind, and keeps a file that the turn made", () => {
  const project = new Project();
  project.claudeTurn();
  fs.chmodSync(path.join(project.folder, "c"), 0o700);
  fs.chmodSync(path.join(project.folder, "b"), 0o600);
  const back = project.run("rewind");
  assert.equal(back.status, 10);
  assert.deepEqual(project.names(), ["b", "c", "src/a"]);
  const modeOf = (name: string): number => fs.statSync(path.join(project.folder, name)).mode & 0o777;
  assert.deepEqual([modeOf("c"), modeOf("b")], [0o700, 0o600]);
});

test("what changed while two sessions had a call open stays, and is named", () => {
  const project = new Project();
  const [a, b] = ["a-session", "b-session"].map((session) => ({ session_id: session, prompt_id: "p" })) as [
    object,
    object,
  ];
  const callOf = (facts: object, id: string): object => ({ ...facts, tool_name: "Bash", tool_use_id: id });
  project.hook("claude-code", "UserPromptSubmit", { ...a, prompt: "work" });
  project.hook("claude-code", "PreToolUse", callOf(a, "1"));
  project.write("of-a", "new");
  // B begins, changes nothing and ends while the call of A is open.
  project.hook("claude-code", "UserPromptSubmit", { ...b, prompt: "look" });
  project.hook("claude-code", "Stop", b);
  project.write("of-a-too", "new");
  project.hook("claude-code", "PreToolUse", callOf(b, "2"));
  project.write("of-both", "new");
  project.hook("claude-code", "PostToolUse", callOf(b, "2"));
  project.hook("claude-code", "PostToolUse", callOf(a, "1"));
  const [ofB] = project.turns("--session", "b-session").turns;
  assert.deepEqual([ofB!.changed, ofB!.uncertain], [0, 1]);
  const back = project.run("rewind", "--session", "b-session");
  assert.equal(back.status, 10);
  assert.deepEqual(project.names(), ["b", "of-a", "of-a-too", "of-both", "src/a"]);
  assert.equal(project.run("rewind", "--session", "a-session").status, 10);
  assert.deepEqual(project.names(), ["b", "of-both", "src/a"]);
});

test("a rewind of some paths marks no turn as taken back", () => {
  const project = new Project();
  project.geminiTurn("first", "two");
  project.geminiTurn("second", "three");
  assert.equal(project.run("rewind", "1", "--path", "b").status, 0);
  assert.equal(project.content("b"), "two");
  assert.deepEqual(
    project.turns().turns.map(({ taken_back: isBack }) => isBack),
    [false, false],
  );
});

test("a turn that was taken back is marked, and the next rewind takes the turn before it", () => {
  const project = new Project();
  project.geminiTurn("first", "two");
  project.geminiTurn("second", "three");
  assert.equal(project.run("rewind").status, 0);
  assert.equal(project.content("b"), "two");
  const marks = (): boolean[] => project.turns().turns.map(({ taken_back: isBack }) => isBack);
  assert.deepEqual(marks(), [true, false]);
  const shown = spawnSync(process.execPath, [buildCommand(), "-C", project.folder, "turns"], { encoding: "utf8" });
  assert.equal(shown.stdout.match(/; taken back$/gm)?.length, 1, shown.stdout);
  assert.equal(project.run("rewind").status, 0);
  assert.deepEqual([project.content("b"), marks()], ["one", [true, true]]);
  assert.equal(project.run("rewind").error!.code, "not_found");
  assert.equal(project.run("undo").status, 0);
  assert.deepEqual([project.content("b"), marks()], ["two", [true, false]]);
  assert.equal(project.run("redo").status, 0);
  assert.deepEqual([project.content("b"), marks()], ["one", [true, true]]);
});

test("what a person does after an interrupted call stays, and is named", () => {
  const project = new Project();
  const call = { ...CLAUDE, tool_name: "Bash", tool_use_id: "1" };
  project.hook("claude-code", "UserPromptSubmit", { ...CLAUDE, prompt: "work" });
  project.hook("claude-code", "PreToolUse", call);
  project.write("of-agent", "new");
  // Esc: no hook tells of the end of the call.
  project.run("save");
  project.write("of-person", "new");
  project.run("save");
  project.write("b", "edited");
  const back = project.run("rewind");
  assert.equal(back.status, 10, back.stdout);
  assert.deepEqual([project.names(), project.content("b")], [["b", "of-agent", "of-person", "src/a"], "edited"]);
  const left = back.data["left_out"] as RestoreResult["left_out"];
  assert.deepEqual(left.map(({ path: where }) => where).toSorted(), ["b", "of-agent", "of-person"]);
  assert.match(left[0]!.detail, /a call, or after it, of which no end is known/);
  const [turn] = project.turns().turns;
  assert.deepEqual([turn!.changed, turn!.uncertain], [0, 3]);
  assert.equal(project.run("rewind", "--over").status, 0);
  assert.deepEqual([project.names(), project.content("b")], [["b", "src/a"], "one"]);
});

test("what a person restores while a turn runs stays, and is named", () => {
  const project = new Project();
  project.write("b", "two");
  cairnOk(["save", project.folder]);
  project.hook("gemini", "BeforeAgent", { session_id: "gemini-session", prompt: "work" });
  project.write("c", "of the agent");
  assert.equal(project.run("restore", "head~1", "b").status, 0);
  const back = project.run("rewind");
  assert.deepEqual([back.status, project.content("b"), project.names()], [10, "one", ["b", "c", "src/a"]]);
  const left = back.data["left_out"] as RestoreResult["left_out"];
  assert.deepEqual(
    left.map(({ path: where }) => where),
    ["b", "c"],
  );
});

test("a file that a turn made and a person removed meanwhile is as before the turn, and not named", () => {
  const project = new Project();
  project.hook("gemini", "BeforeAgent", { session_id: "gemini-session", prompt: "work" });
  project.write("c", "of the agent");
  assert.equal(project.run("restore", "head", "c").status, 0);
  const { status, data } = project.run("rewind", "--plan");
  assert.deepEqual([status, (data["plan"] as RestorePlan).entries], [0, []]);
  const back = project.run("rewind");
  assert.deepEqual([back.status, back.data["left_out"], project.names()], [0, [], ["b", "src/a"]]);
});

test("what a person changes while an agent answers without a tool call is the person's", () => {
  const project = new Project();
  const turn = { ...CLAUDE, prompt_id: "p0" };
  project.hook("claude-code", "UserPromptSubmit", { ...turn, prompt: "explain" });
  project.write("b", "of the person");
  project.hook("claude-code", "Stop", turn);
  project.claudeTurn();
  assert.deepEqual(
    project.turns().turns.map(({ changed }) => changed),
    [3, 0],
  );
  const back = project.run("rewind");
  assert.deepEqual([back.status, project.content("b"), project.names()], [0, "of the person", ["b", "src/a"]]);
  assert.match(project.run("rewind").error!.message, /no such turn: .*; 1 turn changed nothing/);
});

test("rewind of a turn leaves what changed before the turn, also if the turn began at an older point", () => {
  const project = new Project();
  const call = { ...CLAUDE, tool_name: "Bash", tool_use_id: "1" };
  project.write("b", "two");
  project.hook("claude-code", "UserPromptSubmit", { ...CLAUDE, prompt: "work" });
  project.hook("claude-code", "PreToolUse", call);
  project.write("c", "in an interrupted call");
  const { undo_id: undo } = cairnOk(["-C", project.folder, "restore", "head"]).data as { undo_id: string };
  const turn = { ...CLAUDE, prompt_id: "p2" };
  project.hook("claude-code", "UserPromptSubmit", { ...turn, prompt: "explain" });
  project.hook("claude-code", "Stop", turn);
  assert.equal(project.run("restore", undo).status, 0);
  assert.equal(project.run("rewind", project.turns().turns[0]!.turn_id).status, 0);
  assert.equal(project.content("c"), "in an interrupted call");
});

test("the state of a fork that comes home while a turn runs is no change of the turn", () => {
  const project = new Project();
  const fork = `${project.folder}-fork`;
  assert.equal(project.run("fork", "head", fork).status, 0);
  fs.writeFileSync(path.join(fork, "of-fork"), "new");
  project.write("mine", "of the person");
  project.hook("gemini", "BeforeAgent", { session_id: "gemini-session", prompt: "work" });
  assert.equal(project.run("adopt", fork, "--merge").status, 0);
  project.hook("gemini", "AfterAgent", { session_id: "gemini-session" });
  const [turn] = project.turns().turns;
  assert.deepEqual([turn!.changed, turn!.uncertain], [0, 1]);
  const back = project.run("rewind");
  const left = back.data["left_out"] as RestoreResult["left_out"];
  assert.deepEqual([back.status, left.map(({ path: where }) => where)], [10, ["of-fork"]]);
});

test("what changed in a running turn without tool events stays, and is named; --over takes it back", () => {
  const project = new Project();
  project.hook("gemini", "BeforeAgent", { session_id: "gemini-session", prompt: "run" });
  project.write("b", "of the agent");
  assert.equal(project.run("rewind").status, 10);
  assert.equal(project.content("b"), "of the agent");
  assert.equal(project.run("rewind", "--over").status, 0);
  assert.equal(project.content("b"), "one");
});

test("rewind goes to an older point that the folder equalled when a late hook saved", () => {
  const project = new Project();
  const facts = { agent: "codex", session: "s", turn: "t" };
  const hook = (event: string, more: object = {}): void => {
    const cause = JSON.stringify({ kind: "tool_call", ...facts, event, ...more });
    cairnOk(["save", project.folder, "--skip-unchanged", "--cause", cause]);
  };
  hook("UserPromptSubmit", { asked_at: new Date(Date.now() - 9000).toISOString() });
  hook("PreToolUse", { tool: "shell", call: "1" });
  project.write("b", "two");
  hook("PostToolUse", { tool: "shell", call: "1" });
  const [turn] = project.turns().turns;
  assert.notEqual(turn!.before, null);
  assert.equal(project.run("rewind").status, 0);
  assert.equal(project.content("b"), "one");
});

test("rewind of a turn without an exact state before it names the nearest earlier point", () => {
  const project = new Project();
  const cause = { kind: "tool_call", agent: "codex", event: "UserPromptSubmit", session: "s", turn: "t" };
  const late = JSON.stringify({ ...cause, asked_at: new Date().toISOString() });
  project.write("b", "changed before or during the turn");
  cairnOk(["save", project.folder, "--cause", late]);
  const [turn] = project.turns().turns;
  assert.equal(turn!.before, null);
  assert.match(turn!.why_not!, /no exact state before this turn/);
  const { status, error } = project.run("rewind");
  assert.deepEqual([status, error!.code], [3, "not_found"]);
  assert.match(error!.hint!, /cairn .*restore [0-9a-f]{8}/);
  for (const [words, code] of [
    [["rewind", "7"], "not_found"],
    [["rewind", "zzzz"], "not_found"],
    [["rewind", "ab"], "not_found"],
  ] as const)
    assert.equal(project.run(...words).error!.code, code, words.join(" "));
});

test("a turn whose first two hooks both saved late has no exact state before it, and its changes are unknown", () => {
  const project = new Project();
  const asked = new Date().toISOString();
  project.write("b", "changed by the turn before its first save");
  for (const more of [{ event: "UserPromptSubmit" }, { event: "PreToolUse", tool: "shell", call: "1" }]) {
    const cause = { kind: "tool_call", agent: "codex", session: "s", turn: "t", asked_at: asked, ...more };
    cairnOk(["save", project.folder, "--skip-unchanged", "--cause", JSON.stringify(cause)]);
  }
  const [turn] = project.turns().turns;
  assert.deepEqual([turn!.before, turn!.changed], [null, null]);
  assert.equal(project.run("rewind").error!.code, "not_found");
});

test("a restore that changes nothing is no operation, but a head that it moved goes back", () => {
  const project = new Project();
  project.write("b", "two");
  cairnOk(["save", project.folder]);
  const headOf = (): unknown => project.run("status").data["head"];
  const before = headOf();
  assert.equal(project.run("restore", "head~1", "b").status, 0);
  // The folder equals the older point, so this moves head alone.
  assert.equal(project.run("restore", "head~1").status, 0);
  assert.notEqual(headOf(), before);
  assert.equal(project.run("restore", "head").status, 0);
  const undone = project.run("undo");
  assert.deepEqual([undone.status, headOf(), project.content("b")], [0, before, "one"]);
  assert.equal(project.run("undo").status, 0);
  assert.deepEqual([headOf(), project.content("b")], [before, "two"]);
  assert.equal(project.run("undo").error!.code, "nothing_to_undo");
  for (let i = 0; i < 2; i++) assert.equal(project.run("redo").status, 0);
  assert.notEqual(headOf(), before);
});

test("undo of a rewind brings back a file that a person edited between the prompt and the first call", () => {
  const project = new Project();
  const call = { ...CLAUDE, tool_name: "Bash", tool_use_id: "1" };
  project.hook("claude-code", "UserPromptSubmit", { ...CLAUDE, prompt: "work" });
  project.write("b", "of the person");
  project.hook("claude-code", "PreToolUse", call);
  project.write("b", "of the agent");
  project.hook("claude-code", "PostToolUse", call);
  for (const [verb, wanted] of [
    ["rewind", "of the person"],
    ["undo", "of the agent"],
    ["redo", "of the person"],
  ] as const) {
    const done = project.run(verb);
    assert.deepEqual([done.status, project.content("b")], [0, wanted], done.stdout);
  }
});

test("undo of a rewind takes back what the rewind brought again of others' work between the calls", async () => {
  const project = new Project();
  const callOf = (id: string): object => ({ ...CLAUDE, tool_name: "Bash", tool_use_id: id });
  project.hook("claude-code", "UserPromptSubmit", { ...CLAUDE, prompt: "work" });
  project.hook("claude-code", "PreToolUse", callOf("1"));
  project.write("src/a", "of the agent");
  project.hook("claude-code", "PostToolUse", callOf("1"));
  project.write("b", "of the person");
  project.write("new", "of the person");
  cairnOk(["save", project.folder]);
  project.hook("claude-code", "PreToolUse", callOf("2"));
  project.write("b", "of the agent");
  fs.rmSync(path.join(project.folder, "new"));
  project.hook("claude-code", "PostToolUse", callOf("2"));
  project.hook("claude-code", "Stop", CLAUDE);
  const present = (): string[] => project.names().map((name) => `${name}: ${project.content(name)}`);
  const after = present();
  const back = ["b: of the person", "new: of the person", "src/a: one"];
  const hold = path.join(SCRATCH, "held-rewind");
  fs.writeFileSync(hold, "");
  const env = { CAIRN_FAILPOINT: `restore.swapped@${hold}` };
  const stopped = startCairn(["-C", project.folder, "rewind"], { env });
  await stopped.paused;
  assert.deepEqual(present(), back);
  stopped.child.kill("SIGINT");
  fs.rmSync(hold);
  const { error } = await stopped.ended;
  assert.match(error!.message, /the folder is as it was before$/);
  assert.deepEqual(present(), after);
  for (const [verb, wanted] of [
    ["rewind", back],
    ["undo", after],
    ["redo", back],
    ["undo", after],
  ] as const) {
    const done = project.run(verb);
    assert.deepEqual([done.status, present()], [0, wanted], `${verb}: ${done.stdout}${done.stderr}`);
  }
});
