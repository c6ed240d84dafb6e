import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { parse } from "smol-toml";
import { open } from "../../src/index.ts";
import { findWorkspace } from "../../src/workspace/place/find-workspace.ts";
import { readAgentEvents } from "../../src/workspace/points/agent-record.ts";
import { hooksIn } from "../../src/workspace/points/failed-hooks.ts";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

/** Which folders the hooks of an agent save: covered folders, their families, and what `agent install` writes for whom. */

const COMMAND = fs.realpathSync(buildCommand());
const STATE = path.join(process.env["XDG_STATE_HOME"]!, "cairn");
const HOME = process.env["HOME"]!;
fs.mkdirSync(HOME, { recursive: true });
let count = 0;

// oxlint-disable-next-line typescript/no-explicit-any -- printed data is looked at as it is
type Loose = Record<string, any>;
type Environment = Record<string, string>;

const scratch = (name: string): string => path.join(SCRATCH, `${name}-${count++}`);

function git(folder: string, ...words: string[]): string {
  const who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "protocol.file.allow=always"];
  const done = spawnSync("git", ["-C", folder, ...who, ...words], { encoding: "utf8" });
  assert.equal(done.status, 0, done.stderr);
  return done.stdout;
}

function write(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
}

/** A git repository with one commit of these files. */
function newRepository(files: Readonly<Record<string, string>> = {}, ...how: string[]): string {
  const folder = scratch("repository");
  fs.mkdirSync(folder);
  git(folder, "init", "--quiet", ...how);
  write(folder, { "a.txt": `${folder}\n`, "sub/b.txt": "b\n", ...files });
  git(folder, "add", "--all");
  git(folder, "commit", "--quiet", "-m", "first");
  return folder;
}

const agent = (folder: string, words: string, env: Environment = {}): Loose =>
  cairnOk(["agent", ...words.split(" "), "-C", folder], { own: true, env });

/** Runs the hook of a tool as its entry in the user's settings does. */
function hook(folder: string, more: object = {}, env: Environment = {}, words = ["--if-covered", "--verbose"]) {
  const facts = { session_id: "s", hook_event_name: "PreToolUse", tool_name: "Bash", tool_use_id: `c${count++}` };
  const done = spawnSync(process.execPath, [COMMAND, "agent", "hook", env["TOOL"] ?? "claude-code", ...words], {
    input: JSON.stringify({ ...facts, cwd: folder, ...more }),
    encoding: "utf8",
    cwd: "/",
    env: { ...process.env, ...env },
  });
  assert.equal(done.status, 0);
  return done.stdout + done.stderr;
}

