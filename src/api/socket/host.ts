import type { CancelResult, PastEvents, PastEventsOptions, RunningCalls } from "../../contract/service.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import type { Caller } from "../../daemon/state/peer.ts";

/** The workspaces and events of `cairn ui`, for calls in that process, without jobs and tokens. */
export interface OwnHost extends Pick<Daemon, "events" | "running" | "mayHear" | "withClient" | "tellOf"> {
  require(caller: Caller, path: string): { id: string };
  /** The verbs of the library that are served. */
  readonly library: object;
  status(caller: Caller): Promise<unknown>;
  listRunning(caller: Caller): Promise<RunningCalls>;
  cancel(caller: Caller, id: string): Promise<CancelResult>;
  listEvents(caller: Caller, path: string, options: PastEventsOptions): Promise<PastEvents>;
}

/** Does the calls of a handler. */
export type Host = Daemon | OwnHost;

export function isDaemon(host: Host): host is Daemon {
  return "jobs" in host;
}
