/**
 * A hook of an agent runtime. The runtime starts it after every tool call with one event as JSON on standard input,
 * and gets one line of JSON back. A turn becomes a save point that says what led to it; a rollback names the point.
 *
 *     echo '{"event":"tool_result","session":"s1","turn":3,"tool":"bash","input":{"command":"make"}}' |
 *       node docs/examples/agent-hook.ts ~/project
 *     echo '{"event":"rollback","session":"s1","to":"1a2b3c4d"}' | node docs/examples/agent-hook.ts ~/project
 */
import process from "node:process";
import { text } from "node:stream/consumers";
import { CairnError, openOrInit } from "cairnstate";
import type { Client } from "cairnstate";

type HookEvent =
  | { event: "tool_result"; session: string; turn: number; tool: string; input: unknown }
  | { event: "rollback"; session: string; to: string };

async function handle(client: Client, hook: HookEvent): Promise<object> {
  if (hook.event === "rollback") {
    // Nothing is lost: the present is saved first, and `undo_id` brings it back.
    const cause = { kind: "tool_call", tool: "rollback", session: hook.session };
    const restored = await client.restore({ target: hook.to, cause });
    return { restored_to: restored.restored_to, undo_id: restored.undo_id, left_out: restored.left_out };
  }
  const { session, turn, tool, input } = hook;
  // A point per turn, also when nothing changed: the runtime counts turns.
  const saved = await client.save({
    message: `turn ${turn}: ${tool}`,
    tags: [`session:${session}`],
    cause: { kind: "tool_call", session, turn, tool, input },
  });
  return { save_point_id: saved.save_point_id, unchanged: saved.unchanged, changes: saved.changes };
}

try {
  const hook = JSON.parse(await text(process.stdin)) as HookEvent;
  await using client = await openOrInit(process.argv[2] ?? process.cwd());
  console.log(JSON.stringify({ ok: true, ...(await handle(client, hook)) }));
} catch (error) {
  if (!(error instanceof CairnError)) throw error;
  const { code, message, hint, retryable } = error;
  console.log(JSON.stringify({ ok: false, code, message, hint, retryable }));
  process.exitCode = error.exitStatus;
}
