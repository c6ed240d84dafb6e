import type { IncomingMessage } from "node:http";
import { statSync, unlinkSync } from "node:fs";
import { resolve } from "node:path";
import { CairnError, toCairnError } from "../../../errors.ts";
import type { OpenStorageOptions } from "../location.ts";
import { CONNECTIONS, type HttpBody } from "../http-connection.ts";
import { parseRestAddress, RestConnection, type RestOptions } from "./rest-connection.ts";
import {
  decides,
  isFileName,
  labelOf,
  labelOfAll,
  missingFolder,
  signalOf,
  signalOfWrite,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
  type StoredFile,
} from "../storage.ts";

const LIST_V2 = "application/vnd.x.restic.rest.v2";
/** Limits of an answer in memory: a whole file, and the text of a list (some two million files). */
const MAX_FILE_BYTES = 1 << 30;
const MAX_LIST_BYTES = 256 << 20;
/** Memory for an answer up to this long is reserved at once; for a longer one piece by piece. */
const AT_ONCE = 64 << 20;
const SIZES_AT_ONCE = 8;

/**
 * A repository on a REST server for restic, protocol version 1 or 2, e.g. `cairn serve-repository`. The server flushes
 * before it answers, so `durable` and `sync` change nothing. The server never overwrites: an existing file of the right
 * size counts as saved; a file of another size is removed and sent again.
 */
export class RestStorage implements Storage {
  readonly #connection: RestConnection;

  constructor(address: string, options: RestOptions = {}) {
    this.#connection = new RestConnection(address, options);
  }

  /** Asks the server to create the folders of a repository; existing ones are kept. */
  static async create(address: string, options: RestOptions = {}, call?: StorageCall): Promise<RestStorage> {
    const storage = new RestStorage(address, options);
    const doing = "cannot make the repository's folders";
    try {
      await storage.#call({ method: "POST", path: "?create=true", doing, signal: signalOf(call) });
      return storage;
    } catch (error) {
      await storage.close();
      throw error;
    }
  }

  get location(): string {
    return this.#connection.location;
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    await this.#save(kind, name, { body: bytes, size: bytes.length, signal: signalOf(options) });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    const signal = signalOf(options);
    pathOf(kind, name);
    try {
      const { size } = statSync(temporaryPath);
      await this.#save(kind, name, { body: { file: temporaryPath, size, onSent: options?.onSent }, size, signal });
      unlinkSync(temporaryPath);
    } catch (error) {
      throw toCairnError(error, `cannot take ${labelOf(kind, name)} over`);
    }
  }

