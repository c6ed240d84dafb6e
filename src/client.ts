/// <reference lib="esnext.disposable" preserve="true" />
/** Calls of a daemon, by the names and with the types of the library. Everything exported here is promised. */
import "./node-version.ts";
import type { Remote } from "./api/client/connection.ts";
import { keyedClient, servedLibrary } from "./api/client/served-library.ts";
import { type Service, serviceOf } from "./api/client/service.ts";
import { speakOfCalls } from "./contract/checked-calls.ts";
import type { CairnLibrary, Client } from "./contract/index.ts";
import { socketsOfClient } from "./daemon/places.ts";

export { CairnError, ERROR_TABLE } from "./errors.ts";
export type { ErrorCode, ErrorOptions, ErrorRow } from "./errors.ts";
export type { Remote } from "./api/client/connection.ts";
export type { EventOptions, JobsOptions, Service } from "./api/client/service.ts";
export type * from "./contract/index.ts";
export type * from "./verbs/schemas.ts";

/** The library, done by a daemon, and the daemon's own calls. */
export interface ConnectedLibrary extends CairnLibrary, Service {
  /**
   * Gives a client's calls an idempotency key, 1 to 128 characters of printable ASCII. A repeated call that changes
   * something runs only once, even after a kill of the daemon or this program, and has the same answer for a day.
   */
  keyed(client: Client, key: string): Client;
}

/**
 * Returns the library with every verb done by a daemon. `socket`: of the daemon; default: the user's, then the
 * system's. `url` and `token`: of a daemon on TCP, with paths of its machine; `ca`: further certificates in PEM. Throws
 * `unsupported` for calls that no daemon does, and `no_daemon` (retryable) if none answers.
 */
export function connect(daemon: { socket?: string } | Remote = {}): ConnectedLibrary {
  speakOfCalls();
  const places = "url" in daemon ? [daemon] : daemon.socket === undefined ? socketsOfClient() : [daemon.socket];
  return { ...servedLibrary(places, null), ...serviceOf(places), keyed: keyedClient };
}
