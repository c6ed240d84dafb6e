import type { Daemon } from "../../daemon/daemon.ts";
import type { Caller } from "../../daemon/state/peer.ts";
import { ERROR_TABLE } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** Paths for monitors of the daemon, by `GET`. */
export const HEALTH = "/v1/health";
export const READY = "/v1/ready";

interface Answered {
  status: number;
  body: { ok: boolean; reasons: string[] };
}

/** Health of the caller's workspaces: unhealthy if a workspace has a problem or a limit is passed. */
export function healthOf(daemon: Daemon, caller: Caller): Answered {
  const { workspaces, overdue } = daemon.status(caller);
  const sick = workspaces
    .filter(({ health }) => health !== "ok")
    .map(({ path, health, detail }) => `${printablePath(path)}: ${detail ?? health}`);
  return answered([...sick, ...overdue]);
}

/** Readiness: the daemon takes calls. */
export function readinessOf({ isReady }: Daemon): Answered {
  return answered(isReady ? [] : ["the daemon stops"]);
}

function answered(reasons: string[]): Answered {
  const ok = reasons.length === 0;
  return { status: ok ? 200 : ERROR_TABLE.overdue.http, body: { ok, reasons } };
}
