import type { Cause } from "cairnstate/client";
import type { JSX } from "preact";
import { Name } from "./name.tsx";
import { wholeTime } from "./values.tsx";

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

/** Returns the time of the backup that was restored; null for other causes. */
export function backupTime({ kind, backup }: Cause): string | null {
  const { created_at: at } = (backup ?? {}) as { created_at?: unknown };
  return kind === "restore" && typeof at === "string" ? at : null;
}

/** True for the cause of an undo point: the operation that it was made for changed the folder after it. */
export function isOfUndo({ kind, restored_to: to }: Cause): boolean {
  return ["restore", "rewind", "adopt", "undo", "redo"].includes(kind) && typeof to === "string";
}

/** Describes the cause of a point in a few words. */
export function causeText(cause: Cause): string {
  const { kind, agent, tool, command, from_workspace: from, in_part: isInPart } = cause;
  const backup = backupTime(cause);
  if (backup !== null) return `before a restore from the backup of ${wholeTime(backup)}`;
  if (kind === "rewind" && isInPart === true) return "before a turn was taken back";
  // The state of a fork has this kind, too.
  if (kind === "adopt" && !isOfUndo(cause)) return typeof from === "string" ? `from ${from}` : "from a fork";
  if (kind === "tool_call") return [agent ?? "agent", tool].filter((each) => typeof each === "string").join(" · ");
  if (kind === "command" && Array.isArray(command)) return command.join(" ");
  return KINDS[kind] ?? kind;
}

export function CauseName({ cause }: { cause: Cause }): JSX.Element {
  return <Name text={causeText(cause)} />;
}
