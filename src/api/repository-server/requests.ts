import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import type { FileKind } from "../../repository/storage/storage.ts";
import { RepositoryFolder, type OpenFile } from "./repository-folder.ts";
import { parseTarget, type Target } from "./target.ts";

export interface ServedFolder {
  /** Absolute path; repositories are this folder or below it. */
  readonly root: string;
  /** Only locks can be removed. Files are never overwritten, with or without this. */
  readonly appendOnly: boolean;
  /** The first part of a repository's path must be the user's name. */
  readonly privateRepositories: boolean;
  readonly maximumFileBytes: number;
}

export interface Reply {
  readonly status: number;
  readonly headers?: Record<string, string | number>;
  /** A line with the reason. */
  readonly text?: string;
  /** Writes the body; called after the head is written, and never for HEAD. */
  readonly body?: (response: ServerResponse) => Promise<void>;
  /** Ends the answer's work, even if no body is sent. */
  readonly done?: () => Promise<void>;
}

const LIST_V1 = "application/vnd.x.restic.rest.v1";
const LIST_V2 = "application/vnd.x.restic.rest.v2";
const BINARY = "application/octet-stream";
const READ_BYTES = 256 << 10;
const CLEAR_EVERY_MS = 3_600_000;
const MAX_CLEARED = 10_000;

const OK: Reply = { status: 200 };

/** Answers the requests of restic's protocol from a folder. */
export class RequestHandler {
  readonly #served: ServedFolder;
  /** Repository → time of the last search for unfinished files. */
  readonly #cleared = new Map<string, number>();

  constructor(served: ServedFolder) {
    this.#served = served;
  }

