import { EventEmitter } from "node:events";
import {
  EVENT_DATA,
  type EventData,
  type EventType,
  type PastEvent,
  type PastEventsOptions,
  type ServiceEvent,
} from "../../contract/service.ts";
import { checkValue } from "../../contract/schema.ts";
import { toCairnError } from "../../errors.ts";
import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { folderOf } from "../state/kept-state.ts";
import type { Records, Row } from "./records.ts";

const MOST = 100_000;
const KEPT_MS = 7 * 86_400_000;
/** Appended events after which old events are removed. */
const PRUNE_EVERY = 1_000;
const MOST_LOOKED_AT = 5_000;
const MOST_LISTED = 1_000;
const DEFAULT_LISTED = 100;
/** Milliseconds that events wait to be written in one transaction. */
const WAIT_MS = 20;
/** Event numbers for each millisecond of start times: no number is used twice, even if the database was lost. */
const PER_MS = 2 ** 11;

/** The workspace of an event; its owner decides who may see the event. */
export type EventPlace = Pick<ServedWorkspace, "id" | "path" | "path_b64" | "owner_uid">;

export interface Happening<T extends EventType = EventType> {
  /** Null: the event is about no workspace. */
  workspace: EventPlace | null;
  type: T;
  data: EventData[T];
  /** The only user, besides operators, who may see the event. Absent: every user with a right on the workspace. */
  uid?: number;
}

/** An event with the workspace and user that decide who may see it. */
export interface Noted {
  place: EventPlace | null;
  uid: number | null;
  event: ServiceEvent;
}

/**
 * Events in order. Listeners are told at once; events are written a moment later, many in one transaction. A kill may
 * lose events that wait: the next daemon begins with `reset` to say so.
 */
export class Events {
  readonly #records: Records;
  readonly #log: (message: string) => void;
  readonly #listeners = new EventEmitter<{ event: [Noted] }>().setMaxListeners(0);
  readonly #closing = new AbortController();
  #waiting: Noted[] = [];
  #timer: NodeJS.Timeout | undefined;
  #last: number;
  #sincePruned = PRUNE_EVERY;
  /** The newest event that could not be written; null: all events since the last successful write are kept. */
  #lost: number | null = null;

  /** `killed`: the daemon before this one did not end in order. */
  constructor(records: Records, { killed, log }: { killed: boolean; log: (message: string) => void }) {
    this.#records = records;
    this.#log = log;
    const { last } = records.get("SELECT max(id) AS last FROM events")!;
    const isFirst = last === null;
    this.#last = Math.max(Number(last ?? this.#floor), Date.now() * PER_MS);
    if (killed || isFirst)
      this.append({
        workspace: null,
        type: "reset",
        data: { reason: isFirst ? "no earlier event is kept" : "the previous daemon was killed" },
      });
    else this.append({ workspace: null, type: "started", data: { pid: process.pid } });
    this.flush();
  }

  /** Fires when the daemon ends the connections of listeners. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  get last(): number {
    return this.#last;
  }

  /** Adds an event. Returns its number, the highest so far. Drops members of the data that the event's schema does not name. */
  append<T extends EventType>(happening: Happening<T>): number {
    const id = ++this.#last;
    const noted = notedOf(happening, id);
    this.#waiting.push(noted);
    this.#timer ??= setTimeout(() => this.flush(), WAIT_MS).unref();
    this.#listeners.emit("event", noted);
    return id;
  }

