import type { Client } from "../../../contract/index.ts";
import type { AgentEvent } from "../../../contract/looking.ts";
import { append } from "../../../append.ts";
import { CHECK_EVENT } from "../../../workspace/points/agent-events.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { formatAge, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import type { Style } from "../../render/style.ts";
import { isTrusted, lastPrompt } from "../../../agents/own-files.ts";
import { installedAt, TOOLS } from "../../../agents/tools.ts";
import type { Environment } from "../../../fs/home.ts";
import type { AgentState, FolderState } from "./data.ts";
import { LateSaves } from "../../late-saves.ts";

export const command: CommandDefinition = {
  name: "agent status",
  answers: true,
  options: [{ flags: "--all", text: "all workspaces in which an agent has hooks or had some" }],
  examples: [
    { line: "cairn -C ~/project agent status", text: "which tools save this folder, and when they did last" },
    { line: "cairn agent status --all --json", text: "all folders, for programs" },
  ],
  async run(context, input) {
    const folders = input.flag("all")
      ? await allFolders(context)
      : [await folderState(await context.open(), context.env)];
    return { data: { folders }, text: async () => render(folders, context.style, Date.now()) };
  },
};

async function allFolders(context: Context): Promise<FolderState[]> {
  const library = await context.library();
  const states: FolderState[] = [];
  for (const { path, present } of await library.listWorkspaces(context.callOptions())) {
    if (!present) continue;
    try {
      await using client = await library.open(path, context.callOptions());
      states.push(await folderState(client, context.env));
    } catch (error) {
      context.note(`${path}: ${(error as Error).message}`);
    }
  }
  return states.filter(({ agents }) =>
    agents.some(({ installed, last_hook: last }) => installed.includes("project") || last !== null),
  );
}

/** Returns the state of the agents in a workspace, from its log of hooks and the tools' own files. */
export async function folderState(client: Client, env: Environment): Promise<FolderState> {
  const path = client.workspacePath();
  const { events, watched } = await client.agentEvents({ limit: 1000 });
  const saves = new LateSaves(path);
  const isPending = saves.isPending();
  const agents = Object.keys(TOOLS).map((tool) => {
    const own = events.filter(({ agent }) => agent === tool);
    return agentState(tool, path, { own, isPending, env });
  });
  return { path, watched, background: saves.state(), agents };
}

/** Milliseconds by which a prompt must be later than the last hook before that hook counts as missed. */
const MISSED_MS = 60_000;

function agentState(
  tool: string,
  path: string,
  { own, isPending, env }: { own: readonly AgentEvent[]; isPending: boolean; env: Environment },
): AgentState {
  const hooks = own.filter(({ event }) => event !== CHECK_EVENT);
  const last = hooks.at(-1) ?? null;
  const written = { project: installedAt(tool, path, env), user: installedAt(tool, null, env) };
  const installed = (["project", "user"] as const).filter((each) => written[each] !== null);
  const writtenAt = Math.max(written.project ?? 0, written.user ?? 0);
  const lastAt = last === null ? 0 : Date.parse(last.at);
  const state: AgentState = {
    tool,
    installed,
    // A hook that was called is the best proof.
    trusted: installed.length === 0 ? null : lastAt > writtenAt || isTrusted(tool, path, env, written.project !== null),
    last_hook: last,
    last_point: hooks.findLast(({ made }) => made) ?? null,
    checked_at: own.findLast(({ event }) => event === CHECK_EVENT)?.at ?? null,
    problems: [],
  };
  if (last !== null && last.failed !== null) state.problems.push(`the last hook saved nothing: ${last.failed}`);
  if (installed.length === 0) return state;
  const { title, afterwards } = TOOLS[tool]!;
  if (state.trusted === false) state.problems.push(`${title} does not trust the hooks yet: ${afterwards}`);
  const prompt = isPending ? null : lastPrompt(tool, path, env, Math.max(lastAt, writtenAt) + MISSED_MS);
  if (prompt !== null)
    state.problems.push(
      `no hook of ${title} has saved since its prompt of ${new Date(prompt).toISOString()}: restart the session; ${afterwards}`,
    );
  return state;
}

async function render(folders: readonly FolderState[], style: Style, now: number): Promise<string> {
  if (folders.length === 0) return "no workspace has hooks of an agent; `cairn agent install TOOL` adds them";
  const lines: string[] = [];
  for (const { path, watched, background, agents } of folders) {
    const daemon =
      watched === null
        ? "no daemon serves it"
        : watched
          ? "watched by the daemon"
          : "served by the daemon, not watched";
    lines.push(`${style.bold(printable(path))}  ${style.dim(daemon)}`);
    const running = new LateSaves(path).describe();
    if (running !== null) lines.push(`  ${running}`);
    if (background !== null && background.failed !== null)
      lines.push(
        style.red(`  a background save failed ${formatAge(background.at, now)}: ${printable(background.failed)}`),
      );
    const rows = agents.map((each) => [
      TOOLS[each.tool]!.title,
      each.installed.length === 0
        ? style.dim("not installed")
        : style.green(`installed (${each.installed.join(", ")})`),
      each.installed.length === 0 ? "" : trustWords(each.trusted),
      each.last_hook === null
        ? `no hook yet${each.checked_at === null ? "" : `, checked ${formatAge(each.checked_at, now)}`}`
        : `last hook ${formatAge(each.last_hook.at, now)} (${printable(each.last_hook.event)})`,
      each.last_point === null
        ? ""
        : `last point ${each.last_point.save_point_id!.slice(0, 8)}, ${formatAge(each.last_point.at, now)}`,
    ]);
    append(
      lines,
      (await renderTable(rows)).map((line) => `  ${line}`),
    );
    for (const { problems } of agents)
      for (const each of problems) lines.push(`  ${style.yellow("!")} ${printable(each)}`);
  }
  return lines.join("\n");
}

const trustWords = (trusted: boolean | null): string =>
  trusted === null ? "trust unknown" : trusted ? "trusted" : "not trusted";
