import { appendFileSync, renameSync, statSync } from "node:fs";
import type { Cause } from "../../contract/words.ts";
import { readSmallFile } from "../../fs/durable.ts";
import type { SavePointId } from "../../ids.ts";

/** One call of an agent's hook, with the state of the folder at that time. */
export interface AgentEvent {
  /** RFC 3339 */
  at: string;
  agent: string;
  /** the tool's own word, for example `UserPromptSubmit` */
  event: string;
  session: string | null;
  /** null if the tool has no turn ids, as Gemini CLI */
  turn: string | null;
  tool: string | null;
  /** first line of the prompt */
  prompt: string | null;
  /** first line of the shell command */
  command: string | null;
  /** the new point, or head if nothing had changed */
  save_point_id: SavePointId;
  made: boolean;
  /** time of the hook, if the hook had returned before the folder was read: the point may hold later states of some files */
  asked_at: string | null;
}

const MOST_BYTES = 4 << 20;
const olderPart = (log: string): string => `${log}.1`;

/** Appends a hook's event to the log of a workspace. For the holder of the workspace's lock. Does nothing for other causes. */
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
        return line === "" ? [] : [JSON.parse(line) as AgentEvent];
      } catch {
        return [];
      }
    }),
  );
}
