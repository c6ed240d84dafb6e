import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { TOOLS } from "../../src/agents/tools.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH, startCairn } from "../fixtures/command.ts";

/** Hooks of agents: saves that take too long for them, and what `agent status` and `agent install` know of them. */

const COMMAND = buildCommand();
const HOME = process.env["HOME"]!;
fs.mkdirSync(HOME, { recursive: true });
let count = 0;

// oxlint-disable-next-line typescript/no-explicit-any -- printed data is looked at as it is
type Loose = Record<string, any>;

function newProject(): string {
  const folder = path.join(SCRATCH, `project-${count++}`);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
  return folder;
}

function write(file: string, text: string): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
}

const factsOf = (folder: string, more: object = {}): object => ({
  session_id: "s1",
  hook_event_name: "PreToolUse",
  tool_name: "Bash",
  cwd: folder,
  ...more,
});

function hook(facts: object, tool = "claude-code"): { status: number | null; said: string; ms: number } {
  const begun = performance.now();
  const done = spawnSync(process.execPath, [COMMAND, "agent", "hook", tool, "--verbose"], {
    input: JSON.stringify(facts),
    encoding: "utf8",
  });
  return { status: done.status, said: done.stdout + done.stderr, ms: performance.now() - begun };
}

const statusOf = (folder: string): Loose => (cairnOk(["agent", "status", "-C", folder]).data["folders"] as Loose[])[0]!;
const agentIn = (folder: string, tool: string): Loose =>
  (statusOf(folder)["agents"] as Loose[]).find((each) => each["tool"] === tool)!;
const pointsOf = (folder: string): Loose[] => cairnOk(["history", "-C", folder]).data["save_points"] as Loose[];

/** Waits for a state of a folder's background process. */
function statusWhen(folder: string, isSo: (status: Loose) => boolean): Loose {
  for (const until = Date.now() + 60_000; ;) {
    const status = statusOf(folder);
    if (isSo(status)) return status;
    assert.ok(Date.now() < until, JSON.stringify(status));
  }
}

const queueOf = (folder: string): string => {
  const name = createHash("sha256").update(folder).digest("hex");
  return path.join(process.env["XDG_STATE_HOME"]!, "cairn/agents/late", name);
};

test("a hook leaves a slow save to one background process, which labels the point with the time span", async (t) => {
  const folder = newProject();
  const gate = path.join(SCRATCH, "gate");
  fs.writeFileSync(gate, "");
  // A save that holds the workspace's lock stands for a folder that takes long to read.
  const slow = startCairn(["save", folder], { failpoint: `save.staged@${gate}` });
  t.after(() => fs.rmSync(gate, { force: true }));
  await slow.paused;
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  const first = hook(factsOf(folder, { prompt: "first" }));
  assert.equal(first.status, 0);
  assert.match(first.said, /^saving in the background$/m);
  assert.ok(first.ms < 5000, `${first.ms} ms, with the start of a process by a busy machine`);
  statusWhen(folder, ({ background }) => background?.running === true);
  assert.match(cairnOk(["status", "-C", folder]).warnings.join(), /saving in the background since/);
  for (const prompt of ["second", "third"]) {
    const { said, ms } = hook(factsOf(folder, { prompt, hook_event_name: "PostToolUse" }));
    assert.match(said, /^saving in the background since .*Z/);
    assert.ok(ms < first.ms, `${ms} ms: a hook does not wait for a background process`);
  }
  assert.equal(
    fs
      .readFileSync(path.join(queueOf(folder), "queue.jsonl"), "utf8")
      .trim()
      .split("\n").length,
    2,
  );
  fs.rmSync(gate);
  await slow.ended;
  statusWhen(
    folder,
    ({ background, agents }) => background.running === false && agents[0].last_hook?.prompt === "third",
  );
  assert.deepEqual(fs.readdirSync(queueOf(folder)).toSorted(), ["lock", "state.json"]);
  const [late, early] = pointsOf(folder);
  assert.match(late!["message"], /^during Bash \(read between \d\d:\d\d:\d\dZ and \d\d:\d\d:\d\dZ\)$/);
  assert.match(late!["cause"].asked_at, /^\d{4}-.*Z$/);
  assert.equal(early!["message"], "");
  fs.writeFileSync(path.join(folder, "a.txt"), "three\n");
  assert.match(hook(factsOf(folder)).said, /^saved as/);
  const { agents } = statusOf(folder);
  assert.deepEqual([agents[0].last_hook.asked_at, agents[0].last_point.event], [null, "PreToolUse"]);
});

