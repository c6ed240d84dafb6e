import { relative } from "node:path";
import { noteAsked, uncoveredClones, type UncoveredClone } from "../../../agents/clones.ts";
import { coverageOf, type Cover, orNull, readCovered } from "../../../agents/covered.ts";
import { isTrusted, lastPrompt } from "../../../agents/own-files.ts";
import { areWithoutList, installedAt, lackingHooks, TOOLS } from "../../../agents/tools.ts";
import { append } from "../../../append.ts";
import type { AgentHooks } from "../../../contract/looking.ts";
import { toCairnError } from "../../../errors.ts";
import { rawPath } from "../../../formats/records/record.ts";
import { displayPath, isAtOrBelow } from "../../../fs/paths/safe-path.ts";
import { describeFailed, withUnopened } from "../../../workspace/points/failed-hooks.ts";
import { findWorkspace, realPathOf } from "../../../workspace/place/find-workspace.ts";
import { listReleased, releasedRegistration } from "../../../workspace/place/registry.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { LateSaves } from "../../late-saves.ts";
import { formatAge, printable, shellQuote, shownTime } from "../../render/format.ts";
import type { Style } from "../../render/style.ts";
import { renderTable } from "../../render/table.ts";
import type { AgentState, FolderState } from "./data.ts";
import { rootAbove } from "./failed-hook.ts";

export const command: CommandDefinition = {
  name: "agent status",
  answers: true,
  options: [{ flags: "--all", text: "all folders that hooks cover or point to, also released ones" }],
  examples: [
    { line: "cairn -C ~/project agent status", text: "which tools save this folder, and when they did last" },
    { line: "cairn agent status --all --json", text: "all folders, for programs" },
  ],
  async run(context, input) {
    const isAll = input.flag("all");
    const states: FolderState[] = [];
    for (const folder of isAll ? await allFolders(context) : [context.folder()])
      states.push(await folderState(context, folder));
    const folders = isAll ? states.filter(hasAgents) : states;
    const clones = await uncoveredClones(context.env);
    const shown = isAll ? isOfFolder : isOfMachine;
    return {
      data: { folders, clones },
      async text() {
        const lines = await render(folders, shown, context.style);
        append(
          lines,
          clones.flatMap((each) => aboutClone(each, isAll)),
        );
        noteAsked(context.env, clones);
        return lines.join("\n");
      },
    };
  },
};

/** True if a tool has hooks for a folder, or works in it without hooks. */
const hasAgents = ({ agents }: FolderState): boolean =>
  agents.some((each) => isOfFolder(each) || each.last_prompt !== null);

/** True for a tool whose hooks cover the folder or point to it, or that calls its hook by itself. */
const isOfFolder = ({ tool, installed }: AgentState): boolean => installed.length > 0 || !Object.hasOwn(TOOLS, tool);

/** True also for a tool that has hooks for other folders. */
const isOfMachine = (agent: AgentState): boolean => isOfFolder(agent) || agent.why !== NOT_INSTALLED;

const NOT_INSTALLED = "no hooks are installed";

/** Lists workspaces, covered folders and released ones. */
async function allFolders(context: Context): Promise<string[]> {
  const workspaces = await (await context.library()).listWorkspaces(context.callOptions());
  const released = listReleased().flatMap(({ registration }) =>
    registration === null ? [] : [displayPath(rawPath(registration)).path],
  );
  const covered = readCovered(context.env)?.flatMap(({ folder }) => folder?.path ?? []) ?? [];
  return [...new Set([...workspaces.map(({ path }) => path), ...covered, ...released])].toSorted();
}

/** Facts of a folder that all of its agents share. */
interface About {
  /** the workspace's folder, or the folder that was asked about */
  path: string;
  asked: string;
  env: Context["env"];
  list: readonly Cover[] | null;
  /** the reason if no hook can save the folder */
  problem: string | null;
  /** true: no workspace, perhaps not any more */
  isGone: boolean;
  isPending: boolean;
}

/** Returns the state of each agent in a folder, or in the workspace above it. */
export async function folderState(context: Context, folder: string): Promise<FolderState> {
  const { env } = context;
  const options = context.callOptions();
  const asked = realPathOf(folder).toString("utf8");
  let path = rootAbove(asked);
  let [watched, known, problem]: [boolean | null, AgentHooks[], string | null] = [null, [], null];
  let isGone = false;
  try {
    const library = await context.library();
    const found = await library.find(asked, options);
    path = found ?? path;
    isGone = found === null;
    if (found === null) problem = whyNone(path);
    else {
      await using client = await library.open(found, options);
      ({ watched, agents: known } = await client.agentEvents({ ...options, limit: 0 }));
      await client.store(options);
    }
  } catch (error) {
    problem = toCairnError(error).message;
  }
  known = withUnopened(known, path);
  const saves = new LateSaves(path);
  const about = { path, asked, env, list: readCovered(env), problem, isGone, isPending: saves.isPending() };
  const tools = new Set([...Object.keys(TOOLS), ...known.map(({ agent }) => agent)]);
  const agents = [...tools].map((tool) =>
    agentState(
      tool,
      known.find(({ agent }) => agent === tool),
      about,
    ),
  );
  return { path, problem, watched, background: saves.state(), agents };
}

