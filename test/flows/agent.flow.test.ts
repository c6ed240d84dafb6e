import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { createServer } from "node:http";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { parse } from "smol-toml";
import type { AgentEvent } from "../../src/contract/looking.ts";
import { findWorkspace } from "../../src/workspace/place/find-workspace.ts";
import { readAgentEvents, withTexts } from "../../src/workspace/points/agent-record.ts";
import { shellQuote } from "../../src/fs/paths/safe-path.ts";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

/** Entries in other tools' files, in the forms that they document, and the hook that they run. */

const COMMAND = buildCommand();
let count = 0;

/** Variables that decide where records lie: entries name them. */
const VARIABLES = Object.fromEntries(
  ["XDG_STATE_HOME", "CAIRN_STATE_DIR", "CAIRN_SOCKET"].map((name) => [name, process.env[name]!]),
);
const PROGRAM = [process.execPath, fs.realpathSync(COMMAND)];
const hookLine = (tool: string): string =>
  [
    "/usr/bin/env",
    ...Object.entries(VARIABLES).map(([name, value]) => `${name}=${value}`),
    ...PROGRAM.map(shellQuote),
    "agent",
    "hook",
    tool,
    "--if-covered",
  ].join(" ");

/** A project with what a tool's user may have in its files already. */
function newProject(files: Readonly<Record<string, string>> = {}): string {
  const folder = path.join(SCRATCH, `project-${count++}`);
  for (const [name, text] of Object.entries({ "a.txt": "one\n", ...files })) {
    const file = path.join(folder, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
  return folder;
}

const HOME = process.env["HOME"]!;
/** A folder in PATH that has the command `cairn`. */
const BIN = path.join(SCRATCH, "bin");
fs.mkdirSync(BIN);
fs.writeFileSync(path.join(BIN, "cairn"), `#!/bin/sh\nexec ${PROGRAM.map(shellQuote).join(" ")} "$@"\n`, {
  mode: 0o755,
});
process.env["PATH"] = `${BIN}:${process.env["PATH"]}`;

/** Installs for everybody: the entries are in the project's files. */
const install = (folder: string, tool: string, ...more: string[]): Record<string, unknown> =>
  cairnOk(["agent", "install", tool, "-C", folder, "--for", "everybody", ...more]).data;
const remove = (folder: string, tool: string, ...more: string[]): Record<string, unknown> =>
  cairnOk(["agent", "remove", tool, "-C", folder, "--for", "everybody", ...more]).data;
const read = (folder: string, name: string): string => fs.readFileSync(path.join(folder, name), "utf8");
// oxlint-disable-next-line typescript/no-explicit-any -- what was written is looked at as it is
type Loose = Record<string, any>;
const json = (folder: string, name: string): Loose => JSON.parse(read(folder, name)) as Loose;

const CLAUDE = {
  ".mcp.json": `{\n  "mcpServers": {\n    "other": { "command": "other" }\n  }\n}\n`,
  ".claude/settings.json": `{\n  "model": "x",\n  "hooks": {\n    "Stop": [\n      { "hooks": [{ "type": "command", "command": "notify-send done" }] }\n    ]\n  }\n}\n`,
};
const GEMINI = { ".gemini/settings.json": `{\n  // mine\n  "theme": "dark"\n}\n` };
const OPENCODE = {
  "opencode.jsonc": `{\n  // mine\n  "$schema": "https://opencode.ai/config.json",\n  "model": "x",\n}\n`,
};
const CODEX = { ".codex/config.toml": `model = "x" # mine\n\n[mcp_servers.other]\ncommand = "other"\n` };

test("agent install adds its entries to a tool's files once, and agent remove restores every byte", () => {
  for (const [tool, files] of Object.entries({
    "claude-code": CLAUDE,
    codex: CODEX,
    gemini: GEMINI,
    opencode: OPENCODE,
  })) {
    for (const given of [files, {}] as Readonly<Record<string, string>>[]) {
      const folder = newProject(given);
      install(folder, tool);
      const first = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted();
      const texts = first
        .filter((name) => fs.statSync(path.join(folder, name)).isFile())
        .map((name) => read(folder, name));
      const again = install(folder, tool) as { files: { changed: boolean }[] };
      assert.ok(
        again.files.every(({ changed }) => !changed),
        `${tool} is idempotent`,
      );
      assert.deepEqual(
        first.filter((name) => fs.statSync(path.join(folder, name)).isFile()).map((name) => read(folder, name)),
        texts,
      );
      const planned = remove(folder, tool, "--plan");
      assert.deepEqual(
        first.filter((name) => fs.statSync(path.join(folder, name)).isFile()).map((name) => read(folder, name)),
        texts,
        `${tool}: a plan writes nothing`,
      );
      assert.deepEqual(remove(folder, tool), planned);
      for (const [name, text] of Object.entries(given)) assert.equal(read(folder, name), text, `${tool}: ${name}`);
      const left = fs
        .readdirSync(folder, { recursive: true, encoding: "utf8" })
        .filter((name) => fs.statSync(path.join(folder, name)).isFile());
      assert.deepEqual(left.toSorted(), ["a.txt", ...Object.keys(given)].toSorted(), tool);
      remove(folder, tool);
    }
  }
});

/** Files of a project before `install`; an empty text is an empty folder. */
const SHAPES: readonly [string, Readonly<Record<string, string>>][] = [
  ["claude-code", { ".mcp.json": "{}", ".claude/settings.json": "{ }" }],
  ["claude-code", { ".mcp.json": '{"mcpServers":{}}', ".claude/settings.json": '{"hooks":{}}\n' }],
  [
    "claude-code",
    { ".mcp.json": '{"mcpServers":{"x":{"command":"x"}}}', ".claude/settings.json": '{"hooks":{"Stop":[]}}' },
  ],
  ["claude-code", { ".mcp.json": '\n{\r\n\t"mcpServers": {\r\n\t}\r\n}\r\n', ".claude": "" }],
  ["claude-code", { ".claude/settings.json": '{"hooks":{"Stop":[{"hooks":[]}],"PreToolUse":[]},"model":"x"}' }],
  ["claude-code", { ".claude/commands": "" }],
  ["claude-code", {}],
  [
    "claude-code",
    {
      ".mcp.json": '{"mcpServers":{},"seen":["cairn"]}',
      ".claude/settings.json": '{"hooks":{},"history":["cairn agent hook"]}',
    },
  ],
  [
    "codex",
    { ".codex/config.toml": "# [mcp_servers.cairn] was here\n\n\n", ".codex/hooks.json": '{"hooks":{"Stop":[]}}' },
  ],
  ["gemini", { ".gemini/settings.json": "// mine\n{}" }],
  ["gemini", { ".gemini/settings.json": '{"mcpServers":{},/* mine */"hooks":{"BeforeAgent":[]}}' }],
  ["gemini", { ".gemini": "" }],
  ["codex", { ".codex/config.toml": 'model = "x"', ".codex/hooks.json": '{"hooks":{}}' }],
  ["codex", { ".codex/config.toml": 'model = "x"\n\n\n' }],
  ["codex", { ".codex/config.toml": '[mcp_servers.other]\ncommand = "x" # last line' }],
  ["codex", { ".codex/config.toml": "# nothing else" }],
  ["opencode", { "opencode.json": '{"mcp":{}}', ".opencode/plugins": "" }],
  ["opencode", {}],
  ["opencode", { "opencode.jsonc": "{\n  // mine\n}", ".opencode": "" }],
  ["opencode", { "opencode.json": '{"mcp":{},/* mine */"model":"x",}', ".opencode/.cairnignore": "mine\n" }],
];

/** Every path below a folder, with the bytes of files. */
function contentOf(folder: string): Record<string, string> {
  const names = fs.readdirSync(folder, { recursive: true, encoding: "utf8" }).toSorted();
  return Object.fromEntries(
    names.map((name) => [name, fs.statSync(path.join(folder, name)).isFile() ? read(folder, name) : "folder"]),
  );
}

test("agent remove restores files and folders of any shape to their state before install", () => {
  for (const [tool, files] of SHAPES) {
    const folder = newProject(Object.fromEntries(Object.entries(files).filter(([, text]) => text !== "")));
    for (const [name, text] of Object.entries(files))
      if (text === "") fs.mkdirSync(path.join(folder, name), { recursive: true });
    const before = contentOf(folder);
    install(folder, tool, "--each", "turn");
    assert.notDeepEqual(contentOf(folder), before);
    if (tool === "codex") install(folder, tool);
    remove(folder, tool);
    assert.deepEqual(contentOf(folder), before, `${tool} ${JSON.stringify(files)}`);
  }
  const changed = newProject({ ".mcp.json": "{}" });
  install(changed, "claude-code");
  const text = read(changed, ".mcp.json").replace(
    '"mcpServers": {',
    '"mcpServers": {\n    "mine": { "command": "m" },',
  );
  fs.writeFileSync(path.join(changed, ".mcp.json"), text);
  remove(changed, "claude-code");
  assert.deepEqual(json(changed, ".mcp.json"), { mcpServers: { mine: { command: "m" } } }, "what came since stays");
  const codex = newProject({ ".codex/config.toml": 'model = "x"\n' });
  install(codex, "codex");
  const since = "\n# mine\n[other]\ny = 1\n";
  fs.appendFileSync(path.join(codex, ".codex/config.toml"), since);
  remove(codex, "codex");
  assert.equal(read(codex, ".codex/config.toml"), `model = "x"\n${since}`);
  const fresh = newProject();
  install(fresh, "opencode");
  fs.writeFileSync(path.join(fresh, "opencode.json"), `${read(fresh, "opencode.json")}\n`);
  remove(fresh, "opencode");
  assert.deepEqual(
    fs.readdirSync(fresh),
    ["a.txt"],
    "nothing is left of a file that only the tool's own member filled",
  );
});

test("agent install writes hooks and MCP entries in each tool's format, and with --each turn only turn hooks", () => {
  const home = path.join(SCRATCH, "home-of-user");
  const env = { HOME: home, CLAUDE_CONFIG_DIR: "", CODEX_HOME: "", GEMINI_CLI_HOME: "", XDG_CONFIG_HOME: "" };
  const given = {
    ".claude/settings.json": CLAUDE[".claude/settings.json"],
    ".claude.json": CLAUDE[".mcp.json"],
    ...CODEX,
  };
  for (const [name, text] of Object.entries({
    ...given,
    ...GEMINI,
    ".config/opencode/opencode.jsonc": OPENCODE["opencode.jsonc"],
  })) {
    fs.mkdirSync(path.dirname(path.join(home, name)), { recursive: true });
    fs.writeFileSync(path.join(home, name), text);
  }
  const before = contentOf(home);
  const folder = newProject();
  const installed = (tool: string, ...more: string[]): unknown => {
    const { data } = cairnOk(["agent", "install", tool, "-C", folder, ...more], { own: true, env });
    assert.deepEqual([data["checked"], data["problem"], data["for"], data["folder"]], [true, null, "me", folder]);
    return data;
  };
  installed("claude-code");
  const { hooks, model } = json(home, ".claude/settings.json");
  assert.equal(model, "x");
  const ofCalls = ["PreToolUse", "PostToolUse", "PostToolUseFailure", "PostToolBatch"];
  assert.deepEqual(Object.keys(hooks), ["Stop", "UserPromptSubmit", "SessionEnd", ...ofCalls]);
  assert.equal(hooks.Stop[0].hooks[0].command, "notify-send done");
  const ours = { type: "command", command: hookLine("claude-code"), timeout: 30 };
  assert.deepEqual(hooks.Stop[1], { hooks: [ours] });
  assert.deepEqual(hooks.PreToolUse, [{ matcher: "*", hooks: [ours] }]);
  const server = (tool: string): string[] => [...PROGRAM.slice(1), "mcp", "--if-covered", tool];
  assert.deepEqual(json(home, ".claude.json")["mcpServers"], {
    other: { command: "other" },
    cairn: { type: "stdio", command: PROGRAM[0], args: server("claude-code"), env: VARIABLES },
  });
  installed("claude-code", "--each", "turn");
  assert.deepEqual(Object.keys(json(home, ".claude/settings.json")["hooks"]), [
    "Stop",
    "UserPromptSubmit",
    "SessionEnd",
  ]);
  installed("codex", "--each", "turn");
  assert.match(read(home, ".codex/config.toml"), /^model = "x" # mine/);
  const toml = JSON.parse(JSON.stringify(parse(read(home, ".codex/config.toml")))) as Loose;
  assert.deepEqual(toml["mcp_servers"], {
    other: { command: "other" },
    cairn: { command: PROGRAM[0], args: server("codex"), env: VARIABLES },
  });
  assert.deepEqual(Object.keys(json(home, ".codex/hooks.json")["hooks"]), ["UserPromptSubmit", "Stop", "SessionEnd"]);
  installed("gemini");
  const text = read(home, ".gemini/settings.json");
  assert.match(text, /\/\/ mine/);
  const settings = JSON.parse(text.replace("// mine", "")) as Record<string, Record<string, unknown>>;
  assert.deepEqual(settings["mcpServers"], { cairn: { command: PROGRAM[0], args: server("gemini"), env: VARIABLES } });
  assert.deepEqual(settings["hooks"]!["AfterTool"], [
    { matcher: "*", hooks: [{ type: "command", command: hookLine("gemini"), timeout: 30_000 }] },
  ]);
  installed("opencode");
  const jsonWithComments = read(home, ".config/opencode/opencode.jsonc").replaceAll(/\s*(?:\/\/ mine)?\n\s*/g, "");
  const environment = JSON.stringify(VARIABLES).replaceAll('":"', '": "');
  const words = JSON.stringify([...PROGRAM, "mcp", "--if-covered", "opencode"]);
  assert.ok(jsonWithComments.includes(`"type": "local","command": ${words},"environment": ${environment}`));
  assert.ok(fs.existsSync(path.join(home, ".config/opencode/plugins/cairn.js")));
  assert.deepEqual(fs.readdirSync(folder), ["a.txt"], "no file of the project is written");
  for (const tool of ["claude-code", "codex", "gemini", "opencode"])
    cairnOk(["agent", "remove", tool, "-C", folder], { own: true, env });
  const own = Object.entries(contentOf(home)).filter(([name]) => !/^\.(?:cache|local)/.test(name));
  assert.deepEqual(Object.fromEntries(own), before);
  const codex = path.join(SCRATCH, "codex-home");
  const { warnings } = cairnOk(["agent", "install", "codex", "--for", "all-mine"], { env: { CODEX_HOME: codex } });
  assert.match(warnings.join(), /is no workspace yet: to cover it, save it once: cairn save /);
  assert.ok(fs.existsSync(path.join(codex, "hooks.json")));
  cairnOk(["agent", "remove", "codex", "--for", "all-mine"], { env: { CODEX_HOME: codex } });
});

test("agent install --http needs --for everybody: an entry for the user would serve the token's workspace in every folder", () => {
  const folder = newProject();
  for (const whom of [[], ["--for", "me"], ["--for", "all-mine"]]) {
    const words = ["agent", "install", "gemini", "--http", "http://127.0.0.1:1/mcp", ...whom, "-C", folder];
    const { error } = cairn(words, { env: { HOME: path.join(SCRATCH, "home-of-http") } });
    assert.deepEqual([error?.code, error?.hint?.endsWith("--for everybody")], ["usage", true]);
  }
  assert.ok(!fs.existsSync(path.join(SCRATCH, "home-of-http")));
});

test("agent install leaves a file unchanged that it cannot parse or extend, and --plan writes nothing", () => {
  for (const [tool, name, text] of [
    ["claude-code", ".claude/settings.json", '{ "hooks": {}, // no comments here\n }'],
    ["claude-code", ".mcp.json", '{ "mcpServers": [] }'],
    ["codex", ".codex/hooks.json", '{ "hooks": { "Stop": {} } }'],
    ["codex", ".codex/config.toml", 'mcp_servers = { cairn = { command = "x" } }\n'],
    ["codex", ".codex/config.toml", "not toml"],
    ["gemini", ".gemini/settings.json", '{ "hooks": { "BeforeAgent": [ 1, ], }, '],
    ["gemini", ".gemini/settings.json", '{ "theme": "dark", }'],
    ["opencode", ".opencode/plugins/cairn.js", "// somebody else's\n"],
  ] as const) {
    const folder = newProject({ [name]: text });
    const { error } = cairn(["agent", "install", tool, "-C", folder, "--for", "everybody"]);
    assert.ok(
      error !== null && ["refused", "already_exists"].includes(error.code),
      `${tool} ${text}: ${error?.message}`,
    );
    assert.equal(read(folder, name), text);
  }
  const folder = newProject();
  const { files } = install(folder, "claude-code", "--plan") as { files: { text: string }[] };
  assert.match(files[1]!.text, /agent hook claude-code/);
  assert.deepEqual(fs.readdirSync(folder), ["a.txt"]);
  assert.equal(cairn(["agent", "install", "emacs", "-C", folder]).error?.code, "usage");
});

test("agent install and remove with --apply do exactly the plan with this id, or nothing", () => {
  const folder = newProject();
  const forAll = ["--for", "everybody"];
  const file = path.join(folder, ".claude/settings.json");
  for (const verb of [install, remove]) {
    const { plan_id: plan, files } = verb(folder, "claude-code", ...forAll, "--plan") as {
      plan_id: string;
      files: { path: string; text: string }[];
    };
    const before = fs.existsSync(file) ? fs.readFileSync(file, "utf8") : null;
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const other = JSON.stringify({ ...JSON.parse(before ?? "{}"), model: "other" });
    fs.writeFileSync(file, other);
    const command = verb === install ? "install" : "remove";
    const refused = cairn(["agent", command, "claude-code", "-C", folder, ...forAll, "--apply", plan]);
    assert.equal(refused.error?.code, "stale_plan");
    assert.equal(fs.readFileSync(file, "utf8"), other);
    if (before === null) fs.rmSync(file);
    else fs.writeFileSync(file, before);
    const again = verb(folder, "claude-code", ...forAll, "--plan")["plan_id"];
    const done = verb(folder, "claude-code", ...forAll, "--apply", again as string);
    assert.deepEqual(done["files"], files);
  }
});

/** Facts as the tools gave them to a hook, but for the folder. */
const FACTS = {
  "claude-code": {
    session_id: "bc402756",
    transcript_path: "/x.jsonl",
    prompt_id: "b2da4a6d",
    permission_mode: "default",
    hook_event_name: "PreToolUse",
    tool_name: "Bash",
    tool_input: { command: "echo hi" },
    tool_use_id: "toolu_1",
  },
  codex: {
    session_id: "01a216bf",
    turn_id: "01a216bf-891b",
    transcript_path: null,
    hook_event_name: "PostToolUse",
    model: "gpt-5",
    tool_name: "Bash",
    tool_input: { command: "echo hi" },
    tool_use_id: "c1",
    tool_response: "hi",
  },
  gemini: {
    session_id: "d7b3f93e",
    transcript_path: "/x",
    hook_event_name: "AfterAgent",
    timestamp: "2026-11-26T07:30:53.288Z",
    prompt: "hello",
    prompt_response: "done",
    stop_hook_active: false,
  },
};

function hook(tool: string, input: string): { status: number | null; stdout: string; stderr: string } {
  const done = spawnSync(process.execPath, [COMMAND, "agent", "hook", tool], { input, encoding: "utf8" });
  return { status: done.status, stdout: done.stdout, stderr: done.stderr };
}

/** The events in the record of a folder's workspace, newest first, with their texts. */
function eventsOf(folder: string): AgentEvent[] {
  const found = findWorkspace(folder)!;
  return withTexts(found, readAgentEvents(found)).toReversed();
}

test("a hook saves the folder with session, turn and tool as the cause, prints nothing and exits 0", () => {
  const folder = newProject();
  const inside = path.join(folder, "deep");
  fs.mkdirSync(inside);
  cairnOk(["save", folder]);
  const silent = { status: 0, stdout: "", stderr: "" };
  let turn = 0;
  for (const [tool, facts] of Object.entries(FACTS)) {
    fs.writeFileSync(path.join(folder, "a.txt"), `turn ${turn++}\n`);
    assert.deepEqual(hook(tool, JSON.stringify({ ...facts, cwd: inside })), silent);
    assert.deepEqual(hook(tool, JSON.stringify({ ...facts, cwd: inside })), silent, "nothing has changed");
  }
  const points = cairnOk(["history", "-C", folder]).data["save_points"] as {
    message: string | null;
    cause: Record<string, unknown>;
  }[];
  assert.deepEqual(
    points.map(({ message, cause }) => [
      message,
      Object.fromEntries(Object.entries(cause).filter(([key]) => key !== "called_at")),
    ]),
    [
      ["after a turn", { kind: "tool_call", agent: "gemini", event: "AfterAgent", session: "d7b3f93e" }],
      [
        "after Bash",
        {
          kind: "tool_call",
          agent: "codex",
          event: "PostToolUse",
          session: "01a216bf",
          turn: "01a216bf-891b",
          tool: "Bash",
          call: "c1",
        },
      ],
      [
        "before Bash",
        {
          kind: "tool_call",
          agent: "claude-code",
          event: "PreToolUse",
          session: "bc402756",
          turn: "b2da4a6d",
          tool: "Bash",
          call: "toolu_1",
        },
      ],
      ["", { kind: "person" }],
    ],
  );
  for (const input of [
    "",
    "no JSON",
    "[]",
    '{"cwd": 7}',
    '{"cwd": "relative"}',
    '{"cwd": "/nowhere/at/all"}',
    JSON.stringify({ cwd: SCRATCH }),
  ])
    assert.deepEqual(hook("claude-code", input), silent, input);
});

test("a hook records the command of a shell tool, but not the patch of apply_patch", () => {
  const folder = newProject();
  cairnOk(["save", folder]);
  for (const tool_name of ["Bash", "run_shell_command", "apply_patch", "mcp__files__edit"]) {
    fs.writeFileSync(path.join(folder, "a.txt"), `${tool_name}\n`);
    const facts = { ...FACTS.codex, tool_name, tool_input: { command: "*** Begin Patch" }, cwd: folder };
    assert.equal(hook("codex", JSON.stringify(facts)).status, 0);
  }
  assert.deepEqual(
    eventsOf(folder).map(({ tool, command }) => [tool, command]),
    [
      ["mcp__files__edit", null],
      ["apply_patch", null],
      ["run_shell_command", "*** Begin Patch"],
      ["Bash", "*** Begin Patch"],
    ],
  );
});

test("points leave out the packages of opencode's plugin, unless the person has a .cairnignore there", () => {
  for (const [given, isIn] of [
    [{}, false],
    [{ ".opencode/.cairnignore": "mine\n" }, true],
  ] as [Record<string, string>, boolean][]) {
    const folder = newProject(given);
    install(folder, "opencode");
    fs.mkdirSync(path.join(folder, ".opencode/node_modules/x"), { recursive: true });
    fs.mkdirSync(path.join(folder, "node_modules/x"), { recursive: true });
    cairnOk(["save", folder]);
    const { found } = cairnOk(["find", "**/x", "-C", folder]).data as { found: { path: string }[] };
    assert.deepEqual(
      found.map((each) => each.path),
      [...(isIn ? [".opencode/node_modules/x"] : []), "node_modules/x"],
    );
    if (isIn) assert.equal(read(folder, ".opencode/.cairnignore"), "mine\n");
  }
});

test("opencode's plugin runs the hook at each event, with the prompt or the shell command", async () => {
  const folder = newProject();
  install(folder, "opencode");
  type Plugin = Record<string, (call: object, more?: object) => Promise<void>>;
  const { Cairn } = (await import(pathToFileURL(path.join(folder, ".opencode/plugins/cairn.js")).href)) as {
    Cairn: (on: object) => Promise<Plugin>;
  };
  const plugin = await Cairn({ directory: folder });
  const change = (text: string): void => fs.writeFileSync(path.join(folder, "a.txt"), text);
  change("one\n");
  const parts = [{ type: "file" }, { type: "text", text: "\n fix the bug \nplease" }];
  await plugin["chat.message"]!({ sessionID: "ses_1" }, { message: { id: "msg_1" }, parts });
  change("two\n");
  await plugin["tool.execute.before"]!(
    { tool: "bash", sessionID: "ses_1", callID: "c" },
    { args: { command: "make test" } },
  );
  change("three\n");
  await plugin["tool.execute.after"]!({ tool: "bash", sessionID: "ses_1", callID: "c", args: {} }, { output: "" });
  assert.deepEqual(
    eventsOf(folder).map(({ event, prompt, command }) => [event, prompt ?? command]),
    [
      ["after", null],
      ["before", "make test"],
      ["prompt", "\n fix the bug \nplease"],
      ["InstallCheck", null],
    ],
  );
});

test("an MCP server started with only the variables of its entry saves into the person's workspace", async (t) => {
  const folder = newProject();
  cairnOk(["agent", "install", "codex", "-C", folder], { own: true });
  const { command, args, env } = (parse(read(HOME, ".codex/config.toml")) as Loose)["mcp_servers"].cairn as {
    command: string;
    args: string[];
    env: Record<string, string>;
  };
  const passed = { ...env, HOME: process.env["HOME"]!, PATH: `${path.dirname(process.execPath)}:/usr/bin:/bin` };
  const client = new Client({ name: "test", version: "1" });
  t.after(async () => client.close());
  await client.connect(new StdioClientTransport({ command, args: [...args], cwd: folder, env: passed }));
  fs.writeFileSync(path.join(folder, "a.txt"), "by the agent\n");
  const saved = (await client.callTool({ name: "save", arguments: {} })) as Loose;
  assert.equal(saved["structuredContent"].made, true);
  const points = cairnOk(["history", "-C", folder]).data["save_points"] as { save_point_id: string }[];
  assert.equal(points[0]!.save_point_id, saved["structuredContent"].save_point_id);
});

test("installed hooks and MCP entries run if the Node in PATH is too old", () => {
  const folder = newProject();
  const old = path.join(SCRATCH, "old-node");
  fs.mkdirSync(old);
  fs.writeFileSync(path.join(old, "node"), "#!/bin/sh\necho 'this Node is too old' >&2\nexit 2\n", { mode: 0o755 });
  const PATH = `${old}:/usr/bin:/bin`;
  cairnOk(["agent", "install", "claude-code", "-C", folder], { own: true, env: { PATH } });
  const { hooks } = json(HOME, ".claude/settings.json");
  fs.writeFileSync(path.join(folder, "a.txt"), "by the hook\n");
  const input = JSON.stringify({ ...FACTS["claude-code"], cwd: folder });
  const env = { ...process.env, PATH };
  const done = spawnSync("sh", ["-c", hooks.Stop[0].hooks[0].command as string], { input, encoding: "utf8", env });
  assert.deepEqual([done.status, done.stderr], [0, ""]);
  const [newest] = cairnOk(["history", "-C", folder]).data["save_points"] as { message: string }[];
  assert.equal(newest!.message, "before Bash");
  const { command, args } = json(HOME, ".claude.json")["mcpServers"].cairn as { command: string; args: string[] };
  const served = spawnSync(command, args, { cwd: folder, input: "", encoding: "utf8", env });
  assert.deepEqual([served.status, served.stderr], [0, ""]);
});

test("restore and undo name the agents whose hooks the restored state does not have", () => {
  const folder = newProject();
  const idOfSave = (): string =>
    (cairnOk(["save", folder]).data["save_point"] as { save_point_id: string }).save_point_id;
  const without = idOfSave();
  install(folder, "claude-code");
  install(folder, "gemini");
  const installed = idOfSave();
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  assert.deepEqual(cairnOk(["restore", "head", "-C", folder]).warnings, []);
  const lost = ["claude-code", "gemini"].map((tool) => `this state does not have the hooks of ${tool}`);
  const named = ({ warnings }: { warnings: string[] }): string[] => warnings.map((each) => each.split(";")[0]!);
  const back = cairnOk(["restore", without, "-C", folder]);
  assert.deepEqual(named(back), lost);
  assert.match(back.warnings[0]!, /agent install claude-code/);
  assert.deepEqual(cairnOk(["restore", installed, "-C", folder]).warnings, []);
  assert.deepEqual(named(cairnOk(["undo", "-C", folder])), lost);
});

test("a hook exits 0 even if its arguments are wrong or its Node is too old", () => {
  for (const args of [["claude-code", "--no-such"], [], ["emacs"], ["claude-code", "more"]])
    assert.equal(spawnSync(process.execPath, [COMMAND, "agent", "hook", ...args], { input: "{}" }).status, 0);
  const system = spawnSync("/usr/bin/node", ["--version"], { encoding: "utf8" });
  if (system.status !== 0 || Number.parseInt(system.stdout.slice(1), 10) >= 24) return;
  const done = spawnSync("/usr/bin/node", [COMMAND, "agent", "hook", "codex"], { input: "{}", encoding: "utf8" });
  assert.equal(done.status, 0);
  assert.match(done.stderr, /Node 24 or newer is needed/);
});

test("a hook exits 0 on its own or on SIGTERM if the daemon never answers the hook's call", async (t) => {
  const folder = newProject();
  cairnOk(["save", folder]);
  const socket = path.join(SCRATCH, "endless.sock");
  let taken = (): void => undefined;
  const server = createServer((request, response) => {
    if (request.url === "/v1/ready") return void response.end();
    response.writeHead(200).flushHeaders();
    taken();
  }).listen(socket);
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  for (const isTold of [true, false]) {
    const begun = new Promise<void>((done) => (taken = done));
    const child = spawn(process.execPath, [COMMAND, "agent", "hook", "codex", "--verbose"], {
      env: { ...process.env, CAIRN_SOCKET: socket },
    });
    t.after(() => child.kill("SIGKILL"));
    const ended = once(child, "exit");
    child.stdin.end(JSON.stringify({ ...FACTS.codex, cwd: folder }));
    await begun;
    if (isTold) child.kill("SIGTERM");
    assert.deepEqual(await ended, [0, null]);
  }
});