test("a background process records the hook events that a killed process left in the queue", () => {
  const folder = newProject();
  cairnOk(["save", folder]);
  const waiting = (call: string): string =>
    `${JSON.stringify({ agent: "codex", told: { event: "PreToolUse", cwd: folder, call }, asked_at: "2026-11-27T12:00:01.000Z" })}\n`;
  write(path.join(queueOf(folder), "taken.jsonl"), `${waiting("taken")}{"damaged":`);
  write(path.join(queueOf(folder), "queue.jsonl"), waiting("queued"));
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  assert.match(hook(factsOf(folder, { prompt: "new", tool_use_id: "new" }), "codex").said, /in the background/);
  assert.doesNotMatch(
    fs
      .readdirSync(queueOf(folder))
      .map((name) => fs.readFileSync(path.join(queueOf(folder), name), "utf8"))
      .join(),
    /prompt/,
  );
  statusWhen(folder, ({ agents }) => agents[1].last_hook?.prompt === "new");
  const log = fs.readFileSync(path.join(controlOf(folder), "agent-events.jsonl"), "utf8");
  assert.deepEqual(
    log
      .trim()
      .split("\n")
      .map((line) => (JSON.parse(line) as Loose)["call"]),
    ["taken", "queued", "new"],
  );
});

/** The workspace's part of its control directory. */
function controlOf(folder: string): string {
  const { control_directory: control } = cairnOk(["status", "-C", folder]).data["workspace"] as Loose;
  return path.join(control, "workspaces", "main");
}

test("agent status shows why a background save failed", () => {
  const folder = newProject();
  cairnOk(["save", folder]);
  cairnOk(["cleanup", "policy", "--quota", "1MiB", "-C", folder]);
  fs.writeFileSync(path.join(folder, "large"), randomBytes(3 << 20));
  const told = { event: "PreToolUse", cwd: folder };
  const asked = { agent: "codex", told, asked_at: new Date().toISOString() };
  write(path.join(queueOf(folder), "queue.jsonl"), `${JSON.stringify(asked)}\n`);
  cairnOk(["agent", "hook", "late-saves", "-C", folder]);
  const { background } = statusOf(folder);
  assert.match(background.failed, /quota/);
  assert.equal(background.running, false);
});

