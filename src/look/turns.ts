import { createHash } from "node:crypto";
import type { DiffEntry, NamedPath } from "../contract/index.ts";
import type { Turn, TurnsOptions, TurnsResult } from "../contract/turns.ts";
import { toCairnError } from "../errors.ts";
import type { SavePointId } from "../ids.ts";
import { firstLineOf, isBefore, isBesideTurns } from "../workspace/points/agent-events.ts";
import { readAgentEvents, type StoredEvent, withTexts } from "../workspace/points/agent-record.ts";
import { failedIn } from "../workspace/points/failed-hooks.ts";
import { operationLog } from "../workspace/points/operation-log.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { diffPoints } from "./diff.ts";
import { type Interval, intervalsOf, momentsOf, type SavedPoint } from "../workspace/points/intervals.ts";

/** Turns of agents: a prompt, and everything that the agent did until it waited for the next one. */

const DEFAULT_TURNS = 20;
const SHOWN_PATHS = 20;
const SHOWN_REASONS = 5;
/** Events before a turn in which an open tool call is looked for. */
const EARLIER_EVENTS = 1000;
/** Causes of saves that somebody asked for. */
const ASKED: ReadonlySet<string> = new Set(["person", "program"]);

/** Names of events that begin or end a turn, in each agent's hooks. */
const PROMPT = /^(?:UserPromptSubmit|BeforeAgent|prompt)$/;
const END = /^(?:Stop|AfterAgent|stop)$/;

/** The record and the points as they were at one moment. Turns are made from them. */
interface Known {
  log: readonly StoredEvent[];
  /** numbers of the points by id */
  ids: ReadonlyMap<SavePointId, number>;
  /** numbers of all points, newest first */
  sequences: readonly number[];
}

export function knownOf({ points }: Workspace, log: readonly StoredEvent[]): Known {
  return { log, ids: points.ids(), sequences: points.committed().toReversed() };
}

export interface FoundTurn {
  id: string;
  /** key of its session */
  session: string;
  events: StoredEvent[];
  /** indexes of its first and its last event in the log */
  first: number;
  last: number;
}

/** Divides the log into turns, oldest first. Gemini CLI has no turn ids: each of its prompts begins a turn. */
export function turnsIn(log: readonly StoredEvent[]): FoundTurn[] {
  const turns: FoundTurn[] = [];
  const open = new Map<string, FoundTurn>();
  for (const [index, event] of log.entries()) {
    if (isBesideTurns(event.event)) continue;
    const session = sessionOf(event);
    const current = open.get(session);
    if (current !== undefined && isOfTurn(event, current.events.at(-1)!, current.events[0]!)) {
      current.events.push(event);
      current.last = index;
      continue;
    }
    const id = idOf(session, event);
    const turn = { id, session, events: [event], first: index, last: index };
    turns.push(turn);
    open.set(session, turn);
  }
  return turns;
}

/** A tool's own id, if it has the form of a turn's id, as those of the plugins of OpenClaw and Hermes. */
function idOf(session: string, { turn, at }: StoredEvent): string {
  if (turn !== null && /^[0-9a-f]{8}$/.test(turn)) return turn;
  return createHash("sha256")
    .update(`${session}\0${turn ?? at}`)
    .digest("hex")
    .slice(0, 8);
}

/** True if an event belongs to the turn of the event before it in the same session, also if it comes after the turn's end. */
function isOfTurn({ turn, event }: StoredEvent, last: StoredEvent, first: StoredEvent): boolean {
  if (turn !== null && last.turn !== null) return turn === last.turn;
  return !isEnd(last, first) && (turn !== null || !PROMPT.test(event));
}

/** True for an event that ends the turn of `first`, by its name or by naming the turn's id. */
function isEnd({ event, call }: StoredEvent, first: StoredEvent): boolean {
  return END.test(event) || (call !== null && call === first.turn);
}

function sessionOf({ agent, session }: StoredEvent): string {
  return `${agent}\0${session ?? ""}`;
}

