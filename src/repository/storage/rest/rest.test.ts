import { strict as assert } from "node:assert";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createHash, randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, before, describe, test } from "node:test";
import { promisify } from "node:util";
import { eventually } from "../../../../test/fixtures/eventually.ts";
import { Credentials, htpasswdLine } from "../../../api/repository-server/credentials.ts";
import { RepositoryServer, type RepositoryServerOptions } from "../../../api/repository-server/server.ts";
import { TlsFiles } from "../../../api/tls-files.ts";
import { CairnError } from "../../../errors.ts";
import { CallStorage } from "../call-storage.ts";
import { withoutSecrets } from "../http-connection.ts";
import { openRestStorage, RestStorage } from "./rest.ts";
import { RetryingStorage } from "../retrying.ts";
import { storageContract } from "../storage.contract.ts";
import { sizesOf } from "../testing-sizes.ts";

const root = mkdtempSync(join(tmpdir(), "cairn-rest-"));
const problems: string[] = [];
const servers: RepositoryServer[] = [];
const open: RestStorage[] = [];

after(async () => {
  for (const storage of open) await storage.close();
  await Promise.all(servers.map((server) => server.stop()));
  rmSync(root, { recursive: true, force: true });
  assert.deepEqual(problems, []);
});

async function serve(options: Partial<RepositoryServerOptions> = {}): Promise<RepositoryServer> {
  const server = await RepositoryServer.start({
    root,
    host: "127.0.0.1",
    port: 0,
    appendOnly: false,
    privateRepositories: false,
    maximumFileBytes: 1 << 30,
    credentials: null,
    graceMs: 1000,
    onProblem: (message) => problems.push(message),
    ...options,
  });
  servers.push(server);
  return server;
}

/** A certificate for 127.0.0.1 that vouches for itself; null where openssl is not installed. */
function makeCertificate(): { files: TlsFiles; caFile: string } | null {
  const [key, certificate] = [join(root, "key.pem"), join(root, "cert.pem")];
  const subject = ["-subj", "/CN=cairn", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
  const kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  try {
    execFileSync("openssl", ["req", ...kind, ...subject, "-keyout", key, "-out", certificate], { stdio: "ignore" });
  } catch {
    return null;
  }
  return { files: new TlsFiles(certificate, key), caFile: certificate };
}

const tls = makeCertificate();
const htpasswd = join(root, "users");
writeFileSync(htpasswd, `${await htpasswdLine("alice", "s3cret:with colon")}\n`);

async function storageAt(server: RepositoryServer, name: string, options = {}): Promise<RestStorage> {
  const storage = await RestStorage.create(`rest:${server.url}${name}`, options);
  open.push(storage);
  return storage;
}

const plain = serve();
storageContract(
  "rest",
  async (folder) => storageAt(await plain, basename(folder)),
  (folder) => join(root, basename(folder)),
);

const guarded = serve({
  credentials: Credentials.open(htpasswd, (message) => problems.push(message)),
  privateRepositories: true,
  ...(tls === null ? {} : { tls: tls.files }),
});
const alice = { user: "alice", password: "s3cret:with colon", ...(tls === null ? {} : { caFile: tls.caFile }) };
storageContract(
  `rest with a user${tls === null ? "" : " and TLS"}`,
  async (folder) => storageAt(await guarded, `alice/${basename(folder)}`, alice),
  (folder) => join(root, "alice", basename(folder)),
);

function nameOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

function coded(code: string, pattern?: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof CairnError, String(error));
    assert.equal(error.code, code, error.message);
    if (pattern !== undefined) assert.match(error.message, pattern);
    assert.doesNotMatch(JSON.stringify([error.message, error.hint, error.details]), /s3cret|czNjcmV0/);
    return true;
  };
}

