import type { Cause } from "cairnstate/client";
import type { JSX } from "preact";
import { Name } from "./name.tsx";

const KINDS: Readonly<Record<string, string>> = {
  person: "by hand",
  tool_call: "agent",
  command: "command",
  schedule: "on schedule",
  quiet: "when quiet",
  restore: "before a restore",
  undo: "before an undo",
  redo: "before a redo",
  rewind: "before a rewind",
  adopt: "before an adoption",
  fork: "fork",
};

export interface Turn {
  agent: string;
  session: string | null;
  turn: string | null;
  tool: string | null;
}

/** Returns the agent's turn that made a point; null if no agent made it. */
export function turnOf({ cause }: { cause: Cause }): Turn | null {
  if (cause.kind !== "tool_call") return null;
  const text = (name: string): string | null => (typeof cause[name] === "string" ? cause[name] : null);
  return { agent: text("agent") ?? "agent", session: text("session"), turn: text("turn"), tool: text("tool") };
}

/** Describes the cause of a point in a few words. */
export function causeText(cause: Cause): string {
  const { kind, agent, tool, command } = cause;
  if (kind === "tool_call") return [agent ?? "agent", tool].filter((each) => typeof each === "string").join(" · ");
  if (kind === "command" && Array.isArray(command)) return command.join(" ");
  return KINDS[kind] ?? kind;
}

export function CauseName({ cause }: { cause: Cause }): JSX.Element {
  return <Name text={causeText(cause)} />;
}
