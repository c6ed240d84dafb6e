import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import type { SavePoint, Turn } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

/** The plugins of OpenClaw and Hermes, driven by the calls that the two tools document, with the members that they document. */

buildCommand();
// A hook has little time for its save, and other tests run beside this one.
try {
  os.setPriority(-15);
} catch {
  // Only root may.
}
const HOME = process.env["HOME"]!;
const OPENCLAW = path.join(HOME, ".openclaw");
const HERMES = path.join(HOME, ".hermes/plugins/cairn");
let count = 0;

function newWorkspace(tool: string): string {
  const folder = path.join(SCRATCH, `${tool}-${count++}`);
  fs.mkdirSync(folder);
  write(folder, "one");
  assert.equal(install(tool, folder)["checked"], true);
  return folder;
}

/** In a process of its own, whose program the entries name. */
const install = (tool: string, folder: string): Record<string, unknown> =>
  cairnOk(["agent", "install", tool, "-C", folder], { own: true }).data;
const write = (folder: string, text: string): void => fs.writeFileSync(path.join(folder, "a.txt"), `${text}\n`);
const turnsOf = (folder: string): Turn[] => cairnOk(["turns", "-C", folder]).data["turns"] as Turn[];
const eventsOf = (folder: string): unknown[] =>
  (cairnOk(["history", "-C", folder]).data["save_points"] as SavePoint[]).map(({ cause }) => cause["event"]);

const summary = ({ agent, session, prompt, commands, tools, changed, ended_at: end }: Turn): unknown[] => [
  agent,
  session,
  prompt,
  commands,
  tools,
  changed,
  end !== null,
];

type Handler = (event?: object, ctx?: object) => Promise<unknown>;

/** Loads OpenClaw's plugin as OpenClaw does. */
async function loaded(config: object): Promise<(name: string, event?: object, ctx?: object) => Promise<void>> {
  const folder = path.join(OPENCLAW, "extensions/cairn");
  const { openclaw } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8")) as {
    openclaw: { extensions: [string] };
  };
  const manifest = JSON.parse(fs.readFileSync(path.join(folder, "openclaw.plugin.json"), "utf8")) as { id: string };
  const file = pathToFileURL(path.join(folder, openclaw.extensions[0])).href;
  const { default: plugin } = (await import(`${file}?${count++}`)) as {
    default: { id: string; register(api: object): void };
  };
  assert.deepEqual([manifest.id, plugin.id], ["cairn", "cairn"]);
  const handlers = new Map<string, Handler>();
  plugin.register({ config, on: (name: string, handle: Handler) => void handlers.set(name, handle) });
  return async (name, event, ctx) => {
    const handle = handlers.get(name);
    assert.ok(handle !== undefined, `no handler of ${name}`);
    // An answer of before_tool_call could block the call.
    assert.equal(await handle(event, ctx), undefined);
  };
}

