import { strict as assert } from "node:assert";
import dns from "node:dns";
import { describe, mock, test } from "node:test";
import { Repository } from "../../repository.ts";
import { CallStorage } from "../call-storage.ts";
import { parseS3Location } from "./location.ts";
import { openS3Storage, S3Storage } from "./s3.ts";
import { storageContract } from "../storage.contract.ts";
import { sizesOf } from "../testing-sizes.ts";
import { errorReply } from "./testing-s3-server.ts";
import {
  BYTES,
  coded,
  KEY,
  NAME,
  nameOf,
  opened,
  pair,
  PLACE,
  PREFIX,
  SCRATCH,
  storageAt,
  temporary,
} from "./testing-s3-storage.ts";
import type { CairnError, ErrorCode } from "../../../errors.ts";

/** Every host's name leads to this machine, until it is restored. */
function everyHostIsHere(): { mock: { restore(): void } } {
  return mock.method(dns, "lookup", (_host: string, options: { all?: boolean }, done: (...a: unknown[]) => void) =>
    options.all === true ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
  );
}

/** What a real server does not do when it is asked to; test/interop/s3.flow.test.ts has a real one. */

storageContract("s3", async () => (await pair()).storage);
storageContract("s3 that ignores conditions", async () => (await pair({ conditional: "ignored" })).storage);
storageContract("s3 that refuses conditions", async () => (await pair({ conditional: "refused" })).storage);
storageContract("s3 with object lock", async () => (await pair({ wantsMd5: true })).storage);
storageContract("s3 in parts and pages", async () => {
  return (await pair({ page: 3 }, { multipart: { above: 100, partSize: 30_000 } })).storage;
});

