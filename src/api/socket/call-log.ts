import type { Log } from "../../daemon/log/log.ts";
import type { Caller } from "../../daemon/state/peer.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Body } from "../request.ts";
import { callOf, isChanging } from "../rights/capabilities.ts";

/** Refusals of which the operator is told, whatever the call was: somebody may be trying what they may not do. */
const TOLD: ReadonlySet<ErrorCode> = new Set(["permission", "refused", "unsupported"]);

/**
 * A line for a call that changes something or was refused: its verb, folder, caller, time and outcome. Options, messages and
 * content are the caller's and never in it.
 */
export function logCall(
  log: Log,
  { name, body, caller, startedAt }: { name: string; body: Body; caller: Caller; startedAt: number },
  error: CairnError | null,
): void {
  const isRefused = error !== null && TOLD.has(error.code);
  // Those of agents are told with their tokens.
  if (isRefused ? caller.isAgent : !isChanging(name) && callOf(name)?.logged !== true) return;
  // Any word may be called.
  const verb = callOf(name) === undefined ? "call" : name;
  const path = body["workspace"] ?? body["path"];
  const workspace = typeof path === "string" ? path : undefined;
  const outcome = error?.code ?? "ok";
  const duration_ms = performance.now() - startedAt;
  const where = workspace === undefined ? "" : ` ${printablePath(workspace)}`;
  log(`${verb}${where} by user ${caller.uid}: ${outcome}, ${Math.round(duration_ms)} ms`, {
    priority: isRefused ? "warning" : "info",
    workspace,
    verb,
    uid: caller.uid,
    duration_ms,
    outcome,
  });
}
