import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { Turn, TurnsResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";

/** The record of agents' events: failed saves, sealed prompts, and their removal. */

const COMMAND = buildCommand();
const STATE = process.env["XDG_STATE_HOME"]!;
let count = 0;

class Project {
  readonly folder = path.join(SCRATCH, `recorded-${count++}`);
  readonly env: Record<string, string>;

  constructor(control?: string, env: Record<string, string> = {}) {
    this.env = env;
    fs.mkdirSync(this.folder);
    fs.writeFileSync(path.join(this.folder, "a"), "one");
    cairnOk(["init", this.folder, ...(control === undefined ? [] : ["--control-dir", control])]);
    cairnOk(["save", this.folder]);
  }

  get own(): string {
    const { control_directory: control } = this.run("status").data["workspace"] as { control_directory: string };
    return path.join(control, "workspaces", "main");
  }

  get control(): string {
    return path.dirname(path.dirname(this.own));
  }

  write(content: string | Buffer, name = "a"): void {
    fs.writeFileSync(path.join(this.folder, name), content);
  }

  hook(event: string, facts: object = {}, env: Record<string, string> = {}): string {
    const input = JSON.stringify({
      session_id: "s",
      prompt_id: "p",
      hook_event_name: event,
      cwd: this.folder,
      ...facts,
    });
    const options = { input, encoding: "utf8", env: { ...process.env, ...this.env, ...env } } as const;
    const done = spawnSync(process.execPath, [COMMAND, "agent", "hook", "claude-code", "--verbose"], options);
    return done.status === 0 ? done.stdout : `${done.signal} ${done.stderr}`;
  }

  run(...args: string[]): Outcome {
    return cairn(["-C", this.folder, ...args], { env: this.env });
  }

  turns(): Turn[] {
    const outcome = this.run("turns");
    assert.equal(outcome.status, 0, outcome.stderr);
    return (outcome.data as unknown as TurnsResult).turns;
  }

  lines(part = ""): string[] {
    const file = path.join(this.own, `agent-events.jsonl${part}`);
    const text = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : "";
    return text.split("\n").filter((line) => line !== "");
  }
}

/** Names the files below Cairn's directories that contain a text, also in zstd. */
function filesWith(text: string, ...more: string[]): string[] {
  const roots = [STATE, process.env["XDG_CACHE_HOME"]!, process.env["XDG_CONFIG_HOME"]!, ...more];
  const found = spawnSync(
    "grep",
    ["-rlF", text, ...roots.filter((root) => root !== undefined && fs.existsSync(root))],
    { encoding: "utf8" },
  );
  assert.ok(found.status === 0 || found.status === 1, found.stderr);
  return found.stdout.split("\n").filter((line) => line !== "");
}

function mounted(t: TestContext, size: string): string | null {
  const place = path.join(SCRATCH, `small-${count++}`);
  fs.mkdirSync(place);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "cairn-test", place]).status !== 0) {
    t.skip("needs the right to mount a tmpfs");
    return null;
  }
  t.after(() => spawnSync("umount", ["-l", place]));
  return place;
}

test("turns lists a turn whose saves failed on a full disk, with the reason, and what changed around them stays", (t) => {
  const disk = mounted(t, "4m");
  if (disk === null) return;
  const project = new Project(path.join(disk, "control"));
  project.hook("UserPromptSubmit", { prompt: "fill it" });
  const log = path.join(project.own, "agent-events.jsonl");
  // The last page of a file takes more bytes also on a full disk.
  fs.appendFileSync(log, "\n".repeat(4096 - (fs.statSync(log).size % 4096)));
  const filler = path.join(disk, "filler");
  for (const size of [8 << 20, 4096])
    assert.throws(() => {
      for (;;) fs.appendFileSync(filler, Buffer.alloc(size));
    }, /ENOSPC/);
  project.write(Buffer.alloc(1 << 20, Math.random().toString()), "large");
  const call = { tool_name: "Bash", tool_use_id: "c1", tool_input: { command: "make large" } };
  for (const event of ["PreToolUse", "PostToolUse", "Stop"]) project.hook(event, call);
  assert.deepEqual([project.lines().length, project.lines(".spare").length], [1, 3]);
  const [turn] = project.turns();
  assert.match(turn!.not_saved.join(), /free|space|room/i);
  assert.deepEqual(
    [turn!.tools, turn!.commands, turn!.changed, turn!.ended_at !== null],
    [1, ["make large"], null, true],
  );
  assert.match(cairn(["-C", project.folder, "turns"], { own: true }).stdout, /not_saved/);
  fs.rmSync(filler);
  project.hook("UserPromptSubmit", { prompt_id: "p2", prompt: "go on" });
  assert.deepEqual([project.lines().length, project.lines(".spare").length], [5, 0]);
  const [next, filled] = project.turns();
  assert.equal(next!.prompt, "go on");
  assert.deepEqual([filled!.prompt, filled!.after, filled!.not_saved.length], ["fill it", turn!.after, 1]);
  const back = project.run("rewind", filled!.turn_id);
  assert.ok(fs.existsSync(path.join(project.folder, "large")), back.stdout);
});

