import { createReadStream, readFileSync } from "node:fs";
import {
  Agent as PlainAgent,
  request as plainRequest,
  STATUS_CODES,
  type ClientRequest,
  type IncomingMessage,
} from "node:http";
import { Agent as SecureAgent, request as secureRequest, type AgentOptions } from "node:https";
import { pipeline } from "node:stream/promises";
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { CairnError, throwIfAborted, toCairnError, type ErrorCode } from "../../errors.ts";

export interface RestOptions {
  /** Instead of those in the address. */
  user?: string;
  password?: string;
  /** PEM file with the certificates that vouch for the server, instead of the usual ones. */
  caFile?: string;
  /** Requests at once; more wait. Default 5. */
  connections?: number;
  /** A connection on which nothing moves for so long is given up. Default two minutes. */
  silenceMs?: number;
  signal?: AbortSignal;
}

export interface RestRequest {
  method: "GET" | "HEAD" | "POST" | "DELETE";
  /** Below the repository's address. */
  path: string;
  headers?: Record<string, string>;
  body?: Uint8Array | { file: string; size: number };
  /** For messages: `cannot read data 1a2b3c4d`. */
  doing: string;
}

const CONNECTIONS = 5;
const SILENCE_MS = 120_000;
const REASON_BYTES = 512;
const DRAIN_BYTES = 64 << 10;

/** The address of a repository without what is secret in it, and its parts. Throws `usage`. */
export function parseRestAddress(address: string): { url: URL; user: string; password: string; location: string } {
  const text = address.startsWith("rest:") ? address.slice(5) : address;
  const wrong = (why: string): CairnError =>
    new CairnError("usage", `the repository's address ${why}`, {
      hint: "it looks like rest:https://user:password@host:8000/path/",
    });
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    // The text may have a password in it, so it is not repeated.
    throw wrong("cannot be understood");
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") throw wrong("must begin with http:// or https://");
  if (url.search !== "" || url.hash !== "") throw wrong("must end with a path, without ? and #");
  let user: string;
  let password: string;
  try {
    [user, password] = [decodeURIComponent(url.username), decodeURIComponent(url.password)];
  } catch {
    throw wrong("has a user or password with a lone %; write it as %25");
  }
  url.username = "";
  url.password = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return { url, user, password, location: `rest:${url.href}` };
}

/** Requests to one server over a bounded number of connections that are kept. Every failure is a CairnError. */
export class RestConnection {
  readonly location: string;
  readonly connections: number;
  readonly #url: URL;
  readonly #headers: Record<string, string> = { accept: "*/*", "accept-encoding": "identity", "user-agent": "cairn" };
  readonly #secrets: string[] = [];
  readonly #agent: PlainAgent;
  readonly #silenceMs: number;
  readonly #signal: AbortSignal | undefined;

  constructor(address: string, options: RestOptions) {
    const { url, user, password, location } = parseRestAddress(address);
    this.#url = url;
    this.location = location;
    this.connections = options.connections ?? CONNECTIONS;
    this.#silenceMs = options.silenceMs ?? SILENCE_MS;
    this.#signal = options.signal;
    const credentials = { user: options.user ?? user, password: options.password ?? password };
    if (credentials.user !== "" || credentials.password !== "") {
      if (credentials.user.includes(":")) throw new CairnError("usage", "the user's name must not have a colon in it");
      const encoded = Buffer.from(`${credentials.user}:${credentials.password}`).toString("base64");
      this.#headers["authorization"] = `Basic ${encoded}`;
      this.#secrets.push(encoded, credentials.password);
    }
    const kept: AgentOptions = { keepAlive: true, maxSockets: this.connections, scheduling: "lifo" };
    // Said outright: an environment variable could switch the check of certificates off otherwise.
    const checked = { ...kept, rejectUnauthorized: true, secureContext: secureContext(url, options.caFile) };
    this.#agent = url.protocol === "https:" ? new SecureAgent(checked) : new PlainAgent(kept);
  }

