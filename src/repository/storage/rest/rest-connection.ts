import { STATUS_CODES, type IncomingMessage } from "node:http";
import { CairnError, type ErrorCode } from "../../../errors.ts";
import { FULL_HINT } from "../storage.ts";
import { HttpConnection, type HttpBody, type HttpConnectionOptions, withoutSecrets } from "../http-connection.ts";

export interface RestOptions extends HttpConnectionOptions {
  /** Replace the user and password of the address. */
  user?: string;
  password?: string;
}

export interface RestRequest {
  method: "GET" | "HEAD" | "POST" | "DELETE";
  /** Relative to the repository's address. */
  path: string;
  headers?: Record<string, string>;
  body?: HttpBody;
  /** The begin of messages: `cannot read pack 1a2b3c4d`. */
  doing: string;
  /** Ends the request with `interrupted`. Commits have no signal. */
  signal?: AbortSignal | undefined;
}

const REASON_BYTES = 512;
const DRAIN_BYTES = 64 << 10;

/** Splits the address of a repository; `location` has no secrets. Throws `usage`. */
export function parseRestAddress(address: string): { url: URL; user: string; password: string; location: string } {
  const text = address.startsWith("rest:") ? address.slice(5) : address;
  const wrong = (why: string): CairnError =>
    new CairnError("usage", `the repository's address ${why}`, {
      hint: "an address looks like rest:https://user:password@host:8000/path/",
    });
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    // The text may contain a password, so the message does not repeat it.
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

/** Requests to a REST server for restic. Every failure is a CairnError without secrets. */
export class RestConnection {
  readonly location: string;
  readonly #http: HttpConnection;
  readonly #path: string;
  readonly #headers: Record<string, string> = { accept: "*/*", "accept-encoding": "identity", "user-agent": "cairn" };
  readonly #secrets: string[] = [];

  constructor(address: string, options: RestOptions) {
    const given = parseRestAddress(address);
    this.location = given.location;
    this.#path = given.url.pathname;
    const [user, password] = [options.user ?? given.user, options.password ?? given.password];
    if (user !== "" || password !== "") {
      if (user.includes(":")) throw new CairnError("usage", "the user's name must not have a colon in it");
      const encoded = Buffer.from(`${user}:${password}`).toString("base64");
      this.#headers["authorization"] = `Basic ${encoded}`;
      this.#secrets.push(encoded, password);
    }
    this.#http = new HttpConnection(given.url, given.location, options);
  }

  /** Sends a request and gives the answer, of any status, to `read`, which need not read the body. */
  async exchange<T>(request: RestRequest, read: (answer: IncomingMessage) => Promise<T>): Promise<T> {
    const { body } = request;
    const headers: Record<string, string> = { ...this.#headers, ...request.headers };
    if (request.method === "POST") {
      headers["content-type"] = "application/octet-stream";
      headers["content-length"] = String(body === undefined ? 0 : body instanceof Uint8Array ? body.length : body.size);
    }
    return this.#http.exchange({ ...request, path: this.#path + request.path, headers }, async (answer) => {
      const result = await read(answer);
      await drain(answer);
      return result;
    });
  }

  /** Returns the error for an answer. Reads a short reason from its body. */
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

  /** Closes the connections, also those in use. */
  close(): void {
    this.#http.close();
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
    const [line = ""] = text.slice(0, REASON_BYTES).split("\n");
    return withoutSecrets(line, this.#secrets)
      .replaceAll(/[^\x20-\x7e]/g, "?")
      .slice(0, 200)
      .trim();
  }
}

/** A connection is kept only if the answer is read to its end. If much is left, a new connection is cheaper. */
async function drain(answer: IncomingMessage): Promise<void> {
  if (answer.readableEnded || answer.destroyed) return;
  let size = 0;
  for await (const chunk of answer) {
    size += (chunk as Buffer).length;
    if (size > DRAIN_BYTES) break;
  }
}

function meaningOf(status: number): { code: ErrorCode; hint?: string } {
  if (status === 401)
    return {
      code: "permission",
      hint: "give a user and password that the server knows: in the address, or by RESTIC_REST_USERNAME and RESTIC_REST_PASSWORD",
    };
  if (status === 403) {
    return { code: "permission", hint: "the server may be append-only, or the repository may belong to another user" };
  }
  if (status === 404) return { code: "not_found" };
  if (status === 413) return { code: "refused", hint: "the file is larger than the server accepts" };
  if (status === 416) return { code: "damaged" };
  if (status === 423 || status === 429 || status === 503) return { code: "busy" };
  if (status === 507) return { code: "no_space", hint: FULL_HINT };
  // 400 to an upload: the server received other bytes than were sent, or fewer.
  if (status === 400 || status === 408 || status >= 500) return { code: "io" };
  if (status >= 300 && status < 400) {
    return { code: "unsupported", hint: "use the address to which the server redirects; redirects are not followed" };
  }
  return { code: "unsupported", hint: "check the address: the server may not be a REST server for restic" };
}
