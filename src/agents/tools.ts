import { existsSync, statSync } from "node:fs";
import { join } from "node:path";
import { readSmallFile } from "../fs/durable.ts";
import type { Environment } from "../fs/home.ts";
import { type Cover, coverageOf, orNull, readCovered, textOf } from "./covered.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";

/** The coding agents that Cairn knows, and the files in which they look for entries: Claude Code 2.1, Codex 0.171, Gemini CLI 0.61, opencode 1.18. */

/** Words of the command that a tool runs. An entry or a file with these words is Cairn's, whatever version wrote it. */
export const MARK = "agent hook";

/** Option of the hooks in the user's settings: a hook in a folder that is not covered exits at once. */
export const IF_COVERED = "--if-covered";

/** Files of a tool, of a project or of the user. */
interface ToolFiles {
  /** has the hooks */
  readonly hooks: string;
  /** has the MCP server */
  readonly servers: string;
  /** folder of slash commands */
  readonly commands?: string;
  /** folder into which the tool installs packages for a plugin of the project */
  readonly packages?: string;
}

interface AgentTool {
  readonly title: string;
  /** The step that the user must take before the tool uses the entries. */
  readonly afterwards: string;
  /** The tool reads a project's files only if it is started in the project's folder, not in one below. */
  readonly readsOnlyStart?: true;
  /** `project` null: the user's files. */
  files(project: string | null, env: Environment): ToolFiles;
}

export const TOOLS: Readonly<Record<string, AgentTool>> = {
  "claude-code": {
    title: "Claude Code",
    afterwards: "start `claude` in the folder, and trust the folder when it asks",
    readsOnlyStart: true,
    files(project, env) {
      const home = absolutePath(env, "CLAUDE_CONFIG_DIR");
      const folder = project === null ? (home ?? join(homeDirectory(env), ".claude")) : join(project, ".claude");
      return {
        hooks: join(folder, "settings.json"),
        servers: project === null ? join(home ?? homeDirectory(env), ".claude.json") : join(project, ".mcp.json"),
        commands: join(folder, "commands"),
      };
    },
  },
  codex: {
    title: "Codex",
    afterwards: "approve the hooks with /hooks in Codex; until then Codex ignores them",
    files(project, env) {
      const folder = project === null ? codexHome(env) : join(project, ".codex");
      return { hooks: join(folder, "hooks.json"), servers: join(folder, "config.toml") };
    },
  },
  gemini: {
    title: "Gemini CLI",
    afterwards: "trust the folder in Gemini CLI when it asks",
    readsOnlyStart: true,
    files(project, env) {
      const file = join(project ?? geminiHome(env), ".gemini", "settings.json");
      return { hooks: file, servers: file };
    },
  },
  opencode: {
    title: "opencode",
    afterwards: "restart opencode",
    files(project, env) {
      const user = join(absolutePath(env, "XDG_CONFIG_HOME") ?? join(homeDirectory(env), ".config"), "opencode");
      const [folder, plugins] = project === null ? [user, user] : [project, join(project, ".opencode")];
      const named = ["opencode.jsonc", "opencode.json"].map((name) => join(folder, name));
      return {
        hooks: join(plugins, "plugins", "cairn.js"),
        servers: named.find((each) => existsSync(each)) ?? named[1]!,
        commands: join(plugins, "commands"),
        ...(project === null ? {} : { packages: plugins }),
      };
    },
  },
  openclaw: {
    title: "OpenClaw",
    afterwards: "restart OpenClaw's gateway; if `plugins.allow` is set in its settings, add `cairn` there",
    files(project, env) {
      const home = absolutePath(env, "OPENCLAW_STATE_DIR") ?? join(homeDirectory(env), ".openclaw");
      return {
        hooks: join(project === null ? home : join(project, ".openclaw"), "extensions", "cairn", "index.js"),
        servers: absolutePath(env, "OPENCLAW_CONFIG_PATH") ?? join(home, "openclaw.json"),
      };
    },
  },
  hermes: {
    title: "Hermes",
    afterwards: "run `hermes plugins enable cairn`, and restart Hermes",
    files(project, env) {
      const user = absolutePath(env, "HERMES_HOME") ?? join(homeDirectory(env), ".hermes");
      const file = join(project === null ? user : join(project, ".hermes"), "plugins", "cairn", "__init__.py");
      return { hooks: file, servers: file };
    },
  },
};

