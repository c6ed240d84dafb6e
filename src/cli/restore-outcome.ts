import type { Client, RestoreOptions, RestorePlan, RestoreResult } from "../contract/index.ts";
import type { Outcome } from "./command.ts";
import type { Context } from "./context.ts";
import { grouped, type OptionDefinition } from "./definitions.ts";
import { VerbOptions } from "./options.ts";
import { MethodOption } from "../contract/points.ts";
import { shownPlan } from "../contract/words.ts";
import { EXIT_PARTLY } from "./envelope.ts";
import { shortener } from "./shorten.ts";

export const PLAN = { flags: "--plan", text: "print what would be done, and do nothing" };
const SHARED = new VerbOptions({ ...MethodOption.entries, plan: shownPlan() });

/** Returns `--plan` and the options of a command that changes the folder. Options that all these commands have are marked as a group. */
export function changeOptions(options: readonly OptionDefinition[]): readonly OptionDefinition[] {
  const all = [PLAN, ...options];
  return grouped("change", all, [PLAN, ...SHARED.definitions]);
}

/** Prints the result of `restore` and `undo`. `method`: as given on the line. */
export function restoreOutcome(
  context: Context,
  client: Client,
  {
    method,
    ...done
  }: { result: RestoreResult; to?: string; method?: RestoreOptions["method"]; reverted?: "undo" | "redo" },
): Outcome {
  const { result, reverted } = done;
  if (context.signal.aborted) context.note("the restore finished before it could be stopped", true);
  const back = reverted === "undo" ? "redo" : "undo";
  // With `--method exchange` the caller vouches that no process has the folder open. A plain undo would have to find out.
  const words = method === "exchange" ? [back, "--method", method] : [back];
  // An undo writes such a database through SQLite by itself, unless it was written to meanwhile.
  const isWrittenTo = result.through_sqlite?.some(({ read_again: isEqual }) => !isEqual) === true;
  const undo = context.commandLine(isWrittenTo ? [...words, "--through-sqlite"] : words);
  if (reverted !== undefined && result.left_out.some(({ reason }) => reason === "changed_since"))
    context.note(`to revert what was changed since, too: ${context.commandLine([reverted, "--over"])}`);
  const reached = result.turns?.at(-1);
  if (reached !== undefined && result.left_out.some(({ reason }) => reason === "changed_since"))
    context.note(
      `to make the folder equal to the state before the turn, also where others changed it: ${context.commandLine(["rewind", reached.turn_id, "--over"])}`,
    );
  return {
    data: result,
    exitStatus: result.left_out.length === 0 ? 0 : EXIT_PARTLY,
    async text() {
      const { renderRestore } = await import("./render/restore.ts");
      const { restored_to: to, undo_id: undoId, operation } = result;
      const shorten = await shortener(client, [to, undoId, operation?.restored_to ?? null]);
      return renderRestore({ ...done, shorten, undo, style: context.style });
    },
  };
}

/** Prints the plan of `restore` and `undo`, with `--plan`. */
export function planOutcome(context: Context, client: Client, plan: RestorePlan): Outcome {
  return {
    data: { plan },
    paged: true,
    async text() {
      const { renderPlan } = await import("./render/restore.ts");
      const shorten = await shortener(client, [plan.restored_to]);
      return renderPlan(plan, context.style.bold(shorten(plan.restored_to)), context.style);
    },
  };
}
