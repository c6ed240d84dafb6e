import assert from "node:assert/strict";
import path from "node:path";
import { after, before, test } from "node:test";
import { Client as Agent } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { TOOLS } from "../../src/api/mcp/tools.ts";
import { connect, type ConnectedLibrary } from "../../src/client.ts";
import type { Client } from "../../src/contract/index.ts";
import { CairnError, type ErrorCode } from "../../src/errors.ts";
import { CLIENT_VERBS } from "../../src/verbs/index.ts";
import { buildCommand } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { callTool } from "../fixtures/mcp-tool.ts";
import { HINT_CASES } from "./cases.ts";
import { type Method, PROGRAM_NAMES, type Surface, walkCalls } from "./call-walk.ts";
import type { HintCase } from "./hint-case.ts";
import { AGENT_CALLS, CALLS } from "./surfaces.ts";
import { Home } from "./walk.ts";

const STATE = process.env["XDG_STATE_HOME"]!;

function caseOf(reason: string): HintCase {
  const found = HINT_CASES.filter((each) => each.reason === reason);
  assert.equal(found.length, 1, `one case of the command's table has the reason: ${reason}`);
  return found[0]!;
}

let library: ConnectedLibrary;
let daemon: TestDaemon;

before(async () => {
  daemon = new TestDaemon({ after: () => undefined } as never);
  await daemon.start();
  library = connect({ socket: daemon.socket });
});
after(async () => daemon.kill());

function program(folder: string): Surface {
  let client: Promise<Client> | null = null;
  return {
    names: PROGRAM_NAMES,
    async call(name, given) {
      if (!Object.hasOwn(CLIENT_VERBS, name)) return (library as unknown as Record<string, Method>)[name]!(...given);
      client ??= library.open(folder);
      return ((await client) as unknown as Record<string, Method>)[name]!(...given);
    },
  };
}

for (const one of CALLS)
  test(`over HTTP, ${one.reason}: the hint leads back`, async () => {
    const of = caseOf(one.reason);
    const home = new Home({ XDG_STATE_HOME: STATE, CAIRN_SOCKET: daemon.socket }).prepare(of);
    await walkCalls(of, one, home, program(path.resolve(home.cwd, one.within ?? "")));
  });

async function agent(home: Home, folder: string): Promise<{ agent: Agent; surface: Surface }> {
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [buildCommand(), "mcp", "-C", folder],
    env: { ...(process.env as Record<string, string>), ...home.variables },
    stderr: "ignore",
  });
  const client = new Agent({ name: "cairn-test", version: "1" });
  await client.connect(transport);
  const surface: Surface = {
    names: [...Object.keys(TOOLS), "stauts"],
    async call(name, [given]) {
      const { isError, words, structuredContent } = await callTool(client, name, given as Record<string, unknown>);
      if (isError !== true) return structuredContent;
      const [, code, message, hint] = /^(\w+): (.*)(?:\n([\s\S]*))?$/.exec(words) ?? assert.fail(words);
      throw new CairnError(code as ErrorCode, message!, { hint });
    },
  };
  return { agent: client, surface };
}

for (const one of AGENT_CALLS)
  test(`by MCP, ${one.reason}: the hint leads back`, async () => {
    const of = caseOf(one.reason);
    const home = new Home().prepare(of);
    const { agent: client, surface } = await agent(home, path.resolve(home.cwd, one.within ?? ""));
    try {
      await walkCalls(of, one, home, surface);
    } finally {
      await client.close();
    }
  });