export const codexHome = (env: Environment): string =>
  absolutePath(env, "CODEX_HOME") ?? join(homeDirectory(env), ".codex");
export const geminiHome = (env: Environment): string => absolutePath(env, "GEMINI_CLI_HOME") ?? homeDirectory(env);

const MOST_BYTES = 64 << 20;

/** Returns when the file of a tool got hooks that `install` wrote, in milliseconds; null without hooks. `project` null: the user's file. */
export const installedAt = (tool: string, project: string | null, env: Environment): number | null =>
  orNull(() => {
    const { hooks } = TOOLS[tool]!.files(project, env);
    return readSmallFile(hooks, MOST_BYTES, true)?.includes(MARK) === true ? statSync(hooks).mtimeMs : null;
  });

const CODEX_EVENTS = { turn: ["UserPromptSubmit", "Stop", "SessionEnd"], tool: ["PreToolUse", "PostToolUse"] };

/** Events of turns and of tool calls that `install` writes into a tool's file of hooks. Only Claude Code tells of failed calls by an own event. */
export const HOOK_EVENTS: Readonly<
  Record<string, { readonly turn: readonly string[]; readonly tool: readonly string[] }>
> = {
  "claude-code": { ...CODEX_EVENTS, tool: [...CODEX_EVENTS.tool, "PostToolUseFailure", "PostToolBatch"] },
  codex: CODEX_EVENTS,
  gemini: { turn: ["BeforeAgent", "AfterAgent", "SessionEnd"], tool: ["BeforeTool", "AfterTool"] },
};

/** opencode's event of a part of an answer. A call that fails or is denied has no `tool.execute.after`. */
export const FAILED_PART = "message.part.updated";

/** Returns the events that hooks of an earlier version do not have. `project` null: the user's file. */
export function lackingHooks(tool: string, project: string | null, env: Environment): string[] {
  const text = textOf(TOOLS[tool]!.files(project, env).hooks) ?? "";
  const { turn, tool: ofCalls } = HOOK_EVENTS[tool] ?? { turn: [], tool: tool === "opencode" ? [FAILED_PART] : [] };
  return (OF_CALLS.test(text) ? [...turn, ...ofCalls] : turn).filter((each) => !text.includes(`"${each}"`));
}

/** Words in the file of a project's hooks by which they tell of tool calls, in each tool's form. */
const OF_CALLS = /PreToolUse|BeforeTool|tool\.execute\.before|before_tool_call|pre_tool_call/;

/** Tells by the installation if a tool's hooks in a folder tell of its calls, or of its turns only; undefined: none is known. */
export function eachOf(tool: string, folder: string, env: Environment): "tool" | "turn" | undefined {
  const cover = coverageOf(readCovered(env) ?? [], tool, folder)?.cover;
  const root = cover?.folder?.path ?? folder;
  const text = Object.hasOwn(TOOLS, tool) ? textOf(TOOLS[tool]!.files(root, env).hooks) : null;
  const ofProject = text?.includes(MARK) === true ? (OF_CALLS.test(text) ? "tool" : "turn") : undefined;
  return ofProject === "tool" || cover === undefined || cover.each === "never" ? ofProject : cover.each;
}

/** True if the hooks in the user's settings are of an earlier version, which had no list: they save all workspaces. */
export function areWithoutList(tool: string, env: Environment): boolean {
  const text = readSmallFile(TOOLS[tool]!.files(null, env).hooks, MOST_BYTES, true);
  return text?.includes(MARK) === true && !text.includes(IF_COVERED);
}

/** Tools whose files in a project have hooks that `install` wrote. */
export function installedFor(project: string, env: Environment): string[] {
  return Object.keys(TOOLS).filter((name) => installedAt(name, project, env) !== null);
}

/** Returns the entries of the list that a tool's hooks in the user's settings serve. */
export function servedBy(tool: string, covers: readonly Cover[]): Cover[] {
  return covers.filter((each) => each.tool === tool && each.whom !== "everybody" && each.each !== "never");
}

/** Tools with hooks for exactly this folder: in its own files, or by the list of covered folders. `folder`: a real path. */
export function toolsFor(folder: string, env: Environment, covers: readonly Cover[]): string[] {
  const named = covers.filter(({ each, folder: own }) => each !== "never" && own?.path === folder);
  return [...new Set([...installedFor(folder, env), ...named.map(({ tool }) => tool)])];
}