const NO_WORKSPACE = "not a workspace";

function whyNone(path: string): string {
  const released = releasedRegistration(path);
  return released === null ? NO_WORKSPACE : `released ${shownTime(released.registered_at)}`;
}

/** Milliseconds after the last hook from which a prompt without a hook counts as missed. */
const MISSED_MS = 60_000;

function agentState(tool: string, known: AgentHooks | undefined, about: About): AgentState {
  const { path, asked, env, problem, isGone, isPending } = about;
  const { last_hook: last = null, last_point = null, failed = null, checked_at = null } = known ?? {};
  const facts = { tool, trusted: null, last_prompt: null, last_hook: last, last_point, checked_at, problems: [] };
  // Another tool calls its hook by itself.
  if (!Object.hasOwn(TOOLS, tool)) return { ...facts, installed: [], covered: problem === null, why: problem, failed };
  const { title, afterwards, readsOnlyStart } = TOOLS[tool]!;
  const files = { project: installedAt(tool, path, env), user: installedAt(tool, null, env) };
  const { isCovered, why: whyNot, isFamily } = coverOf(tool, about);
  const isTooDeep = files.project !== null && readsOnlyStart === true && asked !== path;
  const uses = { project: !isTooDeep, user: isCovered };
  const installed = (["project", "user"] as const).filter((each) => files[each] !== null && uses[each]);
  const prompt = lastPrompt(tool, { folder: path, env, isHere: inWorkspace(path) });
  const last_prompt = prompt === null ? null : new Date(prompt).toISOString();
  if (installed.length === 0) {
    const why = isTooDeep
      ? `${title} reads the project's hooks only if it is started in ${path}, not in ${relative(path, asked)}`
      : files.user === null
        ? NOT_INSTALLED
        : whyNot;
    return { ...facts, installed, last_prompt, covered: false, why, failed: null };
  }
  // A worktree of a covered repository becomes a workspace at its first prompt.
  const why = isFamily ? null : problem;
  const writtenAt = Math.max(files.project ?? 0, files.user ?? 0);
  const lastAt = last === null ? 0 : Date.parse(last.at);
  // A hook that was called is the best proof.
  const trusted = lastAt > writtenAt || isTrusted(tool, path, env, files.project !== null);
  const isMissed = prompt !== null && !isPending && prompt > Math.max(lastAt, writtenAt) + MISSED_MS;
  const problems: string[] = [];
  if (isGone && why !== null) {
    const line = `cairn -C ${shellQuote(path)}`;
    const remove = `${line} agent remove ${tool}${installed.includes("project") ? " --for everybody" : ""}`;
    problems.push(
      files.project !== null && why === NO_WORKSPACE
        ? `the project's hooks of ${title} save nothing until it is a workspace: ${line} save`
        : `hooks of ${title} still point to this folder, and save nothing; to remove them: ${remove}`,
    );
  }
  const lacking = installed.flatMap((each) => lackingHooks(tool, each === "project" ? path : null, env));
  if (lacking.length > 0)
    problems.push(
      `the hooks of ${title} are of an earlier version, and do not tell of ${[...new Set(lacking)].join(", ")}: \`cairn -C ${shellQuote(path)} agent install ${tool}${installed.includes("project") ? " --for everybody" : ""}\` updates them`,
    );
  if (why === null && trusted === false) problems.push(`${title} does not trust the hooks yet: ${afterwards}`);
  if (why === null && isMissed)
    problems.push(
      `no hook of ${title} has saved since its prompt of ${last_prompt}: restart the session; ${afterwards}`,
    );
  return { ...facts, installed, covered: why === null, why, trusted, last_prompt, failed, problems };
}

