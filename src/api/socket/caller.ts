import type { IncomingMessage } from "node:http";
import type { Daemon } from "../../daemon/daemon.ts";
import type { Peer } from "../../daemon/state/peer.ts";
import type { Admitted } from "../../daemon/state/tokens.ts";
import type { CairnError } from "../../errors.ts";
import { requireNoPage } from "../request.ts";

/** A caller, the end of the caller's token, and the reason to refuse a known caller. */
export type Admission = Pick<Admitted, "caller"> & Partial<Admitted> & { refused?: CairnError };

/**
 * Returns the caller of a request: the user of its token, else the user that the kernel names. `peer` null: the kernel
 * names no user. Throws `NotAdmitted`, and `permission` for a web page.
 */
export function callerOf(request: IncomingMessage, daemon: Daemon, peer: Peer | null): Admission {
  requireNoPage(request);
  const { headers } = request;
  const agents = new Set(daemon.config.socket.agents);
  if (peer === null || headers.authorization !== undefined) return daemon.tokens.admit(headers.authorization, agents);
  return { caller: { ...peer, isAgent: agents.has(peer.uid), token: null, only: null } };
}