  /** Tells present listeners of an event that is not stored. */
  tell<T extends EventType>(happening: Happening<T>): void {
    if (this.#listeners.listenerCount("event") > 0) this.#listeners.emit("event", notedOf(happening, null));
  }

  listen(take: (noted: Noted) => void): Disposable {
    this.#listeners.on("event", take);
    return { [Symbol.dispose]: () => void this.#listeners.off("event", take) };
  }

  /** Writes the waiting events. If that fails they are lost for later readers, who get `reset`. */
  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const list = this.#waiting;
    if (list.length === 0) return;
    this.#waiting = [];
    try {
      this.#records.write(() => {
        if (this.#lost !== null) this.#insert(notedOf(NOT_KEPT, this.#lost));
        for (const each of list) this.#insert(each);
        this.#sincePruned += list.length;
        if (this.#sincePruned >= PRUNE_EVERY) this.#prune();
      });
      this.#lost = null;
    } catch (error) {
      if (this.#lost === null) this.#log(`events cannot be recorded for now: ${toCairnError(error).message}`);
      this.#lost = list.at(-1)!.event.id;
    }
  }

  #insert({ place, uid, event }: Noted): void {
    this.#records.run(
      "INSERT INTO events (id, at, type, workspace, path, owner, uid, data) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      [
        event.id,
        Date.parse(event.at),
        event.type,
        event.workspace_id,
        place === null ? null : folderOf(place),
        place?.owner_uid ?? null,
        uid,
        JSON.stringify(event.data),
      ],
    );
  }

  #prune(): void {
    this.#sincePruned = 0;
    const old = this.#records.get(
      "SELECT max(id) AS id FROM events WHERE at < ? OR id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?)",
      Date.now() - KEPT_MS,
      MOST,
    )!["id"];
    if (old === null) return;
    this.#records.run("INSERT INTO facts VALUES ('events_gone', ?1) ON CONFLICT DO UPDATE SET value = ?1", [old!]);
    this.#records.run("DELETE FROM events WHERE id <= ?", [old!]);
  }

  /** The highest number of a removed event. */
  get #floor(): number {
    return Number(this.#records.get("SELECT value FROM facts WHERE name = 'events_gone'")?.["value"] ?? 0);
  }

  /** True if every event after `id` is kept. */
  knows(id: number): boolean {
    this.flush();
    if (id === this.#floor) return true;
    return this.#records.get("SELECT 1 FROM events WHERE id = ?", id) !== undefined;
  }

  /**
   * Returns the first `most` events with a higher number. If the list is empty, a listener from now on misses no event.
   */
  after(id: number, most: number): Noted[] {
    this.flush();
    return this.#records.all("SELECT * FROM events WHERE id > ? ORDER BY id LIMIT ?", id, most).map(fromRow);
  }

  /** Lists the newest events for which `isFor` is true, the newest first. Looks at the newest `MOST_LOOKED_AT` only. */
  before({ types, limit = DEFAULT_LISTED }: PastEventsOptions, isFor: (noted: Noted) => boolean): PastEvent[] {
    this.flush();
    const rows = this.#records.all(
      "SELECT * FROM events WHERE ?1 IS NULL OR type IN (SELECT value FROM json_each(?1)) ORDER BY id DESC LIMIT ?2",
      types === undefined ? null : JSON.stringify(types),
      MOST_LOOKED_AT,
    );
    const noted = rows.map(fromRow).filter(isFor);
    return noted.slice(0, Math.min(limit, MOST_LISTED)).map(({ event }) => event);
  }

  close(): void {
    this.#closing.abort();
    this.flush();
  }
}

/** Stands for events that could not be written. */
const NOT_KEPT: Happening<"reset"> = {
  workspace: null,
  type: "reset",
  data: { reason: "some events could not be recorded" },
};

function notedOf<T extends EventType>({ workspace, type, data, uid }: Happening<T>, id: number | null): Noted {
  const event = {
    id,
    at: new Date().toISOString(),
    workspace: workspace === null ? null : displayPath(folderOf(workspace)).path,
    workspace_id: workspace?.id ?? null,
    type,
    data: checkValue(EVENT_DATA[type], data, `the data of ${type}`),
  };
  return { place: workspace, uid: uid ?? null, event: event as ServiceEvent };
}

function fromRow(row: Row): Noted {
  const { id, at, type, workspace, path, owner, uid, data } = row;
  const place =
    path === null
      ? null
      : {
          id: workspace as string,
          ...displayPath(path as Uint8Array),
          ...(owner === null ? {} : { owner_uid: owner as number }),
        };
  const event = {
    id,
    at: new Date(at as number).toISOString(),
    workspace: place?.path ?? null,
    workspace_id: workspace,
    type,
    data: JSON.parse(data as string) as unknown,
  };
  return { place, uid: uid as number | null, event: event as ServiceEvent };
}
