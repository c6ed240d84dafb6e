import { createReadStream } from "node:fs";
import { Agent as PlainAgent, request as plainRequest, type ClientRequest, type IncomingMessage } from "node:http";
import { Agent as SecureAgent, request as secureRequest } from "node:https";
import type { Socket } from "node:net";
import { pipeline } from "node:stream/promises";
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { CairnError, reworded, throwIfAborted, toCairnError } from "../../errors.ts";
import { ioctl } from "../../fs/linux/reflink.ts";
import { newArena } from "../../native.ts";
import type { SaveOptions } from "./storage.ts";
import { readRegular } from "../../fs/regular-file.ts";

export interface HttpConnectionOptions {
  /** Concurrent requests; more wait. Default 5. */
  connections?: number | undefined;
  /** Milliseconds without any data after which a connection is closed. Default two minutes. */
  silenceMs?: number | undefined;
  /** PEM file with the CA certificates of the server, instead of the system's. */
  caFile?: string | undefined;
}

/** A request's body: bytes in memory, or the first `size` bytes of a file. */
export type HttpBody = Uint8Array | FileBody;

interface FileBody extends Pick<SaveOptions, "onSent"> {
  readonly file: string;
  readonly size: number;
}

export interface HttpRequest {
  readonly method: "GET" | "HEAD" | "POST" | "PUT" | "DELETE";
  /** Path and query, percent-encoded. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: HttpBody | undefined;
  /** The begin of messages: `cannot read pack 1a2b3c4d`. */
  readonly doing: string;
  /** Ends the request with `interrupted`. Commits and clean-ups have no signal. */
  readonly signal?: AbortSignal | undefined;
}

export const CONNECTIONS = 5;
const SILENCE_MS = 120_000;
/**
 * Shorter than most servers keep an idle connection, so that a server seldom closes a connection just when it is used.
 */
const IDLE_MS = 15_000;
const CHUNK_BYTES = 256 << 10;
const SENT_EVERY_MS = 200;
const TIOCOUTQ = 0x5411;
const VOUCHERS_HINT =
  "set RESTIC_CACERT to a PEM file with the CA certificates of the server (for a bucket also AWS_CA_BUNDLE, which comes first)";

/** Requests to one server over a limited number of kept connections. Every failure is a CairnError. */
export class HttpConnection {
  readonly #origin: URL;
  readonly #location: string;
  readonly #agent: PlainAgent;
  readonly #silenceMs: number;
  #wasReached = false;

  /** `location` replaces the address in messages. */
  constructor(origin: URL, location: string, options: HttpConnectionOptions = {}) {
    this.#origin = origin;
    this.#location = location;
    this.#silenceMs = options.silenceMs ?? SILENCE_MS;
    const maxSockets = options.connections ?? CONNECTIONS;
    const kept = { keepAlive: true, maxSockets, scheduling: "lifo", timeout: IDLE_MS } as const;
    this.#agent =
      origin.protocol === "https:"
        ? // Set explicitly: otherwise an environment variable could turn the check of certificates off.
          new SecureAgent({ ...kept, rejectUnauthorized: true, secureContext: secureContext(options.caFile) })
        : new PlainAgent(kept);
  }

  /**
   * Sends a request and gives the answer, of any status, to `read`, which reads as much of the body as it needs. If the
   * server had just closed the connection, a GET or HEAD is sent once more.
   */
  async exchange<T>(request: HttpRequest, read: (answer: IncomingMessage) => Promise<T>): Promise<T> {
    const { signal } = request;
    for (let again = false; ; again = true) {
      throwIfAborted(signal);
      const sent = this.#send(request);
      try {
        const answer = await sent.answer;
        this.#wasReached = true;
        const result = await read(answer);
        if (!answer.readableEnded || !sent.request.writableFinished) sent.request.destroy();
        return result;
      } catch (error) {
        sent.request.destroy();
        if (!again && isStale(request, sent, error)) continue;
        throw this.#error(sent.failure() ?? error, request.doing, signal);
      }
    }
  }

  /** Closes the connections, also those in use. A later request opens its own connection and closes it. */
  close(): void {
    this.#agent.maxFreeSockets = 0;
    this.#agent.destroy();
  }

