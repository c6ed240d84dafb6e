import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { test, type TestContext } from "node:test";
import tls from "node:tls";
import { connect } from "../../src/client.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ask, call, open, textOf } from "../fixtures/http.ts";

/** The daemon's HTTP on TCP: who gets in, what is encrypted, and what strangers can make it do. */

interface Place {
  daemon: TestDaemon;
  workspace: string;
  token: string;
}

let places = 0;
async function place(t: TestContext, http = 'listen = "127.0.0.1:0"', more = ""): Promise<Place> {
  const daemon = new TestDaemon(t);
  configure(daemon, http, more);
  await daemon.start();
  const workspace = path.join(SCRATCH, `tcp-${places++}`);
  fs.mkdirSync(workspace);
  fs.writeFileSync(path.join(workspace, "a"), "one\n");
  cairnOk(["save", workspace], daemon.asked);
  const { token } = cairnOk(["service", "token", "create", "--person"], daemon.asked).data as { token: string };
  return { daemon, workspace, token };
}

function configure(daemon: TestDaemon, http: string, more = ""): void {
  daemon.configure(`[backend]\ntype = "plain"\n${more}\n[http]\n${http}\n`);
}

/** A certificate that signed itself, for 127.0.0.1, and its key. */
function makeCertificate(folder: string, name: string): { cert: string; key: string } {
  const [cert, key] = [path.join(folder, "cert.pem"), path.join(folder, "key.pem")];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
  const names = ["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1"];
  execFileSync("openssl", [...request, ...names, "-keyout", key, "-out", cert], { stdio: "ignore" });
  return { cert, key };
}

const withTls = ({ cert, key }: { cert: string; key: string }): string =>
  `listen = "127.0.0.1:0"\ncertificate = "${cert}"\nkey = "${key}"`;

test("the daemon refuses a public address without a certificate, and a certificate that does not fit its key", async (t) => {
  const daemon = new TestDaemon(t);
  const { cert, key } = makeCertificate(daemon.folder, "one");
  for (const [http, said] of [
    ['listen = "0.0.0.0:0"', /line \d+: listen: 0\.0\.0\.0 can be reached from other machines/],
    ['listen = "[::]:0"', /can be reached from other machines/],
    ['listen = "127.0.0.1.example.org:0"', /can be reached from other machines/],
    ['listen = "7777"', /must be HOST:PORT/],
    [`listen = "127.0.0.1:0"\ncertificate = "${cert}"`, /certificate: a certificate needs a key/],
    [`certificate = "${cert}"\nkey = "${key}"`, /a certificate needs `listen`/],
    [withTls({ cert, key: cert }), /are not a certificate and its key/],
    [withTls({ cert: "/nowhere", key }), /nowhere/],
  ] as const) {
    configure(daemon, http);
    const { status, error } = await daemon.refused();
    assert.notEqual(status, 0, http);
    assert.match(error.message, said, http);
  }
});

test("the daemon with a certificate accepts only TLS, and takes a new certificate on a reload", async (t) => {
  const folder = fs.mkdtempSync(path.join(SCRATCH, "certificate-"));
  const files = makeCertificate(folder, "first");
  const { daemon, workspace, token } = await place(t, withTls(files));
  assert.match(daemon.url, /^https:\/\/127\.0\.0\.1:\d+$/);
  const ca = fs.readFileSync(files.cert);
  const status = async (): Promise<number> =>
    (await ask({ at: daemon.url, path: "/v1/status", token, ca, body: { workspace } })).status;
  assert.equal(await status(), 200);
  await assert.rejects(
    ask({ at: daemon.url.replace("https", "http"), path: "/v1/status", token, body: { workspace } }),
  );
  await assert.rejects(ask({ at: daemon.url, path: "/v1/status", token, body: { workspace } }), "it is not trusted");
  const { port } = new URL(daemon.url);
  const nameNow = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = tls.connect({ host: "127.0.0.1", port: Number(port), rejectUnauthorized: false }, () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      });
      socket.on("error", reject);
    });
  assert.equal(await nameNow(), "first");
  makeCertificate(folder, "second");
  process.kill(daemon.pid, "SIGHUP");
  await eventually("the other certificate is given", async () => (await nameNow()) === "second");
  fs.writeFileSync(files.key, "no key");
  await assert.rejects(daemon.call("reload"), { code: "usage" });
  assert.equal(await nameNow(), "second");
  const [library, trusting] = [{}, { ca: fs.readFileSync(files.cert) }].map((more) =>
    connect({ url: daemon.url, token, ...more }),
  ) as [ReturnType<typeof connect>, ReturnType<typeof connect>];
  await assert.rejects(library.open(workspace), { code: "io" });
  assert.equal((await (await trusting.open(workspace)).status()).clean, true);
});

