import { createHash } from "node:crypto";
import { closeSync, existsSync, fstatSync, readdirSync, readSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import { parse as parseToml } from "smol-toml";
import { readSmallFile } from "../fs/durable.ts";
import { whyLocksAreLocal } from "../fs/linux/kernel-lock.ts";
import { isAtOrBelow } from "../fs/paths/safe-path.ts";
import { openRegular } from "../fs/regular-file.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import type { Environment } from "../fs/home.ts";
import { orNull } from "./covered.ts";
import { isOurs, parseJson } from "./json.ts";
import { codexHome, geminiHome } from "./tools.ts";

/** Reads records that coding agents keep of themselves. Their formats are undocumented: the answer for other content is null. */

/** Larger files are not read. */
const MOST_BYTES = 64 << 20;
/** Bytes at the end of a session's file that are searched for a prompt. */
const TAIL_BYTES = 4 << 20;
/** Sessions that are searched for the last prompt in a folder, the newest first. */
const MOST_FILES = 100;
/** Age of opencode's oldest prompts that are looked at. */
const ASKED_MS = 30 * 86_400_000;

// oxlint-disable-next-line typescript/no-explicit-any -- another program's file, whose form is unknown
type Loose = any;

const read = (file: string, parse: (text: string) => unknown): Loose =>
  orNull(() => {
    const bytes = readSmallFile(file, MOST_BYTES, true);
    return bytes && (parse(bytes.toString("utf8")) ?? null);
  });

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
    // A plugin must be enabled, which its settings tell only in YAML.
    case "hermes":
      return null;
    default:
      return true;
  }
}

