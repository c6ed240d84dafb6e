import { orNull } from "./covered.ts";

/** Members of a hook's event in the words of all tools. An earlier name of a row counts before a later one. */
const MEMBERS = {
  event: ["hook_event_name", "event"],
  session: ["session_id", "session"],
  turn: ["prompt_id", "turn_id", "turn"],
  tool: ["tool_name", "tool"],
  call: ["tool_use_id", "call_id", "call"],
  command: ["tool_input.command", "command"],
  prompt: ["prompt"],
  cwd: ["cwd"],
} as const;

/** Returns a text of an event, or the texts of a list, joined by spaces. `event`: parsed JSON. */
export function factOf(event: unknown, fact: keyof typeof MEMBERS): string | undefined {
  const texts = MEMBERS[fact].map((path) => {
    const value = path.split(".").reduce<unknown>((inside, name) => Object(inside)[name], event);
    return Array.isArray(value) ? value.join(" ") : value;
  });
  return texts.find((text): text is string => typeof text === "string" && text !== "");
}

/** Returns the value of JSON; null for other bytes. */
export const eventIn = (bytes: Buffer): unknown => orNull(() => JSON.parse(bytes.toString("utf8")) as unknown);
