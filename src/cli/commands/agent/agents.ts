import { existsSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { readSmallFile } from "../../../fs/durable.ts";
import { absolutePath, homeDirectory } from "../../../fs/users.ts";
import { decidingVariables } from "../../../daemon/places.ts";
import { shellQuote } from "../../render/format.ts";
import type { Edit, Syntax } from "./edit.ts";
import { MARK } from "./told.ts";

/** Entries for each tool, in the tool's documented files and forms: Claude Code 2.1, Codex 0.171, Gemini CLI 0.61, opencode 1.18. */

export type Environment = Record<string, string | undefined>;

export interface Scope {
  /** Folder of the project; null: for all projects of a user. */
  project: string | null;
  env: Environment;
  /** Program and arguments of this command. */
  command: readonly string[];
  /** When hooks make points: after turns only, or after tool calls too. */
  each: "turn" | "tool";
  /** Address of a daemon's MCP server, to which the tool connects instead of starting a server. */
  http?: string | undefined;
}

/** Variable in which a tool finds its token for a daemon's MCP server. */
export const TOKEN_VARIABLE = "CAIRN_TOKEN";

export interface AgentTool {
  title: string;
  edits(scope: Scope): Edit[];
  /** The step that the user must take before the tool uses the entries. */
  afterwards: string;
}

export const AGENTS: Readonly<Record<string, AgentTool>> = {
  "claude-code": {
    title: "Claude Code",
    afterwards: "start `claude` in the folder, trust the folder, and approve the MCP server `cairn` when it asks",
    edits(scope) {
      const { project, env, http } = scope;
      const home = absolutePath(env, "CLAUDE_CONFIG_DIR");
      const settings = join(
        project === null ? (home ?? join(homeDirectory(env), ".claude")) : join(project, ".claude"),
        "settings.json",
      );
      const servers = project === null ? join(home ?? homeDirectory(env), ".claude.json") : join(project, ".mcp.json");
      const { program, args, variables } = serverOf(scope);
      const value =
        http === undefined
          ? { type: "stdio", command: program, args, ...variables }
          : { type: "http", url: http, headers: bearer(`\${${TOKEN_VARIABLE}}`) };
      return [
        { form: "member", file: servers, syntax: "json", path: ["mcpServers", "cairn"], value },
        ...hooks({ scope, file: settings, syntax: "json", tool: "claude-code", events: CLAUDE_EVENTS, timeout: 30 }),
        slashCommand(join(dirname(settings), "commands")),
      ];
    },
  },
  codex: {
    title: "Codex",
    afterwards: "trust the project in Codex, and approve the hooks with /hooks; until then Codex ignores them",
    edits(scope) {
      const { project, env, http } = scope;
      const folder = project === null ? codexHome(env) : join(project, ".codex");
      const { program, args, variables } = serverOf(scope);
      const toml = (value: unknown): string => JSON.stringify(value);
      const pairs = Object.entries(variables.env ?? {}).map(([name, value]) => `${name} = ${toml(value)}`);
      const lines =
        http === undefined
          ? [
              `command = ${toml(program)}`,
              `args = [${args.map(toml).join(", ")}]`,
              ...(pairs.length === 0 ? [] : [`env = { ${pairs.join(", ")} }`]),
            ]
          : [`url = ${toml(http)}`, `bearer_token_env_var = ${toml(TOKEN_VARIABLE)}`];
      return [
        { form: "table", file: join(folder, "config.toml"), name: "mcp_servers.cairn", lines },
        ...hooks({
          scope,
          file: join(folder, "hooks.json"),
          syntax: "json",
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
      const { project, env, http } = scope;
      const file = join(project ?? geminiHome(env), ".gemini", "settings.json");
      const { program, args, variables } = serverOf(scope);
      const value =
        http === undefined
          ? { command: program, args, ...variables }
          : { httpUrl: http, headers: bearer(`$${TOKEN_VARIABLE}`) };
      return [
        { form: "member", file, syntax: "json with comments", path: ["mcpServers", "cairn"], value },
        ...hooks({ scope, file, syntax: "json with comments", tool: "gemini", events: GEMINI_EVENTS, timeout: 30_000 }),
      ];
    },
  },
  opencode: {
    title: "opencode",
    afterwards: "restart opencode",
    edits(scope) {
      const { project, env, http } = scope;
      const user = join(absolutePath(env, "XDG_CONFIG_HOME") ?? join(homeDirectory(env), ".config"), "opencode");
      const folder = project ?? user;
      const named = ["opencode.jsonc", "opencode.json"].map((name) => join(folder, name));
      const file = named.find((each) => existsSync(each)) ?? named[1]!;
      const plugin = join(project === null ? user : join(project, ".opencode"), "plugins", "cairn.js");
      const { program, args, variables } = serverOf(scope);
      const environment = variables.env === undefined ? {} : { environment: variables.env };
      const value =
        http === undefined
          ? { type: "local", command: [program, ...args], ...environment, enabled: true }
          : { type: "remote", url: http, headers: bearer(`{env:${TOKEN_VARIABLE}}`), enabled: true };
      return [
        { form: "member", file, syntax: "jsonc", path: ["mcp", "cairn"], value, fresh: OPENCODE_FRESH },
        { form: "file", file: plugin, text: pluginText(scope) },
        ...(project === null ? [] : [withoutPackages(join(project, ".opencode"))]),
        slashCommand(join(dirname(dirname(plugin)), "commands")),
      ];
    },
  },
};

/** opencode adds this member to a file without it. `agent remove` would then find another file than `install` wrote. */
const OPENCODE_FRESH = '{\n  "$schema": "https://opencode.ai/config.json"\n}\n';

/** opencode installs 4000 files of packages into each project with a plugin. The first hook would have to save them. */
function withoutPackages(folder: string): Edit {
  const lines = [
    "# Written by `cairn agent install`, as the plugin that runs `cairn agent hook`; `cairn agent remove` takes it away.",
    "# opencode installs these packages, and hides them from git.",
    "/node_modules/",
    "",
  ];
  return { form: "file", file: join(folder, ".cairnignore"), text: lines.join("\n"), yields: true };
}

/** `/cairn-rewind`, in the form of Claude Code and opencode. Both have their own commands called undo or rewind. */
function slashCommand(folder: string): Edit {
  const lines = [
    "---",
    "description: Restore the files to before an earlier turn, also what shell commands changed (Cairn)",
    "---",
    "Call the tool `turns` of the MCP server `cairn`. Its first turn is this one, which began with this command.",
    "",
    "If a number was given here: $ARGUMENTS",
    "then go back so many turns: call the tool `rewind` with the `turn_id` of that turn, where 1 is the turn before this one.",
    "Without a number, show the five turns before this one with prompt and changed files, and ask which turn to go back to.",
    "",
    "Say which files were restored, and that the tool `undo` of the same server reverts the rewind. If `rewind` is refused because another session",
    "changed files since, name the files and ask the person to run `cairn rewind` in a terminal.",
    "",
    "<!-- Written by `cairn agent install`, as the entries that run `cairn agent hook`; `cairn agent remove` takes it away. -->",
    "",
  ];
  return { form: "file", file: join(folder, "cairn-rewind.md"), text: lines.join("\n") };
}

export const codexHome = (env: Environment): string =>
  absolutePath(env, "CODEX_HOME") ?? join(homeDirectory(env), ".codex");
export const geminiHome = (env: Environment): string => absolutePath(env, "GEMINI_CLI_HOME") ?? homeDirectory(env);

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });

/** The MCP server as a tool starts it, with the variables that decide where records lie, because Codex passes none of them. */
function serverOf({ command, env }: Scope): { program: string; args: string[]; variables: { env?: object } } {
  const [program = "", ...args] = command;
  const variables = decidingVariables(env);
  return { program, args: [...args, "mcp"], variables: Object.keys(variables).length === 0 ? {} : { env: variables } };
}

/** Program and arguments of a tool's hook. */
export function hookWords({ command, env }: Scope, tool: string): string[] {
  const variables = Object.entries(decidingVariables(env)).map(([name, value]) => `${name}=${value}`);
  return [...(variables.length === 0 ? [] : ["env", ...variables]), ...command, "agent", "hook", tool];
}

/** Returns when the files of a tool got hooks that `install` wrote, in milliseconds; null without hooks. `project` null: the user's files. */
export function installedAt(tool: string, project: string | null, env: Environment): number | null {
  const times = AGENTS[tool]!.edits({ project, env, command: ["cairn"], each: "turn" }).flatMap(({ file }) => {
    try {
      const hasHook = readSmallFile(file, MOST_BYTES, true)?.includes(MARK) === true;
      return hasHook ? [statSync(file).mtimeMs] : [];
    } catch {
      return [];
    }
  });
  return times.length === 0 ? null : Math.max(...times);
}

/** Tools whose files in a project have hooks that `install` wrote. */
export function installedFor(project: string, env: Environment): string[] {
  return Object.keys(AGENTS).filter((name) => installedAt(name, project, env) !== null);
}

const MOST_BYTES = 64 << 20;

interface Events {
  turn: readonly [string, string];
  tool: readonly [string, string];
}
const CLAUDE_EVENTS: Events = { turn: ["UserPromptSubmit", "Stop"], tool: ["PreToolUse", "PostToolUse"] };
const GEMINI_EVENTS: Events = { turn: ["BeforeAgent", "AfterAgent"], tool: ["BeforeTool", "AfterTool"] };

function hooks(on: {
  scope: Scope;
  file: string;
  syntax: Syntax;
  tool: string;
  events: Events;
  timeout: number;
}): Edit[] {
  const { scope, file, syntax, tool, events, timeout } = on;
  const command = hookWords(scope, tool).map(shellQuote).join(" ");
  const handler = { type: "command", command, timeout };
  const element = (event: string, value: object): Edit => ({
    form: "element",
    file,
    syntax,
    path: ["hooks", event],
    value,
  });
  return [
    ...events.turn.map((event) => element(event, { hooks: [handler] })),
    ...(scope.each === "tool" ? events.tool.map((event) => element(event, { matcher: "*", hooks: [handler] })) : []),
  ];
}

/** A plugin in opencode's form, which runs the hook. The plugin never throws, because opencode would refuse the tool call. */
function pluginText(scope: Scope): string {
  const [program, ...args] = hookWords(scope, "opencode");
  // The lines are built separately: the build would take an import in a text for a real import.
  const call = (event: string, facts: string): string =>
    `hook({ event: "${event}", session: ${facts}, cwd: directory }`;
  const ofTool = "call.sessionID, tool: call.tool, call: call.callID";
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
    "",
    "export const Cairn = async ({ directory }) => ({",
    '  "chat.message": (call, { message, parts }) =>',
    `    ${call("prompt", 'call.sessionID, turn: message?.id, prompt: parts?.find((part) => part.type === "text" && !part.synthetic)?.text')}, true),`,
    ...(scope.each === "tool"
      ? [
          `  "tool.execute.before": (call, { args }) => ${call("before", `${ofTool}, command: args?.command`)}, true),`,
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
