import { sizesOf } from "../testing-sizes.ts";
import { strict as assert } from "node:assert";
import type { ServerResponse } from "node:http";
import { describe, test } from "node:test";
import type { S3Storage } from "./s3.ts";
import { BYTES, coded, NAME, pair, PREFIX } from "./testing-s3-storage.ts";

describe("a misbehaving S3 server", () => {
  const answering = async (write: (answer: ServerResponse) => void): Promise<S3Storage> => {
    const { server, storage } = await pair({}, { silenceMs: 2000 });
    server.faults.push((_request, answer) => {
      write(answer);
      return true;
    });
    return storage;
  };

  test("s3 storage throws io for a truncated answer", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(206, { "content-length": "100", "content-range": "bytes 0-99/5000" });
      answer.write(BYTES.subarray(0, 60), () => answer.destroy());
    });
    await assert.rejects(storage.load("data", NAME), coded("io"));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 100 }), coded("io"));
  });

  test("s3 storage throws io for a range with another length or position", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(206, { "content-range": "bytes 0-9/5000" });
      answer.end(BYTES.subarray(0, 10));
    });
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 100 }), coded("io", /other bytes/));
    await assert.rejects(storage.load("data", NAME, { offset: 5, length: 10 }), coded("io", /other bytes/));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 9 }), coded("io", /10 bytes|longer/));
  });

  test("s3 storage throws unsupported for a range if the server ignores ranges", async () => {
    const storage = await answering((answer) => answer.end(BYTES));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 10 }), coded("unsupported"));
    assert.deepEqual(Buffer.from(await storage.load("data", NAME, { offset: 0, length: 5000 })), BYTES);
  });

  test("s3 storage accepts a range with status 200 if Content-Range states its position", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(200, { "content-range": "bytes 10-29/5000" });
      answer.end(BYTES.subarray(10, 30));
    });
    const part = await storage.load("data", NAME, { offset: 10, length: 20 });
    assert.deepEqual(Buffer.from(part), BYTES.subarray(10, 30));
    await assert.rejects(storage.load("data", NAME, { offset: 11, length: 20 }), coded("io", /other bytes/));
  });

  test("s3 storage throws io if the server announces a huge length", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(200, { "content-length": String(2 ** 50) });
      answer.write("x");
    });
    await assert.rejects(storage.load("data", NAME), coded("io", /1125899906842624 bytes/));
  });

  test("s3 storage throws an error for an endless or invalid list", async () => {
    const list = (xml: string): Promise<S3Storage> => answering((answer) => answer.end(xml));
    const more = (token: string): string =>
      `<ListBucketResult><IsTruncated>true</IsTruncated>${token}</ListBucketResult>`;
    const circle = await list(more("<NextContinuationToken>a</NextContinuationToken>"));
    await assert.rejects(circle.list("data"), coded("io", /its pages repeat/));
    await assert.rejects((await list(more(""))).list("data"), coded("io", /names no next page/));
    let count = 0;
    const empty = await answering((answer) =>
      answer.end(more(`<NextContinuationToken>${count++}</NextContinuationToken>`)),
    );
    await assert.rejects(empty.list("data"), coded("io", /empty pages/));
    await assert.rejects((await list("<html><body/></html>")).list("data"), coded("unsupported", /not a list/));
    await assert.rejects((await list("no xml")).list("data"), coded("io", /XML/));
    const sizes = `<ListBucketResult><Contents><Key>${PREFIX}/data/x</Key><Size>-1</Size></Contents></ListBucketResult>`;
    await assert.rejects((await list(sizes)).list("data"), coded("io", /no size/));
  });

  test("s3 storage throws io for a list above 8 MiB before it has read the end", async () => {
    let sent = 0;
    const storage = await answering((answer) => {
      const line = Buffer.alloc(1 << 20, " ");
      const more = (): void => {
        sent += line.length;
        if (!answer.destroyed && sent < 64 << 20) answer.write(line, more);
      };
      answer.write("<ListBucketResult>", more);
    });
    await assert.rejects(storage.list("data"), coded("io", /longer than 8388608 bytes/));
    assert.ok(sent < 64 << 20);
  });

  test("s3 storage does not list foreign files and folders", async () => {
    const { server, storage } = await pair();
    await storage.save("data", NAME, BYTES);
    const root = PREFIX;
    for (const key of [
      `${root}/data/`,
      `${root}/data/zz/${NAME}`,
      `${root}/data/${NAME}`,
      `${root}/data/ab/note <&> ä`,
    ])
      server.objects.set(key, Buffer.from("x"));
    assert.deepEqual(sizesOf(await storage.list("data")), [{ name: NAME, size: 5000 }]);
  });

  test("saving a config on a server without conditional writes fails if another process replaced the config", async () => {
    const { server, storage } = await pair({ conditional: "ignored" });
    assert.equal(await storage.conditionalWrites(), false);
    const theirs = Buffer.from("theirs");
    server.faults.push((request) => {
      // Between our write and our look at it.
      if (request.method === "GET" && request.path.endsWith("/config")) server.objects.set(`${PREFIX}/config`, theirs);
      return false;
    });
    await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  });
});
