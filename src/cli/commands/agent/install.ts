import { lstatSync, mkdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { InitOptions } from "../../../contract/care.ts";
import type { Client } from "../../../contract/index.ts";
import { thisProgram } from "../../../daemon/unit.ts";
import { CairnError } from "../../../errors.ts";
import { durableWrite, readSmallFile } from "../../../fs/durable.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { printable } from "../../render/format.ts";
import { VerbOptions } from "../../options.ts";
import { AGENTS, type AgentTool, type Scope, TOKEN_VARIABLE } from "./agents.ts";
import { checkHook } from "./check-hook.ts";
import { type Edit, withEdit, withoutEdit } from "./edit.ts";
import { forgetBefore, keepBefore, keptBefore, requireKeepable } from "./kept-before.ts";

const LIMIT = 64 << 20;
const TOOL = { name: "<tool>", text: Object.keys(AGENTS).join(", ") };
const USER = { flags: "--user", text: "for all of your projects; hooks save only in folders that are workspaces" };
const GUARDS = new VerbOptions({ allow: InitOptions.entries.allow });
const EACH = ["tool", "turn"] as const;

export const install: CommandDefinition = {
  name: "agent install",
  arguments: [TOOL],
  options: [
    USER,
    {
      flags: "--each <what>",
      text: "tool (default): save before and after each tool call and turn; turn: only each turn",
      values: EACH,
    },
    { flags: "--command <path>", text: "command that the tool runs (default: this program with its Node)" },
    {
      flags: "--http <url>",
      text: `the tool uses the MCP server of the daemon at this address, with the token in the variable ${TOKEN_VARIABLE}; the hooks stay the same`,
    },
    ...GUARDS.definitions,
    { flags: "--print", text: "print the changed files, and write nothing" },
  ],
  examples: [
    {
      line: "cairn -C ~/project agent install claude-code",
      text: "hooks and the MCP server, in the project's files",
    },
    { line: "cairn agent install codex --user --print", text: "show what would be written" },
    {
      line: "cairn -C ~/project agent install gemini --http https://host:7777/mcp",
      text: "use the MCP server of the daemon on another machine",
    },
  ],
  async run(context, input) {
    const tool = toolOf(input);
    const scope = scopeOf(context, input);
    const edits = tool.edits(scope);
    // Hooks of tool calls that an earlier `install` wrote.
    const unwanted =
      scope.each === "tool" ? [] : tool.edits({ ...scope, each: "tool" }).filter((edit) => !edits.some(isAt(edit)));
    const changes = changesOf([...unwanted, ...edits], (edit, text) =>
      unwanted.includes(edit) ? withoutEdit(edit, text) : withEdit(edit, text),
    );
    if (input.flag("print"))
      return {
        data: { ...dataOf(input, changes), checked: null },
        text: () => changes.map(({ file, text }) => `${context.style.bold(printable(file))}\n${text ?? ""}`).join("\n"),
      };
    requireKeepable();
    const client = await workspaceOf(context, input, scope);
    if (client !== null) await firstPoint(context, client);
    for (const { file, before, text } of changes) {
      const made = write({ file, before, text });
      if (text !== null && text !== before) keepBefore(file, { before, text, made });
    }
    const problem = client === null ? null : await checkHook(client, input.required(0), scope, context.signal);
    if (problem !== null) context.note(`the hook was run for a check and saved nothing: ${problem}`, true);
    return {
      data: { ...dataOf(input, changes), checked: client === null ? null : problem === null },
      text: () =>
        [
          `${context.style.green("installed")} for ${tool.title}`,
          ...shown(changes),
          ...(client !== null && problem === null ? ["  checked: a hook saved this folder"] : []),
          `  ${tool.afterwards}`,
          ...(scope.http === undefined ? [] : [TOKEN_STEP]),
        ].join("\n"),
    };
  },
};

const isAt =
  (edit: Edit) =>
  (other: Edit): boolean =>
    edit.form !== "element" || (other.form === "element" && other.path.join() === edit.path.join());

const TOKEN_STEP = `  set ${TOKEN_VARIABLE} for the tool to a token from \`cairn service token create\` on the daemon's machine`;

/** The workspace in which a hook is checked. A project becomes a workspace if it is not one yet; null with `--user` in no workspace. */
async function workspaceOf(context: Context, input: Input, { project }: Scope): Promise<Client | null> {
  if (project === null) {
    const folder = await (await context.library()).find(context.folder(), context.callOptions());
    return folder === null ? null : context.open();
  }
  const { allow = [] } = GUARDS.read(context, input);
  try {
    return await context.openOrInit(undefined, allow, { guardsHome: true });
  } catch (error) {
    const isHome = error instanceof CairnError && error.details?.["guard"] === "home";
    if (
      !isHome ||
      context.globals.json ||
      !(await isConfirmed(`${context.folder()} is a home directory, or has one in it. Save all of it?`))
    )
      throw error;
    return context.openOrInit(undefined, [...allow, "home"]);
  }
}

/** Asks on a terminal. Without a terminal the answer is no. */
async function isConfirmed(question: string): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return false;
  const asking = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return /^y(?:es)?$/i.test((await asking.question(`${printable(question)} [y/N] `)).trim());
  } finally {
    asking.close();
  }
}

