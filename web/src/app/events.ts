import type { ServiceEvent } from "cairnstate/client";
import { isConnected, isPartMissing } from "./resource.ts";
import { client, signOut, token } from "./session.ts";

/** One event stream for all tabs: the tab that holds the lock reads it and passes it on to the others. */

type TabMessage = { event: ServiceEvent } | { isConnected: boolean };
type Listener = (event: ServiceEvent) => void;

const RETRY_MS = 1_000;
const MOST_RETRY_MS = 10_000;
const tabs = new BroadcastChannel("cairn-events");
const listeners = new Set<Listener>();
const callListeners = new Set<Listener>();

let last: number | null = null;

tabs.addEventListener("message", ({ data }: MessageEvent<TabMessage>) => take(data));

/**
 * Calls `listener` for each event, and with `reset` if events may have been missed. Returns a function that ends this.
 */
export function onEvent(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls `listener` for each step of a running call, which changes no workspace by itself, and with `reset`. */
export function onCall(listener: Listener): () => void {
  callListeners.add(listener);
  return () => callListeners.delete(listener);
}

/** Follows the server's events for as long as this tab is signed in. */
export function followEvents(): void {
  addEventListener("vite:preloadError", () => void (isPartMissing.value = true));
  void navigator.locks.request("cairn-events", async () => read());
}

function take(message: TabMessage): void {
  if ("isConnected" in message) {
    isConnected.value = message.isConnected;
    return;
  }
  const { event } = message;
  if (event.id !== null) last = event.id;
  if (event.type !== "call") for (const each of listeners) each(event);
  if (event.type === "call" || event.type === "reset") for (const each of callListeners) each(event);
}

function tell(message: TabMessage): void {
  take(message);
  tabs.postMessage(message);
}

async function read(): Promise<void> {
  for (let wait = RETRY_MS; token.value !== null; wait = Math.min(wait * 2, MOST_RETRY_MS)) {
    try {
      for await (const event of client().events(last === null ? {} : { after: last })) {
        if (event === "open") {
          if (!isConnected.value) tell({ event: reset() });
          tell({ isConnected: true });
          wait = RETRY_MS;
        } else tell({ event });
      }
    } catch (error) {
      if ((error as { code?: string }).code === "permission") return signOut();
    }
    tell({ isConnected: false });
    await new Promise((done) => setTimeout(done, wait));
  }
}

function reset(): ServiceEvent {
  const at = new Date().toISOString();
  return {
    id: null,
    at,
    workspace: null,
    workspace_id: null,
    type: "reset",
    data: { reason: "the connection was lost" },
  };
}
