import { existsSync, realpathSync } from "node:fs";
import { isInCopy } from "../../../agents/clones.ts";
import { changeCovered, folderFacts, isSame, requireCovered, withCover } from "../../../agents/cover.ts";
import { type Cover, coverageOf, type CoveredFolder, orNull } from "../../../agents/covered.ts";
import { areWithoutList, MARK, servedBy, TOOLS } from "../../../agents/tools.ts";
import { InitOptions } from "../../../contract/care.ts";
import type { Client } from "../../../contract/index.ts";
import { thisProgram } from "../../../daemon/unit.ts";
import { CairnError } from "../../../errors.ts";
import { failpoint } from "../../../failpoint.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { type Input, isConfirmed, usage } from "../../input.ts";
import { listedNames, printable, shellQuote } from "../../render/format.ts";
import { VerbOptions } from "../../options.ts";
import { editsOf, isForEverybody, type Scope, TOKEN_VARIABLE } from "./agents.ts";
import {
  type Change,
  changesOf,
  contentsOf,
  dataOf,
  type Place,
  PLAN_OPTIONS,
  requireShown,
  shown,
  textOf,
  write,
} from "./changes.ts";
import { checkHook } from "./check-hook.ts";
import { type Edit, hasEdit, withEdit, withoutEdit } from "./edit.ts";
import { noteLostCover, noteRemoval } from "./lost-hooks.ts";
import { forgetBefore, keepBefore, keptBefore, requireKeepable } from "./kept-before.ts";

const TOOL = { name: "<tool>", text: Object.keys(TOOLS).join(", ") };
const WHOM = ["me", "all-mine", "everybody"] as const;
const FOR = {
  flags: "--for <whom>",
  text: "me (default): you, in this folder and other worktrees of its repository; all-mine: you, in all of your workspaces; everybody: all users of the project, by files of the project that find `cairn` by PATH",
  values: WHOM,
};
const GUARDS = new VerbOptions({ allow: InitOptions.entries.allow });
const EACH = ["tool", "turn"] as const;

export const install: CommandDefinition = {
  name: "agent install",
  arguments: [TOOL],
  options: [
    FOR,
    {
      flags: "--each <what>",
      text: "tool (default): save before and after each tool call and turn; turn: only each turn",
      values: EACH,
    },
    {
      flags: "--http <url>",
      text: `with --for everybody: the tool uses the MCP server of the daemon at this address, with the token in the variable ${TOKEN_VARIABLE}; the hooks stay the same`,
    },
    ...GUARDS.definitions,
    ...PLAN_OPTIONS,
  ],
  examples: [
    {
      line: "cairn -C ~/project agent install claude-code",
      text: "hooks and the MCP server, in your own settings of the tool; they work in this folder",
    },
    { line: "cairn agent install codex --for all-mine --plan", text: "show what would be written" },
    {
      line: "cairn -C ~/project agent install gemini --for everybody --http https://host:7777/mcp",
      text: "use the MCP server of the daemon on another machine",
    },
  ],
  async run(context, input) {
    const on = await placeOf(context, input);
    const folder = on.whom === "all-mine" ? null : await folderFacts(on.folder);
    const cover: Cover = { ...on, each: input.choice("each", EACH) ?? "tool", folder };
    const withOwn = (all: readonly Cover[]): readonly Cover[] =>
      [...formerCovers(context, on), cover].reduce<readonly Cover[]>(withCover, all);
    const scope = scopeOf(context, on, withOwn(requireCovered(context.env)), addressOf(on, input.text("http")));
    const planned = (): { changes: Change[]; former: Change[] } => {
      const former = on.whom === "everybody" ? [] : formerChanges(context, on);
      return { changes: [...changesFor(on.tool, scope), ...former], former };
    };
    const plan = dataOf("install", on, planned().changes);
    const all = editsOf(on.tool, { ...scope, each: "tool" });
    if (input.flag("plan"))
      return {
        data: { ...plan, checked: null, problem: null },
        text: () => contentsOf(context, plan),
      };
    requireShown(context, input, plan);
    requireKeepable();
    const client = await workspaceOf(context, input, on);
    if (client !== null) await firstPoint(context, client);
    // A listed folder without entries is not saved, and status says so; entries without a list would do nothing.
    await changeCovered(context.env, withOwn);
    failpoint("agent.covered");
    // The first point takes its time, and a tool writes its own settings meanwhile.
    const { changes, former } = planned();
    for (const change of changes) {
      const { file, before, text } = change;
      const made = write(change);
      if (text !== null && text !== before && !former.includes(change) && !isUnknown(all, change))
        keepBefore(file, { before, text, made });
      failpoint("agent.written");
    }
    forget(former);
    const problem = client === null ? null : await checkHook(client, on.tool, scope, context.signal);
    if (client === null)
      context.note(`${on.folder} is no workspace yet: to cover it, save it once: cairn save ${shellQuote(on.folder)}`);
    if (problem !== null) context.note(`the hook was run for a check and saved nothing: ${problem}`, true);
    return {
      data: { ...dataOf("install", on, changes), checked: client === null ? null : problem === null, problem },
      text: () =>
        [
          `${context.style.green("installed")} for ${TOOLS[on.tool]!.title}, ${wordsOf(on)}`,
          ...shown(changes),
          ...(client !== null && problem === null ? [on.whom === "everybody" ? CHECKED_FOR_ALL : CHECKED] : []),
          ...(on.whom === "everybody" && TOOLS[on.tool]!.readsOnlyStart === true ? [ONLY_TOP] : []),
          `  ${TOOLS[on.tool]!.afterwards}`,
          ...(scope.http === undefined ? [] : [TOKEN_STEP]),
        ].join("\n"),
    };
  },
};

