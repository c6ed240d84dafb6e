/// <reference lib="esnext.disposable" preserve="true" />
/** Calls of a daemon, by the names and with the types of the library. Everything exported here is promised. */
import "./node-version.ts";
import type { Remote } from "./api/client/connection.ts";
import { servedLibrary, socketsToAsk } from "./api/client/served-library.ts";
import type { CairnLibrary } from "./contract/index.ts";

export { CairnError, ERROR_TABLE } from "./errors.ts";
export type { ErrorCode, ErrorOptions, ErrorRow } from "./errors.ts";
export type { Remote } from "./api/client/connection.ts";
export type * from "./contract/index.ts";

/**
 * The library with every verb done by a daemon: in this process there are no threads, no native code and no files of points.
 * `socket`: of the daemon; the user's own and the system's unless told. `url` and `token`: of one on TCP, whose paths are those of
 * its machine; `ca`: certificates in PEM that count too. What no daemon does is `unsupported`.
 */
export function connect(daemon: { socket?: string } | Remote = {}): CairnLibrary {
  if ("url" in daemon) return servedLibrary([daemon], null);
  const { socket } = daemon;
  return servedLibrary(socket === undefined ? socketsToAsk() : [socket], null);
}