  async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const path = pathOf(kind, name);
    const doing = `cannot read ${labelOf(kind, name)}`;
    const signal = signalOf(call);
    if (range === undefined) return this.#call({ method: "GET", path, doing, signal }, (answer) => readWhole(answer));
    if (range.offset < 0 || range.length < 0) throw beyond(range, null);
    if (range.length === 0) {
      const size = await this.#size(kind, name, signal);
      if (size === null) throw new CairnError("not_found", `${doing} at ${this.location}: there is no such file`);
      if (range.offset > size) throw beyond(range, size);
      return new Uint8Array(0);
    }
    const headers = { range: `bytes=${range.offset}-${range.offset + range.length - 1}` };
    return this.#connection.exchange({ method: "GET", path, headers, doing, signal }, async (answer) => {
      if (answer.statusCode === 416) throw beyond(range, sizeInRange(answer));
      if (answer.statusCode !== 200 && answer.statusCode !== 206) throw await this.#connection.failure(answer, doing);
      return readRange(answer, range);
    });
  }

  async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const signal = signalOf(call);
    if (kind === "config") {
      const size = await this.#size("config", "config", signal);
      return size === null ? [] : [{ name: "config", size }];
    }
    const doing = `cannot list ${labelOfAll(kind)}`;
    const headers = { accept: LIST_V2 };
    const request = { method: "GET", path: `${kind}/`, headers, doing, signal } as const;
    const where = `${doing} at ${this.location}`;
    const listed = this.#call(request, async (answer) => ({
      version: answer.headers["content-type"]?.startsWith(LIST_V2) === true ? (2 as const) : (1 as const),
      text: await readText(answer),
    }));
    const { text, version } = await listed.catch(async (error: CairnError) => {
      const isThere = error.code === "not_found" && (await this.#size("config", "config", signal)) !== null;
      throw isThere && kind !== "locks" ? missingFolder(kind, `${where}: `) : error;
    });
    const entries = parseList(text, version, where);
    return version === 2 ? listedFiles(kind, entries, where) : this.#sizes(kind, entries, signal);
  }

  async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    return (await this.#size(kind, name, signalOf(call))) !== null;
  }

  async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    const doing = `cannot remove ${labelOf(kind, name)}`;
    await this.#call({ method: "DELETE", path: pathOf(kind, name), doing, signal: signalOfWrite(kind, call) });
  }

  async sync(): Promise<void> {}

  async now(call?: StorageCall): Promise<number | null> {
    const request = {
      method: "HEAD",
      path: "config",
      doing: "cannot ask for the time",
      signal: signalOf(call),
    } as const;
    const time = await this.#call(request, async ({ headers }) => Date.parse(headers.date ?? ""));
    return Number.isNaN(time) ? null : time;
  }

  async close(): Promise<void> {
    this.#connection.close();
  }

  async #save(kind: FileKind, name: string, content: Content): Promise<void> {
    const { body, signal } = content;
    const path = pathOf(kind, name);
    const doing = `cannot write ${labelOf(kind, name)}`;
    // Some servers overwrite a config, so its absence is checked first.
    if (kind === "config" && (await this.#size(kind, name, signal)) !== null) throw this.#taken();
    // The outcome of a commit is found out even if the caller aborts.
    const within = decides(kind) ? undefined : signal;
    for (let replaced = false; ; replaced = true) {
      const refusal = await this.#connection.exchange(
        { method: "POST", path, body, doing, signal: within },
        async (answer) => (isOk(answer) ? null : this.#connection.failure(answer, doing)),
      );
      if (refusal === null) return;
      const status = refusal.details?.["httpStatus"];
      if (status !== 403 && status !== 409 && status !== 412) throw refusal;
      const size = await this.#size(kind, name, within).catch((error: CairnError) => {
        // Only a definite answer of the server tells whether the file exists.
        throw error.retryable || error.code === "interrupted" ? error : refusal;
      });
      if (size === null || replaced) throw refusal;
      if (kind === "config") throw this.#taken();
      if (size === content.size) return;
      await this.remove(kind, name, { signal: within });
    }
  }

  #taken(): CairnError {
    return new CairnError("already_exists", `there is a repository at ${this.location} already`);
  }

  /** Returns the bytes of a file, or null if there is no such file. */
  async #size(kind: FileKind, name: string, signal: AbortSignal | undefined): Promise<number | null> {
    const doing = `cannot look at ${labelOf(kind, name)}`;
    return this.#connection.exchange({ method: "HEAD", path: pathOf(kind, name), doing, signal }, async (answer) => {
      if (answer.statusCode === 404) return null;
      if (!isOk(answer)) throw await this.#connection.failure(answer, doing);
      const size = lengthOf(answer);
      if (size === null)
        throw new CairnError("unsupported", `${doing} at ${this.location}: the server does not tell the file's size`);
      return size;
    });
  }

  /** Version 1 of the protocol lists only names. */
  async #sizes(kind: FileKind, entries: readonly unknown[], signal: AbortSignal | undefined): Promise<StoredFile[]> {
    const names = entries.filter((name): name is string => typeof name === "string" && isFileName(kind, name));
    const found: StoredFile[] = [];
    let next = 0;
    const ask = async (): Promise<void> => {
      for (let name = names[next++]; name !== undefined; name = names[next++]) {
        const size = await this.#size(kind, name, signal);
        // A pack without a size is none. Other files are listed even without one, since no listed file may be skipped.
        if (size !== null || kind !== "data") found.push({ name, size: size ?? 0 });
      }
    };
    await Promise.all(Array.from({ length: SIZES_AT_ONCE }, ask));
    return found;
  }

  async #call<T = void>(
    request: Parameters<RestConnection["exchange"]>[0],
    read?: (answer: IncomingMessage) => Promise<T>,
  ): Promise<T> {
    return this.#connection.exchange(request, async (answer) => {
      if (!isOk(answer)) throw await this.#connection.failure(answer, request.doing);
      return read === undefined ? (undefined as T) : read(answer);
    });
  }
}

/**
 * Opens a REST server. User and password may come from `RESTIC_REST_USERNAME` and `RESTIC_REST_PASSWORD`, certificates
 * from `RESTIC_CACERT`.
 */
export async function openRestStorage(address: string, options: OpenStorageOptions): Promise<RestStorage> {
  const env = options.env ?? process.env;
  const given = parseRestAddress(address);
  const [user, password, caFile] = ["RESTIC_REST_USERNAME", "RESTIC_REST_PASSWORD", "RESTIC_CACERT"].map(
    (name) => env[name] || undefined,
  );
  const settings: RestOptions = {};
  if (given.user === "" && user !== undefined) settings.user = user;
  if (given.password === "" && password !== undefined) settings.password = password;
  if (caFile !== undefined) settings.caFile = resolve(options.cwd ?? process.cwd(), caFile);
  const { create, signal, limits } = options;
  if (limits?.calls !== undefined) settings.connections = Math.max(CONNECTIONS, limits.calls);
  return create === true ? RestStorage.create(address, settings, { signal }) : new RestStorage(address, settings);
}

interface Content {
  readonly body: HttpBody;
  readonly size: number;
  readonly signal: AbortSignal | undefined;
}

function pathOf(kind: FileKind, name: string): string {
  if (!isFileName(kind, name))
    throw new CairnError("invalid_id", `not a name of a file of ${kind}: ${JSON.stringify(name.slice(0, 80))}`);
  return kind === "config" ? "config" : `${kind}/${name}`;
}

function isOk(answer: IncomingMessage): boolean {
  return answer.statusCode !== undefined && answer.statusCode >= 200 && answer.statusCode < 300;
}

