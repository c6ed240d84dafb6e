import { appendFileSync, renameSync, statSync } from "node:fs";
import type { AgentEvent } from "../../contract/looking.ts";
import type { Cause } from "../../contract/words.ts";
import { readSmallFile } from "../../fs/durable.ts";

/** The event that `agent install` gives a hook as a check. No tool has an event of this name. */
export const CHECK_EVENT = "InstallCheck";

/** True for an event before a turn or tool call, by the names of all tools. */
export function isBefore(event: string): boolean {
  return /^(?:UserPromptSubmit|PreToolUse|BeforeAgent|BeforeTool|prompt|before)$/.test(event);
}

const MOST_BYTES = 4 << 20;
const olderPart = (log: string): string => `${log}.1`;

/** Appends a hook's event to the log of a workspace. Ignores other causes. The caller holds the workspace's lock. */
export function noteAgentEvent(
  log: string,
  cause: Cause | undefined,
  saved: Pick<AgentEvent, "save_point_id" | "made">,
): void {
  if (cause?.kind !== "tool_call" || typeof cause["event"] !== "string") return;
  const text = (key: string): string | null => (typeof cause[key] === "string" ? cause[key] : null);
  const event: AgentEvent = {
    at: new Date().toISOString(),
    agent: text("agent") ?? "",
    event: cause["event"],
    session: text("session"),
    turn: text("turn"),
    tool: text("tool"),
    call: text("call"),
    prompt: text("prompt"),
    command: text("command"),
    ...saved,
    asked_at: text("asked_at"),
  };
  if ((statSync(log, { throwIfNoEntry: false })?.size ?? 0) > MOST_BYTES) renameSync(log, olderPart(log));
  appendFileSync(log, `${JSON.stringify(event)}\n`, { mode: 0o600 });
}

/** Returns the events of a workspace's log, oldest first: at most 8 MiB of them. Skips lines that a power cut left damaged. */
export function readAgentEvents(log: string): AgentEvent[] {
  return [olderPart(log), log].flatMap((file) =>
    (readSmallFile(file, 2 * MOST_BYTES, true)?.toString("utf8") ?? "").split("\n").flatMap((line) => {
      try {
        // Events of earlier versions have no ids of calls.
        return line === "" ? [] : [{ call: null, ...(JSON.parse(line) as Omit<AgentEvent, "call">) }];
      } catch {
        return [];
      }
    }),
  );
}

/**
 * Returns the message of a point. If the hook had returned before the folder was read, the message ends with the span in which the
 * files were read, for example "(read between 12:00:01Z and 12:00:09Z)".
 */
export function withSpan(message: string, cause: Cause | undefined, until: string): string {
  const from = cause?.["asked_at"];
  if (typeof from !== "string") return message;
  const [begin, end] = [from, until].map((at) => at.replace(/^.*T|\.\d+/g, ""));
  return `${message} (read between ${begin} and ${end})`;
}
