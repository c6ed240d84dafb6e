import assert from "node:assert/strict";
import fs from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Bundle } from "../../bundle/bundle.ts";
import { backupParts, Scratch, stateOf } from "../../context/testing-store.ts";
import type { ContextStore } from "../../context/store.ts";
import { ContextServer, type ContextServerOptions } from "./server.ts";

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

interface Served extends AsyncDisposable {
  store: ContextStore;
  url: string;
  problems: string[];
}

async function serve(files: Record<string, string> = {}, more: Partial<ContextServerOptions> = {}): Promise<Served> {
  const store = await scratch.store(files);
  const problems: string[] = [];
  const server = await ContextServer.start({
    store,
    layout: "C",
    uploadBytes: 1 << 20,
    address: { host: "127.0.0.1", port: 0 },
    apiKey: "secret",
    version: "0",
    graceMs: 500,
    onProblem: (message) => void problems.push(message),
    ...more,
  });
  return {
    store,
    url: server.url,
    problems,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await store[Symbol.asyncDispose]();
    },
  };
}

interface Answered {
  status: number;
  // oxlint-disable-next-line typescript/no-explicit-any -- what was answered is looked at as it is
  body: any;
}

async function post(
  { url }: Served,
  at: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Answered> {
  const response = await fetch(`${url}${at}`, {
    method: "POST",
    headers: { "x-api-key": "secret", "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

async function upload(served: Served, bytes: Buffer, part = "file"): Promise<Answered> {
  const form = new FormData();
  form.append("telemetry", "false");
  form.append(part, new Blob([new Uint8Array(bytes)]), "../../x.ovpack");
  const response = await fetch(`${served.url}/api/v1/resources/temp_upload`, {
    method: "POST",
    headers: { authorization: "Bearer secret" },
    body: form,
  });
  return { status: response.status, body: await response.json() };
}

async function uploaded(served: Served, file: string): Promise<string> {
  const { body } = await upload(served, fs.readFileSync(file));
  return body.result.temp_file_id as string;
}

const asked = (body: unknown): Answered["body"] => body;

test("a client exports, uploads and imports a bundle, and waits for the index", async () => {
  await using from = await serve({ "resources/docs/a.md": "alpha" });
  await using to = await serve();
  const response = await fetch(`${from.url}/api/v1/pack/export`, {
    method: "POST",
    headers: { "x-api-key": "secret" },
    body: JSON.stringify({ uri: "viking://resources/docs/", include_vectors: true }),
  });
  assert.deepEqual([response.status, response.headers.get("content-type")], [200, "application/zip"]);
  assert.match(response.headers.get("content-disposition")!, /filename="docs.ovpack"/);
  const bytes = Buffer.from(await response.arrayBuffer());
  assert.equal(bytes.length, Number(response.headers.get("content-length")));
  const { body } = await upload(to, bytes);
  assert.equal(body.status, "ok");
  const id = body.result.temp_file_id as string;
  assert.match(id, /^upload_[0-9a-f]{32}\.ovpack$/);
  const imported = await post(to, "/api/v1/pack/import", {
    temp_file_id: id,
    parent: "viking://resources/",
    on_conflict: null,
  });
  assert.deepEqual([imported.status, imported.body.result], [200, { uri: "viking://resources/docs" }]);
  const waited = await post(to, "/api/v1/system/wait", {});
  assert.equal(waited.body.result.Embedding.error_count, 0);
  const consistent = await post(to, "/api/v1/system/consistency", { uri: "viking://resources" });
  assert.deepEqual([consistent.body.result.ok, consistent.body.result.expected_count], [true, 1]);
  // An upload that was imported is gone.
  const again = await post(to, "/api/v1/pack/import", { temp_file_id: id, parent: "viking://resources" });
  assert.deepEqual([again.status, again.body.error.code], [403, "PERMISSION_DENIED"]);
});

test("a backup request needs no body, and its bundle can be restored", async () => {
  await using from = await serve({ "user/alice/memories/tea.md": "green" });
  await using to = await serve();
  const response = await fetch(`${from.url}/api/v1/pack/backup`, {
    method: "POST",
    headers: { "x-api-key": "secret" },
  });
  const file = scratch.place("backup.ovpack");
  fs.writeFileSync(file, Buffer.from(await response.arrayBuffer()));
  await using bundle = await Bundle.open(file);
  assert.equal(bundle.manifest.root.package_type, "backup");
  const restored = await post(to, "/api/v1/pack/restore", {
    temp_file_id: await uploaded(to, file),
    vector_mode: "auto",
  });
  assert.deepEqual(restored.body.result, { uri: "viking://" });
  assert.ok(fs.existsSync(path.join(to.store.folder, "user/alice/memories/tea.md")));
});

test("errors have the code, the status and the details that clients expect", async () => {
  await using served = await serve({ "resources/docs/a.md": "alpha" });
  const before = stateOf(served.store);
  const damaged = scratch.place("damaged.ovpack");
  fs.writeFileSync(damaged, "no zip");
  const [docs, backup] = [await scratch.bundle({}), await scratch.bundle(backupParts({ "resources/a": "a" }))];
  const importing = async (file: string, more: object): Promise<object> => ({
    temp_file_id: await uploaded(served, file),
    parent: "viking://resources",
    ...more,
  });
  const said: string[] = [];
  const cases: [string, unknown, number, string, object?][] = [
    ["/api/v1/pack/import", await importing(docs, {}), 409, "CONFLICT", { resource: "viking://resources/docs" }],
    ["/api/v1/pack/import", await importing(damaged, {}), 400, "INVALID_ARGUMENT", { field: "zip" }],
    ["/api/v1/pack/import", await importing(backup, {}), 400, "INVALID_ARGUMENT"],
    [
      "/api/v1/pack/import",
      await importing(docs, { parent: "viking://user/alice" }),
      400,
      "INVALID_ARGUMENT",
      { source: "viking://resources/docs", target: "viking://user/alice/docs" },
    ],
    ["/api/v1/pack/import", await importing(docs, { parent: "nothing" }), 400, "INVALID_URI", { uri: "nothing" }],
    [
      "/api/v1/pack/import",
      await importing(docs, { vector_mode: "require", parent: "viking://resources/x" }),
      400,
      "INVALID_ARGUMENT",
      { field: "vector_mode" },
    ],
    [
      "/api/v1/pack/import",
      { temp_file_id: "../../etc/passwd", parent: "viking://resources" },
      403,
      "PERMISSION_DENIED",
    ],
    ["/api/v1/pack/restore", { temp_file_id: await uploaded(served, docs) }, 400, "INVALID_ARGUMENT"],
    [
      "/api/v1/pack/export",
      { uri: "viking://resources/none" },
      404,
      "NOT_FOUND",
      { resource: "viking://resources/none", type: "resource" },
    ],
    ["/api/v1/pack/export", { uri: "viking://" }, 400, "INVALID_ARGUMENT"],
    ["/api/v1/nothing", {}, 501, "UNIMPLEMENTED"],
  ];
  for (const [at, body, status, code, details = {}] of cases) {
    const answer = await post(served, at, body);
    assert.deepEqual(
      [answer.status, answer.body.status, answer.body.error.code],
      [status, "error", code],
      JSON.stringify(answer.body),
    );
    for (const [name, value] of Object.entries(details)) assert.deepEqual(answer.body.error.details[name], value);
    assert.ok(!JSON.stringify(answer.body).includes(served.store.folder), "a path of the server");
    said.push(answer.body.error.message);
  }
  // What can be done about it is said in the words of requests.
  assert.match(said[0]!, /on_conflict: overwrite/);
  assert.match(said[2]!, /POST \/api\/v1\/pack\/restore/);
  assert.match(said[5]!, /vector_mode: auto/);
  assert.deepEqual(
    said.filter((message) => /cairn |--/.test(message)),
    [],
  );
  assert.deepEqual(stateOf(served.store), before);
  assert.deepEqual(served.problems, []);
});

test("unknown members and invalid values of a request are refused with their place", async () => {
  await using served = await serve();
  const cases: [unknown, (string | number)[], string][] = [
    [{ uri: "viking://resources", force: true }, ["body", "force"], "extra_forbidden"],
    [{}, ["body", "uri"], "missing"],
    [{ uri: 1 }, ["body", "uri"], "string_type"],
    ["{", ["body"], "json_invalid"],
    ["", ["body"], "missing"],
  ];
  for (const [body, loc, type] of cases) {
    const answer = await post(served, "/api/v1/pack/export", body);
    const [first] = asked(answer.body.error.details.validation_errors);
    assert.deepEqual(
      [answer.status, answer.body.error.code, first.loc, first.type],
      [400, "INVALID_ARGUMENT", loc, type],
    );
  }
  const choice = await post(served, "/api/v1/pack/import", {
    temp_file_id: "x",
    parent: "viking://resources",
    on_conflict: "merge",
    vectorize: true,
  });
  assert.deepEqual(
    asked(choice.body.error.details.validation_errors)
      .map(({ loc }: { loc: string[] }) => loc.at(-1))
      .toSorted(),
    ["on_conflict", "vectorize"],
  );
});

test("the server answers while an import waits for the index", async () => {
  await using served = await serve();
  const temp_file_id = await uploaded(served, await scratch.bundle({}));
  assert.equal((await post(served, "/api/v1/system/wait", {})).status, 200);
  using other = new DatabaseSync(path.join(served.store.folder, ".context/index.db"));
  other.exec("BEGIN IMMEDIATE");
  let isAnswered = false;
  const importing = post(served, "/api/v1/pack/import", { temp_file_id, parent: "viking://resources" });
  void importing.finally(() => (isAnswered = true));
  await eventually(() => fs.existsSync(path.join(served.store.folder, "resources/docs/a.md")));
  for (let i = 0; i < 20; i++) assert.equal((await fetch(`${served.url}/health`)).status, 200);
  assert.equal(isAnswered, false);
  other.exec("COMMIT");
  assert.equal((await importing).status, 200);
});

test("every request needs the key, except the health check", async () => {
  await using served = await serve({ "resources/docs/a.md": "alpha" });
  for (const headers of [{ "x-api-key": "" }, { "x-api-key": "secre" }, { "x-api-key": "secret2" }]) {
    const { status, body } = await post(served, "/api/v1/pack/backup", {}, headers);
    assert.deepEqual([status, body.error.code], [401, "UNAUTHENTICATED"]);
  }
  const health = (await (await fetch(`${served.url}/health`)).json()) as object;
  assert.deepEqual(health, { status: "ok", healthy: true, version: "0", auth_mode: "api_key", serves: "packs only" });
  const page = await post(served, "/api/v1/pack/backup", {}, { origin: "http://evil.example" });
  assert.equal(page.status, 403);
  const wrong = await fetch(`${served.url}/api/v1/pack/backup`, { headers: { "x-api-key": "secret" } });
  assert.equal(wrong.status, 405);
});

test("a Unix socket serves only its own user", async () => {
  const socket = scratch.place("s.sock");
  await using served = await serve({}, { address: { path: socket }, apiKey: null });
  assert.equal(fs.statSync(socket).mode & 0o777, 0o600);
  const status = await new Promise<number>((resolve, reject) => {
    request({ socketPath: socket, path: "/api/v1/system/status" }, (response) => resolve(response.resume().statusCode!))
      .once("error", reject)
      .end();
  });
  assert.equal(status, 200);
  assert.equal(served.url, `unix:${socket}`);
});

test("the server refuses a form that is invalid, too long or cut short, and leaves no file", async () => {
  await using served = await serve();
  const long = await upload(served, Buffer.alloc((1 << 20) + 1));
  assert.deepEqual([long.status, long.body.error.code], [400, "INVALID_ARGUMENT"]);
  const other = await upload(served, Buffer.from("x"), "other");
  assert.deepEqual([other.status, other.body.error.details.field], [400, "file"]);
  const none = await post(served, "/api/v1/resources/temp_upload", "{}");
  assert.equal(none.status, 400);
  const { port, hostname } = new URL(served.url);
  // Whoever goes away in the middle of a form harms nobody.
  await new Promise<void>((resolve) => {
    const socket = connect(Number(port), hostname, () => {
      socket.write(
        'POST /api/v1/resources/temp_upload HTTP/1.1\r\nHost: x\r\nX-API-Key: secret\r\nContent-Length: 100000\r\nContent-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc',
        () => setImmediate(() => socket.destroy()),
      );
      socket.once("close", () => resolve());
    });
  });
  assert.equal((await post(served, "/api/v1/system/wait", { timeout: 5 })).status, 200);
  const uploads = path.join(served.store.folder, ".context/uploads");
  const left = (): string[] => fs.readdirSync(path.join(uploads, fs.readdirSync(uploads)[0]!));
  await eventually(() => left().length === 0);
});

/** Waits for the server to see what a client did. */
async function eventually(isSo: () => boolean): Promise<void> {
  for (let tried = 0; tried < 500 && !isSo(); tried++) await sleep(10);
  assert.ok(isSo());
}

test("a new upload removes the oldest upload, and a new server removes uploads of an ended one", async () => {
  const left = async (served: Served): Promise<string> => {
    const folder = path.join(served.store.folder, ".context/uploads/4000000-x");
    fs.mkdirSync(folder, { recursive: true });
    fs.utimesSync(folder, 1, 1);
    return folder;
  };
  await using served = await serve();
  const ids: string[] = [];
  for (let i = 0; i < 20; i++) ids.push(await uploaded(served, await scratch.bundle({})));
  const importing = async (id: string): Promise<number> =>
    (await post(served, "/api/v1/pack/import", { temp_file_id: id, parent: "viking://resources", on_conflict: "skip" }))
      .status;
  assert.deepEqual([await importing(ids[0]!), await importing(ids[19]!)], [403, 200]);
  const folder = await left(served);
  const second = await ContextServer.start({
    store: served.store,
    layout: "C",
    uploadBytes: 1,
    address: { path: scratch.place("s") },
    apiKey: null,
    version: "0",
    onProblem: () => undefined,
  });
  assert.ok(!fs.existsSync(folder));
  await second.stop();
});

test("the server refuses a form without an end, and closes a silent connection", async () => {
  await using served = await serve();
  const body = '--a\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n--a--\r\n';
  const response = await fetch(`${served.url}/api/v1/resources/temp_upload`, {
    method: "POST",
    headers: { "x-api-key": "secret", "content-type": "multipart/form-data; boundary=a" },
    body,
  });
  assert.equal(response.status, 400);
  const { port, hostname } = new URL(served.url);
  const closed = await new Promise<boolean>((resolve) => {
    const socket = connect(Number(port), hostname, () => socket.write("GET /health HTTP/1.1\r\nHost: x\r\n\r\n"));
    const late = setTimeout(() => (resolve(false), socket.destroy()), 20_000);
    socket.resume().once("close", () => (clearTimeout(late), resolve(true)));
  });
  assert.ok(closed);
});

test("a client of a whole OpenViking is told that packs only are served", async () => {
  await using served = await serve();
  const health = (await (await fetch(`${served.url}/health`)).json()) as Record<string, unknown>;
  // OpenViking's clients ask for the status and for `ok` alone.
  assert.deepEqual([health["status"], health["healthy"], health["serves"]], ["ok", true, "packs only"]);
  const get = async (at: string): Promise<Answered> => {
    const response = await fetch(`${served.url}${at}`, { headers: { "x-api-key": "secret" } });
    return { status: response.status, body: await response.json() };
  };
  assert.equal((await get("/api/v1/system/status")).body.result.serves, "packs only");
  // What OpenViking's plugins for agents ask next.
  for (const answer of [
    await post(served, "/api/v1/sessions/s1/messages", { role: "user", content: "x" }),
    await post(served, "/api/v1/sessions/s1/commit", {}),
    await post(served, "/api/v1/search/find", { query: "x" }),
    await post(served, "/api/v1/content/write", {}),
    await post(served, "/mcp", {}),
    await get("/api/v1/fs/ls?uri=viking://resources"),
    await get("/api/v1/content/read?uri=viking://resources/a.md"),
    await get("/api/v1/skills"),
    await get("/"),
    await get("/%0d%0aInjected:1"),
  ]) {
    assert.deepEqual([answer.status, answer.body.status, answer.body.error.code], [501, "error", "UNIMPLEMENTED"]);
    assert.match(answer.body.error.message, /not served here.*packs only/);
    assert.ok(answer.body.error.details.serves.includes("POST /api/v1/pack/backup"));
  }
  for (const each of asked((await get("/none")).body).error.details.serves as string[]) {
    const [method, at] = each.split(" ") as [string, string];
    const { status } = await fetch(`${served.url}${at}`, { method, headers: { "x-api-key": "secret" } });
    assert.ok(status !== 501 && status !== 404, each);
  }
  assert.equal((await post(served, "/api/v1/search/find", {}, { "x-api-key": "wrong" })).status, 401);
});

test("a backup and an export of scopes that layout C cannot hold are refused by name, and work with layout B", async () => {
  const files = { "session/s1/a.md": "alpha", "agent/x/b.md": "beta", "resources/docs/c.md": "gamma" };
  await using served = await serve(files);
  for (const [at, body] of [
    ["/api/v1/pack/backup", {}],
    ["/api/v1/pack/export", { uri: "viking://session/s1" }],
  ] as const) {
    const { status, body: said } = await post(served, at, body);
    assert.deepEqual([status, said.error.code], [400, "INVALID_ARGUMENT"]);
    assert.match(said.error.message, /layout C cannot hold viking:\/\/.*session.*--layout B/);
    assert.ok(said.error.details.roots.includes("session"));
  }
  assert.deepEqual(fs.globSync("**/made_*", { cwd: served.store.folder }), []);
  await using old = await serve(files, { layout: "B" });
  const response = await fetch(`${old.url}/api/v1/pack/backup`, { method: "POST", headers: { "x-api-key": "secret" } });
  assert.equal(response.status, 200);
  await response.arrayBuffer();
});
