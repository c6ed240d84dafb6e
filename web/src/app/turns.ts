import type { AgentEvent, DiffEntry, SavePoint, Turn } from "cairnstate/client";
import { type PathRef, toText } from "./address.ts";
import { turnOf } from "../parts/cause.tsx";
import { call } from "./calls.ts";

/** What the page tells of agents' turns. What a turn changed is decided by the server. */

/** Events of hooks in which the prompt and the tool calls of a turn are looked for. */
const EVENTS = 1000;
/** Turns among which one is looked for by its id. */
const MOST_TURNS = 500;

/** Returns the newest turns, the newest one first. */
export async function turnsIn(workspace: string, signal: AbortSignal): Promise<readonly Turn[]> {
  return (await call("turns", { workspace, options: { limit: MOST_TURNS } }, { signal })).turns;
}

/** Returns the turn of an id; null if it is none of the newest ones. */
export async function turnById(workspace: string, id: string, signal: AbortSignal): Promise<Turn | null> {
  return (await turnsIn(workspace, signal)).find(({ turn_id }) => turn_id === id) ?? null;
}

/**
 * Returns the turn of the point's session that began last before the point, and had not ended: the first hook of the next
 * turn saves what others changed meanwhile. `turns`: the newest one first.
 */
export function turnThatMade(turns: readonly Turn[], point: SavePoint): Turn | undefined {
  const own = turnOf(point);
  if (own === null) return undefined;
  const at = Date.parse(point.created_at);
  const last = turns.find(
    ({ agent, session, started_at }) => agent === own.agent && session === own.session && Date.parse(started_at) <= at,
  );
  return last === undefined || last.ended_at === null || Date.parse(last.ended_at) >= at ? last : undefined;
}

/** The entries that a turn's session alone changed in the turn, and the paths that take them back. */
export interface TurnChanges {
  entries: DiffEntry[];
  paths: readonly PathRef[];
}

/** Returns null if a state of the turn is missing, or if its own entries cannot be told from those of others. */
export async function changesOf(workspace: string, turn: Turn, signal: AbortSignal): Promise<TurnChanges | null> {
  const { before, after, changed, paths } = turn;
  if (before === null || after === null || changed === null) return null;
  const { entries: all } = await call("diff", { workspace, a: before, b: after }, { signal });
  const own = new Set(paths.map(toText));
  const isAll = changed > paths.length;
  if (isAll && all.length !== changed) return null;
  const entries = isAll ? all : all.filter((each) => own.has(toText(each)));
  // A path of a folder stands for all in it, also for what other turns made there.
  const files = entries.filter(({ kind }) => kind !== "directory");
  return { entries, paths: files.length > 0 ? files : entries };
}

/** Returns the events of a turn from its first one to the next turn of its session; none if the record no longer has them. */
export async function eventsOf(workspace: string, turn: Turn, signal: AbortSignal): Promise<AgentEvent[]> {
  const { events } = await call("agentEvents", { workspace, options: { limit: EVENTS } }, { signal });
  const own = events.filter(({ agent, session }) => agent === turn.agent && session === turn.session);
  const at = own.findIndex(({ at: saved, asked_at: asked }) => (asked ?? saved) === turn.started_at);
  if (at < 0) return [];
  const { turn: id, event: first } = own[at]!;
  const end = own.findIndex(
    (each, i) => i > at && (id === null ? each.event === first && each.prompt !== null : each.turn !== id),
  );
  return own.slice(at, end < 0 ? undefined : end);
}
