import { createHash } from "node:crypto";
import { lstatSync } from "node:fs";
import type { CallOptions, NamedPath } from "../contract/index.ts";
import type { Turn, TurnsOptions, TurnsResult } from "../contract/turns.ts";
import { advice, CairnError, call, toCairnError } from "../errors.ts";
import { joinPath, latin1 } from "../formats/bytes.ts";
import { rawPath } from "../formats/records/record.ts";
import type { SavePointId } from "../ids.ts";
import { firstLineOf, isBefore, isBesideTurns, isStop, SESSION_END } from "../workspace/points/agent-events.ts";
import { readAgentEvents, type StoredEvent, withTexts } from "../workspace/points/agent-record.ts";
import { failedIn } from "../workspace/points/failed-hooks.ts";
import { operationLog } from "../workspace/points/operation-log.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { diffPoints } from "./diff.ts";
import { changeTimesOf, keepsChangeTimes } from "../workspace/points/change-times.ts";
import {
  calledAt,
  Calls,
  type ChangedEntry,
  type Interval,
  intervalsOf,
  momentsOf,
  type Owner,
  type SavedPoint,
  sessionOf,
} from "../workspace/points/intervals.ts";

/** Turns of agents: a prompt, and everything that the agent did until it waited for the next one. */

const DEFAULT_TURNS = 20;
const SHOWN_PATHS = 20;
const SHOWN_REASONS = 5;
/** Causes of saves that somebody asked for. */
const ASKED: ReadonlySet<string> = new Set(["person", "program"]);

/** Names of events that begin a turn, in each agent's hooks. */
const PROMPT = /^(?:UserPromptSubmit|BeforeAgent|prompt)$/;

/** The record and the points as they were at one moment. Turns are made from them. */
interface Known {
  log: readonly StoredEvent[];
  calls: Calls;
  /** numbers of the points by id */
  ids: ReadonlyMap<SavePointId, number>;
  /** numbers of all points, newest first */
  sequences: readonly number[];
}

export function knownOf({ points }: Workspace, log: readonly StoredEvent[]): Known {
  return { log, calls: new Calls(log), ids: points.ids(), sequences: points.committed().toReversed() };
}

export interface FoundTurn {
  id: string;
  /** key of its session */
  session: string;
  events: StoredEvent[];
  /** indexes of its first and its last event in the log */
  first: number;
  last: number;
  /** milliseconds: a rewind inside the turn took the earlier part back; `events` are the later ones */
  after?: number;
}

