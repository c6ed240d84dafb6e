import { randomBytes } from "node:crypto";
import { statSync, unlinkSync } from "node:fs";
import { resolve } from "node:path";
import { CairnError, toCairnError } from "../../../errors.ts";
import type { HttpBody } from "../http-connection.ts";
import type { OpenStorageOptions } from "../location.ts";
import { findS3Region, findS3Settings, type S3Credentials } from "./credentials.ts";
import type { S3Answer } from "./errors.ts";
import { listObjects, listUploads, timeOf } from "./list.ts";
import { defaultAddressing, parseS3Location, type S3Addressing, type S3Place } from "./location.ts";
import { abortUpload, md5Of, uploadInParts } from "./multipart.ts";
import { CONNECTIONS, S3Requests, type S3Request } from "./requests.ts";
import {
  isFileName,
  labelOf,
  labelOfAll,
  signalOf,
  signalOfWrite,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
  type StoredFile,
} from "../storage.ts";
import { readRegular } from "../../../fs/regular-file.ts";

export interface S3Options {
  readonly place: S3Place;
  /** Null: requests are anonymous and not signed. */
  readonly credentials: S3Credentials | null;
  /** Default: the region of an AWS host's name, else `us-east-1` until the server names another. */
  readonly region?: string | null | undefined;
  readonly addressing?: S3Addressing | undefined;
  /** Concurrent requests; more wait. Default 16. */
  readonly connections?: number | undefined;
  /** Milliseconds without any data after which a connection is closed. Default two minutes. */
  readonly silenceMs?: number | undefined;
  /** PEM file with the CA certificates of the server, instead of the system's. */
  readonly caFile?: string | undefined;
  /**
   * Files above `above` bytes are uploaded in parts. Default 64 MiB in parts of 16 MiB; S3 requires at least 5 MiB a
   * part.
   */
  readonly multipart?: { readonly above: number; readonly partSize: number } | undefined;
}

const MULTIPART = { above: 64 << 20, partSize: 16 << 20 } as const;
/** A whole file is held in memory; larger files are read by ranges. */
const MAX_WHOLE_BYTES = 1 << 30;

/**
 * A repository in a bucket of S3 or a compatible server, with restic's keys. A file is durable when its request is
 * answered; the server checks its bytes. `config` is created with `If-None-Match: *` if the server supports that;
 * otherwise two creations at once may both succeed, and the later config stays.
 */
export class S3Storage implements Storage {
  readonly #requests: S3Requests;
  readonly #prefix: string;
  readonly #multipart: { readonly above: number; readonly partSize: number };
  #conditional: Promise<boolean> | null = null;
  /** True once the server has demanded Content-MD5, as buckets with object lock do. */
  #contentMd5 = false;

  private constructor(requests: S3Requests, options: S3Options) {
    this.#requests = requests;
    this.#prefix = options.place.prefix === "" ? "" : `${options.place.prefix}/`;
    this.#multipart = options.multipart ?? MULTIPART;
  }

  /** Loads the code that signs requests. Sends nothing. */
  static async open(options: S3Options): Promise<S3Storage> {
    const addressing = options.addressing ?? defaultAddressing(options.place);
    const requests = await S3Requests.open({ ...options, addressing, region: options.region ?? null });
    return new S3Storage(requests, options);
  }

