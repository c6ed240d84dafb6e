import type { Caller } from "../../daemon/state/peer.ts";
import type { NotAdmitted } from "../../daemon/state/tokens.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { servedCall } from "../rights/capabilities.ts";

/** Errors of agents' calls that are logged for their person; other errors are normal. */
const TOLD: ReadonlySet<ErrorCode> = new Set(
  "permission refused usage unsupported not_a_workspace busy no_space".split(" ") as ErrorCode[],
);
const MAX_LINE = 500;
/**
 * Limits of lines in each span, because endless refusals must not fill the disk. The first line of each call and caller
 * is logged up to the second limit, so that one caller's many lines hide no other's.
 */
const MOST_LINES = 100;
const MOST_FIRST = 1000;
const SPAN_MS = 10_000;

/** Logs refused calls, one line each. */
export class Refusals {
  readonly #log: (line: string) => void;
  readonly #told = new WeakSet<Error>();
  #since = 0;
  #lines = 0;
  #untold = 0;
  readonly #kinds = new Set<string>();

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** Logs an agent's error, once. `call`: its name, or the address if it is no verb; `not_found` of an address is normal. */
  ofAgent({ uid, token }: Caller, call: string, workspace: unknown, error: CairnError): void {
    if (this.#told.has(error)) return;
    this.#told.add(error);
    if (!TOLD.has(error.code) && !(error.code === "not_found" && call.startsWith("/"))) return;
    const where = typeof workspace === "string" ? `, workspace ${workspace.slice(0, 200)}` : "";
    // All unknown names count as one call, so that invented names cannot hide other refusals.
    const name = call.replace(/^\/v1\//, "");
    this.#line(
      `${uid} ${token} ${servedCall(name) === undefined ? "" : name} ${error.code}`,
      `refused an agent: uid ${uid}, token ${token ?? "none"}, call ${call.slice(0, 40)}${where}: ${error.message}`,
    );
  }

  /** Logs a request without a valid token. */
  ofStranger(address: string, error: NotAdmitted): void {
    const reason = String(error.details?.["reason"]);
    this.#line("stranger", `refused a call from ${address} ${reason}`);
  }

  /** Logs an invalid request or a refused connection. */
  ofConnection(who: string, why: string): void {
    this.#line(`connection ${who}`, `refused ${who}: ${why}`);
  }

  #line(kind: string, text: string): void {
    const now = performance.now();
    if (now - this.#since > SPAN_MS) {
      if (this.#untold > 0) this.#log(`${this.#untold} more refusals are not listed`);
      [this.#since, this.#lines, this.#untold] = [now, 0, 0];
      this.#kinds.clear();
    }
    const isFirst = this.#kinds.size < MOST_FIRST && !this.#kinds.has(kind);
    if (isFirst) this.#kinds.add(kind);
    if (++this.#lines > MOST_LINES && !isFirst) this.#untold++;
    else this.#log(printablePath(text).slice(0, MAX_LINE));
  }
}