/** Makes the first point of a workspace, so that no hook has to read the whole folder. */
async function firstPoint(context: Context, client: Client): Promise<void> {
  if (await client.hasSavePoints()) return;
  await client.save({ ...context.callOptions(), message: "before agent install" });
}

export const remove: CommandDefinition = {
  name: "agent remove",
  arguments: [TOOL],
  options: [USER],
  examples: [
    { line: "cairn -C ~/project agent remove claude-code", text: "other entries and the save points stay as they are" },
  ],
  async run(context, input) {
    const tool = toolOf(input);
    const edits = tool.edits({ ...scopeOf(context, input), each: "tool" });
    const changes = changesOf(edits, (_edit, text) => text).map(({ file, before }) => {
      const kept = keptBefore(file, before);
      const text = () =>
        changesOf(
          edits.filter((edit) => edit.file === file),
          withoutEdit,
        )[0]!.text;
      return { file, before, text: kept === null ? text() : kept.before, made: kept?.made ?? null };
    });
    for (const change of changes) write(change);
    // A folder was made for its first file, and is empty after the removal of the last one.
    for (const { file, made } of changes.toReversed()) forgetBefore(file, made);
    return {
      data: dataOf(input, changes),
      text: () => [`${context.style.green("removed")} for ${tool.title}`, ...shown(changes)].join("\n"),
    };
  },
};

function toolOf(input: Input): AgentTool {
  const name = input.required(0);
  const tool = Object.hasOwn(AGENTS, name) ? AGENTS[name] : undefined;
  if (tool === undefined)
    throw usage(
      `unknown tool ${JSON.stringify(name)}`,
      Object.keys(AGENTS)
        .filter((each) => name !== "" && each.startsWith(name.toLowerCase()))
        .map((each) => `did you mean ${each}? `)
        .join("") + `choose one of ${Object.keys(AGENTS).join(", ")}`,
    );
  return tool;
}

function scopeOf(context: Context, input: Input): Scope {
  const command = input.text("command");
  return {
    project: input.flag("user") ? null : resolve(context.folder()),
    env: context.env,
    each: input.choice("each", EACH) ?? "tool",
    http: addressOf(input.text("http")),
    command: command === undefined ? thisProgram() : [command],
  };
}

/** Throws `usage` for text that is not an HTTP address. */
function addressOf(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol))
    throw usage(`--http must be the address of a daemon's MCP server; found ${JSON.stringify(text)}`, HTTP_HINT);
  if (url.pathname === "/") url.pathname = "/mcp";
  return url.href;
}

const HTTP_HINT = "for example https://host:7777/mcp";

interface Change {
  file: string;
  before: string | null;
  text: string | null;
}

/** Returns the files with all edits. Every edit is applied in memory before any file is written. */
function changesOf(edits: readonly Edit[], apply: (edit: Edit, text: string | null) => string | null): Change[] {
  const changes = new Map<string, Change>();
  for (const edit of edits) {
    const { file } = edit;
    let change = changes.get(file);
    if (change === undefined) {
      const before = readSmallFile(file, LIMIT, true)?.toString("utf8") ?? null;
      changes.set(file, (change = { file, before, text: before }));
    }
    change.text = apply(edit, change.text);
  }
  return [...changes.values()];
}

/** Writes one file as a whole with its present mode; for a link, the link's target. Returns the topmost folder that it made. */
function write({ file, before, text }: Change): string | null {
  if (text === before) return null;
  const isLink = lstatSync(file, { throwIfNoEntry: false })?.isSymbolicLink() === true;
  const target = isLink ? realpathSync(file) : file;
  if (text === null) {
    rmSync(target, { force: true });
    return null;
  }
  const made = mkdirSync(dirname(target), { recursive: true }) ?? null;
  const mode = statSync(target, { throwIfNoEntry: false })?.mode ?? 0o644;
  durableWrite(target, Buffer.from(text), { mode: mode & 0o777 });
  return made;
}

const dataOf = (input: Input, changes: readonly Change[]) => ({
  tool: input.required(0),
  files: changes.map(({ file, text, before }) => ({ path: file, changed: text !== before, text: text ?? "" })),
});

const shown = (changes: readonly Change[]): string[] =>
  changes.map(
    ({ file, text, before }) =>
      `  ${text === before ? "unchanged" : text === null ? "removed" : "written"}: ${printable(file)}`,
  );
