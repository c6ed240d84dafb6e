import { createHash, createHmac, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/**
 * A small S3 server in this process, for tests that need faults, hostile answers, ignored conditional writes or other
 * regions. It checks signatures and payload hashes with its own code, without aws4fetch.
 */
export interface S3ServerOptions {
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken?: string;
  /** The bucket's region. Signatures for another region are refused with an error that names this region. */
  region?: string;
  /** The server's reaction to `If-None-Match: *` on a write. */
  conditional?: "honoured" | "ignored" | "refused";
  /** True: refuses writes without Content-MD5, as buckets with object lock do. */
  wantsMd5?: boolean;
  /** Keys a page; default 1000. */
  page?: number;
  /** The bucket stands in the host's name, not in the path. */
  hostStyle?: boolean;
}

export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** Answers the request and returns true, or returns false to let the server answer. */
export type Fault = (request: SeenRequest, answer: ServerResponse) => boolean;

interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: Buffer | string;
}

const BUCKET = "bucket";

export class TestingS3Server {
  readonly options: S3ServerOptions;
  readonly objects = new Map<string, Buffer>();
  /** When each object was written. */
  readonly written = new Map<string, number>();
  /** The server's clock. */
  now: () => number = Date.now;
  readonly uploads = new Map<string, { key: string; parts: Map<number, Buffer>; begun: Date }>();
  readonly seen: SeenRequest[] = [];
  /** Called in turn for each request, before the server checks signatures. */
  readonly faults: Fault[] = [];
  /** Awaited after each request is processed, before the server answers. */
  hold: (request: SeenRequest) => Promise<void> | void = () => undefined;
  readonly #server: Server;

