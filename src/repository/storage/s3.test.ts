import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import dns from "node:dns";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, mock, test } from "node:test";
import { inspect } from "node:util";
import { CairnError, type ErrorCode } from "../../errors.ts";
import { RetryingStorage } from "./retrying.ts";
import { parseS3Location } from "./s3-location.ts";
import { openS3Storage, S3Storage, type S3Options } from "./s3.ts";
import { storageContract } from "./storage.contract.ts";
import { errorReply, TestingS3Server, type S3ServerOptions } from "./testing-s3-server.ts";

/** What a real server does not do when it is asked to; test/interop/s3.test.ts has a real one. */

const KEY = { accessKeyId: "AKIDTEST", secretAccessKey: "very/secret+key", sessionToken: "a/session+token==" };
const scratch = mkdtempSync(join(tmpdir(), "cairn-s3-"));
const servers: TestingS3Server[] = [];
const opened: S3Storage[] = [];

after(async () => {
  for (const storage of opened) await storage.close();
  await Promise.all(servers.map((server) => server.stop()));
  rmSync(scratch, { recursive: true, force: true });
});

type Pair = { server: TestingS3Server; storage: S3Storage };

async function pair(serverOptions: Partial<S3ServerOptions> = {}, options: Partial<S3Options> = {}): Promise<Pair> {
  const server = await TestingS3Server.start({ ...KEY, ...serverOptions });
  servers.push(server);
  return { server, storage: await storageAt(server, options) };
}

async function storageAt(server: TestingS3Server, options: Partial<S3Options> = {}): Promise<S3Storage> {
  const place = parseS3Location(`${server.address}/some prefix/ü+%25`);
  const storage = await S3Storage.open({ place, credentials: KEY, ...options });
  opened.push(storage);
  return storage;
}

function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function coded(code: ErrorCode, words: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError, String(error));
    const everything = inspect(error, { depth: 10, showHidden: true });
    for (const secret of [KEY.secretAccessKey, KEY.sessionToken]) assert.ok(!everything.includes(secret), everything);
    assert.equal(error.code, code, error.message);
    assert.match(`${error.message} ${error.hint ?? ""}`, words);
    return true;
  };
}

function temporary(bytes: Uint8Array): string {
  const file = join(scratch, randomBytes(6).toString("hex"));
  writeFileSync(file, bytes);
  return file;
}

const BYTES = randomBytes(5000);
const NAME = nameOf(BYTES);

storageContract("s3", async () => (await pair()).storage);
storageContract("s3 that ignores conditions", async () => (await pair({ conditional: "ignored" })).storage);
storageContract("s3 that refuses conditions", async () => (await pair({ conditional: "refused" })).storage);
storageContract("s3 with object lock", async () => (await pair({ wantsMd5: true })).storage);
storageContract("s3 in parts and pages", async () => {
  return (await pair({ page: 3 }, { multipart: { above: 100, partSize: 30_000 } })).storage;
});