/** True for a text with entries, if no text from before these entries is recorded. */
const isUnknown = (edits: readonly Edit[], { file, before }: Change): boolean =>
  before !== null &&
  edits.some((edit) => edit.file === file && hasEdit(edit, before)) &&
  keptBefore(file, before) === null;

const CHECKED = "  checked: a hook saved this folder, without PATH and other variables, started in another folder";
const CHECKED_FOR_ALL = "  checked: a hook saved this folder; without `cairn` in PATH it is silent and succeeds";

const ONLY_TOP = "  it reads these files only if it is started in this folder, not in one below";
const TOKEN_STEP = `  set ${TOKEN_VARIABLE} for the tool to a token from \`cairn service token create\` on the daemon's machine`;

async function placeOf(context: Context, input: Input): Promise<Place> {
  const tool = toolOf(input);
  const found = await (await context.library()).find(context.folder(), context.callOptions());
  const folder = found ?? orNull(() => realpathSync.native(context.folder())) ?? context.folder();
  return { tool, whom: input.choice("for", WHOM) ?? "me", folder };
}

const wordsOf = ({ whom, folder }: Place): string =>
  whom === "all-mine"
    ? "in all of your workspaces"
    : `${whom === "me" ? "for you" : "for everybody"} in ${printable(folder)}`;

/** An earlier build's entries of a user work in all workspaces of the user, and have no entry in the list. */
function formerCovers({ env }: Context, { tool, whom }: Place): Cover[] {
  if (whom === "everybody" || !areWithoutList(tool, env)) return [];
  return [{ tool, whom: "all-mine", each: "tool", folder: null }];
}

/** Takes entries of earlier builds, which name programs and variables of this machine, out of the project's files. */
function formerChanges({ env }: Context, { tool, folder }: Place): Change[] {
  const { hooks } = TOOLS[tool]!.files(folder, env);
  const own = Object.values(TOOLS[tool]!.files(null, env));
  const text = textOf(hooks) ?? "";
  // In a home directory the files of the project are the user's.
  if (own.includes(hooks) || !text.includes(MARK) || isForEverybody(text)) return [];
  return removals(tool, { project: folder, env, command: [], each: "tool" });
}

/** Returns the scope of the entries that a list needs. One entry of the user's settings serves all covered folders. */
function scopeOf({ env }: Context, on: Place, covers: readonly Cover[], http?: string): Scope {
  const own = covers.filter(
    ({ tool, whom }) => tool === on.tool && (whom === "everybody") === (on.whom === "everybody"),
  );
  return {
    project: on.whom === "everybody" ? on.folder : null,
    env,
    command: thisProgram(),
    each: own.some(({ each, folder }) => each === "tool" && (on.whom !== "everybody" || folder?.path === on.folder))
      ? "tool"
      : "turn",
    http,
  };
}

/** Returns the files with the entries of a tool, without hooks of tool calls that an earlier `install` wrote. */
function changesFor(tool: string, scope: Scope): Change[] {
  const edits = editsOf(tool, scope);
  const unwanted = editsOf(tool, { ...scope, each: "tool" }).filter((edit) => !edits.some(isAt(edit)));
  return changesOf([...unwanted, ...edits], (edit, text) =>
    unwanted.includes(edit) ? withoutEdit(edit, text) : withEdit(edit, text),
  );
}

const isAt =
  (edit: Edit) =>
  (other: Edit): boolean =>
    edit.form !== "element" || (other.form === "element" && other.path.join() === edit.path.join());

