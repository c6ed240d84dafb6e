import { chmodSync, chownSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { Socket } from "node:net";
import { dirname } from "node:path";
import type { Daemon } from "../../daemon/daemon.ts";
import { isOperator, type Peer } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { groupId } from "../../fs/users.ts";
import { HTTP_LIMITS, listenAlone } from "../listen.ts";
import { callerOf } from "./caller.ts";
import { endServer, FOR_ROOT, type HandlerOptions, RequestHandler, SHARE } from "./handler.ts";
import { peerOf } from "./peer-credentials.ts";

export interface SocketOptions extends HandlerOptions {
  path: string;
  /** Members of this group may connect, too; null: only the daemon's user. */
  group: string | null;
  connections: number;
  /** Milliseconds that `stop` gives to running calls. Default 10 000. */
  graceMs?: number;
}

/** The daemon's HTTP on a Unix socket: the kernel names the caller. */
export class SocketServer {
  readonly #daemon: Daemon;
  readonly #handler: RequestHandler;
  readonly #options: SocketOptions;
  readonly #server: Server;
  /** The user at the other end of each connection. */
  readonly #peers = new Map<Socket, Peer>();

  private constructor(daemon: Daemon, options: SocketOptions) {
    this.#daemon = daemon;
    this.#handler = new RequestHandler(daemon, options);
    this.#options = options;
    this.#server = createServer(HTTP_LIMITS);
    this.#server.maxConnections = options.connections + FOR_ROOT;
    this.#server.on("connection", (socket: Socket) => this.#welcome(socket));
    this.#server.on("clientError", (error, socket) =>
      this.#handler.refuse(error, socket, `uid ${this.#peers.get(socket as Socket)?.uid}`),
    );
    this.#server.on("request", (request, response) => {
      const peer = this.#peers.get(request.socket);
      if (peer === undefined) request.socket.destroy();
      else void this.#handler.serve(request, response, () => callerOf(request, this.#daemon, peer));
    });
  }

  /** Listens. Removes the socket of a killed daemon. Throws `busy` if another program answers on it. */
  static async start(daemon: Daemon, options: SocketOptions): Promise<SocketServer> {
    const server = new SocketServer(daemon, options);
    const { path, group } = options;
    // Users whom the socket admits must reach it, even if root has a strict umask.
    if (durableMkdir(dirname(path), { mode: 0o755 })) chmodSync(dirname(path), 0o755);
    await listenAlone(server.#server, path, (error) => options.log(`the socket: ${error.message}`));
    if (group !== null) {
      chownSync(path, process.geteuid?.() ?? 0, requireGroup(group));
      chmodSync(path, 0o660);
    }
    return server;
  }

  /** Accepts a connection, unless a user other than root and the daemon's own has its share of connections. */
  #welcome(socket: Socket): void {
    try {
      const peer = peerOf(socket);
      const own = [...this.#peers.values()].filter(({ uid }) => uid === peer.uid).length;
      const { connections } = this.#options;
      if (!isOperator(peer) && (own >= Math.ceil(connections / SHARE) || this.#peers.size >= connections)) {
        this.#handler.refusals.ofConnection(
          `uid ${peer.uid}`,
          `it has ${own} of ${this.#peers.size} connections already`,
        );
        return void socket.destroy();
      }
      this.#peers.set(socket, peer);
      socket.once("close", () => this.#peers.delete(socket));
    } catch {
      socket.destroy();
    }
  }

  stop(): Promise<void> {
    return endServer(this.#server, this.#handler, {
      sockets: () => this.#peers.keys(),
      graceMs: this.#options.graceMs,
    });
  }
}

function requireGroup(name: string): number {
  const gid = groupId(name);
  if (gid !== null) return gid;
  throw new CairnError("not_found", `there is no group ${JSON.stringify(name)} on this machine`, {
    hint: `make it: groupadd --system ${name}; or leave socket.group out of the configuration`,
  });
}
