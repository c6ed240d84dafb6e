import { createServer as createPlain, type IncomingMessage, type Server } from "node:http";
import { createServer as createSecure, Server as SecureServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { DaemonConfig } from "../../daemon/config.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import { parseListen } from "../../daemon/listen-address.ts";
import { CairnError } from "../../errors.ts";
import { HTTP_LIMITS, listen } from "../listen.ts";
import { TlsFiles } from "../tls-files.ts";
import { type Admission, callerOf } from "./caller.ts";
import { endServer, type HandlerOptions, RequestHandler, SHARE } from "./handler.ts";

export interface TcpOptions extends HandlerOptions {
  /** Most connections. If all are taken, the oldest without a token is closed. */
  connections: number;
}

const HANDSHAKE_MS = 10_000;
const LEAST_VERSION = "TLSv1.2";

/**
 * The daemon's HTTP on TCP: tokens name the caller. Separate limits keep strangers from using up those of the socket.
 */
export class TcpServer {
  readonly #daemon: Daemon;
  readonly #options: TcpOptions;
  readonly #handler: RequestHandler;
  readonly #server: Server;
  /** Connections by remote address, oldest first, each with the token that was used on it. */
  readonly #connections = new Map<string, { socket: Socket; token: string | null }>();

  private constructor(daemon: Daemon, options: TcpOptions, tls: TlsFiles | null) {
    this.#daemon = daemon;
    this.#options = options;
    this.#handler = new RequestHandler(daemon, options);
    this.#server =
      tls === null
        ? createPlain(HTTP_LIMITS)
        : createSecure({ ...HTTP_LIMITS, ...tls.read(), minVersion: LEAST_VERSION, handshakeTimeout: HANDSHAKE_MS });
    this.#server.on("connection", (socket: Socket) => this.#welcome(socket));
    this.#server.on("clientError", (error, socket) =>
      this.#handler.refuse(error, socket, (socket as Socket).remoteAddress ?? "a client that has gone"),
    );
    this.#server.on("request", (request, response) => {
      void this.#handler.serve(request, response, () => this.#admit(request));
    });
  }

  /** Listens. Throws `usage` for an invalid address, certificate or key, `busy` if the port is taken. */
  static async start(daemon: Daemon, options: TcpOptions): Promise<TcpServer | null> {
    const { http } = daemon.config;
    if (http.listen === null) return null;
    const server = new TcpServer(daemon, options, tlsOf(http));
    await listen(server.#server, parseListen(http.listen, "http.listen"), (error) =>
      options.log(`${http.listen}: ${error.message}`),
    );
    daemon.onReload((config) => server.#readAgain(config.http));
    return server;
  }

  get url(): string {
    const { address, family, port } = this.#server.address() as AddressInfo;
    const host = family === "IPv6" ? `[${address}]` : address;
    return `${this.#server instanceof SecureServer ? "https" : "http"}://${host}:${port}`;
  }

  stop(): Promise<void> {
    return endServer(this.#server, this.#handler, {
      sockets: () => [...this.#connections.values()].map(({ socket }) => socket),
    });
  }

  /** Loads the present certificate. Throws `usage` if it is invalid. */
  #readAgain(http: DaemonConfig["http"]): void {
    const tls = tlsOf(http);
    if (tls !== null && this.#server instanceof SecureServer)
      this.#server.setSecureContext({ ...tls.read(), minVersion: LEAST_VERSION });
  }

  #welcome(socket: Socket): void {
    const key = keyOf(socket);
    if (this.#connections.size >= this.#options.connections) {
      const stranger = [...this.#connections].find(([, { token }]) => token === null);
      if (stranger === undefined) return void socket.destroy();
      this.#connections.delete(stranger[0]);
      stranger[1].socket.destroy();
    }
    const connection = { socket, token: null };
    this.#connections.set(key, connection);
    socket.once("close", () => {
      if (this.#connections.get(key) === connection) this.#connections.delete(key);
    });
  }

  /** Returns the caller, refused as `busy` if the token has its share of connections. Throws `NotAdmitted`. */
  #admit(request: IncomingMessage): Admission {
    const admission = callerOf(request, this.#daemon, null);
    const { token } = admission.caller;
    const connection = this.#connections.get(keyOf(request.socket));
    if (connection === undefined || connection.token === token) return admission;
    const own = [...this.#connections.values()].filter((each) => each.token === token).length;
    if (own >= Math.ceil(this.#options.connections / SHARE))
      return {
        ...admission,
        refused: new CairnError("busy", `this token has ${own} connections already`, {
          hint: "use those again, or close some",
        }),
      };
    connection.token = token;
    return admission;
  }
}

function tlsOf({ certificate, key }: DaemonConfig["http"]): TlsFiles | null {
  return certificate === null || key === null ? null : new TlsFiles(certificate, key);
}

/** Names a connection, also if TLS has wrapped its socket in another. */
function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
