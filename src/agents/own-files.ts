import { createHash } from "node:crypto";
import { closeSync, fstatSync, readdirSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { parse as parseToml } from "smol-toml";
import { readSmallFile } from "../fs/durable.ts";
import { isAtOrBelow } from "../fs/paths/safe-path.ts";
import { openRegular } from "../fs/regular-file.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import type { Environment } from "../fs/home.ts";
import { isOurs, parseJson } from "./json.ts";
import { codexHome, geminiHome } from "./tools.ts";

/** Reads records that coding agents keep of themselves. Their formats are undocumented: the answer for other content is null. */

/** Larger files are not read. */
const MOST_BYTES = 64 << 20;
/** Bytes at the end of a session's file that are searched for a prompt. */
const TAIL_BYTES = 4 << 20;

// oxlint-disable-next-line typescript/no-explicit-any -- another program's file, whose form is unknown
type Loose = any;

function read(file: string, parse: (text: string) => unknown): Loose {
  try {
    const bytes = readSmallFile(file, MOST_BYTES, true);
    return bytes === null ? null : parse(bytes.toString("utf8"));
  } catch {
    return null;
  }
}

/**
 * True if a tool runs the hooks in its files: its user has trusted the folder, and in Codex the hooks. Null: unknown. `inProject`:
 * the folder's own files have hooks, not only the user's.
 */
export function isTrusted(tool: string, folder: string, env: Environment, inProject: boolean): boolean | null {
  const no = inProject ? false : null;
  switch (tool) {
    case "claude-code": {
      const projects = read(
        join(absolutePath(env, "CLAUDE_CONFIG_DIR") ?? homeDirectory(env), ".claude.json"),
        parseJson,
      );
      if (projects === null) return null;
      return foldersAbove(folder).some((each) => projects.projects?.[each]?.hasTrustDialogAccepted === true) || no;
    }
    case "codex": {
      const config = read(join(codexHome(env), "config.toml"), parseToml);
      const areTrusted = (file: string): boolean => {
        const hooks = codexHooks(file);
        return (
          hooks.length > 0 &&
          hooks.every(({ key, hash }) => {
            const state = config?.hooks?.state?.[key];
            return state?.trusted_hash === hash && state.enabled !== false;
          })
        );
      };
      // Codex asks once for a whole git repository.
      const isProject = foldersAbove(folder).some((each) => config?.projects?.[each]?.trust_level === "trusted");
      return (
        (isProject && areTrusted(join(folder, ".codex", "hooks.json"))) ||
        areTrusted(join(codexHome(env), "hooks.json"))
      );
    }
    case "gemini": {
      const levels = read(join(geminiHome(env), ".gemini", "trustedFolders.json"), parseJson);
      if (levels === null) return null;
      if (levels[folder] === "DO_NOT_TRUST") return no;
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

/**
 * The hooks of Cairn in a file of Codex, each with its key, for example `/p/.codex/hooks.json:pre_tool_use:0:0`, and
 * the digest that Codex stores when a person approves the hook. A changed hook has another digest, and Codex ignores
 * it.
 */
function codexHooks(file: string): { key: string; hash: string }[] {
  const events = Object.entries((read(file, parseJson)?.hooks ?? {}) as Record<string, unknown>);
  return events.flatMap(([event, groups]) => {
    const place = Array.isArray(groups) ? groups.findLastIndex(isOurs) : -1;
    const snake = event.replaceAll(/(?<=.)[A-Z]/g, "_$&").toLowerCase();
    if (place < 0) return [];
    const { matcher, hooks: [handler] = [] } = (groups as Loose)[place];
    const hook = Object.fromEntries(
      Object.entries({ async: false, ...handler }).toSorted(([a], [b]) => (a < b ? -1 : 1)),
    );
    const identity = JSON.stringify({
      event_name: snake,
      hooks: [hook],
      ...(matcher === undefined ? {} : { matcher }),
    });
    return [
      { key: `${file}:${snake}:${place}:0`, hash: `sha256:${createHash("sha256").update(identity).digest("hex")}` },
    ];
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
      const at = (tool === "codex" ? /"user_message"|"UserMessage"/ : /"user"/).test(line)
        ? promptTime(line, tool)
        : Number.NaN;
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

/** True if the session began in the folder, which the first line of Codex's file names. */
function isOfFolder(head: string, folder: string): boolean {
  const cwd = (JSON.parse(head.split("\n")[0]!) as Loose)?.payload?.cwd;
  return typeof cwd === "string" && isAtOrBelow(cwd, folder);
}

/** Returns the time of a line with a person's prompt; NaN for other lines. Both tools write such lines for their own notes, too. */
function promptTime(line: string, tool: string): number {
  let entry: Loose;
  try {
    entry = JSON.parse(line);
  } catch {
    return Number.NaN;
  }
  if (tool === "codex")
    return entry?.type === "event_msg" &&
      // The second form is that of Codex 0.171.
      (entry.payload?.type === "user_message" || entry.payload?.item?.type === "UserMessage")
      ? Date.parse(entry.timestamp)
      : Number.NaN;
  if (entry?.type !== "user" || [entry.isMeta, entry.isSidechain, entry.isCompactSummary].includes(true))
    return Number.NaN;
  const content = entry.message?.content;
  const text = typeof content === "string" ? content : content?.find?.((part: Loose) => part?.type === "text")?.text;
  return typeof text === "string" && !/^[<[]/.test(text) ? Date.parse(entry.timestamp) : Number.NaN;
}
