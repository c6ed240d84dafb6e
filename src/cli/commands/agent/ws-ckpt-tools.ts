import { dirname, join } from "node:path";
import type { Edit } from "./edit.ts";

/**
 * Plugins of OpenClaw and Hermes, which make points at the calls at which the plugins of ws-ckpt make snapshots: the start of a session
 * and the end of a turn; besides before a turn and around tool calls. As there, a turn has an id of 8 hex digits.
 */

export interface Plugin {
  /** program and arguments of the hook */
  words: readonly string[];
  each: "turn" | "tool";
  /** the plugin's main file */
  file: string;
}

const DESCRIPTION = "Makes save points before and after each turn: runs `cairn agent hook`";

const writtenFor = (tool: string): string =>
  `Written by \`cairn agent install ${tool}\`; \`cairn agent remove ${tool}\` takes it away. It runs: cairn agent hook ${tool}`;

/** `settings`: OpenClaw's own file, in which a plugin needs the right to see the end of a turn. */
export function openclawPlugin({ words, each, file }: Plugin, settings: string): Edit[] {
  const beside = (name: string, value: object): Edit => ({
    form: "file",
    file: join(dirname(file), name),
    text: `${JSON.stringify(value, null, 2)}\n`,
  });
  const workspace = { type: "string", description: "folder that is saved, if it is not OpenClaw's workspace" };
  return [
    beside("package.json", {
      name: "cairn",
      version: "1.0.0",
      description: DESCRIPTION,
      type: "module",
      openclaw: { extensions: ["./index.js"] },
    }),
    beside("openclaw.plugin.json", {
      id: "cairn",
      name: "Cairn",
      description: DESCRIPTION,
      activation: { onStartup: true },
      configSchema: { type: "object", additionalProperties: false, properties: { workspace } },
    }),
    { form: "file", file, text: openclawText(words, each) },
    {
      form: "member",
      file: settings,
      syntax: "jsonc",
      path: ["plugins", "entries", "cairn"],
      value: { enabled: true, hooks: { allowConversationAccess: true } },
    },
  ];
}

/** A function in JavaScript that runs the hook, and ends after 3 s or, if it need not wait, at once. It never throws. */
export function hookFunction([program, ...args]: readonly string[]): string[] {
  return [
    "const hook = (facts, waits) =>",
    "  new Promise((done) => {",
    "    try {",
    `      const child = spawn(${JSON.stringify(program)}, ${JSON.stringify(args)}, {`,
    '        stdio: ["pipe", "ignore", "ignore"],',
    "        detached: !waits,",
    "      });",
    "      const late = setTimeout(done, 3000);",
    "      const end = () => (clearTimeout(late), done());",
    '      child.on("error", end).on("exit", end);',
    '      child.stdin.on("error", () => {});',
    "      child.stdin.end(JSON.stringify(facts));",
    "      if (waits) return;",
    "      child.unref();",
    "      end();",
    "    } catch {",
    "      done();",
    "    }",
    "  });",
  ];
}

/** OpenClaw blocks a tool call whose handler throws, so none does. */
function openclawText(words: readonly string[], each: "turn" | "tool"): string {
  const on = (event: string, ...body: string[]): string[] => [
    `    on("${event}", async (event, ctx) => {`,
    ...body.map((line) => `      ${line}`),
    "    });",
  ];
  return [
    `// ${writtenFor("openclaw")}`,
    'import { spawn } from "node:child_process";',
    'import { randomBytes } from "node:crypto";',
    'import { homedir } from "node:os";',
    "",
    ...hookFunction(words),
    "",
    "export default {",
    '  id: "cairn",',
    '  name: "Cairn",',
    "  register(api) {",
    "    const texts = new Map();",
    "    const turns = new Map();",
    "    const folderOf = (ctx) =>",
    "      (api.pluginConfig?.workspace ?? ctx.workspaceDir ?? api.config?.agents?.defaults?.workspace ?? `~/.openclaw/workspace`).replace(/^~(?=\\/|$)/, homedir());",
    "    const sessionOf = (event, ctx) => ctx.sessionKey ?? event.sessionKey ?? ctx.sessionId ?? event.sessionId;",
    "    const on = (name, handle) =>",
    "      api.on(name, async (event, ctx) => {",
    "        try {",
    "          await handle(event ?? {}, ctx ?? {});",
    "        } catch {}",
    "      });",
    "    const newTurn = (event, ctx) => {",
    "      const session = sessionOf(event, ctx);",
    "      const key = ctx.runId ?? event.runId ?? event.prompt;",
    "      const of = texts.has(session) ? session : undefined;",
    "      const prompt = event.currentUserMessage || texts.get(of) || event.prompt;",
    "      texts.delete(of);",
    '      return { key, prompt, facts: { session, turn: randomBytes(4).toString("hex"), cwd: folderOf(ctx) } };',
    "    };",
    "    const begun = async (event, ctx) => {",
    "      const session = sessionOf(event, ctx);",
    "      const open = turns.get(session);",
    "      if (open !== undefined && (ctx.runId ?? event.runId ?? event.prompt ?? open.key) === open.key) return open.facts;",
    "      const turn = newTurn(event, ctx);",
    "      turns.set(session, turn);",
    '      await hook({ event: "prompt", prompt: turn.prompt, ...turn.facts }, true);',
    "      return turn.facts;",
    "    };",
    ...on(
      "session_start",
      'await hook({ event: "session_start", session: sessionOf(event, ctx), cwd: folderOf(ctx) }, true);',
    ),
    ...on("message_received", "texts.set(sessionOf(event, ctx), event.content);"),
    ...on("before_prompt_build", "await begun(event, ctx);"),
    ...(each === "tool"
      ? [
          ...on(
            "before_tool_call",
            "const { toolName: tool, toolCallId: call, params } = event;",
            'await hook({ event: "before", ...(await begun(event, ctx)), tool, call, command: params?.command }, true);',
          ),
          ...on(
            "after_tool_call",
            "const { toolName: tool, toolCallId: call } = event;",
            'await hook({ event: "after", ...(await begun(event, ctx)), tool, call }, true);',
          ),
        ]
      : []),
    ...on(
      "agent_end",
      "const session = sessionOf(event, ctx);",
      "const open = turns.get(session);",
      "const { facts, prompt } = open === undefined ? newTurn(event, ctx) : { facts: open.facts };",
      "turns.delete(session);",
      'await hook({ event: "stop", prompt, ...facts }, true);',
    ),
    "  },",
    "};",
    "",
  ].join("\n");
}

