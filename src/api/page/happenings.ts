import { EventEmitter } from "node:events";
import { type FSWatcher, watch } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OPERATION_KINDS } from "../../contract/points.ts";
import { checkValue } from "../../contract/schema.ts";
import { EVENT_DATA, type EventType, type ServiceEvent } from "../../contract/service.ts";
import type { WorkspaceInfo, WorkspaceRef } from "../../contract/index.ts";
import { controlPaths, sequenceOfName, workspacePaths } from "../../workspace/place/control-layout.ts";
import { socketsToAsk } from "../../daemon/places.ts";
import { serviceOf } from "../client/service.ts";
import type { EventLog } from "../event-stream.ts";
import type { OpenWorkspaces } from "./open-workspaces.ts";

type Happening = Omit<ServiceEvent, "id">;
type Noted = { event: ServiceEvent };

/** The most events that are kept for readers who reconnect. */
const MOST = 1000;
/** Milliseconds for which changes of a workspace's records gather. */
const GATHER_MS = 50;
/** Milliseconds until the server calls a missing daemon again. */
const AGAIN_MS = 2_000;
/** The most points of one workspace in one report. */
const MOST_POINTS = 20;

interface Followed {
  workspace: WorkspaceRef;
  watcher: FSWatcher;
  /** Sequence number of the newest known point. */
  sequence: Promise<number>;
  timer?: NodeJS.Timeout | undefined;
}

/** Events for the page: events of daemons, of this server's calls, and of new points that other processes record. */
export class Happenings implements EventLog<Noted> {
  readonly #workspaces: OpenWorkspaces;
  readonly #listeners = new EventEmitter<{ event: [Noted] }>().setMaxListeners(0);
  readonly #closing = new AbortController();
  readonly #daemons = new Set<string>();
  readonly #followed = new Map<string, Followed>();
  /** Points of the newest events, because a daemon and this server may both report one. */
  readonly #told = new Set<string>();
  #kept: Noted[] = [];
  #last = 0;

  constructor(workspaces: OpenWorkspaces) {
    this.#workspaces = workspaces;
  }

  get last(): number {
    return this.#last;
  }

  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  after(id: number, most: number): readonly Noted[] {
    return this.#kept.filter(({ event }) => event.id! > id).slice(0, most);
  }

  knows(id: number): boolean {
    return id <= this.#last && id >= (this.#kept[0]?.event.id ?? 1) - 1;
  }

  listen(take: (noted: Noted) => void): Disposable {
    this.#listeners.on("event", take);
    return { [Symbol.dispose]: () => void this.#listeners.off("event", take) };
  }

  /** Adds an event of a call of this server. */
  note(workspace: WorkspaceRef, { type, data }: { type: string; data: object }): void {
    this.#add({
      at: new Date().toISOString(),
      workspace: workspace.path,
      workspace_id: workspace.id,
      type: type as EventType,
      data: checkValue(EVENT_DATA[type as EventType], data, `the data of ${type}`),
    } as Happening);
  }

  /** Follows exactly these workspaces, and each daemon that answers. */
  follow(workspaces: readonly WorkspaceInfo[]): void {
    for (const socket of socketsToAsk()) if (!this.#daemons.has(socket)) void this.#followDaemon(socket);
    const wanted = new Map(workspaces.map((each) => [`${each.control_directory}\n${each.name}`, each]));
    for (const [key, { watcher }] of this.#followed)
      if (!wanted.has(key)) {
        watcher.close();
        this.#followed.delete(key);
      }
    for (const [key, each] of wanted) if (!this.#followed.has(key)) this.#followWorkspace(key, each);
  }

  close(): void {
    this.#closing.abort();
    for (const { watcher, timer } of this.#followed.values()) {
      clearTimeout(timer);
      watcher.close();
    }
    this.#followed.clear();
  }

  async #followDaemon(socket: string): Promise<void> {
    this.#daemons.add(socket);
    let wasThere = false;
    while (!this.closing.aborted) {
      try {
        for await (const { id, ...event } of serviceOf([socket]).events({ signal: this.closing })) {
          wasThere = true;
          this.#add(event, id === null);
        }
      } catch {
        // No daemon answers there, or this server ends.
      }
      // A daemon that never answered is called again with the next list of workspaces.
      if (!wasThere) break;
      await sleep(AGAIN_MS, undefined, { signal: this.closing, ref: false }).catch(() => undefined);
    }
    this.#daemons.delete(socket);
  }

  #followWorkspace(key: string, workspace: WorkspaceInfo): void {
    const { root, state, points } = workspacePaths(controlPaths(workspace.control_directory), workspace.name);
    try {
      const watcher = watch(root, { persistent: false }, (_change, name) => {
        if (name !== basename(state) || followed.timer !== undefined) return;
        followed.timer = setTimeout(() => void this.#look(followed), GATHER_MS).unref();
      });
      watcher.on("error", () => watcher.close());
      const followed: Followed = { workspace, watcher, sequence: newestIn(points) };
      this.#followed.set(key, followed);
    } catch {
      // A daemon of another user keeps the folder, or the limit of watches is reached: only the daemon or a reload shows changes.
    }
  }

  /** Reports the new points of a workspace, or else that its records changed. */
  async #look(followed: Followed): Promise<void> {
    followed.timer = undefined;
    const { workspace } = followed;
    try {
      const known = await followed.sequence;
      const found = await this.#workspaces.with(workspace.path, async (client) => {
        const newest = await client.history(undefined, MOST_POINTS, { all: true });
        const count = newest.save_points.filter(({ sequence }) => sequence > known).length;
        return count === 0 ? newest : client.history(undefined, count, { all: true, changes: true });
      });
      const points = found.save_points.map((point, at) => ({ ...point, changes: found.changes?.[at] ?? null }));
      const fresh = points.filter(({ sequence }) => sequence > known).toReversed();
      followed.sequence = Promise.resolve(fresh.at(-1)?.sequence ?? known);
      const saved = fresh.filter(({ cause }) => !OPERATION_KINDS.some((kind) => kind === cause.kind));
      for (const data of saved) this.note(workspace, { type: "save", data });
      if (saved.length === 0) this.note(workspace, { type: "changed", data: { paths: 0, names: [] } });
    } catch {
      // The workspace was released or moved meanwhile, which the list of workspaces shows.
    }
  }

  /** Sends an event to all readers, unless its save point was reported before. `isPassing`: later readers do not get the event. */
  #add(happening: Happening, isPassing = false): void {
    const made = pointOf(happening as ServiceEvent);
    if (made !== null) {
      if (this.#told.has(made)) return;
      this.#told.add(made);
      const [oldest] = this.#told;
      if (this.#told.size > MOST) this.#told.delete(oldest!);
    }
    const noted = { event: { ...happening, id: isPassing ? null : ++this.#last } as ServiceEvent };
    if (!isPassing) this.#kept = [...this.#kept.slice(1 - MOST), noted];
    this.#listeners.emit("event", noted);
  }
}

function pointOf(event: ServiceEvent): string | null {
  if (event.type === "save") return event.data.save_point_id;
  return event.type === "restore" || event.type === "undo" ? event.data.undo_id : null;
}

async function newestIn(points: string): Promise<number> {
  const names = await readdir(points).catch(() => []);
  return names.reduce((newest, name) => Math.max(newest, sequenceOfName(name)), 0);
}
