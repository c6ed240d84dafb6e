import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { extname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { readRegular } from "../../fs/regular-file.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
/** Ending of the file of a compressed asset. The build keeps no other form of a text. */
const COMPRESSED = ".gz";
const NO_PAGE = "This build of Cairn has no page. Make it with: npm run build\n";
const MOST_BYTES = 16 << 20;
/** A name with a hash of its content, in the only folder with such names: a browser may cache it for ever. */
const HASHED = /^\/assets\/([\w.-]+-[\w-]{8,}\.[a-z0-9]+)$/;

export function isPage(path: string): boolean {
  return path === "/" || path === "/index.html";
}

/** Sends the built page's file at the request's address; false if there is none. `folder`: of the build. */
export function sendAsset(folder: string, request: IncomingMessage, response: ServerResponse): boolean {
  const path = request.url ?? "";
  const hashed = HASHED.exec(path)?.[1];
  if (!isPage(path) && hashed === undefined) return false;
  const file = hashed === undefined ? join(folder, "index.html") : join(folder, "assets", hashed);
  const compressed = read(file + COMPRESSED);
  const isAccepted = (request.headers["accept-encoding"] ?? "").split(/[\s,]+/).includes("gzip");
  const bytes = compressed === null ? read(file) : isAccepted ? compressed : gunzipSync(compressed);
  if (bytes !== null) {
    const tag = `"${createHash("sha256").update(bytes).digest("base64url")}"`;
    response.setHeader("content-type", TYPES[extname(file)] ?? "application/octet-stream");
    response.setHeader("vary", "accept-encoding").setHeader("etag", tag);
    if (hashed !== undefined) response.setHeader("cache-control", "private, max-age=31536000, immutable");
    if (compressed !== null && isAccepted) response.setHeader("content-encoding", "gzip");
    if (request.headers["if-none-match"] === tag) response.writeHead(304).end();
    else response.writeHead(200, { "content-length": bytes.length }).end(bytes);
    return true;
  }
  if (hashed !== undefined) return false;
  response.writeHead(503, { "content-type": "text/plain; charset=utf-8" }).end(NO_PAGE);
  return true;
}

function read(file: string): Buffer | null {
  try {
    return readRegular(file, { limit: MOST_BYTES });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw error;
  }
}