describe("requests", () => {
  test("a saved file costs one request that writes, a load one that reads", async () => {
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
    assert.equal(first?.path, `/bucket/some prefix/ü+%/data/${NAME.slice(0, 2)}/${NAME}`);
    assert.equal(first?.headers["x-amz-content-sha256"], NAME);
    assert.equal(first?.headers["content-length"], "5000");
  });

  test("a config that may not be overwritten costs one more request once conditions were tried out", async () => {
    const { server, storage } = await pair();
    assert.equal(await storage.conditionalWrites(), true);
    assert.deepEqual([...server.objects.keys()], [], "nothing stays of the trial");
    const before = server.seen.length;
    await storage.save("config", "config", BYTES);
    await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
    assert.equal(server.seen.length - before, 2);
  });

  test("a bucket that wants MD5 is asked in vain once", async () => {
    const { server, storage } = await pair({ wantsMd5: true });
    await storage.save("data", NAME, BYTES);
    await storage.save("index", NAME, BYTES);
    assert.equal(server.count("PUT"), 3);
  });

  test("no more connections are open than allowed, however many calls there are", async () => {
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

  test("a bucket in the host's name is asked and signed for there", async () => {
    const lookup = mock.method(
      dns,
      "lookup",
      (_host: string, options: { all?: boolean }, done: (...a: unknown[]) => void) =>
        options.all === true ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4),
    );
    try {
      const { server } = await pair({ hostStyle: true });
      const place = parseS3Location(`http://s3.test:${server.port}/bucket/p`);
      const storage = await S3Storage.open({ place, credentials: KEY, addressing: "host" });
      await storage.save("data", NAME, BYTES);
      assert.deepEqual(await storage.list("data"), [{ name: NAME, size: 5000 }]);
      assert.equal(server.seen[0]?.headers.host, `bucket.s3.test:${server.port}`);
      await storage.close();
    } finally {
      lookup.mock.restore();
    }
  });

  test("the region that the server names is used when nobody has said one, and named when somebody has", async () => {
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

  test("a caller that stops is told so, and its upload in parts is aborted all the same", async () => {
    const stop = new AbortController();
    const { server, storage } = await pair({}, { signal: stop.signal, multipart: { above: 10, partSize: 1000 } });
    server.faults.push((request) => {
      if (request.query.get("partNumber") === "3") stop.abort();
      return false;
    });
    await assert.rejects(storage.saveFile("data", NAME, temporary(BYTES)), coded("interrupted"));
    assert.equal(server.uploads.size, 0);
    await assert.rejects(storage.load("data", NAME), coded("interrupted"));
  });

  test("who was stopped takes the lock away all the same", async () => {
    const stop = new AbortController();
    const { server, storage } = await pair({}, { signal: stop.signal });
    await storage.save("locks", NAME, BYTES);
    stop.abort();
    await assert.rejects(storage.save("data", NAME, BYTES), coded("interrupted"));
    await storage.remove("locks", NAME);
    assert.equal(server.objects.size, 0);
  });

  test("many calls under one signal are no leak of its listeners", async () => {
    const warnings: Error[] = [];
    const note = (warning: Error): void => void warnings.push(warning);
    process.on("warning", note);
    const { storage } = await pair({}, { signal: new AbortController().signal, connections: 30 });
    const files = Array.from({ length: 60 }, (_, i) => Buffer.from(String(i)));
    await Promise.all(files.map((bytes) => storage.save("data", nameOf(bytes), bytes)));
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", note);
    assert.deepEqual(warnings, []);
  });
});

describe("errors", () => {
  const cases: [number, string, ErrorCode, RegExp][] = [
    [403, "AccessDenied", "permission", /credentials/],
    [403, "InvalidAccessKeyId", "permission", /credentials/],
    [400, "ExpiredToken", "permission", /session token/],
    [404, "NoSuchBucket", "not_found", /create the bucket/],
    [404, "NoSuchKey", "not_found", /./],
    [409, "OperationAborted", "io", /./],
    [429, "TooManyRequests", "busy", /./],
    [503, "SlowDown", "busy", /./],
    [500, "InternalError", "io", /./],
    [400, "RequestTimeout", "io", /./],
    [501, "NotImplemented", "unsupported", /./],
    [507, "QuotaExceeded", "no_space", /./],
    [301, "PermanentRedirect", "usage", /AWS_REGION/],
    [302, "", "unsupported", /redirect/],
    [418, "", "unsupported", /S3 server/],
  ];
  for (const [status, s3Code, code, words] of cases) {
    test(`${status} ${s3Code} is ${code}`, async () => {
      const { server, storage } = await pair();
      server.fail(
        "GET",
        s3Code === "" ? { status, body: "<html>" } : errorReply(status, s3Code, "words of the server"),
      );
      await assert.rejects(storage.load("data", NAME), coded(code, words));
    });
  }

  test("what the server repeats of a request is not repeated to the user", async () => {
    const { server, storage } = await pair();
    server.fail("GET", errorReply(400, "InvalidRequest", `token ${KEY.sessionToken} of ${KEY.secretAccessKey}`));
    await assert.rejects(storage.load("data", NAME), coded("unsupported", /token \*\*\* of \*\*\*/));
    const wrong = await storageAt(server, { credentials: { ...KEY, secretAccessKey: "another" } });
    await assert.rejects(wrong.load("data", NAME), coded("permission", /SignatureDoesNotMatch/));
    assert.equal(storage.location, `s3:${server.address}/some prefix/ü+%25`);
  });

  test("a clock that is off is named with how much", async () => {
    const { server, storage } = await pair();
    const date = new Date(Date.now() + 3_600_000).toUTCString();
    const reply = errorReply(403, "RequestTimeTooSkewed", "too skewed");
    server.fail("GET", { ...reply, headers: { date } });
    await assert.rejects(
      storage.load("data", NAME),
      coded("permission", /clock is 60 minutes behind the server's.*NTP/s),
    );
  });

  test("what passes by itself is tried again by the wrapper, no sooner than the server wants", async () => {
    const { server, storage } = await pair();
    const delays: number[] = [];
    const retrying = new RetryingStorage(storage, { sleep: async (ms) => void delays.push(ms) });
    server.fail("PUT", { ...errorReply(503, "SlowDown", "later"), headers: { "retry-after": "7" } }, 2);
    await retrying.save("data", NAME, BYTES);
    assert.deepEqual(delays, [7000, 7000]);
    assert.equal(server.count("PUT"), 3);
  });

  test("a server that is not there is io", async () => {
    const { server, storage } = await pair();
    await server.stop();
    servers.pop();
    await assert.rejects(storage.list("data"), coded("io", /ECONNREFUSED/));
  });

  test("silence is ended and called so", async () => {
    const { server, storage } = await pair({}, { silenceMs: 50 });
    server.faults.push(() => true);
    await assert.rejects(storage.load("data", NAME), coded("io", /silence/));
    await assert.rejects(storage.saveFile("data", NAME, temporary(BYTES)), coded("io", /silence/));
  });
});

describe("answers that lie", () => {
  const answering = async (write: (answer: ServerResponse) => void): Promise<S3Storage> => {
    const { server, storage } = await pair({}, { silenceMs: 2000 });
    server.faults.push((_request, answer) => {
      write(answer);
      return true;
    });
    return storage;
  };

  test("an answer that is cut is io, whole and by range", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(206, { "content-length": "100", "content-range": "bytes 0-99/5000" });
      answer.write(BYTES.subarray(0, 60), () => answer.destroy());
    });
    await assert.rejects(storage.load("data", NAME), coded("io"));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 100 }), coded("io"));
  });

  test("a range of another length or place is io", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(206, { "content-range": "bytes 0-9/5000" });
      answer.end(BYTES.subarray(0, 10));
    });
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 100 }), coded("io", /other bytes/));
    await assert.rejects(storage.load("data", NAME, { offset: 5, length: 10 }), coded("io", /other bytes/));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 9 }), coded("io", /10 bytes|longer/));
  });

  test("a server without ranges is unsupported, but for a range that is the whole file", async () => {
    const storage = await answering((answer) => answer.end(BYTES));
    await assert.rejects(storage.load("data", NAME, { offset: 0, length: 10 }), coded("unsupported"));
    assert.deepEqual(Buffer.from(await storage.load("data", NAME, { offset: 0, length: 5000 })), BYTES);
  });

  test("a length that nobody could hold is refused before anything is held", async () => {
    const storage = await answering((answer) => {
      answer.writeHead(200, { "content-length": String(2 ** 50) });
      answer.write("x");
    });
    await assert.rejects(storage.load("data", NAME), coded("io", /1125899906842624 bytes/));
  });

  test("a list that never ends, leads nowhere or is no list is an error", async () => {
    const list = (xml: string): Promise<S3Storage> => answering((answer) => answer.end(xml));
    const more = (token: string): string =>
      `<ListBucketResult><IsTruncated>true</IsTruncated>${token}</ListBucketResult>`;
    const circle = await list(more("<NextContinuationToken>a</NextContinuationToken>"));
    await assert.rejects(circle.list("data"), coded("io", /circles/));
    await assert.rejects((await list(more(""))).list("data"), coded("io", /does not say where/));
    let count = 0;
    const empty = await answering((answer) =>
      answer.end(more(`<NextContinuationToken>${count++}</NextContinuationToken>`)),
    );
    await assert.rejects(empty.list("data"), coded("io", /empty pages/));
    await assert.rejects((await list("<html><body/></html>")).list("data"), coded("unsupported", /not a list/));
    await assert.rejects((await list("no xml")).list("data"), coded("io", /XML/));
    const sizes =
      "<ListBucketResult><Contents><Key>some prefix/ü+%/data/x</Key><Size>-1</Size></Contents></ListBucketResult>";
    await assert.rejects((await list(sizes)).list("data"), coded("io", /no size/));
  });

  test("a list larger than any page is not read to its end", async () => {
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

  test("files of others and folders are not listed", async () => {
    const { server, storage } = await pair();
    await storage.save("data", NAME, BYTES);
    const root = "some prefix/ü+%";
    for (const key of [
      `${root}/data/`,
      `${root}/data/zz/${NAME}`,
      `${root}/data/${NAME}`,
      `${root}/data/ab/note <&> ä`,
    ])
      server.objects.set(key, Buffer.from("x"));
    assert.deepEqual(await storage.list("data"), [{ name: NAME, size: 5000 }]);
  });

  test("an upload whose end fails with status 200 is an error and is aborted", async () => {
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
    assert.deepEqual(server.objects.get(`some prefix/ü+%/data/${NAME.slice(0, 2)}/${NAME}`), BYTES);
  });

  test("a config that somebody wrote meanwhile is not taken for ours where conditions are ignored", async () => {
    const { server, storage } = await pair({ conditional: "ignored" });
    assert.equal(await storage.conditionalWrites(), false);
    const theirs = Buffer.from("theirs");
    server.faults.push((request) => {
      // Between our write and our look at it.
      if (request.method === "GET" && request.path.endsWith("/config"))
        server.objects.set("some prefix/ü+%/config", theirs);
      return false;
    });
    await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  });
});

