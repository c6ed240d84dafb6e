import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { build } from "esbuild";
import { CairnError, connect, type PageClient } from "./client-browser.ts";
import { fromWire, toWire } from "./contract/wire.ts";

const TOKEN = "a-token";
const MOST_BYTES = 4096;

/** A server that answers each request by `serve`, which gets its body, and a client of it. */
async function serving(
  t: TestContext,
  serve: (request: IncomingMessage, response: ServerResponse, body: unknown) => void,
): Promise<PageClient> {
  const server = createServer((request, response) => {
    assert.equal(request.headers.authorization, `Bearer ${TOKEN}`);
    void request.toArray().then((pieces: Buffer[]) => {
      const text = Buffer.concat(pieces).toString();
      serve(request, response, text === "" ? undefined : fromWire(text));
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return connect({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, token: TOKEN });
}

function lines(...all: unknown[]): string {
  return all.map((each) => `${toWire(each)}\n`).join("");
}

const done = (data: unknown): object => ({ ok: true, data, error: null });
const failed = (code: string, retryable = false): object => ({
  ok: false,
  data: null,
  error: { code, message: "no", hint: "do so", retryable },
});

test("call sends its members, reports progress and warnings, and returns the answer", async (t) => {
  const asked: unknown[] = [];
  const client = await serving(t, (request, response, body) => {
    asked.push(request.method, request.url, body);
    response.end(lines({ progress: { phase: "scanning", done: 1 } }, { warning: "odd" }, done({ made: true })));
  });
  const told: unknown[] = [];
  const options = { onProgress: (each: unknown) => told.push(each), onWarning: (each: string) => told.push(each) };
  const members = { workspace: "/w", options: { message: "ä" } };
  assert.deepEqual(await client.call("save", members, options), { made: true });
  assert.deepEqual(asked, ["POST", "/v1/save", members]);
  assert.deepEqual(told, [{ phase: "scanning", done: 1 }, "odd"]);
});

test("bytes keep their values in both directions, even if a line or a character is split", async (t) => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  let named: unknown;
  const client = await serving(t, (_request, response, body) => {
    named = (body as { path: unknown }).path;
    const text = Buffer.from(lines({ item: bytes }, { warning: "ä" }, { item: bytes }, done(null)));
    for (let at = 0; at < text.length; at += 7) response.write(text.subarray(at, at + 7));
    response.end();
  });
  const found: Uint8Array[] = [];
  const warnings: string[] = [];
  const members = { workspace: "/w", target: "latest", path: bytes };
  for await (const each of client.stream("read", members, { onWarning: (each) => warnings.push(each) }))
    found.push(each);
  assert.deepEqual([...(named as Uint8Array)], [...bytes]);
  assert.deepEqual(found, [bytes, bytes]);
  assert.deepEqual(warnings, ["ä"]);
});

test("a failed call throws the server's code, message, hint and retryable", async (t) => {
  const client = await serving(t, (_request, response) => {
    response.writeHead(423).end(lines(failed("busy", true)));
  });
  await assert.rejects(client.call("status", { workspace: "/w" }), (error) => {
    assert.ok(error instanceof CairnError);
    assert.deepEqual([error.code, error.message, error.hint, error.retryable], ["busy", "no", "do so", true]);
    return true;
  });
});

test("call throws io if the answer ends early or the server is gone, and interrupted on a signal", async (t) => {
  const client = await serving(t, (request, response) => {
    if (request.url === "/v1/status") response.end(lines({ warning: "odd" }));
    else if (request.url === "/v1/about") response.destroy();
    else response.write(lines({ warning: "begun" }));
  });
  await assert.rejects(client.call("status", { workspace: "/w" }), { code: "io", retryable: true });
  await assert.rejects(client.about(), { code: "io", retryable: true });
  const stopped = new AbortController();
  const options = { signal: stopped.signal, onWarning: () => stopped.abort() };
  await assert.rejects(client.call("save", { workspace: "/w" }, options), { code: "interrupted" });
});

test("events starts with open, continues after a given event number, and ends with io or the server's error", async (t) => {
  const event = { id: 8, at: "", workspace: "/w", workspace_id: null, type: "changed", data: { paths: 1, names: [] } };
  const after: unknown[] = [];
  const client = await serving(t, (request, response) => {
    after.push(request.headers["last-event-id"]);
    if (after.length === 2) return void response.writeHead(403).end(lines(failed("permission")));
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(`id: 7\n\n: \n\nid: 8\nevent: changed\ndata: ${JSON.stringify(event)}\n\n`);
  });
  const found: unknown[] = [];
  const follow = async (options = {}): Promise<void> => {
    for await (const each of client.events(options)) found.push(each);
  };
  await assert.rejects(follow({ after: 7 }), { code: "io", retryable: true });
  await assert.rejects(follow(), { code: "permission" });
  assert.deepEqual(found, ["open", event]);
  assert.deepEqual(after, ["7", undefined]);
});

test("the bundled browser client is smaller than its limit", async () => {
  const made = await build({
    entryPoints: [path.join(import.meta.dirname, "client-browser.ts")],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  assert.ok(made.outputFiles[0]!.contents.length <= MOST_BYTES);
});
