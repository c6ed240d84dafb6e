import type { Cause } from "../../contract/words.ts";

/** The event that `agent install` gives a hook as a check. No tool has an event of this name. */
export const CHECK_EVENT = "InstallCheck";

/** The event that `agent remove` records. No tool has an event of this name. */
export const REMOVE_EVENT = "Removal";

/** True for an event of `cairn agent`, which no tool called. */
export const isOwn = (event: string): boolean => event === CHECK_EVENT || event === REMOVE_EVENT;

/** True for an event that belongs to no turn. */
export const isBesideTurns = (event: string): boolean => isOwn(event) || event === "session_start";

/** After all calls that a tool made at once. */
export const BATCH = "PostToolBatch";
export const SESSION_END = "SessionEnd";

/** True for the event at the end of a turn, by the names of all tools. */
export const isStop = (event: string): boolean => /^(?:Stop|AfterAgent|stop)$/.test(event);

/** True for an event before a turn or tool call, by the names of all tools. */
export function isBefore(event: string): boolean {
  return /^(?:UserPromptSubmit|PreToolUse|BeforeAgent|BeforeTool|prompt|before)$/.test(event);
}

/** The prompt or the shell command of an event. Only the record of events keeps these texts. */
export interface Texts {
  prompt?: string;
  command?: string;
}

const MOST_TEXT_BYTES = 64 << 10;
const MOST_CHARACTERS = 200;

/** Cuts a prompt or command at 64 KiB. */
export function boundedText(text: string): string {
  if (Buffer.byteLength(text) <= MOST_TEXT_BYTES) return text;
  const cut = Buffer.from(text).subarray(0, MOST_TEXT_BYTES).toString("utf8");
  return cut.replace(/\uFFFD+$/, "");
}

/** Returns the first line of a text that is not empty, at most 200 characters of it. */
export function firstLineOf(text: string): string {
  return (/\S.*/.exec(text)?.[0] ?? "").slice(0, MOST_CHARACTERS).trim();
}

/** Takes the texts out of the cause of an agent's event, so that no descriptor has them. */
export function withoutTexts(cause: Cause): { cause: Cause; texts: Texts } {
  if (!isEvent(cause)) return { cause, texts: {} };
  const { prompt, command, ...ids } = cause as Cause & { prompt?: unknown; command?: unknown };
  return {
    cause: ids,
    texts: {
      ...(typeof prompt === "string" ? { prompt: boundedText(prompt) } : {}),
      ...(typeof command === "string" ? { command: boundedText(command) } : {}),
    },
  };
}

/** True for the cause of a save that an agent's hook asked for. */
export function isEvent(cause: Cause): boolean {
  return cause.kind === "tool_call" && typeof cause["event"] === "string";
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
