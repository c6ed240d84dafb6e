import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { AwsV4Signer } from "aws4fetch";
import { CairnError, reworded, throwIfAborted } from "../../../errors.ts";
import { HttpConnection, type HttpBody, type HttpConnectionOptions, type HttpRequest } from "../http-connection.ts";
import { Slots } from "../limited.ts";
import { checkCredentials, type S3Credentials } from "./credentials.ts";
import { BY_PATH_HINT, errorOfAnswer, failureOf, isWrongRegion, type S3Answer } from "./errors.ts";
import { regionOfHost, S3Addresses, s3LocationOf, type S3Addressing, type S3Place } from "./location.ts";

export interface S3Request {
  readonly method: HttpRequest["method"];
  /** Key of the object; null for the bucket itself. */
  readonly key: string | null;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: HttpBody;
  /** Digest of the body, lower-case hex; required for a file. The server checks the body against it. */
  readonly sha256?: string;
  /** Most bytes of a successful answer's body. Default 64 KiB. */
  readonly limit?: number;
  /** Statuses other than 2xx that the caller handles; all others throw. */
  readonly accept?: readonly number[];
  readonly doing: string;
  /** Ends the request with `interrupted`. Commits and clean-ups have no signal. */
  readonly signal?: AbortSignal | undefined;
}

export interface S3RequestsOptions extends HttpConnectionOptions {
  readonly place: S3Place;
  /** Null: requests are not signed. */
  readonly credentials: S3Credentials | null;
  /** Null: the region in the host's name, else `us-east-1` until the server names another. */
  readonly region: string | null;
  readonly addressing: S3Addressing;
}

const EMPTY_SHA256 = createHash("sha256").digest("hex");
const SMALL_ANSWER = 64 << 10;
/** Memory for an answer up to this long is reserved at once; for a longer one piece by piece. */
const AT_ONCE = 64 << 20;
export const CONNECTIONS = 16;

/** Signed requests to one bucket. Answers are read whole, up to a limit; errors are CairnErrors without secrets. */
export class S3Requests {
  readonly location: string;
  readonly connections: number;
  readonly #signer: typeof AwsV4Signer | null;
  readonly #options: S3RequestsOptions;
  readonly #addresses: S3Addresses;
  readonly #http: HttpConnection;
  /** A request is signed only when it is sent: a signature is valid for minutes. */
  readonly #slots: Slots;
  readonly #keys = new Map<string, ArrayBuffer>();
  /** True if no region was given: then the server's region is used. */
  readonly #regionIsGuessed: boolean;
  #region: string;

