import { join } from "node:path";
import { decidingVariables } from "../../../daemon/places.ts";
import { shellQuote } from "../../render/format.ts";
import { FAILED_PART, HOOK_EVENTS, IF_COVERED, TOOLS } from "../../../agents/tools.ts";
import type { Environment } from "../../../fs/home.ts";
import type { Edit } from "./edit.ts";
import { hermesPlugin, hookFunction, openclawPlugin } from "./ws-ckpt-tools.ts";

/** Entries for each tool, in the tool's documented files and forms. */

export interface Scope {
  /** Folder of the project, for entries for everybody, which find `cairn` by PATH. null: entries of the user, with `--if-covered`. */
  project: string | null;
  env: Environment;
  /** Program and arguments of this command, for the entries of the user. */
  command: readonly string[];
  /** When hooks make points: after turns only, or after tool calls too. */
  each: "turn" | "tool";
  /** Address of a daemon's MCP server, to which the tool connects instead of starting a server. */
  http?: string | undefined;
}

/** Variable in which a tool finds its token for a daemon's MCP server. */
export const TOKEN_VARIABLE = "CAIRN_TOKEN";

/** Returns the entries of a tool. */
export function editsOf(tool: string, scope: Scope): Edit[] {
  const { project, env, http } = scope;
  const files = TOOLS[tool]!.files(project, env);
  const { program, args, variables } = serverOf(scope, tool);
  switch (tool) {
    case "claude-code":
    case "gemini": {
      const [here, far] =
        tool === "gemini"
          ? [{}, { httpUrl: http, headers: bearer(`$${TOKEN_VARIABLE}`) }]
          : [{ type: "stdio" }, { type: "http", url: http, headers: bearer(`\${${TOKEN_VARIABLE}}`) }];
      const value = http === undefined ? { ...here, command: program, args, ...variables } : far;
      const { syntax } = HOOKS[tool];
      return [
        { form: "member", file: files.servers, syntax, path: ["mcpServers", "cairn"], value },
        ...hooks(scope, tool, files.hooks),
        ...(files.commands === undefined ? [] : [slashCommand(files.commands)]),
      ];
    }
    case "codex": {
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
        { form: "table", file: files.servers, name: "mcp_servers.cairn", lines },
        ...hooks(scope, tool, files.hooks),
      ];
    }
    case "openclaw":
      return openclawPlugin({ ...scope, words: hookWords(scope, tool), file: files.hooks }, files.servers);
    case "hermes":
      return hermesPlugin({ ...scope, words: hookWords(scope, tool), file: files.hooks });
    default: {
      const environment = variables.env === undefined ? {} : { environment: variables.env };
      const value =
        http === undefined
          ? { type: "local", command: [program, ...args], ...environment, enabled: true }
          : { type: "remote", url: http, headers: bearer(`{env:${TOKEN_VARIABLE}}`), enabled: true };
      return [
        { form: "member", file: files.servers, syntax: "jsonc", path: ["mcp", "cairn"], value, fresh: OPENCODE_FRESH },
        { form: "file", file: files.hooks, text: pluginText(scope) },
        ...(files.packages === undefined ? [] : [withoutPackages(files.packages)]),
        slashCommand(files.commands!),
      ];
    }
  }
}

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

const bearer = (token: string) => ({ Authorization: `Bearer ${token}` });

const EMPTY = {
  protocolVersion: "2024-11-05",
  capabilities: { tools: {} },
  serverInfo: { name: "cairn", version: "0" },
};
const answer = (method: string, result: object): string =>
  `/"method":"${method}"/s/.*"id":\\([0-9]*\\).*/{"jsonrpc":"2.0","id":\\1,"result":${JSON.stringify(result)}}/p`;
/** Answers a tool's first requests if there is no `cairn`, so that the tool does not report a failed server. The script has no `$`, because tools expand variables. */
const NO_SERVER = `sed -un ${shellQuote(`${answer("initialize", EMPTY)};${answer("tools.list", { tools: [] })}`)}`;

/** True if `cairn` is in PATH, for the shell of a tool. */
const IS_THERE = "command -v cairn >/dev/null 2>&1";

