import { createWriteStream } from "node:fs";
import net, { type AddressInfo, type Socket } from "node:net";
import { RequestReader } from "./request-reader.ts";

/**
 * `node line-proxy.ts HOST TARGET-PORT DELAY-MS LOG http|- RATE`: passes connections on to a port of this machine, each piece
 * of data DELAY-MS late and all of a direction together at RATE bytes a second (0: at any), and writes a line for each HTTP
 * request to LOG. Prints its port; ends with its standard input.
 * A process of its own, because whoever measures waits without an event loop.
 */

const [host = "127.0.0.1", target = "0", delay = "0", log = "/dev/null", protocol = "-", rate = "0"] =
  process.argv.slice(2);
const delayMs = Number(delay);
const bytesPerMs = Number(rate) / 1000;
const MOST_WAITING = 16 << 20;

const requests = createWriteStream(log, { flags: "a" });

/** When a direction of the line has sent what it was given. */
interface Direction {
  freeAt: number;
}
const [up, down]: [Direction, Direction] = [{ freeAt: 0 }, { freeAt: 0 }];

const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
  const upstream = net.connect({ port: Number(target), host: "127.0.0.1", allowHalfOpen: true, noDelay: true });
  const reader = protocol === "http" ? new RequestReader((line) => requests.write(`${line}\n`)) : null;
  // Whoever connects over a real line waits for a round trip before it can send.
  const openAt = performance.now() + 2 * delayMs;
  pass(client, upstream, { openAt, direction: up, look: (piece) => reader?.take(piece) });
  pass(upstream, client, { openAt, direction: down });
});

interface Passing {
  openAt: number;
  direction: Direction;
  look?: (piece: Buffer) => void;
}

/** One direction of a connection, in order; the source waits when too much is on its way. */
function pass(from: Socket, to: Socket, options: Passing): void {
  const queue: { at: number; piece: Buffer | null }[] = [];
  let waiting = 0;
  let timer: NodeJS.Timeout | null = null;
  const release = (): void => {
    timer = null;
    for (let first = queue[0]; first !== undefined; first = queue[0]) {
      const left = first.at - performance.now();
      if (left > 0) {
        timer = setTimeout(release, Math.ceil(left));
        return;
      }
      queue.shift();
      if (first.piece === null) to.end();
      else to.write(first.piece);
      waiting -= first.piece?.length ?? 0;
    }
    if (from.isPaused() && to.writableLength < MOST_WAITING) from.resume();
  };
  const put = (piece: Buffer | null): void => {
    let at = Math.max(performance.now(), options.openAt) + delayMs;
    if (bytesPerMs > 0) {
      at = Math.max(at, options.direction.freeAt) + (piece?.length ?? 0) / bytesPerMs;
      options.direction.freeAt = at;
    }
    queue.push({ at, piece });
    waiting += piece?.length ?? 0;
    if (waiting + to.writableLength > MOST_WAITING) from.pause();
    if (timer === null) release();
  };
  from.on("data", (piece: Buffer) => {
    options.look?.(piece);
    put(piece);
  });
  from.on("end", () => put(null));
  to.on("drain", release);
  for (const socket of [from, to]) socket.on("error", () => void [from.destroy(), to.destroy()]);
}

server.listen(0, host, () => console.log((server.address() as AddressInfo).port));
process.stdin.resume().on("end", () => process.exit());