const eventsOf = (folder: string): Loose[] =>
  fs
    .readFileSync(path.join(controlOf(folder), "agent-events.jsonl"), "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Loose);

function controlOf(folder: string): string {
  const { control_directory: control, name } = cairnOk(["status", "-C", folder]).data["workspace"] as Loose;
  return path.join(control as string, "workspaces", name as string);
}

/** A busy machine leaves a save to the background process. */
const SAVES = /^(?:saved as|saving in the background|no point was made: nothing had changed)/;
const NOT_COVERED = /^no point was made: the folder is not covered/;

/** src/agents/covered.test.ts has repositories of other shapes. */
const SHAPES: Readonly<Record<string, () => string>> = {
  "settings of Claude Code": () => newRepository({ ".claude/settings.json": `{ "model": "x" }\n` }),
  "ignored settings": () => newRepository({ ".gitignore": ".claude/\n.mcp.json\n" }),
  "no commit": () => {
    const folder = scratch("empty");
    fs.mkdirSync(folder);
    git(folder, "init", "--quiet");
    return folder;
  },
  "worktree of a bare repository": () => {
    const [bare, folder] = [scratch("bare"), scratch("worktree")];
    git("/", "clone", "--quiet", "--bare", newRepository(), bare);
    git(bare, "worktree", "add", "--quiet", folder);
    return folder;
  },
  submodule: () => {
    const folder = newRepository();
    git(folder, "submodule", "--quiet", "add", newRepository(), "module");
    git(folder, "commit", "--quiet", "-m", "module");
    return path.join(folder, "module");
  },
};

test("agent install leaves git status clean in repositories of many shapes, and its hook saves them", () => {
  const tools = ["claude-code", "codex", "gemini", "opencode"];
  for (const [i, [shape, make]] of Object.entries(SHAPES).entries()) {
    const [folder, tool] = [make(), tools[i % tools.length]!];
    const before = git(folder, "status", "--porcelain", "--ignored");
    agent(folder, `install ${tool} --each turn`);
    assert.equal(git(folder, "status", "--porcelain", "--ignored"), before, shape);
    assert.match(hook(folder, { hook_event_name: "Stop", session_id: shape }, { TOOL: tool }), SAVES, shape);
    agent(folder, `remove ${tool}`);
    assert.match(hook(folder, {}, { TOOL: tool }), NOT_COVERED, shape);
  }
  assert.deepEqual(JSON.parse(fs.readFileSync(path.join(STATE, "agents/covered.json"), "utf8")).covers, []);
});

test("a subfolder belongs to the workspace above, for install, hook and MCP server", () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  const { data } = agent(path.join(folder, "sub"), "install claude-code");
  assert.equal(data["folder"], folder);
  write(folder, { "sub/new.txt": "new\n" });
  assert.match(hook(path.join(folder, "sub")), SAVES);
  assert.match(hook(path.join(folder, "sub/gone/deep")), SAVES, "a folder that was removed");
  const call = { jsonrpc: "2.0", id: 2, method: "tools/call", params: { name: "status", arguments: {} } };
  const [, answer] = serve(path.join(folder, "sub"), ["mcp", "--if-covered", "claude-code"], call);
  assert.equal(answer!["result"].structuredContent.workspace.path, folder);
  const none = serve(SCRATCH, ["mcp", "--if-covered", "claude-code"], { jsonrpc: "2.0", id: 2, method: "tools/list" });
  assert.deepEqual(none[1]!["result"], { tools: [] }, "no tools in a folder that is not covered");
});

/** Answers of an MCP server to `initialize` and another request. */
function serve(cwd: string, words: readonly string[], request: object, program = [process.execPath, COMMAND]): Loose[] {
  const clientInfo = { name: "test", version: "1" };
  const params = { protocolVersion: "2025-06-18", capabilities: {}, clientInfo };
  const lines = [{ method: "initialize", params, jsonrpc: "2.0", id: 0 }, request];
  const done = spawnSync(program[0]!, [...program.slice(1), ...words], {
    cwd,
    input: lines.map((line) => `${JSON.stringify(line)}\n`).join(""),
    encoding: "utf8",
  });
  return done.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Loose);
}

test("another worktree of a covered repository becomes a workspace at its first hook, unless it was released or refused", async () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  const [first, second] = [scratch("worktree"), scratch("worktree")];
  for (const each of [first, second]) git(folder, "worktree", "add", "--quiet", "--detach", each);
  assert.equal(cairn(["status", "-C", first]).error?.code, "not_a_workspace");
  assert.match(hook(path.join(first, "sub")), SAVES);
  await becomesWorkspace(first);
  cairnOk(["release", first]);
  assert.match(hook(first), /not a workspace/);
  agent(second, "remove claude-code");
  assert.match(hook(second), NOT_COVERED);
  agent(second, "install claude-code");
  assert.match(hook(second), SAVES);
  const part = newRepository();
  agent(path.join(part, "sub"), "install claude-code");
  const third = scratch("worktree");
  git(part, "worktree", "add", "--quiet", "--detach", third);
  assert.match(hook(third), NOT_COVERED, "only the folder sub is covered");
  assert.match(hook(path.join(third, "sub")), SAVES);
  await becomesWorkspace(path.join(third, "sub"));
});

const becomesWorkspace = (folder: string): Promise<unknown> =>
  eventually(`${folder} is a workspace`, () => {
    const { error, data } = cairn(["status", "-C", folder]);
    return error === null && (data["workspace"] as Loose)["path"] === folder;
  });