  private constructor(options: S3ServerOptions) {
    this.options = options;
    this.#server = createServer((request, answer) => {
      this.#serve(request, answer).catch((error: unknown) => {
        answer.destroy(error instanceof Error ? error : new Error(String(error)));
      });
    });
  }

  static async start(options: S3ServerOptions): Promise<TestingS3Server> {
    const server = new TestingS3Server(options);
    await new Promise<void>((resolve) => server.#server.listen(0, "127.0.0.1", resolve));
    return server;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The bucket's address, in the form that follows `s3:` in a location. */
  get address(): string {
    return `http://127.0.0.1:${this.port}/${BUCKET}`;
  }

  /** Counts the received requests with these methods. */
  count(...methods: string[]): number {
    return this.seen.filter(({ method }) => methods.includes(method)).length;
  }

  /** Answers the next `times` requests of a method with `reply`. */
  fail(method: string, reply: Reply, times = 1): void {
    this.faults.push((request, answer) => {
      if (request.method !== method || times === 0) return false;
      times--;
      send(answer, reply);
      return true;
    });
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #serve(incoming: IncomingMessage, answer: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const url = new URL(incoming.url ?? "/", "http://host");
    const request: SeenRequest = {
      method: incoming.method ?? "",
      path: decodeURIComponent(url.pathname),
      query: url.searchParams,
      headers: incoming.headers,
      body: Buffer.concat(chunks),
    };
    this.seen.push(request);
    if (this.faults.some((fault) => fault(request, answer))) return;
    const refusal = this.#refusal(request, incoming.url ?? "");
    const reply = refusal ?? this.#answer(request);
    const headers = { date: new Date(this.now()).toUTCString(), ...reply.headers };
    const bare = request.method === "HEAD" ? { ...reply, headers, body: "" } : { ...reply, headers };
    await this.hold(request);
    send(answer, bare);
  }

  #refusal(request: SeenRequest, raw: string): Reply | null {
    const authorization = request.headers.authorization ?? "";
    const match =
      /^AWS4-HMAC-SHA256 Credential=([^/]+)\/(\d{8})\/([^/]+)\/s3\/aws4_request, SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
        authorization,
      );
    if (match === null) return errorReply(403, "AccessDenied", "no signature");
    const [, id, date, region, names, signature] = match as unknown as [string, string, string, string, string, string];
    const { accessKeyId, region: wanted = "us-east-1", sessionToken } = this.options;
    if (id !== accessKeyId) return errorReply(403, "InvalidAccessKeyId", "who is that?");
    if (region !== wanted)
      return errorReply(400, "AuthorizationHeaderMalformed", "another region", `<Region>${wanted}</Region>`);
    if (request.headers["x-amz-security-token"] !== sessionToken)
      return errorReply(400, "InvalidToken", "another token");
    const canonical = canonicalRequest(request, raw, names);
    const scope = `${date}/${region}/s3/aws4_request`;
    const hashed = createHash("sha256").update(canonical).digest("hex");
    const text = ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashed].join("\n");
    const key = ["aws4_request", "s3", region, date].reduceRight<Buffer>(
      (k, part) => hmac(k, part),
      Buffer.from(`AWS4${this.options.secretAccessKey}`),
    );
    if (hmac(key, text).toString("hex") !== signature)
      return errorReply(
        403,
        "SignatureDoesNotMatch",
        "calculated another",
        `<CanonicalRequest>${canonical}</CanonicalRequest>`,
      );
    const hash = createHash("sha256").update(request.body).digest("hex");
    if (request.headers["x-amz-content-sha256"] !== hash)
      return errorReply(400, "XAmzContentSHA256Mismatch", "other bytes");
    return null;
  }

  #answer(request: SeenRequest): Reply {
    const path = this.options.hostStyle === true ? request.path.slice(1) : this.#keyInPath(request.path);
    if (this.options.hostStyle === true && !request.headers.host?.startsWith(`${BUCKET}.`)) return noSuchBucket();
    if (path === null) return noSuchBucket();
    if (path === "") return request.query.has("uploads") ? this.#listUploads(request) : this.#list(request);
    if (request.query.has("uploads") || request.query.has("uploadId")) return this.#multipart(request, path);
    if (request.method === "PUT") return this.#put(request, path);
    const object = this.objects.get(path);
    if (request.method === "DELETE") {
      this.objects.delete(path);
      return { status: 204 };
    }
    if (object === undefined) return errorReply(404, "NoSuchKey", "no such key");
    const headers = { "content-length": String(object.length) };
    return request.headers.range === undefined
      ? { status: 200, headers, body: object }
      : ranged(object, request.headers.range);
  }

  #keyInPath(path: string): string | null {
    const [bucket, ...key] = path.slice(1).split("/");
    return bucket === BUCKET ? key.join("/") : null;
  }

  #put(request: SeenRequest, key: string): Reply {
    const { conditional = "honoured", wantsMd5 } = this.options;
    if (wantsMd5 === true && request.headers["content-md5"] !== createHash("md5").update(request.body).digest("base64"))
      return errorReply(400, "InvalidRequest", "Content-MD5 OR x-amz-checksum- HTTP header is required");
    if (request.headers["if-none-match"] === "*") {
      if (conditional === "refused") return errorReply(501, "NotImplemented", "a header you provided");
      if (conditional === "honoured" && this.objects.has(key))
        return errorReply(412, "PreconditionFailed", "it is there");
    }
    this.objects.set(key, request.body);
    this.written.set(key, this.now());
    return { status: 200, headers: { etag: '"x"' } };
  }

  #list({ query }: SeenRequest): Reply {
    const prefix = query.get("prefix") ?? "";
    const after = query.get("continuation-token") ?? "";
    const { page = 1000 } = this.options;
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).toSorted();
    const encode = (key: string): string => encodeURIComponent(key).replaceAll("%20", "+").replaceAll("%2F", "/");
    const entries = keys
      .slice(0, page)
      .map(
        (key) =>
          `<Contents><Key>${encode(key)}</Key><ETag>&quot;x&quot;</ETag><Size>${this.objects.get(key)?.length}</Size><LastModified>${new Date(this.written.get(key) ?? 0).toISOString()}</LastModified></Contents>`,
      );
    const more =
      keys.length > page
        ? `<IsTruncated>true</IsTruncated><NextContinuationToken>${keys[page - 1]}</NextContinuationToken>`
        : "<IsTruncated>false</IsTruncated>";
    return {
      status: 200,
      body: `<ListBucketResult xmlns="s3"><EncodingType>url</EncodingType>${more}${entries.join("")}</ListBucketResult>`,
    };
  }

  #listUploads({ query }: SeenRequest): Reply {
    const prefix = query.get("prefix") ?? "";
    const entries = [...this.uploads]
      .filter(([, { key }]) => key.startsWith(prefix))
      .map(
        ([id, { key, begun }]) =>
          `<Upload><Key>${key}</Key><UploadId>${id}</UploadId><Initiated>${begun.toISOString()}</Initiated></Upload>`,
      );
    return {
      status: 200,
      body: `<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>${entries.join("")}</ListMultipartUploadsResult>`,
    };
  }

  #multipart(request: SeenRequest, key: string): Reply {
    if (request.query.has("uploads")) {
      const id = randomUUID();
      this.uploads.set(id, { key, parts: new Map(), begun: new Date() });
      return {
        status: 200,
        body: `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`,
      };
    }
    const id = request.query.get("uploadId") ?? "";
    const upload = this.uploads.get(id);
    if (upload === undefined) return errorReply(404, "NoSuchUpload", "no such upload");
    if (request.method === "PUT") {
      const number = Number(request.query.get("partNumber"));
      upload.parts.set(number, request.body);
      return { status: 200, headers: { etag: `"${number}"` } };
    }
    this.uploads.delete(id);
    if (request.method === "DELETE") return { status: 204 };
    const numbers = [
      ...request.body.toString().matchAll(/<PartNumber>(\d+)<\/PartNumber><ETag>&quot;\1&quot;<\/ETag>/g),
    ].map((match) => Number(match[1]));
    this.objects.set(key, Buffer.concat(numbers.map((number) => upload.parts.get(number) ?? Buffer.alloc(0))));
    return { status: 200, body: "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>" };
  }
}