test("leftovers of killed writers are removed when they are old by the server's clock", async () => {
  const { server, storage } = await pair();
  const key = (name: string): string => `some prefix/ü+%/data/${name.slice(0, 2)}/${name}`;
  const begun = (hours: number): Date => new Date(Date.now() - hours * 3_600_000);
  server.uploads.set("old", { key: key(NAME), parts: new Map(), begun: begun(2) });
  server.uploads.set("new", { key: key(NAME), parts: new Map(), begun: begun(0) });
  server.uploads.set("foreign", { key: "some prefix/ü+%/data/else", parts: new Map(), begun: begun(2) });
  assert.equal(await storage.clearTemporaries(3_600_000), 1);
  assert.deepEqual([...server.uploads.keys()], ["new", "foreign"]);
  server.fail("GET", errorReply(403, "AccessDenied", "no"));
  assert.equal(await storage.clearTemporaries(0), 0);
});

test("a trial of conditions that fails for a moment is made again when it is needed", async () => {
  const { server } = await pair();
  server.fail("PUT", errorReply(503, "SlowDown", "later"));
  const env = { AWS_ACCESS_KEY_ID: KEY.accessKeyId, AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey, HOME: scratch };
  const open = (): Promise<S3Storage> =>
    openS3Storage(`${server.address}/p`, { env: { ...env, AWS_SESSION_TOKEN: KEY.sessionToken }, create: true });
  const storage = await open();
  opened.push(storage);
  await storage.save("config", "config", BYTES);
  await assert.rejects(storage.save("config", "config", BYTES), coded("already_exists"));
  server.fail("PUT", errorReply(404, "NoSuchBucket", "no"));
  await assert.rejects(open(), coded("not_found", /bucket/));
});

