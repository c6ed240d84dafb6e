import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { callTool } from "../fixtures/mcp-tool.ts";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";

/** The MCP server, driven by the client of the official SDK, which holds each result against the tool's own schema. */

const clients: Client[] = [];
after(async () => {
  for (const client of clients) await client.close();
});

async function serve(folder: string, without?: string): Promise<Client> {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [buildCommand(), "mcp", "-C", folder],
    env: Object.fromEntries(
      Object.entries(process.env).filter(([name, value]) => name !== without && value !== undefined),
    ) as Record<string, string>,
  });
  const client = new Client({ name: "cairn-test", version: "1" });
  await client.connect(transport);
  await client.listTools();
  clients.push(client);
  return client;
}

function newFolder(name: string): string {
  const folder = path.join(SCRATCH, name);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
  return folder;
}

test("an MCP agent saves, compares, restores, undoes and forks, with answers that match each tool's schema", async () => {
  const folder = newFolder("kept");
  const file = path.join(folder, "a.txt");
  const client = await serve(folder);
  const before = await callTool(client, "status");
  assert.equal(before.isError, true);
  assert.match(before.words, /not_a_workspace.*\n.*call save/);
  const first = await callTool(client, "save", { message: "first", cause: { kind: "tool_call", turn: 7 } });
  assert.equal(first.structuredContent?.["made"], true);
  const forged = await callTool(client, "save", { cause: { kind: "person" } });
  assert.match(forged.words, /usage.*tool_call/);
  fs.writeFileSync(file, "two\n");
  fs.writeFileSync(path.join(folder, "b.bin"), Buffer.from([0, 1, 2]));
  assert.match((await callTool(client, "status")).words, /added 1, changed 1, removed 0/);
  assert.match((await callTool(client, "diff", { a: "head" })).words, /modified a\.txt\nadded b\.bin/);
  const limited = await callTool(client, "diff", { a: "head", limit: 1 });
  assert.equal(limited.structuredContent?.["more"], 1);
  await callTool(client, "save");
  assert.match((await callTool(client, "save")).words, /nothing had changed/);
  const { save_points: points } = (await callTool(client, "history")).structuredContent as {
    save_points: { cause: Record<string, unknown> }[];
  };
  assert.deepEqual(
    points.map(({ cause }) => cause),
    [
      { kind: "tool_call", tool: "mcp" },
      { kind: "tool_call", turn: 7 },
    ],
  );
  const shown = await callTool(client, "show", { target: "head~1", path: "a.txt" });
  assert.deepEqual([shown.words, shown.structuredContent?.["content"]], ["one\n", "one\n"]);
  assert.match((await callTool(client, "show", { target: "head", path: "b.bin" })).words, /not a text file/);
  assert.match((await callTool(client, "show", { target: "head" })).words, /file a\.txt\nfile b\.bin/);
  assert.match((await callTool(client, "why", { path: "a.txt" })).words, /modified in .*\nadded in .* first/);
  await callTool(client, "restore", { target: "head~1" });
  assert.deepEqual(fs.readdirSync(folder), ["a.txt"]);
  await callTool(client, "undo");
  assert.equal(fs.readFileSync(file, "utf8"), "two\n");
  const fork = path.join(SCRATCH, "second");
  await callTool(client, "fork", { target: "head~1", path: fork });
  assert.equal(fs.readFileSync(path.join(fork, "a.txt"), "utf8"), "one\n");
  assert.equal(cairnOk(["status", "-C", folder]).data["clean"], true);
});

