import { createHash, timingSafeEqual } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { type Address, discardRest, listen, listenAlone } from "../listen.ts";
import { mayBePage } from "../request.ts";
import { type Answer, answerTo, failed } from "./answers.ts";
import { type FileAnswer, PACKS_ONLY, type RouteOptions, Routes } from "./routes.ts";

export interface ContextServerOptions extends RouteOptions {
  address: Address;
  /** Null: requests need no key. */
  apiKey: string | null;
  version: string;
  /** Time that `stop` gives to requests under way. Default 10 s. */
  graceMs?: number;
}

const MAX_HEAD_BYTES = 16 << 10;
const HEAD_MS = 20_000;
/** Milliseconds without traffic after which a connection is ended. */
const SILENCE_MS = 120_000;
const CONNECTIONS = 200;

/** Serves a context store to OpenViking's clients. Listens once `start` is done. */
export class ContextServer {
  readonly #options: ContextServerOptions;
  readonly #server: Server;
  readonly #routes: Routes;
  readonly #sockets = new Set<Socket>();
  readonly #key: Buffer | null;

  private constructor(options: ContextServerOptions) {
    this.#options = options;
    this.#key = options.apiKey === null ? null : digest(options.apiKey);
    this.#routes = new Routes(options);
    // The upload of a large file over a slow line has no time limit while bytes arrive.
    this.#server = createServer({ maxHeaderSize: MAX_HEAD_BYTES, headersTimeout: HEAD_MS, requestTimeout: 0 });
    this.#server.maxConnections = CONNECTIONS;
    this.#server.setTimeout(SILENCE_MS, (socket) => socket.destroy());
    this.#server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    this.#server.on("request", (request, response) => void this.#serve(request, response));
  }

  /** Listens. Throws `busy` if the address is taken. */
  static async start(options: ContextServerOptions): Promise<ContextServer> {
    const server = new ContextServer(options);
    const onProblem = (error: Error): void => options.onProblem(`the server: ${error.message}`);
    try {
      const { address } = options;
      if ("path" in address) await listenAlone(server.#server, address.path, onProblem);
      else await listen(server.#server, address, onProblem);
    } catch (error) {
      await server.#routes[Symbol.asyncDispose]();
      throw error;
    }
    return server;
  }

  get url(): string {
    const { address } = this.#options;
    if ("path" in address) return `unix:${address.path}`;
    const { address: host, family, port } = this.#server.address() as AddressInfo;
    return `http://${family === "IPv6" ? `[${host}]` : host}:${port}`;
  }

  /** Accepts no more requests, lets requests end, and cuts slow ones off. */
  async stop(): Promise<void> {
    const closed = new Promise<void>((done) => this.#server.close(() => done()));
    this.#server.closeIdleConnections();
    const late = setTimeout(
      () => [...this.#sockets].forEach((socket) => socket.destroy()),
      this.#options.graceMs ?? 10_000,
    );
    await closed;
    clearTimeout(late);
    await this.#routes[Symbol.asyncDispose]();
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    const gone = new AbortController();
    response.once("close", () => gone.abort(new Error("the client went away")));
    const { socket } = request;
    // Once the request has arrived completely, the server causes the silence.
    request.once("end", () => {
      if (!response.writableEnded) socket.setTimeout(0);
    });
    try {
      const answer = await this.#answer(request, gone.signal);
      socket.setTimeout(SILENCE_MS);
      if ("file" in answer) await sendFile(response, answer);
      else send(response, answer);
      discardRest(request);
    } catch (error) {
      // The head was sent, so cutting the connection is the only way to report the failure.
      if (!gone.signal.aborted) this.#options.onProblem(`${request.url}: ${(error as Error).message}`);
      request.socket.destroy();
    }
  }

  async #answer(request: IncomingMessage, signal: AbortSignal): Promise<Answer | FileAnswer> {
    try {
      const path = (request.url ?? "/").split("?", 1)[0]!;
      if (mayBePage(request, this.#key !== null))
        return failed(403, "PERMISSION_DENIED", "this server accepts no requests of web pages");
      if (path === "/health" || path === "/ready") return this.#health(path);
      if (!this.#isAllowed(request))
        return failed(401, "UNAUTHENTICATED", "an API key is required, in X-API-Key or as a bearer token");
      const route = this.#routes.find(path);
      if (route === null) return this.#notServed(`${request.method} ${path}`);
      if (request.method !== route.method) return failed(405, "UNKNOWN", "Method Not Allowed");
      return await route.run(request, signal);
    } catch (error) {
      const answer = answerTo(error);
      if (answer.problem !== undefined && !signal.aborted)
        this.#options.onProblem(`${request.method} ${request.url}: ${answer.problem.message}`);
      return answer;
    }
  }

  #health(path: string): Answer {
    if (path === "/ready") return { status: 200, body: { status: "ready", checks: {} } };
    const auth = this.#key === null ? "dev" : "api_key";
    const { version } = this.#options;
    return { status: 200, body: { status: "ok", healthy: true, version, auth_mode: auth, serves: PACKS_ONLY } };
  }

  /** Answers 501, since clients take 404 for a missing entry, and drop the entry that they wanted to store. */
  #notServed(what: string): Answer {
    const message = `${what.slice(0, 200)} is not served here: this is Cairn's server of context packs, packs only, no OpenViking with sessions and search`;
    return failed(501, "UNIMPLEMENTED", message, { serves: this.#routes.served });
  }

  #isAllowed({ headers }: IncomingMessage): boolean {
    if (this.#key === null) return true;
    const bearer = /^Bearer +(.+)$/i.exec(headers.authorization ?? "")?.[1];
    const given = headers["x-api-key"] ?? bearer;
    return typeof given === "string" && timingSafeEqual(digest(given), this.#key);
  }
}

/** Hashes a key, so that all compared values have one length. */
function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

function send(response: ServerResponse, { status, body }: Answer): void {
  if (response.destroyed) return;
  const text = Buffer.from(JSON.stringify(body));
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": text.length,
    "x-content-type-options": "nosniff",
  });
  response.end(text);
}

async function sendFile(response: ServerResponse, { file, name, size }: FileAnswer): Promise<void> {
  const plain = name.replaceAll(/[^\w.-]/g, "_");
  response.writeHead(200, {
    "content-type": "application/zip",
    "content-length": size,
    "content-disposition": `attachment; filename="${plain}"; filename*=UTF-8''${encodeURIComponent(name)}`,
  });
  await pipeline(file, response);
}
