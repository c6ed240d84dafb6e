import { createHash } from "node:crypto";
import type { DiffEntry, NamedPath } from "../contract/index.ts";
import type { AgentEvent } from "../contract/looking.ts";
import type { RewindOptions, Turn, TurnsOptions, TurnsResult } from "../contract/turns.ts";
import type { RestoreResult } from "../contract/points.ts";
import { advice, CairnError, call, option, toCairnError } from "../errors.ts";
import { rawPath } from "../formats/records/record.ts";
import { isAtOrBelow, listedNames, normalizeTyped, quotedPath } from "../fs/paths/safe-path.ts";
import { plural } from "../formats/sizes.ts";
import type { SavePointId } from "../ids.ts";
import { CHECK_EVENT, isBefore, readAgentEvents } from "../workspace/points/agent-events.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { diff } from "./diff.ts";
import { goingBack } from "./restore.ts";

/** Turns of agents: a prompt, and everything that the agent did until it waited for the next one. */

const DEFAULT_TURNS = 20;
const SHOWN_PATHS = 20;
const LEAST_DIGITS = 4;

/** Names of events that begin or end a turn, in each agent's hooks. */
const PROMPT = /^(?:UserPromptSubmit|BeforeAgent|prompt)$/;
const END = /^(?:Stop|AfterAgent|stop)$/;

interface FoundTurn {
  id: string;
  /** indexes into the log; the first is the turn's beginning */
  events: number[];
}

/** Divides the log into turns, oldest first. Gemini CLI has no turn ids: each of its prompts begins a turn. */
function turnsIn(log: readonly AgentEvent[]): FoundTurn[] {
  const turns: FoundTurn[] = [];
  const open = new Map<string, FoundTurn>();
  for (const [index, event] of log.entries()) {
    if (event.event === CHECK_EVENT) continue;
    const session = sessionOf(event);
    const current = open.get(session);
    const last = current === undefined ? undefined : log[current.events.at(-1)!]!;
    if (current !== undefined && isOfTurn(event, last!)) {
      current.events.push(index);
      continue;
    }
    const id = createHash("sha256")
      .update(`${session}\0${event.turn ?? event.at}`)
      .digest("hex")
      .slice(0, 8);
    const turn = { id, events: [index] };
    turns.push(turn);
    open.set(session, turn);
  }
  return turns;
}

/** True if an event belongs to the turn of the event before it in the same session, also if it comes after the turn's end. */
function isOfTurn({ turn, event }: AgentEvent, last: AgentEvent): boolean {
  if (turn !== null && last.turn !== null) return turn === last.turn;
  return !END.test(last.event) && (turn !== null || !PROMPT.test(event));
}

function sessionOf({ agent, session }: AgentEvent): string {
  return `${agent}\0${session ?? ""}`;
}

/** Returns the turns of a workspace, newest first. */
export async function turns(workspace: Workspace, options: TurnsOptions): Promise<TurnsResult> {
  const log = readAgentEvents(workspace.found.paths.agentEvents);
  const { limit = DEFAULT_TURNS, session: wanted, ...own } = options;
  const all = ofSession(turnsIn(log), log, wanted).toReversed();
  const listed: Turn[] = [];
  for (const each of limit === 0 ? all : all.slice(0, limit)) listed.push(await turnOf(workspace, log, each, own));
  const sessions = new Map<string, TurnsResult["sessions"][number]>();
  for (const { events } of all) {
    const event = log[events.at(-1)!]!;
    const known = sessions.get(sessionOf(event));
    if (known !== undefined) known.turns++;
    else sessions.set(sessionOf(event), { session: event.session, agent: event.agent, turns: 1, last_at: event.at });
  }
  return { turns: listed, sessions: [...sessions.values()], more: all.length - listed.length };
}

function ofSession(all: FoundTurn[], log: readonly AgentEvent[], wanted: string | undefined): FoundTurn[] {
  if (wanted === undefined) return all;
  return all.filter(({ events }) => log[events[0]!]!.session?.startsWith(wanted) === true);
}

async function turnOf(
  workspace: Workspace,
  log: readonly AgentEvent[],
  { id, events }: FoundTurn,
  call: { signal?: AbortSignal },
): Promise<Turn> {
  const all = events.map((index) => log[index]!);
  const [first, last] = [all[0]!, all.at(-1)!];
  const { before, whyNot } = stateBefore(workspace, first);
  const differing = before === null ? null : await differencesBetween(workspace, before, last.save_point_id, call);
  return {
    turn_id: id,
    agent: first.agent,
    session: first.session,
    started_at: first.asked_at ?? first.at,
    ended_at: END.test(last.event) ? last.at : null,
    prompt: all.find(({ prompt }) => prompt !== null)?.prompt ?? null,
    commands: all.filter(({ event }) => isBefore(event)).flatMap(({ command }) => command ?? []),
    tools: all.filter(({ tool, event }) => tool !== null && isBefore(event)).length,
    before,
    ...(whyNot === undefined ? {} : { why_not: whyNot }),
    after: last.save_point_id,
    changed: differing?.length ?? null,
    paths: (differing ?? []).slice(0, SHOWN_PATHS).map(nameOf),
  };
}

function nameOf({ path, path_b64: raw }: DiffEntry): NamedPath {
  return raw === undefined ? { path } : { path, path_b64: raw };
}

