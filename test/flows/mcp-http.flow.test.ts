import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { callTool, type ToolResult } from "../fixtures/mcp-tool.ts";
import { buildCommand, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ask } from "../fixtures/http.ts";
import { findPeer } from "../fixtures/peers.ts";

/** The MCP server over HTTP, driven by the client of the official SDK, and both of its ways by the inspector's command line. */

interface Place {
  daemon: TestDaemon;
  workspace: string;
  token: string;
}

let places = 0;
async function place(t: TestContext): Promise<Place> {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n[http]\nlisten = "127.0.0.1:0"\n');
  await daemon.start();
  const workspace = path.join(SCRATCH, `mcp-http-${places++}`);
  fs.mkdirSync(workspace);
  fs.writeFileSync(path.join(workspace, "a.txt"), "one\n");
  cairnOk(["save", workspace, "-m", "first"], daemon.asked);
  const made = cairnOk(["service", "token", "create", "--workspace", workspace], daemon.asked).data;
  return { daemon, workspace, token: made["token"] as string };
}

async function clientOf(t: TestContext, url: string, token: string): Promise<Client> {
  const transport = new StreamableHTTPClientTransport(new URL(url), {
    requestInit: { headers: { authorization: `Bearer ${token}` } },
  });
  const client = new Client({ name: "cairn-test", version: "1" });
  await client.connect(transport as Transport);
  t.after(async () => client.close());
  await client.listTools();
  return client;
}

test("an MCP agent over HTTP saves, reads, restores and forks in the workspace of its token", async (t) => {
  const { daemon, workspace, token } = await place(t);
  const client = await clientOf(t, `${daemon.url}/mcp`, token);
  const file = path.join(workspace, "a.txt");
  fs.writeFileSync(file, "two\n");
  assert.match((await callTool(client, "status")).words, /changed 1/);
  assert.equal((await callTool(client, "save", { message: "second" })).structuredContent?.["made"], true);
  assert.match((await callTool(client, "history")).words, /second.*\n.*first/);
  assert.equal((await callTool(client, "show", { target: "head~1", path: "a.txt" })).words, "one\n");
  assert.match((await callTool(client, "why", { path: "a.txt" })).words, /modified in/);
  assert.match((await callTool(client, "diff", { a: "head~1", b: "head" })).words, /modified a\.txt/);
  await callTool(client, "restore", { target: "head~1" });
  assert.equal(fs.readFileSync(file, "utf8"), "one\n");
  await callTool(client, "undo");
  assert.equal(fs.readFileSync(file, "utf8"), "two\n");
  const fork = `${workspace}-try`;
  assert.match((await callTool(client, "fork", { target: "head", path: fork })).words, /forked/);
  assert.match((await callTool(client, "status")).words, /nothing has changed/, "the first stays the token's own");
  const other = await clientOf(t, `${daemon.url}/mcp?workspace=${encodeURIComponent(fork)}`, token);
  assert.match((await callTool(other, "history")).words, /the folder is based on this point/);
});

test("an MCP tool over HTTP has only the rights of its token, and the daemon logs each refusal", async (t) => {
  const { daemon, workspace, token } = await place(t);
  const other = path.join(SCRATCH, "mcp-http-other");
  fs.mkdirSync(other);
  cairnOk(["save", other], daemon.asked);
  const own = await clientOf(t, `${daemon.url}/mcp`, token);
  assert.deepEqual(
    [(await callTool(own, "due")).words, (await callTool(own, "due")).words],
    ["save: done", "nothing was due"],
  );
  const strange = await clientOf(t, `${daemon.url}/mcp?workspace=${other}`, token);
  for (const name of ["status", "save", "history"]) {
    const { isError, words } = await callTool(strange, name);
    assert.equal(isError, true, name);
    assert.match(words, /^permission: /, name);
  }
  const client = await clientOf(t, `${daemon.url}/mcp`, token);
  const elsewhere = await callTool(client, "fork", { target: "head", path: path.join(SCRATCH, "mcp-elsewhere") });
  assert.match(elsewhere.words, /^permission: an agent may fork only beside its workspace/);
  const line = /refused an agent: uid \d+, token [0-9a-f]{16}, call fork, workspace /;
  await eventually("it is logged", () => line.test(daemon.log));
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "status", arguments: {} } };
  const headers = { accept: "application/json, text/event-stream", "content-type": "application/json" };
  const send = async (body: object | string, more: object = {}): Promise<number> =>
    (await ask({ at: daemon.url, path: "/mcp", token, headers, body, ...more })).status;
  assert.equal(await send(message), 200);
  assert.equal(await send([message, message]), 400, "several calls would count as one");
  assert.equal(await send("{"), 400);
  assert.equal(await send({ ...message, pad: "x".repeat(2 << 20) }), 400);
  assert.equal(await send(message, { token: `${token.slice(0, -1)}x` }), 401);
  assert.equal(await send(message, { headers: { ...headers, origin: "http://evil" } }), 403);
  assert.equal(await send("", { method: "GET" }), 405);
  assert.equal(await send(message, { at: daemon.socket, token: undefined }), 400, "the workspace is not named");
  const named = { at: daemon.socket, token: undefined, path: `/mcp?workspace=${encodeURIComponent(workspace)}` };
  assert.equal(await send(message, named), 200, "on the socket, too");
});

const inspector = findPeer("mcp-inspector");

test(
  "mcp-inspector lists and calls the tools over standard input and over HTTP",
  { skip: "reason" in inspector ? inspector.reason : false },
  async (t) => {
    assert.ok("program" in inspector);
    const { daemon, workspace, token } = await place(t);
    const inspect = (words: readonly string[], server: readonly string[]): Record<string, unknown> => {
      const done = spawnSync(inspector.program, ["--cli", ...server, ...words], {
        encoding: "utf8",
        timeout: 60_000,
      });
      assert.equal(done.status, 0, done.stdout + done.stderr);
      return JSON.parse(done.stdout) as Record<string, unknown>;
    };
    const overHttp = [`${daemon.url}/mcp`, "--transport", "http", "--header", `Authorization: Bearer ${token}`];
    const onStdio = ["-e", `CAIRN_SOCKET=${daemon.socket}`, process.execPath, buildCommand(), "-C", workspace, "mcp"];
    for (const server of [overHttp, onStdio]) {
      const { tools } = inspect(["--method", "tools/list"], server) as { tools: { name: string }[] };
      assert.deepEqual(
        tools.map(({ name }) => name).toSorted(),
        "diff due fork history restore save show status undo why".split(" "),
      );
      const said = inspect(["--method", "tools/call", "--tool-name", "history"], server) as unknown as ToolResult;
      assert.match(said.content[0]!.text, /first/);
    }
  },
);
