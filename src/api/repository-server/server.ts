import { createServer as createPlain, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createSecure, Server as SecureServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import { CairnError, ERROR_TABLE, toCairnError } from "../../errors.ts";
import { discardRest, listen } from "../listen.ts";
import { mayBePage } from "../request.ts";
import type { Credentials } from "./credentials.ts";
import { refusal, RequestHandler, type Reply, type ServedFolder } from "./requests.ts";
import type { TlsFiles } from "../tls-files.ts";

export interface RepositoryServerOptions extends ServedFolder {
  host: string;
  /** 0: any free port. */
  port: number;
  /** Absent: without TLS. */
  tls?: TlsFiles;
  /** Null: requests need no login. */
  credentials: Credentials | null;
  /** The most connections. Default 200. */
  maximumConnections?: number;
  /** Milliseconds for a request's head. Default 20 s. */
  headMs?: number;
  /** Milliseconds without traffic after which a connection is ended. Default two minutes. */
  silenceMs?: number;
  /** Milliseconds between two checks of the files of `tls`. Default a minute. */
  renewMs?: number;
  /** Milliseconds that `stop` gives to running requests. Default 10 s. */
  graceMs?: number;
  /** Receives lines for the operator about failures of the server, not of requests. */
  onProblem: (message: string) => void;
}

const MAX_HEAD_BYTES = 16 << 10;
const MAX_PIPELINED = 8;
/** Milliseconds between two lines for the operator. */
const TELL_EVERY_MS = 1000;

/** A server of restic's REST protocol on a folder. Listens once `start` is done. */
export class RepositoryServer {
  readonly #options: RepositoryServerOptions;
  readonly #server: Server;
  readonly #handler: RequestHandler;
  readonly #sockets = new Set<Socket>();
  readonly #underWay = new WeakMap<Socket, number>();
  #renewal: NodeJS.Timeout | undefined;
  #stopping: Promise<void> | undefined;
  #toldAt = 0;
  #untold = 0;

  private constructor(options: RepositoryServerOptions) {
    this.#options = options;
    this.#handler = new RequestHandler(options);
    const limits = {
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: options.headMs ?? 20_000,
      connectionsCheckingInterval: Math.min(5000, options.headMs ?? 5000),
      // The upload of a large file over a slow line has no time limit while bytes arrive.
      requestTimeout: 0,
      keepAliveTimeout: 60_000,
      noDelay: true,
    };
    const { tls } = options;
    this.#server =
      tls === undefined
        ? createPlain(limits)
        : createSecure({ ...limits, ...tls.read(), minVersion: "TLSv1.2", handshakeTimeout: 20_000 });
    this.#server.maxHeadersCount = 100;
    this.#server.maxConnections = options.maximumConnections ?? 200;
    this.#server.setTimeout(options.silenceMs ?? 120_000, (socket) => socket.destroy());
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("request", (request, response) => void this.#serve(request, response, false));
    this.#server.on("checkContinue", (request, response) => void this.#serve(request, response, true));
    this.#server.on("clientError", (error, socket) => refuseNoise(error, socket as Socket));
  }

  /** Listens. Throws `usage` for an invalid certificate or key, `busy` if the port is taken. */
  static async start(options: RepositoryServerOptions): Promise<RepositoryServer> {
    const server = new RepositoryServer(options);
    await server.#listen();
    const { tls, renewMs = 60_000 } = options;
    if (tls !== undefined) server.#renewal = setInterval(() => server.#renew(tls), renewMs).unref();
    return server;
  }

  /** The address for clients, for example `http://127.0.0.1:8000/`. */
  get url(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    const host = family === "IPv6" ? `[${address}]` : address;
    return `${this.#options.tls === undefined ? "http" : "https"}://${host}:${port}/`;
  }

  /** Accepts no more requests, lets requests end, and cuts slow ones off. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    clearInterval(this.#renewal);
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    this.#server.closeIdleConnections();
    const late = setTimeout(() => {
      // Includes connections without a request so far.
      for (const socket of this.#sockets) socket.destroy();
    }, this.#options.graceMs ?? 10_000);
    await closed;
    clearTimeout(late);
  }

  #renew(tls: TlsFiles): void {
    try {
      const pair = tls.readChanged();
      if (pair !== null && this.#server instanceof SecureServer)
        this.#server.setSecureContext({ ...pair, minVersion: "TLSv1.2" });
    } catch (error) {
      this.#tell(`the old certificate stays in use: ${(error as Error).message}`);
    }
  }

  async #listen(): Promise<void> {
    const { host, port } = this.#options;
    await listen(this.#server, { host, port }, (error) => this.#tell(`the server: ${error.message}`));
  }

  async #serve(request: IncomingMessage, response: ServerResponse, wantsContinue: boolean): Promise<void> {
    const { socket } = request;
    const underWay = (this.#underWay.get(socket) ?? 0) + 1;
    this.#underWay.set(socket, underWay);
    if (underWay > MAX_PIPELINED) return void socket.destroy();
    // The code that reads and writes these streams notices their ends.
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    let reply: Reply | undefined;
    try {
      let awaited = wantsContinue;
      reply = await this.#reply(request, () => {
        if (awaited) response.writeContinue();
        awaited = false;
      });
      // A client that did not get `100 Continue` may send the body or not, so the next bytes are ambiguous.
      if (awaited || this.#stopping !== undefined) response.shouldKeepAlive = false;
      await send(request, response, reply);
    } catch (error) {
      // The head was sent, so cutting the connection is the only way to report the failure.
      if (!isGone(request, error)) this.#tell(describe(request, error));
      socket.destroy();
    } finally {
      await reply?.done?.().catch(() => undefined);
      this.#underWay.set(socket, (this.#underWay.get(socket) ?? 1) - 1);
    }
    discardRest(request);
  }

  async #reply(request: IncomingMessage, proceed: () => void): Promise<Reply> {
    try {
      if (mayBePage(request, this.#options.credentials !== null))
        return refusal(403, "this server accepts no requests of web pages");
      let user: string | null = null;
      if (this.#options.credentials !== null) {
        const login = await this.#options.credentials.login(request.headers.authorization);
        if ("refused" in login) return login.refused === "busy" ? tooBusy() : unknownUser();
        user = login.user;
      }
      return await this.#handler.answer(request, user, proceed);
    } catch (error) {
      const wrapped = toCairnError(error);
      const { http } = ERROR_TABLE[wrapped.code];
      if (http < 500 && error instanceof CairnError) return refusal(http, wrapped.message);
      if (isGone(request, error)) return refusal(400, "the request was cut short");
      this.#tell(describe(request, error));
      return refusal(
        wrapped.code === "no_space" ? 507 : 500,
        wrapped.code === "no_space" ? "the disk is full" : "internal error: see the server's log",
      );
    }
  }

  /** Reports at most one line a second: a failure of every request must not fill the disk. */
  #tell(message: string): void {
    const now = performance.now();
    if (now - this.#toldAt < TELL_EVERY_MS) {
      this.#untold++;
      return;
    }
    this.#options.onProblem(this.#untold === 0 ? message : `${message} (${this.#untold} more before it were left out)`);
    this.#toldAt = now;
    this.#untold = 0;
  }
}

function unknownUser(): Reply {
  const headers = { "www-authenticate": 'Basic realm="repositories", charset="UTF-8"' };
  return { status: 401, headers, text: "unknown user or wrong password" };
}

function tooBusy(): Reply {
  return { status: 503, headers: { "retry-after": 1 }, text: "too many clients are logging in" };
}

async function send(request: IncomingMessage, response: ServerResponse, reply: Reply): Promise<void> {
  if (response.destroyed) return;
  const text = reply.text === undefined ? "" : `${reply.text}\n`;
  const headers: Record<string, string | number> = { "x-content-type-options": "nosniff", ...reply.headers };
  if (reply.body === undefined && headers["content-length"] === undefined) {
    headers["content-length"] = Buffer.byteLength(text);
    if (text !== "") headers["content-type"] = "text/plain; charset=utf-8";
  }
  response.writeHead(reply.status, headers);
  if (request.method === "HEAD") response.end();
  else if (reply.body === undefined) response.end(text);
  else {
    await reply.body(response);
    response.end();
  }
}

/** Answers bytes that are not HTTP with one line. */
function refuseNoise(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const status = error.code === "HPE_HEADER_OVERFLOW" ? "431 Request Header Fields Too Large" : "400 Bad Request";
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

function isGone(request: IncomingMessage, error: unknown): boolean {
  if (request.socket.destroyed) return true;
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE" || code === "interrupted" || code === "ERR_STREAM_PREMATURE_CLOSE";
}

function describe(request: IncomingMessage, error: unknown): string {
  const path = (request.url ?? "")
    .split("?")[0]
    ?.replaceAll(/[^\x21-\x7e]/g, "?")
    .slice(0, 200);
  return `${request.method ?? ""} ${path}: ${(error as Error).message}`;
}
