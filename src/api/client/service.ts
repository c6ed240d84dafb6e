import { setTimeout as sleep } from "node:timers/promises";
import { errorOf } from "../../contract/error-record.ts";
import type { EventType, Job, JobList, ServiceEvent } from "../../contract/service.ts";
import { eventsIn } from "../../contract/wire.ts";
import type { CallOptions } from "../../contract/words.ts";
import { CairnError } from "../../errors.ts";
import { Connection, type Members, NoDaemon, type Remote } from "./connection.ts";

/** The daemon's own calls besides those of the library: events, and jobs that run on without their caller. */

export interface EventOptions {
  /** Only events of these workspaces, by absolute path. Default: all workspaces on which the caller may act. */
  workspace?: string | readonly string[];
  /** Only events with a higher number. Default: events from now on. 0: all kept events. */
  after?: number;
  /** Default: all but `call`. */
  types?: readonly EventType[];
  /** Ends the stream with `interrupted`. */
  signal?: AbortSignal;
}

/** Milliseconds between two tries to connect again: at first, and at most. */
const AGAIN_MS = 100;
const MOST_AGAIN_MS = 5_000;

/**
 * Yields events. Connects again if the daemon goes away, and continues after the last event. Throws `not_a_workspace`,
 * `permission`, `usage`, and `no_daemon` if no daemon answers at first.
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
      const headers = { accept: "text/event-stream", ...(last === null ? {} : { "last-event-id": last }) };
      const lines = connection.lines({ method: "GET", path, headers, isStream: true }, signal);
      for await (const { id, event } of eventsIn(lines, errorOf)) {
        wait = AGAIN_MS;
        wasThere = true;
        last = id ?? last;
        if (event !== null) yield event;
      }
    } catch (error) {
      // A daemon that answered once comes back. A refusal stays a refusal.
      if (error instanceof CairnError && (!error.retryable || (error.code === "no_daemon" && !wasThere))) throw error;
    } finally {
      connection.close();
    }
    await sleep(wait, undefined, { signal }).catch(() => {
      throw new CairnError("interrupted", "stopped by the caller", { cause: signal!.reason });
    });
  }
}

export function notAsked(): NoDaemon {
  return new NoDaemon("no_daemon", "no daemon is asked: CAIRN_SOCKET is none", {
    hint: "name the daemon's socket in CAIRN_SOCKET, or unset it",
  });
}

/** Returns the answer of the first daemon that answers. Throws `NoDaemon`. */
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

/** Makes a call with the first daemon that answers. Throws `NoDaemon`. */
export async function askDaemon(
  sockets: readonly string[],
  name: string,
  members: Members = {},
  options: CallOptions = {},
): Promise<unknown> {
  return firstOf(sockets, async (connection) => connection.call(name, members, options));
}

export interface JobsOptions extends Pick<CallOptions, "signal"> {
  /** `next` of the previous page. */
  after?: string;
  /** The most jobs of a page, 1 to 1000; default 100. */
  limit?: number;
}

/** The daemon's own calls. */
export interface Service {
  /**
   * Yields events. Connects again if the daemon goes away, and continues after the last event, so that none is missed
   * or repeated. `reset` reports that events may be missing.
   */
  events(options?: EventOptions): AsyncIterable<ServiceEvent>;
  /** The caller's jobs, the newest first. */
  jobs(options?: JobsOptions): Promise<JobList>;
  /** A job, with its answer or error once it has ended. Throws `not_found`. */
  job(id: string, options?: CallOptions): Promise<Job>;
  /** Cancels a job that has not ended, and returns the job. Throws `not_found`. */
  cancelJob(id: string, options?: CallOptions): Promise<Job>;
}

/** Returns the calls of the first of these daemons that answers. */
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