/** Returns the turns of a workspace, newest first. */
export async function turns(workspace: Workspace, options: TurnsOptions): Promise<TurnsResult> {
  const log = readAgentEvents(workspace.found);
  const known = knownOf(workspace, log);
  const { limit = DEFAULT_TURNS, session: wanted, ...own } = options;
  const found = turnsIn(log);
  const all = ofSession(found, wanted).toReversed();
  const back = takenBack(workspace, found);
  const listed: Turn[] = [];
  for (const each of limit === 0 ? all : all.slice(0, limit))
    listed.push(await turnOf(workspace, known, { turn: each, isTakenBack: back.has(each.id) }, own));
  const sessions = new Map<string, TurnsResult["sessions"][number]>();
  for (const { session: key, events } of all) {
    const { session, agent, at } = events.at(-1)!;
    const counted = sessions.get(key);
    if (counted !== undefined) counted.turns++;
    else sessions.set(key, { session, agent, turns: 1, last_at: at });
  }
  return {
    turns: listed,
    sessions: [...sessions.values()],
    more: all.length - listed.length,
    failed_hooks: failedIn(log),
  };
}

export function ofSession(all: FoundTurn[], wanted: string | undefined): FoundTurn[] {
  return wanted === undefined ? all : all.filter(({ events }) => events[0]!.session?.startsWith(wanted) === true);
}

async function turnOf(
  workspace: Workspace,
  known: Known,
  { turn, isTakenBack }: { turn: FoundTurn; isTakenBack: boolean },
  call: { signal?: AbortSignal },
): Promise<Turn> {
  const { id, session, events: all } = turn;
  const texts = withTexts(workspace.found, all);
  const [first, last] = [all[0]!, all.at(-1)!];
  const { before, whyNot } = stateBefore(workspace, all);
  const changes = changesOf(timeline(workspace, known, turn), session);
  const after = all.findLast(({ save_point_id: state }) => state !== null)?.save_point_id ?? null;
  const own = after === null ? null : await entriesOf(workspace, changes, { isUncertain: false, call });
  const uncertain = await entriesOf(workspace, changes, { isUncertain: true, call });
  const notSaved = [...new Set(all.flatMap(({ failed }) => failed ?? []))].slice(0, SHOWN_REASONS);
  return {
    turn_id: id,
    agent: first.agent,
    session: first.session,
    started_at: first.asked_at ?? first.at,
    ended_at: isEnd(last, first) ? last.at : null,
    prompt: promptOf(texts),
    commands: texts.filter(({ event }) => isBefore(event)).flatMap(({ command }) => command ?? []),
    tools: all.filter(({ tool, event }) => tool !== null && isBefore(event)).length,
    before,
    ...(whyNot === undefined ? {} : { why_not: whyNot }),
    after,
    not_saved: notSaved,
    changed: own === null || (own.size === 0 && (notSaved.length > 0 || before === null)) ? null : own.size,
    paths: [...(own ?? new Map<string, NamedPath>()).values()].slice(0, SHOWN_PATHS),
    uncertain: uncertain?.size ?? 0,
    taken_back: isTakenBack,
  };
}

/** Returns the first line of a turn's prompt. */
export function promptOf(texts: ReturnType<typeof withTexts>): string | null {
  return texts.flatMap(({ prompt }) => (prompt === null ? [] : firstLineOf(prompt)))[0] ?? null;
}

/** A change of the folder between two saves. `to` null: the present folder. */
export interface Change {
  from: SavePointId;
  to: SavePointId | null;
  isUncertain: boolean;
}

/** Returns the entries of changes by name; null if a state is missing or damaged. Changes that are not saved yet are left out. */
async function entriesOf(
  workspace: Workspace,
  changes: readonly Change[],
  { isUncertain, call }: { isUncertain: boolean; call: { signal?: AbortSignal } },
): Promise<Map<string, NamedPath> | null> {
  const entries = new Map<string, NamedPath>();
  for (const { from, to, isUncertain: is } of changes) {
    if (is !== isUncertain || to === null) continue;
    try {
      const ends = [workspace.byId(from), workspace.byId(to)] as const;
      if (ends[0] === null || ends[1] === null) return null;
      const pair = { from: ends[0], to: ends[1], paths: [] };
      const { entries: found } = await workspace.engine.reading(async () => diffPoints(workspace, call, pair), call);
      for (const each of found) entries.set(each.path_b64 ?? `/${each.path}`, nameOf(each));
    } catch (error) {
      if (toCairnError(error).code === "interrupted") throw error;
      return null;
    }
  }
  return entries;
}

/** Divides the time from an event on, to another one or to now, by whose changes were made in it. */
export function timeline(
  workspace: Workspace,
  known: Known,
  { first, last }: { first: number; last?: number },
): Interval[] {
  const { log } = known;
  const until = last === undefined ? log : log.slice(0, last + 1);
  const end = last === undefined ? null : { at: log[last]!.at, before: madeAfter(known, last) };
  const moments = momentsOf(until, first, pointsFrom(workspace, known, { first: log[first]!, end }));
  // Other sessions may have calls open when the first event comes.
  const earlier = { from: Math.max(0, first - EARLIER_EVENTS), to: first };
  const all = intervalsOf(log, moments, { sessionOf, earlier });
  return last === undefined ? all : all.slice(0, -1);
}