test("a location is opened with what the environment says", async () => {
  const { server } = await pair();
  const env = {
    AWS_ACCESS_KEY_ID: KEY.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEY.secretAccessKey,
    AWS_SESSION_TOKEN: KEY.sessionToken,
    HOME: scratch,
  };
  const storage = await openS3Storage(`${server.address}/p`, { env, create: true });
  opened.push(storage);
  assert.equal(server.count("PUT", "DELETE"), 3, "conditions are tried out");
  await storage.save("keys", NAME, BYTES);
  assert.deepEqual([...server.objects.keys()], [`p/keys/${NAME}`]);
  await assert.rejects(
    openS3Storage(`${server.address}/p`, { env: { HOME: scratch } }),
    coded("permission", /AWS_PROFILE/),
  );
  for (const wrong of [{ CAIRN_S3_ADDRESSING: "x" }, { AWS_REGION: "a\nb" }, { AWS_SESSION_TOKEN: "a\nb" }])
    await assert.rejects(openS3Storage(server.address, { env: { ...env, ...wrong } }), coded("usage"));
  const anonymous = await openS3Storage(`${server.address}/p`, { env: { HOME: scratch, CAIRN_S3_ANONYMOUS: "1" } });
  opened.push(anonymous);
  await assert.rejects(anonymous.list("keys"), coded("permission"));
  assert.equal(server.seen.at(-1)?.headers.authorization, undefined);
});

describe("kills of an upload in parts", () => {
  const CHILD = `
const at = (name) => import(new URL(name, ${JSON.stringify(import.meta.url)}).href);
const { S3Storage } = await at("./s3.ts");
const { parseS3Location } = await at("./s3-location.ts");
const [address, name, file] = process.argv.slice(1);
const options = { place: parseS3Location(address), credentials: ${JSON.stringify(KEY)}, multipart: { above: 10, partSize: 1000 } };
await (await S3Storage.open(options)).saveFile("data", name, file);
`;

  for (const step of ["s3.upload-begun", "s3.parts-sent", "s3.upload-completed"]) {
    test(`a kill at ${step} leaves the whole file or none, and what it leaves is swept away`, async () => {
      const { server, storage } = await pair();
      const file = temporary(BYTES);
      const address = `${server.address}/some prefix/ü+%25`;
      const env = { ...process.env, CAIRN_FAILPOINT: step };
      const args = ["--input-type=module", "-e", CHILD, "--", address, NAME, file];
      const child = spawn(process.execPath, args, { env, stdio: "inherit" });
      const [, signal] = (await once(child, "exit")) as [number | null, string | null];
      assert.equal(signal, "SIGKILL");
      const done = step === "s3.upload-completed";
      assert.deepEqual(await storage.list("data"), done ? [{ name: NAME, size: 5000 }] : []);
      assert.equal(server.uploads.size, done ? 0 : 1);
      // The server's clock tells whole seconds.
      assert.equal(await storage.clearTemporaries(-60_000), done ? 0 : 1);
      await storage.saveFile("data", NAME, file);
      assert.deepEqual(Buffer.from(await storage.load("data", NAME)), BYTES);
      assert.deepEqual([server.uploads.size, existsSync(file)], [0, false]);
    });
  }
});
