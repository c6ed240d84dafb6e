import type { IncomingMessage, Server } from "node:http";
import type { Socket } from "node:net";

/** The most connections without a valid token, code or ticket. */
const MOST = 64;
/** Milliseconds in which a request without a token must arrive completely. */
const REQUEST_MS = 5_000;

/** Connections that have shown no valid secret yet, limited so that no tab waits for them. */
export class Strangers {
  /** The oldest first. */
  readonly #sockets = new Set<Socket>();

  /** Counts each new connection of `server`, and cuts the oldest one if there are too many. */
  watch(server: Server): void {
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
      const [oldest] = this.#sockets;
      if (this.#sockets.size > MOST) this.#cut(oldest!);
    });
  }

  /** Stops to count the connection of a request that has shown a valid secret. */
  trust({ socket }: IncomingMessage): void {
    this.#sockets.delete(socket);
  }

  /** Cuts the connection of a request whose body is not there in time. */
  hurry(request: IncomingMessage): void {
    if (request.complete || !this.#sockets.has(request.socket)) return;
    const late = setTimeout(() => this.#cut(request.socket), REQUEST_MS);
    for (const event of ["end", "close"]) request.once(event, () => clearTimeout(late));
  }

  #cut(socket: Socket): void {
    this.#sockets.delete(socket);
    socket.destroy();
  }
}
