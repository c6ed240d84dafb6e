import { rawPath } from "../../../formats/records/record.ts";
import { displayPath } from "../../../fs/paths/safe-path.ts";
import type { AgentHooks } from "../../../contract/looking.ts";
import { append } from "../../../append.ts";
import { toCairnError } from "../../../errors.ts";
import { unopenedEvents } from "../../../workspace/points/agent-record.ts";
import { describeFailed } from "../../../workspace/points/failed-hooks.ts";
import { realPathOf } from "../../../workspace/place/find-workspace.ts";
import { listReleased, releasedRegistration } from "../../../workspace/place/registry.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { formatAge, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import type { Style } from "../../render/style.ts";
import { AGENTS, type Environment, installedAt } from "./agents.ts";
import type { AgentState, FolderState } from "./data.ts";
import { shownTime, withUnopened } from "./failed-hook.ts";
import { LateSaves } from "../../late-saves.ts";
import { isTrusted, lastPrompt } from "./own-files.ts";

export const command: CommandDefinition = {
  name: "agent status",
  answers: true,
  options: [{ flags: "--all", text: "all folders in which an agent has hooks, also released ones" }],
  examples: [
    { line: "cairn -C ~/project agent status", text: "which tools save this folder, and when they did last" },
    { line: "cairn agent status --all --json", text: "all folders, for programs" },
  ],
  async run(context, input) {
    const isAll = input.flag("all");
    const states: FolderState[] = [];
    for (const folder of isAll ? await allFolders(context) : [context.folder()])
      states.push(await folderState(context, folder));
    const folders = isAll ? states.filter(({ agents }) => agents.some(hasHooks)) : states;
    return { data: { folders }, text: async () => render(folders, context.style, Date.now()) };
  },
};

/** True for a tool that has hooks in the folder, or has called one there. */
const hasHooks = ({ installed, last_hook: last, failed }: AgentState): boolean =>
  installed.length > 0 || last !== null || failed !== null;

/** Lists all workspaces, and the folders that were released. */
async function allFolders(context: Context): Promise<string[]> {
  const workspaces = await (await context.library()).listWorkspaces(context.callOptions());
  const released = listReleased().flatMap(({ registration }) =>
    registration === null ? [] : [displayPath(rawPath(registration)).path],
  );
  return [...new Set([...workspaces.map(({ path }) => path), ...released])].toSorted();
}

/** Returns what is known of the agents in a folder, or in the workspace above it. */
export async function folderState(context: Context, folder: string): Promise<FolderState> {
  const options = context.callOptions();
  let path = realPathOf(folder).toString("utf8");
  let [watched, known, problem]: [boolean | null, AgentHooks[], string | null] = [null, [], null];
  try {
    const library = await context.library();
    const found = await library.find(path, options);
    path = found ?? path;
    if (found === null) problem = whyNone(path);
    else {
      await using client = await library.open(found, options);
      ({ watched, agents: known } = await client.agentEvents({ ...options, limit: 0 }));
    }
  } catch (error) {
    problem = toCairnError(error).message;
  }
  const saves = new LateSaves(path);
  const others = [...known, ...unopenedEvents(path)].map(({ agent }) => agent);
  const tools = new Set([...Object.keys(AGENTS), ...others]);
  const agents: AgentState[] = [];
  for (const tool of tools) {
    const about = { known: known.find(({ agent }) => agent === tool), problem, isPending: saves.isPending() };
    agents.push(await agentState(tool, { path, env: context.env, ...about }));
  }
  return { path, problem, watched, background: saves.state(), agents };
}

function whyNone(path: string): string {
  const released = releasedRegistration(path);
  if (released === null) return "not a workspace";
  return `released ${shownTime(released.registered_at)}`;
}

/** Milliseconds by which a prompt must be later than the last hook before that hook counts as missed. */
const MISSED_MS = 60_000;

interface About {
  path: string;
  env: Environment;
  known: AgentHooks | undefined;
  /** Why no hook can save the folder. */
  problem: string | null;
  isPending: boolean;
}