test("a clone of a covered repository is not covered until the person says so, and is noted once", async () => {
  const { uncoveredClones } = await import("../../src/agents/clones.ts");
  const folder = newRepository();
  agent(folder, "install claude-code");
  const [clone, other] = [scratch("clone"), newRepository()];
  git("/", "clone", "--quiet", folder, clone);
  for (const each of [clone, path.join(clone, "sub"), other]) assert.match(hook(each), NOT_COVERED);
  const noted = fs.readFileSync(path.join(STATE, "agents/uncovered.jsonl"), "utf8").trim().split("\n");
  assert.deepEqual(
    noted.map((line) => (JSON.parse(line) as Loose)["top"]).filter((top) => [clone, other].includes(top as string)),
    [clone, other],
  );
  const clones = async (): Promise<object[]> =>
    (await uncoveredClones(process.env)).map((each) => ({ tool: each.tool, folder: each.folder, of: each.of }));
  const question = { tool: "claude-code", folder: clone, of: folder };
  assert.deepEqual(await clones(), [question]);
  const asked = (...more: string[]): string =>
    spawnSync(process.execPath, [COMMAND, "-C", folder, "agent", "status", ...more], { encoding: "utf8" }).stdout;
  const named = `${clone} is not covered`;
  assert.match(asked(), new RegExp(`${named}.* agent remove claude-code. ends this question`));
  assert.ok(!asked().includes(clone), "the person is asked once");
  assert.ok(asked("--all").includes(named));
  assert.deepEqual(await clones(), [question]);
  agent(clone, "remove claude-code");
  assert.deepEqual(await clones(), []);
  assert.match(hook(clone), NOT_COVERED);
  agent(clone, "install claude-code");
  assert.match(hook(clone), SAVES);
  const home = scratch("home");
  fs.mkdirSync(home);
  const env = { HOME: home, XDG_STATE_HOME: path.join(home, "state") };
  assert.match(hook(folder, {}, env), NOT_COVERED, "another user has another list");
});

test("a clone of a repository that was covered before its first commit is named", async () => {
  const { uncoveredClones } = await import("../../src/agents/clones.ts");
  const [folder, clone] = [scratch("early"), scratch("clone")];
  write(folder, { "a.txt": "one\n" });
  git(folder, "init", "--quiet");
  agent(folder, "install claude-code");
  git(folder, "add", "a.txt");
  git(folder, "commit", "--quiet", "-m", `first of ${folder}`);
  git("/", "clone", "--quiet", folder, clone);
  assert.match(hook(clone), NOT_COVERED);
  const clones = await uncoveredClones(process.env);
  assert.equal(clones.find((each) => each.folder === clone)?.of, folder);
});

test("a moved folder and a fork stay covered", async () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  const [fork, byProgram] = [scratch("fork"), scratch("fork")];
  cairnOk(["fork", "head", fork, "-C", folder], { own: true });
  write(fork, { "a.txt": "in the fork\n" });
  assert.match(hook(fork), SAVES);
  await using client = await open(folder);
  await client.fork("head", byProgram);
  write(byProgram, { "a.txt": "in the fork of a program\n" });
  assert.match(hook(byProgram), SAVES);
  const moved = scratch("moved");
  fs.renameSync(folder, moved);
  assert.doesNotMatch(hook(moved), NOT_COVERED);
  cairnOk(["relocate", folder, moved], { own: true });
  write(moved, { "a.txt": "after the move\n" });
  assert.match(hook(moved), SAVES);
  const listed = (): string[] =>
    (JSON.parse(fs.readFileSync(path.join(STATE, "agents/covered.json"), "utf8")) as { covers: Loose[] }).covers.map(
      (each) => each["folder"].path as string,
    );
  const paths = listed();
  assert.deepEqual([paths.includes(folder), paths.includes(moved), paths.includes(fork)], [false, true, true]);
  cairnOk(["fork", "--remove", fork, "-C", moved], { own: true });
  assert.ok(!listed().includes(fork));
});

