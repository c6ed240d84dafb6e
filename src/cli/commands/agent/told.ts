import type { Told } from "../../late-saves.ts";
import { boundedText, firstLineOf, isBefore } from "../../../workspace/points/agent-events.ts";

/** Facts that a tool passes to its hook on standard input. */

const LIMIT = 16 << 20;
/** Names of tools that run shell commands. Codex's `apply_patch`, for example, has a patch as its `command`. */
const SHELL = /shell|bash|exec|terminal|command/i;

/** Returns the message of the point that a hook makes. `late`: the hook has returned, and the agent works on. */
export function messageOf({ event, tool = "a turn" }: Told, late = false): string {
  return `${late ? "during" : isBefore(event) ? "before" : "after"} ${tool}`;
}

/** Reads standard input to its end, or for `mostMs`. */
export async function readInput(mostMs: number): Promise<string> {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const late = setTimeout(() => process.stdin.destroy(), mostMs);
  for await (const piece of process.stdin as AsyncIterable<Buffer>) {
    pieces.push(piece);
    if ((bytes += piece.length) > LIMIT) break;
  }
  clearTimeout(late);
  return Buffer.concat(pieces).toString("utf8");
}

/** Throws if `text` is not JSON. */
export function toldBy(text: string): Told {
  const facts = JSON.parse(text) as Record<string, unknown>;
  const first = (...names: string[]): string | undefined =>
    names
      .map((name) => facts[name])
      .find((each): each is string => typeof each === "string" && each !== "")
      ?.slice(0, 256);
  const [session, turn, tool, call] = [
    first("session_id", "session"),
    first("prompt_id", "turn_id", "turn"),
    first("tool_name", "tool"),
    first("tool_use_id", "call_id", "call"),
  ];
  const input = facts["tool_input"] as { command?: unknown } | null | undefined;
  const prompt = textOf(facts["prompt"]);
  const command = SHELL.test(tool ?? "") ? textOf(input?.command ?? facts["command"]) : undefined;
  return {
    event: first("hook_event_name", "event") ?? "",
    cwd: typeof facts["cwd"] === "string" ? facts["cwd"] : "",
    ...(session === undefined ? {} : { session }),
    ...(turn === undefined ? {} : { turn }),
    ...(tool === undefined ? {} : { tool }),
    ...(call === undefined ? {} : { call }),
    ...(prompt === undefined ? {} : { prompt: boundedText(prompt) }),
    ...(command === undefined ? {} : { command: firstLineOf(command) }),
  };
}

function textOf(text: unknown): string | undefined {
  const whole: unknown = Array.isArray(text) ? text.join(" ") : text;
  return typeof whole === "string" && whole.trim() !== "" ? whole : undefined;
}
