import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "../../../contract/index.ts";
import { CHECK_EVENT } from "../../../workspace/points/agent-events.ts";
import { shellQuote } from "../../render/format.ts";
import { type Environment, hookWords, type Scope } from "./agents.ts";
import { LateSaves } from "../../late-saves.ts";

const WAIT_MS = 60_000;
const LOOK_EVERY_MS = 100;
/** Variables that each tool passes to its hooks and servers. */
const PASSED = ["HOME", "PATH", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TERM", "TMPDIR"];

/**
 * Runs a tool's hook as it is written in the tool's files, with the few variables that every tool passes, and waits for its event in
 * the workspace's log. Returns null if the event arrived, otherwise the reason.
 */
export async function checkHook(
  client: Client,
  tool: string,
  scope: Scope,
  signal: AbortSignal,
): Promise<string | null> {
  const session = `install-${process.pid}-${Date.now()}`;
  const line = [...hookWords(scope, tool).map(shellQuote), "--verbose"].join(" ");
  const child = spawn("/bin/sh", ["-c", line], { cwd: client.workspacePath(), env: passed(scope.env), signal });
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
  child.stdin.on("error", () => undefined);
  child.stdin.end(
    JSON.stringify({
      hook_event_name: CHECK_EVENT,
      session_id: session,
      tool_name: `agent install ${tool}`,
      cwd: client.workspacePath(),
    }),
  );
  try {
    const [status] = (await once(child, "close")) as [number | null];
    if (status !== 0) return `it ended with status ${status}: ${said.trim()}`;
    for (const until = Date.now() + WAIT_MS; ; await sleep(LOOK_EVERY_MS, undefined, { signal })) {
      const { events } = await client.agentEvents({ signal, limit: 10 });
      const event = events.find((each) => each.session === session);
      if (event !== undefined) return event.failed;
      if (Date.now() > until || !new LateSaves(client.workspacePath()).isPending()) return said.trim();
    }
  } catch (error) {
    return (error as Error).message;
  }
}

function passed(env: Environment): Record<string, string> {
  return Object.fromEntries(PASSED.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])));
}
