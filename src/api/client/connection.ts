import { Agent, type IncomingMessage, request, type RequestOptions } from "node:http";
import { availableParallelism, loadavg } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { inCalls } from "../../contract/checked-calls.ts";
import { errorOf, type ErrorRecord } from "../../contract/error-record.ts";
import { answersIn, dataOf, fromWire, linesOf, SILENCE_MS, toWire } from "../../contract/wire.ts";
import type { CallOptions } from "../../contract/index.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";

/** Members of a call. Functions and signals among its options stay on this side. */
export type Members = Readonly<Record<string, unknown>>;

interface Asked {
  /** Default POST. */
  method?: string;
  path: string;
  body?: string;
  headers?: Readonly<Record<string, string>>;
  /** True: the answer has no end, but a heartbeat. */
  isStream?: boolean;
}

/** No daemon answers on a socket, so the client must do the work itself. `busy`: a daemon listens but hangs. */
export class NoDaemon extends CairnError {}

/** A daemon on TCP. */
export interface Remote {
  /** For example `https://host:7777`. */
  url: string;
  token: string;
  /** Certificates in PEM that are trusted besides those of the system, for example a self-signed one. */
  ca?: string | Uint8Array;
}

/** Connections and headers of another `Connection` to the same daemon. */
interface Kept {
  agent?: Agent;
  headers?: Readonly<Record<string, string>>;
}

const KEPT = { keepAlive: true, maxSockets: 16 };
/** Milliseconds without an answer after which the client checks that the daemon lives. */
const ASK_MS = 1_000;
/** Milliseconds without a sign of life after which a daemon counts as hung: at its first call, later, and over TCP. */
const PATIENCE_MS = { first: 2_000, later: 10_000, far: 30_000 };

/** Calls to a daemon on its socket or over TCP, with kept connections. */
export class Connection {
  readonly #at: string | Remote;
  readonly #agent: Agent;
  readonly #shown: string;
  readonly #request: typeof request;
  readonly #where: RequestOptions;
  readonly #headers: Readonly<Record<string, string>>;
  #hasAnswered = false;

