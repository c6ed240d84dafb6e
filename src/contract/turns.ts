import { count, flag, number, object, type Of, opt, orNull, rows, text } from "./schema.ts";
import { FailedHooks } from "./looking.ts";
import { NamedPath, pointId, WorkspaceCallOptions } from "./words.ts";

/** Turns of coding agents, from the log of their hooks. */

export const Turn = object({
  turn_id: text("8 hex digits; a unique prefix of at least 4 names the turn"),
  agent: text("for example `claude-code`"),
  session: orNull(text("the tool's own id of the session")),
  started_at: text("RFC 3339"),
  ended_at: orNull(text("null while the turn runs, or if the tool ended without a hook")),
  prompt: orNull(text("first line of the prompt; null if the tool does not pass the prompt, or it was removed")),
  commands: rows(text(), "first lines of the shell commands, in order"),
  tools: number("tool calls that were saved before or after"),
  before: orNull(pointId("the state before the turn; null if no point has that state")),
  why_not: opt(text("why `before` is null")),
  after: orNull(pointId("the last saved state of the turn; null: no save succeeded")),
  not_saved: rows(
    text(),
    "why the folder could not be saved at some of the turn's events: changes around them are uncertain",
  ),
  changed: orNull(
    number(
      "entries that the turn's session alone changed, while one of its tool calls was open; null if a state of the turn is missing, or a save failed and nothing else is known",
    ),
  ),
  paths: rows(NamedPath, "the first 20 of these entries"),
  uncertain: number(
    "entries that changed while several sessions had a call open, after a restore inside a call, or in a state that was read late",
  ),
  taken_back: flag("a rewind of all paths went back to before this turn, and was not undone"),
});
export type Turn = Of<typeof Turn>;

export const TurnsOptions = object({
  ...WorkspaceCallOptions.entries,
  session: opt(text("only turns of sessions whose id begins with this"), "--session <id>"),
  limit: opt(count("at most this many turns; default 20"), "-n, --limit <count>"),
});
export type TurnsOptions = Of<typeof TurnsOptions>;

export const TurnsResult = object({
  turns: rows(Turn, "newest first"),
  sessions: rows(
    object({ session: orNull(text()), agent: text(), turns: number(), last_at: text("RFC 3339") }),
    "the one with the newest turn first",
  ),
  more: number("turns that are not listed"),
  failed_hooks: rows(
    object({ agent: text(), ...FailedHooks.entries }),
    "hooks that could not save: turns may be missing",
  ),
});
export type TurnsResult = Of<typeof TurnsResult>;
