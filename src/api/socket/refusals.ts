import type { Caller } from "../../daemon/peer.ts";
import { NotAdmitted } from "../../daemon/tokens.ts";
import { CairnError, type ErrorCode } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";

/** Errors of an agent's call that its person may want to know of; others are a program's ordinary day. */
const TOLD: ReadonlySet<ErrorCode> = new Set(["permission", "refused", "usage", "busy", "no_space"]);
const MAX_LINE = 500;
/** Lines in a span of so many milliseconds: whoever is refused for ever must not fill the disk. */
const MOST_LINES = 100;
const SPAN_MS = 10_000;

/** The log of calls that were refused, a line each. */
export class Refusals {
  readonly #log: (line: string) => void;
  readonly #told = new WeakSet<Error>();
  #since = 0;
  #lines = 0;
  #untold = 0;

  constructor(log: (line: string) => void) {
    this.#log = log;
  }

  /** Tells of an agent's error, once. */
  ofAgent({ uid, token }: Caller, call: string, workspace: unknown, error: CairnError): void {
    if (!TOLD.has(error.code) || this.#told.has(error)) return;
    this.#told.add(error);
    const where = typeof workspace === "string" ? `, workspace ${workspace.slice(0, 200)}` : "";
    this.#line(
      `refused an agent: uid ${uid}, token ${token ?? "none"}, call ${call.slice(0, 40)}${where}: ${error.message}`,
    );
  }

  /** Tells of somebody whom nobody knows. */
  ofStranger(address: string, error: NotAdmitted): void {
    this.#line(`refused a call from ${address} ${String(error.details?.["reason"])}`);
  }

  #line(text: string): void {
    const now = performance.now();
    if (now - this.#since > SPAN_MS) {
      if (this.#untold > 0) this.#log(`${this.#untold} more refusals are not listed`);
      [this.#since, this.#lines, this.#untold] = [now, 0, 0];
    }
    if (++this.#lines > MOST_LINES) this.#untold++;
    else this.#log(printablePath(text).slice(0, MAX_LINE));
  }
}