/** Returns a folder and those above it, the nearest first. */
export function foldersAbove(folder: string): string[] {
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

interface Asked {
  /** real path of the workspace */
  folder: string;
  env: Environment;
  /** Tells if a tool that works in a folder is saved into this workspace. */
  isHere(cwd: string): boolean;
}

/** Returns when a person last gave a tool a prompt in a folder, in milliseconds. Null: never, or unknown. */
export function lastPrompt(tool: string, asked: Asked): number | null {
  if (tool === "opencode") return lastInOpencode(asked);
  const files = sessionFiles(tool, asked).flatMap((file) => {
    const written = statSync(file, { throwIfNoEntry: false })?.mtimeMs;
    return written === undefined ? [] : [{ file, written }];
  });
  let last: number | null = null;
  for (const { file, written } of files.toSorted((a, b) => b.written - a.written).slice(0, MOST_FILES)) {
    // No earlier file has a later prompt.
    if (last !== null && written < last) break;
    for (const at of promptsIn(file, tool, asked)) last = Math.max(last ?? 0, at);
  }
  return last;
}

function sessionFiles(tool: string, { folder, env }: Asked): string[] {
  const below = (place: string, isSession: RegExp, isDeep = false): string[] =>
    names(place, isDeep)
      .filter((name) => isSession.test(name))
      .map((name) => join(place, name));
  if (tool === "claude-code") {
    const projects = join(absolutePath(env, "CLAUDE_CONFIG_DIR") ?? join(homeDirectory(env), ".claude"), "projects");
    const begin = folder.replaceAll(/[^A-Za-z0-9]/g, "-");
    const own = names(projects, false).filter((name) => name === begin || name.startsWith(`${begin}-`));
    return own.flatMap((name) => below(join(projects, name), /\.jsonl$/));
  }
  if (tool === "codex") return below(join(codexHome(env), "sessions"), /\.jsonl$/, true);
  if (tool !== "gemini") return [];
  // A folder for each project, named by the project's folder, or before Gemini CLI 0.5 by the digest of its path.
  const projects = join(geminiHome(env), ".gemini", "tmp");
  return names(projects, false).flatMap((name) => below(join(projects, name, "chats"), /^session-.*\.jsonl?$/));
}

const names = (folder: string, recursive: boolean): string[] =>
  orNull(() => readdirSync(folder, { recursive, encoding: "utf8" })) ?? [];

function promptsIn(file: string, tool: string, asked: Asked): number[] {
  try {
    const { head, tail } = endsOf(file);
    if (tool === "codex" && !asked.isHere(String(JSON.parse(head.split("\n")[0]!).payload?.cwd))) return [];
    if (tool === "gemini" && !isOfProject(file, head, asked)) return [];
    const entries = file.endsWith(".json")
      ? (read(file, parseJson)?.messages as Loose[])
      : tail.split("\n").map((line) => (MAY_BE_PROMPT.test(line) ? orNull(() => JSON.parse(line) as Loose) : null));
    return entries.map((entry) => promptTime(entry, tool, asked)).filter((at) => !Number.isNaN(at));
  } catch {
    return [];
  }
}

const MAY_BE_PROMPT = /"user"|"user_message"|"UserMessage"/;

/** True if a session of Gemini CLI is one of the folder: a file names the project's folder, or the session its path's digest. */
function isOfProject(file: string, head: string, { folder, isHere }: Asked): boolean {
  const place = dirname(dirname(file));
  const root = read(join(place, ".project_root"), (text) => text.trim());
  if (root !== null) return isHere(root);
  return head.includes(createHash("sha256").update(folder).digest("hex"));
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

/** Returns the time of an entry with a person's prompt; NaN for other entries. The tools write such entries for their own notes, too. */
function promptTime(entry: Loose, tool: string, { isHere }: Asked): number {
  const at = Date.parse(entry?.timestamp);
  if (tool === "gemini") return entry?.type === "user" ? at : Number.NaN;
  if (tool === "codex")
    return entry?.type === "event_msg" &&
      // The second form is that of Codex 0.171.
      (entry.payload?.type === "user_message" || entry.payload?.item?.type === "UserMessage")
      ? at
      : Number.NaN;
  if (entry?.type !== "user" || [entry.isMeta, entry.isSidechain, entry.isCompactSummary].includes(true))
    return Number.NaN;
  if (entry.cwd !== undefined && !isHere(String(entry.cwd))) return Number.NaN;
  const content = entry.message?.content;
  const text = typeof content === "string" ? content : content?.find?.((part: Loose) => part?.type === "text")?.text;
  return typeof text === "string" && !/^[<[]/.test(text) ? at : Number.NaN;
}

/** The newest prompt of each folder: in the tables of opencode 1.2 to 1.18, and in those that later versions add. */
const IN_OPENCODE = [
  ["session", "message", "json_extract(m.data, '$.role') = 'user'"],
  ["session", "session_message", "m.type = 'user'"],
  ["session_v2", "session_message", "m.type = 'user'"],
].map(
  ([sessions, messages, isPrompt]) =>
    `SELECT s.directory AS cwd, max(m.time_created) AS at FROM ${sessions} s JOIN ${messages} m ON m.session_id = s.id
     WHERE s.parent_id IS NULL AND m.time_created > ? AND ${isPrompt} GROUP BY s.directory`,
);

/** Asks opencode's databases, and makes no file beside them, as a reader with locks would. */
function lastInOpencode({ env, isHere }: Asked): number | null {
  const home = join(absolutePath(env, "XDG_DATA_HOME") ?? join(homeDirectory(env), ".local/share"), "opencode");
  const files = names(home, false).filter((name) => /^opencode.*\.db$/.test(name));
  const times = files
    .flatMap((name) => newestByFolder(join(home, name)))
    .flatMap(({ cwd, at }) => (typeof at === "number" && isHere(String(cwd)) ? [at] : []));
  return times.length === 0 ? null : Math.max(...times);
}

function newestByFolder(file: string): { cwd?: unknown; at?: unknown }[] {
  try {
    if (areLocksLocal(file)) return [];
    const url = pathToFileURL(file);
    url.search = existsSync(`${file}-shm`) ? "mode=ro" : "mode=ro&immutable=1";
    using database = new DatabaseSync(url, { readOnly: true, timeout: 200 });
    // A version of opencode has some of these tables.
    return IN_OPENCODE.flatMap((each) => orNull(() => database.prepare(each).all(Date.now() - ASKED_MS)) ?? []);
  } catch {
    return [];
  }
}

function areLocksLocal(file: string): boolean {
  const descriptor = openRegular(file, { named: true });
  try {
    return whyLocksAreLocal(descriptor, Buffer.from(file)) !== null;
  } finally {
    closeSync(descriptor);
  }
}