  /** `at`: the path of the socket, or the address on TCP. Throws `usage` for an invalid URL. */
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
      ...(at.ca === undefined
        ? {}
        : { ca: [...process.getBuiltinModule("node:tls").getCACertificates(), Buffer.from(at.ca).toString("utf8")] }),
    };
    this.#headers = { ...headers, authorization: `Bearer ${at.token}` };
    // Loaded only here: a hook of an agent asks a socket, and waits for each module.
    const secure = isSecure ? process.getBuiltinModule("node:https") : null;
    this.#agent = agent ?? new (secure?.Agent ?? Agent)(KEPT);
    this.#request = secure?.request ?? request;
  }

  /** Returns calls over the same connections, each with this idempotency key. */
  keyed(key: string): Connection {
    return new Connection(this.#at, { agent: this.#agent, headers: { "idempotency-key": key } });
  }

  /** Makes a call. Throws the daemon's error, `interrupted`, `NoDaemon` if no daemon answers, and `io` if the daemon goes away. */
  async call(name: string, members: Members, options: CallOptions = {}): Promise<unknown> {
    return dataOf(this.stream(name, members, options));
  }

  /** Returns a resource of the daemon. Throws the errors of `call()`. */
  async ask(method: "GET" | "DELETE", path: string, options: CallOptions = {}): Promise<unknown> {
    return dataOf(this.#answers({ method, path }, options));
  }

  /** Yields each answer of a call with several answers. Throws the errors of `call()`. */
  stream(name: string, members: Members, options: CallOptions = {}): AsyncGenerator {
    return this.#answers({ path: `/v1/${name}`, body: toWire(withoutOurs(members)) }, options);
  }

  #answers(asked: Asked, options: CallOptions): AsyncGenerator {
    const failed = (told: ErrorRecord | null): CairnError => {
      if (told === null) return this.#gone(undefined, true);
      return errorOf(told.advice === undefined ? told : { ...told, advice: inCalls(told.advice) });
    };
    return answersIn(this.lines(asked, options.signal), fromWire, failed, options);
  }

  /** Yields the lines of an answer. Throws the errors of `call()`, but not the daemon's. */
  async *lines(asked: Asked, signal?: AbortSignal): AsyncGenerator<string, void> {
    let isTaken = false;
    const ended = new AbortController();
    try {
      const response = await this.#open(asked, signal);
      isTaken = true;
      if (asked.isStream === true) response.setTimeout(SILENCE_MS, () => response.destroy());
      else void this.#watch(ended.signal, (ms) => response.destroy(this.#fellSilent(ms)));
      yield* linesOf(response.setEncoding("utf8"));
    } catch (error) {
      if (signal?.aborted === true)
        throw new CairnError("interrupted", "stopped by the caller", { cause: signal.reason });
      throw this.#gone(error, isTaken);
    } finally {
      ended.abort();
    }
  }

  /** The error for a daemon that went away. `isTaken`: the daemon had begun the call. */
  #gone(cause: unknown, isTaken: boolean): CairnError {
    if (cause instanceof CairnError) return cause;
    const { code } = (cause ?? {}) as NodeJS.ErrnoException;
    if (code === "ENOENT" || code === "ECONNREFUSED")
      return new NoDaemon("no_daemon", `no daemon answers at ${this.#shown}`, {
        hint: 'start one (`cairn service install`, or `cairn daemon` in the foreground); in a program, import from "cairnstate" to work without one',
        cause,
      });
    if (code === "EACCES") return new NoDaemon("permission", `you may not connect to ${this.#shown}`, { cause });
    // EAGAIN comes from a socket with a full queue: the daemon has accepted no connection for long.
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

  /** Calls `silent` once the daemon has shown no sign of life for a while. A long call of a living daemon goes on. */
  async #watch(ended: AbortSignal, silent: (ms: number) => void): Promise<void> {
    const { first, later, far } = PATIENCE_MS;
    // On an overloaded machine a living daemon takes longer.
    const load = Math.min(3, Math.max(1, loadavg()[0]! / availableParallelism() / 2));
    const patience = typeof this.#at === "string" ? (this.#hasAnswered ? later : first * load) : far;
    for (;;) {
      await sleep(ASK_MS, undefined, { signal: ended, ref: false }).catch(() => undefined);
      if (ended.aborted) return;
      if (!(await this.#isAlive(patience - ASK_MS, ended))) return silent(patience);
    }
  }

  /** True if the daemon answers or refuses a request on a new connection. */
  #isAlive(ms: number, ended: AbortSignal): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const asked = { ...this.#where, path: "/v1/ready", headers: this.#headers, agent: false };
    const probe = this.#request(asked, () => resolve(true));
    probe.on("error", ({ code }: NodeJS.ErrnoException) => resolve(code !== "EAGAIN"));
    // If this process itself was held up, answers that came meanwhile are read first.
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

  /** Sends a request. Resolves with the head of the answer. Rejects with a system error, or `NoDaemon` if the daemon hangs. */
  #open({ method = "POST", path, body = "", headers = {} }: Asked, signal?: AbortSignal): Promise<IncomingMessage> {
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

  /** Closes all connections and ends the calls under way. */
  close(): void {
    this.#agent.destroy();
  }

  /** Closes the connections that no call uses. */
  closeIdle(): void {
    for (const sockets of Object.values(this.#agent.freeSockets)) for (const each of sockets ?? []) each.destroy();
  }
}

/** Removes callbacks and signals from members and from their options. */
export function withoutOurs(members: Members): Members {
  const isOurs = (value: unknown): boolean => typeof value === "function" || value instanceof AbortSignal;
  return Object.fromEntries(
    Object.entries(members).flatMap(([name, value]) => {
      if (isOurs(value) || value === undefined) return [];
      return [[name, name === "options" ? withoutOurs(value as Members) : value]];
    }),
  );
}
