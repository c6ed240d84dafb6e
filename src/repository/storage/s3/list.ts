import { CairnError } from "../../../errors.ts";
import type { S3Requests } from "./requests.ts";
import { childrenOf, parseXml, textOf, type XmlElement } from "./xml.ts";

export interface ListedObject {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
}

/** An upload in parts that was begun and neither completed nor aborted. */
export interface OpenUpload {
  readonly key: string;
  readonly uploadId: string;
  /** Milliseconds since 1970 by the server's clock; null where it cannot be read. */
  readonly begun: number | null;
}

/** A page has at most a thousand entries of some 3 KiB at worst. */
const PAGE_BYTES = 8 << 20;
const MAX_OBJECTS = 20_000_000;
/** Pages without any entry are allowed, but a server that sends nothing else goes nowhere. */
const MAX_EMPTY_PAGES = 100;

/** The files to be listed, and the caller. */
export interface Listing {
  /** Keys begin with it. */
  readonly prefix: string;
  readonly doing: string;
  readonly signal: AbortSignal | undefined;
}

/** Every object, page by page. `io` when the server's pages make no sense. */
export async function* listObjects(
  requests: S3Requests,
  { prefix, doing, signal }: Listing,
): AsyncGenerator<ListedObject[], void> {
  let token: string | null = null;
  const pages = new Pages(requests.location, doing);
  for (;;) {
    const query: Record<string, string> = {
      ...(token === null ? {} : { "continuation-token": token }),
      "encoding-type": "url",
      "list-type": "2",
      prefix,
    };
    const { body } = await requests.send({ method: "GET", key: null, query, limit: PAGE_BYTES, doing, signal });
    const root = readPage(body, "ListBucketResult", `${doing} at ${requests.location}`);
    const decode = keyDecoder(root);
    const found: ListedObject[] = [];
    for (const entry of childrenOf(root, "Contents")) {
      const key = decode(textOf(entry, "Key") ?? "");
      const size = textOf(entry, "Size") ?? "";
      if (key === null || !key.startsWith(prefix)) continue;
      if (!/^\d{1,15}$/.test(size)) throw pages.broken("an object has no size");
      found.push({ key, size: Number(size) });
    }
    yield found;
    if (textOf(root, "IsTruncated") !== "true") return;
    token = textOf(root, "NextContinuationToken");
    pages.turn(found.length, token);
  }
}

/** Uploads in parts that are not complete, and what time it is for the server. */
export async function listUploads(
  requests: S3Requests,
  { prefix, doing, signal }: Listing,
): Promise<{ uploads: OpenUpload[]; now: number | null }> {
  const uploads: OpenUpload[] = [];
  let now: number | null = null;
  let marker: Record<string, string> = {};
  const pages = new Pages(requests.location, doing);
  for (;;) {
    // Without an encoding: radosgw uses the one it is asked for and does not say so in this list.
    const query = { ...marker, prefix, uploads: "" };
    const sent = { method: "GET", key: null, query, limit: PAGE_BYTES, doing, signal } as const;
    const { body, headers } = await requests.send(sent);
    const root = readPage(body, "ListMultipartUploadsResult", `${doing} at ${requests.location}`);
    now = timeOf(headers.date ?? "");
    const decode = keyDecoder(root);
    const listed = childrenOf(root, "Upload");
    for (const entry of listed) {
      const key = decode(textOf(entry, "Key") ?? "");
      const uploadId = textOf(entry, "UploadId");
      if (key === null || !key.startsWith(prefix) || uploadId === null) continue;
      uploads.push({ key, uploadId, begun: timeOf(textOf(entry, "Initiated") ?? "") });
    }
    if (textOf(root, "IsTruncated") !== "true") return { uploads, now };
    const key = decode(textOf(root, "NextKeyMarker") ?? "");
    const id = textOf(root, "NextUploadIdMarker");
    pages.turn(listed.length, key === null || key === "" ? null : `${key}\n${id ?? ""}`);
    marker = { "key-marker": key ?? "", ...(id === null || id === "" ? {} : { "upload-id-marker": id }) };
  }
}

/** Watches that pages lead somewhere. */
class Pages {
  readonly #location: string;
  readonly #doing: string;
  readonly #seen = new Set<string>();
  #empty = 0;
  #objects = 0;

  constructor(location: string, doing: string) {
    this.#location = location;
    this.#doing = doing;
  }

  turn(count: number, next: string | null): void {
    if (next === null || next === "") throw this.broken("it continues, but names no next page");
    if (this.#seen.has(next)) throw this.broken("its pages repeat");
    this.#seen.add(next);
    this.#empty = count === 0 ? this.#empty + 1 : 0;
    this.#objects += count;
    if (this.#empty > MAX_EMPTY_PAGES) throw this.broken("nothing but empty pages");
    if (this.#objects > MAX_OBJECTS) throw this.broken(`more than ${MAX_OBJECTS} objects`);
  }

  broken(why: string): CairnError {
    return new CairnError("io", `${this.#doing} at ${this.#location}: the server's list is invalid: ${why}`);
  }
}

function readPage(body: Uint8Array, name: string, doing: string): XmlElement {
  const root = parseXml(body, doing);
  if (root.name === name) return root;
  throw new CairnError(
    "unsupported",
    `${doing}: the server answered ${JSON.stringify(root.name.slice(0, 80))}, not a list`,
    {
      hint: "check the address: the server may not be an S3 server",
    },
  );
}

/** Keys are asked for in percent-encoding, because XML cannot hold each of them; servers may answer without. */
function keyDecoder(root: XmlElement): (text: string) => string | null {
  if (textOf(root, "EncodingType") !== "url") return (text) => text;
  return (text) => {
    try {
      return decodeURIComponent(text.replaceAll("+", " "));
    } catch {
      return null;
    }
  };
}

function timeOf(text: string): number | null {
  const time = Date.parse(text);
  return Number.isNaN(time) ? null : time;
}