/** Divides the log into turns, oldest first. Gemini CLI has no turn ids: each of its prompts begins a turn. */
export function turnsIn(log: readonly StoredEvent[]): FoundTurn[] {
  const turns: FoundTurn[] = [];
  const open = new Map<string, FoundTurn>();
  for (const [index, event] of log.entries()) {
    if (isBesideTurns(event.event)) continue;
    const session = sessionOf(event);
    const current = open.get(session);
    if (event.event === SESSION_END && (current === undefined || isEnd(current.events.at(-1)!, current.events[0]!)))
      continue;
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
function isOfTurn({ turn, event, notified }: StoredEvent, last: StoredEvent, first: StoredEvent): boolean {
  if (event === SESSION_END || notified !== undefined) return true;
  if (turn !== null && last.turn !== null) return turn === last.turn;
  return !isEnd(last, first) && (turn !== null || !PROMPT.test(event));
}

/** True for a turn that no event has ended. */
export const isOpen = ({ events }: FoundTurn): boolean => !isEnd(events.at(-1)!, events[0]!);

/** True for an event that ends the turn of `first`, by its name or by naming the turn's id. */
function isEnd({ event, call }: StoredEvent, first: StoredEvent): boolean {
  return isStop(event) || event === SESSION_END || (call !== null && call === first.turn);
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
    listed.push(await turnOf(workspace, known, { turn: each, isTakenBack: back.get(each.id) === null }, own));
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

export function ofSession(all: readonly FoundTurn[], wanted: string | undefined): readonly FoundTurn[] {
  return wanted === undefined ? all : all.filter(({ events }) => events[0]!.session?.startsWith(wanted) === true);
}

async function turnOf(
  workspace: Workspace,
  known: Known,
  { turn, isTakenBack }: { turn: FoundTurn; isTakenBack: boolean },
  own: CallOptions,
): Promise<Turn> {
  const { id, events: all } = turn;
  const texts = withTexts(workspace.found, all);
  const [first, last] = [all[0]!, all.at(-1)!];
  const changes = await changesOrNull(workspace, known, turn, own);
  const { before, whyNot } = stateBefore(workspace, all, changes ?? []);
  const after = all.findLast(({ save_point_id: state }) => state !== null)?.save_point_id ?? null;
  const entriesOf = (isSure: boolean): Map<string, NamedPath> =>
    new Map(changes?.flatMap(({ why, entries }) => ((why === null) === isSure ? [...entries] : [])));
  const changed = entriesOf(true);
  const isUnknown = changes === null || after === null;
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
    changed: isUnknown || (changed.size === 0 && (notSaved.length > 0 || before === null)) ? null : changed.size,
    paths: isUnknown ? [] : ofGitLast(changed).slice(0, SHOWN_PATHS),
    uncertain: entriesOf(false).size,
    taken_back: isTakenBack,
  };
}

const ofGitLast = (entries: ReadonlyMap<string, NamedPath>): NamedPath[] =>
  [false, true].flatMap((ofGit) => [...entries].flatMap(([path, name]) => (OF_GIT.test(path) === ofGit ? [name] : [])));

/** Returns the first line of a turn's prompt. */
export function promptOf(texts: ReturnType<typeof withTexts>): string | null {
  return texts.flatMap(({ prompt }) => (prompt === null ? [] : firstLineOf(prompt)))[0] ?? null;
}

/** A change that a turn made between two saves. */
export interface Change {
  from: SavePointId;
  /** null: the present folder */
  to: SavePointId | null;
  /** why it is not certain that the turn changed the entries; null: it is */
  why: string | null;
  /** by latin1 path, in raw pre-order */
  entries: ReadonlyMap<string, NamedPath>;
  /** true: nothing else changed between the saves */
  isWhole: boolean;
  /** the event that began the last call of the change */
  index: number;
}

/** As `changesOf`; null if a state is missing or damaged. */
async function changesOrNull(...[workspace, known, turn, own]: Parameters<typeof changesOf>): Promise<Change[] | null> {
  try {
    return await changesOf(workspace, known, turn, own);
  } catch (error) {
    if (toCairnError(error).code === "interrupted") throw error;
    return null;
  }
}

/**
 * Returns the changes of a session by the calls between two events of the log, and those that may be its own, oldest first. Throws
 * `not_found` if a cleanup removed a state.
 */
export async function changesOf(
  workspace: Workspace,
  known: Known,
  { session, first, last, after = -Infinity }: Pick<FoundTurn, "session" | "first" | "last" | "after">,
  own: CallOptions,
): Promise<Change[]> {
  const { calls } = known;
  const isOwn = (call: { session: string; index: number }): boolean =>
    call.session === session && call.index >= first && call.index <= last;
  const spans = calls.spans.filter((span) => isOwn(span) && span.to > after);
  const isOf = (owner: Owner): boolean =>
    owner.by === "uncertain" ? owner.of.length === 0 || owner.of.some(isOwn) : owner.by === "call" && isOwn(owner);
  const changes: Change[] = [];
  for (const interval of spans.length === 0 ? [] : timeline(workspace, known, spans)) {
    const { from, to, called, until, owner } = interval;
    if (
      from === to ||
      until <= after ||
      !(isOf(owner) || spans.some((span) => span.from <= until && span.to >= called))
    )
      continue;
    const { entries, changedAt } = await differencesIn(workspace, interval, own);
    const owners = asRepositories(entries, calls.ownersOf(entries, interval, changedAt));
    // The rewind itself changed entries in the interval that it began.
    const isLater = ({ path, change }: ChangedEntry): boolean =>
      called > after || (change !== "removed" && (changedAt?.(path) ?? 0) > after);
    const found = entries.flatMap((each, i) =>
      isOf(owners[i]!) && isLater(each) ? [{ ...each, owner: owners[i]! }] : [],
    );
    for (const [why, some] of Map.groupBy(found, ({ owner: of }) => (of.by === "uncertain" ? of.why : null)))
      changes.push({
        from,
        to,
        why,
        entries: new Map(some.map(({ path, name }) => [path, name])),
        isWhole: some.length === entries.length,
        index: Math.max(first, ...some.map(({ owner: of }) => (of.by === "call" ? of.index : first))),
      });
  }
  return changes;
}

/** Lists the entries that differ between two saves, in raw pre-order, and their change times. */
async function differencesIn(
  workspace: Workspace,
  { from, to }: Interval,
  own: CallOptions,
): Promise<{
  entries: (ChangedEntry & { name: NamedPath })[];
  changedAt: ((path: string) => number | null) | null;
}> {
  const [before, after] = [workspace.byId(from), to === null ? null : workspace.byId(to)];
  if (before === null || (after === null && to !== null))
    throw new CairnError("not_found", "a cleanup removed a state since the turn, so only a part could go back", {
      hint: advice`go back to a later turn; ${call("turns")} lists them`,
    });
  const ends = { from: before, to: after, paths: [] };
  const { entries: all } = await workspace.engine.reading(async () => diffPoints(workspace, own, ends), own);
  const entries = all.flatMap(({ path, path_b64: raw, change, from_path: old, from_path_b64: oldRaw }) => {
    const name = raw === undefined ? { path } : { path, path_b64: raw };
    const here: ChangedEntry["change"] = change === "added" || change === "removed" ? change : "modified";
    const entry = { path: latin1(rawPath(name)), change: change === "renamed" ? ("added" as const) : here, name };
    if (old === undefined) return [entry];
    const former = oldRaw === undefined ? { path: old } : { path: old, path_b64: oldRaw };
    return [entry, { path: latin1(rawPath(former)), change: "removed" as const, name: former }];
  });
  const ofTree = (path: string): Buffer => Buffer.from(path.replaceAll("/", "\0"), "latin1");
  entries.sort((a, b) => Buffer.compare(ofTree(a.path), ofTree(b.path)));
  return { entries, changedAt: after === null ? presentTimes(workspace) : changeTimesOf(workspace, after) };
}

/** The entries of git have one owner: if their owners differ, it is not certain. */
function asRepositories(entries: readonly ChangedEntry[], owners: readonly Owner[]): Owner[] {
  const isGit = entries.map(({ path }) => OF_GIT.test(path));
  const own = owners.filter((_, i) => isGit[i]);
  const of = own.flatMap((each) => (each.by === "uncertain" ? each.of : each.by === "call" ? [each] : []));
  const isOne = of.length === 0 || own.every((each) => each.by === "call" && each.session === of[0]!.session);
  return owners.map((owner, i) => (isGit[i] && !isOne ? { by: "uncertain", why: GIT_OF_SEVERAL, of } : owner));
}

const OF_GIT = /(?:^|\/)\.git(?:\/|$)/;
const GIT_OF_SEVERAL = "not only the turn changed the repository between two saves";

function presentTimes({ root }: Workspace): ((path: string) => number | null) | null {
  if (!keepsChangeTimes(root)) return null;
  return (path) => {
    const place = path === "" ? root : joinPath(root, Buffer.from(path, "latin1"));
    return lstatSync(place, { throwIfNoEntry: false })?.ctimeMs ?? null;
  };
}

/** Divides the time of spans of calls by saves, from the last save before them to the first one after them, or to now. */
function timeline(workspace: Workspace, known: Known, spans: Calls["spans"]): Interval[] {
  const { log, calls } = known;
  const [start, stop] = [Math.min(...spans.map(({ from }) => from)), Math.max(...spans.map(({ to }) => to))];
  const begun = Math.min(...spans.map(({ index }) => index));
  const before = log.findLastIndex(
    ({ save_point_id: state, at }, i) => i <= begun && state !== null && Date.parse(at) <= start,
  );
  const first = Math.max(before, 0);
  const after = log.findIndex((event, i) => i > begun && event.save_point_id !== null && calledAt(event) >= stop);
  const until = after < 0 ? log : log.slice(0, after + 1);
  const end = after < 0 ? null : { at: log[after]!.at, before: madeAfter(known, after) };
  const moments = momentsOf(until, first, pointsFrom(workspace, known, { first: log[first]!, end }));
  const all = intervalsOf(log, moments, calls);
  return after < 0 ? all : all.slice(0, -1);
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

/**
 * Returns the state before a turn: that of its prompt, also of an older point that the folder still equalled, else the
 * state before its first tool call or before its first change.
 */
export function stateBefore(
  workspace: Workspace,
  events: readonly StoredEvent[],
  [change]: readonly Change[],
): { before: SavePointId | null; whyNot?: string } {
  const firsts = [events[0]!, ...events.filter(({ tool }) => tool !== null).slice(0, 1)];
  const first = firsts.find((each) => isBefore(each.event) && each.failed === null && isInTime(workspace, each));
  const failed = firsts.flatMap((each) => each.failed ?? [])[0];
  if (first === undefined && change?.isWhole === true && change.why === null) return { before: change.from };
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

/**
 * Returns the turns that a rewind took back, and no undo brought again, by their ids. A turn in which calls came after the rewind has these
 * left: its rest; null: nothing is left of the turn.
 */
export function takenBack(workspace: Workspace, all: readonly FoundTurn[]): Map<string, FoundTurn | null> {
  const back = new Map<string, FoundTurn | null>();
  for (const { kind, changed, at } of operationLog(workspace.state().operations).done) {
    const cause = kind === "rewind" ? workspace.readable(changed.before)?.descriptor.cause : undefined;
    const first = all.findIndex(({ id }) => id === cause?.["turn"]);
    // A rewind of some paths left the others of the turn.
    if (first < 0 || cause?.["in_part"] === true) continue;
    for (const turn of all.slice(first)) {
      if (turn.session !== all[first]!.session || turn.events[0]!.at >= at) continue;
      const events = turn.events.filter((event) => event.at > at);
      const isOver = !events.some(({ tool, event }) => tool !== null && isBefore(event));
      back.set(turn.id, isOver ? null : { ...turn, events, after: Date.parse(at) });
    }
  }
  return back;
}
