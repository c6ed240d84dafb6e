import type { SavePointId } from "../../ids.ts";
import { BATCH, isBefore, isBesideTurns, isStop, SESSION_END } from "./agent-events.ts";
import type { StoredEvent } from "./agent-record.ts";

/**
 * Tells whose change an entry is. A tool call has a span of time, and a change belongs to the session in whose spans alone it was made, by
 * the entry's own change time. Without that time the interval between two saves decides. docs/agents.md has the rules.
 */

/** Key of an event's session. */
export const sessionOf = ({ agent, session }: StoredEvent): string => `${agent}\0${session ?? ""}`;

/** A state of the folder at a moment: a point that was made then, or an older one that the folder still equalled. */
interface Moment {
  state: SavePointId;
  /** index of the hook's event in the log; null for a save by somebody else */
  event: number | null;
  /** indexes of the events after it that have no state, because their saves failed */
  unsaved: number[];
  /** who made the save; absent: a hook */
  by?: SavedPoint["by"];
  /** RFC 3339: when the state had been read */
  at: string;
}

/** The maker of a change: the call that began with the event `index`, nobody, or perhaps one of several calls. */
export type Owner =
  | { by: "call"; session: string; index: number }
  | { by: "none" }
  | { by: "uncertain"; why: string; of: readonly Pick<Span, "session" | "index">[] };

/** The time between two neighbouring moments. */
export interface Interval {
  from: SavePointId;
  /** null: the present folder, which is not saved yet */
  to: SavePointId | null;
  /** milliseconds: the hook that saved `from` was called; it returned; `to` had been read */
  called: number;
  since: number;
  until: number;
  /** an operation of Cairn changed the folder at its beginning */
  isOperation: boolean;
  /** whose the interval is if the times of changes are not known */
  owner: Owner;
}

export interface SavedPoint {
  id: SavePointId;
  /** RFC 3339 */
  at: string;
  /** a restore, undo or rewind keeps its undo point; a person or program asks for a save; else a hook or a schedule saves */
  by: "operation" | "asked" | "other";
}

/**
 * Puts the events of a log and the points of a workspace in order. `points`: ascending, from the first event's point on,
 * the points of restores among them.
 */
export function momentsOf(log: readonly StoredEvent[], first: number, points: readonly SavedPoint[]): Moment[] {
  const made = new Map<SavePointId, number>();
  for (let i = first; i < log.length; i++) if (log[i]!.made) made.set(log[i]!.save_point_id!, i);
  const indexes = new Map(points.map(({ id }, index) => [id, index]));
  const moments: Moment[] = [];
  let next = 0;
  // Points before the first event: its state may be an older point's.
  let hasBegun = false;
  const addUntil = (isLater: (point: SavedPoint) => boolean): void => {
    for (; next < points.length && !isLater(points[next]!); next++) {
      const { id, by, at } = points[next]!;
      if (hasBegun && !made.has(id)) moments.push({ state: id, event: null, unsaved: [], by, at });
    }
  };
  for (let i = first; i < log.length; i++) {
    const { save_point_id: state, made: isNew, at, before } = log[i]!;
    if (state !== null && isNew && (indexes.get(state) ?? -1) >= next) {
      addUntil(({ id }) => id === state);
      next++;
    } else addUntil((point) => made.has(point.id) || point.at > at);
    if (state !== null) moments.push({ state, event: i, unsaved: [], at });
    else if (moments.length > 0) moments.at(-1)!.unsaved.push(i);
    else if (before !== null) moments.push({ state: before, event: null, unsaved: [i], at });
    hasBegun = true;
  }
  addUntil(() => false);
  return moments;
}

const ms = (time: string): number => Date.parse(time);
/** When the process of an event's hook started. */
export const calledAt = ({ called_at: called, asked_at: asked, at }: StoredEvent): number => ms(called ?? asked ?? at);
const returnedAt = ({ returned_at: returned, asked_at: asked, at }: StoredEvent): number => ms(returned ?? asked ?? at);

