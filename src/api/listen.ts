import { lstatSync, rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import type { Server } from "node:net";
import { connect, createServer } from "node:net";
import { CairnError, toCairnError } from "../errors.ts";
import { printablePath } from "../fs/paths/safe-path.ts";

/** A TCP address, or the path of a Unix socket. */
export type Address = { host: string; port: number } | { path: string };

/** Limits on the waiting that clients can cause; times are milliseconds. */
export const HTTP_LIMITS = {
  maxHeaderSize: 16 << 10,
  headersTimeout: 20_000,
  requestTimeout: 20_000,
  connectionsCheckingInterval: 5_000,
  keepAliveTimeout: 30_000,
};

/**
 * Listens; later errors of the server go to `onProblem`. Throws `busy` if the address is taken, `usage` if it is not an
 * address of this machine.
 */
export async function listen(server: Server, address: Address, onProblem: (error: Error) => void): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject);
  server.listen(address, resolve);
  try {
    await promise;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if ("path" in address) throw toCairnError(error, `listen on ${printablePath(address.path)}`);
    const { host, port } = address;
    if (code === "EADDRINUSE")
      throw new CairnError("busy", `another program listens on ${host}:${port}`, { cause: error });
    if (code === "EADDRNOTAVAIL" || code === "ENOTFOUND" || code === "EAI_AGAIN")
      throw new CairnError("usage", `${host} is not an address of this machine`, { cause: error });
    throw toCairnError(error, `listen on ${host}:${port}`);
  }
  server.off("error", reject);
  server.on("error", onProblem);
}

/** Listens on an address and stops at once. Throws as `listen()`, but not if another program listens there now. */
export async function tryToListen(address: Address): Promise<void> {
  const server = createServer();
  try {
    await listen(server, address, () => undefined);
    server.close();
  } catch (error) {
    if (toCairnError(error).code !== "busy") throw error;
  }
}

/**
 * Listens on a Unix socket to which only its user may connect. Removes the socket of a killed program. Throws `busy` if
 * another program answers on it.
 */
export async function listenAlone(server: Server, path: string, onProblem: (error: Error) => void): Promise<void> {
  if (await isAnswered(path)) throw new CairnError("busy", `another program listens on ${printablePath(path)}`);
  const left = lstatSync(path, { throwIfNoEntry: false });
  if (left?.isSocket() === false)
    throw new CairnError("already_exists", `${printablePath(path)} exists and is not a socket`, {
      hint: "name another place for the socket",
    });
  rmSync(path, { force: true });
  // No other user may connect before the permissions are set.
  const mask = process.umask(0o177);
  try {
    await listen(server, { path }, onProblem);
  } finally {
    process.umask(mask);
  }
}

function isAnswered(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Most bytes of an unwanted body that are read, so that the client gets to see the answer. */
const MAX_UNWANTED_BYTES = 64 << 20;

/** Reads the rest of a refused body, up to a limit; beyond it closes the connection. */
export function discardRest(request: IncomingMessage): void {
  const { socket } = request;
  if (request.complete || socket.destroyed) return;
  let unwanted = 0;
  request.on("data", (chunk: Buffer) => {
    unwanted += chunk.length;
    if (unwanted > MAX_UNWANTED_BYTES) socket.destroy();
  });
  request.resume();
}
