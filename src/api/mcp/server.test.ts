import assert from "node:assert/strict";
import { test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { InMemoryTransport } from "@modelcontextprotocol/sdk/inMemory.js";
import { advice, CairnError, call, type Hint, see } from "../../errors.ts";
import { serveTools } from "./server.ts";

async function textOf(hint: Hint): Promise<string> {
  const [ours, theirs] = InMemoryTransport.createLinkedPair();
  const served = serveTools(theirs, async () => {
    throw new CairnError("conflict", "no", { hint });
  });
  const client = new Client({ name: "test", version: "1" });
  await client.connect(ours);
  const { content } = await client.callTool({ name: "status", arguments: {} });
  await client.close();
  await served;
  return (content as { text: string }[])[0]!.text;
}

test("a hint in a tool's error names tools, or commands that a person can run", async () => {
  assert.equal(await textOf("wait"), "conflict: no\nwait");
  assert.equal(await textOf(see("history")), "conflict: no\nsee `history()`");
  const repair = call("doctor --repair", "doctor", { repair: true });
  const clean = call("cleanup --plan", "previewCleanup");
  const both = advice`run ${clean}, then ${repair}`;
  assert.equal(
    await textOf(both),
    "conflict: no\na person can do this: run `cairn cleanup --plan`, then `cairn doctor --repair`",
  );
});