test("the MCP server has no tool that removes points, and explains invalid calls", async () => {
  const client = await serve(newFolder("capable"));
  const { tools } = await client.listTools();
  assert.deepEqual(
    tools.map(({ name }) => name).toSorted(),
    "diff due fork history restore rewind save show status turns undo why".split(" "),
  );
  for (const { name, inputSchema, outputSchema, description } of tools) {
    assert.equal(inputSchema.additionalProperties, false, name);
    assert.equal(outputSchema?.type, "object", name);
    assert.ok(description!.length > 10, name);
  }
  await callTool(client, "save");
  assert.equal((await callTool(client, "due")).words, "save: done");
  assert.equal((await callTool(client, "due")).words, "nothing was due");
  for (const [name, given, words] of [
    ["undo", {}, /^nothing_to_undo: .*\nsee `history\(\)`$/],
    ["show", { target: "beef" }, /^not_found: .*\nsee `history\(\)`$/],
    ["cleanup", {}, /no tool "cleanup"/],
    ["release", {}, /no tool/],
    ["constructor", {}, /no tool/],
    ["save", { mesage: "x" }, /did you mean message/],
    ["save", { allow: ["home"] }, /has no member "allow"/],
    ["restore", { target: 7 }, /target must be text/],
    ["restore", { target: "latest", to: "/tmp/elsewhere" }, /has no member "to"/],
    ["restore", { target: "latest", paths: [] }, /is an empty list/],
    ["show", {}, /needs the member target/],
    ["show", { target: "latest", path: "../../etc/passwd" }, /./],
    ["fork", { target: "latest", path: "relative" }, /absolute/],
  ] as const) {
    const result = await callTool(client, name, given);
    assert.equal(result.isError, true, `${name}: ${result.words}`);
    assert.match(result.words, words);
  }
  await Promise.all(
    Array.from({ length: 8 }, async () => assert.ok((await callTool(client, "status")).isError !== true)),
  );
});

test("an MCP server without XDG_STATE_HOME begins no second history of a folder that is kept already", async () => {
  fs.mkdirSync(process.env["HOME"]!, { recursive: true });
  const folder = newFolder("kept-elsewhere");
  cairnOk(["save", folder]);
  const control = cairnOk(["status", "-C", folder]).data["workspace"] as { control_directory: string };
  const client = await serve(folder, "XDG_STATE_HOME");
  for (const [name, code] of [
    ["history", "not_a_workspace"],
    ["save", "refused"],
  ] as const) {
    const { isError, words } = await callTool(client, name);
    assert.equal(isError, true);
    assert.ok(words.startsWith(`${code}:`) && words.includes(control.control_directory), words);
    assert.doesNotMatch(words, /call save/);
  }
  assert.equal(fs.existsSync(path.join(process.env["HOME"]!, ".local/state/cairn/workspaces")), false);
});

test("-C may name a folder in a workspace, for the MCP server and other commands; DIR and a missing folder may not", async () => {
  const folder = newFolder("above");
  const inside = path.join(folder, "project/frontend");
  fs.mkdirSync(inside, { recursive: true });
  cairnOk(["save", folder]);
  const client = await serve(inside);
  const { workspace } = (await callTool(client, "status")).structuredContent as { workspace: { path: string } };
  assert.equal(workspace.path, folder);
  fs.writeFileSync(path.join(inside, "b.txt"), "two\n");
  assert.equal((await callTool(client, "save", {})).structuredContent?.["made"], true);
  fs.writeFileSync(path.join(inside, "b.txt"), "three\n");
  for (const words of ["status", "turns", "agent status", "save", "run -- true", "doctor"])
    cairnOk(["-C", inside, ...words.split(" ")]);
  assert.equal(
    (cairnOk(["workspaces"]).data["workspaces"] as { path: string }[]).filter(({ path: each }) =>
      each.startsWith(folder),
    ).length,
    1,
  );
  assert.equal((cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[]).length, 5, "two of them by run");
  assert.equal(cairn(["status", inside]).error?.code, "not_a_workspace");
  assert.equal(cairn(["save", inside]).error?.code, "refused");
  assert.equal(cairn(["-C", path.join(inside, "missing"), "status"]).error?.code, "not_a_workspace");
  assert.equal(cairn(["-C", SCRATCH, "status"]).error?.code, "not_a_workspace");
});