function send(answer: ServerResponse, { status, headers = {}, body = "" }: Reply): void {
  const bare = answer.req.method === "HEAD" || status === 204;
  const length = bare ? {} : { "content-length": String(Buffer.byteLength(body)) };
  answer.writeHead(status, { ...length, ...headers });
  answer.end(bare ? undefined : body);
}

/** Returns an error answer in S3's format. */
export function errorReply(status: number, code: string, message: string, more = ""): Reply {
  const xml = `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>${message}</Message>${more}</Error>`;
  return { status, body: xml };
}

function noSuchBucket(): Reply {
  return errorReply(404, "NoSuchBucket", "no such bucket");
}

function ranged(object: Buffer, header: string): Reply {
  const [, first = "", last = ""] = /^bytes=(\d+)-(\d+)$/.exec(header) ?? [];
  if (Number(first) >= object.length) return errorReply(416, "InvalidRange", "beyond the end");
  const end = Math.min(Number(last), object.length - 1);
  return {
    status: 206,
    headers: { "content-range": `bytes ${first}-${end}/${object.length}` },
    body: object.subarray(Number(first), end + 1),
  };
}

function canonicalRequest(request: SeenRequest, raw: string, names: string): string {
  const [path = "", query = ""] = raw.split("?");
  const pairs = query === "" ? [] : query.split("&").map((pair) => (pair.includes("=") ? pair : `${pair}=`));
  const parts = path.split("/").map((part) => encode(decodeURIComponent(part)));
  return [
    request.method,
    parts.join("/"),
    pairs.toSorted((a, b) => (a < b ? -1 : 1)).join("&"),
    ...names.split(";").map((name) => `${name}:${String(request.headers[name]).trim()}`),
    "",
    names,
    request.headers["x-amz-content-sha256"],
  ].join("\n");
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}
