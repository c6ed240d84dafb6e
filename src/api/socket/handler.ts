import { once } from "node:events";
import { type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { Daemon } from "../../daemon/daemon.ts";
import type { Log } from "../../daemon/log/log.ts";
import { type Caller, isOperator, keyOf } from "../../daemon/state/peer.ts";
import { NotAdmitted } from "../../daemon/state/tokens.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { LINES, Reply } from "../reply.ts";
import { type Body, readCall } from "../request.ts";
import { logCall } from "./call-log.ts";
import { answer, isLasting, type Told } from "./calls.ts";
import type { Admission } from "./caller.ts";
import { EventStreams } from "./events.ts";
import { type Host, isDaemon } from "./host.ts";
import { HEALTH, healthOf, READY, readinessOf } from "./health.ts";
import { answerOnJobs, beginJob, JOBS, type JobRequest, jobRequestOf, placeOf } from "./jobs.ts";
import { isListed, type Options } from "../rights/capabilities.ts";
import { Refusals } from "./refusals.ts";

export interface HandlerOptions {
  /** Most bytes of a request's body. */
  requestBytes: number;
  /** Most calls at once; further calls are refused as `busy`. */
  calls: number;
  log: Log;
}

/** Path of the description of the calls, for `GET`. */
const DOCUMENT = "/v1/openapi.json";
const METRICS = "/metrics";
export const EVENTS = /^\/v1\/events(?:\?|$)/;
/** One user or token has at most this part (1/4) of connections and calls; as many more are kept for root. */
export const SHARE = 4;
export const FOR_ROOT = 16;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** Milliseconds that a stop gives to running calls, and then to their callers: a stop takes at most 10 s. */
const GRACE_MS = 6_000;
const LEAVE_MS = 1_000;

/** Invalid requests, by Node's error codes; `why` is for the log. */
const BROKEN: Readonly<Record<string, { status: number; why: string | null }>> = {
  HPE_HEADER_OVERFLOW: { status: 431, why: "the request's head is too large" },
  ERR_HTTP_REQUEST_TIMEOUT: { status: 408, why: "the request did not arrive in time" },
};
const NO_HTTP = { status: 400, why: "the request is not HTTP" };
/** The client ended the connection. */
const GONE = { status: 400, why: null };

/** Returns the caller of a request; null if the request was answered. Throws the reason to refuse the request. */
export type Admit = (reply: Reply, signal: AbortSignal) => Admission | null | Promise<Admission | null>;

/** Answers requests of admitted callers: `POST /v1/<verb>` with a JSON object, and the answer as an object or as lines of JSON. */
export class RequestHandler {
  readonly #host: Host;
  readonly #options: HandlerOptions;
  readonly refusals: Refusals;
  readonly #stopped = new AbortController();
  /** Running calls by user or token. */
  readonly #calls = new Map<string, number>();
  readonly #events: EventStreams;

  constructor(host: Host, options: HandlerOptions) {
    this.#host = host;
    this.#events = new EventStreams(host);
    this.#options = options;
    this.refusals = new Refusals(options.log);
  }

  stop(): void {
    this.#stopped.abort(new Error("the daemon stops"));
  }

  /** Resolves when no job runs. */
  async idle(): Promise<void> {
    if (isDaemon(this.#host)) await this.#host.jobs.idle();
  }

  /** Answers a request of the caller whom `admit` returns. */
  async serve(request: IncomingMessage, response: ServerResponse, admit: Admit): Promise<void> {
    const { socket } = request;
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    const reply = new Reply(response, request.headers.accept === LINES);
    const gone = new AbortController();
    const leave = (): void => gone.abort(new Error("the caller went away"));
    socket.once("close", leave);
    const signals = [gone.signal, this.#stopped.signal];
    let caller: Caller | undefined;
    let expiry: NodeJS.Timeout | undefined;
    let isCounted = false;
    try {
      const admission = await admit(reply, AbortSignal.any(signals));
      if (admission === null) return;
      ({ caller } = admission);
      const { revoked, expiresAt, refused } = admission;
      if (refused !== undefined) throw refused;
      if (revoked !== undefined) signals.push(revoked);
      if (expiresAt !== undefined)
        expiry = setTimeout(
          () => gone.abort(new Error("the token has expired")),
          Math.min(expiresAt - Date.now(), LONGEST_TIMER_MS),
        ).unref();
      const signal = AbortSignal.any(signals);
      // Callers get events even if they have reached their limit of calls.
      if (request.method === "GET" && EVENTS.test(request.url ?? ""))
        return await this.#events.serve(request, response, { caller, signal });
      const daemon = isDaemon(this.#host) ? this.#host : null;
      const ofJobs = daemon === null ? undefined : await answerOnJobs(daemon, caller, request);
      if (ofJobs !== undefined) return reply.end(ofJobs);
      isCounted = this.#begin(caller);
      if (daemon !== null && (await this.#answerOther(request, response, { daemon, caller, signal }))) return;
      const { name, body } = await readCall(request, this.#options.requestBytes);
      // A client may have given up on a hung daemon. The end of its connection is read a whole turn after its request.
      await nextTurn();
      await nextTurn();
      if (socket.destroyed || socket.readableEnded) throw new CairnError("interrupted", "the caller went away");
      const asJob = daemon === null ? null : jobRequestOf(request.headers, name, body);
      if (daemon !== null && asJob !== null) {
        isCounted = false;
        return await this.#answerJob(asJob, { daemon, caller, revoked }, reply);
      }
      if (isLasting(name)) isCounted = this.#end(caller);
      const told = {
        signal,
        onWarning: (message: string) => reply.warn(message),
        onProgress: (progress: unknown) => reply.line({ progress }),
        onItem: (item: unknown) => reply.item(item),
      };
      // From then on the call may have begun, and an open reply tells the caller so.
      const accepted = (): void => reply.open();
      reply.end(await this.#answer(caller, { name, body, told }, accepted));
    } catch (error) {
      this.#fail({ request, response, reply }, toCairnError(error), caller);
    } finally {
      clearTimeout(expiry);
      if (isCounted) this.#end(caller!);
      socket.off("close", leave);
    }
  }

  /** The job counts as a running call until it ends, even if no caller waits for it. */
  async #answerJob(
    asked: JobRequest,
    { daemon, caller, revoked }: Pick<Admission, "caller" | "revoked"> & { daemon: Daemon },
    reply: Reply,
  ): Promise<void> {
    const { jobs } = daemon;
    const stopped = AbortSignal.any([this.#stopped.signal, ...(revoked === undefined ? [] : [revoked])]);
    let id: string;
    try {
      id = beginJob(daemon, caller, asked, {
        work: async (told) => this.#answer(caller, { name: asked.name, body: asked.body, told }),
        ended: () => this.#end(caller),
        stopped,
      });
    } catch (error) {
      this.#end(caller);
      throw error;
    }
    if (asked.isAsync) return reply.accept(`${JOBS}/${id}`, { job_id: id, state: jobs.find(caller, id).state });
    reply.open();
    const onProgress = (progress: unknown): void => reply.line({ progress });
    reply.end(await jobs.answer(id, { onProgress, onWarning: (message) => reply.warn(message) }));
  }

  /** Answers bytes that are not HTTP, or that came too late, and logs the peer. */
  refuse({ code }: NodeJS.ErrnoException, socket: Duplex, who: string): void {
    const { status, why } = BROKEN[code ?? ""] ?? (code?.startsWith("HPE_") === true ? NO_HTTP : GONE);
    if (why !== null) this.refusals.ofConnection(`a request of ${who}`, why);
    const { _httpMessage: begun } = socket as { _httpMessage?: ServerResponse | null };
    if (why !== null && socket.writable && begun?.headersSent !== true)
      socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nConnection: close\r\n\r\n`);
    socket.destroy();
  }

  async #answer(
    caller: Caller,
    call: { name: string; body: Body; told: Told },
    accepted: () => void = () => undefined,
  ): Promise<unknown> {
    const made = { ...call, caller, startedAt: performance.now() };
    try {
      const answered = await this.#carryOut(caller, call, accepted);
      logCall(this.#options.log, made, null);
      return answered;
    } catch (error) {
      const failed = toCairnError(error);
      const { workspace, path } = call.body;
      if (caller.isAgent) this.refusals.ofAgent(caller, call.name, workspace ?? path, failed);
      logCall(this.#options.log, made, failed);
      throw failed;
    }
  }

  /** Makes a call, and lists it meanwhile unless it only looks. */
  async #carryOut(
    caller: Caller,
    { name, body, told: given }: { name: string; body: Body; told: Told },
    accepted: () => void,
  ): Promise<unknown> {
    const host = this.#host;
    const { cancelJob, ...told } = given;
    if (!isListed(name, body["options"] as Options)) return answer(host, caller, { name, body, told }, accepted);
    const { workspace, place } = placeOf(isDaemon(host) ? host : null, caller, body);
    return host.running.during(
      { verb: name, workspace, place, caller, cancelJob },
      told.signal,
      async ({ signal, ...hand }) => {
        const both: Told = {
          ...told,
          signal,
          onBegin: () => {
            hand.onBegin();
            told.onBegin?.();
          },
          onProgress: (progress) => {
            hand.onProgress(progress);
            told.onProgress?.(progress);
          },
        };
        return answer(host, caller, { name, body, told: both }, () => {
          hand.onAccepted();
          accepted();
        });
      },
    );
  }

  #fail(
    { request, response, reply }: { request: IncomingMessage; response: ServerResponse; reply: Reply },
    failed: CairnError,
    caller: Caller | undefined,
  ): void {
    if (failed.code === "internal")
      this.#options.log(`${request.url}: ${failed.stack ?? failed.message}`, { priority: "error" });
    if (caller?.isAgent === true) this.refusals.ofAgent(caller, request.url ?? "", undefined, failed);
    // The rest of a refused body is dropped, within the time limit of a request.
    if (!request.complete) {
      response.shouldKeepAlive = false;
      request.resume();
    }
    if (!(failed instanceof NotAdmitted)) return reply.fail(failed);
    this.refusals.ofStranger(request.socket.remoteAddress ?? "the socket", failed);
    response.shouldKeepAlive = false;
    reply.refuse(failed);
  }

  /** Answers requests to a daemon that are no calls: MCP, and resources that are only read. False for other requests. */
  async #answerOther(
    request: IncomingMessage,
    response: ServerResponse,
    { daemon, caller, signal }: { daemon: Daemon; caller: Caller; signal: AbortSignal },
  ): Promise<boolean> {
    if (isMcp(request)) {
      const { serveMcp } = await import("./mcp.ts");
      const answered = async (call: { name: string; body: Body; told: Told }): Promise<unknown> =>
        this.#answer(caller, call);
      const { requestBytes } = this.#options;
      await serveMcp(request, response, { daemon, caller, answer: answered, signal, requestBytes });
      return true;
    }
    if (request.method !== "GET") return false;
    const { url } = request;
    if (url === DOCUMENT) {
      const { openApi } = await import("./openapi.ts");
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(openApi()));
      return true;
    }
    if (url === HEALTH || url === READY) {
      const { status, body } = url === READY ? readinessOf(daemon) : healthOf(daemon, caller);
      response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
      return true;
    }
    if (url !== METRICS) return false;
    const { metricsOf } = await import("./metrics.ts");
    const text = metricsOf(daemon.status(caller));
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
    return true;
  }

  #begin(caller: Caller): true {
    const key = keyOf(caller);
    const all = [...this.#calls.values()].reduce((sum, each) => sum + each, 0);
    const own = this.#calls.get(key) ?? 0;
    const { calls } = this.#options;
    const isRoot = caller.token === null && isOperator(caller);
    if (isRoot ? all >= calls + FOR_ROOT : all >= calls || own >= Math.ceil(calls / SHARE))
      throw new CairnError("busy", `${own} of your calls and ${all} calls in all are running`, {
        hint: "try again when one of them has ended",
      });
    this.#calls.set(key, own + 1);
    return true;
  }

  #end(caller: Caller): false {
    const key = keyOf(caller);
    const left = (this.#calls.get(key) ?? 1) - 1;
    if (left > 0) this.#calls.set(key, left);
    else this.#calls.delete(key);
    return false;
  }
}

function isMcp({ url = "" }: IncomingMessage): boolean {
  return /^\/mcp(?:\?|$)/.test(url);
}

/** Accepts no more requests, lets calls end, and stops calls that take longer than `graceMs`. */
export async function endServer(
  server: Server,
  handler: RequestHandler,
  { sockets = () => [], graceMs = GRACE_MS }: { sockets?: () => Iterable<Socket>; graceMs?: number | undefined },
): Promise<void> {
  const ended = new AbortController();
  const closed = Promise.all([
    new Promise<void>((done) => server.close(() => done())),
    Promise.race([handler.idle(), once(ended.signal, "abort")]),
  ]);
  server.closeIdleConnections();
  const late = setTimeout(() => handler.stop(), graceMs);
  const gone = setTimeout(() => {
    server.closeAllConnections();
    for (const socket of sockets()) socket.destroy();
    ended.abort();
  }, graceMs + LEAVE_MS);
  await closed;
  clearTimeout(late);
  clearTimeout(gone);
}
