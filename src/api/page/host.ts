import { type FSWatcher, watch } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OPERATION_KINDS } from "../../contract/points.ts";
import type { InitOptions } from "../../contract/care.ts";
import { EVENT_DATA, EVENT_TYPES, type EventType } from "../../contract/service.ts";
import type {
  CairnLibrary,
  CallOptions,
  CancelResult,
  Client,
  ForkResult,
  PastEvent,
  PastEvents,
  PastEventsOptions,
  RunningCalls,
  WorkspaceInfo,
} from "../../contract/index.ts";
import { socketsToAsk } from "../../daemon/places.ts";
import { Events, type Happening, notRunning, Records, Running } from "../../daemon/records/kept-records.ts";
import type { Caller } from "../../daemon/state/peer.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { Reference } from "../../verbs/schemas.ts";
import { controlPaths, sequenceOfName, workspacePaths } from "../../workspace/place/control-layout.ts";
import { isOfDaemon } from "../client/served-library.ts";
import { askDaemon, serviceOf } from "../client/service.ts";
import { referenceTo } from "../socket/calls.ts";
import { callOf } from "../rights/capabilities.ts";
import type { OwnHost } from "../socket/host.ts";
import { OpenWorkspaces } from "./open-workspaces.ts";

/** The most points that are remembered as reported. */
const MOST = 1000;
const MOST_OF_DAEMONS = 10_000;
/** Milliseconds for which changes of a workspace's records gather. */
const GATHER_MS = 50;
/** Milliseconds until the server calls a missing daemon again. */
const AGAIN_MS = 2_000;
/** The most points of one workspace in one report. */
const MOST_POINTS = 20;

interface Followed {
  workspace: WorkspaceInfo;
  watcher: FSWatcher;
  /** Sequence number of the newest known point. */
  sequence: Promise<number>;
  timer?: NodeJS.Timeout | undefined;
}

/**
 * Workspaces of the library of this process, for the calls of the page; and events of daemons, of these calls, and of
 * points that other processes record.
 */
export class PageHost implements OwnHost {
  /** The person who signed in. */
  readonly caller: Caller;
  readonly workspaces: OpenWorkspaces;
  readonly events: Events;
  /** Calls of the page. */
  readonly running: Running;
  readonly library = {
    listWorkspaces: (options: CallOptions) => this.follow(options),
    register: (path: string, options: InitOptions & CallOptions) => this.#register(path, options),
  };
  readonly #daemons = new Set<string>();
  readonly #followed = new Map<string, Followed>();
  /** Numbers of events that a daemon has told and stored. */
  readonly #ofDaemons = new Set<number>();
  /** Points of the newest events, because a daemon and this server may both report one. */
  readonly #told = new Set<string>();

  constructor(open: () => Promise<CairnLibrary>, isReadOnly: boolean, log: (message: string) => void) {
    const page = isReadOnly ? "looks" : "changes";
    const [uid, gid] = [process.geteuid?.() ?? 0, process.getegid?.() ?? 0];
    this.caller = { pid: process.pid, uid, gid, isAgent: false, token: null, only: null, page };
    this.workspaces = new OpenWorkspaces(open);
    this.events = new Events(Records.inMemory(), { killed: false, log });
    this.running = new Running(this.events);
  }

  withClient: OwnHost["withClient"] = (_caller, { path }, work) =>
    this.workspaces.with(path, (client: Client) => work(client, "owner"));

