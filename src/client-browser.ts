/// <reference lib="esnext.disposable" preserve="true" />
/** Calls of the server of `cairn ui`, for its page: on fetch, typed by the verbs, without their schemas. */
import type { ErrorRecord } from "./contract/error-record.ts";
import type {
  About,
  AgentsIn,
  FolderList,
  InstalledAgent,
  KeptByPage,
  PathInput,
  Progress,
  ServiceEvent,
} from "./contract/index.ts";
import type { GenericSchema, Of } from "./contract/schema.ts";
import type { Argument } from "./contract/verb.ts";
import { answersIn, dataOf, eventsIn, fromWire, linesOf, SILENCE_MS, toWire } from "./contract/wire.ts";
import type { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "./verbs/index.ts";

export type { ErrorCode } from "./errors.ts";
export type * from "./contract/index.ts";
export type * from "./verbs/schemas.ts";

type Table = typeof CLIENT_VERBS &
  Pick<typeof LIBRARY_VERBS, "listWorkspaces"> &
  Pick<typeof DAEMON_CALLS, "daemon" | "register" | "running" | "pastEvents" | "cancel">;

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
  /** Lists the folders in a folder. Throws `refused` if the page was started to look only. */
  folders(path: string): Promise<FolderList>;
  /** Tells which coding agents' hooks save a workspace. Without a path: all folders in which agents work or have hooks. */
  agents(workspace?: string): Promise<AgentsIn[]>;
  /**
   * Installs an agent's hooks for a workspace. With `plan: true` it only tells which files would change, and the id of this
   * plan; with the id as `plan` it changes them. Throws `refused`, `stale_plan`.
   */
  installAgent(asked: { workspace: string; tool: string; plan: true | string }): Promise<InstalledAgent>;
  /** Removes an agent's hooks for a workspace. `plan`: as for `installAgent`. Throws `refused`, `stale_plan`. */
  removeAgent(asked: { workspace: string; tool: string; plan: true | string }): Promise<InstalledAgent>;
  /**
   * Keeps a repository for a workspace: an existing one, with the path of the file that has its password, or without it
   * a new one with a new password file. Throws `already_exists`, `not_found`, `wrong_password`, `refused`.
   */
  keepRepository(asked: { workspace: string; repository: string; passwordFile?: string }): Promise<KeptByPage>;
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

interface Asked {
  path: string;
  /** Absent: the request is a GET. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

const BASE64 = {
  encode: (bytes: Uint8Array): string => btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")),
  decode: (text: string): Uint8Array => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)),
};

const parse = (line: string): unknown => fromWire(line, BASE64);
const failed = (told: ErrorRecord | null): CairnError => (told === null ? gone() : new CairnError(told));

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
  /** Yields the text of an answer in pieces. Throws if the answer is cut off. */
  async function* textOf({ path, body, headers, signal }: Asked): AsyncGenerator<string, void> {
    const silent = new AbortController();
    const ended = signal === undefined ? silent.signal : AbortSignal.any([signal, silent.signal]);
    let reader: ReadableStreamDefaultReader<string> | undefined;
    let late: ReturnType<typeof setTimeout> | undefined;
    try {
      const response = await ask(url + path, {
        method: body === undefined ? "GET" : "POST",
        headers: { accept: "application/x-ndjson", authorization: `Bearer ${token}`, ...headers },
        signal: ended,
        ...(body === undefined ? {} : { body: toWire(body, BASE64) }),
      });
      const isStream = response.headers.get("content-type") === "text/event-stream";
      reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        if (isStream) late = setTimeout(() => silent.abort(), SILENCE_MS);
        const { value, done } = await reader.read();
        clearTimeout(late);
        if (done) break;
        yield value;
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

  const answers = (asked: Asked, options: PageCallOptions = {}): AsyncGenerator<unknown, unknown> =>
    answersIn(linesOf(textOf({ ...asked, signal: options.signal })), parse, failed, options);
  const answerOf = (asked: Asked, options?: PageCallOptions): Promise<unknown> => dataOf(answers(asked, options));

  return {
    call: (name, members, options) => answerOf({ path: `/v1/${name}`, body: members }, options) as Promise<never>,
    stream: (name, members, options) =>
      answers({ path: `/v1/${name}`, body: members }, options) as AsyncGenerator<never, void>,
    async *events({ after, signal } = {}) {
      const headers: Record<string, string> = { accept: "text/event-stream" };
      if (after !== undefined) headers["last-event-id"] = String(after);
      let isOpen = false;
      for await (const { event } of eventsIn(linesOf(textOf({ path: "/v1/events", headers, signal })), failed)) {
        if (!isOpen) yield "open";
        isOpen = true;
        if (event !== null) yield event;
      }
      throw gone();
    },
    ticket: (options) => answerOf({ path: "/tickets", body: options }) as Promise<{ url: string }>,
    noteView: async (view) => void (await answerOf({ path: "/view", body: { view } })),
    folders: (path) => answerOf({ path: "/folders", body: { path } }) as Promise<FolderList>,
    agents: (workspace) =>
      answerOf({ path: "/agents", body: workspace === undefined ? {} : { workspace } }) as Promise<AgentsIn[]>,
    installAgent: (asked) => answerOf({ path: "/agents/install", body: asked }) as Promise<InstalledAgent>,
    removeAgent: (asked) => answerOf({ path: "/agents/remove", body: asked }) as Promise<InstalledAgent>,
    keepRepository: (asked) => answerOf({ path: "/repositories", body: asked }) as Promise<KeptByPage>,
    about: () => answerOf({ path: "/v1/about" }) as Promise<About>,
  };
}

function interrupted(cause: unknown): CairnError {
  const message = "stopped by the caller";
  return new CairnError({ code: "interrupted", message, hint: null, retryable: false }, cause);
}

function gone(cause?: unknown): CairnError {
  const message = "the server of `cairn ui` does not answer";
  return new CairnError(
    { code: "io", message, hint: "start `cairn ui` again if it has ended", retryable: true },
    cause,
  );
}
