import { closeSync, fstatSync, readdirSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse as parseToml } from "smol-toml";
import { readSmallFile } from "../../../fs/durable.ts";
import { isAtOrBelow } from "../../../fs/paths/safe-path.ts";
import { openRegular } from "../../../fs/regular-file.ts";
import { absolutePath, homeDirectory } from "../../../fs/users.ts";
import { codexHome, type Environment, geminiHome } from "./agents.ts";
import { isOurs, parseJson } from "./edit.ts";

/** Records that the tools keep for themselves. Their forms are not documented, so the answer to anything odd is null: unknown. */

const MOST_BYTES = 64 << 20;
/** End of a session's file that is searched for a prompt. */
const TAIL_BYTES = 4 << 20;

// oxlint-disable-next-line typescript/no-explicit-any -- another program's file, which is looked at as it is
type Loose = any;

function read(file: string, parse: (text: string) => unknown): Loose {
  try {
    const bytes = readSmallFile(file, MOST_BYTES, true);
    return bytes === null ? null : parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}

/** True if a tool runs the hooks that a folder's files have: its user has trusted the folder, and in Codex the hooks. Null: unknown. */
export function isTrusted(tool: string, folder: string, env: Environment): boolean | null {
  switch (tool) {
    case "claude-code": {
      const projects = read(
        join(absolutePath(env, "CLAUDE_CONFIG_DIR") ?? homeDirectory(env), ".claude.json"),
        parseJson,
      );
      if (projects === null) return null;
      return foldersAbove(folder).some((each) => projects?.projects?.[each]?.hasTrustDialogAccepted === true);
    }
    case "codex": {
      const config = read(join(codexHome(env), "config.toml"), parseToml);
      if (config === null) return null;
      if (config.projects?.[folder]?.trust_level !== "trusted") return false;
      const keys = codexKeys(join(folder, ".codex", "hooks.json"));
      return keys.every((key) => {
        const state = config.hooks?.state?.[key];
        return typeof state?.trusted_hash === "string" && state.enabled !== false;
      });
    }
    case "gemini": {
      const levels = read(join(geminiHome(env), ".gemini", "trustedFolders.json"), parseJson);
      if (levels === null) return null;
      if (levels[folder] === "DO_NOT_TRUST") return false;
      const trusted = Object.entries(levels).flatMap(([path, level]) =>
        level === "TRUST_FOLDER" ? [path] : level === "TRUST_PARENT" ? [dirname(path)] : [],
      );
      return trusted.some((path) => isAtOrBelow(folder, path)) ? true : null;
    }
    default:
      return true;
  }
}

function foldersAbove(folder: string): string[] {
  const above = dirname(folder);
  return above === folder ? [folder] : [folder, ...foldersAbove(above)];
}

/** Names by which Codex knows the hooks of Cairn in a file, for example `/p/.codex/hooks.json:pre_tool_use:0:0`. */
function codexKeys(file: string): string[] {
  const events = Object.entries((read(file, parseJson)?.hooks ?? {}) as Record<string, unknown>);
  return events.flatMap(([event, groups]) => {
    const place = Array.isArray(groups) ? groups.findLastIndex(isOurs) : -1;
    const snake = event.replaceAll(/(?<=.)[A-Z]/g, "_$&").toLowerCase();
    return place < 0 ? [] : [`${file}:${snake}:${place}:0`];
  });
}

/** Returns when a person last gave a tool a prompt in a folder, if that was after `since` (milliseconds). Null: never, or unknown. */
export function lastPrompt(tool: string, folder: string, env: Environment, since: number): number | null {
  const times = sessionFiles(tool, folder, env)
    .filter((file) => (statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0) > since)
    .flatMap((file) => promptsIn(file, tool, folder))
    .filter((at) => at > since);
  return times.length === 0 ? null : Math.max(...times);
}

function sessionFiles(tool: string, folder: string, env: Environment): string[] {
  const isSession = (name: string): boolean => name.endsWith(".jsonl");
  if (tool === "claude-code") {
    const home = absolutePath(env, "CLAUDE_CONFIG_DIR") ?? join(homeDirectory(env), ".claude");
    const place = join(home, "projects", folder.replaceAll(/[^A-Za-z0-9]/g, "-"));
    return names(place, false)
      .filter(isSession)
      .map((name) => join(place, name));
  }
  if (tool !== "codex") return [];
  const place = join(codexHome(env), "sessions");
  return names(place, true)
    .filter(isSession)
    .map((name) => join(place, name));
}

function names(folder: string, recursive: boolean): string[] {
  try {
    return readdirSync(folder, { recursive, encoding: "utf8" });
  } catch {
    return [];
  }
}

function promptsIn(file: string, tool: string, folder: string): number[] {
  try {
    const { head, tail } = endsOf(file);
    if (tool === "codex" && !isOfFolder(head, folder)) return [];
    return tail.split("\n").flatMap((line) => {
      const at = line.includes(tool === "codex" ? '"user_message"' : '"user"') ? promptTime(line, tool) : Number.NaN;
      return Number.isNaN(at) ? [] : [at];
    });
  } catch {
    return [];
  }
}

function endsOf(file: string): { head: string; tail: string } {
  const descriptor = openRegular(file, { named: true });
  try {
    const { size } = fstatSync(descriptor);
    const part = (from: number, length: number): string => {
      const bytes = Buffer.alloc(length);
      return bytes.toString("utf8", 0, readSync(descriptor, bytes, 0, length, from));
    };
    return {
      head: part(0, Math.min(size, 1 << 20)),
      tail: part(Math.max(0, size - TAIL_BYTES), Math.min(size, TAIL_BYTES)),
    };
  } finally {
    closeSync(descriptor);
  }
}

/** The first line of Codex's file has the folder in which the session began. */
function isOfFolder(head: string, folder: string): boolean {
  const cwd = (JSON.parse(head.split("\n")[0]!) as Loose)?.payload?.cwd;
  return typeof cwd === "string" && isAtOrBelow(cwd, folder);
}

/** Returns the time of a line that is a person's prompt; NaN for any other. Both tools have such lines for their own notes, too. */
function promptTime(line: string, tool: string): number {
  let entry: Loose;
  try {
    entry = JSON.parse(line);
  } catch {
    return Number.NaN;
  }
  if (tool === "codex")
    return entry?.type === "event_msg" && entry.payload?.type === "user_message"
      ? Date.parse(entry.timestamp)
      : Number.NaN;
  if (entry?.type !== "user" || [entry.isMeta, entry.isSidechain, entry.isCompactSummary].includes(true))
    return Number.NaN;
  const content = entry.message?.content;
  const text = typeof content === "string" ? content : content?.find?.((part: Loose) => part?.type === "text")?.text;
  return typeof text === "string" && !/^[<[]/.test(text) ? Date.parse(entry.timestamp) : Number.NaN;
}
