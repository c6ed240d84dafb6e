import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { errorOf, type ErrorRecord } from "../../contract/error-record.ts";
import type { EventType, Job, JobList, ServiceEvent } from "../../contract/service.ts";
import { fromWire } from "../../contract/wire.ts";
import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import { Connection, type Members, NoDaemon, type Remote } from "./connection.ts";

/** A daemon's own calls beside those of the library: what happens, and calls that go on without their caller. */

export interface EventOptions {
  /** Only of these workspaces, by their absolute paths; default: all that the caller may act on. */
  workspace?: string | readonly string[];
  /** Only those that come after the event of this number; default: those from now on. 0: all that are kept. */
  after?: number;
  types?: readonly EventType[];
  /** Ends it, with `interrupted`. */
  signal?: AbortSignal;
}

/** Milliseconds until it is tried to connect again: at first, and at most. */
const AGAIN_MS = 100;
const MOST_AGAIN_MS = 5_000;
/** Milliseconds without even a heartbeat, after which the daemon is taken for gone. */
const SILENCE_MS = 45_000;

/**
 * Events as they happen. Where the daemon goes away it connects again, and goes on after the last event that it had. Throws
 * `not_a_workspace`, `permission`, `usage`, and `no_daemon` where no daemon is there at first.
 */
async function* eventsOf(socket: string | Remote | undefined, options: EventOptions): AsyncGenerator<ServiceEvent> {
  if (socket === undefined) throw notAsked();
  const { workspace = [], types = [], signal } = options;
  const query = new URLSearchParams([
    ...[workspace].flat().map((each) => ["workspace", each] as [string, string]),
    ...(types.length === 0 ? [] : [["types", types.join(",")] as [string, string]]),
  ]);
  const path = `/v1/events?${query.toString()}`;
  let last = options.after === undefined ? null : String(options.after);
  let wasThere = false;
  for (let wait = AGAIN_MS; ; wait = Math.min(wait * 2, MOST_AGAIN_MS)) {
    const connection = new Connection(socket);
    try {
      for await (const { id, data } of fieldsOf(connection, path, last, signal)) {
        wait = AGAIN_MS;
        wasThere = true;
        last = id ?? last;
        if (data !== null) yield JSON.parse(data) as ServiceEvent;
      }
    } catch (error) {
      if (signal?.aborted === true)
        throw new CairnError("interrupted", "stopped by the caller", { cause: signal.reason });
      // A daemon that was there comes back. One that may not be asked may not later either.
      if (error instanceof CairnError && (!error.retryable || (error.code === "no_daemon" && !wasThere))) throw error;
    } finally {
      connection.close();
    }
    await sleep(wait, undefined, { signal }).catch(() => {
      throw new CairnError("interrupted", "stopped by the caller", { cause: signal!.reason });
    });
  }
}

/** The fields of each event of a stream; `data` is null where an event only says how far it is. */
async function* fieldsOf(
  connection: Connection,
  path: string,
  last: string | null,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ id: string | null; data: string | null }> {
  const headers = { accept: "text/event-stream", ...(last === null ? {} : { "last-event-id": last }) };
  const response = await connection.open({ method: "GET", path, headers }, signal).catch((error: unknown) => {
    throw connection.gone(error, true);
  });
  response.setTimeout(SILENCE_MS, () => response.destroy());
  if (response.statusCode !== 200) {
    const { error } = fromWire(Buffer.concat(await response.toArray()).toString("utf8")) as { error: ErrorRecord };
    throw errorOf(error);
  }
  let [id, data]: [string | null, string | null] = [null, null];
  const lines = createInterface({ input: response, crlfDelay: Infinity });
  // Nobody else hears of it where the caller has left the loop.
  lines.on("error", () => undefined);
  for await (const line of lines) {
    if (line.startsWith("id: ")) id = line.slice(4);
    else if (line.startsWith("data: ")) data = line.slice(6);
    else if (line === "") {
      yield { id, data };
      [id, data] = [null, null];
    }
  }
}

export function notAsked(): NoDaemon {
  return new NoDaemon("no_daemon", "no daemon is asked: CAIRN_SOCKET is none", {
    hint: "name the daemon's socket in CAIRN_SOCKET, or unset it",
  });
}

/** The answer of the first daemon that is there. Throws `NoDaemon`. */
async function firstOf<T>(
  sockets: readonly (string | Remote)[],
  ask: (connection: Connection) => Promise<unknown>,
): Promise<T> {
  let refused = notAsked();
  for (const socket of sockets) {
    const connection = new Connection(socket);
    try {
      return (await ask(connection)) as T;
    } catch (error) {
      if (!(error instanceof NoDaemon)) throw error;
      refused = error;
    } finally {
      connection.close();
    }
  }
  throw refused;
}

/** A call of the first daemon that is there. Throws `NoDaemon`. */
export async function askDaemon(
  sockets: readonly string[],
  name: string,
  members: Members = {},
  options: CallOptions = {},
): Promise<unknown> {
  return firstOf(sockets, async (connection) => connection.call(name, members, options));
}

export interface JobsOptions extends Pick<CallOptions, "signal"> {
  /** `next` of the page before. */
  after?: string;
  /** At most so many, 1 to 1000; default 100. */
  limit?: number;
}

/** The daemon's own calls. */
export interface Service {
  /**
   * Events as they happen. Where the daemon goes away it connects again by itself and goes on after the last event: none is
   * missed or given twice, and `reset` says where that cannot be kept.
   */
  events(options?: EventOptions): AsyncIterable<ServiceEvent>;
  /** The caller's jobs, the newest first. */
  jobs(options?: JobsOptions): Promise<JobList>;
  /** A job, with its answer or error once it has ended. Throws `not_found`. */
  job(id: string, options?: CallOptions): Promise<Job>;
  /** Ends a job that has not ended. Returns it as it is then. Throws `not_found`. */
  cancelJob(id: string, options?: CallOptions): Promise<Job>;
}

/** The calls of the first daemon of these. */
export function serviceOf(sockets: readonly (string | Remote)[]): Service {
  const asking = <T>(method: "GET" | "DELETE", path: string, options: CallOptions): Promise<T> =>
    firstOf(sockets, async (connection) => connection.ask(method, path, options));
  const pathOf = (id: string): string => `/v1/jobs/${encodeURIComponent(id)}`;
  return {
    events: (options = {}) => eventsOf(sockets[0], options),
    jobs({ after, limit, ...options } = {}) {
      const query = new URLSearchParams();
      if (after !== undefined) query.set("after", after);
      if (limit !== undefined) query.set("limit", String(limit));
      return asking("GET", `/v1/jobs?${query.toString()}`, options);
    },
    job: (id, options = {}) => asking("GET", pathOf(id), options),
    cancelJob: (id, options = {}) => asking("DELETE", pathOf(id), options),
  };
}