async function agentState(tool: string, { path, env, known, problem, isPending }: About): Promise<AgentState> {
  const files = Object.hasOwn(AGENTS, tool)
    ? { project: installedAt(tool, path, env), user: installedAt(tool, null, env) }
    : { project: null, user: null };
  const installed = (["project", "user"] as const).filter((each) => files[each] !== null);
  // Another tool calls its hook by itself.
  const isInstalled = installed.length > 0 || !Object.hasOwn(AGENTS, tool);
  const why = isInstalled ? problem : "no hooks are installed";
  const last = (isInstalled ? known?.last_hook : null) ?? null;
  const writtenAt = Math.max(files.project ?? 0, files.user ?? 0);
  const lastAt = last === null ? 0 : Date.parse(last.at);
  const prompt = isInstalled ? await lastPrompt(tool, path, env) : null;
  const state: AgentState = {
    tool,
    installed,
    covered: why === null,
    why,
    // A hook that was called is the best proof.
    trusted: installed.length === 0 ? null : lastAt > writtenAt || isTrusted(tool, path, env, files.project !== null),
    last_prompt: prompt === null ? null : new Date(prompt).toISOString(),
    last_hook: last,
    last_point: (isInstalled ? known?.last_point : null) ?? null,
    failed: isInstalled ? withUnopened(tool, path, known) : null,
    checked_at: known?.checked_at ?? null,
    problems: [],
  };
  if (installed.length === 0) return state;
  const { title, afterwards } = AGENTS[tool]!;
  if (problem !== null) {
    if (files.project !== null)
      state.problems.push(`hooks of ${title} still point to this folder; to remove them: cairn agent remove ${tool}`);
    return state;
  }
  if (state.trusted === false) state.problems.push(`${title} does not trust the hooks yet: ${afterwards}`);
  if (prompt !== null && !isPending && prompt > Math.max(lastAt, writtenAt) + MISSED_MS)
    state.problems.push(
      `no hook of ${title} has saved since its prompt of ${state.last_prompt}: restart the session; ${afterwards}`,
    );
  return state;
}

async function render(folders: readonly FolderState[], style: Style, now: number): Promise<string> {
  const rows: string[][] = [];
  const besides = new Map<number, string[]>();
  for (const folder of folders) {
    const lines = notesOn(folder, style, now);
    const shown = folder.agents.filter(hasHooks);
    for (const agent of shown) {
      rows.push(rowOf(folder, agent, { style, now }));
      if (agent.failed !== null)
        lines.push(style.red(printable(describeFailed({ agent: agent.tool, ...agent.failed }, shownTime))));
      append(lines, agent.problems.map(printable));
    }
    if (shown.length === 0)
      rows.push([style.bold(printable(folder.path)), folder.problem ?? "no agent has hooks here", INSTALL]);
    besides.set(rows.length - 1, lines);
  }
  if (rows.length === 0) return `no folder has hooks of an agent; ${INSTALL}`;
  const table = await renderTable(rows);
  return table
    .flatMap((line, i) => [line, ...(besides.get(i) ?? []).map((each) => `  ${style.yellow("!")} ${each}`)])
    .join("\n");
}

const INSTALL = "`cairn agent install TOOL` adds them";

/** What a folder's background process does, and what failed in it. */
function notesOn({ path, background }: FolderState, style: Style, now: number): string[] {
  const running = new LateSaves(path).describe();
  const failed = background?.failed ?? null;
  return [
    ...(running === null ? [] : [running]),
    ...(failed === null
      ? []
      : [style.red(`a background save failed ${formatAge(background!.at, now)}: ${printable(failed)}`)]),
  ];
}

function rowOf({ path, watched }: FolderState, agent: AgentState, { style, now }: { style: Style; now: number }): string[] {
  const { installed, why, trusted, last_prompt: prompt, last_hook: last, last_point: point, checked_at: checked } = agent;
  const ago = (what: string, at: string): string => `${what} ${formatAge(at, now)}`;
  return [
    style.bold(printable(path)),
    AGENTS[agent.tool]?.title ?? printable(agent.tool),
    why === null
      ? style.green(`covered (${[...installed, ...(watched === true ? ["watched"] : [])].join(", ")})`)
      : style.red(`not covered: ${printable(why)}`),
    trusted === null ? "trust unknown" : trusted ? "trusted" : style.yellow("not trusted"),
    prompt === null ? "no prompt" : ago("prompt", prompt),
    last === null ? (checked === null ? "no hook yet" : ago("no hook yet, checked", checked)) : ago("hook", last.at),
    point === null ? "no point" : ago(`point ${point.save_point_id!.slice(0, 8)}`, point.at),
  ];
}