test("a hook outside of covered folders ends before the command is loaded; a damaged list covers every workspace", () => {
  const [folder, other] = [newRepository(), newRepository()];
  agent(folder, "install claude-code");
  cairnOk(["save", other]);
  // Without its other files the command can do nothing else.
  const bare = scratch("dist");
  fs.mkdirSync(bare);
  fs.copyFileSync(COMMAND, path.join(bare, "cli.js"));
  fs.writeFileSync(path.join(bare, "package.json"), `{ "type": "module" }`);
  const run = (cwd: string, input = JSON.stringify({ cwd, hook_event_name: "Stop" })): string =>
    spawnSync(process.execPath, [path.join(bare, "cli.js"), "agent", "hook", "claude-code", "--if-covered"], {
      input,
    }).stderr.toString();
  assert.equal(run(other), "");
  assert.equal(run("/nowhere"), "");
  assert.match(run(folder), /Cannot find module .*main-\w+\.js/);
  const file = path.join(STATE, "agents/covered.json");
  const list = fs.readFileSync(file, "utf8");
  for (const damaged of ["", "{", `{ "version": 2, "covers": [] }`]) {
    fs.writeFileSync(file, damaged);
    assert.match(hook(other), SAVES);
    assert.equal(cairn(["agent", "install", "codex", "-C", other]).error?.code, "damaged");
  }
  fs.writeFileSync(file, list);
  assert.match(hook(other), NOT_COVERED);
  agent(other, "install claude-code --each turn");
  assert.match(hook(other), NOT_COVERED);
  assert.match(hook(other, { hook_event_name: "Stop" }), SAVES);
  const large = "x".repeat(10 << 20);
  assert.match(hook(folder, { hook_event_name: "UserPromptSubmit", prompt: large }), SAVES);
});

test("one event with two hooks is saved once, and by the second hook if the first was killed", async () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  const events = (call: string): number => eventsOf(folder).filter((each) => each["call"] === call).length;
  const start = (call: string, env: Environment = {}) => {
    write(folder, { "a.txt": `${call}\n` });
    const child = spawn(process.execPath, [COMMAND, "agent", "hook", "claude-code", "--verbose"], {
      env: { ...process.env, ...env },
    });
    let said = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
    const facts = { session_id: "d", hook_event_name: "PostToolUse", tool_name: "Bash", tool_use_id: call };
    child.stdin.end(JSON.stringify({ ...facts, cwd: folder }));
    return { child, ended: once(child, "close").then(() => said) };
  };
  const saved = async (call: string): Promise<unknown> => eventually(call, () => events(call) > 0 && isIdle(folder));
  const both = await Promise.all([start("both").ended, start("both").ended]);
  await saved("both");
  assert.equal(events("both"), 1, both.join());
  const gate = path.join(SCRATCH, "gate");
  fs.writeFileSync(gate, "");
  const first = start("killed", { CAIRN_FAILPOINT: `save.staged@${gate}` });
  first.child.stderr.once("data", () => first.child.kill("SIGKILL"));
  await first.ended;
  fs.rmSync(gate);
  for (let again = 0; again < 2; again++) {
    await start("killed").ended;
    await saved("killed");
    assert.equal(events("killed"), 1);
  }
  for (const [event, prompt] of [
    ["UserPromptSubmit", "go on"],
    ["UserPromptSubmit", "go on"],
    ["Stop"],
    ["Stop"],
    ["UserPromptSubmit", "go on"],
  ]) {
    hook(folder, { session_id: "t", hook_event_name: event, tool_use_id: undefined, tool_name: undefined, prompt });
    await eventually("no save waits", () => isIdle(folder));
  }
  const turns = eventsOf(folder).filter((each) => each["session"] === "t");
  assert.deepEqual(
    turns.map((each) => each["event"] as string),
    ["UserPromptSubmit", "Stop", "UserPromptSubmit"],
    "the same words in the next turn are another event",
  );
});

/** True if no save of a hook waits for the background process. */
function isIdle(folder: string): boolean {
  const late = path.join(STATE, "agents/late", createHash("sha256").update(folder).digest("hex"));
  const { background } = (cairnOk(["agent", "status", "-C", folder]).data["folders"] as Loose[])[0]!;
  return (
    background?.running !== true && !["queue.jsonl", "taken.jsonl"].some((name) => fs.existsSync(path.join(late, name)))
  );
}

