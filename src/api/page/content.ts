import type { ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

/** A single file, or an archive. */
export const CONTENT_KINDS = ["file", "zip", "tar"] as const;
export type ContentKind = (typeof CONTENT_KINDS)[number];

const ARCHIVES = { zip: "application/zip", tar: "application/x-tar" };
/** Images that a browser shows and never executes, by their first bytes. An SVG may have scripts. */
const IMAGES: readonly (readonly [RegExp, string])[] = [
  [/^\x89PNG\r\n\x1a\n/, "image/png"],
  [/^\xff\xd8\xff/, "image/jpeg"],
  [/^GIF8[79]a/, "image/gif"],
  [/^RIFF.{4}WEBP/s, "image/webp"],
  [/^.{4}ftypavi[fs]/s, "image/avif"],
  [/^BM.{4}\0{4}/s, "image/bmp"],
];
const HEAD_BYTES = 32;

/**
 * Sends stored content as a download that no browser executes or guesses the type of. Throws an error before the first
 * byte; a later error cuts the connection, so that a part is not taken for the whole.
 */
export async function sendContent(
  response: ServerResponse,
  pieces: AsyncIterable<Uint8Array>,
  { kind, name }: { kind: ContentKind; name: string },
): Promise<void> {
  const rest = pieces[Symbol.asyncIterator]();
  const first = await rest.next();
  const head = first.done === true ? "" : Buffer.from(first.value.subarray(0, HEAD_BYTES)).toString("latin1");
  const image = IMAGES.find(([start]) => start.test(head))?.[1];
  response.writeHead(200, {
    "content-type": kind === "file" ? (image ?? "application/octet-stream") : ARCHIVES[kind],
    "content-disposition": `attachment; filename*=UTF-8''${encoded(name)}`,
    "content-security-policy": "sandbox; default-src 'none'",
  });
  await pipeline(async function* () {
    try {
      for (let piece = first; piece.done !== true; piece = await rest.next()) yield piece.value;
    } finally {
      await rest.return?.();
    }
  }, response);
}

/** Encodes the name of a file to save, without slashes and invisible characters. */
function encoded(name: string): string {
  const plain = name.toWellFormed().replaceAll(/[\p{Cc}\p{Cf}/\\]/gu, "_");
  return encodeURIComponent(plain).replaceAll(/['()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`);
}