test("an event goes into the user's state directory if the control directory takes none", (t) => {
  const disk = mounted(t, "4m");
  if (disk === null) return;
  const project = new Project(path.join(disk, "control"));
  project.hook("UserPromptSubmit", { prompt: "first" });
  spawnSync("mount", ["-o", "remount,ro", disk]);
  project.write("two");
  project.hook("Stop");
  const elsewhere = path.join(STATE, "cairn/agents/events");
  const [name] = fs.readdirSync(elsewhere).filter((each) => each.endsWith(".jsonl"));
  assert.match(fs.readFileSync(path.join(elsewhere, name!), "utf8"), /"event":"Stop".*"failed":"/);
  spawnSync("mount", ["-o", "remount,rw", disk]);
  assert.equal(project.turns()[0]!.not_saved.length, 1);
  project.hook("UserPromptSubmit", { prompt_id: "p2" });
  assert.deepEqual(
    project
      .lines()
      .map((line) => (JSON.parse(line) as { event: string }).event)
      .toSorted(),
    ["Stop", "UserPromptSubmit", "UserPromptSubmit"],
  );
  assert.ok(!fs.existsSync(path.join(elsewhere, name!)));
});

test("a damaged store leaves an event with the reason, and one without text if its key cannot be read", () => {
  const project = new Project();
  project.hook("UserPromptSubmit", { prompt: "first" });
  const { control, log } = { control: project.control, log: path.join(project.own, "agent-events.jsonl") };
  const kept = path.join(control, "store", "config");
  const config = fs.readFileSync(kept);
  fs.chmodSync(kept, 0o600);
  fs.writeFileSync(kept, "damaged");
  const key = path.join(control, "store-key");
  const keys = fs.readFileSync(key);
  fs.writeFileSync(key, "{");
  project.write("two");
  project.hook("UserPromptSubmit", { prompt_id: "p2", prompt: "not to be read" });
  const text = fs.readFileSync(log, "utf8");
  const last = JSON.parse(text.trim().split("\n").at(-1)!) as Record<string, string>;
  assert.match(last["failed"]!, /store|config|key/);
  assert.match(last["no_text"]!, /key/);
  assert.doesNotMatch(text, /not to be read/);
  fs.writeFileSync(kept, config);
  fs.writeFileSync(key, keys);
  const [second, first] = project.turns();
  assert.deepEqual(
    [second!.prompt, second!.after, second!.changed, second!.before, first!.prompt],
    [null, null, null, null, "first"],
  );
  assert.match(second!.why_not!, /could not be saved, because/);
});

test("a prompt of 10 MB is listed, its first 64 KiB are kept, and no descriptor or answer has it", () => {
  const project = new Project();
  project.write("two");
  project.hook("UserPromptSubmit", { prompt: `Rotate \u{1F511} the keys\n${"x".repeat(10 << 20)}` });
  assert.equal(project.turns()[0]!.prompt, "Rotate \u{1F511} the keys");
  assert.ok(Buffer.byteLength(project.lines()[0]!) < 100_000);
  const points = JSON.stringify(project.run("history").data);
  assert.match(points, /"event":"UserPromptSubmit"/);
  assert.doesNotMatch(points, /Rotate/);
  assert.deepEqual(filesWith("Rotate", project.folder), []);
});

const SECRET = "sk-live-4f9a8b7c6d";

/** A workspace whose record has the secret in each part, and a descriptor of an earlier build that has it too. */
function withSecret(): Project {
  const project = new Project();
  const older = (text: string): string =>
    `${JSON.stringify({ at: "2026-11-01T00:00:00.000Z", agent: "codex", event: "UserPromptSubmit", session: "old", turn: text, tool: null, prompt: `${text} ${SECRET}`, command: null, save_point_id: "0".repeat(32), made: false, asked_at: null })}\n`;
  const log = path.join(project.own, "agent-events.jsonl");
  fs.writeFileSync(`${log}.1`, older("rotated"));
  fs.writeFileSync(log, older("plain"));
  project.write("two");
  project.hook("UserPromptSubmit", { prompt: `Use ${SECRET}\nplease` });
  project.hook("PreToolUse", { tool_name: "Bash", tool_use_id: "c1", tool_input: { command: `curl -H ${SECRET} x` } });
  project.write("three");
  project.hook("PostToolUse", { tool_name: "Bash", tool_use_id: "c1", tool_input: { command: `curl -H ${SECRET} x` } });
  project.hook("Stop", { prompt: "harmless" });
  const cause = {
    kind: "tool_call",
    agent: "codex",
    tool: "Bash",
    command: `deploy ${SECRET}`,
    prompt: `say ${SECRET}`,
  };
  project.write("four");
  cairnOk(["save", project.folder, "--cause", JSON.stringify(cause), "-m", `deploy with ${SECRET}`]);
  // The cache of texts has the message and the cause.
  assert.equal((project.run("history", "--grep", SECRET).data["save_points"] as unknown[]).length, 1);
  assert.ok(filesWith(SECRET).some((file) => file.includes("/texts-")));
  return project;
}

const purge = ["cleanup", "purge", "--text", SECRET.slice(0, 12)];

test("cleanup purge --text removes a secret from every part of the record and from causes, and turns stay", () => {
  const project = withSecret();
  const before = project.turns();
  assert.equal(before.length, 3);
  assert.ok(filesWith(SECRET).length >= 3);
  const planned = project.run(...purge, "--plan");
  assert.deepEqual([planned.data["event_count"], planned.data["cause_count"]], [5, 1]);
  assert.deepEqual(project.turns(), before);
  const done = project.run(...purge);
  assert.deepEqual([done.status, done.data["event_count"], done.data["cause_count"]], [0, 5, 1], done.stderr);
  assert.deepEqual(filesWith(SECRET), []);
  assert.doesNotMatch(
    JSON.stringify([project.run("history").data, project.turns(), project.run("agent", "status").data]),
    /sk-live/,
  );
  const ofRecord = ({ prompt: _prompt, commands: _commands, ...rest }: Turn): object => rest;
  assert.deepEqual(project.turns().map(ofRecord), before.map(ofRecord));
  assert.equal(project.turns()[0]!.prompt, "harmless");
  assert.equal(project.run("verify").status, 0);
  // The point after the turn is the person's: its change stays.
  assert.equal(project.run("rewind").status, 10);
  assert.deepEqual(
    [project.run(...purge).data["event_count"], project.run("cleanup", "purge", "--text", " ").error?.code],
    [0, "usage"],
  );
});

test("cleanup purge --text removes a secret from ids, names, members and tags, and names the records that keep it", () => {
  const project = new Project();
  const cause = { kind: "tool_call", tool: `sh ${SECRET}`, session: SECRET, call: SECRET, [SECRET]: { [SECRET]: 1 } };
  const save = (...args: string[]): void => {
    project.write(Math.random().toString());
    assert.equal(project.run("save", ...args).status, 0);
  };
  save("--cause", JSON.stringify(cause), "-t", SECRET);
  save("--id", `id-${SECRET}`, "--cause", JSON.stringify({ kind: "deploy", note: SECRET }));
  save("-t", "plain");
  assert.equal(project.run("tag", "head", `later-${SECRET}`).status, 0);
  const done = project.run(...purge);
  assert.deepEqual([done.status, done.data["cause_count"], done.data["complete"]], [0, 3, true], done.stderr);
  assert.deepEqual(filesWith(SECRET, project.control), []);
  assert.deepEqual([project.run("tag", "plain", "still-there").status, project.run("verify").status], [0, 0]);
  save("--cause", JSON.stringify({ kind: SECRET }));
  assert.equal(project.run("cleanup", "policy", "--keep-tag", SECRET).status, 0);
  const left = project.run(...purge);
  assert.deepEqual([left.status, left.data["complete"]], [10, false]);
  assert.match(left.warnings.join(), /policy\.json.*descriptor\.json|descriptor\.json.*policy\.json/);
  // Other tests look for the secret in all control directories.
  fs.rmSync(project.control, { recursive: true });
});

test("cleanup purge --path removes the prompts and commands that name the path", () => {
  const project = new Project();
  fs.mkdirSync(path.join(project.folder, "config"));
  project.write("TOKEN=1", "config/.env");
  // A file that is called as a tool and an id in the events.
  project.write("1", "Bash");
  project.hook("UserPromptSubmit", { prompt: "Read `./config/.env`, then stop" });
  project.hook("PreToolUse", {
    tool_name: "Bash",
    tool_use_id: "c",
    tool_input: { command: `cat ${project.folder}/config/.env` },
  });
  project.hook("PostToolUse", { tool_name: "Bash", tool_use_id: "c", tool_input: { command: "cat config/.envrc" } });
  const done = project.run("cleanup", "purge", "--path", ".env");
  assert.deepEqual([done.data["event_count"], done.data["point_count"]], [2, 1], done.stderr);
  const [turn] = project.turns();
  assert.deepEqual([turn!.prompt, turn!.commands, turn!.tools], [null, [], 1]);
  assert.equal(project.run("cleanup", "purge", "--path", "Bash", "--text", "claude-code").status, 0);
  assert.deepEqual([project.turns()[0]!.tools, project.lines().length], [1, 3]);
});

test("a kill at any step of a removal leaves whole records, and the same command removes the rest", () => {
  for (const failpoint of [
    "events.part-rewritten",
    "events.part-rewritten:2",
    "texts.withdrawn",
    "cause-rewritten",
    "durable-staged",
    "durable-staged:2",
  ]) {
    const project = withSecret();
    const turns = project.turns().length;
    const killed = cairn(["-C", project.folder, ...purge], { failpoint });
    assert.deepEqual(killed.failpoints, [failpoint.replace(/:.*/, "")]);
    assert.equal(project.turns().length, turns, failpoint);
    assert.equal(project.run(...purge).status, 0, failpoint);
    assert.deepEqual(filesWith(SECRET), [], failpoint);
  }
});

test("a kill at any step of the record's rotation and of moving events into it loses none and doubles none", () => {
  for (const failpoint of ["events.rotated", "events.appended", "events.spare-emptied", "events.brought-home"]) {
    const project = new Project();
    project.hook("UserPromptSubmit", { prompt: "first" });
    const log = path.join(project.own, "agent-events.jsonl");
    const lineOf = (call: string): string =>
      `${JSON.stringify({ ...(JSON.parse(project.lines()[0]!) as object), call })}\n`;
    const spare = fs.readFileSync(`${log}.spare`, "utf8");
    fs.writeFileSync(`${log}.spare`, `${lineOf("spare")}${spare}`.slice(0, spare.length));
    const id = (JSON.parse(fs.readFileSync(path.join(project.own, "workspace.json"), "utf8")) as { id: string }).id;
    const elsewhere = path.join(STATE, "cairn/agents/events", `${id}.jsonl`);
    fs.mkdirSync(path.dirname(elsewhere), { recursive: true });
    fs.writeFileSync(elsewhere, lineOf("elsewhere"));
    fs.appendFileSync(log, "\n".repeat(4 << 20));
    assert.match(project.hook("Stop", {}, { CAIRN_FAILPOINT: failpoint }), /SIGKILL/, failpoint);
    project.hook("Stop");
    const events = [...project.lines(".1"), ...project.lines()].map(
      (line) => JSON.parse(line) as Record<string, string>,
    );
    const calls = new Set(events.map(({ call, event }) => call ?? event));
    assert.deepEqual([...calls].toSorted(), ["Stop", "UserPromptSubmit", "elsewhere", "spare"], failpoint);
    assert.equal(project.turns().length, 1);
    assert.deepEqual([project.lines(".spare").length, fs.existsSync(elsewhere)], [0, false], failpoint);
  }
});