test("--for everybody writes nothing of this machine, and is silent without cairn", () => {
  const bin = scratch("bin");
  write(bin, { cairn: `#!/bin/sh\nexec '${process.execPath}' '${COMMAND}' "$@"\n` });
  fs.chmodSync(path.join(bin, "cairn"), 0o755);
  const home = scratch("home");
  fs.mkdirSync(home);
  fs.rmSync(path.join(STATE, "agents/covered.json"));
  const env = { PATH: `${bin}:${process.env["PATH"]}`, HOME: home };
  for (const tool of ["claude-code", "codex", "gemini", "opencode"]) {
    const folder = newRepository();
    const { data } = agent(folder, `install ${tool} --for everybody`, env);
    assert.deepEqual([data["checked"], data["problem"]], [true, null]);
    const files = (data["files"] as Loose[]).filter(({ text }) => text !== "");
    for (const { path: file, text } of files) {
      assert.ok((file as string).startsWith(`${folder}/`));
      assert.doesNotMatch(text as string, /\/home|\/tmp|\/usr|XDG_|CAIRN_|dist/, file as string);
    }
    assert.deepEqual(hookFiles(tool, home), [], "nothing in the user's settings");
    // A teammate without Cairn.
    const text = files[0]!["text"] as string;
    const config = (tool === "codex" ? parse(text) : JSON.parse(text)) as Loose;
    const { args, command } = (config["mcpServers"] ?? config["mcp_servers"] ?? config["mcp"]).cairn as Loose;
    const words = (args ?? command.slice(1)) as string[];
    const list = { jsonrpc: "2.0", id: 1, method: "tools/list" };
    const answers = serve(folder, words, list, ["/bin/sh"]);
    assert.deepEqual([answers[0]!["result"].serverInfo.name, answers[1]!["result"]], ["cairn", { tools: [] }]);
    agent(folder, `install ${tool}`, env);
    assert.equal(agent(folder, `remove ${tool} --for everybody`, env)["data"].for, "everybody");
    assert.equal(git(folder, "status", "--porcelain"), "");
    assert.notDeepEqual(hookFiles(tool, home), []);
    agent(folder, `remove ${tool}`, env);
    assert.deepEqual(hookFiles(tool, home), []);
  }
});

/** Files of a tool below a home that have hooks of Cairn. */
const hookFiles = (tool: string, home: string): string[] =>
  fs
    .globSync(
      ["**/*.json", "**/cairn.js"].flatMap((name) => [
        `.claude/${name}`,
        `.codex/${name}`,
        `.gemini/${name}`,
        `.config/opencode/${name}`,
      ]),
      { cwd: home },
    )
    .filter(
      (name) =>
        fs.readFileSync(path.join(home, name), "utf8").includes(`agent hook ${tool}`) || name.endsWith("cairn.js"),
    );