  tellOf(...[name, workspace, answered]: Parameters<OwnHost["tellOf"]>): void {
    // A daemon that made the call tells of it.
    if (isOfDaemon(answered) && this.#daemons.size > 0) return;
    const verb = callOf(name)!;
    const told = verb.event?.(answered as never) ?? null;
    if (told !== null) this.#add({ ...told, workspace } as Happening);
    if (verb.makesFolder === true)
      this.#add({ workspace: (answered as ForkResult).workspace, type: "registered", data: { created: true } });
  }

  /** True if a daemon answers. */
  isServed(): Promise<boolean> {
    return askDaemon(socketsToAsk(), "at", { path: "/" }).then(
      () => true,
      () => false,
    );
  }

  status(): Promise<unknown> {
    return askDaemon(socketsToAsk(), "daemon");
  }

  /** Lists the page's calls, and the daemons' calls that another process asked for. */
  async listRunning(caller: Caller): Promise<RunningCalls> {
    const asked = socketsToAsk().map((socket) => askDaemon([socket], "running").catch(() => ({ calls: [] })));
    const found = (await Promise.all(asked)) as RunningCalls[];
    const others = found.flatMap(({ calls }) => calls.filter(({ pid }) => pid !== process.pid));
    return { calls: [...this.running.list(caller), ...others] };
  }

  /**
   * Lists past events of a workspace: the stored events of all daemons, and the events of this process that no daemon told.
   * Each save, restore and undo is listed once.
   */
  async listEvents(_caller: Caller, path: string, options: PastEventsOptions): Promise<PastEvents> {
    const { types, limit = 100 } = options;
    const given = { path, options: { limit, ...(types === undefined ? {} : { types }) } };
    const asked = socketsToAsk().map((socket) =>
      askDaemon([socket], "pastEvents", given).catch(() => ({ events: [] })),
    );
    const found = (await Promise.all(asked)) as PastEvents[];
    const far = found.flatMap(({ events }) => events.filter(({ data }) => data["pid"] !== process.pid));
    const points = new Set(far.map((each) => pointOf(each)).filter((each) => each !== null));
    const own = this.events.before(options, ({ event }) => {
      const of = event.workspace ?? (event.type === "call" ? event.data.workspace : null);
      return of === path && !this.#ofDaemons.has(event.id!) && !points.has(pointOf(event) ?? "");
    });
    return { events: [...far, ...own].toSorted((a, b) => b.at.localeCompare(a.at)).slice(0, limit) };
  }

  /** Cancels a call of the page, or else of the daemon that has it. Throws `not_found`. */
  async cancel(caller: Caller, id: string): Promise<CancelResult> {
    if (this.running.has(caller, id)) return this.running.cancel(caller, id);
    for (const socket of socketsToAsk())
      try {
        return (await askDaemon([socket], "cancel", { id })) as CancelResult;
      } catch (error) {
        if (!["not_found", "no_daemon"].includes(toCairnError(error).code)) throw error;
      }
    throw notRunning(id);
  }

  mayHear(): boolean {
    return true;
  }

  require(): never {
    throw new CairnError("usage", "the page's events are those of all workspaces");
  }

  /** Opens a workspace, or makes the folder one. A daemon, if one runs, serves it from now on. */
  async #register(path: string, options: InitOptions & CallOptions): Promise<Reference> {
    const made = await this.workspaces.withLibrary(async (library) => {
      await using client = await library.openOrInit(path, options);
      return { ...referenceTo(client), created: client.created };
    });
    await this.follow();
    this.#add({ workspace: made.workspace, type: "registered", data: { created: made.created } });
    return made;
  }

