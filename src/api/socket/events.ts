import type { IncomingMessage, ServerResponse } from "node:http";
import { EVENT_TYPES, type EventType } from "../../contract/service.ts";
import { type Caller, isOperator, keyOf } from "../../daemon/state/peer.ts";
import { CairnError } from "../../errors.ts";
import { afterOf, streamEvents } from "../event-stream.ts";
import { type Host, isDaemon } from "./host.ts";

/** The most streams of one user or token; operators have no limit. */
const MOST_STREAMS = 32;

interface Asked {
  /** Ids of workspaces; null: all. */
  workspaces: ReadonlySet<string> | null;
  /** Null: all but `call`, which reports the progress of calls. The page gets `call`, too. */
  types: ReadonlySet<string> | null;
  /** The last event that the caller has; null: events from now on. */
  after: number | null;
}

/** `GET /v1/events`: sends server-sent events until the reader ends the stream. */
export class EventStreams {
  readonly #host: Host;
  readonly #streams = new Map<string, number>();

  constructor(host: Host) {
    this.#host = host;
  }

  /**
   * Sends events. Resolves when the stream has ended, at the latest when the signal fires. Throws `usage`,
   * `permission`, `not_a_workspace` and `busy` before it begins.
   */
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
      const { workspaces, types, after } = asked;
      await streamEvents(response, this.#host.events, {
        after,
        isFor: (noted) => {
          const { type, workspace_id: id } = noted.event;
          // Events about the whole daemon are sent whatever the filter is.
          const isOfTypes = types?.has(type) ?? (type !== "call" || !isDaemon(this.#host));
          const isWanted = type === "reset" || (isOfTypes && (workspaces?.has(id ?? "") ?? true));
          return isWanted && this.#host.mayHear(caller, noted);
        },
      });
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
      if (path.startsWith("/") && !path.includes("\0")) return this.#host.require(peer, path).id;
      throw new CairnError("usage", "workspace must be an absolute path");
    });
    const types = query.getAll("types").flatMap((each) => each.split(","));
    const unknown = types.find((each) => !EVENT_TYPES.includes(each as EventType));
    if (unknown !== undefined)
      throw new CairnError(
        "usage",
        `there is no event ${JSON.stringify(unknown.slice(0, 40))}; events are ${EVENT_TYPES.join(", ")}`,
      );
    return {
      workspaces: paths.length === 0 ? null : new Set(workspaces),
      types: types.length === 0 ? null : new Set(types),
      after: afterOf(headers, query),
    };
  }
}

/** Parses the parameters of an address. Throws `usage` for unknown ones. */
export function queryOf(url: string | undefined, known: readonly string[]): URLSearchParams {
  const query = new URL(url ?? "", "http://cairn").searchParams;
  const unknown = [...query.keys()].find((each) => !known.includes(each));
  if (unknown === undefined) return query;
  throw new CairnError(
    "usage",
    `there is no parameter ${JSON.stringify(unknown.slice(0, 40))}; parameters are ${known.join(", ")}`,
  );
}
