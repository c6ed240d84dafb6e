import type { Caller } from "../../daemon/state/peer.ts";
import type { NotAdmitted } from "../../daemon/state/tokens.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { servedCall } from "../rights/capabilities.ts";

/** Errors of an agent's call that its person may want to know of; others are a program's ordinary day. */
const TOLD: ReadonlySet<ErrorCode> = new Set(
  "permission refused usage unsupported not_a_workspace busy no_space".split(" ") as ErrorCode[],
);
const MAX_LINE = 500;
/**
 * Lines in a span of so many milliseconds: whoever is refused for ever must not fill the disk. The first of each call of each caller
 * is told beyond that, up to the second number, so that many of one hide no other.
 */
const MOST_LINES = 100;
const MOST_FIRST = 1000;
const SPAN_MS = 10_000;

/** The log of calls that were refused, a line each. */
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

  /** Tells of an agent's error, once. `call`: its name; else the address, at which nothing that is not found is an ordinary thing. */
  ofAgent({ uid, token }: Caller, call: string, workspace: unknown, error: CairnError): void {
    if (this.#told.has(error)) return;
    this.#told.add(error);
    if (!TOLD.has(error.code) && !(error.code === "not_found" && call.startsWith("/"))) return;
    const where = typeof workspace === "string" ? `, workspace ${workspace.slice(0, 200)}` : "";
    // Words that are no calls are one kind, or whoever makes up many would hide others' refusals.
    const name = call.replace(/^\/v1\//, "");
    this.#line(
      `${uid} ${token} ${servedCall(name) === undefined ? "" : name} ${error.code}`,
      `refused an agent: uid ${uid}, token ${token ?? "none"}, call ${call.slice(0, 40)}${where}: ${error.message}`,
    );
  }

  /** Tells of somebody whom nobody knows. */
  ofStranger(address: string, error: NotAdmitted): void {
    const reason = String(error.details?.["reason"]);
    this.#line("stranger", `refused a call from ${address} ${reason}`);
  }

  /** Tells of a request that was none, or of a connection. */
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
