import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import type { Client } from "../../../contract/index.ts";
import { bareVariables, decidingVariables } from "../../../daemon/places.ts";
import { CHECK_EVENT } from "../../../workspace/points/agent-events.ts";
import { hookLine, type Scope } from "./agents.ts";
import { LateSaves } from "../../late-saves.ts";

const WAIT_MS = 60_000;
const LOOK_EVERY_MS = 100;

/**
 * Runs a tool's hook as it is written in the tool's files, in another folder and with the fewest variables with which a tool may run
 * it, and waits for its event in the workspace's log. Returns null if the event arrived, otherwise the reason.
 */
export async function checkHook(
  client: Client,
  tool: string,
  scope: Scope,
  signal: AbortSignal,
): Promise<string | null> {
  const session = `install-${process.pid}-${Date.now()}`;
  const { project, env } = scope;
  if (project !== null) {
    const options = { cwd: "/", env: bareVariables(env), input: "{}", encoding: "utf8" } as const;
    const without = spawnSync("/bin/sh", ["-c", hookLine(scope, tool)], options);
    const said = without.stdout + without.stderr;
    if (without.status !== 0 || said !== "")
      return `without cairn in PATH it ended with status ${without.status}: ${said}`;
  }
  const line = hookLine(scope, tool, ["--verbose"]);
  // A hook of the project looks for `cairn` in PATH, and names no variables.
  const variables =
    project === null
      ? bareVariables(env)
      : { ...bareVariables(env), ...decidingVariables({ ...env }), PATH: env["PATH"] };
  const child = spawn("/bin/sh", ["-c", line], { cwd: "/", env: variables, signal });
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
      if (Date.now() > until || !new LateSaves(client.workspacePath()).isPending())
        return said.trim() || "it printed nothing: `cairn` must be in PATH";
    }
  } catch (error) {
    return (error as Error).message;
  }
}