test(
  "rest storage refuses an untrusted certificate, even with NODE_TLS_REJECT_UNAUTHORIZED=0",
  { skip: tls === null && "openssl is not installed" },
  async () => {
    const { caFile: _, ...without } = alice as { caFile: string; user: string; password: string };
    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0";
    try {
      const opening = storageAt(await guarded, "alice/x", without);
      await assert.rejects(opening, coded("refused", /self-signed certificate \(the server's certificate\)$/));
      await assert.rejects(opening, ({ hint }: CairnError) => /RESTIC_CACERT/.test(hint ?? ""));
    } finally {
      delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"];
    }
  },
);

test("rest storage throws permission for a wrong password, no password, or another user's repository", async () => {
  const server = await guarded;
  const wrong = { ...alice, password: "wrong" };
  await assert.rejects(storageAt(server, "alice/x", wrong), coded("permission", /401/));
  await assert.rejects(storageAt(server, "alice/x", { ...alice, user: "", password: "" }), coded("permission", /401/));
  await assert.rejects(storageAt(server, "bob/x", alice), coded("permission", /not yours/));
  await assert.rejects(storageAt(server, "", alice), coded("permission", /not yours/));
});

test("the location and the errors of rest storage contain no password", async () => {
  const address = "rest:http://alice:s3cret@127.0.0.1:1/repo";
  const storage = new RestStorage(address);
  assert.equal(storage.location, "rest:http://127.0.0.1:1/repo/");
  await assert.rejects(storage.list("index"), coded("io", /ECONNREFUSED/));
  for (const wrong of ["http://alice:s3cret@", "ftp://a:s3cret@h/", "http://a:s3cret@h/?x=1", "http://a:s3cret%@h/"])
    assert.throws(() => new RestStorage(wrong), coded("usage"));
});

test("rest storage replaces an existing file that has another size", async () => {
  const storage = await storageAt(await plain, "replaced");
  const bytes = randomBytes(1000);
  const name = nameOf(bytes);
  await storage.save("data", name, bytes);
  truncateSync(join(root, "replaced/data", name.slice(0, 2), name), 10);
  await storage.save("data", name, bytes);
  assert.deepEqual(Buffer.from(await storage.load("data", name)), bytes);
});

test("the server keeps no file of an upload whose SHA-256 is not its name", async () => {
  const storage = await storageAt(await plain, "digest");
  await assert.rejects(
    storage.save("data", "ab".repeat(32), randomBytes(100)),
    coded("io", /not those of pack abababab/),
  );
  assert.deepEqual(await storage.list("data"), []);
  assert.deepEqual(readdirSync(join(root, "digest/.cairn-uploads")), []);
});

test("an append-only server accepts new files and removes only locks", async () => {
  const server = await serve({ appendOnly: true });
  const storage = await storageAt(server, "append");
  const bytes = randomBytes(50);
  for (const kind of ["data", "index", "snapshots", "keys", "locks"] as const)
    await storage.save(kind, nameOf(bytes), bytes);
  await storage.save("config", "config", bytes);
  // What a repeated backup does.
  await storage.save("data", nameOf(bytes), bytes);
  for (const kind of ["data", "index", "snapshots", "keys"] as const)
    await assert.rejects(storage.remove(kind, nameOf(bytes)), coded("permission", /append-only/));
  await assert.rejects(storage.remove("config", "config"), coded("permission", /append-only/));
  await storage.remove("locks", nameOf(bytes));
  assert.equal(await storage.exists("locks", nameOf(bytes)), false);
});

test("rest storage sends as many requests at once as it may open connections, at least five", async (t) => {
  for (const [calls, expected] of [
    [9, 9],
    [2, 5],
    [undefined, 5],
  ] as const) {
    const waiting: ServerResponse[] = [];
    const server = createServer((_request, response) => void waiting.push(response));
    await new Promise<void>((done) => void server.listen(0, "127.0.0.1", done));
    t.after(() => server.close());
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
    const storage = await openRestStorage(address, { env: {}, limits: { calls } });
    const asked = Array.from({ length: 12 }, async () => storage.exists("config", "config"));
    await eventually("as many requests", () => waiting.length === expected);
    // No further one comes before one of them is answered.
    for (let answered = 0; answered < 12; answered++) {
      await eventually("a request", () => waiting.length > 0);
      assert.ok(waiting.length <= expected);
      waiting.shift()!.writeHead(200, { "content-length": "0" }).end();
    }
    await Promise.all(asked);
    await storage.close();
  }
});

test("an abort ends a running list of rest storage, but not a commit", async () => {
  const stop = new AbortController();
  const storage = new CallStorage(await storageAt(await plain, "stopped"), { signal: stop.signal });
  const bytes = randomBytes(10);
  await storage.save("locks", nameOf(bytes), bytes);
  const listed = storage.list("data");
  const key = storage.save("keys", nameOf(bytes), bytes);
  stop.abort();
  await assert.rejects(listed, coded("interrupted"));
  await key;
  assert.deepEqual(sizesOf(await storage.list("keys")), [{ name: nameOf(bytes), size: bytes.length }]);
  await storage.remove("keys", nameOf(bytes));
  await storage.remove("locks", nameOf(bytes));
});

describe("a misbehaving REST server", () => {
  let server: Server;
  let answer: (request: IncomingMessage, response: ServerResponse) => void = () => undefined;
  let storage: RestStorage;
  const name = "ab".repeat(32);

  before(async () => {
    server = createServer((request, response) => {
      request.resume();
      answer(request, response);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address() as AddressInfo;
    storage = new RestStorage(`http://alice:s3cret@127.0.0.1:${port}/`);
  });
  after(async () => {
    await storage.close();
    server.closeAllConnections();
    server.close();
  });

  const status = (code: number, headers: Record<string, string> = {}, text = ""): void => {
    answer = (_, response) => void response.writeHead(code, headers).end(text);
  };

  test("rest storage throws an error with a hint if the server's disk is full", async () => {
    status(507);
    await assert.rejects(storage.save("index", name, Buffer.from("x")), (error: CairnError) => {
      assert.equal(error.hint, "make room there and run the command again: content that is already stored is used");
      return true;
    });
  });

  test("rest storage throws a permanent error for an https address if the server has no TLS", async () => {
    const { port } = server.address() as AddressInfo;
    const secure = new RestStorage(`https://127.0.0.1:${port}/`);
    const told: unknown[] = [];
    const retrying = new RetryingStorage(secure, { firstDelayMs: 1 });
    const call = { onRetry: (event: unknown) => void told.push(event) };
    await assert.rejects(retrying.load("config", "config", undefined, call), (error: CairnError) => {
      assert.equal(error.code, "unsupported");
      assert.match(error.message, /: no TLS connection with the server: [a-z ]+$/);
      assert.match(error.hint!, /http:\/\/ for a server without TLS/);
      return true;
    });
    assert.deepEqual(told, []);
    await secure.close();
  });

  test("rest storage closes the connection of a call that was made after close", async () => {
    status(200);
    const closed = new RestStorage(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
    const open = async (): Promise<number> => promisify(server.getConnections.bind(server))();
    const before = await open();
    await closed.remove("locks", name);
    assert.equal(await open(), before + 1);
    await closed.close();
    await closed.remove("locks", name);
    await eventually("the connection is gone", async () => (await open()) === before);
  });

  test("rest storage maps each HTTP status to an error code", async () => {
    const wanted: Record<number, string> = {
      301: "unsupported",
      401: "permission",
      403: "permission",
      404: "not_found",
      405: "unsupported",
      413: "refused",
      429: "busy",
      500: "io",
      502: "io",
      503: "busy",
      507: "no_space",
    };
    for (const [code, error] of Object.entries(wanted)) {
      status(Number(code));
      await assert.rejects(storage.load("index", name), coded(error, new RegExp(code)));
      await assert.rejects(storage.save("index", name, Buffer.from("x")), coded(error));
      await assert.rejects(storage.list("index"), coded(error));
      await assert.rejects(storage.remove("index", name), coded(error));
      if (code !== "404") await assert.rejects(storage.exists("index", name), coded(error));
    }
  });

  test("an error of rest storage has the server's text without secrets, and its retry-after time", async () => {
    status(503, { "content-type": "text/plain", "retry-after": "7" }, "no s3cret for \u001b[31mYWxpY2U6czNjcmV0\nmore");
    await assert.rejects(storage.list("index"), (error) => {
      coded("busy", /no \*\*\* for \?\[31m\*\*\*\)/)(error);
      assert.equal((error as CairnError).details?.["retryAfterMs"], 7000);
      return true;
    });
  });

  test("withoutSecrets hides long secrets anywhere in a text, and short secrets only as whole words", () => {
    const text = "not known, no=no; xs3cret-tokenx";
    assert.equal(withoutSecrets(text, ["no", "", "s3cret-token"]), "not known, ***=***; x***x");
  });

  test("rest storage throws io for a truncated answer", async () => {
    answer = (_, response) => {
      response.writeHead(200, { "content-length": "100" });
      response.write("short");
      setImmediate(() => response.destroy());
    };
    await assert.rejects(storage.load("index", name), coded("io"));
    await assert.rejects(storage.load("index", name, { offset: 0, length: 50 }), coded("io"));
    await assert.rejects(storage.list("index"), coded("io"));
    answer = (request) => request.socket.destroy();
    await assert.rejects(storage.save("index", name, Buffer.alloc(100_000)), coded("io"));
    answer = (request) => request.socket.end("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhow long?");
    await assert.rejects(storage.load("index", name), coded("unsupported", /does not tell the file's size/));
  });

  test("rest storage allocates memory for received bytes, not for the announced length", async () => {
    answer = (_, response) => {
      response.writeHead(200, { "content-length": String(1 << 30) });
      response.write("little");
      setImmediate(() => response.destroy());
    };
    const before = process.memoryUsage().arrayBuffers;
    await assert.rejects(storage.load("index", name), coded("io"));
    assert.ok(process.memoryUsage().arrayBuffers < before + (16 << 20));
  });

  test("onSent counts only bytes that have left this machine", async () => {
    const bytes = randomBytes(16 << 20);
    const path = join(root, "large");
    writeFileSync(path, bytes);
    const [asked, told] = [Promise.withResolvers<IncomingMessage>(), Promise.withResolvers<number>()];
    answer = (request, response) => {
      request.pause();
      asked.resolve(request);
      request.on("end", () => response.end());
    };
    const saving = storage.saveFile("data", nameOf(bytes), path, { onSent: (sent) => told.resolve(sent) });
    const request = await asked.promise;
    const sent = await told.promise;
    assert.ok(sent < 1 << 20, `${sent} of ${bytes.length} bytes have arrived where nothing is read`);
    request.resume();
    await saving;
  });

  test("rest storage throws io if the server is silent before or within an answer", async () => {
    const impatient = new RestStorage(storage.location, { silenceMs: 300 });
    answer = () => undefined;
    await assert.rejects(impatient.load("index", name), coded("io", /no data for/));
    await assert.rejects(impatient.save("index", name, Buffer.from("x")), coded("io", /no data for/));
    answer = (_, response) => {
      response.writeHead(200, { "content-length": "100" });
      response.write("x");
    };
    await assert.rejects(impatient.load("index", name), coded("io", /no data for/));
    await impatient.close();
  });

  test("rest storage refuses a range with the wrong position or length", async () => {
    const range = { offset: 10, length: 5 };
    status(206, { "content-range": "bytes 0-4/100" }, "01234");
    await assert.rejects(storage.load("index", name, range), coded("unsupported"));
    status(206, { "content-range": "bytes 10-12/13" }, "012");
    await assert.rejects(storage.load("index", name, range), coded("damaged", /13 bytes/));
    status(206, { "content-range": "bytes 10-14/100" }, "012");
    await assert.rejects(storage.load("index", name, range), coded("io"));
    status(206, {}, "01234");
    await assert.rejects(storage.load("index", name, range), coded("unsupported"));
    status(200, {}, "abcdefghijklmnopqrstuvwxyz");
    assert.equal(Buffer.from(await storage.load("index", name, range)).toString(), "klmno");
    await assert.rejects(storage.load("index", name, { offset: 20, length: 7 }), coded("damaged"));
  });

  test("rest storage reads lists of both protocol versions, and refuses invalid lists", async () => {
    const v2 = { "content-type": "application/vnd.x.restic.rest.v2" };
    status(
      200,
      v2,
      JSON.stringify([
        { name, size: 7 },
        { name: "../config", size: 1 },
      ]),
    );
    assert.deepEqual(sizesOf(await storage.list("index")), [{ name, size: 7 }]);
    status(200, v2, "null");
    assert.deepEqual(await storage.list("index"), []);
    for (const text of ["", "{", "{}", "7", '[{"name":7,"size":1}]', `[{"name":"${name}","size":-1}]`, "[null]"]) {
      status(200, v2, text);
      await assert.rejects(storage.list("index"), coded("damaged"), text);
    }
    for (const text of ["<html>welcome</html>", "{}"]) {
      status(200, { "content-type": "text/html" }, text);
      await assert.rejects(storage.list("index"), (error: CairnError) => {
        assert.match(error.message, /at rest:http/);
        assert.match(error.hint!, /may not be a REST server/);
        return coded("unsupported")(error);
      });
    }
    answer = (request, response) => {
      if (request.method === "HEAD") response.writeHead(200, { "content-length": "9" }).end();
      else response.end(JSON.stringify([name, "x"]));
    };
    assert.deepEqual(sizesOf(await storage.list("index")), [{ name, size: 9 }]);
    // What is listed and cannot be had is to be missed by whoever reads it.
    answer = (request, response) => {
      if (request.method === "HEAD") response.writeHead(404).end();
      else response.end(JSON.stringify([name]));
    };
    assert.deepEqual(sizesOf(await storage.list("snapshots")), [{ name, size: 0 }]);
    assert.deepEqual(await storage.list("data"), []);
  });

  test("rest storage repeats a request on a new connection if the server closed the idle connection", async () => {
    let requests = 0;
    answer = (request, response) => {
      requests += 1;
      // The second request on a connection finds it ended.
      if (requests === 2) request.socket.destroy();
      else response.writeHead(200, { "content-length": "2" }).end("ok");
    };
    assert.equal((await storage.load("index", name)).length, 2);
    assert.equal((await storage.load("index", name)).length, 2);
    assert.equal(requests, 3);
  });

  test("rest storage reuses connections, and opens no more than allowed", async () => {
    const sockets = new Set<unknown>();
    answer = (request, response) => {
      sockets.add(request.socket);
      const found = request.method !== "HEAD" || request.url !== "/config";
      response.writeHead(found ? 200 : 404, { "content-length": "2" }).end("[]");
    };
    const few = new RestStorage(storage.location, { connections: 2 });
    const call = async (): Promise<void> => {
      await few.save("index", name, Buffer.from("x"));
      await few.load("index", name);
      await few.exists("config", "config");
      await few.list("index");
      await few.remove("index", name);
    };
    await call();
    assert.equal(sockets.size, 1);
    await Promise.all(Array.from({ length: 10 }, call));
    assert.equal(sockets.size, 2);
    await few.close();
  });

  test("rest storage throws the server's reason if the server refuses a large upload early", async () => {
    answer = (request, response) => {
      request.pause();
      if (request.method === "HEAD") response.writeHead(404).end();
      else response.writeHead(403, { "content-type": "text/plain" }).end("read only\n");
    };
    await assert.rejects(storage.save("data", name, Buffer.alloc(8 << 20)), coded("permission", /read only/));
    const file = join(root, "large");
    writeFileSync(file, Buffer.alloc(8 << 20));
    await assert.rejects(storage.saveFile("data", name, file), coded("permission", /read only/));
    assert.equal(readFileSync(file).length, 8 << 20);
    await assert.rejects(storage.saveFile("data", name, join(root, "absent")), coded("not_found"));
  });
});