  /** Lists the present workspaces. From now on follows exactly their events, and each daemon that answers. */
  async follow(options: CallOptions = {}): Promise<WorkspaceInfo[]> {
    const found = await this.workspaces.withLibrary((library) => library.listWorkspaces(options));
    if (this.events.closing.aborted) return found;
    for (const socket of socketsToAsk()) if (!this.#daemons.has(socket)) void this.#followDaemon(socket);
    const wanted = new Map(found.map((each) => [`${each.control_directory}\n${each.name}`, each]));
    for (const [key, { watcher }] of this.#followed)
      if (!wanted.has(key)) {
        watcher.close();
        this.#followed.delete(key);
      }
    for (const [key, each] of wanted) if (!this.#followed.has(key)) this.#followWorkspace(key, each);
    return found;
  }

  async close(): Promise<void> {
    this.events.close();
    for (const { watcher, timer } of this.#followed.values()) {
      clearTimeout(timer);
      watcher.close();
    }
    this.#followed.clear();
    await this.workspaces.close();
  }

  async #followDaemon(socket: string): Promise<void> {
    const { closing } = this.events;
    this.#daemons.add(socket);
    let wasThere = false;
    let types: EventType[] | undefined = EVENT_TYPES;
    while (!closing.aborted) {
      try {
        for await (const each of serviceOf([socket]).events({ signal: closing, ...(types && { types }) })) {
          const { id, workspace: path, workspace_id, type, data } = each;
          wasThere = true;
          const workspace = path === null ? null : { id: workspace_id!, path };
          // A call that the daemon does for this page is told by the page's own call.
          if (type === "call" && data.pid === process.pid) continue;
          // A newer daemon may have events that the page does not know.
          if (Object.hasOwn(EVENT_DATA, type))
            this.#add({ workspace, type, data } as Happening, { isPassing: id === null, isOfDaemon: true });
        }
      } catch (error) {
        // No daemon answers there, or this server ends; or an older daemon does not know all types.
        if (types !== undefined && toCairnError(error).code === "usage") {
          types = undefined;
          continue;
        }
      }
      // A daemon that never answered is called again with the next list of workspaces.
      if (!wasThere) break;
      await sleep(AGAIN_MS, undefined, { signal: closing, ref: false }).catch(() => undefined);
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
      const found = await this.workspaces.with(workspace.path, async (client) => {
        const newest = await client.history(undefined, MOST_POINTS, { all: true });
        const count = newest.save_points.filter(({ sequence }) => sequence > known).length;
        return count === 0 ? newest : client.history(undefined, count, { all: true, changes: true });
      });
      const points = found.save_points.map((point, at) => ({ ...point, changes: found.changes?.[at] ?? null }));
      const fresh = points.filter(({ sequence }) => sequence > known).toReversed();
      followed.sequence = Promise.resolve(fresh.at(-1)?.sequence ?? known);
      const saved = fresh.filter(({ cause }) => !OPERATION_KINDS.some((kind) => kind === cause.kind));
      for (const data of saved) this.#add({ workspace, type: "save", data } as Happening);
      if (saved.length === 0) this.#add({ workspace, type: "changed", data: { paths: 0, names: [] } } as Happening);
    } catch {
      // The workspace was released or moved meanwhile, which the list of workspaces shows.
    }
  }

  /** Adds an event, unless its save point was reported before. `isPassing`: later readers do not get the event. */
  #add(happening: Happening, { isPassing = false, isOfDaemon = false } = {}): void {
    const made = pointOf(happening);
    if (made !== null) {
      if (this.#told.has(made)) return;
      addNewest(this.#told, made, MOST);
    }
    if (isPassing) return this.events.tell(happening);
    const id = this.events.append(happening);
    if (isOfDaemon) addNewest(this.#ofDaemons, id, MOST_OF_DAEMONS);
  }
}

/** Adds an item to a set of the newest ones, which has at most `most`. */
function addNewest<T>(set: Set<T>, item: T, most: number): void {
  set.add(item);
  const [oldest] = set;
  if (set.size > most) set.delete(oldest!);
}

function pointOf({ type, data }: Pick<Happening, "type" | "data"> | PastEvent): string | null {
  const { save_point_id: saved, undo_id: undo = null } = data as { save_point_id?: string; undo_id?: string | null };
  if (type === "save") return saved!;
  return type === "restore" || type === "undo" ? undo : null;
}

async function newestIn(points: string): Promise<number> {
  const names = await readdir(points).catch(() => []);
  return names.reduce((newest, name) => Math.max(newest, sequenceOfName(name)), 0);
}