test("the daemon answers 401 to each TCP request without a valid token", async (t) => {
  const { daemon, workspace, token } = await place(t);
  const wrong = token.replace(/.$/, (last) => (last === "0" ? "1" : "0"));
  for (const headers of [
    {},
    { authorization: "Basic cm9vdDpyb290" },
    { authorization: "Bearer" },
    { authorization: `Bearer ${wrong}` },
    { authorization: `Bearer ${token}x` },
    { authorization: `Bearer ${"x".repeat(5000)}` },
    { authorization: `Bearer cairn_${"0".repeat(16)}_${"0".repeat(64)}` },
  ])
    for (const [method, url] of [
      ["POST", "/v1/status"],
      ["POST", "/v1/nothing"],
      ["GET", "/v1/openapi.json"],
      ["GET", "/metrics"],
      ["POST", "/mcp"],
      ["GET", "/"],
    ] as const) {
      const answered = await ask({
        at: daemon.url,
        method,
        path: url,
        headers,
        body: method === "POST" ? { workspace } : "",
      });
      assert.equal(answered.status, 401, `${method} ${url} ${JSON.stringify(headers)}`);
      assert.equal(answered.headers["www-authenticate"], "Bearer");
      assert.equal((answered.value as { error: { code: string } }).error.code, "permission");
    }
  assert.ok(!daemon.log.includes(wrong.split("_")[2]!), "no secret is logged");
  await eventually("it is logged", () =>
    /refused a call from 127\.0\.0\.1 with a wrong secret for token/.test(daemon.log),
  );
  for (const headers of [{ origin: "http://evil" }, { "sec-fetch-site": "cross-site" }])
    assert.equal((await ask({ at: daemon.url, path: "/v1/status", token, headers, body: { workspace } })).status, 403);
  assert.equal((await ask({ at: daemon.url, method: "GET", path: "/metrics", token, body: "" })).status, 200);
});

test("clients without a token that take every connection block neither the socket nor token holders", async (t) => {
  const { daemon, workspace, token } = await place(t, undefined, "[socket]\nconnections = 8");
  const { port } = new URL(daemon.url);
  const sockets: net.Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  for (let i = 0; i < 40; i++) {
    const socket = net.connect(Number(port), "127.0.0.1");
    socket.on("error", () => undefined);
    // A head that never ends.
    socket.write("POST /v1/status HTTP/1.1\r\nHost: x\r\n");
    sockets.push(socket);
  }
  await eventually("the oldest have given way", () => sockets.filter((each) => each.closed).length >= 32);
  assert.equal((await call(daemon.socket, "status", { workspace }))[0], 200);
  for (let i = 0; i < 10; i++) assert.equal((await call(daemon.url, "status", { workspace }, token))[0], 200);
});

test("the daemon limits the connections, calls and request size of one token", async (t) => {
  const { daemon, workspace, token } = await place(
    t,
    undefined,
    '[socket]\nconnections = 16\ncalls = 8\nrequest_size = "64KiB"',
  );
  const offer = { at: daemon.url, path: "/v1/freezeOffer", token, headers: { accept: "application/x-ndjson" } };
  // One after the other: until an offer stands, it counts as one of the two calls that the token may make at once.
  const lasting = [];
  for (let i = 0; i < 4; i++) lasting.push(await open({ ...offer, body: { workspace } }));
  assert.deepEqual(
    lasting.map((each) => each.statusCode),
    [200, 200, 200, 200],
  );
  assert.deepEqual(await call(daemon.url, "status", { workspace }, token), [423, "busy"]);
  assert.equal((await call(daemon.socket, "status", { workspace }))[0], 200);
  const second = cairnOk(["service", "token", "create", "--person"], daemon.asked).data["token"] as string;
  const large = await ask({
    at: daemon.url,
    path: "/v1/status",
    token: second,
    body: { workspace, options: { x: "x".repeat(100_000) } },
  });
  assert.deepEqual([large.status, (large.value as { error: { code: string } }).error.code], [400, "usage"]);
  assert.equal((await call(daemon.url, "status", { workspace }, second))[0], 200);
  cairnOk(["service", "token", "revoke", token.split("_")[1]!], daemon.asked);
  for (const each of lasting) assert.match(await textOf(each), /"schema_version":1/, "it has ended");
});

test("a client on TCP can make the library's calls, those of the package and of operators", async (t) => {
  const { daemon, workspace, token } = await place(t);
  const library = connect({ url: daemon.url, token });
  await using client = await library.open(workspace);
  fs.writeFileSync(path.join(workspace, "a"), "two\n");
  assert.ok((await client.save({ message: "second" })).made);
  const pieces: Uint8Array[] = [];
  for await (const piece of client.read("head~1", "a")) pieces.push(piece);
  assert.equal(Buffer.concat(pieces).toString(), "one\n");
  await client.restore({ target: "head~1" });
  assert.equal(fs.readFileSync(path.join(workspace, "a"), "utf8"), "one\n");
  const fork = `${workspace}-fork`;
  await client.fork("head", fork);
  assert.equal((await (await library.open(fork)).history()).save_points.length, 1);
  assert.deepEqual((await library.listWorkspaces()).map((each) => each.path).toSorted(), [workspace, fork]);
  assert.deepEqual((await library.listDatabases(workspace)).databases, []);
  assert.equal(await library.find(path.join(workspace, "deeper")), workspace);
  const to = path.join(SCRATCH, "restored-by-tcp");
  await client.restore({ target: "head", to });
  assert.equal(fs.readFileSync(path.join(to, "a"), "utf8"), "one\n");
  await assert.rejects(client.run(["id"]), { code: "unsupported" });
  await assert.rejects(library.openRepository({ repository: "/x", password: "x" }), { code: "unsupported" });
  await assert.rejects(connect({ url: daemon.url, token: "cairn_no" }).open(workspace), { code: "permission" });
  assert.throws(() => connect({ url: "nowhere", token }), { code: "usage" });
  await assert.rejects(connect({ url: "http://127.0.0.1:1", token }).open(workspace), { code: "no_daemon" });
  const moved = path.join(SCRATCH, "moved-by-tcp");
  fs.renameSync(fork, moved);
  await library.relocate(fork, moved);
  assert.equal((await (await library.open(moved)).history()).save_points.length, 1);
});
