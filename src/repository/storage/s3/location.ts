import { isIP } from "node:net";
import { posix } from "node:path";
import { CairnError } from "../../../errors.ts";

/** `path`: the bucket is the first part of the path. `host`: the bucket is the first label of the host's name. */
export type S3Addressing = "path" | "host";

export interface S3Place {
  /** The server's address, e.g. `https://s3.example.org:9000/`; without bucket, path, user and password. */
  readonly endpoint: URL;
  readonly bucket: string;
  /** The prefix of all keys, without a slash at either end; may be empty. */
  readonly prefix: string;
}

const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/;
/** Bucket names that are valid as a label of a host's name. */
const LABEL = /^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/;
/** Services that accept the bucket only in the host's name, or soon will. */
const HOST_STYLE = /(?:^|\.)(?:amazonaws\.com(?:\.cn)?|aliyuncs\.com)$/;
/** A key has at most 1024 bytes, of which Cairn's names take some 80. */
const MAX_PREFIX_BYTES = 900;

/**
 * Parses the text after `s3:` in restic's forms: `https://host[:port]/bucket[/prefix]`, `http://…`,
 * `host[:port]/bucket[/prefix]`, `//host/…` (the last two with TLS). Throws `usage` for other texts; the message has no
 * password of the text.
 */
export function parseS3Location(rest: string): S3Place {
  const url = /^https?:\/\//i.exec(rest);
  const text = url === null ? rest.replace(/^\/\//, "") : rest.slice(url[0].length);
  const scheme = url === null ? "https://" : url[0].toLowerCase();
  const slash = text.indexOf("/");
  if (slash <= 0) throw wrong("has no bucket");
  const host = text.slice(0, slash);
  if (/[@?#\\\s]/.test(host)) throw wrong("has more than a host before the bucket");
  let endpoint: URL;
  let path: string;
  try {
    endpoint = new URL(`${scheme}${host}/`);
    path = url === null ? text.slice(slash + 1) : decodeURIComponent(text.slice(slash + 1));
  } catch {
    throw wrong("cannot be understood");
  }
  if (url !== null && /[?#]/.test(text)) throw wrong("must end with a path, without ? and #");
  const [bucket = "", ...parts] = path.split("/");
  if (bucket === "") throw wrong("has no bucket name after the host");
  if (!BUCKET.test(bucket)) throw wrong(`names the bucket ${JSON.stringify(bucket)}, which is not a valid bucket name`);
  return { endpoint, bucket, prefix: cleanPrefix(parts.join("/")) };
}

/** Cleans the prefix as restic does: `a//b/./c/` becomes `a/b/c`. */
function cleanPrefix(text: string): string {
  const prefix = text === "" ? "" : posix.normalize(text).replace(/^\/+|\/+$/g, "");
  if (prefix === "" || prefix === ".") return "";
  if (prefix === ".." || prefix.startsWith("../")) throw wrong("leads out of its bucket");
  if (/[\x00-\x1f\x7f]/.test(prefix) || Buffer.byteLength(prefix) > MAX_PREFIX_BYTES || !prefix.isWellFormed())
    throw wrong(`has a path that is invalid in a key (control characters, or more than ${MAX_PREFIX_BYTES} bytes)`);
  return prefix;
}

function wrong(why: string): CairnError {
  return new CairnError("usage", `the repository's address ${why}`, {
    hint: "an address looks like s3:https://host/bucket/path; credentials are taken from the environment or ~/.aws/credentials",
  });
}

/** Prints the address for messages and for restic, without secrets. */
export function s3LocationOf(place: S3Place): string {
  const prefix = place.prefix.replaceAll(/[%?#]/g, encodeURIComponent);
  const path = prefix === "" ? place.bucket : `${place.bucket}/${prefix}`;
  return `s3:${place.endpoint.origin}/${path}`;
}

/** Returns the default: `host` for services that accept nothing else, `path` for all others. */
export function defaultAddressing(place: S3Place): S3Addressing {
  return HOST_STYLE.test(place.endpoint.hostname) && LABEL.test(place.bucket) ? "host" : "path";
}

/** Returns the region in a host's name, e.g. of `s3.eu-west-1.amazonaws.com`, or null. */
export function regionOfHost(hostname: string): string | null {
  const match = /(?:^|\.)s3[.-](?:dualstack\.)?([a-z]{2,}(?:-[a-z]+)+-\d{1,3})\./.exec(hostname);
  return match?.[1] ?? null;
}

/** Makes addresses of a bucket's objects. */
export class S3Addresses {
  readonly origin: URL;
  readonly #base: string;

  constructor(place: S3Place, addressing: S3Addressing) {
    this.origin = new URL(place.endpoint);
    if (addressing === "host") {
      if (!/^[a-z0-9][a-z0-9.-]*$/.test(place.bucket))
        throw new CairnError("usage", `the bucket ${place.bucket} cannot be part of a host's name`);
      const { hostname } = place.endpoint;
      if (hostname.startsWith("[") || isIP(hostname) !== 0)
        throw new CairnError("usage", `the bucket ${place.bucket} cannot be part of the IP address ${hostname}`, {
          hint: "set CAIRN_S3_ADDRESSING=path",
        });
      this.origin.hostname = `${place.bucket}.${hostname}`;
    }
    this.#base = addressing === "host" ? "/" : `/${encodePart(place.bucket)}`;
  }

  /** Returns path and query of an object, or of the bucket if `key` is null, encoded as in signatures. */
  pathOf(key: string | null, query: Readonly<Record<string, string>> = {}): string {
    const base = key === null ? this.#base : `${this.#base}/${key.split("/").map(encodePart).join("/")}`;
    const pairs = Object.entries(query).map(([name, value]) => `${encodePart(name)}=${encodePart(value)}`);
    const path = base.replace(/^\/\//, "/");
    return pairs.length === 0 ? path : `${path}?${pairs.join("&")}`;
  }
}

function encodePart(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);
}
