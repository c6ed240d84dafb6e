import { createHash, type Hash } from "node:crypto";
import { open, type FileHandle } from "node:fs/promises";
import { CairnError, toCairnError } from "../../../errors.ts";
import { failpoint } from "../../../failpoint.ts";
import type { SaveOptions } from "../storage.ts";
import type { S3Requests } from "./requests.ts";
import { escapeXml, parseXml, textOf } from "./xml.ts";

export interface MultipartFile extends Pick<SaveOptions, "onSent"> {
  readonly key: string;
  readonly file: string;
  /** Bytes. */
  readonly size: number;
  /** Digest of the whole file, lower-case hex. An upload with other bytes is not completed. */
  readonly sha256: string;
  readonly doing: string;
  readonly signal?: AbortSignal | undefined;
}

const MAX_PARTS = 10_000;
/** Concurrent parts; each is held in memory. */
const PARTS_AT_ONCE = 4;

interface Upload extends MultipartFile {
  readonly id: string;
  readonly partSize: number;
  readonly contentMd5: boolean;
}

/**
 * Uploads a large file in parts: begin → parts, in any order → complete, which is the commit point: before it there is
 * no object, after it the whole one. A kill before it leaves the parts, which `clearTemporaries` aborts once they are
 * old; a failure aborts them at once. A failure of `complete` itself may have come too late, and then the file is there.
 */
export async function uploadInParts(
  requests: S3Requests,
  file: MultipartFile,
  options: { partSize: number; contentMd5: boolean },
): Promise<void> {
  const partSize = Math.max(options.partSize, Math.ceil(file.size / MAX_PARTS));
  const id = await begin(requests, file);
  const upload: Upload = { ...file, id, partSize, contentMd5: options.contentMd5 };
  try {
    failpoint("s3.upload-begun");
    const tags = await sendParts(requests, upload);
    failpoint("s3.parts-sent");
    await complete(requests, upload, tags);
    failpoint("s3.upload-completed");
  } catch (error) {
    await abortUpload(requests, upload).catch(() => undefined);
    throw error;
  }
}

/** Aborts an upload and frees its parts. Succeeds if the upload is already gone. */
export async function abortUpload(requests: S3Requests, upload: { key: string; id: string }): Promise<void> {
  await requests.send({
    method: "DELETE",
    key: upload.key,
    query: { uploadId: upload.id },
    accept: [404],
    doing: "cannot abort an upload",
  });
}

async function begin(requests: S3Requests, file: MultipartFile): Promise<string> {
  const { key, doing, signal } = file;
  const { body } = await requests.send({ method: "POST", key, query: { uploads: "" }, doing, signal });
  const id = textOf(parseXml(body, doing), "UploadId");
  if (id !== null && id !== "" && id.length <= 2048) return id;
  throw new CairnError("io", `${doing} at ${requests.location}: the server began an upload without an id`);
}

/** Sends the parts and returns their tags in order. Reads the parts one after the other, to hash the whole file. */
async function sendParts(requests: S3Requests, upload: Upload): Promise<string[]> {
  const tags: string[] = [];
  const whole = createHash("sha256");
  const under = new Set<Promise<void>>();
  const failures: unknown[] = [];
  let arrived = 0;
  const handle = await openFile(upload);
  try {
    for (let at = 0; at < upload.size; at += upload.partSize) {
      while (under.size >= PARTS_AT_ONCE) await Promise.race(under);
      if (failures.length > 0) break;
      const bytes = await readPart(handle, upload, { at, whole });
      const number = at / upload.partSize + 1;
      const sent: Promise<void> = sendPart(requests, upload, { number, bytes })
        .then((tag) => {
          tags[number - 1] = tag;
          upload.onSent?.((arrived += bytes.length));
        })
        .catch((error: unknown) => void failures.push(error))
        .finally(() => under.delete(sent));
      under.add(sent);
    }
  } finally {
    await Promise.all(under);
    await handle.close();
  }
  if (failures.length > 0) throw failures[0];
  if (whole.digest("hex") !== upload.sha256)
    throw new CairnError("damaged", `${upload.doing}: the SHA-256 of ${upload.file} is not the file's name`);
  return tags;
}

async function openFile(upload: Upload): Promise<FileHandle> {
  try {
    return await open(upload.file);
  } catch (error) {
    throw toCairnError(error, upload.doing);
  }
}

async function readPart(handle: FileHandle, upload: Upload, part: { at: number; whole: Hash }): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(Math.min(upload.partSize, upload.size - part.at));
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, part.at + done);
    if (bytesRead === 0)
      throw new CairnError("damaged", `${upload.file} became shorter while it was sent: ${part.at + done} bytes`);
    done += bytesRead;
  }
  part.whole.update(bytes);
  return bytes;
}

async function sendPart(
  requests: S3Requests,
  upload: Upload,
  { number, bytes }: { number: number; bytes: Buffer },
): Promise<string> {
  const query = { partNumber: String(number), uploadId: upload.id };
  const headers = upload.contentMd5 ? { headers: { "content-md5": md5Of(bytes) } } : {};
  const { key, doing, signal } = upload;
  const answer = await requests.send({ method: "PUT", key, query, body: bytes, doing, signal, ...headers });
  const tag = answer.headers.etag;
  if (tag !== undefined && tag !== "" && tag.length <= 200) return tag;
  throw new CairnError(
    "io",
    `${doing} at ${requests.location}: the server accepted part ${number}, but returned no ETag`,
  );
}

async function complete(requests: S3Requests, upload: Upload, tags: readonly string[]): Promise<void> {
  const parts = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(tag)}</ETag></Part>`);
  const body = Buffer.from(`<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`);
  const { key, doing, signal } = upload;
  const answer = await requests.send({ method: "POST", key, query: { uploadId: upload.id }, body, doing, signal });
  // The server sends the status before it has joined the parts: a later error comes in the body.
  if (parseXml(answer.body, doing).name === "Error") throw requests.errorOf({ ...answer, status: 500 }, doing);
}

export function md5Of(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("base64");
}