/** Tells if the hooks in the user's settings cover a folder. Those of earlier versions had no list, and cover all workspaces. */
function coverOf(
  tool: string,
  { path, env, list, problem }: About,
): { isCovered: boolean; why: string; isFamily: boolean } {
  const covers = list?.filter((each) => each.tool === tool) ?? [];
  const coverage = list && coverageOf(list, tool, path);
  const isNever = covers.some(({ each, folder }) => each === "never" && folder?.path === path);
  const isForAll = list === null || coverage?.by === "all" || (covers.length === 0 && areWithoutList(tool, env));
  const isCovered = isForAll ? problem !== NO_WORKSPACE : coverage !== null;
  return {
    isCovered,
    isFamily: coverage?.by === "family" && problem === NO_WORKSPACE,
    why: isNever
      ? "you said that it is not to be covered"
      : problem === null || problem === NO_WORKSPACE
        ? `\`cairn -C ${shellQuote(path)} agent install ${tool}\` covers it`
        : problem,
  };
}

/** Tells if a tool that works in a folder is saved into this workspace, not into one inside. */
function inWorkspace(path: string): (folder: string) => boolean {
  const known = new Map<string, boolean>([[path, true]]);
  const isNearest = (folder: string): boolean =>
    orNull(() => findWorkspace(folder)?.folder.toString() ?? path) === path;
  return (folder) => {
    const isKnown = known.get(folder) ?? (isAtOrBelow(folder, path) && isNearest(folder));
    known.set(folder, isKnown);
    return isKnown;
  };
}

/** Asks once about a copy of a covered repository. Later only `--all` names the copy. */
function aboutClone({ tool, folder, of, asked_at: asked }: UncoveredClone, isAll: boolean): string[] {
  const line = `cairn -C ${shellQuote(folder)} agent`;
  const question = `. \`${line} install ${tool}\` covers it, \`${line} remove ${tool}\` ends this question`;
  const said = `${folder} is not covered, though ${TOOLS[tool]?.title ?? tool} works in it: a copy of ${of}`;
  return asked === null ? [printable(`${said}${question}`)] : isAll ? [printable(said)] : [];
}

async function render(
  folders: readonly FolderState[],
  shown: (agent: AgentState) => boolean,
  style: Style,
): Promise<string[]> {
  const now = Date.now();
  const rows: string[][] = [];
  const below = new Map<number, string[]>();
  for (const folder of folders) {
    const lines = notesOn(folder, style, now);
    for (const agent of folder.agents.filter(shown)) {
      rows.push(rowOf(folder, agent, { style, now }));
      if (agent.failed !== null)
        lines.push(style.red(printable(describeFailed({ agent: agent.tool, ...agent.failed }, shownTime))));
      append(lines, agent.problems.map(printable));
    }
    if (!folder.agents.some(shown))
      rows.push([style.bold(printable(folder.path)), `no agent has hooks here: ${INSTALL}`]);
    below.set(rows.length - 1, lines);
  }
  const table = await renderTable(rows);
  if (table.length === 0) return [`no folder has hooks of an agent; ${INSTALL}`];
  const notes = (row: number): string[] => (below.get(row) ?? []).map((each) => `  ${style.yellow("!")} ${each}`);
  return table.flatMap((line, row) => [line, ...notes(row)]);
}

const INSTALL = "`cairn agent install TOOL` adds them";

/** Returns lines on a folder's background process: its progress, and its last failure. */
function notesOn({ path, background }: FolderState, style: Style, now: number): string[] {
  const { failed, at } = background ?? {};
  const said = failed && style.red(`a background save failed ${formatAge(at!, now)}: ${printable(failed)}`);
  return [new LateSaves(path).describe(), said].flatMap((each) => each ?? []);
}

function rowOf(
  { path, watched, problem }: FolderState,
  { tool, installed, why, trusted, last_prompt: prompt, last_hook: last, last_point: point, checked_at }: AgentState,
  { style, now }: { style: Style; now: number },
): string[] {
  const ago = (what: string, time: string | undefined | null, none = ""): string =>
    time ? `${what} ${formatAge(time, now)}` : none;
  const isOnlyTop = TOOLS[tool]?.readsOnlyStart === true && !installed.includes("user");
  const places = installed.map((each) => (each === "project" && isOnlyTop ? "project, not in subfolders" : each));
  const by = [...places, ...(watched === true ? ["watched"] : [])].join(", ");
  const row = [
    style.bold(printable(path)),
    TOOLS[tool]?.title ?? printable(tool),
    why === null
      ? style.green(by === "" ? "covered" : `covered (${by})`)
      : `${style.red("not covered")}: ${printable(why)}`,
  ];
  if (why !== null && installed.length === 0) return row;
  return [
    ...row,
    trusted === null ? "trust unknown" : trusted ? "trusted" : style.yellow("not trusted"),
    ago("prompt", prompt),
    // A folder that cannot be asked has told of no hook, and of none that was missing.
    ago("hook", last?.at, problem === null ? ago("no hook yet, checked", checked_at, "no hook yet") : ""),
    ago(`point ${point?.save_point_id?.slice(0, 8)}`, point?.at),
  ];
}
