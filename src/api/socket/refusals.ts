import type { Caller } from "../../daemon/peer.ts";
import type { NotAdmitted } from "../../daemon/tokens.ts";
import type { CairnError, ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";

/** Errors of an agent's call that its person may want to know of; others are a program's ordinary day. */
const TOLD: ReadonlySet<ErrorCode> = new Set(["permission", "refused", "usage", "busy", "no_space"]);
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

  /** Tells of an agent's error, once. */
  ofAgent({ uid, token }: Caller, call: string, workspace: unknown, error: CairnError): void {
    if (!TOLD.has(error.code) || this.#told.has(error)) return;
    this.#told.add(error);
    const where = typeof workspace === "string" ? `, workspace ${workspace.slice(0, 200)}` : "";
    this.#line(
      `${uid} ${token} ${call}`,
      `refused an agent: uid ${uid}, token ${token ?? "none"}, call ${call.slice(0, 40)}${where}: ${error.message}`,
    );
  }

  /** Tells of somebody whom nobody knows. */
  ofStranger(address: string, error: NotAdmitted): void {
    const reason = String(error.details?.["reason"]);
    this.#line("stranger", `refused a call from ${address} ${reason}`);
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
