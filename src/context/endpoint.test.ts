import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, test } from "node:test";
import { listOf } from "../bundle/testing-bundle.ts";
import { Endpoint } from "./endpoint.ts";
import { find } from "./search.ts";
import { Scratch } from "./testing-store.ts";

const scratch = new Scratch();
const servers: Server[] = [];
after(() => {
  scratch[Symbol.dispose]();
  for (const server of servers) server.closeAllConnections();
  for (const server of servers) server.close();
});

type Asked = { model: string; input: string[]; key: string | undefined };

/** Answers like a server of embeddings; each text's vector tells its length. */
async function serve(
  answer?: (asked: Asked) => { status: number; body: unknown } | null,
): Promise<{ server: Server; base: string; asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const body = JSON.parse(Buffer.concat(await listOf(request as AsyncIterable<Buffer>)).toString()) as Asked;
      const call = { ...body, key: request.headers.authorization };
      asked.push(call);
      const data = body.input.map((text, index) => ({ index, embedding: [text.length, 1, 0] })).toReversed();
      const given = answer?.(call) ?? { status: 200, body: { data } };
      response.writeHead(given.status, { "content-type": "application/json" }).end(JSON.stringify(given.body));
    })();
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  return { server, base: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`, asked };
}

const config = (base: string, dimensions = 3) => ({
  provider: "openai" as const,
  model: "m",
  dimensions,
  base_url: base,
});

test("an endpoint returns vectors in the order of the texts, and receives the key from the environment", async () => {
  const { server, base, asked } = await serve();
  process.env["CAIRN_EMBEDDING_KEY"] = "secret";
  try {
    await using store = await scratch.store({ "resources/a.md": "a text", "resources/b.md": "b" }, config(base));
    assert.equal(
      [...store.index.rows("")].every((row) => row.hasVector),
      true,
    );
    assert.equal((await find(store, "x".repeat(8), { mode: "semantic" })).length, 2);
    assert.ok(asked.every(({ key, model }) => key === "Bearer secret" && model === "m"));
  } finally {
    delete process.env["CAIRN_EMBEDDING_KEY"];
    server.close();
  }
});

test("an endpoint gets many texts in batches of 64", async () => {
  const { server, base, asked } = await serve();
  const made = await new Endpoint(config(base)).embed(Array.from({ length: 150 }, (_, i) => "x".repeat(i + 1)));
  server.close();
  assert.deepEqual(
    asked.map(({ input }) => input.length),
    [64, 64, 22],
  );
  assert.ok(made[149]![0]! > made[0]![0]!);
});

test("an endpoint's failure is reported, and only a temporary one is retried", async () => {
  const cases: [number, unknown, string, number][] = [
    [401, { error: { message: "no key" } }, "permission", 1],
    [400, { error: { message: "no such model" } }, "usage", 1],
    [500, { error: { message: "broken" } }, "io", 3],
    [200, { data: [] }, "io", 1],
    [200, { data: [{ index: 0, embedding: [1, 2] }] }, "usage", 1],
  ];
  for (const [status, body, code, times] of cases) {
    const { server, base, asked } = await serve(() => ({ status, body }));
    await assert.rejects(new Endpoint(config(base)).embed(["a"]), { code });
    server.close();
    assert.ok(asked.length >= times, `${status}: asked ${asked.length} times`);
  }
  await assert.rejects(new Endpoint(config("http://127.0.0.1:1/v1")).embed(["a"]), { code: "io" });
});

test("a store whose endpoint fails keeps added files, and makes their vectors later", async () => {
  let isDown = true;
  const { server, base } = await serve(() => (isDown ? { status: 400, body: {} } : null));
  const { addFiles } = await import("./files.ts");
  await using store = await scratch.store({}, config(base));
  await addFiles(store, "viking://resources/a.md", { from: Buffer.from("text") });
  await assert.rejects(store.fill(), { code: "usage" });
  assert.equal([...store.index.rows("")].length, 1);
  isDown = false;
  assert.deepEqual(await store.fill(), { indexed: 1, vectors: 1 });
  server.close();
});
