import { existsSync } from "node:fs";
import { join } from "node:path";
import { readSmallFile } from "../../../fs/durable.ts";
import { absolutePath, homeDirectory } from "../../../fs/users.ts";
import { shellQuote } from "../../render/format.ts";
import { type Edit, MARK } from "./edit.ts";

/**
 * Entries that each tool wants, in the files and forms that it documents: of Claude Code 2.1, Codex 0.169, Gemini CLI 0.61,
 * opencode 1.18.
 */

type Environment = Record<string, string | undefined>;

export interface Scope {
  /** Folder of the project; null: for all of a user's. */
  project: string | null;
  env: Environment;
  /** Program and arguments that are this command. */
  command: readonly string[];
  /** Points at turns alone, or at tool calls too. */
  each: "turn" | "tool";
}

export interface AgentTool {
  title: string;
  edits(scope: Scope): Edit[];
  /** Step that its user has to take before the tool takes the entries. */
  afterwards: string;
}

export const AGENTS: Readonly<Record<string, AgentTool>> = {
  "claude-code": {
    title: "Claude Code",
    afterwards: "start `claude` in the folder: it asks whether the project's MCP server may be used",
    edits(scope) {
      const { project, env, command } = scope;
      const home = absolutePath(env, "CLAUDE_CONFIG_DIR");
      const settings = join(
        project === null ? (home ?? join(homeDirectory(env), ".claude")) : join(project, ".claude"),
        "settings.json",
      );
      const servers = project === null ? join(home ?? homeDirectory(env), ".claude.json") : join(project, ".mcp.json");
      const [program, ...args] = command;
      return [
        {
          form: "member",
          file: servers,
          comments: false,
          path: ["mcpServers", "cairn"],
          value: { type: "stdio", command: program, args: [...args, "mcp"] },
        },
        ...hooks({ scope, file: settings, comments: false, tool: "claude-code", events: CLAUDE_EVENTS, timeout: 30 }),
      ];
    },
  },
  codex: {
    title: "Codex",
    afterwards: "approve the hooks in Codex with /hooks; until then Codex ignores them",
    edits(scope) {
      const { project, env, command } = scope;
      const folder =
        project === null
          ? (absolutePath(env, "CODEX_HOME") ?? join(homeDirectory(env), ".codex"))
          : join(project, ".codex");
      const [program, ...args] = command;
      const lines = [
        `command = ${JSON.stringify(program)}`,
        `args = [${[...args, "mcp"].map((each) => JSON.stringify(each)).join(", ")}]`,
      ];
      return [
        { form: "table", file: join(folder, "config.toml"), name: "mcp_servers.cairn", lines },
        ...hooks({
          scope,
          file: join(folder, "hooks.json"),
          comments: false,
          tool: "codex",
          events: CLAUDE_EVENTS,
          timeout: 30,
        }),
      ];
    },
  },
  gemini: {
    title: "Gemini CLI",
    afterwards: "trust the folder in Gemini CLI; otherwise it ignores the folder's settings",
    edits(scope) {
      const { project, env, command } = scope;
      const folder = project ?? absolutePath(env, "GEMINI_CLI_HOME") ?? homeDirectory(env);
      const file = join(folder, ".gemini", "settings.json");
      const [program, ...args] = command;
      return [
        {
          form: "member",
          file,
          comments: true,
          path: ["mcpServers", "cairn"],
          value: { command: program, args: [...args, "mcp"] },
        },
        ...hooks({ scope, file, comments: true, tool: "gemini", events: GEMINI_EVENTS, timeout: 30_000 }),
      ];
    },
  },
  opencode: {
    title: "opencode",
    afterwards: "restart opencode",
    edits(scope) {
      const { project, env, command } = scope;
      const user = join(absolutePath(env, "XDG_CONFIG_HOME") ?? join(homeDirectory(env), ".config"), "opencode");
      const folder = project ?? user;
      const named = ["opencode.jsonc", "opencode.json"].map((name) => join(folder, name));
      const file = named.find((each) => existsSync(each)) ?? named[1]!;
      const plugin = join(project === null ? user : join(project, ".opencode"), "plugins", "cairn.js");
      return [
        {
          form: "member",
          file,
          comments: true,
          path: ["mcp", "cairn"],
          value: { type: "local", command: [...command, "mcp"], enabled: true },
        },
        { form: "file", file: plugin, text: pluginText(scope) },
      ];
    },
  },
};

