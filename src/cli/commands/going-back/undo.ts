import type { Client, RestorePlan } from "../../../contract/index.ts";
import { UndoOptions } from "../../../contract/points.ts";
import { omit } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import { PLAN, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(UndoOptions, "cause", "expected"));

export const undo = reverting("undo", [
  { line: "cairn undo", text: "revert the last restore, rewind or adoption; again: the one before it" },
  { line: "cairn redo", text: "bring back what undo reverted" },
]);

export const redo = reverting("redo", [
  { line: "cairn redo", text: "bring back what the last undo reverted; again: the undo before it" },
  { line: "cairn operations", text: "list what can be undone and redone" },
]);

function reverting(name: "undo" | "redo", examples: CommandDefinition["examples"]): CommandDefinition {
  const plans = { undo: "planUndo", redo: "planRedo" } as const;
  return {
    name,
    options: [PLAN, ...OPTIONS.definitions],
    examples,
    async run(context, input) {
      const options: UndoOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
      const client: Client = await context.open();
      const { over, takeOwnership } = options;
      const how = {
        ...(over === undefined ? {} : { over }),
        ...(takeOwnership === undefined ? {} : { takeOwnership }),
      };
      const plan = async (): Promise<RestorePlan> => client[plans[name]]({ ...context.callOptions(), ...how });
      if (input.flag("plan")) return planOutcome(context, client, await plan());
      const result = await tellingOfHooks(context, client, async () => client[name](options));
      return restoreOutcome(context, client, { result, method: options.method, reverted: name });
    },
  };
}
