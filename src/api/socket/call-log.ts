import { CLIENT_VERBS } from "../../contract/index.ts";
import type { Log } from "../../daemon/log/log.ts";
import type { Peer } from "../../daemon/peer.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { type Body, LOOKS } from "./calls.ts";

/** Calls of the daemon itself that change something. */
const OWN = new Set(["register", "release", "recover", "reload"]);

/** Refusals of which the operator is told, whatever the call was: somebody may be trying what they may not do. */
const TOLD: ReadonlySet<ErrorCode> = new Set(["permission", "refused", "unsupported"]);

/**
 * A line for a call that changes something or was refused: its verb, folder, caller, time and outcome. Options, messages and
 * content are the caller's and never in it.
 */
export function logCall(
  log: Log,
  { name, body, peer, startedAt }: { name: string; body: Body; peer: Peer; startedAt: number },
  error: CairnError | null,
): void {
  const isVerb = Object.hasOwn(CLIENT_VERBS, name);
  const isChange = (isVerb && !LOOKS.has(name)) || OWN.has(name);
  if (!isChange && (error === null || !TOLD.has(error.code))) return;
  // Any word may be called.
  const verb = isVerb || OWN.has(name) ? name : "call";
  const path = body["workspace"] ?? body["path"];
  const workspace = typeof path === "string" ? path : undefined;
  const outcome = error?.code ?? "ok";
  const duration_ms = performance.now() - startedAt;
  const where = workspace === undefined ? "" : ` ${printablePath(workspace)}`;
  const isRefused = error !== null && TOLD.has(error.code);
  log(`${verb}${where} by user ${peer.uid}: ${outcome}, ${Math.round(duration_ms)} ms`, {
    priority: isRefused ? "warning" : "info",
    workspace,
    verb,
    uid: peer.uid,
    duration_ms,
    outcome,
  });
}