describe("requests of s3 storage", () => {
  test("s3 storage sends one PUT request to save a file, and one GET request to load it", async () => {
    const { server, storage } = await pair();
    await storage.save("data", NAME, BYTES);
    await storage.saveFile("index", NAME, temporary(BYTES));
    await storage.sync();
    assert.deepEqual([server.count("PUT"), server.seen.length], [2, 2]);
    await storage.load("data", NAME);
    await storage.load("data", NAME, { offset: 4, length: 5 });
    await storage.list("index");
    assert.equal(server.seen.length, 5);
    const [first] = server.seen;
    assert.equal(first?.path, `/bucket/${PREFIX}/data/${NAME.slice(0, 2)}/${NAME}`);
    assert.equal(first?.headers["x-amz-content-sha256"], NAME);
    assert.equal(first?.headers["content-length"], "5000");
  });

  test("s3 storage sends one request to save a config after it has tested conditional writes", async () => {
    const { server, storage } = await pair();
    assert.equal(await storage.conditionalWrites(), true);
    assert.deepEqual([...server.objects.keys()], [], "nothing stays of the trial");
    const before = server.seen.length;
    await storage.save("config", "config", BYTES);
    await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
    assert.equal(server.seen.length - before, 2);
  });

  test("s3 storage sends MD5 with every save after a bucket has required it once", async () => {
    const { server, storage } = await pair({ wantsMd5: true });
    await storage.save("data", NAME, BYTES);
    await storage.save("index", NAME, BYTES);
    assert.equal(server.count("PUT"), 3);
  });

  test("s3 storage opens no more connections than allowed", async () => {
    const { server, storage } = await pair({}, { connections: 3 });
    const sockets = new Set<unknown>();
    server.faults.push((_request, answer) => {
      sockets.add(answer.socket);
      return false;
    });
    const files = Array.from({ length: 40 }, (_, i) => Buffer.from(String(i)));
    await Promise.all(files.map((bytes) => storage.save("data", nameOf(bytes), bytes)));
    assert.equal(server.count("PUT"), 40);
    assert.ok(sockets.size <= 3, String(sockets.size));
  });

  test("s3 storage throws damaged for an empty range beyond the end of the file", async () => {
    const { storage } = await pair();
    await storage.save("data", NAME, BYTES);
    assert.equal((await storage.load("data", NAME, { offset: 5000, length: 0 })).length, 0);
    await assert.rejects(storage.load("data", NAME, { offset: 5001, length: 0 }), coded("damaged"));
    await assert.rejects(storage.load("index", NAME, { offset: 0, length: 0 }), coded("not_found"));
    await assert.rejects(storage.load("data", NAME, { offset: -1, length: 5 }), coded("damaged"));
  });

  test("s3 storage can send and sign requests with the bucket in the host name", async () => {
    const lookup = everyHostIsHere();
    try {
      const { server } = await pair({ hostStyle: true });
      const place = parseS3Location(`http://s3.test:${server.port}/bucket/p`);
      const storage = await S3Storage.open({ place, credentials: KEY, addressing: "host" });
      await storage.save("data", NAME, BYTES);
      assert.deepEqual(sizesOf(await storage.list("data")), [{ name: NAME, size: 5000 }]);
      assert.equal(server.seen[0]?.headers.host, `bucket.s3.test:${server.port}`);
      await storage.close();
    } finally {
      lookup.mock.restore();
    }
  });

  test("s3 storage uses the region that the server names if the user gave none", async () => {
    const { server, storage } = await pair({ region: "eu-far-7" });
    await storage.save("data", NAME, BYTES);
    await storage.load("data", NAME);
    assert.equal(server.seen.length, 3);
    const said = await storageAt(server, { region: "us-west-2" });
    await assert.rejects(
      said.load("data", NAME),
      coded("usage", /not in region us-west-2 but in eu-far-7.*AWS_REGION=eu-far-7/s),
    );
  });

  test("s3 storage repeats all concurrent requests with the region that the server names", async () => {
    const { server, storage } = await pair({ region: "eu-far-7" });
    // None is answered before all have come: each was signed for the region that was guessed.
    const all = Promise.withResolvers<void>();
    server.hold = () => {
      if (server.seen.length === 3) all.resolve();
      return all.promise;
    };
    const lists = await Promise.all([storage.list("keys"), storage.list("index"), storage.list("data")]);
    assert.deepEqual(lists, [[], [], []]);
    assert.equal(server.seen.length, 6);
  });

  test("s3 storage removes a lock even if the caller aborts", async () => {
    const stop = new AbortController();
    const storage = new CallStorage((await pair()).storage, { signal: stop.signal });
    await storage.save("locks", NAME, BYTES);
    const stored = storage.save("data", NAME, BYTES);
    const removed = storage.remove("locks", NAME);
    stop.abort();
    await assert.rejects(stored, coded("interrupted"));
    await removed;
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("s3 storage does not leak abort listeners over many calls with one signal", async () => {
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on("warning", note);
    const { signal } = new AbortController();
    const storage = new CallStorage((await pair({}, { connections: 30 })).storage, { signal });
    const files = Array.from({ length: 60 }, (_, i) => Buffer.from(String(i)));
    await Promise.all(files.map((bytes) => storage.save("data", nameOf(bytes), bytes)));
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", note);
    assert.deepEqual(warnings, []);
  });
});

describe("errors of s3 storage", () => {
  const cases: [number, string, ErrorCode, RegExp][] = [
    [403, "AccessDenied", "permission", /credentials/],
    [403, "InvalidAccessKeyId", "permission", /credentials/],
    [400, "ExpiredToken", "permission", /session token/],
    [403, "InvalidTokenId", "permission", /session token is not valid/],
    [404, "NoSuchBucket", "not_found", /create the bucket/],
    [404, "NoSuchKey", "not_found", /./],
    [409, "OperationAborted", "io", /./],
    [429, "TooManyRequests", "busy", /./],
    [503, "SlowDown", "busy", /./],
    [500, "InternalError", "io", /./],
    [400, "RequestTimeout", "io", /./],
    [501, "NotImplemented", "unsupported", /./],
    [507, "QuotaExceeded", "no_space", /make room there and run the command again/],
    [507, "XMinioStorageFull", "no_space", /make room there and run the command again/],
    [507, "", "no_space", /make room there and run the command again/],
    [400, "InvalidBucketName", "usage", /correct the bucket's name/],
    [301, "PermanentRedirect", "usage", /AWS_REGION/],
    [302, "", "unsupported", /redirect/],
    [418, "", "unsupported", /S3 server/],
  ];
  for (const [status, s3Code, code, words] of cases) {
    test(`s3 storage throws ${code} for HTTP status ${status} ${s3Code}`, async () => {
      const { server, storage } = await pair();
      server.fail(
        "GET",
        s3Code === "" ? { status, body: "<html>" } : errorReply(status, s3Code, "words of the server"),
      );
      await assert.rejects(storage.load("data", NAME), coded(code, words));
    });
  }

  test("Repository.open throws not_found with a hint if the bucket is missing", async () => {
    const { server } = await pair();
    const place = { ...parseS3Location(`${server.address}/r`), bucket: "nobucket" };
    const storage = await S3Storage.open({ place, credentials: KEY });
    opened.push(storage);
    await assert.rejects(
      Repository.open(storage, { password: "p" }),
      coded("not_found", /NoSuchBucket.*create the bucket first/s),
    );
    const there = await storageAt(server);
    await assert.rejects(Repository.open(there, { password: "p" }), coded("not_found", /it has no config/));
  });

  test("an error of s3 storage suggests CAIRN_S3_ADDRESSING=path if the bucket cannot be part of the host name", async () => {
    const { server } = await pair();
    const place = parseS3Location(`${server.address}/r`);
    const byHost = { credentials: KEY, addressing: "host" } as const;
    await assert.rejects(
      S3Storage.open({ place, ...byHost }),
      coded("usage", /the IP address 127\.0\.0\.1.*CAIRN_S3_ADDRESSING=path/s),
    );
    const storage = await S3Storage.open({
      place: parseS3Location(`http://s3.test:${server.port}/bucket/r`),
      ...byHost,
    });
    opened.push(storage);
    const lookup = everyHostIsHere();
    try {
      server.fail("GET", errorReply(400, "InvalidBucketName", "words of the server"));
      await assert.rejects(storage.load("data", NAME), coded("usage", /CAIRN_S3_ADDRESSING=path/));
    } finally {
      lookup.mock.restore();
    }
    const nowhere = await S3Storage.open({ place: parseS3Location("http://s3.invalid/bucket/r"), ...byHost });
    opened.push(nowhere);
    await assert.rejects(nowhere.load("data", NAME), coded("io", /CAIRN_S3_ADDRESSING=path/));
  });

  test("an error of s3 storage hides secrets in the server's text", async () => {
    const { server, storage } = await pair();
    server.fail("GET", errorReply(400, "InvalidRequest", `token ${KEY.sessionToken} of ${KEY.secretAccessKey}`));
    await assert.rejects(storage.load("data", NAME), coded("unsupported", /token \*\*\* of \*\*\*/));
    server.fail("GET", errorReply(400, "InvalidRequest", `${"-".repeat(198)}${KEY.sessionToken}`));
    await assert.rejects(storage.load("data", NAME), coded("unsupported", /\(-{198}\*\*\)/));
    const wrong = await storageAt(server, { credentials: { ...KEY, secretAccessKey: "another" } });
    await assert.rejects(wrong.load("data", NAME), coded("permission", /SignatureDoesNotMatch/));
    assert.equal(storage.location, `s3:${server.address}/${PLACE}`);
  });

  test("an error of s3 storage names the minutes by which this machine's clock is wrong", async () => {
    const { server, storage } = await pair();
    const date = new Date(Date.now() + 3_600_000).toUTCString();
    const reply = errorReply(403, "RequestTimeTooSkewed", "too skewed");
    server.fail("GET", { ...reply, headers: { date } });
    await assert.rejects(
      storage.load("data", NAME),
      coded("permission", /clock is 60 minutes behind the server's.*NTP/s),
    );
  });

  test("an error of s3 storage has the server's retry-after time", async () => {
    const { server, storage } = await pair();
    server.fail("GET", { ...errorReply(503, "SlowDown", "later"), headers: { "retry-after": "7" } });
    await assert.rejects(storage.load("data", NAME), ({ details }: CairnError) => details?.["retryAfterMs"] === 7000);
  });

  test("s3 storage throws io if the server does not run", async () => {
    const { server, storage } = await pair();
    await server.stop();
    await assert.rejects(storage.list("data"), coded("io", /ECONNREFUSED/));
  });

  test("s3 storage throws io if the server sends no data for the time limit", async () => {
    const { server, storage } = await pair({}, { silenceMs: 50 });
    server.faults.push(() => true);
    await assert.rejects(storage.load("data", NAME), coded("io", /no data for/));
    await assert.rejects(storage.saveFile("data", NAME, temporary(BYTES)), coded("io", /no data for/));
  });
});

test("s3 storage repeats a failed test of conditional writes at the first save of a config", async () => {
  const { server } = await pair();
  server.fail("PUT", errorReply(503, "SlowDown", "later"));
  const env = { AWS_ACCESS_KEY_ID: KEY.accessKeyId, AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey, HOME: SCRATCH };
  const open = (): Promise<S3Storage> =>
    openS3Storage(`${server.address}/p`, { env: { ...env, AWS_SESSION_TOKEN: KEY.sessionToken }, create: true });
  const storage = await open();
  opened.push(storage);
  await storage.save("config", "config", BYTES);
  await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  server.fail("PUT", errorReply(404, "NoSuchBucket", "no"));
  await assert.rejects(open(), coded("not_found", /bucket/));
});

test("s3 storage throws permission for the removal of a missing file if removals are forbidden", async () => {
  const { server, storage } = await pair();
  await assert.rejects(storage.remove("snapshots", NAME), coded("not_found"));
  server.fail("DELETE", errorReply(403, "AccessDenied", "no"));
  await assert.rejects(storage.remove("snapshots", NAME), coded("permission"));
});

test("openS3Storage takes credentials from the environment", async () => {
  const { server } = await pair();
  const env = {
    AWS_ACCESS_KEY_ID: KEY.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey,
    AWS_SESSION_TOKEN: KEY.sessionToken,
    HOME: SCRATCH,
  };
  const storage = await openS3Storage(`${server.address}/p`, { env, create: true });
  opened.push(storage);
  assert.equal(server.count("PUT", "DELETE"), 3, "conditions are tried out");
  await storage.save("keys", NAME, BYTES);
  assert.deepEqual([...server.objects.keys()], [`p/keys/${NAME}`]);
  await assert.rejects(
    openS3Storage(`${server.address}/p`, { env: { HOME: SCRATCH } }),
    coded("permission", /AWS_PROFILE/),
  );
  for (const wrong of [{ CAIRN_S3_ADDRESSING: "x" }, { AWS_REGION: "a\nb" }, { AWS_SESSION_TOKEN: "a\nb" }])
    await assert.rejects(openS3Storage(server.address, { env: { ...env, ...wrong } }), coded("usage"));
  const anonymous = await openS3Storage(`${server.address}/p`, { env: { HOME: SCRATCH, CAIRN_S3_ANONYMOUS: "1" } });
  opened.push(anonymous);
  await assert.rejects(anonymous.list("keys"), coded("permission"));
  assert.equal(server.seen.at(-1)?.headers.authorization, undefined);
});