  /** Sends a request and hands its answer, of any status, to `read`, which need not read the answer's body. */
  async exchange<T>(request: RestRequest, read: (answer: IncomingMessage) => Promise<T>): Promise<T> {
    throwIfAborted(this.#signal);
    for (let again = false; ; again = true) {
      const sent = this.#send(request);
      try {
        const answer = await sent.answer;
        const result = await read(answer);
        await drain(answer);
        if (!sent.request.writableFinished) sent.request.destroy();
        return result;
      } catch (error) {
        sent.request.destroy();
        if (!again && isStale(request, sent, error)) continue;
        throw this.#error(sent.failure() ?? error, request.doing);
      }
    }
  }

  /** The error that an answer stands for. Reads a short reason from its body. */
  async failure(answer: IncomingMessage, doing: string): Promise<CairnError> {
    const status = answer.statusCode ?? 0;
    const reason = await this.#reason(answer);
    const said = `${status} ${answer.statusMessage || STATUS_CODES[status] || ""}`.trim();
    const { code, hint } = meaningOf(status);
    const details: Record<string, unknown> = { httpStatus: status };
    const wait = Number(answer.headers["retry-after"]);
    if (answer.headers["retry-after"] !== undefined && Number.isFinite(wait) && wait >= 0)
      details["retryAfterMs"] = Math.min(wait, 3600) * 1000;
    const text = `${doing} at ${this.location}: the server answered ${said}${reason === "" ? "" : ` (${reason})`}`;
    return new CairnError(code, text, hint === undefined ? { details } : { details, hint });
  }

  /** Ends the connections that nobody uses. Those in use go on. */
  close(): void {
    this.#agent.destroy();
  }

  #send(request: RestRequest): Sent {
    const { body } = request;
    const headers: Record<string, string> = { ...this.#headers, ...request.headers };
    if (request.method === "POST") {
      headers["content-type"] = "application/octet-stream";
      headers["content-length"] = String(body === undefined ? 0 : body instanceof Uint8Array ? body.length : body.size);
    }
    const secure = this.#url.protocol === "https:";
    let failure: unknown;
    const sent = (secure ? secureRequest : plainRequest)({
      agent: this.#agent,
      method: request.method,
      protocol: this.#url.protocol,
      host: this.#url.hostname.replace(/^\[|\]$/g, ""),
      port: this.#url.port || (secure ? 443 : 80),
      path: this.#url.pathname + request.path,
      headers,
      timeout: this.#silenceMs,
      ...(this.#signal === undefined ? {} : { signal: this.#signal }),
    });
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const fail = (error: unknown): void => {
      failure ??= error;
      sent.destroy();
      reject(error);
    };
    let answered = false;
    sent.on("response", (answer) => {
      answered = true;
      resolve(answer);
    });
    // Also after the answer has come: a server that refuses early may close while we still send.
    sent.on("error", reject);
    sent.on("timeout", () =>
      fail(new CairnError("io", `${request.doing} at ${this.location}: silence for ${this.#silenceMs / 1000} s`)),
    );
    if (body === undefined || body instanceof Uint8Array) sent.end(body);
    else sendFile(sent, body).catch((error: unknown) => (error instanceof CairnError ? fail(error) : reject(error)));
    return { request: sent, answer: promise, failure: () => failure, answered: () => answered };
  }

  async #reason(answer: IncomingMessage): Promise<string> {
    if (!/^text\/plain|^application\/json/.test(answer.headers["content-type"] ?? "")) return "";
    let text = "";
    try {
      for await (const chunk of answer) {
        text += (chunk as Buffer).toString("latin1");
        if (text.length >= REASON_BYTES) break;
      }
    } catch {
      return "";
    }
    let line = (text.slice(0, REASON_BYTES).split("\n")[0] ?? "").replaceAll(/[^\x20-\x7e]/g, "?").slice(0, 200);
    for (const secret of this.#secrets) if (secret !== "") line = line.replaceAll(secret, "***");
    return line.trim();
  }

  #error(error: unknown, doing: string): CairnError {
    if (this.#signal?.aborted === true)
      return new CairnError("interrupted", `${doing} at ${this.location}: stopped by the caller`, { cause: error });
    if (error instanceof CairnError) return error;
    const { code = "", message } = error as NodeJS.ErrnoException;
    // Where several addresses were tried, there is only a code.
    const text = `${doing} at ${this.location}: ${message || code || "it failed"}`;
    if (/CERT|SELF_SIGNED|UNABLE_TO_|_CRL|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH/.test(code)) {
      return new CairnError("refused", `${text} (the server's certificate)`, {
        hint: "name the file with the certificate that vouches for the server in RESTIC_CACERT",
        cause: error,
      });
    }
    if (code === "EPROTO" || code.startsWith("ERR_SSL")) {
      const hint = "http:// for a server without TLS, https:// for one with it";
      return new CairnError("io", text, { cause: error, hint });
    }
    return new CairnError("io", text, { cause: error });
  }
}

interface Sent {
  request: ClientRequest;
  answer: Promise<IncomingMessage>;
  /** What ended the request from this side. */
  failure(): unknown;
  answered(): boolean;
}

function secureContext(url: URL, caFile: string | undefined): SecureContext | undefined {
  if (url.protocol !== "https:") return undefined;
  if (caFile === undefined)
    return createSecureContext({ ca: [...getCACertificates("default"), ...getCACertificates("system")] });
  let pem: string;
  try {
    pem = readFileSync(caFile, "utf8");
  } catch (error) {
    throw toCairnError(error, `the certificates in ${caFile}`);
  }
  try {
    if (pem.includes("-----BEGIN CERTIFICATE-----")) return createSecureContext({ ca: pem });
  } catch (error) {
    throw new CairnError("usage", `the certificates in ${caFile}: ${(error as Error).message}`, { cause: error });
  }
  throw new CairnError("usage", `${caFile} has no certificate in PEM form`);
}

async function sendFile(sent: ClientRequest, body: { file: string; size: number }): Promise<void> {
  if (body.size === 0) {
    sent.end();
    return;
  }
  const file = createReadStream(body.file, { end: body.size - 1, highWaterMark: 256 << 10 });
  let count = 0;
  let unreadable: unknown;
  file.on("data", (chunk) => (count += chunk.length));
  file.on("error", (error) => (unreadable ??= error));
  try {
    await pipeline(file, sent, { end: false });
  } catch (error) {
    throw unreadable === undefined ? error : toCairnError(unreadable, `cannot send ${body.file}`);
  }
  if (count !== body.size)
    throw new CairnError("damaged", `${body.file} became shorter while it was sent: ${count} of ${body.size} bytes`);
  sent.end();
}

/** A connection is kept when its answer was read to the end; more than a little is not worth that. */
async function drain(answer: IncomingMessage): Promise<void> {
  if (answer.readableEnded || answer.destroyed) return;
  let size = 0;
  for await (const chunk of answer) {
    size += (chunk as Buffer).length;
    if (size > DRAIN_BYTES) break;
  }
}

/** A kept connection that the server had ended just then: the request was not seen, and asking again changes nothing. */
function isStale(request: RestRequest, sent: Sent, error: unknown): boolean {
  if (!sent.request.reusedSocket || sent.answered() || (request.method !== "GET" && request.method !== "HEAD"))
    return false;
  const { code } = error as NodeJS.ErrnoException;
  return code === "ECONNRESET" || code === "EPIPE";
}

function meaningOf(status: number): { code: ErrorCode; hint?: string } {
  if (status === 401) return { code: "permission", hint: "give a user and password that the server knows" };
  if (status === 403) {
    return { code: "permission", hint: "the server may be append-only, or the repository somebody else's" };
  }
  if (status === 404) return { code: "not_found" };
  if (status === 413) return { code: "refused", hint: "the file is larger than the server takes" };
  if (status === 416) return { code: "damaged" };
  if (status === 423 || status === 429 || status === 503) return { code: "busy" };
  if (status === 507) return { code: "no_space" };
  // 400 to an upload: other bytes arrived than were sent, or they were cut on the way.
  if (status === 400 || status === 408 || status >= 500) return { code: "io" };
  if (status >= 300 && status < 400) {
    return { code: "unsupported", hint: "use the address that the server itself has; redirects are not followed" };
  }
  return { code: "unsupported", hint: "the address may not be that of a REST server for restic" };
}