/** Tools whose files in a project have hooks that `install` wrote. */
export function installedFor(project: string, env: Environment): string[] {
  const hasHook = ({ file }: Edit): boolean => {
    try {
      return readSmallFile(file, MOST_BYTES, true)?.includes(MARK) === true;
    } catch {
      return false;
    }
  };
  return Object.keys(AGENTS).filter((name) =>
    AGENTS[name]!.edits({ project, env, command: ["cairn"], each: "turn" }).some(hasHook),
  );
}

const MOST_BYTES = 64 << 20;

interface Events {
  turn: readonly [string, string];
  tool: readonly [string, string];
}
const CLAUDE_EVENTS: Events = { turn: ["UserPromptSubmit", "Stop"], tool: ["PreToolUse", "PostToolUse"] };
const GEMINI_EVENTS: Events = { turn: ["BeforeAgent", "AfterAgent"], tool: ["BeforeTool", "AfterTool"] };

/** Hooks in the form that these tools share. */
function hooks(on: {
  scope: Scope;
  file: string;
  comments: boolean;
  tool: string;
  events: Events;
  timeout: number;
}): Edit[] {
  const { scope, file, comments, tool, events, timeout } = on;
  const command = [...scope.command, "agent", "hook", tool].map(shellQuote).join(" ");
  const handler = { type: "command", command, timeout };
  const element = (event: string, value: object): Edit => ({
    form: "element",
    file,
    comments,
    path: ["hooks", event],
    value,
  });
  return [
    ...events.turn.map((event) => element(event, { hooks: [handler] })),
    ...(scope.each === "tool" ? events.tool.map((event) => element(event, { matcher: "*", hooks: [handler] })) : []),
  ];
}

/** A plugin in opencode's form, which runs the hook. It throws nothing: opencode would refuse the call. */
function pluginText({ command, each }: Scope): string {
  const [program, ...args] = [...command, "agent", "hook", "opencode"];
  // Lines by themselves: the build takes none that begins like a module's for text.
  const call = (event: string, facts: string): string =>
    `hook({ event: "${event}", session: ${facts}, cwd: directory }`;
  const ofTool = "call.sessionID, tool: call.tool";
  return [
    "// Written by `cairn agent install opencode`; `cairn agent remove opencode` takes it away. It runs: cairn agent hook opencode",
    'import { spawn } from "node:child_process";',
    "",
    "const hook = (facts, waits) =>",
    "  new Promise((done) => {",
    "    try {",
    `      const child = spawn(${JSON.stringify(program)}, ${JSON.stringify(args)}, {`,
    '        stdio: ["pipe", "ignore", "ignore"],',
    "        detached: !waits,",
    "      });",
    "      const late = setTimeout(done, 30000);",
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
    "",
    "export const Cairn = async ({ directory }) => ({",
    `  "chat.message": (call, { message }) => ${call("prompt", "call.sessionID, turn: message?.id")}, true),`,
    ...(each === "tool"
      ? [
          `  "tool.execute.before": (call) => ${call("before", ofTool)}, true),`,
          `  "tool.execute.after": (call) => ${call("after", ofTool)}, true),`,
        ]
      : []),
    "  event: async ({ event }) => {",
    `    if (event.type === "session.idle") ${call("stop", "event.properties.sessionID")}, false);`,
    "  },",
    "});",
    "",
  ].join("\n");
}