  private constructor(options: S3RequestsOptions, signer: typeof AwsV4Signer | null) {
    this.#options = options;
    this.#signer = signer;
    this.location = s3LocationOf(options.place);
    this.connections = options.connections ?? CONNECTIONS;
    this.#slots = new Slots(this.connections);
    this.#addresses = new S3Addresses(options.place, options.addressing);
    this.#http = new HttpConnection(this.#addresses.origin, this.location, {
      ...options,
      connections: this.connections,
    });
    const region = options.region ?? regionOfHost(options.place.endpoint.hostname);
    this.#regionIsGuessed = region === null;
    this.#region = region ?? "us-east-1";
  }

  /** Loads the code that signs requests. Sends nothing. */
  static async open(options: S3RequestsOptions): Promise<S3Requests> {
    if (options.credentials !== null) checkCredentials(options.credentials);
    if (options.region !== null && !/^[A-Za-z0-9-]{1,64}$/.test(options.region))
      throw new CairnError("usage", `${JSON.stringify(options.region.slice(0, 80))} is not an S3 region`);
    const signer = options.credentials === null ? null : (await import("aws4fetch")).AwsV4Signer;
    return new S3Requests(options, signer);
  }

  /** Returns the answer to a request. Throws unless its status is 2xx or in `accept`. */
  async send(request: S3Request): Promise<S3Answer> {
    let { answer, region } = await this.#ask(request);
    if (answer.status >= 300 && this.#regionIsGuessed) {
      const failure = failureOf(answer);
      // A concurrent request may have learned the region meanwhile.
      if (isWrongRegion(answer, failure) && failure.region !== null && failure.region !== region) {
        this.#region = failure.region;
        ({ answer, region } = await this.#ask(request));
      }
    }
    if (isWanted(request, answer)) return answer;
    throw this.errorOf(answer, request.doing, region);
  }

  /** Returns the error for an answer, also for one that `send` accepted. */
  errorOf(answer: S3Answer, doing: string, region = this.#region): CairnError {
    const { credentials, addressing } = this.#options;
    const secrets = [credentials?.secretAccessKey, credentials?.sessionToken].filter((text) => text !== undefined);
    const context = { doing, location: this.location, region, addressing, secrets, now: Date.now() };
    return errorOfAnswer(answer, context);
  }

  close(): void {
    this.#http.close();
  }

  /** `region`: the region in the signature. */
  async #ask(request: S3Request): Promise<{ answer: S3Answer; region: string }> {
    return this.#slots.run(async () => {
      const path = this.#addresses.pathOf(request.key, request.query);
      const region = this.#region;
      const headers = await this.#headers(request, path, region);
      // The caller may have aborted while the request waited or was signed.
      throwIfAborted(request.signal);
      const { method, body, doing, signal } = request;
      try {
        const sent = { method, path, headers, body, doing, signal };
        return { answer: await this.#http.exchange(sent, (answer) => this.#read(answer, request)), region };
      } catch (error) {
        throw this.#options.addressing === "host" ? withByPath(error) : error;
      }
    });
  }

  async #headers(request: S3Request, path: string, region: string): Promise<Record<string, string>> {
    const { credentials } = this.#options;
    const headers: Record<string, string> = {
      ...request.headers,
      "user-agent": "cairn",
      "accept-encoding": "identity",
    };
    const { body } = request;
    if (body !== undefined) headers["content-length"] = String(body instanceof Uint8Array ? body.length : body.size);
    else if (request.method === "PUT" || request.method === "POST") headers["content-length"] = "0";
    if (credentials === null || this.#signer === null) return headers;
    headers["x-amz-content-sha256"] = hashOf(request);
    const signed = await new this.#signer({
      method: request.method,
      url: new URL(path, this.#addresses.origin).href,
      headers,
      ...credentials,
      service: "s3",
      region,
      cache: this.#keys,
    }).sign();
    for (const [name, value] of signed.headers) headers[name] = value;
    return headers;
  }

  async #read(answer: IncomingMessage, request: S3Request): Promise<S3Answer> {
    const status = answer.statusCode ?? 0;
    const good = status >= 200 && status < 300;
    // The server sent the whole file instead of the range: the caller decides.
    const unasked = status === 200 && request.headers?.["range"] !== undefined;
    const whole = good && !unasked && request.method !== "HEAD";
    const body = await readBody(answer, { limit: good ? (request.limit ?? SMALL_ANSWER) : SMALL_ANSWER, whole });
    if (typeof body !== "string") return { status, headers: answer.headers, body };
    throw new CairnError("io", `${request.doing} at ${this.location}: ${body}`);
  }
}

/** Adds a hint if no host has the bucket in its name. */
function withByPath(error: unknown): unknown {
  if (!(error instanceof CairnError) || (error.cause as NodeJS.ErrnoException | undefined)?.code !== "ENOTFOUND")
    return error;
  return reworded(error, { hint: BY_PATH_HINT, cause: error.cause });
}

function isWanted(request: S3Request, answer: S3Answer): boolean {
  return (answer.status >= 200 && answer.status < 300) || request.accept?.includes(answer.status) === true;
}

function hashOf(request: S3Request): string {
  if (request.sha256 !== undefined) return request.sha256;
  if (request.body === undefined) return EMPTY_SHA256;
  if (request.body instanceof Uint8Array) return createHash("sha256").update(request.body).digest("hex");
  throw new CairnError("internal", "the body of a request is a file and its hash is not given");
}

/** Returns the body, or a text with the problem. Cuts the body at the limit unless `whole`. */
async function readBody(answer: IncomingMessage, wanted: { limit: number; whole: boolean }): Promise<Buffer | string> {
  const { limit, whole } = wanted;
  const said = answer.headers["content-length"];
  const stated = whole && said !== undefined ? Number(said) : null;
  if (stated !== null && !(stated <= limit)) return `the answer has ${said} bytes; at most ${limit} are accepted`;
  const memory = stated !== null && stated <= AT_ONCE ? Buffer.allocUnsafeSlow(stated) : null;
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    if (size + chunk.length > (stated ?? limit)) {
      if (whole) return `the answer is longer than ${stated ?? limit} bytes`;
      break;
    }
    if (memory === null) parts.push(chunk);
    else chunk.copy(memory, size);
    size += chunk.length;
  }
  if (stated !== null && size !== stated) return `the answer ended after ${size} of ${stated} bytes`;
  return memory ?? Buffer.concat(parts);
}
