import { Agent, type IncomingMessage, request } from "node:http";
import { createInterface } from "node:readline";
import { errorOf, type ErrorRecord } from "../../contract/error-record.ts";
import { fromWire, toWire } from "../../contract/wire.ts";
import type { CallOptions, Progress } from "../../contract/index.ts";
import { CairnError } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";

type Line =
  | { progress: Progress }
  | { warning: string }
  | { item: unknown }
  | { ok: boolean; data: unknown; error: ErrorRecord | null };

/** Members of a call; functions and signals among its options are for this side. */
export type Members = Readonly<Record<string, unknown>>;

/** No daemon answers on a socket: what it would do has to be done here. */
export class NoDaemon extends CairnError {}

/** Calls to a daemon on its socket, with connections that are kept. */
export class Connection {
  readonly socket: string;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 16 });

  constructor(socket: string) {
    this.socket = socket;
  }

  /** Throws what the daemon answers, `interrupted`, `NoDaemon` where none is there, and `io` where it goes away. */
  async call(name: string, members: Members, options: CallOptions = {}): Promise<unknown> {
    let answered: unknown;
    for await (const line of this.#lines(name, members, options)) {
      if ("progress" in line) options.onProgress?.(line.progress);
      else if ("warning" in line) options.onWarning?.(line.warning);
      else if ("ok" in line) answered = line.data;
    }
    return answered;
  }

  /** Each answer of a call that gives several. Throws as `call` does. */
  async *stream(name: string, members: Members, options: CallOptions = {}): AsyncGenerator {
    for await (const line of this.#lines(name, members, options)) {
      if ("warning" in line) options.onWarning?.(line.warning);
      else if ("item" in line) yield line.item;
    }
  }

  async *#lines(name: string, members: Members, { signal }: CallOptions): AsyncGenerator<Line> {
    let isWhole = false;
    let isTaken = false;
    try {
      const response = await this.#post(name, toWire(withoutOurs(members)), signal);
      isTaken = true;
      for await (const text of createInterface({ input: response, crlfDelay: Infinity })) {
        const line = fromWire(text) as Line;
        if ("ok" in line) {
          isWhole = true;
          if (line.error !== null) throw errorOf(line.error);
        }
        yield line;
      }
    } catch (error) {
      if (signal?.aborted === true) throw new CairnError("interrupted", "stopped by the caller", { cause: error });
      if (error instanceof CairnError) throw error;
      throw this.#gone(error, isTaken);
    }
    if (!isWhole) throw this.#gone(undefined, true);
  }

  /** `isTaken`: the daemon has begun with the call. */
  #gone(cause: unknown, isTaken: boolean): CairnError {
    const { code } = (cause ?? {}) as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED")
      return new NoDaemon("not_found", `no daemon answers on ${printablePath(this.socket)}`, { cause });
    if (code === "EACCES")
      return new NoDaemon("permission", `you may not connect to ${printablePath(this.socket)}`, { cause });
    if (!isTaken)
      return new CairnError("busy", `the daemon on ${printablePath(this.socket)} takes no more callers now`, {
        hint: "nothing was begun; try again soon",
        cause,
      });
    return new CairnError("io", `the daemon on ${printablePath(this.socket)} went away before it answered`, {
      hint: "what it had begun is whole or is taken back when it starts again: look with `cairn status`",
      cause,
    });
  }

  #post(name: string, body: string, signal: AbortSignal | undefined): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const headers = { accept: "application/x-ndjson", "content-length": Buffer.byteLength(body) };
    const call = request(
      { socketPath: this.socket, path: `/v1/${name}`, method: "POST", headers, agent: this.#agent, signal },
      resolve,
    );
    call.on("error", reject);
    call.end(body);
    return promise;
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** Members without callbacks and signals, in their options too. */
function withoutOurs(members: Members): Members {
  const isOurs = (value: unknown): boolean => typeof value === "function" || value instanceof AbortSignal;
  return Object.fromEntries(
    Object.entries(members).flatMap(([name, value]) => {
      if (isOurs(value) || value === undefined) return [];
      return [[name, name === "options" ? withoutOurs(value as Members) : value]];
    }),
  );
}
