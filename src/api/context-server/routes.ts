import { createReadStream, rmSync, statSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Worker } from "node:worker_threads";
import { CONTROL, type ContextStore } from "../../context/store.ts";
import { nameOf, parseUri } from "../../context/uri.ts";
import {
  checkRequest,
  ConsistencyRequest,
  PackBackupRequest,
  PackExportRequest,
  PackImportRequest,
  PackRestoreRequest,
  WaitRequest,
} from "../../contract/context-http.ts";
import type { AnySchema, Of } from "../../contract/schema.ts";
import { CairnError, reworded, toCairnError } from "../../errors.ts";
import type { Layout } from "../../formats/ovpack/manifest.ts";
import { ThreadCalls } from "../../threads/calls.ts";
import { type Answer, failed, invalid, ok } from "./answers.ts";
import type { ContextFunctions, StorePlace } from "./context-worker.ts";
import { Uploads } from "./uploads.ts";

export interface FileAnswer {
  file: Readable;
  name: string;
  size: number;
}

export interface RouteOptions {
  store: ContextStore;
  /** Layout of every bundle that is sent. */
  layout: Layout;
  uploadBytes: number;
  onProblem: (message: string) => void;
}

type Route = (request: IncomingMessage, signal: AbortSignal) => Promise<Answer | FileAnswer>;

/** Told to clients that take this server for a whole OpenViking. */
export const PACKS_ONLY = "packs only";
const MAX_BODY = 1 << 20;
const MOST_WAIT_S = 3600;

/** The endpoints of one store. */
export class Routes implements AsyncDisposable {
  /** The store, in its own thread. */
  readonly #store: ThreadCalls<ContextFunctions>;
  readonly #layout: Layout;
  readonly #uploads: Uploads;
  readonly #onProblem: (message: string) => void;
  readonly #stopped = new AbortController();
  /** Indexing of imported files. */
  #filling: Promise<void> = Promise.resolve();
  #isFilling = false;
  /** True: more files came since the indexing began. */
  #isAsked = false;
  #processed = 0;
  #errors: string[] = [];

  constructor({ store, layout, uploadBytes, onProblem }: RouteOptions) {
    const workerData: StorePlace = { folder: store.folder, lockMs: store.lockMs };
    const url = new URL("./context-worker.ts", import.meta.url);
    this.#store = new ThreadCalls(() => new Worker(url, { execArgv: [], workerData }));
    this.#layout = layout;
    this.#uploads = new Uploads(join(store.folder, CONTROL, "uploads"), uploadBytes);
    this.#onProblem = onProblem;
    this.#fill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort(new CairnError("interrupted", "the server stops"));
    await this.#filling;
    await this.#store.call("close", undefined);
    await this.#store.end();
    this.#uploads[Symbol.dispose]();
  }

  /** Null if `path` is not served. */
  find(path: string): { method: "GET" | "POST"; run: Route } | null {
    return this.#table[path] ?? null;
  }

  /** All requests that are served, such as `POST /api/v1/pack/export`. */
  get served(): string[] {
    return [
      "GET /health",
      "GET /ready",
      ...Object.entries(this.#table).map(([path, { method }]) => `${method} ${path}`),
    ];
  }

  readonly #table: Readonly<Record<string, { method: "GET" | "POST"; run: Route }>> = {
    "/api/v1/system/status": {
      method: "GET",
      run: async () => ok({ initialized: true, user: "default", serves: PACKS_ONLY }),
    },
    "/api/v1/observer/system": {
      method: "GET",
      run: async () => ok({ is_healthy: this.#errors.length === 0, errors: this.#errors, components: {} }),
    },
    "/api/v1/resources/temp_upload": {
      method: "POST",
      run: async (request, signal) => ok({ temp_file_id: await this.#uploads.receive(request, signal) }),
    },
    "/api/v1/pack/export": this.#posted(PackExportRequest, async ({ uri, include_vectors: includeVectors }, signal) => {
      const name = nameOf(parseUri(uri));
      return await this.#packed(`${name === "" ? "export" : name}.ovpack`, { uri, includeVectors }, signal);
    }),
    "/api/v1/pack/backup": this.#posted(
      PackBackupRequest,
      async ({ include_vectors: includeVectors }, signal) =>
        this.#packed("openviking-backup.ovpack", { includeVectors }, signal),
      {},
    ),
    "/api/v1/pack/import": this.#posted(PackImportRequest, async (body, signal) => this.#brought(body, signal)),
    "/api/v1/pack/restore": this.#posted(PackRestoreRequest, async (body, signal) => this.#brought(body, signal)),
    "/api/v1/system/consistency": this.#posted(ConsistencyRequest, async ({ uri }, signal) =>
      ok(await this.#store.call("consistency", uri, signal)),
    ),
    "/api/v1/system/wait": this.#posted(WaitRequest, async ({ timeout }, signal) =>
      this.#wait(timeout ?? null, signal),
    ),
  };

