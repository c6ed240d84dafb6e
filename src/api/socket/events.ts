import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { setImmediate } from "node:timers/promises";
import { EVENT_TYPES, type EventType } from "../../contract/service.ts";
import type { Daemon } from "../../daemon/daemon.ts";
import { type Caller, isOperator, keyOf } from "../../daemon/state/peer.ts";
import type { Noted } from "../../daemon/records/events.ts";
import { CairnError } from "../../errors.ts";

/** Streams of one user or token, but for operators. */
const MOST_STREAMS = 32;
/** Bytes that may wait for a reader who listens. */
const MAX_WAITING = 1 << 20;
/** Milliseconds for which a reader of what was before may take nothing. */
const SILENCE_MS = 60_000;
const HEARTBEAT_MS = 15_000;
/** Events that are read at once. */
const PAGE = 500;

interface Asked {
  /** Ids of workspaces; null: all. */
  workspaces: ReadonlySet<string> | null;
  types: ReadonlySet<string> | null;
  /** The last event that the caller has; null: those from now on. */
  after: number | null;
}

/** `GET /v1/events`: what happens, as server-sent events, for as long as the reader likes. */
export class EventStreams {
  readonly #daemon: Daemon;
  readonly #streams = new Map<string, number>();

  constructor(daemon: Daemon) {
    this.#daemon = daemon;
  }

  /** Resolves when the stream has ended, at the latest when the signal fires. Throws `usage`, `permission`, `not_a_workspace` and `busy` before it begins. */
  async serve(
    request: IncomingMessage,
    response: ServerResponse,
    { caller, signal }: { caller: Caller; signal: AbortSignal },
  ): Promise<void> {
    const asked = this.#read(request, caller);
    const key = keyOf(caller);
    const own = this.#streams.get(key) ?? 0;
    if (own >= MOST_STREAMS && (caller.token !== null || !isOperator(caller)))
      throw new CairnError("busy", `you have ${own} streams of events already`, { hint: "end one of them first" });
    this.#streams.set(key, own + 1);
    const end = (): void => void response.destroy();
    signal.addEventListener("abort", end);
    try {
      await this.#stream(response, caller, asked);
    } finally {
      signal.removeEventListener("abort", end);
      const left = this.#streams.get(key)! - 1;
      if (left > 0) this.#streams.set(key, left);
      else this.#streams.delete(key);
    }
  }

  #read({ url, headers }: IncomingMessage, peer: Caller): Asked {
    const query = queryOf(url, ["workspace", "types", "after"]);
    const paths = query.getAll("workspace");
    const workspaces = paths.map((path) => {
      if (path.startsWith("/") && !path.includes("\0")) return this.#daemon.require(peer, path).id;
      throw new CairnError("usage", "workspace must be an absolute path");
    });
    const types = query.getAll("types").flatMap((each) => each.split(","));
    const unknown = types.find((each) => !EVENT_TYPES.includes(each as EventType));
    if (unknown !== undefined)
      throw new CairnError(
        "usage",
        `there is no event ${JSON.stringify(unknown.slice(0, 40))}; events are ${EVENT_TYPES.join(", ")}`,
      );
    // A client that connects again says by the header how far it is; its address says how far it was at first.
    const after = (headers["last-event-id"] as string | undefined) ?? query.get("after");
    if (after !== null && !/^\d{1,16}$/.test(after))
      throw new CairnError("usage", "after must be the number of an event, or 0 for all events that are kept");
    return {
      workspaces: paths.length === 0 ? null : new Set(workspaces),
      types: types.length === 0 ? null : new Set(types),
      after: after === null ? null : Number(after),
    };
  }

  async #stream(response: ServerResponse, peer: Caller, asked: Asked): Promise<void> {
    const { events } = this.#daemon;
    const { after } = asked;
    let at = after ?? events.last;
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    // So that a client that is cut off before the first event knows where to go on.
    response.write(`id: ${at}\n\n`);
    // The server cuts off whoever has not read all by then: they know how far they are.
    const end = (): void => void response.end();
    events.closing.addEventListener("abort", end);
    const heartbeat = setInterval(() => response.write(": \n\n"), HEARTBEAT_MS).unref();
    try {
      // A daemon that followed a killed one begins with a reset of its own.
      const isTold = after !== null && events.after(after, 1)[0]?.event.type === "reset";
      if (after !== null && !isTold && !events.knows(after)) response.write(textOf(unknownBefore(after)));
      for (let page; !isOver(response) && (page = events.after(at, PAGE)).length > 0; await taken(response)) {
        for (const each of page) this.#give(response, peer, asked, each);
        at = page.at(-1)!.event.id!;
      }
      if (isOver(response)) return;
      using _listening = events.listen((each) => {
        this.#give(response, peer, asked, each);
        if (response.writableLength > MAX_WAITING) response.destroy();
      });
      if (events.closing.aborted) end();
      await once(response, "close");
    } finally {
      clearInterval(heartbeat);
      events.closing.removeEventListener("abort", end);
    }
  }

  #give(response: ServerResponse, peer: Caller, { workspaces, types }: Asked, noted: Noted): void {
    const { type, workspace_id: id } = noted.event;
    // What is about the daemon as a whole is told whatever was asked for.
    const isWanted = type === "reset" || ((types?.has(type) ?? true) && (workspaces?.has(id ?? "") ?? true));
    if (isWanted && !isOver(response) && this.#daemon.mayHear(peer, noted)) response.write(textOf(noted.event));
  }
}

function unknownBefore(after: number): object {
  return {
    id: null,
    at: new Date().toISOString(),
    workspace: null,
    workspace_id: null,
    type: "reset",
    data: { reason: `not all events after ${after} are kept any more` },
  };
}

function textOf(event: { id?: number | null; type?: string }): string {
  const id = event.id === null ? "" : `id: ${event.id}\n`;
  return `${id}event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}

function isOver(response: ServerResponse): boolean {
  return response.destroyed || response.writableEnded;
}

/** Resolves when the reader has taken what waits; one that takes nothing for long loses the connection. */
async function taken(response: ServerResponse): Promise<void> {
  // Others have their turn, also where nothing is for this reader.
  await setImmediate();
  if (isOver(response) || !response.writableNeedDrain) return;
  const silence = setTimeout(() => response.destroy(), SILENCE_MS);
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const each of ["drain", "close"]) response.once(each, resolve);
  await promise;
  for (const each of ["drain", "close"]) response.off(each, resolve);
  clearTimeout(silence);
}

/** The parameters of an address. Throws `usage` for others than these. */
export function queryOf(url: string | undefined, known: readonly string[]): URLSearchParams {
  const query = new URL(url ?? "", "http://cairn").searchParams;
  const unknown = [...query.keys()].find((each) => !known.includes(each));
  if (unknown === undefined) return query;
  throw new CairnError(
    "usage",
    `there is no parameter ${JSON.stringify(unknown.slice(0, 40))}; parameters are ${known.join(", ")}`,
  );
}
