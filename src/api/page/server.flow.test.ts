import assert from "node:assert/strict";
import fs from "node:fs";
import { once } from "node:events";
import { type IncomingHttpHeaders, type IncomingMessage, request } from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { Readable } from "node:stream";
import type { ReadableStream, ReadableStreamDefaultReader } from "node:stream/web";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { REF, SAVED } from "../../cli/testing-fake-library.ts";
import type { CairnLibrary, Client } from "../../contract/index.ts";
import { CairnError } from "../../errors.ts";
import { CLIENT_VERBS, DAEMON_CALLS, LIBRARY_VERBS } from "../../verbs/index.ts";
import { callOf, isOfWorkspace, onlyLooks, servedCalls } from "../rights/capabilities.ts";

import { CODE_MS, PageServer, type PageServerOptions } from "./server.ts";

process.env["CAIRN_SOCKET"] = "none";

const PLAN = "0".repeat(32);
const SCRIPT = "import(0)";
const ASSET = "/assets/main-0a1B2c3D.js";
/** Content by path. */
const FILES: Readonly<Record<string, Buffer>> = {
  "page.html": Buffer.from("<script>alert(1)</script>"),
  "drawing.svg": Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'),
  "image.png": Buffer.from("\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "latin1"),
  empty: Buffer.alloc(0),
};

interface Answered {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

interface AskOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
}

class Served {
  readonly server: PageServer;
  /** Names of the verbs that were called. */
  readonly called: string[];
  token = "";
  /** Milliseconds that the server's clock is ahead. */
  ahead: { ms: number };

  constructor(server: PageServer, called: string[], ahead: { ms: number }) {
    [this.server, this.called, this.ahead] = [server, called, ahead];
  }

  /** The page's name with the port. */
  get host(): string {
    return new URL(this.server.address()).host;
  }

  /** A request of a program, without the headers that a browser adds. */
  ask(target: string, { method = "GET", headers = {}, body = "" }: AskOptions = {}): Promise<Answered> {
    const { promise, resolve, reject } = Promise.withResolvers<Answered>();
    const at = { host: this.server.host, port: this.server.port };
    const asked = request({ ...at, path: target, method, headers: { host: this.host, ...headers }, agent: false });
    asked.on("error", reject);
    asked.on("response", (response) => {
      response.toArray().then((pieces: Buffer[]) => {
        assert.equal(response.headers["set-cookie"], undefined, "no cookie is ever set");
        resolve({ status: response.statusCode!, headers: response.headers, body: Buffer.concat(pieces).toString() });
      }, reject);
    });
    asked.end(body);
    return promise;
  }

  signedIn(target: string, { headers = {}, ...options }: AskOptions = {}): Promise<Answered> {
    return this.ask(target, { ...options, headers: { authorization: `Bearer ${this.token}`, ...headers } });
  }

  code(): string {
    return new URL(this.server.address()).hash.slice("#code=".length);
  }

  async signIn(code: unknown): Promise<Answered> {
    return this.ask("/session", { method: "POST", body: JSON.stringify({ code }) });
  }

  async call(name: string, members: object = {}): Promise<Answered> {
    return this.signedIn(`/v1/${name}`, { method: "POST", body: JSON.stringify(members) });
  }

  async ticket(file: string, more: object = {}): Promise<string> {
    const body = JSON.stringify({ workspace: "/w", target: "latest", path: file, as: "file", name: file, ...more });
    const made = await this.signedIn("/tickets", { method: "POST", body });
    assert.equal(made.status, 200, made.body);
    return (JSON.parse(made.body) as { data: { url: string } }).data.url;
  }

  /** Sends text as a request, byte for byte, and returns the whole answer. */
  async raw(text: string): Promise<string> {
    const socket = net.connect(this.server.port, this.server.host);
    socket.end(text);
    return Buffer.concat((await socket.toArray()) as Buffer[]).toString();
  }
}

/** What the library's verbs do: throw, or wait. */
interface Failing {
  error?: CairnError;
  until?: Promise<unknown>;
}

function fakeLibrary(called: string[], failing: Failing): CairnLibrary {
  const own: Record<string | symbol, unknown> = {
    workspace: REF,
    close: async () => undefined,
    [Symbol.asyncDispose]: async () => undefined,
    repoId: "r",
    engineReasons: [],
    followedFrom: "/former",
    conversion: {},
    created: true,
    async *walk() {},
    async *read(_target: unknown, file: string, { archive, paths = null }: Record<string, unknown>) {
      if (archive !== undefined) yield Buffer.from(JSON.stringify({ file, archive, paths }));
      if (failing.error !== undefined && file !== "broken") throw failing.error;
      yield FILES[file] ?? Buffer.from("first ");
      if (failing.error !== undefined) throw failing.error;
    },
  };
  const client = new Proxy(own, {
    get: (_own, name: string) =>
      name === "then"
        ? undefined
        : (own[name] ??
          (async () => {
            await failing.until;
            if (failing.error !== undefined) throw failing.error;
            called.push(name);
            return name === "save" ? SAVED : {};
          })),
  });
  return {
    open: async () => client as unknown as Client,
    async openOrInit() {
      called.push("openOrInit");
      return client as unknown as Client;
    },
    listWorkspaces: async () => [],
  } as unknown as CairnLibrary;
}

/** A server with a page and a library that answers nothing much, signed in to. */
async function serving(
  t: TestContext,
  { failing = {}, ...more }: Partial<PageServerOptions> & { failing?: Failing } = {},
): Promise<Served> {
  const page = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-page-"));
  fs.mkdirSync(path.join(page, "assets"));
  fs.writeFileSync(path.join(page, "index.html"), "<!doctype html>");
  fs.writeFileSync(path.join(page, `${ASSET}.gz`), gzipSync(SCRIPT));
  fs.writeFileSync(path.join(page, "assets/secret"), "secret");
  const called: string[] = [];
  const ahead = { ms: 0 };
  const server = await PageServer.start({
    openLibrary: async () => fakeLibrary(called, failing),
    page,
    agents: {
      status: async (folder) => [{ path: folder ?? "all", agents: [] }],
      async change(verb, { folder, tool, plan }) {
        called.push(`${verb} ${folder} ${tool} ${plan}`);
        return { plan_id: PLAN, files: [], checked: null, problem: null };
      },
      forget: () => void called.push("forget"),
    },
    isReadOnly: false,
    start: null,
    view: null,
    byAddress: false,
    onView: () => undefined,
    onProblem: (message) => assert.fail(message),
    now: () => performance.now() + ahead.ms,
    ...more,
  });
  t.after(async () => {
    await server.stop();
    fs.rmSync(page, { recursive: true });
  });
  const served = new Served(server, called, ahead);
  const signed = await served.signIn(served.code());
  served.token = (JSON.parse(signed.body) as { token: string }).token;
  return served;
}

test("the page and its assets are sent compressed, and only assets may be cached", async (t) => {
  const served = await serving(t);
  for (const address of ["/", "/index.html"]) {
    const { status, headers, body } = await served.ask(address);
    assert.deepEqual([status, body, headers["cache-control"]], [200, "<!doctype html>", "no-store"]);
    assert.match(String(headers["content-security-policy"]), /default-src 'none'.*script-src 'self'; /);
    assert.doesNotMatch(String(headers["content-security-policy"]), /unsafe|https?:/);
    assert.match(String(headers["content-security-policy"]), /frame-ancestors 'none'/);
    assert.deepEqual(
      ["x-frame-options", "referrer-policy", "cross-origin-opener-policy", "x-content-type-options"].map(
        (name) => headers[name],
      ),
      ["DENY", "no-referrer", "same-origin", "nosniff"],
    );
  }
  const plain = await served.ask(ASSET);
  assert.deepEqual([plain.status, plain.body], [200, SCRIPT]);
  const asset = await served.ask(ASSET, { headers: { "accept-encoding": "gzip, br" } });
  assert.equal(asset.headers["content-encoding"], "gzip");
  assert.match(String(asset.headers["cache-control"]), /immutable/);
  assert.notEqual(asset.headers.etag, plain.headers.etag);
  const again = await served.ask(ASSET, { headers: { "if-none-match": plain.headers.etag! } });
  assert.deepEqual([again.status, again.body], [304, ""]);
});

test("a build without a page names the command that builds it", async (t) => {
  const served = await serving(t, { page: path.join(os.tmpdir(), "cairn-no-page") });
  const { status, body, headers } = await served.ask("/");
  assert.deepEqual([status, headers["content-type"]], [503, "text/plain; charset=utf-8"]);
  assert.match(body, /npm run build/);
});

test("every address refuses requests with another host name or from pages of another origin", async (t) => {
  const served = await serving(t);
  const { port } = served.server;
  const own = served.host;
  const name = own.replace(/:.*/, "");
  assert.match(name, /^[0-9a-f]{20}\.localhost$/);
  const foreign: Record<string, string>[] = [
    { host: "evil.example" },
    { host: `evil.example:${port}` },
    { host: `evil.localhost:${port}` },
    { host: `${own}.evil.example` },
    { host: `${name}.:${port}` },
    { host: `x.${own}` },
    { host: `${own}@evil.example` },
    { host: "10.0.0.1" },
    { host: `127.0.0.1:${port}` },
    { host: `127.1:${port}` },
    { host: `localhost:${port}` },
    { host: `[::1]:${port}` },
    { host: own, origin: "http://evil.example" },
    { host: own, origin: `http://${name}` },
    { host: own, origin: `http://evil.localhost:${port}` },
    { host: own, origin: "null" },
    { host: own, origin: `https://${own}` },
    { host: own, origin: `http://${name}:${port + 1}` },
    { host: own, origin: `http://127.0.0.1:${port}` },
    { host: own, origin: `http://localhost:${port}` },
    { host: own, "sec-fetch-site": "same-site" },
    { host: own, "sec-fetch-site": "cross-site" },
    { host: own, "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe" },
  ];
  const code = served.code();
  for (const headers of foreign)
    for (const [target, options] of [
      ["/", {}],
      [ASSET, {}],
      ["/session", { method: "POST", body: JSON.stringify({ code }) }],
      ["/v1/about", {}],
      ["/v1/events", {}],
      ["/v1/save", { method: "POST", body: '{"workspace":"/w"}' }],
      ["/v1/running", { method: "POST", body: "{}" }],
      ["/v1/cancel", { method: "POST", body: '{"id":"0"}' }],
      ["/tickets", { method: "POST" }],
      [await served.ticket("page.html"), {}],
    ] as const) {
      const { status, body, headers: answered } = await served.signedIn(target, { ...options, headers });
      const isText =
        target === "/" && [`127.0.0.1:${port}`, `localhost:${port}`, `[::1]:${port}`].includes(headers["host"]!);
      const wanted = headers["host"] === own ? 403 : isText ? 200 : 421;
      assert.equal(status, wanted, `${target} ${JSON.stringify(headers)}`);
      if (wanted === 403) continue;
      assert.equal(answered["content-type"], "text/plain; charset=utf-8");
      assert.ok(!body.includes(name) && !body.includes("<"), body);
    }
  assert.deepEqual(served.called, []);
  for (const host of [own, name, `${name}:9`, `${name.toUpperCase()}:80`]) {
    const headers = { host, origin: `http://${host}`, "sec-fetch-site": "same-origin" };
    assert.equal((await served.signedIn("/v1/about", { headers })).status, 200, host);
  }
  const navigation = { "sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "sec-fetch-site": "cross-site" };
  assert.equal((await served.ask("/", { headers: navigation })).status, 200, "a link or a file leads to the page");
  assert.equal((await served.signedIn("/v1/about", { headers: navigation })).status, 403);
});

test("a sign-in code works once within ten minutes, and any other text is refused", async (t) => {
  const served = await serving(t);
  const [code, late] = [served.code(), served.code()];
  assert.match(code, /^[\w-]{22}$/);
  const first = await served.signIn(code);
  assert.deepEqual([first.status, JSON.parse(first.body)], [200, { token: served.token }]);
  assert.match(served.token, /^[\w-]{43}$/);
  for (const wrong of [code, "", "A".repeat(22), null, 7, [code], ["x"], { a: 1 }, { toString: 1 }]) {
    const { status, body } = await served.signIn(wrong);
    assert.deepEqual([status, (JSON.parse(body) as { error: { code: string } }).error.code], [403, "permission"]);
  }
  for (const body of ["", "x", "[]", "null"])
    assert.ok([400, 403].includes((await served.ask("/session", { method: "POST", body })).status), body);
  served.ahead.ms = CODE_MS + 1;
  assert.equal((await served.signIn(late)).status, 403);
  assert.equal((await served.signIn(served.code())).status, 200, "a new one works");
});

test("the use of a code is reported once", async (t) => {
  const served = await serving(t);
  let used = 0;
  const code = new URL(served.server.address(() => used++)).hash.slice("#code=".length);
  await served.signIn(`${code}x`);
  assert.equal(used, 0);
  await served.signIn(code);
  await served.signIn(code);
  assert.equal(used, 1);
});

test("every address except the page requires this server's token", async (t) => {
  const [served, other] = [await serving(t), await serving(t)];
  const { token } = served;
  assert.notEqual(token, other.token);
  const wrong: (string | undefined)[] = [
    undefined,
    "",
    "Bearer",
    "Bearer ",
    `Bearer ${other.token}`,
    `Bearer ${token}x`,
    `Bearer ${token.slice(1)}`,
    `bearer ${token}`,
    `Basic ${Buffer.from(`a:${token}`).toString("base64")}`,
    token,
  ];
  for (const authorization of wrong)
    for (const [method, target] of [
      ["GET", "/v1/about"],
      ["GET", "/v1/events"],
      ["GET", `/v1/events?token=${token}`],
      ["POST", "/v1/listWorkspaces"],
      ["POST", `/v1/save?token=${token}`],
      ["POST", "/tickets"],
      ["GET", "/nothing"],
    ] as const) {
      const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
      const { status, body } = await served.ask(target, { method, headers, body: "" });
      assert.equal(status, 401, `${target} ${authorization}`);
      assert.ok(!body.includes(token));
    }
  const cookie = { cookie: `token=${token}; authorization=Bearer ${token}` };
  assert.equal((await served.ask("/v1/about", { headers: cookie })).status, 401);
});

test("a ticket gives content once within a minute, and browsers may not execute the content", async (t) => {
  const served = await serving(t);
  const types = {
    "page.html": "application/octet-stream",
    "drawing.svg": "application/octet-stream",
    "image.png": "image/png",
    empty: "application/octet-stream",
  };
  for (const [file, type] of Object.entries(types)) {
    const url = await served.ticket(file);
    const { status, headers, body } = await served.ask(url);
    assert.deepEqual([status, body], [200, FILES[file]!.toString()]);
    assert.equal(headers["content-type"], type);
    assert.equal(headers["content-security-policy"], "sandbox; default-src 'none'");
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.match(String(headers["content-disposition"]), /^attachment; filename\*=UTF-8''/);
    assert.equal(headers["cross-origin-resource-policy"], "same-origin");
    assert.equal(headers["cache-control"], "no-store");
    assert.equal((await served.ask(url)).status, 404, "replayed");
  }
  const late = await served.ticket("page.html");
  served.ahead.ms = 60_001;
  assert.equal((await served.ask(late)).status, 404);
  assert.equal((await served.signedIn(`/content/${"A".repeat(22)}/x`)).status, 404);
});

test("a folder or a selection is downloaded as one archive", async (t) => {
  const served = await serving(t);
  const folder = await served.ask(await served.ticket("a", { as: "zip", name: "a.zip" }));
  assert.deepEqual([folder.status, folder.headers["content-type"]], [200, "application/zip"]);
  assert.ok(folder.body.startsWith('{"file":"a","archive":"zip","paths":null}'), folder.body);
  const selection = await served.ask(await served.ticket("", { as: "tar", paths: ["a", "b"] }));
  assert.equal(selection.headers["content-type"], "application/x-tar");
  assert.ok(selection.body.startsWith('{"file":"","archive":"tar","paths":["a","b"]}'), selection.body);
  const whole = await served.ask(await served.ticket("", { as: "zip" }));
  assert.ok(whole.body.startsWith('{"file":"","archive":"zip","paths":null}'), whole.body);
  const bytes = Buffer.from([0x61, 0xff]).toString("base64");
  assert.equal((await served.ask(await served.ticket("a\\xff", { path_b64: bytes }))).status, 200);
  for (const more of [
    { as: "exe" },
    { as: "zip", target: null },
    { as: undefined },
    { name: 1 },
    { workspace: "w" },
    { workspace: undefined },
  ]) {
    const whole = { workspace: "/w", target: "latest", path: "a", as: "file", name: "a", ...more };
    const { status } = await served.signedIn("/tickets", { method: "POST", body: JSON.stringify(whole) });
    assert.equal(status, 400, JSON.stringify(more));
  }
});

test("the name of a download keeps its letters, and its unsafe characters are replaced", async (t) => {
  const served = await serving(t);
  for (const [name, kept] of [
    ["a b'(1)*.txt", "a b'(1)*.txt"],
    ["../../etc/passwd", ".._.._etc_passwd"],
    ['x"\r\nset-cookie: a=b', 'x"__set-cookie: a=b'],
    ["photo\u202Egpj.exe", "photo_gpj.exe"],
    ["\ud800ä", "\ufffdä"],
  ] as const) {
    const { headers } = await served.ask(await served.ticket("page.html", { name }));
    const encoded = /^attachment; filename\*=UTF-8''([\w.~%!-]*)$/.exec(String(headers["content-disposition"]))?.[1];
    assert.equal(decodeURIComponent(encoded!), kept);
  }
});

test("unreadable content gives an error, and a failure during a download breaks the connection", async (t) => {
  const failing: { error?: CairnError } = {};
  const served = await serving(t, { failing });
  const [missing, broken] = [await served.ticket("none"), await served.ticket("broken")];
  failing.error = new CairnError("not_found", "there is no such file");
  assert.equal((await served.ask(missing)).status, 404);
  await assert.rejects(served.ask(broken), { code: "ECONNRESET" });
});

test("requests for unknown or malformed addresses are refused", async (t) => {
  const served = await serving(t);
  const { port } = served.server;
  const targets = [
    "//",
    "//index.html",
    "//evil.example/",
    "/..%2f",
    "/%2e%2e/etc/passwd",
    "/../../etc/passwd",
    "/assets/../index.html",
    "/assets/..%2findex.html",
    "/assets/%2e%2e%2findex.html",
    "/assets/secret",
    "/assets/main-0a1B2c3D.js%00.css",
    "/assets/main-0a1B2c3D.js/",
    "/assets//main-0a1B2c3D.js",
    "/assets/",
    "/assets",
    `${ASSET}.gz`,
    `${ASSET}?x`,
    "/index.html%00",
    "/INDEX.HTML",
    "/?code=1",
    "/v1/../index.html",
    "/v1/",
    "/v1/about/",
    "/v1/about%00",
    "/v1//save",
    "/v1/save/..%2fabout",
    "/content/",
    "/content/../index.html",
    `http://evil.example/`,
    `http://127.0.0.1:${port}/`,
    `http://127.0.0.1:${port}/v1/about`,
    "*",
  ];
  for (const target of targets) {
    for (const method of ["GET", "POST", "HEAD", "PUT", "OPTIONS"]) {
      const head = `${method} ${target} HTTP/1.1\r\nHost: ${served.host}\r\nConnection: close\r\n`;
      const signed = `Authorization: Bearer ${served.token}\r\n\r\n`;
      for (const text of [`${head}\r\n`, head + signed]) {
        const answered = await served.raw(text);
        assert.match(answered, /^HTTP\/1\.1 40\d /, `${method} ${target}`);
        assert.ok(!answered.includes(SCRIPT) && !answered.includes("secret"), target);
      }
    }
  }
  assert.match(await served.raw(`GET /\0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n`), /^HTTP\/1\.1 400 /);
  assert.match(await served.raw("GET / HTTP/1.1\r\n\r\n"), /^HTTP\/1\.1 400 /, "no host");
  assert.match(await served.raw("GET / HTTP/1.1\r\nHost:\r\n\r\n"), /^HTTP\/1\.1 421 /, "an empty host");
  assert.match(await served.raw("GET / HTTP/1.0\r\n\r\n"), /^HTTP\/1\.1 421 /, "no host");
  assert.match(await served.raw(`GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${"x".repeat(20_000)}\r\n\r\n`), / 431 /);
  assert.deepEqual(served.called, []);
});

test("the server refuses bodies that are too large, too deep or not JSON", async (t) => {
  const served = await serving(t);
  const of = (bytes: number): string => JSON.stringify({ code: "x".repeat(bytes) });
  assert.equal((await served.ask("/session", { method: "POST", body: of(2_000) })).status, 400);
  for (const target of ["/v1/save", "/tickets"]) {
    for (const body of [of(9 << 20), `{"a":${"[".repeat(50_000)}${"]".repeat(50_000)}}`, "{", "[]", "null"])
      assert.equal((await served.signedIn(target, { method: "POST", body })).status, 400, `${target} ${body.length}`);
  }
  assert.deepEqual(served.called, []);
});

test("a call runs in the library, and gives its answer, its error and one event", async (t) => {
  const failing: { error?: CairnError } = {};
  const served = await serving(t, { failing });
  const events = await follow(served);
  const saved = await served.call("save", { workspace: "/w", options: { message: "m" } });
  const answer = JSON.parse(saved.body) as { ok: boolean; data: { save_point_id: string } };
  assert.deepEqual([saved.status, answer.ok, answer.data.save_point_id], [200, true, SAVED.save_point_id]);
  const { type, workspace, data, id } = await events.next();
  assert.deepEqual(
    [type, workspace, (data as { save_point_id: string }).save_point_id],
    ["save", REF.path, SAVED.save_point_id],
  );
  events.end();
  const later = await follow(served, { "last-event-id": String(id - 1) });
  assert.equal((await later.next()).id, id, "a reader who comes back misses nothing");
  later.end();
  const unknown = await follow(served, { "last-event-id": "77" });
  assert.equal((await unknown.next()).type, "reset");
  unknown.end();
  failing.error = new CairnError("busy", "another writer", { hint: "wait" });
  const busy = await served.call("status", { workspace: "/w" });
  assert.equal(busy.status, 423);
  assert.match(busy.body, /"code":"busy","message":"another writer","hint":"wait","retryable":true/);
  for (const [name, members] of [
    ["save", {}],
    ["save", { workspace: "w" }],
    ["save", { workspace: "/w\0" }],
    ["save", { workspace: "/w", nonsense: 1 }],
    ["fork", { workspace: "/w", target: "latest", path: "relative" }],
    ["run", { workspace: "/w", command: ["true"] }],
    ["constructor", {}],
    ["initRepository", {}],
    ["tokenCreate", {}],
  ] as const)
    assert.equal((await served.call(name, members)).status, 400, name);
});

test("a read-only page cannot call a verb that changes something", async (t) => {
  const served = await serving(t, { isReadOnly: true });
  const names = [CLIENT_VERBS, LIBRARY_VERBS, DAEMON_CALLS].flatMap((table) => Object.keys(table));
  const done: string[] = [];
  for (const name of names) {
    const { status } = await served.call(name, isOfWorkspace(name) ? { workspace: "/w" } : {});
    // No daemon is there to ask.
    if (![400, 403].includes(status)) done.push(name);
    assert.ok(status !== 403 || !onlyLooks(name, undefined), name);
  }
  for (const name of done)
    assert.ok(
      callOf(name)!.looks === true || ["listWorkspaces", "daemon", "running", "pastEvents"].includes(name),
      `${name} was done`,
    );
  assert.deepEqual(
    ["save", "restore", "undo", "fork", "tag", "pin", "release", "exportPoint", "view", "runCleanup"].filter((name) =>
      done.includes(name),
    ),
    [],
  );
  assert.ok(
    ["history", "show", "diff", "status", "planRestore", "listWorkspaces"].every((name) => done.includes(name)),
  );
  assert.equal(onlyLooks("exportPoint", undefined), false, "it writes to a place of its caller's choice");
  assert.equal((await served.call("cancel", { id: "0" })).status, 403);
  const headers = { accept: "application/x-ndjson" };
  const refused = await served.signedIn("/v1/save", { method: "POST", headers, body: '{"workspace":"/w"}' });
  assert.equal(refused.status, 403, "also for a caller that accepts lines");
  const about = JSON.parse((await served.signedIn("/v1/about")).body) as { data: { read_only: boolean } };
  assert.equal(about.data.read_only, true);
});

test("the page makes the calls of forks, which no daemon serves, and a read-only page only plans a removal", async (t) => {
  const [served, looking] = [await serving(t), await serving(t, { isReadOnly: true })];
  const names = ["planAdoptFork", "adoptFork", "planRemoveFork", "removeFork"];
  const body = { workspace: "/w", fork: "/w-fork" };
  for (const name of names) {
    assert.ok(!servedCalls().includes(name), name);
    await served.call(name, body);
    assert.equal((await served.call(name, { ...body, nonsense: 1 })).status, 400, name);
    assert.equal((await served.ask(`/v1/${name}`, { method: "POST", body: JSON.stringify(body) })).status, 401, name);
    assert.equal((await looking.call(name, body)).status, name === "planRemoveFork" ? 200 : 403, name);
  }
  assert.deepEqual([served.called, looking.called], [names, ["planRemoveFork"]]);
});

test("the page removes backups and prunes, which no daemon serves, and a read-only page only plans it", async (t) => {
  const [served, looking] = [await serving(t), await serving(t, { isReadOnly: true })];
  const plans = ["planForgetBackups", "planPruneBackups", "receipts"];
  for (const name of [...plans, "forgetBackups", "pruneBackups"]) {
    assert.ok(!servedCalls().includes(name), name);
    const body = { workspace: "/w" };
    assert.equal((await served.call(name, body)).status, 200, name);
    const options = Object.keys(callOf(name)!.options!.entries);
    assert.ok(!options.some((each) => /repository|password/.test(each)), `${name} is for the kept repository`);
    assert.equal((await served.ask(`/v1/${name}`, { method: "POST", body: JSON.stringify(body) })).status, 401, name);
    assert.equal((await looking.call(name, body)).status, plans.includes(name) ? 200 : 403, name);
  }
  assert.deepEqual(looking.called, plans);
});

test("the page's own calls are listed while they run, and their refusals are events", async (t) => {
  const failing: Failing = {};
  const served = await serving(t, { failing });
  for (const name of ["forgetBackups", "pruneBackups", "adoptFork", "removeFork", "save"]) {
    const { promise, resolve } = Promise.withResolvers<void>();
    failing.until = promise;
    failing.error = new CairnError("refused", `no ${name}`);
    const fork = name.endsWith("Fork") ? { fork: "/w-fork" } : {};
    const asked = served.call(name, { workspace: "/w", ...fork });
    const listed = async (): Promise<string[]> => {
      const { calls } = dataOf<{ calls: { verb: string }[] }>(await served.call("running"));
      return calls.map(({ verb }) => verb);
    };
    while ((await listed()).length === 0) await sleep(10);
    assert.deepEqual(await listed(), [name]);
    resolve();
    assert.equal((await asked).status, 403, name);
    const { events } = dataOf<{ events: { data: { verb: string; error: { message: string } } }[] }>(
      await served.call("pastEvents", { path: "/w", options: { types: ["call"] } }),
    );
    assert.deepEqual([events[0]!.data.verb, events[0]!.data.error.message], [name, `no ${name}`]);
  }
});

function dataOf<T>({ body }: Answered): T {
  return (JSON.parse(body) as { data: T }).data;
}

test("each server has another name and another port, and holds the port on 127.0.0.1 and ::1", async (t) => {
  const [first, second] = [await serving(t), await serving(t)];
  assert.notEqual(first.host.split(":")[0], second.host.split(":")[0]);
  assert.notEqual(first.server.port, second.server.port);
  for (const host of ["127.0.0.1", "::1", "0.0.0.0", "::"]) {
    const other = net.createServer();
    other.listen({ host, port: first.server.port });
    const [event] = await Promise.race(["error", "listening"].map(async (name) => [name, await once(other, name)]));
    other.close();
    assert.equal(event, "error", `another program cannot listen on ${host}`);
  }
});

test("--address puts the page at a random address 127.x.y.z, and no other name", async (t) => {
  const served = await serving(t, { byAddress: true });
  assert.match(served.host, /^127\.\d+\.\d+\.\d+:\d+$/);
  assert.ok(!served.host.startsWith("127.0."));
  assert.equal((await served.signedIn("/v1/about")).status, 200);
  for (const host of ["localhost", "127.0.0.1", "127.9.9.9"])
    assert.equal((await served.signedIn("/v1/about", { headers: { host } })).status, 421, host);
});

test("hundreds of connections without a token delay neither a signed-in tab nor a new one", async (t) => {
  const served = await serving(t);
  const head = `POST /session HTTP/1.1\r\nHost: ${served.host}\r\nContent-Length: 900\r\n\r\n{`;
  const events = await follow(served);
  const sockets = Array.from({ length: 400 }, () => net.connect(served.server.port, "127.0.0.1"));
  t.after(() => sockets.forEach((each) => each.destroy()));
  for (const each of sockets) each.on("error", () => undefined).write(head);
  const began = performance.now();
  assert.equal((await served.ask("/")).status, 200);
  assert.equal((await served.signIn(served.code())).status, 200);
  await served.call("save", { workspace: "/w" });
  assert.equal((await events.next()).type, "save", "the stream of a signed-in tab goes on");
  assert.ok(performance.now() - began < 5_000);
  events.end();
  await Promise.all(sockets.map(async (each) => each.destroyed || (await once(each, "close"))));
  const took = performance.now() - began;
  assert.ok(took > 3_000 && took < 15_000, `the last half-sent requests ended after ${took} ms`);
});

test("a view that a tab opens is passed on, and nothing else is", async (t) => {
  const views: string[] = [];
  const served = await serving(t, { view: "#/timeline?w=%2Fw", onView: (view) => void views.push(view) });
  const about = JSON.parse((await served.signedIn("/v1/about")).body) as { data: { view: string } };
  assert.equal(about.data.view, "#/timeline?w=%2Fw");
  const note = (view: unknown): Promise<Answered> =>
    served.signedIn("/view", { method: "POST", body: JSON.stringify({ view }) });
  assert.equal((await note("#/files?w=%2Fw&p=latest")).status, 200);
  for (const wrong of [
    "",
    "#/a b",
    "#/\n",
    "javascript:1",
    "/x",
    null,
    1,
    ["#/"],
    { toString: 1 },
    `#/${"a".repeat(9000)}`,
  ])
    assert.equal((await note(wrong)).status, 400, JSON.stringify(wrong));
  assert.equal((await served.ask("/view", { method: "POST", body: '{"view":"#/"}' })).status, 401);
  assert.deepEqual(views, ["#/files?w=%2Fw&p=latest"]);
});

test("the page lists folders, makes one a workspace, installs agents and keeps a repository with a token only, and not if it only looks", async (t) => {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-folders-"));
  t.after(() => fs.rmSync(root, { recursive: true }));
  for (const name of ["b", "a", ".hidden"]) fs.mkdirSync(path.join(root, name));
  fs.writeFileSync(path.join(root, "file"), "");
  const served = await serving(t);
  const body = JSON.stringify({ path: `${root}/` });
  const listed = await served.signedIn("/folders", { method: "POST", body });
  assert.deepEqual((JSON.parse(listed.body) as { data: unknown }).data, { path: root, folders: ["a", "b"] });
  assert.equal((await served.ask("/folders", { method: "POST", body })).status, 401);
  for (const wrong of ["a", "", null, 1, "/a\0"]) {
    const { status } = await served.signedIn("/folders", { method: "POST", body: JSON.stringify({ path: wrong }) });
    assert.equal(status, 400, JSON.stringify(wrong));
  }
  const gone = JSON.stringify({ path: path.join(root, "gone") });
  assert.equal((await served.signedIn("/folders", { method: "POST", body: gone })).status, 404);
  const planned = JSON.stringify({ workspace: root, tool: "codex", plan: true });
  for (const verb of ["install", "remove"]) {
    const target = `/agents/${verb}`;
    assert.equal((await served.signedIn(target, { method: "POST", body: planned })).status, 200);
    assert.ok(served.called.includes(`${verb} ${root} codex null`));
    const shown = JSON.stringify({ workspace: root, tool: "codex", plan: PLAN });
    assert.equal((await served.signedIn(target, { method: "POST", body: shown })).status, 200);
    assert.ok(served.called.includes(`${verb} ${root} codex ${PLAN}`));
    for (const wrong of [
      { tool: "--all" },
      { tool: "a/b" },
      { tool: 1 },
      { workspace: "-C" },
      { plan: undefined },
      { plan: false },
      { plan: "--for" },
    ]) {
      const asked = JSON.stringify({ workspace: root, tool: "codex", plan: PLAN, ...wrong });
      assert.equal((await served.signedIn(target, { method: "POST", body: asked })).status, 400, asked);
    }
  }
  for (const repository of ["relative", "--password", "", 1, null]) {
    const asked = JSON.stringify({ workspace: root, repository });
    assert.equal((await served.signedIn("/repositories", { method: "POST", body: asked })).status, 400, asked);
  }
  const made = await served.call("register", { path: root });
  assert.deepEqual([made.status, served.called.includes("openOrInit")], [200, true]);
  assert.ok(served.called.includes("forget"), "an agent may work in the new workspace");
  const looking = await serving(t, { isReadOnly: true });
  assert.equal((await looking.signedIn("/agents", { method: "POST", body: "{}" })).status, 200);
  for (const target of ["/folders", "/agents/install", "/agents/remove", "/repositories"]) {
    assert.equal((await looking.signedIn(target, { method: "POST", body })).status, 403, target);
    assert.equal((await served.ask(target, { method: "POST", body })).status, 401, target);
  }
  assert.equal((await looking.call("register", { path: root })).status, 403);
  assert.equal(looking.called.includes("openOrInit"), false);
});

interface Followed {
  next(): Promise<{ type: string; workspace: string; data: unknown; id: number }>;
  end(): void;
}

/** Events from now on; resolves when the server listens. */
async function follow(served: Served, headers: Record<string, string> = {}): Promise<Followed> {
  const stopped = new AbortController();
  const asked = request({
    host: served.server.host,
    port: served.server.port,
    path: "/v1/events",
    headers: { host: served.host, authorization: `Bearer ${served.token}`, ...headers },
    signal: stopped.signal,
  });
  asked.on("error", () => undefined).end();
  const [response] = (await once(asked, "response")) as [IncomingMessage];
  response.on("error", () => undefined);
  assert.equal(response.headers["content-type"], "text/event-stream");
  const body = Readable.toWeb(response) as ReadableStream<Uint8Array>;
  const reader = body.pipeThrough(new TextDecoderStream() as never).getReader() as ReadableStreamDefaultReader<string>;
  let text = (await reader.read()).value ?? "";
  return {
    async next() {
      for (;;) {
        const found = /^data: (.*)\n\n/m.exec(text);
        if (found !== null) {
          text = text.slice(found.index + found[0].length);
          const event = JSON.parse(found[1]!) as { type: string };
          // Start and end of each call that changes something are told besides.
          if (event.type !== "call") return event as never;
        }
        text += (await reader.read()).value ?? assert.fail("the stream ended");
      }
    },
    end: () => stopped.abort(),
  };
}
