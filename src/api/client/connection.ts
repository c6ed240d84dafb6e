import { Agent, type IncomingMessage, request, type RequestOptions } from "node:http";
import { Agent as SecureAgent, request as secureRequest } from "node:https";
import { createInterface } from "node:readline";
import { getCACertificates } from "node:tls";
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

/** A daemon on TCP. */
export interface Remote {
  /** As `https://host:7777`. */
  url: string;
  token: string;
  /** Certificates in PEM that count beside those of the system, as one that signed itself. */
  ca?: string | Uint8Array;
}

/** Connections and headers of another one to the same daemon. */
interface Kept {
  agent?: Agent;
  headers?: Readonly<Record<string, string>>;
}

const KEPT = { keepAlive: true, maxSockets: 16 };

/** Calls to a daemon on its socket or on TCP, with connections that are kept. */
export class Connection {
  readonly #at: string | Remote;
  readonly #agent: Agent;
  readonly #shown: string;
  readonly #request: typeof request;
  readonly #where: RequestOptions;
  readonly #headers: Readonly<Record<string, string>>;

  /** `at`: the path of its socket, or where it is on TCP. Throws `usage` for a URL that is none. */
  constructor(at: string | Remote, { agent, headers = {} }: Kept = {}) {
    this.#at = at;
    if (typeof at === "string") {
      this.#shown = printablePath(at);
      [this.#request, this.#where, this.#headers] = [request, { socketPath: at }, headers];
      this.#agent = agent ?? new Agent(KEPT);
      return;
    }
    const { hostname, port, protocol, origin, pathname } = URL.parse(at.url) ?? {};
    const isSecure = protocol === "https:";
    if (hostname === undefined || !(isSecure || protocol === "http:") || pathname !== "/")
      throw new CairnError("usage", "url is to be the address of a daemon, as https://host:7777");
    if (!/^[\x21-\x7e]+$/.test(at.token)) throw new CairnError("usage", "token is to be one that a daemon made");
    this.#shown = origin!;
    this.#where = {
      host: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: port === "" ? (isSecure ? 443 : 80) : port,
    };
    this.#headers = { ...headers, authorization: `Bearer ${at.token}` };
    const ca = at.ca === undefined ? {} : { ca: [...getCACertificates(), Buffer.from(at.ca).toString("utf8")] };
    this.#agent = agent ?? (isSecure ? new SecureAgent({ ...KEPT, ...ca }) : new Agent(KEPT));
    this.#request = isSecure ? secureRequest : request;
  }

  /** Calls over the same connections, each with this idempotency key. */
  keyed(key: string): Connection {
    return new Connection(this.#at, { agent: this.#agent, headers: { "idempotency-key": key } });
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
      return new NoDaemon("no_daemon", `no daemon answers at ${this.#shown}`, {
        hint: 'start one (`cairn service install`, or `cairn daemon` in the foreground); in a program, import from "cairnstate" to work without one',
        cause,
      });
    if (code === "EACCES") return new NoDaemon("permission", `you may not connect to ${this.#shown}`, { cause });
    const isRefused = code === undefined || code === "ECONNRESET" || code === "EPIPE";
    if (!isTaken && !isRefused)
      return new CairnError("io", `${this.#shown}: ${(cause as Error).message}`, {
        hint: "nothing was begun; where its certificate is not known here, name it in `ca`",
        cause,
      });
    if (!isTaken)
      return new CairnError("busy", `the daemon on ${this.#shown} takes no more callers now`, {
        hint: "nothing was begun; try again soon",
        cause,
      });
    return new CairnError("io", `the daemon on ${this.#shown} went away before it answered`, {
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
    const call = this.#request({ ...this.#where, path, method, headers: all, agent: this.#agent, signal }, resolve);
    call.on("error", reject);
    call.end(body);
    return promise;
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** Members without callbacks and signals, in their options too. */
export function withoutOurs(members: Members): Members {
  const isOurs = (value: unknown): boolean => typeof value === "function" || value instanceof AbortSignal;
  return Object.fromEntries(
    Object.entries(members).flatMap(([name, value]) => {
      if (isOurs(value) || value === undefined) return [];
      return [[name, name === "options" ? withoutOurs(value as Members) : value]];
    }),
  );
}
