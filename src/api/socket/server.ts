import { chmodSync, chownSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { dirname } from "node:path";
import { describeError } from "../../contract/error-record.ts";
import { fromWire, toWire } from "../../contract/wire.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import { isOperator, type Peer } from "../../daemon/peer.ts";
import { CairnError, ERROR_TABLE, toCairnError } from "../../errors.ts";
import type { Log } from "../../daemon/log/log.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { groupId } from "../../fs/users.ts";
import { listenAlone } from "../listen.ts";
import { logCall } from "./call-log.ts";
import { answer, type Body, isLasting } from "./calls.ts";
import { HEALTH, healthOf, READY, readinessOf } from "./health.ts";
import { peerOf } from "./peer-credentials.ts";

export interface SocketOptions {
  path: string;
  /** Its members may connect too; null: the daemon's user alone. */
  group: string | null;
  connections: number;
  /** Most bytes of a request's body. */
  requestBytes: number;
  /** Most calls at once; more are refused as `busy`. */
  calls: number;
  /** Milliseconds that `stop` gives to calls under way. */
  graceMs?: number;
  log: Log;
}

const VERSION = 1;
const MAX_HEAD_BYTES = 16 << 10;
/** Milliseconds for a request's head and body. */
const REQUEST_MS = 20_000;
const LINES = "application/x-ndjson";
/** Path of the description of the calls, for `GET`. */
const DOCUMENT = "/v1/openapi.json";
const METRICS = "/metrics";
/** Bytes of progress and warnings that may wait for a slow reader. */
const MAX_WAITING = 8 << 20;
/** Milliseconds for which a connection may have no call, and a reader may take nothing. */
const IDLE_MS = 30_000;
const SILENCE_MS = 60_000;
/** Milliseconds that a stop gives to calls under way, and then to their callers: all of a stop takes at most 10 s. */
const GRACE_MS = 6_000;
const LEAVE_MS = 1_000;
/** One user has at most this part of connections and calls; so many more are kept for root. */
const SHARE = 4;
const FOR_ROOT = 16;

/** HTTP on a Unix socket: `POST /v1/<verb>`, a JSON object each way, or lines of JSON where the caller accepts those. */
export class SocketServer {
  readonly #daemon: Daemon;
  readonly #options: SocketOptions;
  readonly #server: Server;
  /** The user at the other end of each connection. */
  readonly #peers = new Map<Socket, Peer>();
  readonly #stopped = new AbortController();
  /** Calls under way, by the user who makes them. */
  readonly #calls = new Map<number, number>();

  private constructor(daemon: Daemon, options: SocketOptions) {
    this.#daemon = daemon;
    this.#options = options;
    this.#server = createServer({
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: REQUEST_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: 5_000,
      keepAliveTimeout: IDLE_MS,
    });
    this.#server.maxConnections = options.connections + FOR_ROOT;
    this.#server.on("connection", (socket: Socket) => this.#welcome(socket));
    this.#server.on("request", (request, response) => void this.#serve(request, response));
  }

  /** Listens. A socket that a killed daemon left is removed. Throws `busy` where somebody answers on it. */
  static async start(daemon: Daemon, options: SocketOptions): Promise<SocketServer> {
    const server = new SocketServer(daemon, options);
    const { path, group } = options;
    // Whatever mask a hardened root has: those whom the socket lets in have to reach it.
    if (durableMkdir(dirname(path), { mode: 0o755 })) chmodSync(dirname(path), 0o755);
    await listenAlone(server.#server, path, (error) => options.log(`the socket: ${error.message}`));
    if (group !== null) {
      chownSync(path, process.geteuid?.() ?? 0, requireGroup(group));
      chmodSync(path, 0o660);
    }
    return server;
  }

  /** Nobody but root and the daemon's own user takes more than a share of what there is. */
  #welcome(socket: Socket): void {
    try {
      const peer = peerOf(socket);
      const own = [...this.#peers.values()].filter(({ uid }) => uid === peer.uid).length;
      const { connections } = this.#options;
      if (!isOperator(peer) && (own >= Math.ceil(connections / SHARE) || this.#peers.size >= connections))
        return void socket.destroy();
      this.#peers.set(socket, peer);
      socket.once("close", () => this.#peers.delete(socket));
    } catch {
      socket.destroy();
    }
  }

  /** Accepts nothing more, lets calls end, and stops those that take too long. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    this.#server.closeIdleConnections();
    const { graceMs = GRACE_MS } = this.#options;
    const late = setTimeout(() => this.#stopped.abort(new Error("the daemon stops")), graceMs);
    const gone = setTimeout(() => [...this.#peers.keys()].forEach((socket) => socket.destroy()), graceMs + LEAVE_MS);
    await closed;
    clearTimeout(late);
    clearTimeout(gone);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { socket } = request;
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    const reply = new Reply(response, request.headers.accept === LINES);
    const gone = new AbortController();
    const leave = (): void => gone.abort(new Error("the caller went away"));
    socket.once("close", leave);
    const signal = AbortSignal.any([gone.signal, this.#stopped.signal]);
    const peer = this.#peers.get(socket);
    if (peer === undefined) return void socket.destroy();
    let isCounted = false;
    const call = { name: "", body: {} as Body, peer, startedAt: performance.now() };
    try {
      isCounted = this.#begin(peer);
      if (request.method === "GET" && !isOfPage(request) && (await this.#describe(request, response, peer))) return;
      const { name, body } = Object.assign(call, await this.#read(request));
      if (isLasting(name)) isCounted = this.#end(peer);
      // From here on something may have been begun, which the caller sees.
      reply.open();
      const told = {
        signal,
        onWarning: (message: string) => reply.warn(message),
        onProgress: (progress: unknown) => reply.line({ progress }),
        onItem: (item: unknown) => reply.item(item),
      };
      const answered = await answer(this.#daemon, peer, { name, body, told });
      logCall(this.#options.log, call, null);
      reply.end(answered);
    } catch (error) {
      const failed = toCairnError(error);
      if (failed.code === "internal")
        this.#options.log(`${call.name}: ${failed.stack ?? failed.message}`, { priority: "error" });
      logCall(this.#options.log, call, failed);
      // What is left of a body that was refused is dropped, for as long as a request may take.
      if (!request.complete) {
        response.shouldKeepAlive = false;
        request.resume();
      }
      reply.fail(failed);
    } finally {
      if (isCounted) this.#end(peer);
      socket.off("close", leave);
    }
  }

  /** Answers what is only read, by `GET`; false for anything else. */
  async #describe({ url }: IncomingMessage, response: ServerResponse, peer: Peer): Promise<boolean> {
    if (url === DOCUMENT) {
      const { openApi } = await import("./openapi.ts");
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(openApi()));
      return true;
    }
    if (url === HEALTH || url === READY) {
      const { status, body } = url === READY ? readinessOf(this.#daemon) : healthOf(this.#daemon, peer);
      response.writeHead(status, { "content-type": "application/json" }).end(`${JSON.stringify(body)}\n`);
      return true;
    }
    if (url !== METRICS) return false;
    const { metricsOf } = await import("./metrics.ts");
    const text = metricsOf(this.#daemon.status(peer));
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }).end(text);
    return true;
  }

  #begin(peer: Peer): true {
    const { uid } = peer;
    const all = [...this.#calls.values()].reduce((sum, each) => sum + each, 0);
    const own = this.#calls.get(uid) ?? 0;
    const { calls } = this.#options;
    if (isOperator(peer) ? all >= calls + FOR_ROOT : all >= calls || own >= Math.ceil(calls / SHARE))
      throw new CairnError("busy", `${own} calls of yours and ${all} in all are under way`, {
        hint: "try again when one of them has ended",
      });
    this.#calls.set(uid, own + 1);
    return true;
  }

  #end({ uid }: Peer): false {
    const left = (this.#calls.get(uid) ?? 1) - 1;
    if (left > 0) this.#calls.set(uid, left);
    else this.#calls.delete(uid);
    return false;
  }

  async #read(request: IncomingMessage): Promise<{ name: string; body: Body }> {
    const { method, url = "" } = request;
    if (isOfPage(request)) throw new CairnError("permission", "this socket is not for web pages");
    const [, name] = /^\/v1\/([A-Za-z]{1,40})$/.exec(url) ?? [];
    if (name === undefined) throw new CairnError("not_found", "calls are POST /v1/<verb>");
    if (method !== "POST") throw new CairnError("usage", `${method} is not known here; calls are POST /v1/<verb>`);
    const pieces: Buffer[] = [];
    let bytes = 0;
    for await (const piece of request as AsyncIterable<Buffer>) {
      bytes += piece.length;
      if (bytes > this.#options.requestBytes)
        throw new CairnError("usage", `a request has at most ${this.#options.requestBytes} bytes`);
      pieces.push(piece);
    }
    return { name, body: parsed(Buffer.concat(pieces).toString("utf8")) };
  }
}

/** True for a request that a web page makes, which can reach a program that forwards to this socket. */
function isOfPage({ headers }: IncomingMessage): boolean {
  return headers.origin !== undefined || headers["sec-fetch-site"] !== undefined;
}

function parsed(text: string): Body {
  let value: unknown;
  try {
    value = text === "" ? {} : fromWire(text);
  } catch {
    throw new CairnError("usage", "the request is not JSON");
  }
  const { options } = (value ?? {}) as { options?: unknown };
  if (isObject(value) && (options === undefined || isObject(options))) return value;
  throw new CairnError("usage", "the request is to be a JSON object, and its options too");
}

function isObject(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function requireGroup(name: string): number {
  const gid = groupId(name);
  if (gid !== null) return gid;
  throw new CairnError("not_found", `there is no group ${JSON.stringify(name)} on this machine`, {
    hint: `make it: groupadd --system ${name}; or leave socket.group out of the configuration`,
  });
}

/** An answer in one object, or in lines as it comes. */
class Reply {
  readonly #response: ServerResponse;
  readonly #inLines: boolean;
  readonly #warnings: string[] = [];

  constructor(response: ServerResponse, inLines: boolean) {
    this.#response = response;
    this.#inLines = inLines;
    response.setHeader("x-content-type-options", "nosniff");
  }

  /** A line for callers that take lines; others miss it. */
  line(value: unknown): void {
    if (!this.#inLines || this.#response.destroyed) return;
    this.open();
    if (this.#response.writableLength > MAX_WAITING) return void this.#response.destroy();
    this.#response.write(`${toWire(value)}\n`);
  }

  warn(message: string): void {
    if (this.#inLines) this.line({ warning: message });
    else this.#warnings.push(message);
  }

  /** Resolves when the reader has taken most of what was written; one that takes nothing for long loses the connection. */
  async item(item: unknown): Promise<void> {
    const response = this.#response;
    if (!this.#inLines)
      throw new CairnError("usage", "this call gives its answer in pieces", { hint: `ask with Accept: ${LINES}` });
    if (response.destroyed) throw new CairnError("interrupted", "the caller went away");
    const wire = item instanceof Uint8Array ? `{"$b64":"${Buffer.from(item).toString("base64")}"}` : toWire(item);
    this.open();
    if (response.write(`{"item":${wire}}\n`)) return;
    const silence = setTimeout(() => response.destroy(), SILENCE_MS);
    await new Promise<void>((done) => {
      response.once("drain", done);
      response.once("close", done);
    });
    clearTimeout(silence);
  }

  /** The head of an answer in lines goes out: the call was taken. */
  open(): void {
    if (!this.#inLines || this.#response.destroyed || this.#response.headersSent) return;
    this.#response.writeHead(200, { "content-type": LINES });
    this.#response.flushHeaders();
  }

  end(answered: unknown): void {
    this.#finish(200, { ok: true, data: answered ?? null, error: null });
  }

  fail(error: CairnError): void {
    this.#finish(ERROR_TABLE[error.code].http, { ok: false, data: null, error: describeError(error) });
  }

  #finish(status: number, members: object): void {
    const response = this.#response;
    if (response.destroyed) return;
    const text = `${toWire({ schema_version: VERSION, ...members, warnings: this.#warnings })}\n`;
    if (!response.headersSent)
      response.writeHead(status, {
        "content-type": this.#inLines ? LINES : "application/json",
        "content-length": Buffer.byteLength(text),
      });
    response.end(text);
  }
}
