import { sizesOf } from "../testing-sizes.ts";
import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { test } from "node:test";
import { errorReply } from "./testing-s3-server.ts";
import { BYTES, coded, KEY, NAME, pair, PLACE, PREFIX, temporary } from "./testing-s3-storage.ts";

test("a multipart upload sends at most four parts at once", async () => {
  const { server, storage } = await pair({}, { multipart: { above: 10, partSize: 100 } });
  const held: ServerResponse[] = [];
  const four = Promise.withResolvers<void>();
  server.faults.push((request, answer) => {
    if (!request.query.has("partNumber")) return false;
    held.push(answer);
    if (held.length === 4) four.resolve();
    return true;
  });
  const failed = assert.rejects(storage.saveFile("data", NAME, temporary(BYTES)), coded("busy"));
  await four.promise;
  for (let i = 0; i < 5; i++) await storage.exists("data", NAME);
  assert.equal(held.length, 4);
  for (const answer of held) answer.writeHead(503).end();
  await failed;
  server.faults.length = 0;
  await assert.rejects(storage.saveFile("data", "ab".repeat(32), temporary(BYTES)), coded("damaged", /SHA-256/));
  assert.deepEqual([server.objects.size, server.uploads.size], [0, 0]);
});

test("an abort of saveFile also aborts the multipart upload on the server", async () => {
  const stop = new AbortController();
  const { server, storage } = await pair({}, { multipart: { above: 10, partSize: 1000 } });
  server.faults.push((request) => {
    if (request.query.get("partNumber") === "3") stop.abort();
    return false;
  });
  const { signal } = stop;
  await assert.rejects(storage.saveFile("data", NAME, temporary(BYTES), { signal }), coded("interrupted"));
  assert.deepEqual([server.objects.size, server.uploads.size], [0, 0]);
});

test("s3 storage throws io and aborts a multipart upload whose completion fails with status 200", async () => {
  const { server, storage } = await pair({}, { multipart: { above: 10, partSize: 1000 } });
  server.fail("POST", { status: 200, body: "<R><UploadId>none</UploadId></R>" });
  const file = temporary(BYTES);
  await assert.rejects(storage.saveFile("data", NAME, file), coded("io", /NoSuchUpload/));
  server.faults.push((request, answer) => {
    if (request.method !== "POST" || request.query.has("uploads")) return false;
    answer.end(errorReply(200, "InternalError", "try again").body);
    return true;
  });
  await assert.rejects(storage.saveFile("data", NAME, file), coded("io", /InternalError/));
  assert.deepEqual([server.uploads.size, server.objects.size, existsSync(file)], [0, 0, true]);
  server.faults.length = 0;
  await storage.saveFile("data", NAME, file);
  assert.deepEqual(server.objects.get(`${PREFIX}/data/${NAME.slice(0, 2)}/${NAME}`), BYTES);
});

test("clearTemporaries of s3 storage aborts unfinished uploads that are old by the server's clock", async () => {
  const { server, storage } = await pair();
  const key = (name: string): string => `${PREFIX}/data/${name.slice(0, 2)}/${name}`;
  const begun = (hours: number): Date => new Date(Date.now() - hours * 3_600_000);
  server.uploads.set("old", { key: key(NAME), parts: new Map(), begun: begun(2) });
  server.uploads.set("new", { key: key(NAME), parts: new Map(), begun: begun(0) });
  server.uploads.set("foreign", { key: "${PREFIX}/data/else", parts: new Map(), begun: begun(2) });
  assert.equal(await storage.clearTemporaries(3_600_000), 1);
  assert.deepEqual([...server.uploads.keys()], ["new", "foreign"]);
  server.fail("GET", errorReply(403, "AccessDenied", "no"));
  assert.equal(await storage.clearTemporaries(0), 0);
});

const CHILD = `
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { S3Storage } = await at("./s3.ts");
const { parseS3Location } = await at("./location.ts");
const [address, name, file] = process.argv.slice(1);
const options = { place: parseS3Location(address), credentials: ${JSON.stringify(KEY)}, multipart: { above: 10, partSize: 1000 } };
await (await S3Storage.open(options)).saveFile("data", name, file);
`;

for (const step of ["s3.upload-begun", "s3.parts-sent", "s3.upload-completed"]) {
  test(`a kill at ${step} leaves the whole file or none, and clearTemporaries removes its leftovers`, async () => {
    const { server, storage } = await pair();
    const file = temporary(BYTES);
    const address = `${server.address}/${PLACE}`;
    const env = { ...process.env, CAIRN_FAILPOINT: step };
    const args = ["--input-type=module", "-e", CHILD, "--", address, NAME, file];
    const child = spawn(process.execPath, args, { env, stdio: "inherit" });
    const [, signal] = (await once(child, "exit")) as [number | null, string | null];
    assert.equal(signal, "SIGKILL");
    const done = step === "s3.upload-completed";
    assert.deepEqual(sizesOf(await storage.list("data")), done ? [{ name: NAME, size: 5000 }] : []);
    assert.equal(server.uploads.size, done ? 0 : 1);
    // The server's clock tells whole seconds.
    assert.equal(await storage.clearTemporaries(-60_000), done ? 0 : 1);
    await storage.saveFile("data", NAME, file);
    assert.deepEqual(Buffer.from(await storage.load("data", NAME)), BYTES);
    assert.deepEqual([server.uploads.size, existsSync(file)], [0, false]);
  });
}
