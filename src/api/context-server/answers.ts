import type { ValidationError } from "../../contract/context-http.ts";
import { adviceOf, type CairnError, type ErrorCode, type Part, toCairnError } from "../../errors.ts";

/** Answers and errors in the shapes of OpenViking's servers. */

export interface Answer {
  status: number;
  body: Record<string, unknown>;
  /** A failure of the server itself, which is reported to its operator. */
  problem?: CairnError;
}

export function ok(result: unknown): Answer {
  return { status: 200, body: { status: "ok", result, error: null, telemetry: null } };
}

export function failed(status: number, code: string, message: string, details: Record<string, unknown> = {}): Answer {
  return { status, body: { status: "error", result: null, error: { code, message, details }, telemetry: null } };
}

export function invalid(errors: readonly ValidationError[]): Answer {
  const text = errors.map(({ loc, message }) => `${loc.join(".")}: ${message}`).join("; ");
  return failed(400, "INVALID_ARGUMENT", `Invalid request parameters: ${text}`, { validation_errors: errors });
}

/** Codes of errors that the request caused. */
const CODES: Partial<Record<ErrorCode, readonly [number, string]>> = {
  usage: [400, "INVALID_ARGUMENT"],
  damaged: [400, "INVALID_ARGUMENT"],
  newer_version: [400, "INVALID_ARGUMENT"],
  unsupported: [400, "INVALID_ARGUMENT"],
  not_found: [404, "NOT_FOUND"],
  already_exists: [409, "CONFLICT"],
  conflict: [409, "CONFLICT"],
  permission: [403, "PERMISSION_DENIED"],
  refused: [403, "PERMISSION_DENIED"],
};
const FAULTS: Partial<Record<ErrorCode, readonly [number, string]>> = {
  busy: [503, "UNAVAILABLE"],
  no_space: [507, "RESOURCE_EXHAUSTED"],
  interrupted: [503, "UNAVAILABLE"],
};

/** Requests that call verbs, and members of requests that are options of verbs. */
const REQUESTS: Readonly<Record<string, string>> = {
  backupContext: "POST /api/v1/pack/backup",
  restoreContext: "POST /api/v1/pack/restore",
  importBundle: "POST /api/v1/pack/import",
  onConflict: "on_conflict",
  vectorMode: "vector_mode",
};

/** Returns a part of a hint in the words of this server's clients; undefined if no request does that. */
function asRequest(part: string | Part): string | undefined {
  if (typeof part === "string") return part;
  const [verb] = part.verbs ?? [];
  if (verb !== undefined) return REQUESTS[verb];
  const [[option, value] = [""]] = Object.entries(part.options ?? {});
  const name = REQUESTS[option];
  return name === undefined || value === true ? name : `${name}: ${String(value)}`;
}

/** Returns the message and the hint. Leaves out a hint that names a command without a request. */
function withHint(error: CairnError): string {
  const words = [adviceOf(error) ?? []].flat().map(asRequest);
  return words.length === 0 || words.includes(undefined) ? error.message : `${error.message}; ${words.join("")}`;
}

export function answerTo(thrown: unknown): Answer {
  const error = toCairnError(thrown);
  const { code, details = {} } = error;
  const message = withHint(error);
  const own = CODES[code];
  // Clients build their own errors for these two from the details.
  if (code === "usage" && details["uri"] !== undefined && details["reason"] !== undefined)
    return failed(400, "INVALID_URI", message, details);
  const more = code === "not_found" && details["resource"] !== undefined ? { type: "resource" } : {};
  if (own !== undefined) return failed(own[0], own[1], message, { ...details, ...more });
  const [status, name] = FAULTS[code] ?? [500, "INTERNAL"];
  return {
    ...failed(status, name, name === "INTERNAL" ? "internal error: see the server's log" : message),
    problem: error,
  };
}