  #send(request: HttpRequest): Sent {
    const { body, signal } = request;
    const secure = this.#origin.protocol === "https:";
    const sent = (secure ? secureRequest : plainRequest)({
      agent: this.#agent,
      method: request.method,
      protocol: this.#origin.protocol,
      host: this.#origin.hostname.replace(/^\[|\]$/g, ""),
      port: this.#origin.port || (secure ? 443 : 80),
      path: request.path,
      headers: request.headers,
      timeout: this.#silenceMs,
      ...(signal === undefined ? {} : { signal }),
    });
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    let failure: unknown;
    let answered = false;
    const fail = (error: unknown): void => {
      failure ??= error;
      sent.destroy();
      reject(error);
    };
    sent.on("response", (answer) => {
      answered = true;
      resolve(answer);
    });
    // Can also come after the answer: a server that refuses early may close while the body is being sent.
    sent.on("error", reject);
    sent.on("timeout", () =>
      fail(new CairnError("io", `${request.doing} at ${this.#location}: no data for ${this.#silenceMs / 1000} s`)),
    );
    if (body === undefined || body instanceof Uint8Array) sent.end(body);
    else sendFile(sent, body).catch((error: unknown) => (error instanceof CairnError ? fail(error) : reject(error)));
    return { request: sent, answer: promise, failure: () => failure, answered: () => answered };
  }

  #error(error: unknown, doing: string, signal: AbortSignal | undefined): CairnError {
    const text = `${doing} at ${this.#location}`;
    if (signal?.aborted === true) return new CairnError("interrupted", `${text}: stopped by the caller`);
    if (error instanceof CairnError)
      return error.message.startsWith(doing) ? error : reworded(error, { message: `${text}: ${error.message}` });
    const code = (error as NodeJS.ErrnoException).code ?? "";
    // If several addresses of a host were tried, the error has only a code.
    const message = (error instanceof Error ? error.message : String(error)) || code;
    if (/CERT|SELF_SIGNED|UNABLE_TO_|_CRL|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH/.test(code)) {
      // Node's advice is for the person who starts Node.
      const problem = message.replace(/; [^;]*--use-system-ca.*$/, "");
      return new CairnError("refused", `${text}: ${problem} (the server's certificate)`, {
        ...(/SELF_SIGNED|UNABLE_TO_|INVALID_CA|UNTRUSTED/.test(code) ? { hint: VOUCHERS_HINT } : {}),
        cause: error,
      });
    }
    if (code === "EPROTO" || code.startsWith("ERR_SSL")) {
      // Keeps OpenSSL's words; drops its numbers and source places.
      const reason = /:SSL routines:[^:]*:([^:]+):/.exec(message)?.[1] ?? message;
      // A server that answered before has working TLS: the problem is temporary.
      return new CairnError(
        this.#wasReached ? "io" : "unsupported",
        `${text}: no TLS connection with the server: ${reason}`,
        {
          hint: "use http:// for a server without TLS, https:// for a server with TLS",
          cause: error,
        },
      );
    }
    // A parser error holds the bytes that it could not parse; they must not reach a log.
    const cause = code.startsWith("HPE_") ? new Error(message) : error;
    return new CairnError("io", `${text}: ${message}`, { cause });
  }
}

interface Sent {
  request: ClientRequest;
  answer: Promise<IncomingMessage>;
  /** Returns the error with which this side ended the request. */
  failure(): unknown;
  answered(): boolean;
}

/** A secret of fewer characters may also be part of a word. */
const SHORT = 8;
const IN_WORD = /[\p{L}\p{N}]/u;

/** Replaces secrets in a server's text by `***`; short secrets only if they are not part of a word. */
export function withoutSecrets(text: string, secrets: readonly string[]): string {
  return secrets
    .filter((secret) => secret !== "")
    .reduce(
      (shown, secret) =>
        shown.replaceAll(secret, (found, at: number, all: string) => {
          const beside = all.charAt(at - 1) + all.charAt(at + secret.length);
          return secret.length < SHORT && IN_WORD.test(beside) ? found : "***";
        }),
      text,
    );
}

function secureContext(caFile: string | undefined): SecureContext {
  if (caFile === undefined)
    return createSecureContext({ ca: [...getCACertificates("default"), ...getCACertificates("system")] });
  let pem: string;
  try {
    pem = readRegular(caFile, { named: true }).toString("utf8");
  } catch (error) {
    throw toCairnError(error, `cannot read the certificates in ${caFile}`);
  }
  try {
    if (pem.includes("-----BEGIN CERTIFICATE-----")) return createSecureContext({ ca: pem });
  } catch (error) {
    throw new CairnError("usage", `cannot use the certificates in ${caFile}: ${(error as Error).message}`, {
      cause: error,
    });
  }
  throw new CairnError("usage", `${caFile} has no certificate in PEM form`);
}

/** Bytes in the kernel that the other side of a connection has not acknowledged. */
function unsentIn(socket: Socket | null): number {
  const { fd = -1 } = (socket as unknown as { _handle?: { fd?: number } } | null)?._handle ?? {};
  const answer = newArena(4);
  return fd >= 0 && ioctl(fd, TIOCOUTQ, answer.address) >= 0 ? new Int32Array(answer.bytes.buffer)[0]! : 0;
}

async function sendFile(sent: ClientRequest, body: FileBody): Promise<void> {
  if (body.size === 0) {
    sent.end();
    return;
  }
  const file = createReadStream(body.file, { end: body.size - 1, highWaterMark: CHUNK_BYTES });
  let count = 0;
  let unreadable: unknown;
  file.on("data", (chunk) => (count += chunk.length));
  file.on("error", (error) => (unreadable ??= error));
  const tell = (): void => body.onSent?.(Math.max(0, count - sent.writableLength - unsentIn(sent.socket)));
  const timer = body.onSent && setInterval(tell, SENT_EVERY_MS);
  sent.once("close", () => clearInterval(timer));
  try {
    await pipeline(file, sent, { end: false });
  } catch (error) {
    throw unreadable === undefined ? error : toCairnError(unreadable, `cannot send ${body.file}`);
  }
  if (count !== body.size)
    throw new CairnError("damaged", `${body.file} became shorter while it was sent: ${count} of ${body.size} bytes`);
  sent.end();
}

/**
 * True if the server had just closed a kept connection: it did not see the request, and sending it again changes
 * nothing.
 */
function isStale(request: HttpRequest, sent: Sent, error: unknown): boolean {
  if (!sent.request.reusedSocket || sent.answered() || (request.method !== "GET" && request.method !== "HEAD"))
    return false;
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ECONNRESET" || code === "EPIPE";
}