  get location(): string {
    return this.#requests.location;
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void> {
    const key = this.#key(kind, name);
    const doing = `cannot write ${labelOf(kind, name)}`;
    if (kind === "config") await this.#saveConfig(key, { bytes, doing, call: options });
    else await this.#put({ key, body: bytes, sha256: name, doing, signal: signalOfWrite(kind, options) });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    const key = this.#key(kind, name);
    const doing = `cannot write ${labelOf(kind, name)}`;
    const signal = signalOfWrite(kind, options);
    try {
      const { size } = statSync(temporaryPath);
      if (kind === "config") await this.#saveConfig(key, { bytes: readRegular(temporaryPath), doing, call: options });
      else if (size > this.#multipart.above) {
        const { partSize } = this.#multipart;
        const file = { key, file: temporaryPath, size, sha256: name, doing, signal, onSent: options?.onSent };
        await uploadInParts(this.#requests, file, { partSize, contentMd5: this.#contentMd5 });
      } else {
        const body = { file: temporaryPath, size, onSent: options?.onSent };
        await this.#put({ key, body, sha256: name, doing, signal });
      }
      unlinkSync(temporaryPath);
    } catch (error) {
      throw toCairnError(error, doing);
    }
  }

  async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const key = this.#key(kind, name);
    const doing = `cannot read ${labelOf(kind, name)}`;
    const signal = signalOf(call);
    if (range === undefined)
      return (await this.#requests.send({ method: "GET", key, limit: MAX_WHOLE_BYTES, doing, signal })).body;
    const { offset, length } = range;
    if (offset < 0 || length < 0 || !Number.isSafeInteger(offset + length)) throw beyond(range, null, doing);
    if (length === 0) return this.#loadNothing(key, range, { doing, signal });
    const headers = { range: `bytes=${offset}-${offset + length - 1}` };
    const request = { method: "GET", key, headers, limit: length, accept: [416], doing, signal } as const;
    const answer = await this.#requests.send(request);
    if (answer.status === 416) throw beyond(range, rangeOf(answer)?.total ?? null, doing);
    this.#checkRange(answer, range, doing);
    return answer.body;
  }

  async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const signal = signalOf(call);
    const doing = `cannot list ${labelOfAll(kind)}`;
    if (kind === "config") {
      const size = await this.#size(this.#key(kind, "config"), { doing, signal });
      return size === null ? [] : [{ name: "config", size }];
    }
    const found: StoredFile[] = [];
    const listing = { prefix: `${this.#prefix}${kind}/`, doing, signal };
    for await (const page of listObjects(this.#requests, listing)) {
      for (const { key, size, writtenAt } of page) {
        const name = key.slice(key.lastIndexOf("/") + 1);
        if (isFileName(kind, name) && key === this.#key(kind, name)) found.push({ name, size, writtenAt });
      }
    }
    return found;
  }

  async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    const asked = { doing: `cannot look at ${labelOf(kind, name)}`, signal: signalOf(call) };
    return (await this.#size(this.#key(kind, name), asked)) !== null;
  }

  async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    const key = this.#key(kind, name);
    const doing = `cannot remove ${labelOf(kind, name)}`;
    // The removal of a lock goes on after an abort.
    const size = await this.#size(key, { doing, signal: kind === "locks" ? undefined : signalOf(call) });
    // S3 reports success for a missing object. The request is sent anyway: its answer shows whether removals are
    // allowed.
    await this.#requests.send({ method: "DELETE", key, doing, signal: signalOfWrite(kind, call) });
    if (size === null) throw new CairnError("not_found", `${doing} at ${this.location}: there is no such file`);
  }

  async sync(): Promise<void> {}

  async now(call?: StorageCall): Promise<number | null> {
    const asked = { accept: [404], doing: "cannot ask for the time", signal: signalOf(call) };
    const { headers } = await this.#requests.send({ method: "HEAD", key: this.#key("config", "config"), ...asked });
    return timeOf(headers.date ?? "");
  }

  /** Aborts unfinished uploads that started more than `ageMs` ago by the server's clock. Best effort. */
  async clearTemporaries(ageMs: number, call?: StorageCall): Promise<number> {
    let removed = 0;
    try {
      const listing = { prefix: this.#prefix, doing: "cannot list unfinished uploads", signal: signalOf(call) };
      const { uploads, now } = await listUploads(this.#requests, listing);
      for (const { key, uploadId, begun } of uploads) {
        if (now === null || begun === null || now - begun < ageMs || !this.#isOurs(key)) continue;
        await abortUpload(this.#requests, { key, id: uploadId });
        removed++;
      }
    } catch {
      return removed;
    }
    return removed;
  }

  async close(): Promise<void> {
    this.#requests.close();
  }

  /** True if the server refuses to overwrite an object on request. Tested once, by writing a small object twice. */
  async conditionalWrites(call?: StorageCall): Promise<boolean> {
    this.#conditional ??= this.#probe(signalOf(call));
    try {
      return await this.#conditional;
    } catch (error) {
      this.#conditional = null;
      throw error;
    }
  }

  async #probe(signal: AbortSignal | undefined): Promise<boolean> {
    const key = `${this.#prefix}cairn-probe-${randomBytes(8).toString("hex")}`;
    const doing = "cannot try out conditional writes";
    const put = async (): Promise<number> => {
      const body = Buffer.from("made to see whether it can be overwritten; may be removed\n");
      const accept = [400, 409, 412, 501];
      return (await this.#put({ key, body, headers: { "if-none-match": "*" }, accept, doing, signal })).status;
    };
    const [first, second] = [await put(), await put()];
    // If the removal fails, an unused object of some bytes stays.
    await this.#requests.send({ method: "DELETE", key, accept: [403, 404], doing }).catch(() => null);
    return first < 300 && second === 412;
  }

  async #saveConfig(
    key: string,
    config: { bytes: Uint8Array; doing: string; call?: StorageCall | undefined },
  ): Promise<void> {
    const { bytes, doing, call } = config;
    const taken = (): CairnError =>
      new CairnError("already_exists", `there is a repository at ${this.location} already`);
    if (await this.conditionalWrites(call)) {
      const headers = { "if-none-match": "*" };
      const answer = await this.#put({ key, body: bytes, headers, accept: [412], doing });
      if (answer.status === 412) throw taken();
      return;
    }
    if ((await this.#size(key, { doing, signal: signalOf(call) })) !== null) throw taken();
    await this.#put({ key, body: bytes, doing });
    const there = await this.#requests.send({ method: "GET", key, limit: MAX_WHOLE_BYTES, doing });
    if (!there.body.equals(bytes)) throw taken();
  }

  async #put(request: Omit<S3Request, "method">): Promise<S3Answer> {
    for (;;) {
      const digest = this.#contentMd5 && request.body !== undefined ? md5Of(wholeOf(request.body)) : null;
      const headers = { ...request.headers, ...(digest === null ? {} : { "content-md5": digest }) };
      const accept = [400, ...(request.accept ?? [])];
      const answer = await this.#requests.send({ ...request, method: "PUT", headers, accept });
      if (answer.status !== 400) return answer;
      const error = this.#requests.errorOf(answer, request.doing);
      if (digest === null && /content-md5/i.test(error.message)) this.#contentMd5 = true;
      else if (request.accept?.includes(400) === true) return answer;
      else throw error;
    }
  }

  async #loadNothing(key: string, range: ByteRange, asked: Look): Promise<Uint8Array> {
    const { doing } = asked;
    const size = await this.#size(key, asked);
    if (size === null) throw new CairnError("not_found", `${doing} at ${this.location}: there is no such file`);
    if (range.offset > size) throw beyond(range, size, doing);
    return new Uint8Array(0);
  }

  #checkRange(answer: S3Answer, range: ByteRange, doing: string): void {
    const { offset, length } = range;
    // A server without range support sends the whole file; that is right if the whole file was requested.
    if (answer.status === 200 && offset === 0 && answer.body.length === length) return;
    const sent = rangeOf(answer);
    // Some servers send the range and its position, but with the status of a whole file.
    if (sent === null)
      throw new CairnError(
        "unsupported",
        `${doing} at ${this.location}: the server does not support reading parts of a file`,
      );
    if (sent.total !== null && offset + length > sent.total) throw beyond(range, sent.total, doing);
    if (sent.first !== offset || answer.body.length !== length)
      throw new CairnError("io", `${doing} at ${this.location}: the server returned other bytes than were requested`);
  }

  /** Returns the bytes of an object, or null if it does not exist. */
  async #size(key: string, { doing, signal }: Look): Promise<number | null> {
    const answer = await this.#requests.send({ method: "HEAD", key, accept: [404], doing, signal });
    if (answer.status === 404) return null;
    const size = Number(answer.headers["content-length"] ?? Number.NaN);
    if (Number.isSafeInteger(size) && size >= 0) return size;
    throw new CairnError("unsupported", `${doing} at ${this.location}: the server does not tell the file's size`);
  }

  #key(kind: FileKind, name: string): string {
    if (!isFileName(kind, name))
      throw new CairnError("invalid_id", `not a name of a file of ${kind}: ${JSON.stringify(name.slice(0, 80))}`);
    if (kind === "config") return `${this.#prefix}config`;
    return kind === "data" ? `${this.#prefix}data/${name.slice(0, 2)}/${name}` : `${this.#prefix}${kind}/${name}`;
  }

  #isOurs(key: string): boolean {
    const [kind, name] = [key.slice(this.#prefix.length).split("/")[0], key.slice(key.lastIndexOf("/") + 1)];
    return (kind === "data" || kind === "index") && isFileName(kind, name) && key === this.#key(kind, name);
  }
}

/**
 * Opens the location after `s3:`. Credentials and region come from the environment and AWS's files, certificates from
 * `AWS_CA_BUNDLE` or `RESTIC_CACERT`; see also `CAIRN_S3_ADDRESSING` (`path`, `host`) and `CAIRN_S3_ANONYMOUS=1`. With
 * `create` it tests at once whether conditional writes work.
 */
export async function openS3Storage(rest: string, options: OpenStorageOptions = {}): Promise<S3Storage> {
  const env = options.env ?? process.env;
  const addressing = env["CAIRN_S3_ADDRESSING"] || undefined;
  if (addressing !== undefined && addressing !== "path" && addressing !== "host")
    throw new CairnError("usage", `CAIRN_S3_ADDRESSING is ${JSON.stringify(addressing)}; expected path or host`);
  const place = parseS3Location(rest);
  const anonymous = env["CAIRN_S3_ANONYMOUS"] === "1";
  const settings = anonymous ? { credentials: null, region: findS3Region(env) } : findS3Settings(env);
  const bundle = env["AWS_CA_BUNDLE"] || env["RESTIC_CACERT"] || undefined;
  const caFile = bundle === undefined ? undefined : resolve(options.cwd ?? process.cwd(), bundle);
  const calls = options.limits?.calls;
  const connections = calls === undefined ? undefined : Math.max(CONNECTIONS, calls);
  const storage = await S3Storage.open({ place, ...settings, addressing, caFile, connections });
  if (options.create !== true) return storage;
  try {
    await storage.conditionalWrites({ signal: options.signal }).catch(unlessItMayPass);
    return storage;
  } catch (error) {
    await storage.close();
    throw error;
  }
}

interface Look {
  readonly doing: string;
  readonly signal: AbortSignal | undefined;
}

/** Ignores a temporary error: this early test is repeated when its result is needed. */
function unlessItMayPass(error: unknown): void {
  if (!(error instanceof CairnError) || !error.retryable) throw error;
}

/** Returns the position of an answer's bytes and the whole size; null if the answer states neither. */
function rangeOf(answer: S3Answer): { first: number | null; total: number | null } | null {
  const match = /^bytes (?:(\d{1,15})-\d{1,15}|\*)\/(\d{1,15}|\*)$/.exec(answer.headers["content-range"] ?? "");
  if (match === null) return null;
  return {
    first: match[1] === undefined ? null : Number(match[1]),
    total: match[2] === "*" ? null : Number(match[2]),
  };
}

function beyond(range: ByteRange, size: number | null, doing: string): CairnError {
  const wanted = `bytes ${range.offset} to ${range.offset + range.length} were wanted`;
  const there = size === null ? "the file is shorter" : `the file has ${size} bytes`;
  return new CairnError("damaged", `${doing}: ${there}; ${wanted}`);
}

function wholeOf(body: HttpBody): Uint8Array {
  return body instanceof Uint8Array ? body : readRegular(body.file);
}