/** Returns the number of the first point that a hook made after an event. All points before the event have lower numbers. */
function madeAfter({ log, ids }: Known, last: number): number {
  for (let i = last + 1; i < log.length; i++) {
    const sequence = log[i]!.made ? ids.get(log[i]!.save_point_id!) : undefined;
    if (sequence !== undefined) return sequence;
  }
  return Infinity;
}

/** Lists the points from an event's own on, ascending, those of restores too. `end`: none after this time, or from this number on. */
function pointsFrom(
  workspace: Workspace,
  { ids, sequences }: Known,
  { first, end }: { first: StoredEvent; end: { at: string; before: number } | null },
): SavedPoint[] {
  const state = first.save_point_id ?? first.before;
  const start = state === null ? undefined : ids.get(state);
  const found: SavedPoint[] = [];
  for (const sequence of sequences) {
    if (start !== undefined && sequence < start) break;
    if (end !== null && sequence >= end.before) continue;
    const point = workspace.points.readOrNull(sequence);
    if (point === null) continue;
    const { save_point_id: id, created_at: at, cause, undo } = point.descriptor;
    if (start === undefined && at < (first.asked_at ?? first.at)) break;
    const by = cause["restored_to"] !== undefined ? "operation" : ASKED.has(cause.kind) ? "asked" : "other";
    // A state of another folder, for example of a fork that comes home, was never the state of this one.
    const isElsewhere = by !== "operation" && (undo || cause.kind === "backup" || cause["imported"] === true);
    if (!isElsewhere && (end === null || at <= end.at)) found.push({ id, at, by });
  }
  return found.toReversed();
}

/** Returns the changes of a session, and those that may be its own, oldest first. */
export function changesOf(intervals: readonly Interval[], session: string): Change[] {
  return intervals.flatMap(({ from, to, by }) => {
    const isOwn = typeof by === "object" && by.session === session;
    return from === to || (!isOwn && by !== "uncertain") ? [] : [{ from, to, isUncertain: !isOwn }];
  });
}

function nameOf({ path, path_b64: raw }: DiffEntry): NamedPath {
  return raw === undefined ? { path } : { path, path_b64: raw };
}

/**
 * Returns the state before a turn: that of its prompt, also of an older point that the folder still equalled, else the
 * state before its first tool call.
 */
export function stateBefore(
  workspace: Workspace,
  events: readonly StoredEvent[],
): { before: SavePointId | null; whyNot?: string } {
  const firsts = [events[0]!, ...events.filter(({ tool }) => tool !== null).slice(0, 1)];
  const first = firsts.find((each) => isBefore(each.event) && each.failed === null && isInTime(workspace, each));
  const failed = firsts.flatMap((each) => each.failed ?? [])[0];
  if (first === undefined) {
    const why = failed === undefined ? "" : `: the folder could not be saved, because ${failed}`;
    return { before: null, whyNot: `Cairn has no exact state before this turn${why}` };
  }
  if (workspace.readable(first.save_point_id) === null)
    return { before: null, whyNot: "a cleanup removed the point before the turn, or it is damaged" };
  return { before: first.save_point_id };
}

/** True if the point of an event is the state at that event. A late save has it only if the folder still equalled an older point. */
function isInTime(workspace: Workspace, { asked_at: asked, made, save_point_id: id }: StoredEvent): boolean {
  if (asked === null) return true;
  const point = workspace.readable(id);
  return !made && (point === null || point.descriptor.created_at < asked);
}

/** Returns the ids of the turns that a rewind took back, and no undo brought again. */
export function takenBack(workspace: Workspace, all: readonly FoundTurn[]): Set<string> {
  const back = new Set<string>();
  for (const { kind, changed, at } of operationLog(workspace.state().operations).done) {
    const cause = kind === "rewind" ? workspace.readable(changed.before)?.descriptor.cause : undefined;
    const first = all.findIndex(({ id }) => id === cause?.["turn"]);
    // A rewind of some paths left the others of the turn.
    if (first < 0 || cause?.["in_part"] === true) continue;
    for (const { id, session, events } of all.slice(first))
      if (session === all[first]!.session && events[0]!.at < at) back.add(id);
  }
  return back;
}