export function hermesPlugin({ words, each, file }: Plugin): Edit[] {
  const hooks = [
    "on_session_start",
    "pre_llm_call",
    ...(each === "tool" ? ["pre_tool_call", "post_tool_call"] : []),
    "on_session_end",
  ];
  const manifest = [
    `# ${writtenFor("hermes")}`,
    "name: cairn",
    'version: "1.0.0"',
    `description: "${DESCRIPTION}"`,
    "provides_hooks:",
    ...hooks.map((name) => `  - ${name}`),
    "",
  ];
  return [
    { form: "file", file: join(dirname(file), "plugin.yaml"), text: manifest.join("\n") },
    { form: "file", file, text: hermesText(words, hooks) },
  ];
}

/** Hermes blocks a tool call whose callback raises or takes 30 s, so none does. */
function hermesText(words: readonly string[], hooks: readonly string[]): string {
  return [
    `# ${writtenFor("hermes")}`,
    "import json",
    "import os",
    "import secrets",
    "import subprocess",
    "",
    `COMMAND = ${JSON.stringify(words)}`,
    "turns = {}",
    "",
    "",
    "def hook(event, session, **facts):",
    "    try:",
    '        folder = os.path.expanduser(os.environ.get("TERMINAL_CWD", ""))',
    "        cwd = os.path.abspath(folder) if os.path.isdir(folder) else os.getcwd()",
    "        facts.update(event=event, session=session, turn=turns.get(session), cwd=cwd)",
    "        child = subprocess.Popen(",
    "            COMMAND, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True",
    "        )",
    '        child.communicate(json.dumps(facts, ensure_ascii=False).encode("utf-8", "replace"), timeout=3)',
    "    except Exception:",
    "        pass",
    "",
    "",
    "def text_of(message):",
    "    if isinstance(message, list):",
    '        return " ".join(str(part["text"]) for part in message if isinstance(part, dict) and "text" in part)',
    "    return message if isinstance(message, str) else None",
    "",
    "",
    'def on_session_start(session_id="", **_):',
    '    hook("session_start", session_id)',
    "",
    "",
    'def pre_llm_call(session_id="", user_message="", **_):',
    "    turns[session_id] = secrets.token_hex(4)",
    '    hook("prompt", session_id, prompt=text_of(user_message))',
    "",
    "",
    'def pre_tool_call(tool_name="", args=None, session_id="", tool_call_id="", **_):',
    '    command = args.get("command") if isinstance(args, dict) else None',
    '    hook("before", session_id, tool=tool_name, call=tool_call_id, command=text_of(command))',
    "",
    "",
    'def post_tool_call(tool_name="", session_id="", tool_call_id="", **_):',
    '    hook("after", session_id, tool=tool_name, call=tool_call_id)',
    "",
    "",
    'def on_session_end(session_id="", **_):',
    "    # Hermes calls it at the end of each turn, and again at its exit.",
    "    if session_id in turns:",
    '        hook("stop", session_id)',
    "        turns.pop(session_id)",
    "",
    "",
    "def register(ctx):",
    ...hooks.map((name) => `    ctx.register_hook("${name}", ${name})`),
    "",
  ].join("\n");
}
