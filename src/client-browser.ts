/// <reference lib="esnext.disposable" preserve="true" />
/** Calls of the server of `cairn ui`, for its page: on fetch, typed by the verbs, without their schemas. */
import type { ErrorRecord } from "./contract/error-record.ts";
import type { About, PathInput, Progress, ServiceEvent } from "./contract/index.ts";
import type { GenericSchema, Of } from "./contract/schema.ts";
import type { Argument } from "./contract/verb.ts";
import { BYTES } from "./contract/wire.ts";
import type { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "./verbs/index.ts";

export type { ErrorCode } from "./errors.ts";
export type * from "./contract/index.ts";

type Table = typeof CLIENT_VERBS & Pick<typeof LIBRARY_VERBS, "listWorkspaces"> & Pick<typeof DAEMON_CALLS, "daemon">;

/** Arguments of a verb by name; arguments that may be absent are optional. */
type Named<T extends readonly Argument[]> = {
  [A in T[number] as undefined extends Of<A["schema"]> ? never : A["name"]]: Of<A["schema"]>;
} & { [A in T[number] as undefined extends Of<A["schema"]> ? A["name"] : never]?: Of<A["schema"]> };

type Given<O> = Omit<O, "signal" | "onProgress" | "onWarning">;

type Options<O> = {} extends Given<O> ? { options?: Given<O> } : { options: Given<O> };

type MembersOf<V> = V extends { takes: infer T extends readonly Argument[]; options: infer O }
  ? Named<T> & (O extends GenericSchema ? Options<Of<O>> : {})
  : never;

/** Members and answer of each verb that the page can call. `workspace`: the absolute path of its folder. */
export type VerbCalls = {
  [N in keyof Table]: {
    members: MembersOf<Table[N]> & (N extends keyof typeof CLIENT_VERBS ? { workspace: string } : {});
    answer: Table[N] extends { output: infer R extends GenericSchema } ? Of<R> : never;
  };
};

export interface TicketOptions {
  workspace: string;
  /** Null: the folder as it is now. */
  target: string | null;
  /** A file or folder; with `path_b64` its exact bytes count. */
  path?: PathInput;
  path_b64?: string;
  /** Several paths, for an archive. */
  paths?: readonly PathInput[];
  as: "file" | "zip" | "tar";
  /** Name of the file that the browser saves. */
  name: string;
}

export interface PageCallOptions {
  /** Ends the call with `interrupted`. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  onWarning?: (message: string) => void;
}

export interface PageClient {
  /** Throws `CairnError`. */
  call<N extends keyof VerbCalls>(
    name: N,
    members: VerbCalls[N]["members"],
    options?: PageCallOptions,
  ): Promise<VerbCalls[N]["answer"]>;
  /** Yields each answer of a verb with several answers. Throws the errors of `call()`. */
  stream<N extends keyof VerbCalls>(
    name: N,
    members: VerbCalls[N]["members"],
    options?: PageCallOptions,
  ): AsyncGenerator<VerbCalls[N]["answer"], void>;
  /** Yields `open` once the server listens, then events after number `after`. Throws `io` if the connection ends. */
  events(options?: { after?: number; signal?: AbortSignal }): AsyncGenerator<ServiceEvent | "open", void>;
  /** Makes an address from which the content can be fetched once, within a minute. */
  ticket(options: TicketOptions): Promise<{ url: string }>;
  about(): Promise<About>;
  /** Notes the view that the next `cairn ui` begins with. `view`: the fragment of its address. */
  noteView(view: string): Promise<void>;
}

/** A failure, in the server's words. */
export class CairnError extends Error {
  readonly code: ErrorRecord["code"];
  readonly hint: string | undefined;
  readonly retryable: boolean;
  readonly details: Record<string, unknown> | undefined;

  constructor({ code, message, hint, retryable, details }: ErrorRecord, cause?: unknown) {
    super(message, { cause });
    this.name = "CairnError";
    this.code = code;
    this.hint = hint ?? undefined;
    this.retryable = retryable;
    this.details = details;
  }
}

type Line =
  | { progress: Progress }
  | { warning: string }
  | { item: unknown }
  | { ok: boolean; data: unknown; error: ErrorRecord | null };

interface Asked {
  path: string;
  /** Absent: the request is a GET. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** Milliseconds without even a heartbeat after which a stream of events counts as gone. */
const SILENCE_MS = 45_000;

/** `url`: of the server, without a slash at its end; default: the page's own server. */
export function connect({
  url = "",
  token,
  fetch: ask = globalThis.fetch.bind(globalThis),
}: {
  url?: string;
  token: string;
  fetch?: typeof fetch;
}): PageClient {
  /** Yields the lines of an answer. Throws if the answer is cut off. */
  async function* linesOf({ path, body, headers, signal }: Asked): AsyncGenerator<string, void> {
    const silent = new AbortController();
    const ended = signal === undefined ? silent.signal : AbortSignal.any([signal, silent.signal]);
    let reader: ReadableStreamDefaultReader<string> | undefined;
    let late: ReturnType<typeof setTimeout> | undefined;
    try {
      const response = await ask(url + path, {
        method: body === undefined ? "GET" : "POST",
        headers: { accept: "application/x-ndjson", authorization: `Bearer ${token}`, ...headers },
        signal: ended,
        ...(body === undefined ? {} : { body: toWire(body) }),
      });
      const isStream = response.headers.get("content-type") === "text/event-stream";
      reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      let pieces: string[] = [];
      for (;;) {
        if (isStream) late = setTimeout(() => silent.abort(), SILENCE_MS);
        const { value, done } = await reader.read();
        clearTimeout(late);
        if (done) break;
        const [first, ...rest] = value.split("\n");
        pieces.push(first!);
        for (const piece of rest) {
          yield pieces.join("");
          pieces = [piece];
        }
      }
    } catch (error) {
      if (signal?.aborted === true) throw interrupted(error);
      throw gone(error);
    } finally {
      clearTimeout(late);
      // The caller has left the loop, so the rest of the answer is not needed.
      void reader?.cancel().catch(() => undefined);
    }
  }

  /** Yields the items of an answer, and returns its data. */
  async function* answered(asked: Asked, options: PageCallOptions): AsyncGenerator<unknown, unknown> {
    for await (const text of linesOf({ ...asked, signal: options.signal })) {
      if (text === "") continue;
      const line = fromWire(text) as Line;
      if ("progress" in line) options.onProgress?.(line.progress);
      else if ("warning" in line) options.onWarning?.(line.warning);
      else if ("item" in line) yield line.item;
      else if (line.error !== null) throw new CairnError(line.error);
      else return line.data;
    }
    throw gone();
  }

  async function answerOf(asked: Asked, options: PageCallOptions = {}): Promise<unknown> {
    for (const lines = answered(asked, options); ;) {
      const { done, value } = await lines.next();
      if (done === true) return value;
    }
  }

  return {
    call: (name, members, options) => answerOf({ path: `/v1/${name}`, body: members }, options) as Promise<never>,
    async *stream(name, members, options = {}) {
      yield* answered({ path: `/v1/${name}`, body: members }, options) as AsyncGenerator<never>;
    },
    async *events({ after, signal } = {}) {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (after !== undefined) headers["last-event-id"] = String(after);
      yield* eventsOf(linesOf({ path: "/v1/events", headers, signal }));
    },
    ticket: (options) => answerOf({ path: "/tickets", body: options }) as Promise<{ url: string }>,
    noteView: async (view) => void (await answerOf({ path: "/view", body: { view } })),
    about: () => answerOf({ path: "/v1/about" }) as Promise<About>,
  };
}

async function* eventsOf(lines: AsyncIterable<string>): AsyncGenerator<ServiceEvent | "open", void> {
  let isOpen = false;
  for await (const line of lines) {
    // An answer that is no stream is one object, with an error.
    if (line.startsWith("{")) throw new CairnError((JSON.parse(line) as { error: ErrorRecord }).error);
    if (!isOpen) yield "open";
    isOpen = true;
    if (line.startsWith("data: ")) yield JSON.parse(line.slice(6)) as ServiceEvent;
  }
  throw gone();
}

function interrupted(cause: unknown): CairnError {
  const message = "stopped by the caller";
  return new CairnError({ code: "interrupted", message, hint: null, retryable: false }, cause);
}

function gone(cause?: unknown): CairnError {
  if (cause instanceof CairnError) return cause;
  const message = "the server of `cairn ui` does not answer";
  return new CairnError(
    { code: "io", message, hint: "start `cairn ui` again if it has ended", retryable: true },
    cause,
  );
}

/** The JSON of a value, in the form of `contract/wire.ts`. */
function toWire(body: unknown): string {
  return JSON.stringify(body, (_key, each: unknown) =>
    each instanceof Uint8Array
      ? { [BYTES]: btoa(Array.from(each, (byte) => String.fromCharCode(byte)).join("")) }
      : each,
  );
}

function fromWire(text: string): unknown {
  return JSON.parse(text, (_key, each: unknown) => {
    const bytes = (each as Record<string, unknown> | null)?.[BYTES];
    return typeof bytes === "string" && Object.keys(each as object).length === 1
      ? Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0))
      : each;
  });
}
