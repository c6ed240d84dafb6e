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

/** A request of the daemon. */
interface Asked {
  /** Default POST. */
  method?: string;
  path: string;
  body?: string;
  headers?: Readonly<Record<string, string>>;
}

/** No daemon answers on a socket: what it would do has to be done here. */
export class NoDaemon extends CairnError {}

/** Calls to a daemon on its socket, with connections that are kept. */
export class Connection {
  readonly socket: string;
  readonly #agent: Agent;
  readonly #headers: Readonly<Record<string, string>>;

  constructor(socket: string, agent = new Agent({ keepAlive: true, maxSockets: 16 }), headers = {}) {
    this.socket = socket;
    this.#agent = agent;
    this.#headers = headers;
  }

  /** Calls over the same connections, each with this idempotency key. */
  keyed(key: string): Connection {
    return new Connection(this.socket, this.#agent, { "idempotency-key": key });
  }

  /** Throws what the daemon answers, `interrupted`, `NoDaemon` where none is there, and `io` where it goes away. */
  async call(name: string, members: Members, options: CallOptions = {}): Promise<unknown> {
    return this.#answer(this.#lines({ path: `/v1/${name}`, body: toWire(withoutOurs(members)) }, options), options);
  }

  /** The answer of a resource of the daemon. Throws as `call` does. */
  async ask(method: "GET" | "DELETE", path: string, options: CallOptions = {}): Promise<unknown> {
    return this.#answer(this.#lines({ method, path }, options), options);
  }

  async #answer(lines: AsyncIterable<Line>, options: CallOptions): Promise<unknown> {
    let answered: unknown;
    for await (const line of lines) {
      if ("progress" in line) options.onProgress?.(line.progress);
      else if ("warning" in line) options.onWarning?.(line.warning);
      else if ("ok" in line) answered = line.data;
    }
    return answered;
  }

  /** Each answer of a call that gives several. Throws as `call` does. */
  async *stream(name: string, members: Members, options: CallOptions = {}): AsyncGenerator {
    const asked = { path: `/v1/${name}`, body: toWire(withoutOurs(members)) };
    for await (const line of this.#lines(asked, options)) {
      if ("warning" in line) options.onWarning?.(line.warning);
      else if ("item" in line) yield line.item;
    }
  }

  async *#lines(asked: Asked, { signal }: CallOptions): AsyncGenerator<Line> {
    let isWhole = false;
    let isTaken = false;
    try {
      const response = await this.open(asked, signal);
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
      throw this.gone(error, isTaken);
    }
    if (!isWhole) throw this.gone(undefined, true);
  }

  /** The error for a daemon that went away. `isTaken`: it has begun with the call. */
  gone(cause: unknown, isTaken: boolean): CairnError {
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

  /** Sends a request. Resolves with the head of the answer; rejects with what the system says. */
  open({ method = "POST", path, body = "", headers = {} }: Asked, signal?: AbortSignal): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const all = {
      accept: "application/x-ndjson",
      "content-length": Buffer.byteLength(body),
      ...this.#headers,
      ...headers,
    };
    const call = request({ socketPath: this.socket, path, method, headers: all, agent: this.#agent, signal }, resolve);
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
