import { once } from "node:events";
import type { IncomingHttpHeaders, ServerResponse } from "node:http";
import { setImmediate } from "node:timers/promises";
import type { Events, Noted } from "../daemon/records/kept-records.ts";
import { CairnError } from "../errors.ts";

/** Server-sent events, from a log that keeps the newest events and reports new ones. */

/** Bytes that may wait for a slow reader. */
const MAX_WAITING = 1 << 20;
/** Milliseconds after which a reader who takes no earlier events is cut off. */
const SILENCE_MS = 60_000;
const HEARTBEAT_MS = 15_000;
/** Events read in one page. */
const PAGE = 500;

/** The number after which a reader continues; null: from now on. Throws `usage`. */
export function afterOf(headers: IncomingHttpHeaders, query: URLSearchParams): number | null {
  // A client that reconnects names its position in the header; the address has the first position.
  const after = (headers["last-event-id"] as string | undefined) ?? query.get("after");
  if (after === null) return null;
  if (/^\d{1,16}$/.test(after)) return Number(after);
  throw new CairnError("usage", "after must be the number of an event, or 0 for all events that are kept");
}

/** Sends the events that the reader may see. Resolves when the stream has ended. */
export async function streamEvents(
  response: ServerResponse,
  events: Events,
  { after, isFor }: { after: number | null; isFor(noted: Noted): boolean },
): Promise<void> {
  const give = (noted: Noted): void => {
    if (!isOver(response) && isFor(noted)) response.write(textOf(noted.event));
  };
  let at = after ?? events.last;
  response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
  // A client that is cut off before the first event then knows its position.
  response.write(`id: ${at}\n\n`);
  // The server cuts off readers who have not read everything by then; they know their position.
  const end = (): void => void response.end();
  events.closing.addEventListener("abort", end);
  const heartbeat = setInterval(() => response.write(": \n\n"), HEARTBEAT_MS).unref();
  try {
    // A daemon that followed a killed one begins with its own reset.
    const isTold = after !== null && events.after(after, 1)[0]?.event.type === "reset";
    if (after !== null && !isTold && !events.knows(after)) response.write(textOf(unknownBefore(after)));
    for (let page; !isOver(response) && (page = events.after(at, PAGE)).length > 0; await taken(response)) {
      for (const each of page) give(each);
      at = page.at(-1)!.event.id!;
    }
    if (isOver(response)) return;
    using _listening = events.listen((each) => {
      give(each);
      if (response.writableLength > MAX_WAITING) response.destroy();
    });
    if (events.closing.aborted) end();
    await once(response, "close");
  } finally {
    clearInterval(heartbeat);
    events.closing.removeEventListener("abort", end);
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

/** Resolves when the reader has taken the waiting bytes. Cuts off a reader who takes nothing for long. */
async function taken(response: ServerResponse): Promise<void> {
  // Other work runs in between, even if no event is for this reader.
  await setImmediate();
  if (isOver(response) || !response.writableNeedDrain) return;
  const silence = setTimeout(() => response.destroy(), SILENCE_MS);
  const { promise, resolve } = Promise.withResolvers<void>();
  for (const each of ["drain", "close"]) response.once(each, resolve);
  await promise;
  for (const each of ["drain", "close"]) response.off(each, resolve);
  clearTimeout(silence);
}