/** Returns the state before a turn: the point of its first hook, if the agent waited for that hook. */
function stateBefore(workspace: Workspace, first: AgentEvent): { before: SavePointId | null; whyNot?: string } {
  if (first.asked_at !== null)
    return {
      before: null,
      whyNot: "the save went on after the hook had returned, so the agent may have worked meanwhile",
    };
  if (!isBefore(first.event)) return { before: null, whyNot: `the first hook of the turn was ${first.event}` };
  if (workspace.byId(first.save_point_id) === null)
    return { before: null, whyNot: "a cleanup removed the point before the turn" };
  return { before: first.save_point_id };
}

/** Compares two points. Returns null if a point is missing or damaged. */
async function differencesBetween(
  workspace: Workspace,
  before: SavePointId,
  after: SavePointId,
  call: { signal?: AbortSignal },
): Promise<DiffEntry[] | null> {
  if (before === after) return [];
  try {
    return (await diff(workspace, before, after, call)).entries;
  } catch (error) {
    const { code } = toCairnError(error);
    if (code === "interrupted") throw error;
    return null;
  }
}

/**
 * Restores the state before a turn, as one operation. `name`: a turn's id, the number of turns to go back (1: the
 * newest), or undefined for the newest. Throws `not_found`, and `refused` if other sessions changed files since.
 */
export async function rewind(
  workspace: Workspace,
  name: string | undefined,
  options: RewindOptions,
): Promise<RestoreResult> {
  const { session, over = false, paths: typed, cause, ...own } = options;
  const log = readAgentEvents(workspace.found.paths.agentEvents);
  const turn = namedTurn(ofSession(turnsIn(log), log, session), name);
  const first = log[turn.events[0]!]!;
  const { before, whyNot } = stateBefore(workspace, first);
  if (before === null)
    throw new CairnError("not_found", `the state before the turn ${turn.id} cannot be restored: ${whyNot}`, {
      hint: advice`choose an earlier turn; ${call("turns")} lists them`,
    });
  const paths = typed === undefined ? null : typed.map(normalizeTyped);
  if (!over) await requireOwnChanges(workspace, log, { turn, paths }, own);
  const rewound = { kind: "rewind", turn: turn.id, agent: first.agent, session: first.session };
  return goingBack(workspace, { ...own, cause: { ...cause, ...rewound } }, "restore", () => ({
    target: workspace.resolve(before),
    paths,
    keepPresent: false,
    kind: "rewind",
  }));
}

function namedTurn(all: readonly FoundTurn[], name: string | undefined): FoundTurn {
  const seeTurns = advice`${call("turns")} lists the turns`;
  if (name === undefined || /^[1-9]\d{0,2}$/.test(name)) {
    const turn = all.at(-Number(name ?? 1));
    if (turn !== undefined) return turn;
    const known =
      all.length === 0 ? "no hook of an agent has saved here yet" : `${plural(all.length, "turn")} are recorded`;
    throw new CairnError("not_found", `there is no such turn: ${known}`, { hint: seeTurns });
  }
  const found = name.length < LEAST_DIGITS ? [] : all.filter(({ id }) => id.startsWith(name.toLowerCase()));
  if (found.length === 1) return found[0]!;
  const code = found.length === 0 ? "not_found" : "ambiguous";
  throw new CairnError(
    code,
    `${found.length === 0 ? "no turn begins" : "several turns begin"} with ${name.slice(0, 40)}`,
    {
      hint: seeTurns,
    },
  );
}

/** Throws `refused` if the rewind would revert changes that other sessions made since the turn began. */
async function requireOwnChanges(
  workspace: Workspace,
  log: readonly AgentEvent[],
  { turn, paths }: { turn: FoundTurn; paths: readonly Uint8Array[] | null },
  call: { signal?: AbortSignal },
): Promise<void> {
  const [start] = turn.events;
  const own = sessionOf(log[start!]!);
  const others = new Map<string, Set<string>>();
  for (let i = start! + 1; i < log.length; i++) {
    const event = log[i]!;
    // A save before a turn or a tool call contains changes that the hook's own session has not made.
    if (!event.made || sessionOf(event) === own || isBefore(event.event)) continue;
    const changed = await differencesBetween(workspace, log[i - 1]!.save_point_id, event.save_point_id, call);
    const names = others.get(sessionOf(event)) ?? new Set();
    for (const each of changed ?? [])
      if (paths === null || paths.some((path) => isAtOrBelow(rawPath(each), path))) names.add(each.path);
    if (names.size > 0) others.set(sessionOf(event), names);
  }
  if (others.size === 0) return;
  const listed = [...others].map(([key, names]) => ({
    session: key.split("\0")[1]!,
    agent: key.split("\0")[0]!,
    paths: [...names],
  }));
  const shown = listed.map(
    ({ agent, session, paths: names }) =>
      `${agent} ${session.slice(0, 8)}: ${listedNames(names.map((each) => quotedPath(Buffer.from(each))))}`,
  );
  throw new CairnError("refused", `the rewind would also revert changes of other sessions: ${shown.join("; ")}`, {
    hint: advice`to revert them too, add ${option("over")}; to restore some paths only, add ${option("paths", "--only PATH")}`,
    details: { others: listed },
  });
}
