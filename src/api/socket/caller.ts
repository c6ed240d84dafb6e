import type { IncomingMessage } from "node:http";
import type { Daemon } from "../../daemon/daemon.ts";
import type { Peer } from "../../daemon/state/peer.ts";
import type { Admitted } from "../../daemon/state/tokens.ts";
import type { CairnError } from "../../errors.ts";

/** A caller, when they are none any more, and why they are not served though they are known. */
export type Admission = Pick<Admitted, "caller"> & Partial<Admitted> & { refused?: CairnError };

/**
 * Whoever makes a request: whom its token names, else whom the kernel names; null: the kernel names nobody. Throws `NotAdmitted`.
 */
export function callerOf({ headers }: IncomingMessage, daemon: Daemon, peer: Peer | null): Admission {
  const agents = new Set(daemon.config.socket.agents);
  if (peer === null || headers.authorization !== undefined) return daemon.tokens.admit(headers.authorization, agents);
  return { caller: { ...peer, isAgent: agents.has(peer.uid), token: null, only: null } };
}