/** Divides the time from the first moment to now. */
export function intervalsOf(log: readonly StoredEvent[], moments: readonly Moment[], calls: Calls): Interval[] {
  let passed = -1;
  return moments.map(({ state, event, unsaved, by: saver, at }, i) => {
    passed = event ?? passed;
    const owners = [calls.openAfter(passed), ...unsaved.map((each) => calls.openAfter((passed = each)))];
    const next = moments[i + 1];
    const isLate = [event, next?.event ?? null].some((each) => each !== null && log[each]!.asked_at !== null);
    const isOperation = saver === "operation";
    const isMixed = new Set(owners.map((each) => JSON.stringify(each))).size > 1;
    const owner = isLate ? unsure(owners[0]!, LATE) : isMixed ? unsure(owners[0]!, UNSAVED) : owners[0]!;
    const [called, since] = event === null ? [ms(at), ms(at)] : [calledAt(log[event]!), returnedAt(log[event]!)];
    const to = next?.state ?? null;
    return { from: state, to, called, since, until: next === undefined ? Infinity : ms(next.at), isOperation, owner };
  });
}

const unsure = (owner: Owner, why: string): Owner =>
  owner.by === "uncertain" ? owner : { by: "uncertain", why, of: owner.by === "none" ? [] : [owner] };

/** The time of a tool call, or of a turn of a tool that tells of no calls. */
interface Span {
  session: string;
  /** indexes of the events that began and ended it */
  index: number;
  end: number;
  /** milliseconds */
  from: number;
  to: number;
  /** why changes in it are uncertain; null: its own end is known */
  why: string | null;
}

interface OpenCall extends Pick<Span, "session" | "index"> {
  /** the tool's own id of the call or turn */
  id: string | null;
  isTurn: boolean;
  /** when the hook of its beginning was called, and when it returned */
  called: number;
  returned: number;
  /** a background command that runs on after its call; `task`: its own id */
  background?: { task: string | null };
}

const SLACK_MS = 1000;
/** A session that is silent for so long was killed. */
const SILENT_MS = 24 * 3_600_000;

const SEVERAL = "it changed while several sessions had a call open";
const ENDLESS = "it changed in a call, or after it, of which no end is known";
const BACKGROUND = "it changed while a background command of the turn ran";
const REMOVED_LATE = "it was removed, and it is not known when";
const LATE = "it changed before a late save, and it is not known when";
const UNSAVED = "it changed before a save that failed, and it is not known when";
const OPERATION = "a restore, undo or rewind came in the same call";

/** A changed entry, by its latin1 path. */
export interface ChangedEntry {
  path: string;
  change: "added" | "removed" | "modified";
}

/** The spans of all tool calls of a log. */
export class Calls {
  readonly spans: Span[] = [];

  constructor(log: readonly StoredEvent[]) {
    const open = new Set<OpenCall>();
    const seen = new Map<string, number>();
    // Events of earlier versions, and of tools that call the hook by themselves, do not say if the tool tells of its calls.
    const tells = new Set(
      log.flatMap(({ agent, event, tool }) => (tool === null || isBesideTurns(event) ? [] : [agent])),
    );
    for (const [index, event] of log.entries()) {
      if (isBesideTurns(event.event)) continue;
      const { agent, event: name, tool, call, each, turn } = event;
      const [session, called] = [sessionOf(event), calledAt(event)];
      seen.set(session, called);
      const begins = isBefore(name);
      const isPrompt = begins && tool === null && event.notified === undefined;
      const endsAll = isPrompt || isStop(name) || name === BATCH || name === SESSION_END;
      for (const own of [...open].filter((other) => other.session === session)) {
        const { isTurn, id, background } = own;
        const isEnd = isTurn ? isStop(name) || (call !== null && call === id) : !endsAll && !begins && call === id;
        const isOver =
          background === undefined ? isEnd || (endsAll && !(isTurn && name === BATCH)) : isGone(own, event);
        if (!isOver) continue;
        open.delete(own);
        // A call that was denied has changed nothing.
        if (id !== null && event.denied?.includes(id) === true) continue;
        if (background !== undefined || !isEnd) {
          this.#add(own, index, called);
          continue;
        }
        const least = event.duration_ms === undefined ? 0 : called - event.duration_ms - SLACK_MS;
        const from = Math.max(own.returned, least);
        this.spans.push({ session, index: own.index, end: index, from, to: called, why: null });
        const task = event.background ?? log[own.index]!.background;
        if (task !== undefined) open.add({ ...own, background: { task: task === "" ? null : task } });
      }
      // Without events of calls, the turn is one call.
      const isTurn = isPrompt && (each === undefined ? !tells.has(agent) : each === "turn");
      if (begins && (tool !== null || isTurn))
        open.add({ session, index, id: isTurn ? turn : call, isTurn, called, returned: returnedAt(event) });
    }
    for (const own of open) this.#add(own, Infinity, seen.get(own.session)! + SILENT_MS);
  }

