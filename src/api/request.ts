import type { IncomingMessage } from "node:http";
import { fromWire } from "../contract/wire.ts";
import { CairnError } from "../errors.ts";

/** Members of a request's body: the workspace's path, the verb's arguments by their names, and its options. */
export type Body = Readonly<Record<string, unknown>>;

/** Name and body of a call. Throws `not_found` and `usage`. */
export async function readCall(request: IncomingMessage, most: number): Promise<{ name: string; body: Body }> {
  const { method, url = "" } = request;
  const [, name] = /^\/v1\/([A-Za-z]{1,40})$/.exec(url) ?? [];
  if (name === undefined) throw new CairnError("not_found", "calls are POST /v1/<verb>");
  if (method !== "POST") throw new CairnError("usage", `${method} is not allowed here; calls are POST /v1/<verb>`);
  return { name, body: parsed(await readBody(request, most)) };
}

/** The body of a request as text. Throws `usage` for one of more than `most` bytes. */
export async function readBody(request: IncomingMessage, most: number): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  // Where the loop is left, the connection has to last for the answer.
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > most) throw new CairnError("usage", `a request has at most ${most} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

/** Throws `permission` for a request that a web page makes, which can reach what listens on its machine. */
export function requireNoPage({ headers }: IncomingMessage): void {
  if (headers.origin !== undefined || headers["sec-fetch-site"] !== undefined)
    throw new CairnError("permission", "the daemon accepts no requests of web pages");
}

function parsed(text: string): Body {
  let value: unknown;
  try {
    value = text === "" ? {} : fromWire(text);
  } catch {
    throw new CairnError("usage", "the request is not JSON");
  }
  requireShallow(value);
  const { options } = (value ?? {}) as { options?: unknown };
  if (isObject(value) && (options === undefined || isObject(options))) return value;
  throw new CairnError("usage", "the request must be a JSON object, and so must its options");
}

/** Deeper than any call is, and shallower than what a stack takes. */
const MOST_DEPTH = 100;

/** Throws `usage` for JSON that is so deep that whoever walks it would run out of stack. */
export function requireShallow(value: unknown): void {
  let level = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MOST_DEPTH) throw new CairnError("usage", `the request is more than ${MOST_DEPTH} levels deep`);
    const inside = level.filter((each) => typeof each === "object" && each !== null && !ArrayBuffer.isView(each));
    level = inside.flatMap((each) => Object.values(each as object));
  }
}

function isObject(value: unknown): value is Body {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