test("agent install takes over what earlier builds wrote, in a project and for all projects", () => {
  const [folder, home] = [newRepository({ ".mcp.json": "{}" }), scratch("home")];
  const state = path.join(home, "state");
  const line = `env XDG_STATE_HOME=${state} ${process.execPath} ${COMMAND} agent hook claude-code`;
  const old = JSON.stringify({ hooks: { Stop: [{ hooks: [{ type: "command", command: line, timeout: 30 }] }] } });
  const servers = JSON.stringify({ mcpServers: { cairn: { type: "stdio", command: COMMAND, args: ["mcp"] } } });
  write(folder, { ".claude/settings.json": old, ".mcp.json": servers });
  const digest = (text: string): string => createHash("sha256").update(text).digest("hex");
  const keep = (file: string, before: string | null, after: string, made: string | null): void =>
    write(path.join(state, "cairn/agents"), {
      [`${digest(file)}.json`]: JSON.stringify({ before, after: digest(after), made }),
    });
  keep(path.join(folder, ".claude/settings.json"), null, old, path.join(folder, ".claude"));
  keep(path.join(folder, ".mcp.json"), "{}", servers, null);
  const env = { HOME: home, XDG_STATE_HOME: state };
  cairnOk(["save", folder], { env });
  const saved = (words: string[], where = folder): string => hook(where, {}, env, [...words, "--verbose"]);
  assert.match(saved([]), SAVES, "the old entry saves until install runs again");
  agent(folder, "install claude-code", env);
  assert.equal(git(folder, "status", "--porcelain"), "");
  assert.ok(!fs.existsSync(path.join(folder, ".claude")));
  assert.match(saved(["--if-covered"]), SAVES);
  agent(folder, "remove claude-code", env);
  assert.deepEqual(
    fs.readdirSync(home).filter((name) => name.startsWith(".claude")),
    [],
  );

  write(home, { ".claude/settings.json": old });
  const other = newRepository();
  cairnOk(["save", other], { env });
  agent(folder, "install claude-code", env);
  assert.match(saved(["--if-covered"], other), SAVES, "all workspaces stay covered");
  agent(folder, "remove claude-code", env);
  assert.match(saved(["--if-covered"], other), SAVES);
  agent(folder, "remove claude-code --for all-mine", env);
  assert.match(saved(["--if-covered"], other), NOT_COVERED);
  assert.deepEqual(hookFiles("claude-code", home), []);
});

test("entries of the user run without PATH and HOME, and stay as long as they serve another folder", async () => {
  const [one, two, home] = [newRepository(), newRepository(), scratch("home")];
  fs.mkdirSync(home);
  fs.rmSync(path.join(STATE, "agents/covered.json"));
  for (const folder of [one, two]) agent(folder, "install claude-code", { HOME: home });
  const settings = path.join(home, ".claude/settings.json");
  const { hooks } = JSON.parse(fs.readFileSync(settings, "utf8")) as Loose;
  assert.equal(hooks.Stop.length, 1, "one entry serves both folders");
  for (const env of [{}, { PATH: "" }, { HOME: home, PATH: "/nowhere" }] as NodeJS.ProcessEnv[]) {
    write(two, { "a.txt": JSON.stringify(env) });
    const facts = { session_id: "bare", hook_event_name: "PostToolUse", tool_name: "Bash", tool_use_id: `b${count++}` };
    const done = spawnSync("/bin/sh", ["-c", hooks.PostToolUse[0].hooks[0].command as string], {
      input: JSON.stringify({ ...facts, cwd: two }),
      encoding: "utf8",
      cwd: "/",
      env,
    });
    assert.deepEqual([done.status, done.stdout, done.stderr], [0, "", ""]);
    await eventually("the event", () => eventsOf(two).at(-1)!["call"] === facts.tool_use_id && isIdle(two));
  }
  agent(one, "remove claude-code", { HOME: home });
  assert.ok(fs.existsSync(settings));
  assert.match(hook(two), SAVES);
  agent(two, "remove claude-code", { HOME: home });
  assert.ok(!fs.existsSync(settings));
});