/** The workspace in which a hook is checked. A folder becomes a workspace if it is not one yet; null for all workspaces, in none. */
async function workspaceOf(context: Context, input: Input, { whom, folder }: Place): Promise<Client | null> {
  const at = { at: folder, guardsHome: true };
  if (whom === "all-mine") {
    const found = await (await context.library()).find(folder, context.callOptions());
    return found === null ? null : context.openOrInit(undefined, [], at);
  }
  const { allow = [] } = GUARDS.read(context, input);
  try {
    return await context.openOrInit(undefined, allow, at);
  } catch (error) {
    const isHome = error instanceof CairnError && error.details?.["guard"] === "home";
    if (
      !isHome ||
      context.globals.json ||
      !(await isConfirmed(`${context.folder()} is a home directory, or has one in it. Save all of it?`))
    )
      throw error;
    return context.openOrInit(undefined, [...allow, "home"], at);
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
  options: [FOR, ...PLAN_OPTIONS],
  examples: [
    { line: "cairn -C ~/project agent remove claude-code", text: "other entries and the save points stay as they are" },
  ],
  async run(context, input) {
    const on = await placeOf(context, input);
    const { env } = context;
    const about = { ...on, folder: on.whom === "all-mine" ? null : await factsOnceThere(on.folder) };
    const without = (covers: readonly Cover[]): readonly Cover[] => covers.filter((each) => !isSame(each, about));
    const before = requireCovered(env);
    const left = without(before);
    // The user's entries serve other folders, too.
    const served = servedBy(on.tool, left);
    const scope: Scope = { project: null, env, command: [], each: "tool" };
    const changes = [
      ...(on.whom === "everybody" || served.length > 0 ? [] : removals(on.tool, scope)),
      ...(on.whom === "everybody" ? removals(on.tool, { ...scope, project: on.folder }) : formerChanges(context, on)),
    ];
    const data = dataOf("remove", on, changes);
    if (input.flag("plan")) return { data, text: () => contentsOf(context, data) };
    requireShown(context, input, data);
    requireKeepable();
    for (const change of changes) write(change);
    forget(changes);
    failpoint("agent.removed");
    const covers = await changeCovered(env, without);
    if (on.whom === "me") await refuse(context, on, covers);
    if (left.length < before.length || changes.some((each) => each.text !== each.before)) await noteRemoval(on);
    await noteLostCover(context, before, left);
    return {
      data,
      text: () =>
        [
          `${context.style.green("removed")} for ${TOOLS[on.tool]!.title}, ${wordsOf(on)}`,
          ...shown(changes),
          ...(on.whom === "everybody" || served.length === 0
            ? []
            : [`  the entries in your settings stay for ${listed(served)}`]),
        ].join("\n"),
    };
  },
};

const listed = (covers: readonly Cover[]): string =>
  listedNames(covers.map(({ folder }) => printable(folder?.path ?? "all of your workspaces")));

/** Forgets removed entries. A folder was made for its first file, and is empty after the removal of the last one. */
function forget(changes: readonly Change[]): void {
  for (const { file, made } of changes.toReversed()) forgetBefore(file, made ?? null);
}

/** Returns the path and identity of a folder, which may be gone. */
const factsOnceThere = async (path: string): Promise<CoveredFolder> =>
  existsSync(path) ? folderFacts(path) : { path, inode: "", made: "0", git: null };

/**
 * Records that a worktree or a copy of a covered repository, or a folder in a covered one, stays uncovered. Reports an entry for
 * other persons or folders that covers the folder still.
 */
async function refuse(context: Context, on: Place, covers: readonly Cover[]): Promise<void> {
  const still = coverageOf(covers, on.tool, on.folder);
  if (still?.by === "all" || (still?.cover.whom === "everybody" && still.root === on.folder)) {
    const line = context.commandLine(["agent", "remove", on.tool, "--for", still.cover.whom]);
    return context.note(`the folder is still covered; see ${line}`);
  }
  if (still === null && !(await isInCopy(covers, on.tool, on.folder))) return;
  const never: Cover = { ...on, each: "never", folder: await folderFacts(on.folder) };
  await changeCovered(context.env, (all) => withCover(all, never));
}

/** Returns the files without the entries of a tool, byte for byte as before `install` if nobody has changed them since. */
function removals(tool: string, scope: Scope): Change[] {
  return changesOf(editsOf(tool, scope), withoutEdit).map((change) => {
    const kept = keptBefore(change.file, change.before);
    return kept === null ? change : { ...change, text: kept.before, made: kept.made };
  });
}

function toolOf(input: Input): string {
  const name = input.required(0);
  if (Object.hasOwn(TOOLS, name)) return name;
  throw usage(
    `unknown tool ${JSON.stringify(name)}`,
    Object.keys(TOOLS)
      .filter((each) => name !== "" && each.startsWith(name.toLowerCase()))
      .map((each) => `did you mean ${each}? `)
      .join("") + `choose one of ${Object.keys(TOOLS).join(", ")}`,
  );
}

/** Throws `usage` for text that is not an HTTP address, and for an entry that would count in other folders than the token's. */
function addressOf({ whom }: Place, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.parse(text);
  if (url === null || !["http:", "https:"].includes(url.protocol))
    throw usage(`--http must be the address of a daemon's MCP server; found ${JSON.stringify(text)}`, HTTP_HINT);
  if (whom !== "everybody")
    throw usage(
      "the MCP server of a daemon serves one workspace, the one of its token, but your own settings of the tool count in every folder",
      "write the entry into the project's files: --for everybody",
    );
  if (url.pathname === "/") url.pathname = "/mcp";
  return url.href;
}

const HTTP_HINT = "for example https://host:7777/mcp";
