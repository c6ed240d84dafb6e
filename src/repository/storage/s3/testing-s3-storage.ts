import { strict as assert } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { inspect } from "node:util";
import { CairnError, type ErrorCode } from "../../../errors.ts";
import { parseS3Location } from "./location.ts";
import { S3Storage, type S3Options } from "./s3.ts";
import { TestingS3Server, type S3ServerOptions } from "./testing-s3-server.ts";

/** A storage and the server that it asks, for the tests of S3; all of it is gone when the file's tests have ended. */

export const KEY = { accessKeyId: "AKIDTEST", secretAccessKey: "very/secret+key", sessionToken: "a/session+token==" };
/** The path after the bucket in a location; `PREFIX` is the same path, decoded, as keys have it. */
export const PLACE = "some prefix/ü+%25";
export const PREFIX = "some prefix/ü+%";
export const SCRATCH = mkdtempSync(join(tmpdir(), "cairn-s3-"));
export const BYTES = randomBytes(5000);
export const NAME = nameOf(BYTES);

const servers: TestingS3Server[] = [];
/** Storages that are closed after the file's tests. */
export const opened: S3Storage[] = [];

after(async () => {
  for (const storage of opened) await storage.close();
  await Promise.all(servers.map((server) => server.stop()));
  rmSync(SCRATCH, { recursive: true, force: true });
});

export interface Pair {
  readonly server: TestingS3Server;
  readonly storage: S3Storage;
}

export async function pair(
  serverOptions: Partial<S3ServerOptions> = {},
  options: Partial<S3Options> = {},
): Promise<Pair> {
  const server = await TestingS3Server.start({ ...KEY, ...serverOptions });
  servers.push(server);
  return { server, storage: await storageAt(server, options) };
}

export async function storageAt(server: TestingS3Server, options: Partial<S3Options> = {}): Promise<S3Storage> {
  const place = parseS3Location(`${server.address}/${PLACE}`);
  const storage = await S3Storage.open({ place, credentials: KEY, ...options });
  opened.push(storage);
  return storage;
}

export function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Returns a check for an error that has this code, has `words` in its message or hint, and contains no secret. */
export function coded(code: ErrorCode, words: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError, String(error));
    const everything = inspect(error, { depth: 10, showHidden: true });
    for (const secret of [KEY.secretAccessKey, KEY.sessionToken]) assert.ok(!everything.includes(secret), everything);
    assert.equal(error.code, code, error.message);
    assert.match(`${error.message} ${error.hint ?? ""}`, words);
    return true;
  };
}

export function temporary(bytes: Uint8Array): string {
  const file = join(SCRATCH, randomBytes(6).toString("hex"));
  writeFileSync(file, bytes);
  return file;
}
