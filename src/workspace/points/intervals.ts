import type { SavePointId } from "../../ids.ts";
import { CHECK_EVENT, isBefore, isOwn } from "./agent-events.ts";
import type { StoredEvent } from "./agent-record.ts";

/** Saves divide time into intervals. An interval belongs to the session that alone had a tool call open in it. */

interface EventReader {
  /** key of an event's session */
  sessionOf(event: StoredEvent): string;
}

/** A state of the folder at a moment: a point that was made then, or an older one that the folder still equalled. */
interface Moment {
  state: SavePointId;
  /** index of the hook's event in the log; null for a save by somebody else */
  event: number | null;
  /** indexes of the events after it that have no state, because their saves failed */
  unsaved: number[];
  /** who made the save; absent: a hook */
  by?: SavedPoint["by"];
}

/** The time between two neighbouring moments. */
export interface Interval {
  from: SavePointId;
  /** null: the present folder, which is not saved yet */
  to: SavePointId | null;
  /** key of the session whose change it is; `none`: somebody else's; `uncertain`: of several sessions, or of unknown states */
  by: { session: string } | "none" | "uncertain";
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
      const { id, by } = points[next]!;
      if (hasBegun && !made.has(id)) moments.push({ state: id, event: null, unsaved: [], by });
    }
  };
  for (let i = first; i < log.length; i++) {
    const { save_point_id: state, made: isNew, at, before } = log[i]!;
    if (state !== null && isNew && (indexes.get(state) ?? -1) >= next) {
      addUntil(({ id }) => id === state);
      next++;
    } else addUntil((point) => made.has(point.id) || point.at > at);
    if (state !== null) moments.push({ state, event: i, unsaved: [] });
    else if (moments.length > 0) moments.at(-1)!.unsaved.push(i);
    else if (before !== null) moments.push({ state: before, event: null, unsaved: [i] });
    hasBegun = true;
  }
  addUntil(() => false);
  return moments;
}

/**
 * Divides the time from the first moment to now. `earlier`: events of the log before the first moment that may have
 * opened calls.
 */
export function intervalsOf(
  log: readonly StoredEvent[],
  moments: readonly Moment[],
  of: EventReader & { earlier: { from: number; to: number } },
): Interval[] {
  const calls = new OpenCalls(log, of);
  for (let event = of.earlier.from; event < of.earlier.to; event++) calls.pass(event);
  const intervals: Interval[] = [];
  for (const [i, { state, event, unsaved, by: saver }] of moments.entries()) {
    if (event !== null) calls.pass(event);
    else if (saver === "asked" || saver === "operation") calls.doubt();
    const next = moments[i + 1];
    const to = next?.state ?? null;
    const isLate = [event, next?.event ?? null].some((each) => each !== null && log[each]!.asked_at !== null);
    const sessions = calls.sessions();
    // An operation changes the folder too.
    let isMixed = saver === "operation" && sessions.length > 0;
    for (const each of unsaved) {
      calls.pass(each);
      isMixed ||= calls.sessions().join("\n") !== sessions.join("\n");
    }
    const by =
      sessions.length > 1 || calls.isInDoubt(sessions[0]) || ((isLate || isMixed) && to !== state)
        ? "uncertain"
        : sessions.length === 0
          ? "none"
          : { session: sessions[0]! };
    intervals.push({ from: state, to, by });
  }
  return intervals;
}

/** The tool calls that are open at a moment, by session. */
class OpenCalls {
  readonly #log: readonly StoredEvent[];
  readonly #of: EventReader;
  /** session → ids of its open calls; null is a call without an id, or a whole turn */
  readonly #open = new Map<string, Set<string | null>>();
  /** sessions whose open call may have been interrupted */
  readonly #doubted = new Set<string>();
  readonly #tells: readonly Tells[];
  #passed = -1;

  constructor(log: readonly StoredEvent[], of: EventReader) {
    this.#log = log;
    this.#of = of;
    this.#tells = tellsOf(log);
  }

  sessions(): string[] {
    return [...this.#open].flatMap(([session, calls]) => (calls.size === 0 ? [] : [session]));
  }

  /**
   * A person saves or restores: who interrupts an agent and goes on alone ends no call. Until the session's next event,
   * changes in a call without an end may be of either.
   */
  doubt(): void {
    for (const [session, calls] of this.#open)
      if ([...calls].some((call) => !this.#hasEnd(session, call, this.#passed + 1))) this.#doubted.add(session);
  }

  isInDoubt(session: string | undefined): boolean {
    return session !== undefined && this.#doubted.has(session);
  }

  /** Goes past an event of the log. */
  pass(index: number): void {
    const event = this.#log[index]!;
    const session = this.#of.sessionOf(event);
    this.#passed = index;
    this.#doubted.delete(session);
    const open = this.#open.get(session) ?? new Set();
    this.#open.set(session, open);
    // A call without an end of its own ends with the session's next event.
    for (const call of open) if (call === null || !this.#hasEnd(session, call, index)) open.delete(call);
    const { call, tool } = event;
    const begins = isBefore(event.event);
    if (begins && tool !== null) open.add(call);
    else if (call !== null) open.delete(call);
    // Without events of calls, the turn is one call.
    if (begins && tool === null && !this.#tells[index]!.ofCalls) open.add(null);
  }

  /** Tells if the end of a call is in the log at or after an event. A call without an id ends with the session's next event. */
  #hasEnd(session: string, call: string | null, from: number): boolean {
    for (let i = from; i < this.#log.length; i++) {
      const event = this.#log[i]!;
      if (this.#of.sessionOf(event) !== session) continue;
      if (call === null) return !isBefore(event.event);
      if (event.call === call && !isBefore(event.event)) return true;
    }
    return false;
  }
}

interface Tells {
  ofCalls: boolean;
}

/** For each event of a log: true if the tool tells of its calls. Hooks that are installed again may tell of other events. */
function tellsOf(log: readonly StoredEvent[]): Tells[] {
  const now = new Map<string, Tells>();
  return log.map(({ agent, event, tool }) => {
    const known = event === CHECK_EVENT ? undefined : now.get(agent);
    const tells = known ?? { ofCalls: false };
    tells.ofCalls ||= tool !== null && !isOwn(event);
    now.set(agent, tells);
    return tells;
  });
}