function lengthOf(answer: IncomingMessage): number | null {
  const text = answer.headers["content-length"];
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

/** Returns the whole size that `Content-Range` states, or null. */
function sizeInRange(answer: IncomingMessage): number | null {
  const match = /^bytes (?:\*|\d+-\d+)\/(\d{1,15})$/.exec(answer.headers["content-range"] ?? "");
  return match === null ? null : Number(match[1]);
}

function beyond(range: ByteRange, size: number | null): CairnError {
  const end = range.offset + range.length;
  const has = size === null ? "the file has fewer bytes" : `the file has ${size} bytes`;
  return new CairnError("damaged", `${has}; bytes ${range.offset} to ${end} were wanted`);
}

async function readWhole(answer: IncomingMessage): Promise<Uint8Array> {
  const length = lengthOf(answer);
  if (length === null && answer.headers["transfer-encoding"] === undefined)
    throw new CairnError(
      "unsupported",
      "the server does not tell the file's size, so a truncated file would not be noticed",
    );
  if (length !== null && length > MAX_FILE_BYTES)
    throw new CairnError("damaged", `the file has ${length} bytes, more than any file of a repository`);
  return readBytes(answer, { skip: 0, length });
}

async function readRange(answer: IncomingMessage, range: ByteRange): Promise<Uint8Array> {
  const { offset, length } = range;
  if (answer.statusCode === 200) {
    // A server without range support sends the whole file.
    const size = lengthOf(answer);
    if (size !== null && size < offset + length) throw beyond(range, size);
    return readBytes(answer, { skip: offset, length, short: () => beyond(range, null) });
  }
  const match = /^bytes (\d+)-(\d+)\//.exec(answer.headers["content-range"] ?? "");
  if (match === null || Number(match[1]) !== offset)
    throw new CairnError("unsupported", "the server sent another part of the file than was asked for");
  if (Number(match[2]) !== offset + length - 1) throw beyond(range, sizeInRange(answer));
  return readBytes(answer, { skip: 0, length });
}

interface Part {
  skip: number;
  length: number | null;
  /** Returns the error for an answer that ends early. */
  short?: () => CairnError;
}

/** Returns `length` bytes after the first `skip`; null: all bytes. Throws if there are fewer. */
async function readBytes(answer: IncomingMessage, part: Part): Promise<Uint8Array> {
  const { length } = part;
  const memory = length !== null && length <= AT_ONCE ? Buffer.allocUnsafeSlow(length) : null;
  const pieces: Buffer[] = [];
  let [skip, done] = [part.skip, 0];
  for await (const piece of answer) {
    let chunk = piece as Buffer;
    if (skip > 0) {
      const skipped = Math.min(skip, chunk.length);
      skip -= skipped;
      chunk = chunk.subarray(skipped);
    }
    if (length !== null) chunk = chunk.subarray(0, length - done);
    if (memory === null) pieces.push(chunk);
    else memory.set(chunk, done);
    done += chunk.length;
    if (done > MAX_FILE_BYTES) throw new CairnError("damaged", "the file is larger than any file of a repository");
    if (done === length && part.skip > 0) break;
  }
  if (length !== null && done < length)
    throw part.short?.() ?? new CairnError("io", `the answer ended after ${done} bytes; ${length} were announced`);
  return memory ?? Buffer.concat(pieces);
}

async function readText(answer: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of answer) {
    size += (piece as Buffer).length;
    if (size > MAX_LIST_BYTES) throw new CairnError("unsupported", "the server's list is longer than 256 MiB");
    pieces.push(piece as Buffer);
  }
  return Buffer.concat(pieces).toString("utf8");
}

/** Throws `damaged` if the answer claims to be a list, else `unsupported`: any web server may answer something. */
function parseList(text: string, version: number, doing: string): unknown[] {
  const wrong = (what: string, cause?: unknown): CairnError => {
    if (version === 2) return new CairnError("damaged", `${doing}: the server's list is ${what}`, { cause });
    const hint = "check the address: the server may not be a REST server for restic";
    return new CairnError("unsupported", `${doing}: the server's answer is ${what}`, { hint, cause });
  };
  let entries: unknown;
  try {
    entries = JSON.parse(text);
  } catch (error) {
    throw wrong("not JSON", error);
  }
  // Go encodes an empty list as null.
  if (entries === null) return [];
  if (!Array.isArray(entries)) throw wrong("not a list");
  return entries;
}

function listedFiles(kind: FileKind, entries: readonly unknown[], doing: string): StoredFile[] {
  const found: StoredFile[] = [];
  for (const entry of entries) {
    const { name, size, written_at: at } = (entry ?? {}) as { name?: unknown; size?: unknown; written_at?: unknown };
    if (typeof name !== "string" || typeof size !== "number" || !Number.isSafeInteger(size) || size < 0)
      throw new CairnError("damaged", `${doing}: the server's list has an entry without a name and a size`);
    const time = typeof at === "number" && Number.isFinite(at) ? { writtenAt: at } : {};
    if (isFileName(kind, name)) found.push({ name, size, ...time });
  }
  return found;
}
