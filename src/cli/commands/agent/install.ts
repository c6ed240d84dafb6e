import { lstatSync, mkdirSync, realpathSync, rmSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { thisProgram } from "../../../daemon/unit.ts";
import { durableWrite, readSmallFile } from "../../../fs/durable.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, usage } from "../../input.ts";
import { printable } from "../../render/format.ts";
import { AGENTS, type AgentTool, type Scope } from "./agents.ts";
import { type Edit, withEdit, withoutEdit } from "./edit.ts";
import { forgetBefore, keepBefore, keptBefore } from "./kept-before.ts";

const LIMIT = 64 << 20;
const TOOL = { name: "<tool>", text: Object.keys(AGENTS).join(", ") };
const USER = { flags: "--user", text: "for all of your projects; hooks save only in folders that are workspaces" };
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
    { flags: "--print", text: "print the changed files, and write nothing" },
  ],
  examples: [
    {
      line: "cairn -C ~/project agent install claude-code",
      text: "hooks and the MCP server, in the project's files",
    },
    { line: "cairn agent install codex --user --print", text: "show what would be written" },
  ],
  async run(context, input) {
    const tool = toolOf(input);
    const scope = scopeOf(context, input);
    if (scope.project !== null && !input.flag("print")) {
      const client = await context.openOrAdopt();
      await client.close();
    }
    const changes = changesOf(tool.edits(scope), withEdit);
    if (!input.flag("print"))
      for (const { file, before, text } of changes) {
        const made = write({ file, before, text });
        if (text !== null && text !== before) keepBefore(file, { before, text, made });
      }
    return {
      data: dataOf(input, changes),
      text: () =>
        input.flag("print")
          ? changes.map(({ file, text }) => `${context.style.bold(printable(file))}\n${text ?? ""}`).join("\n")
          : [`${context.style.green("installed")} for ${tool.title}`, ...shown(changes), `  ${tool.afterwards}`].join(
              "\n",
            ),
    };
  },
};

export const remove: CommandDefinition = {
  name: "agent remove",
  arguments: [TOOL],
  options: [USER],
  examples: [
    { line: "cairn -C ~/project agent remove claude-code", text: "other entries and the save points stay as they are" },
  ],
  async run(context, input) {
    const tool = toolOf(input);
    const changes = changesOf(tool.edits({ ...scopeOf(context, input), each: "tool" }), withoutEdit);
    for (const change of changes) {
      const kept = keptBefore(change.file, change.before);
      if (kept !== null) change.text = kept.before;
      write(change);
      forgetBefore(change.file, kept?.made ?? null);
    }
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
    throw usage(`unknown tool ${JSON.stringify(name)}`, `choose one of ${Object.keys(AGENTS).join(", ")}`);
  return tool;
}

function scopeOf(context: Context, input: Input): Scope {
  const command = input.text("command");
  return {
    project: input.flag("user") ? null : resolve(context.folder()),
    env: context.env,
    each: input.choice("each", EACH) ?? "tool",
    command: command === undefined ? thisProgram() : [command],
  };
}

interface Change {
  file: string;
  before: string | null;
  text: string | null;
}

/** Files as they would be with all edits, each of which is understood before any is written. */
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

/** Writes one file whole, through a link to where it lies, with the mode that it has. Returns the topmost folder that it made. */
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
