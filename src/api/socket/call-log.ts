import type { Log } from "../../daemon/log/log.ts";
import type { Caller } from "../../daemon/state/peer.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Body } from "../request.ts";
import { callOf, isChanging, type Options } from "../rights/capabilities.ts";

/** Refusals that are logged for every call: a caller may be trying forbidden calls. */
const TOLD: ReadonlySet<ErrorCode> = new Set(["permission", "refused", "unsupported"]);

/**
 * Logs a call that changes something or was refused: its verb, folder, caller, time and outcome. Options, messages and
 * content are private and never logged.
 */
export function logCall(
  log: Log,
  { name, body, caller, startedAt }: { name: string; body: Body; caller: Caller; startedAt: number },
  error: CairnError | null,
): void {
  const isRefused = error !== null && TOLD.has(error.code);
  // Refusals of agents are logged elsewhere, with their tokens.
  const changes = isChanging(name, body["options"] as Options);
  if (isRefused ? caller.isAgent : !changes && callOf(name)?.logged !== true) return;
  // The name of an unknown call may be any text.
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