/** The MCP server as a tool starts it, with the variables that decide where records lie, because Codex passes none of them. */
function serverOf(
  { command, env, project }: Scope,
  tool: string,
): { program: string; args: string[]; variables: { env?: object } } {
  if (project !== null)
    return { program: "sh", args: ["-c", `${IS_THERE} && exec cairn mcp; ${NO_SERVER}`], variables: {} };
  const [program = "", ...args] = command;
  const variables = decidingVariables({ ...env });
  return {
    program,
    args: [...args, "mcp", IF_COVERED, tool],
    variables: Object.keys(variables).length === 0 ? {} : { env: variables },
  };
}

/** Program and arguments of a tool's hook. PATH is not needed for the hook of a user. */
function hookWords({ command, env, project }: Scope, tool: string): string[] {
  if (project !== null) return ["cairn", "agent", "hook", tool];
  const variables = Object.entries(decidingVariables({ ...env })).map(([name, value]) => `${name}=${value}`);
  const prefix = variables.length === 0 ? [] : ["/usr/bin/env", ...variables];
  return [...prefix, ...command, "agent", "hook", tool, IF_COVERED];
}

/** The hook as a line for a tool's shell. For everybody it succeeds if there is no `cairn`. */
export function hookLine(scope: Scope, tool: string, more: readonly string[] = []): string {
  const line = [...hookWords(scope, tool), ...more].map(shellQuote).join(" ");
  return scope.project === null ? line : `${IS_THERE} && ${line} || true`;
}

/** True for a file of a project with hooks for everybody; those of earlier builds name a program, and variables of the machine. */
export const isForEverybody = (text: string): boolean =>
  [IS_THERE, 'spawn("cairn", ', 'COMMAND = ["cairn",'].some((words) => text.includes(words));

const HOOKS = {
  "claude-code": { syntax: "json", timeout: 30 },
  codex: { syntax: "json", timeout: 30 },
  gemini: { syntax: "json with comments", timeout: 30_000 },
} as const;

function hooks(scope: Scope, tool: keyof typeof HOOKS, file: string): Edit[] {
  const { syntax, timeout } = HOOKS[tool];
  const events = HOOK_EVENTS[tool]!;
  const handlers = [{ type: "command", command: hookLine(scope, tool), timeout }];
  const element = (event: string, value: object): Edit => ({
    form: "element",
    file,
    syntax,
    path: ["hooks", event],
    value,
  });
  return [
    ...events.turn.map((event) => element(event, { hooks: handlers })),
    ...(scope.each === "tool" ? events.tool.map((event) => element(event, { matcher: "*", hooks: handlers })) : []),
  ];
}

/** A plugin in opencode's form, which runs the hook. The plugin never throws, because opencode would refuse the tool call. */
function pluginText(scope: Scope): string {
  // The lines are built separately: the build would take an import in a text for a real import.
  const call = (event: string, facts: string): string =>
    `hook({ event: "${event}", session: ${facts}, cwd: directory }`;
  const ofTool = "call.sessionID, tool: call.tool, call: call.callID";
  return [
    "// Written by `cairn agent install opencode`; `cairn agent remove opencode` takes it away. It runs: cairn agent hook opencode",
    'import { spawn } from "node:child_process";',
    "",
    ...hookFunction(hookWords(scope, "opencode")),
    "",
    "const turns = {};",
    "export const Cairn = async ({ directory }) => ({",
    '  "chat.message": (call, { message, parts }) => {',
    "    turns[call.sessionID] = message?.id;",
    `    return ${call("prompt", 'call.sessionID, turn: message?.id, prompt: parts?.find((part) => part.type === "text" && !part.synthetic)?.text')}, true);`,
    "  },",
    ...(scope.each === "tool"
      ? [
          `  "tool.execute.before": (call, { args }) => ${call("before", `${ofTool}, command: args?.command`)}, true),`,
          `  "tool.execute.after": (call) => ${call("after", ofTool)}, true),`,
        ]
      : []),
    "  event: async ({ event }) => {",
    ...(scope.each === "tool"
      ? [
          "    const { part } = event.properties ?? {};",
          `    if (event.type === "${FAILED_PART}" && part?.type === "tool" && part.state?.status === "error")`,
          `      return ${call("after", "part.sessionID, tool: part.tool, call: part.callID, tool_calls: [{ tool_use_id: part.callID, tool_response: part.state.error }]")}, true);`,
        ]
      : []),
    `    if (event.type === "session.idle") ${call("stop", "event.properties.sessionID, turn: turns[event.properties.sessionID]")}, false);`,
    "  },",
    "});",
    "",
  ].join("\n");
}