test("OpenClaw's plugin makes points at its documented calls, with an id of 8 hex digits for each turn", async () => {
  const folder = newWorkspace("openclaw");
  const { plugins } = JSON.parse(fs.readFileSync(path.join(OPENCLAW, "openclaw.json"), "utf8")) as Record<
    string,
    object
  >;
  assert.deepEqual(plugins, { entries: { cairn: { enabled: true, hooks: { allowConversationAccess: true } } } });
  const call = await loaded({ agents: { defaults: { workspace: folder } } });
  const session = { sessionKey: "agent:main:main", sessionId: "u1", agentId: "main" };
  write(folder, "before the session");
  await call("session_start", { sessionId: "u1", sessionKey: "agent:main:main" }, session);
  assert.equal(eventsOf(folder)[0], "session_start");
  for (const [run, text] of [
    ["r1", "two"],
    ["r2", "three"],
  ] as const) {
    const ctx = { ...session, runId: run, workspaceDir: folder };
    const tool = { toolName: "exec", params: { command: `echo ${text}` }, runId: run, toolCallId: `call_${run}` };
    await call(
      "message_received",
      { from: "ann", content: `Write ${text}\nplease` },
      { channelId: "chat", ...session },
    );
    await call("before_prompt_build", { prompt: `[history] Write ${text}`, messages: [] }, ctx);
    // OpenClaw builds a prompt again, for example after a compaction.
    await call("before_prompt_build", { prompt: `[compacted] Write ${text}`, messages: [] }, ctx);
    await call("before_tool_call", tool, { ...session, runId: run, toolName: "exec" });
    write(folder, text);
    await call("after_tool_call", { ...tool, result: {} }, { ...session, runId: run, toolName: "exec" });
    await call("agent_end", { runId: run, messages: [], success: true }, ctx);
  }
  const turns = turnsOf(folder);
  assert.deepEqual(turns.map(summary), [
    ["openclaw", "agent:main:main", "Write three", ["echo three"], 1, 1, true],
    ["openclaw", "agent:main:main", "Write two", ["echo two"], 1, 1, true],
  ]);
  cairnOk(["rewind", turns[1]!.turn_id, "-C", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "before the session\n");
});

test("OpenClaw's plugin lists a turn if only the three calls of ws-ckpt's plugin come, and never throws", async () => {
  const folder = newWorkspace("openclaw");
  const call = await loaded({ agents: { defaults: { workspace: folder } } });
  await call("session_start", {});
  await call("message_received", { from: "ann", content: "Write two" });
  write(folder, "two");
  await call("agent_end", { messages: [], success: true });
  assert.deepEqual(
    turnsOf(folder).map(({ agent, prompt }) => [agent, prompt]),
    [["openclaw", "Write two"]],
  );
  for (const name of [
    "session_start",
    "message_received",
    "before_prompt_build",
    "before_tool_call",
    "after_tool_call",
    "agent_end",
  ])
    await call(name);
});

test("agent remove gives OpenClaw's and Hermes' files back, and leaves settings that are no JSON", () => {
  const env = { HOME: path.join(SCRATCH, "home-of-remove"), XDG_STATE_HOME: path.join(SCRATCH, "state-of-remove") };
  const settings = path.join(env.HOME, ".openclaw/openclaw.json");
  const folder = path.join(SCRATCH, "removed");
  fs.mkdirSync(folder);
  for (const before of [null, '{\n  // mine\n  "plugins": { "allow": ["cairn"], },\n}\n'])
    for (const tool of ["openclaw", "hermes"]) {
      if (before !== null) {
        fs.mkdirSync(path.dirname(settings), { recursive: true });
        fs.writeFileSync(settings, before);
      }
      cairnOk(["agent", "install", tool, "-C", folder], { own: true, env });
      cairnOk(["agent", "remove", tool, "-C", folder], { env });
      assert.equal(before, fs.existsSync(settings) ? fs.readFileSync(settings, "utf8") : null);
      assert.ok(!fs.existsSync(path.join(env.HOME, ".openclaw/extensions")));
      assert.ok(!fs.existsSync(path.join(env.HOME, ".hermes")));
    }
  fs.writeFileSync(settings, "{ plugins: {} }\n");
  assert.equal(cairn(["agent", "install", "openclaw", "-C", folder], { env }).error?.code, "refused");
  assert.equal(fs.readFileSync(settings, "utf8"), "{ plugins: {} }\n");
});

/** Loads Hermes' plugin as Hermes does, and makes calls with keyword arguments; `write` writes the file. */
const DRIVER = `
import importlib.util, json, sys
plugin, calls = sys.argv[1], json.load(sys.stdin)
spec = importlib.util.spec_from_file_location("hermes_plugins.cairn", plugin + "/__init__.py", submodule_search_locations=[plugin])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
hooks = {}
class Context:
    def register_hook(self, name, callback):
        hooks[name] = callback
module.register(Context())
for name, given in calls:
    if name == "write":
        open("a.txt", "w").write(given)
    else:
        assert hooks[name](telemetry_schema_version="hermes.observer.v1", **given) is None
print(json.dumps(sorted(hooks)))
`;

function drive(folder: string, calls: readonly (readonly [string, unknown])[]): string[] {
  const done = spawnSync("python3", ["-c", DRIVER, HERMES], {
    cwd: folder,
    input: JSON.stringify(calls),
    encoding: "utf8",
    env: { ...process.env, TERMINAL_CWD: "" },
  });
  assert.equal(done.status, 0, done.stderr);
  return JSON.parse(done.stdout) as string[];
}

const skip = spawnSync("python3", ["--version"]).status === 0 ? false : "no python3 is installed";

test("Hermes' plugin makes points at its documented calls, with an id of 8 hex digits for each turn", { skip }, () => {
  const folder = newWorkspace("hermes");
  const turn = { session_id: "s1", task_id: "t", turn_id: "opaque", model: "m", platform: "cli" };
  const tool = {
    tool_name: "terminal",
    args: { command: "echo two" },
    session_id: "s1",
    task_id: "t",
    tool_call_id: "c1",
  };
  const trusted = (): unknown =>
    (
      cairnOk(["agent", "status", "-C", folder]).data as { folders: { agents: { tool: string; trusted: unknown }[] }[] }
    ).folders[0]!.agents.find((each) => each.tool === "hermes")!.trusted;
  assert.equal(trusted(), null, "it may not be enabled");
  write(folder, "before the session");
  const hooks = drive(folder, [
    ["on_session_start", { session_id: "s1", model: "m", platform: "cli" }],
    [
      "pre_llm_call",
      { ...turn, user_message: "Write two \ud83d\nplease", conversation_history: [], is_first_turn: true },
    ],
    ["pre_tool_call", tool],
    ["write", "two"],
    ["post_tool_call", { ...tool, result: "{}", duration_ms: 3, status: "ok" }],
    ["on_session_end", { ...turn, completed: true, interrupted: false }],
    [
      "pre_llm_call",
      { ...turn, user_message: [{ type: "image" }, { type: "text", text: "Write three" }], is_first_turn: false },
    ],
    ["on_session_end", { ...turn, completed: true }],
    // Once more at the exit, in the shape of earlier versions.
    ["on_session_end", { session_id: "s1", completed: true, interrupted: false }],
  ]);
  const manifest = fs.readFileSync(path.join(HERMES, "plugin.yaml"), "utf8");
  assert.deepEqual([...manifest.matchAll(/^ {2}- (\w+)$/gm)].map(([, name]) => name).toSorted(), hooks);
  const turns = turnsOf(folder);
  assert.deepEqual(turns.map(summary), [
    ["hermes", "s1", "Write three", [], 0, 0, true],
    ["hermes", "s1", "Write two ?", ["echo two"], 1, 1, true],
  ]);
  assert.match(turns[1]!.turn_id, /^[0-9a-f]{8}$/);
  assert.equal(trusted(), true, "it has called the hook");
  assert.ok(eventsOf(folder).includes("session_start"));
  cairnOk(["rewind", turns[1]!.turn_id, "-C", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "before the session\n");
});
