import { CairnError } from "../../../errors.ts";
import type { S3Requests } from "./requests.ts";
import { childrenOf, parseXml, textOf, type XmlElement } from "./xml.ts";

export interface ListedObject {
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  readonly writtenAt: number | undefined;
}

/** An upload in parts that was neither completed nor aborted. */
export interface OpenUpload {
  readonly key: string;
  readonly uploadId: string;
  /** Milliseconds since 1970 by the server's clock; null if its time cannot be parsed. */
  readonly begun: number | null;
}

/** A page has at most a thousand entries of some 3 KiB at worst. */
const PAGE_BYTES = 8 << 20;
const MAX_OBJECTS = 20_000_000;
/** The most empty pages in a row; with more the list counts as broken. */
const MAX_EMPTY_PAGES = 100;

/** The objects to list, and the caller. */
export interface Listing {
  /** Only keys with this prefix are listed. */
  readonly prefix: string;
  readonly doing: string;
  readonly signal: AbortSignal | undefined;
}

/** Yields all objects, page by page. Throws `io` if the pages are inconsistent. */
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
      found.push({ key, size: Number(size), writtenAt: timeOf(textOf(entry, "LastModified") ?? "") ?? undefined });
    }
    yield found;
    if (textOf(root, "IsTruncated") !== "true") return;
    token = textOf(root, "NextContinuationToken");
    pages.turn(found.length, token);
  }
}

/** Returns the unfinished uploads in parts, and the server's current time. */
export async function listUploads(
  requests: S3Requests,
  { prefix, doing, signal }: Listing,
): Promise<{ uploads: OpenUpload[]; now: number | null }> {
  const uploads: OpenUpload[] = [];
  let now: number | null = null;
  let marker: Record<string, string> = {};
  const pages = new Pages(requests.location, doing);
  for (;;) {
    // Without an encoding: radosgw encodes if asked, but does not say so in this list.
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

/** Throws if a list does not come to an end. */
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

/** Keys are requested in percent-encoding, because XML cannot hold every key. A server may ignore the request. */
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

/** Returns null if the text is no time. */
export function timeOf(text: string): number | null {
  const time = Date.parse(text);
  return Number.isNaN(time) ? null : time;
}