  #add({ session, index, called, background }: OpenCall, end: number, to: number): void {
    const why = background === undefined ? ENDLESS : BACKGROUND;
    this.spans.push({ session, index, end, from: called, to, why });
  }

  /** Returns whose changes are between an event and the next one. */
  openAfter(event: number): Owner {
    return ownerIn(this.spans.filter(({ index, end }) => index <= event && event < end));
  }

  /**
   * Returns whose each change between two states is. `changedAt`: the change time of an entry of the later state by its latin1 path, null if
   * it did not change lately; absent: no change times are known.
   */
  ownersOf(
    entries: readonly ChangedEntry[],
    interval: Interval,
    changedAt: ((path: string) => number | null) | null,
  ): Owner[] {
    const { called, since, until, isOperation, owner } = interval;
    const near = this.spans.filter(({ from, to }) => from <= until && to >= called - SLACK_MS);
    const between = (from: number, to = from): Owner =>
      ownerIn(
        near.filter((span) => span.from <= to && from <= span.to),
        (span) => span.from <= from && to <= span.to,
      );
    const changes = new Map(entries.map(({ path, change }) => [path, change]));
    const folderOf = (path: string): string => path.slice(0, Math.max(path.lastIndexOf("/"), 0));
    // Folders in which entries were made or changed: their own times are not those of a removal.
    const written = new Set(entries.flatMap(({ path, change }) => (change === "removed" ? [] : [folderOf(path)])));
    const ownerOfRemoved = (path: string): Owner => {
      let folder = folderOf(path);
      while (changes.get(folder) === "removed") folder = folderOf(folder);
      const last = Math.min(changedAt!(folder) ?? until, until);
      const bound = between(since, Math.max(since, last));
      return bound.by === "uncertain" && !written.has(folder) && last < until ? between(last) : bound;
    };
    const ownerOfEntry = (path: string): Owner => {
      let at = changedAt!(path) ?? -Infinity;
      if (at < called)
        for (let folder = folderOf(path); folder !== ""; folder = folderOf(folder))
          if (changes.get(folder) === "added") at = Math.max(at, changedAt!(folder) ?? at);
      // The clock jumped.
      return at < called - SLACK_MS || at > until + SLACK_MS ? owner : between(at);
    };
    return entries.map(({ path, change }) => {
      if (changedAt === null) return owner;
      const found = change === "removed" ? ownerOfRemoved(path) : ownerOfEntry(path);
      return isOperation && found.by === "call" ? unsure(found, OPERATION) : found;
    });
  }
}

/** `holds`: tells if a span holds the whole time in question. */
function ownerIn(met: readonly Span[], holds: (span: Span) => boolean = () => true): Owner {
  if (met.length === 0) return { by: "none" };
  const { session } = met[0]!;
  const of = met.map(({ session: each, index }) => ({ session: each, index }));
  if (met.some((span) => span.session !== session)) return { by: "uncertain", why: SEVERAL, of };
  const sure = met.filter((span) => span.why === null && holds(span));
  if (sure.length > 0) return { by: "call", session, index: Math.max(...sure.map(({ index }) => index)) };
  return { by: "uncertain", why: met.find(({ why }) => why !== null)?.why ?? REMOVED_LATE, of };
}

/** True if an event tells that a background command has ended. */
function isGone({ id, background }: OpenCall, { event, tasks, notified }: StoredEvent): boolean {
  const { task } = background!;
  if (event === SESSION_END || (notified !== undefined && (notified === id || notified === task))) return true;
  return tasks !== undefined && (task === null ? tasks.length === 0 : !tasks.includes(task));
}