  /** Answers a request. `user` is null if the server has no credentials. Calls `proceed` before it reads the body. */
  async answer(request: IncomingMessage, user: string | null, proceed: () => void): Promise<Reply> {
    const target = parseTarget(request.url ?? "");
    if (this.#served.privateRepositories && target.repository[0] !== user)
      return refusal(403, "this repository is not yours: the first part of its path must be your name");
    const folder = new RepositoryFolder(join(this.#served.root, ...target.repository));
    const { kind, name } = target;
    if (kind === null) return this.#onRepository(request, target, folder);
    if (name === null) return request.method === "GET" ? listReply(folder, kind, request) : notAllowed("GET");
    switch (request.method) {
      case "HEAD": {
        const size = await folder.size(kind, name);
        return size === null
          ? { status: 404 }
          : { status: 200, headers: { "content-length": size, "content-type": BINARY, "accept-ranges": "bytes" } };
      }
      case "GET":
        return fileReply(await folder.open(kind, name), request.headers.range);
      case "POST":
        return this.#save(request, { folder, kind, name, proceed });
      case "DELETE":
        return this.#remove(folder, kind, name);
      default:
        return notAllowed("HEAD, GET, POST, DELETE");
    }
  }

  async #onRepository(request: IncomingMessage, target: Target, folder: RepositoryFolder): Promise<Reply> {
    if (request.method !== "POST") return notAllowed("POST");
    if (new URLSearchParams(target.query).get("create") !== "true")
      return refusal(400, "POST to a repository needs ?create=true");
    await folder.create();
    return OK;
  }

  async #remove(folder: RepositoryFolder, kind: FileKind, name: string): Promise<Reply> {
    if (this.#served.appendOnly && kind !== "locks")
      return refusal(403, "this server is append-only: only locks can be removed");
    return (await folder.remove(kind, name)) ? OK : { status: 404 };
  }

  async #save(
    request: IncomingMessage,
    to: { folder: RepositoryFolder; kind: FileKind; name: string; proceed: () => void },
  ): Promise<Reply> {
    const { folder, kind, name } = to;
    const limit = this.#served.maximumFileBytes;
    const tooLarge = refusal(413, `a file may have at most ${limit} bytes`);
    if (Number(request.headers["content-length"] ?? 0) > limit) return tooLarge;
    if (!(await folder.has(kind))) return refusal(404, "there is no repository here; POST ?create=true makes one");
    if ((await folder.size(kind, name)) !== null) {
      await folder.settle(kind, name);
      return refusal(403, "this file already exists, and files are never overwritten");
    }
    this.#clearUploads(folder);
    const upload = await folder.upload(kind, name);
    try {
      to.proceed();
      let size = 0;
      // The connection must stay usable for a reply after a refused body.
      for await (const chunk of request.iterator({ destroyOnReturn: false })) {
        size += (chunk as Buffer).length;
        if (size > limit) return tooLarge;
        await upload.write(chunk as Buffer);
      }
      // From here on the server causes any silence.
      request.socket.setTimeout(0);
      const outcome = await upload.finish();
      if (outcome === "there" && kind === "config") return refusal(403, "there is a repository here already");
      return OK;
    } catch (error) {
      // The bytes were damaged on the way; the client may send them again.
      if (error instanceof CairnError && error.code === "damaged") return refusal(400, error.message);
      throw error;
    } finally {
      await upload.discard();
    }
  }

  #clearUploads(folder: RepositoryFolder): void {
    const now = performance.now();
    const last = this.#cleared.get(folder.root);
    if (last !== undefined && now - last < CLEAR_EVERY_MS) return;
    if (this.#cleared.size >= MAX_CLEARED) this.#cleared.clear();
    this.#cleared.set(folder.root, now);
    void folder.clearUploads();
  }
}

export function refusal(status: number, text: string): Reply {
  return { status, text };
}

function notAllowed(methods: string): Reply {
  return { status: 405, headers: { allow: methods }, text: `methods that are allowed here: ${methods}` };
}

async function listReply(folder: RepositoryFolder, kind: FileKind, request: IncomingMessage): Promise<Reply> {
  const withSizes = request.headers.accept?.includes(LIST_V2) === true;
  const portions = await folder.list(kind, withSizes);
  if (portions === null) return refusal(404, "there is no repository here");
  return {
    status: 200,
    headers: { "content-type": withSizes ? LIST_V2 : LIST_V1 },
    async body(response) {
      let before = "[";
      for await (const portion of portions) {
        let text = "";
        for (const { name, size, writtenAt } of portion) {
          // restic ignores the third member.
          text += `${before}${withSizes ? JSON.stringify({ name, size, written_at: writtenAt }) : `"${name}"`}`;
          before = ",";
        }
        await write(response, text);
      }
      await write(response, before === "[" ? "[]" : "]");
    },
  };
}

function fileReply(file: OpenFile | null, range: string | undefined): Reply {
  if (file === null) return { status: 404 };
  const { handle, size } = file;
  const done = (): Promise<void> => handle.close();
  const part = parseRange(range, size);
  if (part === "beyond") return { status: 416, headers: { "content-range": `bytes */${size}` }, done };
  const [start, end] = part ?? [0, size - 1];
  const headers: Record<string, string | number> = {
    "content-type": BINARY,
    "content-length": end - start + 1,
    "accept-ranges": "bytes",
  };
  if (part !== null) headers["content-range"] = `bytes ${start}-${end}/${size}`;
  return {
    status: part === null ? 200 : 206,
    headers,
    done,
    async body(response) {
      for (let at = start; at <= end;) {
        const buffer = Buffer.allocUnsafe(Math.min(READ_BYTES, end - at + 1));
        const { bytesRead } = await handle.read(buffer, 0, buffer.length, at);
        if (bytesRead === 0) throw new CairnError("damaged", `a file became shorter while it was read`);
        await write(response, buffer.subarray(0, bytesRead));
        at += bytesRead;
      }
    },
  };
}

/** Returns the first and last byte; null for the whole file, also if the header is not a single range of bytes. */
function parseRange(header: string | undefined, size: number): [number, number] | "beyond" | null {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(header ?? "");
  if (match === null || (match[1] === "" && match[2] === "")) return null;
  const [first, last] = [match[1] ?? "", match[2] ?? ""];
  if (first === "") return Number(last) === 0 || size === 0 ? "beyond" : [Math.max(0, size - Number(last)), size - 1];
  if (last !== "" && Number(last) < Number(first)) return null;
  if (Number(first) >= size) return "beyond";
  return [Number(first), last === "" ? size - 1 : Math.min(Number(last), size - 1)];
}

/** Writes at the reader's speed. Throws if the reader has gone. */
async function write(response: ServerResponse, chunk: string | Uint8Array): Promise<void> {
  if (chunk.length === 0) return;
  if (response.destroyed) throw new CairnError("interrupted", "the client has gone");
  if (response.write(chunk)) return;
  await new Promise<void>((go, fail) => {
    const onDrain = (): void => {
      response.off("close", onClose);
      go();
    };
    const onClose = (): void => {
      response.off("drain", onDrain);
      fail(new CairnError("interrupted", "the client has gone"));
    };
    response.once("drain", onDrain);
    response.once("close", onClose);
  });
}