  /** `absent`: the body if the request has none. */
  #posted<S extends AnySchema>(
    schema: S,
    run: (body: Of<S>, signal: AbortSignal) => Promise<Answer | FileAnswer>,
    absent?: object,
  ): { method: "POST"; run: Route } {
    return {
      method: "POST",
      run: async (request, signal) => {
        const text = await bodyOf(request);
        let body: unknown = absent;
        if (text !== "") {
          try {
            body = JSON.parse(text);
          } catch {
            return invalid([{ loc: ["body"], message: "JSON decode error", type: "json_invalid" }]);
          }
        }
        if (body === undefined) return invalid([{ loc: ["body"], message: "Field required", type: "missing" }]);
        const checked = checkRequest(schema, body);
        return "errors" in checked ? invalid(checked.errors) : await run(checked.value, signal);
      },
    };
  }

  async #packed(
    name: string,
    wanted: { uri?: string; includeVectors: boolean | undefined },
    signal: AbortSignal,
  ): Promise<FileAnswer> {
    const to = this.#uploads.place();
    try {
      await this.#store.call("pack", { ...wanted, to, layout: this.#layout }, signal);
    } catch (error) {
      const known = toCairnError(error);
      if (known.details?.["roots"] === undefined) throw error;
      const message = `${known.message}; leave these scopes out of the store, or have the server started with --layout B, which OpenViking 0.3 reads`;
      throw reworded(known, { message, cause: error });
    }
    const { size } = statSync(to);
    const file = createReadStream(to);
    // An open file keeps its bytes.
    file.once("open", () => rmSync(to, { force: true }));
    return { file, name, size };
  }

  async #brought(
    { temp_file_id: id, ...body }: Of<typeof PackRestoreRequest> & { parent?: string },
    signal: AbortSignal,
  ): Promise<Answer> {
    const { parent, on_conflict: onConflict, vector_mode: vectorMode } = body;
    const options = { onConflict: onConflict ?? "fail", vectorMode: vectorMode ?? "auto" } as const;
    const path = this.#uploads.find(id);
    const wanted = { ...options, path, ...(parent === undefined ? {} : { parent }) };
    let uri: string;
    try {
      ({ uri } = await this.#store.call("bring", wanted, signal));
    } catch (error) {
      // Clients know an upload by its id, so its path on this machine stays private.
      const known = toCairnError(error);
      throw reworded(known, { message: known.message.replaceAll(path, id), cause: error });
    }
    this.#uploads.remove(id);
    this.#fill();
    return ok({ uri });
  }

  /** Indexes new files. Runs in the background; clients may wait for it. */
  #fill(): void {
    this.#isAsked = true;
    if (this.#isFilling) return;
    this.#isFilling = true;
    const { signal } = this.#stopped;
    const work = async (): Promise<void> => {
      try {
        while (this.#isAsked) {
          this.#isAsked = false;
          const { indexed } = await this.#store.call("fill", null, signal);
          this.#processed += indexed;
        }
      } catch (error) {
        if (signal.aborted) return;
        const { message } = toCairnError(error);
        this.#errors = [...this.#errors.slice(-9), message];
        this.#onProblem(`the index: ${message}`);
      } finally {
        this.#isFilling = false;
      }
    };
    this.#filling = work();
  }

  async #wait(timeout: number | null, signal: AbortSignal): Promise<Answer> {
    const limit = AbortSignal.timeout(Math.min(Math.max(timeout ?? MOST_WAIT_S, 0), MOST_WAIT_S) * 1000);
    const ended = new Promise<"late">((resolve) => {
      for (const each of [limit, signal]) each.addEventListener("abort", () => resolve("late"), { once: true });
    });
    this.#fill();
    if ((await Promise.race([this.#filling, ended])) === "late")
      return failed(504, "DEADLINE_EXCEEDED", "the index is not complete yet", { timeout });
    const errors = this.#errors.map((message) => ({ message }));
    const queue = { processed: this.#processed, requeue_count: 0, error_count: errors.length, errors };
    [this.#processed, this.#errors] = [0, []];
    return ok({ Embedding: queue, Semantic: { processed: 0, requeue_count: 0, error_count: 0, errors: [] } });
  }
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of request.iterator({ destroyOnReturn: false })) {
    length += (piece as Buffer).length;
    if (length > MAX_BODY) throw new CairnError("usage", `a request may have at most ${MAX_BODY} bytes`);
    pieces.push(piece as Buffer);
  }
  return Buffer.concat(pieces).toString("utf8").trim();
}
