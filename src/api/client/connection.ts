import { Agent, type IncomingMessage, request, type RequestOptions } from "node:http";
import { Agent as SecureAgent, request as secureRequest } from "node:https";
import { availableParallelism, loadavg } from "node:os";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { getCACertificates } from "node:tls";
import { errorOf, type ErrorRecord } from "../../contract/error-record.ts";
import { fromWire, toWire } from "../../contract/wire.ts";
import type { CallOptions, Progress } from "../../contract/index.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

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

/** No daemon answers on a socket: what it would do has to be done here. `busy`: one listens and is hung. */
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
/** Milliseconds of waiting for an answer after which the daemon is asked for a sign of life. */
const ASK_MS = 1_000;
/** Milliseconds without a sign of life after which a daemon is hung: at its first call, later, and over TCP. */
const PATIENCE_MS = { first: 2_000, later: 10_000, far: 30_000 };

/** Calls to a daemon on its socket or on TCP, with connections that are kept. */
export class Connection {
  readonly #at: string | Remote;
  readonly #agent: Agent;
  readonly #shown: string;
  readonly #request: typeof request;
  readonly #where: RequestOptions;
  readonly #headers: Readonly<Record<string, string>>;
  #hasAnswered = false;

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
      throw new CairnError("usage", "url must be the address of a daemon, for example https://host:7777");
    if (!/^[\x21-\x7e]+$/.test(at.token)) throw new CairnError("usage", "token must be a token that a daemon made");
    this.#shown = origin!;
    this.#where = {
      host: hostname.replace(/^\[(.*)\]$/, "$1"),
      port: port === "" ? (isSecure ? 443 : 80) : port,
      ...(at.ca === undefined ? {} : { ca: [...getCACertificates(), Buffer.from(at.ca).toString("utf8")] }),
    };
    this.#headers = { ...headers, authorization: `Bearer ${at.token}` };
    this.#agent = agent ?? (isSecure ? new SecureAgent(KEPT) : new Agent(KEPT));
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
    const ended = new AbortController();
    try {
      const response = await this.open(asked, signal);
      isTaken = true;
      void this.#watch(ended.signal, (ms) => response.destroy(this.#fellSilent(ms)));
      for await (const text of createInterface({ input: response, crlfDelay: Infinity })) {
        const line = fromWire(text) as Line;
        if ("ok" in line) {
          isWhole = true;
          if (line.error !== null) throw errorOf(line.error);
        }
        yield line;
      }
    } catch (error) {
      if (signal?.aborted === true)
        throw new CairnError("interrupted", "stopped by the caller", { cause: signal.reason });
      throw this.gone(error, isTaken);
    } finally {
      ended.abort();
    }
    if (!isWhole) throw this.gone(undefined, true);
  }

  /** The error for a daemon that went away. `isTaken`: it has begun with the call. */
  gone(cause: unknown, isTaken: boolean): CairnError {
    if (cause instanceof CairnError) return cause;
    const { code } = (cause ?? {}) as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED")
      return new NoDaemon("no_daemon", `no daemon answers at ${this.#shown}`, {
        hint: 'start one (`cairn service install`, or `cairn daemon` in the foreground); in a program, import from "cairnstate" to work without one',
        cause,
      });
    if (code === "EACCES") return new NoDaemon("permission", `you may not connect to ${this.#shown}`, { cause });
    // Of a socket whose queue is full: nobody has taken a connection from it for long.
    if (code === "EAGAIN") return this.#hung(0);
    const isRefused = code === undefined || code === "ECONNRESET" || code === "EPIPE";
    if (!isTaken && !isRefused)
      return new CairnError("io", `${this.#shown}: ${(cause as Error).message}`, {
        hint: "if this machine does not know the daemon's certificate, name it in `ca`; nothing was begun",
        cause,
      });
    if (!isTaken)
      return new CairnError("busy", `the daemon on ${this.#shown} accepts no more connections now`, {
        hint: "try again soon; nothing was begun",
        cause,
      });
    return new CairnError("io", `the daemon on ${this.#shown} stopped before it answered`, {
      hint: advice`look at ${call("status")} when the daemon runs again: by then the call is completed or undone`,
      cause,
    });
  }

  #hung(ms: number): NoDaemon {
    this.#hasAnswered = false;
    const since = ms === 0 ? "takes no connections" : `has not answered for ${(ms / 1000).toFixed(0)} s`;
    return new NoDaemon("busy", `the daemon on ${this.#shown} ${since}`, {
      hint: "try again, or set `CAIRN_SOCKET=none` to work without the daemon, which hangs or is stopped; nothing was begun",
    });
  }

  #fellSilent(ms: number): CairnError {
    return new CairnError(
      "io",
      `the daemon on ${this.#shown} began the call, but has sent nothing for ${ms / 1000} s`,
      {
        hint: advice`look at ${call("status")} when the daemon answers again: by then the call is completed or undone`,
      },
    );
  }

  /** Calls `silent` once the daemon does nothing at all for the milliseconds that it is given. A long call of one that lives goes on. */
  async #watch(ended: AbortSignal, silent: (ms: number) => void): Promise<void> {
    const { first, later, far } = PATIENCE_MS;
    // Where more wants to run than can, a daemon that lives takes longer.
    const load = Math.min(3, Math.max(1, loadavg()[0]! / availableParallelism() / 2));
    const patience = typeof this.#at === "string" ? (this.#hasAnswered ? later : first * load) : far;
    for (;;) {
      await sleep(ASK_MS, undefined, { signal: ended, ref: false }).catch(() => undefined);
      if (ended.aborted) return;
      if (!(await this.#isAlive(patience - ASK_MS, ended))) return silent(patience);
    }
  }

  /** True where the daemon answers anything, or refuses to, on a connection of its own. */
  #isAlive(ms: number, ended: AbortSignal): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const asked = { ...this.#where, path: "/v1/ready", headers: this.#headers, agent: false };
    const probe = this.#request(asked, () => resolve(true));
    probe.on("error", ({ code }: NodeJS.ErrnoException) => resolve(code !== "EAGAIN"));
    // What came while this process was held up itself is read first.
    const late = setTimeout(() => setImmediate(() => resolve(ended.aborted)), ms).unref();
    const stop = (): void => resolve(true);
    ended.addEventListener("abort", stop, { once: true });
    probe.end();
    return promise.finally(() => {
      clearTimeout(late);
      ended.removeEventListener("abort", stop);
      probe.destroy();
    });
  }

  /** Sends a request. Resolves with the head of the answer; rejects with what the system says, or `NoDaemon` for one that hangs. */
  open({ method = "POST", path, body = "", headers = {} }: Asked, signal?: AbortSignal): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const ended = new AbortController();
    const all = {
      accept: "application/x-ndjson",
      "content-length": Buffer.byteLength(body),
      ...this.#headers,
      ...headers,
    };
    const call = this.#request({ ...this.#where, path, method, headers: all, agent: this.#agent, signal }, resolve);
    call.on("error", reject);
    call.end(body);
    void this.#watch(ended.signal, (ms) => call.destroy(this.#hung(ms)));
    return promise
      .finally(() => ended.abort())
      .then((response) => {
        this.#hasAnswered = true;
        return response;
      });
  }

  /** Ends the calls under way, too. */
  close(): void {
    this.#agent.destroy();
  }

  /** Closes the connections that no call uses. */
  closeIdle(): void {
    for (const sockets of Object.values(this.#agent.freeSockets)) for (const each of sockets ?? []) each.destroy();
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
