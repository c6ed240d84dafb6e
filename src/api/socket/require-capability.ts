import { type Caller, isWholeOperator } from "../../daemon/state/peer.ts";
import type { Verb } from "../../contract/verb.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { DAEMON_CALLS } from "../../verbs/index.ts";
import { callOf, isForOwners, isForPage, onlyLooks, type Options, servedCall } from "../rights/capabilities.ts";

/** Throws `permission` or `unsupported` if a caller may not make a call, or not with these options; `usage` for an unknown call. */
export function requireCapability(caller: Caller, name: string, options: Options): void {
  if (caller.page !== undefined) return requireForPage(caller.page, name, options);
  const verb = servedCall(name);
  if (verb === undefined) throw noCall(name);
  if (caller.isAgent) return requireForAgents(verb, name, options);
  if (verb.by === "kernel" && caller.token !== null)
    throw new CairnError("permission", `${name} cannot be called with a token`, {
      hint: advice`call it over the Unix socket of the machine and without a token, as ${call("service token", "tokenCreate")} does`,
    });
  if (isWholeOperator(caller) || isForOwners(name, options)) return;
  if (Object.hasOwn(DAEMON_CALLS, name))
    throw new CairnError("permission", "only root and the daemon's own user may make this call");
  throw new CairnError("unsupported", `the daemon does not do ${name} for its callers`, {
    hint: "use the library or the command: this call writes to a path that the caller chooses",
    details: { served: false },
  });
}

function requireForPage(page: Caller["page"], name: string, options: Options): void {
  if (!isForPage(name))
    throw new CairnError("usage", `the page has no call ${JSON.stringify(name)}`, {
      hint: "make this call by the command or the library",
    });
  if (page === "looks" && !onlyLooks(name, options))
    throw new CairnError("refused", `${name} changes something, and this page was started to look only`, {
      hint: "start `cairn ui` without --read-only",
    });
}

function requireForAgents({ agents, by, agentCause }: Verb, name: string, options: Options): void {
  if (agents === undefined)
    throw new CairnError("permission", `${name} is not for agents`, {
      hint: by === "kernel" ? "ask a person on this machine to do it" : "ask a person to do it",
    });
  const allowed = new Set([...agents, "lockTimeoutMs"]);
  // An empty list has no effect, so it is allowed.
  const asked = Object.entries(options ?? {}).filter(([, value]) => !(Array.isArray(value) && value.length === 0));
  const refused = asked.map(([each]) => each).find((each) => !allowed.has(each));
  const { kind, request } = (options?.["cause"] ?? {}) as { kind?: unknown; request?: unknown };
  // The kind of its cause identifies an agent's point.
  const isOther = agentCause !== undefined && typeof kind === "string" && kind !== agentCause;
  if (isOther || kind === "person" || kind === "schedule")
    throw new CairnError("permission", `an agent's cause cannot be of the kind ${kind.slice(0, 40)}`, {
      hint: 'say what it did, as {"kind":"tool_call","tool":"bash"}',
    });
  // The daemon sets `request` to find out whether an interrupted call is done.
  if (request !== undefined)
    throw new CairnError("permission", "only the daemon may set `request` in the cause of an agent", {
      hint: "give an idempotency key instead",
    });
  if (refused === undefined) return;
  throw new CairnError("permission", `${name} with ${JSON.stringify(refused.slice(0, 40))} is not for agents`, {
    hint: `an agent may give ${agents.length === 0 ? "no options" : agents.join(", ")}; a person may give all`,
  });
}

function noCall(name: string): CairnError {
  const unserved = callOf(name)?.unserved;
  if (unserved !== undefined)
    return new CairnError("unsupported", `the daemon does not do ${name} for its callers`, {
      hint: unserved,
      details: { served: false },
    });
  return new CairnError("usage", `there is no call ${JSON.stringify(name)}`, {
    hint: "if the caller is newer than the daemon, restart the daemon",
    details: { served: false },
  });
}
