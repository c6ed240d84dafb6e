import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { fromWire } from "../contract/wire.ts";
import { CairnError } from "../errors.ts";

/** Members of a request's body: the workspace's path, the verb's arguments by name, and its options. */
export type Body = Readonly<Record<string, unknown>>;

/** Reads the name and body of a call. Throws `not_found` and `usage`. */
export async function readCall(request: IncomingMessage, most: number): Promise<{ name: string; body: Body }> {
  const { method, url = "" } = request;
  const [, name] = /^\/v1\/([A-Za-z]{1,40})$/.exec(url) ?? [];
  if (name === undefined) throw new CairnError("not_found", "calls are POST /v1/<verb>");
  if (method !== "POST") throw new CairnError("usage", `${method} is not allowed here; calls are POST /v1/<verb>`);
  return { name, body: parsed(await readBody(request, most)) };
}

/** Reads the body of a request as text. Throws `usage` for more than `most` bytes. */
export async function readBody(request: IncomingMessage, most: number): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  // The connection must stay open for the answer when this loop ends early.
  for await (const piece of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (bytes > most) throw new CairnError("usage", `a request has at most ${most} bytes`);
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString("utf8");
}

/** Throws `permission` for a request of a web page, which can reach servers on its user's machine. */
export function requireNoPage({ headers }: IncomingMessage): void {
  if (headers.origin !== undefined || headers["sec-fetch-site"] !== undefined)
    throw new CairnError("permission", "the daemon accepts no requests of web pages");
}

/**
 * True if a web page may have sent the request: a page that points a name of its own at this address sends no `Origin`.
 * `asksForKey`: such a page knows no key, so any name may be called.
 */
export function mayBePage({ headers }: IncomingMessage, asksForKey: boolean): boolean {
  if (headers.origin !== undefined || headers["sec-fetch-site"] !== undefined) return true;
  return !asksForKey && !isNearbyName(headers.host ?? "");
}

/** Tells if a host is an address, or a name that nobody outside of this machine and its network gives. */
function isNearbyName(host: string): boolean {
  const name = /^(?:\[(.*)\]|([^:]*))(?::\d+)?$/.exec(host.toLowerCase());
  const bare = name?.[1] ?? name?.[2] ?? "";
  if (isIP(bare) !== 0 || bare === hostname().toLowerCase()) return true;
  return /^[a-z0-9_-]+$/.test(bare) || /\.(?:local|localhost|lan|internal|home\.arpa)$/.test(bare);
}

/** Parses the members of a call. Throws `usage`. */
export function parsed(text: string): Body {
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

/** Deeper than every call, and small enough for the stack. */
const MOST_DEPTH = 100;

/** Throws `usage` for JSON so deep that a recursive walk would overflow the stack. */
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