test("agent install saves the first point, reports progress, and runs a hook as a check", () => {
  const folder = newProject();
  // A small folder is saved before the first report.
  fs.writeFileSync(path.join(folder, "large"), randomBytes(64 << 20));
  const done = cairn(["agent", "install", "codex", "-C", folder, "--progress", "json"], {
    own: true,
  });
  assert.equal(done.data["checked"], true, done.warnings.join());
  assert.match(done.stderr, /^\{"phase":"/m);
  assert.deepEqual(
    pointsOf(folder).map(({ message }) => message as string),
    ["before agent install"],
  );
  assert.match(agentIn(folder, "codex")["checked_at"], /Z$/);
  assert.equal(agentIn(folder, "codex")["last_hook"], null, "the check is no hook of the tool");
  assert.deepEqual(cairnOk(["turns", "-C", folder]).data["turns"], []);
  cairnOk(["agent", "remove", "codex", "-C", folder]);
  const other = newProject();
  const missing = cairnOk(["agent", "install", "codex", "-C", other, "--for", "everybody"]);
  assert.equal(missing.data["checked"], false);
  assert.match(missing.warnings.join(), /the hook was run for a check and saved nothing: .*must be in PATH/);
});

test("agent install makes a home directory a workspace only if --allow home is given", () => {
  const home = path.join(SCRATCH, "a-home");
  write(path.join(home, "a.txt"), "mine\n");
  const env = { HOME: home };
  const { status, error } = cairn(["agent", "install", "codex", "-C", home], { own: true, env });
  assert.deepEqual([status, error?.code], [7, "refused"]);
  assert.match(error!.hint!, /--allow home/);
  assert.deepEqual(fs.readdirSync(home), ["a.txt"]);
  cairnOk(["agent", "install", "codex", "-C", home, "--allow", "home"], { own: true, env });
  assert.equal(pointsOf(home).length, 2);
});

test(
  "agent install on a terminal asks before it makes a home directory a workspace",
  { skip: !fs.existsSync("/usr/bin/script") },
  async () => {
    const home = path.join(SCRATCH, "asked-home");
    write(path.join(home, "a.txt"), "mine\n");
    const line = `'${process.execPath}' '${COMMAND}' -C ${home} agent install codex`;
    for (const answer of ["n", "y"]) {
      const child = spawn("/usr/bin/script", ["-qec", line, "/dev/null"], { env: { ...process.env, HOME: home } });
      let said = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => {
        said += text;
        if (said.includes("[y/N]") && !child.stdin.writableEnded) child.stdin.end(`${answer}\n`);
      });
      const [status] = (await once(child, "close")) as [number];
      assert.match(said, /a home directory.*\[y\/N\]/);
      assert.equal(status, answer === "y" ? 0 : 7, said);
      assert.equal(fs.existsSync(path.join(home, ".codex/hooks.json")), answer === "y");
    }
  },
);

test("agent install --http writes an MCP entry in each tool's format, with the token in a variable", () => {
  const url = "https://host:7777/mcp";
  const installed = (tool: string, given = url): Loose => {
    const { data } = cairnOk([
      "agent",
      "install",
      tool,
      "--for",
      "everybody",
      "-C",
      SCRATCH,
      "--http",
      given,
      "--plan",
    ]);
    return (data["files"] as Loose[])[0]!;
  };
  const entry = (tool: string, name: string): Loose => JSON.parse(installed(tool)["text"])[name].cairn as Loose;
  const bearer = (token: string): object => ({ Authorization: `Bearer ${token}` });
  assert.deepEqual(entry("claude-code", "mcpServers"), { type: "http", url, headers: bearer("${CAIRN_TOKEN}") });
  assert.deepEqual(entry("gemini", "mcpServers"), { httpUrl: url, headers: bearer("$CAIRN_TOKEN") });
  assert.deepEqual(entry("opencode", "mcp"), {
    type: "remote",
    url,
    headers: bearer("{env:CAIRN_TOKEN}"),
    enabled: true,
  });
  const codex = '[mcp_servers.cairn]\nurl = "https://host:7777/mcp"\nbearer_token_env_var = "CAIRN_TOKEN"\n';
  assert.equal(installed("codex", "https://host:7777")["text"], codex);
  for (const wrong of ["host:7777", "ftp://host/mcp", ""])
    assert.equal(cairn(["agent", "install", "codex", "--http", wrong, "--plan"]).error?.code, "usage", wrong);
});

test("agent status says for each tool where the hooks are installed and whether the tool trusts them", () => {
  const folder = newProject();
  const tools = ["claude-code", "codex", "gemini", "opencode"];
  for (const tool of tools) cairnOk(["agent", "install", tool, "-C", folder, "--for", "everybody"]);
  const trust = (): Loose =>
    Object.fromEntries(
      (statusOf(folder)["agents"] as Loose[]).flatMap(({ tool, trusted }) =>
        tools.includes(tool as string) ? [[tool, trusted]] : [],
      ),
    );
  assert.deepEqual(trust(), { "claude-code": null, codex: false, gemini: null, opencode: true });
  const claude = path.join(HOME, ".claude.json");
  const codex = path.join(HOME, ".codex/config.toml");
  const gemini = path.join(HOME, ".gemini/trustedFolders.json");
  write(claude, "{}");
  write(codex, `[projects."${folder}"]\ntrust_level = "trusted"\n`);
  write(gemini, JSON.stringify({ [folder]: "DO_NOT_TRUST" }));
  assert.deepEqual(trust(), { "claude-code": false, codex: false, gemini: false, opencode: true });
  assert.match(agentIn(folder, "codex")["problems"][0], /Codex does not trust the hooks yet: .*\/hooks/);
  hook(factsOf(folder), "codex");
  assert.deepEqual(trust(), { "claude-code": false, codex: true, gemini: false, opencode: true }, "a hook was called");
  assert.deepEqual(agentIn(folder, "codex")["problems"], []);
  write(claude, JSON.stringify({ projects: { [SCRATCH]: { hasTrustDialogAccepted: true } } }));
  approveInCodex(folder, codex);
  write(gemini, JSON.stringify({ [folder]: "TRUST_FOLDER" }));
  assert.deepEqual(trust(), { "claude-code": true, codex: true, gemini: true, opencode: true });
  const { watched, agents } = statusOf(folder);
  assert.equal(watched, null, "no daemon serves the folder");
  assert.deepEqual(
    (agents as Loose[]).map(({ tool, installed, problems }) => [tool, installed, problems]),
    Object.keys(TOOLS).map((tool) => [tool, tools.includes(tool) ? ["project"] : [], []]),
  );
  const other = newProject();
  cairnOk(["save", other]);
  const all = cairnOk(["agent", "status", "--all"]).data["folders"] as { path: string }[];
  const paths = all.map((each) => each.path);
  assert.deepEqual([paths.includes(folder), paths.includes(other)], [true, false]);
});

/** Writes what Codex 0.171 writes for approved hooks. `test/flows/real-agents.flow.test.ts` compares the digests with Codex's own. */
function approveInCodex(project: string, config: string): void {
  const file = path.join(project, ".codex/hooks.json");
  const { hooks } = JSON.parse(fs.readFileSync(file, "utf8")) as { hooks: Record<string, Loose[]> };
  for (const [event, [group]] of Object.entries(hooks)) {
    const event_name = event
      .replace(/^[A-Z]/, (letter) => letter.toLowerCase())
      .replaceAll(/[A-Z]/g, "_$&")
      .toLowerCase();
    const { command, timeout } = group!["hooks"][0] as Loose;
    const text = `{"event_name":"${event_name}","hooks":[{"async":false,"command":${JSON.stringify(command)},"timeout":${timeout},"type":"command"}]${group!["matcher"] === undefined ? "" : ',"matcher":"*"'}}`;
    const digest = createHash("sha256").update(text).digest("hex");
    fs.appendFileSync(config, `[hooks.state."${file}:${event_name}:0:0"]\ntrusted_hash = "sha256:${digest}"\n`);
  }
}

test("agent status and doctor warn of a prompt that reached no hook", () => {
  const folder = newProject();
  for (const tool of ["claude-code", "codex"]) cairnOk(["agent", "install", tool, "-C", folder, "--for", "everybody"]);
  const at = (minutes: number): string => new Date(Date.now() + minutes * 60_000).toISOString();
  const sessions = {
    claude: path.join(HOME, ".claude/projects", folder.replaceAll(/[^A-Za-z0-9]/g, "-"), "b.jsonl"),
    codex: path.join(HOME, ".codex/sessions/2026/11/27/rollout-1.jsonl"),
  };
  const given = (minutes: number, cwd = folder, isNew = false): void => {
    const prompt = { type: "user", timestamp: at(minutes), message: { role: "user", content: "fix it" } };
    const result = { ...prompt, timestamp: at(60), message: { content: [{ type: "tool_result", content: "x" }] } };
    const note = { ...prompt, timestamp: at(60), isMeta: true };
    write(sessions.claude, [prompt, result, note].map((line) => `${JSON.stringify(line)}\n`).join(""));
    const meta = { type: "session_meta", payload: { cwd } };
    const item = { type: "UserMessage", content: [{ type: "text", text: "fix it" }] };
    const payload = isNew ? { type: "item_completed", item } : { type: "user_message", message: "fix it" };
    const message = { type: "event_msg", timestamp: at(minutes), payload };
    const other = { ...message, timestamp: at(60), payload: { type: "agent_message" } };
    write(sessions.codex, [meta, message, other].map((line) => `${JSON.stringify(line)}\n`).join(""));
    for (const file of Object.values(sessions)) fs.utimesSync(file, Date.now() / 1000 + 4000, Date.now() / 1000 + 4000);
  };
  const missed = ({ data, warnings }: Pick<Outcome, "data" | "warnings">): string[] => {
    const [status] = (data["folders"] ?? []) as Loose[];
    const said =
      status === undefined ? warnings : (status["agents"] as Loose[]).flatMap(({ problems }) => problems as string[]);
    return said.filter((each) => each.startsWith("no hook")).map((each) => each.slice(0, 19));
  };
  const both = (): string[][] => [
    missed(cairnOk(["agent", "status", "-C", folder])),
    missed(cairnOk(["doctor", "-C", folder])),
  ];
  given(0);
  assert.deepEqual(both(), [[], []], "a prompt of this minute may have a hook under way");
  given(5);
  assert.deepEqual(both(), [
    ["no hook of Claude C", "no hook of Codex ha"],
    ["no hook of Claude C", "no hook of Codex ha"],
  ]);
  given(6, folder, true);
  assert.deepEqual(both()[0], ["no hook of Claude C", "no hook of Codex ha"], "as Codex 0.171 records prompts");
  given(5, "/another/folder");
  assert.deepEqual(both(), [["no hook of Claude C"], ["no hook of Claude C"]], "Codex worked in another folder");
});
