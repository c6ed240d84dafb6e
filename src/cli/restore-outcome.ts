import type { Client, RestoreOptions, RestorePlan, RestoreResult } from "../contract/index.ts";
import type { Outcome } from "./command.ts";
import type { Context } from "./context.ts";
import { EXIT_PARTLY } from "./envelope.ts";
import { shortener } from "./shorten.ts";

const SHORT_ID = 8;

export const PLAN = { flags: "--plan", text: "print what would be done, and do nothing" };

/** Prints the result of `restore` and `undo`. `method`: as given on the line. */
export function restoreOutcome(
  context: Context,
  client: Client,
  {
    method,
    reverted,
    ...done
  }: { result: RestoreResult; to?: string; method?: RestoreOptions["method"]; reverted?: "undo" | "redo" },
): Outcome {
  const { result } = done;
  if (context.signal.aborted) context.note("the restore finished before it could be stopped", true);
  const back = reverted === "undo" ? "redo" : "undo";
  // With `--method exchange` the caller vouches that no process has the folder open. A plain undo would have to find out.
  const undo = context.commandLine(method === "exchange" ? [back, "--method", method] : [back]);
  const edited = result.left_out.find(({ reason }) => reason === "changed_since");
  if (reverted !== undefined && edited !== undefined) {
    // A partial undo is an operation, too: `undo --over` would begin from it, so a restore is proposed.
    const from = String(result.restored_to).slice(0, SHORT_ID);
    const words = result.undo_id === null ? [reverted, "--over"] : ["restore", from, edited.path];
    context.note(`to revert what was changed since, too: ${context.commandLine(words)}`);
  }
  return {
    data: result,
    exitStatus: result.left_out.length === 0 ? 0 : EXIT_PARTLY,
    async text() {
      const { renderRestore } = await import("./render/restore.ts");
      const { restored_to: to, undo_id: undoId, operation } = result;
      const shorten = await shortener(client, [to, undoId, operation?.restored_to ?? null]);
      const words = { undo: "undone", redo: "redone" } as const;
      const verb = reverted === undefined ? undefined : words[reverted];
      return renderRestore({ ...done, reverted: verb, shorten, undo, style: context.style });
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
      return renderPlan(plan, await shortener(client, [plan.restored_to]), context.style);
    },
  };
}