test("agent install keeps what a tool wrote into its settings while the first point was made", async () => {
  const [folder, home] = [newRepository(), scratch("home")];
  const env = { HOME: home, XDG_STATE_HOME: path.join(home, "state") };
  write(home, { ".claude.json": `{ "oauth": "old" }\n` });
  const gate = path.join(SCRATCH, "gate-of-install");
  fs.writeFileSync(gate, "");
  const child = spawn(process.execPath, [COMMAND, "-C", folder, "agent", "install", "claude-code"], {
    env: { ...process.env, ...env, CAIRN_FAILPOINT: `save.staged@${gate}` },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const ended = once(child, "close");
  let said = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  await eventually("the first point is being made", () => said.includes("failpoint save.staged"));
  write(home, { ".claude.json": `{ "oauth": "new" }\n` });
  fs.rmSync(gate);
  assert.deepEqual(await ended, [0, null]);
  const { oauth, mcpServers } = JSON.parse(fs.readFileSync(path.join(home, ".claude.json"), "utf8")) as Loose;
  assert.deepEqual([oauth, Object.keys(mcpServers as object)], ["new", ["cairn"]]);
});

test("the entry of a user decides which of the user's own hooks save, beside one for everybody", () => {
  const folder = newRepository();
  agent(folder, "install claude-code --for everybody --each turn");
  agent(folder, "install claude-code");
  write(folder, { "a.txt": "by a tool call\n" });
  assert.match(hook(folder), SAVES);
});

test("a removed fork or snapshot of a btrfs subvolume leaves its origin covered", (t) => {
  const disk = loopFileSystem(t, "btrfs");
  if (disk === null) return;
  const [folder, fork, snapshot] = ["project", "fork", "snapshot"].map((name) => path.join(disk.root, name)) as [
    string,
    string,
    string,
  ];
  const btrfs = (...words: string[]): void =>
    assert.equal(spawnSync("btrfs", ["-q", "subvolume", ...words]).status, 0, words.join(" "));
  btrfs("create", folder);
  write(folder, { "a.txt": "one\n" });
  agent(folder, "install claude-code");
  btrfs("snapshot", folder, snapshot);
  assert.match(hook(snapshot), NOT_COVERED);
  cairnOk(["fork", "head", fork, "-C", folder], { own: true });
  write(fork, { "a.txt": "in the fork\n" });
  assert.match(hook(fork), SAVES);
  cairnOk(["fork", "--remove", fork, "-C", folder], { own: true });
  write(folder, { "a.txt": "two\n" });
  assert.match(hook(folder), SAVES);
  btrfs("delete", snapshot);
  cairnOk(["release", folder, "--delete-points"], { own: true });
});

test("a workspace in a covered folder stays uncovered after agent remove there", () => {
  const folder = newRepository();
  const inner = path.join(folder, "sub");
  agent(folder, "install claude-code");
  cairnOk(["init", inner, "--allow", "nested"]);
  write(inner, { "b.txt": "two\n" });
  assert.match(hook(inner), SAVES);
  agent(inner, "remove claude-code");
  assert.match(hook(inner), NOT_COVERED);
  assert.match(hook(folder), SAVES);
});

test("a hook in a folder that is not covered ends if its tool never closes the input, and wherever its option stands", async (t) => {
  const [folder, other] = [newRepository(), newRepository()];
  agent(folder, "install claude-code");
  const child = spawn(process.execPath, [COMMAND, "agent", "hook", "claude-code", "--if-covered"]);
  t.after(() => child.kill("SIGKILL"));
  child.stdin.on("error", () => undefined);
  child.stdin.write(JSON.stringify({ prompt: "x".repeat(1 << 20), cwd: other, hook_event_name: "UserPromptSubmit" }));
  const late = AbortSignal.timeout(20_000);
  assert.deepEqual(await once(child, "exit", { signal: late }), [0, null]);
  const input = JSON.stringify({ cwd: folder, hook_event_name: "Stop" });
  const words = ["agent", "hook", "--if-covered", "--verbose", "claude-code"];
  assert.match(spawnSync(process.execPath, [COMMAND, ...words], { input, encoding: "utf8" }).stdout, SAVES);
});

test("a list of clones that cannot be written, and a noted repository that cannot be looked at, stop nothing", () => {
  const [folder, other, home] = [newRepository(), newRepository(), scratch("home")];
  const env = { HOME: home, XDG_STATE_HOME: path.join(home, "state") };
  fs.mkdirSync(home);
  agent(folder, "install claude-code", env);
  const noted = path.join(home, "state/cairn/agents/uncovered.jsonl");
  fs.mkdirSync(noted);
  assert.match(hook(other, {}, env), NOT_COVERED);
  fs.rmdirSync(noted);
  assert.match(hook(other, {}, env), NOT_COVERED);
  const endless = scratch("endless");
  fs.symlinkSync(endless, endless);
  fs.writeFileSync(noted, fs.readFileSync(noted, "utf8").replace(path.join(other, ".git"), endless));
  assert.deepEqual(agent(folder, "status", env)["data"].clones, []);
});

const ONLY_ROOT = process.geteuid?.() === 0 ? false : "only root can work in another user's home";

test("root in another user's home leaves the list of covered folders to that user", { skip: ONLY_ROOT }, async () => {
  const { passCover } = await import("../../src/agents/cover.ts");
  const [folder, home] = [newRepository(), scratch("home")];
  const env = { HOME: home, XDG_STATE_HOME: path.join(home, "state") };
  fs.mkdirSync(home);
  agent(folder, "install claude-code", env);
  for (const name of ["", ...fs.readdirSync(home, { recursive: true, encoding: "utf8" })])
    fs.lchownSync(path.join(home, name), 1000, 1000);
  const list = path.join(home, "state/cairn/agents/covered.json");
  const before = fs.readFileSync(list, "utf8");
  await passCover(env, folder);
  await passCover(env, folder, newRepository());
  assert.equal(cairn(["agent", "remove", "claude-code", "-C", folder], { env }).error?.code, "refused");
  assert.deepEqual([fs.readFileSync(list, "utf8"), fs.statSync(list).uid], [before, 1000]);
});

test("agent remove is recorded after the installation, and counts as no hook of the agent", () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  assert.match(hook(folder), SAVES);
  agent(folder, "remove claude-code");
  agent(folder, "remove claude-code");
  const found = findWorkspace(folder)!;
  const events = readAgentEvents(found);
  assert.deepEqual(
    events.map(({ agent: tool, event, tool: by, failed }) => [tool, event, by, failed]),
    [
      ["claude-code", "InstallCheck", "agent install claude-code", null],
      ["claude-code", "PreToolUse", "Bash", null],
      ["claude-code", "Removal", "agent remove claude-code", null],
    ],
  );
  const [known] = hooksIn(found, events);
  assert.equal(known!.last_hook!.event, "PreToolUse");
  assert.equal(known!.failed, null);
});

test("release and agent remove name the worktrees whose cover ends with that of the folder", async () => {
  const folder = newRepository();
  agent(folder, "install claude-code");
  const beside = scratch("worktree");
  git(folder, "worktree", "add", "--quiet", "--detach", beside);
  assert.match(hook(beside), SAVES);
  await becomesWorkspace(beside);
  const named = [
    `hooks of claude-code do not save ${beside} any more, a worktree of the same repository; to cover it: cairn -C ${beside} agent install claude-code`,
  ];
  assert.deepEqual(agent(folder, "remove claude-code")["warnings"], named);
  assert.match(hook(beside), NOT_COVERED);
  agent(folder, "install claude-code");
  assert.match(hook(beside), SAVES);
  assert.deepEqual(cairnOk(["release", folder]).warnings, named);
  // A worktree whose own files have no hooks was never saved by those for everybody.
  const other = newRepository();
  const ofOther = scratch("worktree");
  git(other, "worktree", "add", "--quiet", "--detach", ofOther);
  cairnOk(["save", ofOther]);
  agent(other, "install claude-code --for everybody");
  assert.deepEqual(agent(other, "remove claude-code --for everybody")["warnings"], []);
});

test("a kill of agent install or remove between two files leaves nothing that a repetition does not finish", () => {
  const [folder, home] = [newRepository(), scratch("home")];
  fs.mkdirSync(home);
  const env = { HOME: home, XDG_STATE_HOME: path.join(home, "state") };
  const install = ["agent", "install", "claude-code", "-C", folder];
  const remove = ["agent", "remove", "claude-code", "-C", folder];
  for (const at of ["agent.covered", "agent.written"]) {
    assert.equal(cairn(install, { own: true, env, failpoint: at }).killed, true);
    assert.equal(agent(folder, "install claude-code", env)["data"].checked, true);
    assert.equal(cairn(remove, { own: true, env, failpoint: "agent.removed" }).killed, true);
    agent(folder, "remove claude-code", env);
    assert.deepEqual(
      fs.readdirSync(home).filter((name) => name.startsWith(".claude")),
      [],
    );
    assert.match(hook(folder, {}, env), NOT_COVERED);
  }
});
