import type { Client } from "../../../contract/index.ts";
import { PlanUndoOptions, UndoOptions } from "../../../contract/points.ts";
import { omit } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import { changeOptions, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(UndoOptions, "cause", "expected"));
const PLANNED = new VerbOptions(omit(PlanUndoOptions, "expected"));

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
    options: changeOptions(OPTIONS.definitions),
    examples,
    async run(context, input) {
      const options: UndoOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
      const client: Client = await context.open();
      const how = { ...context.callOptions(), ...PLANNED.read(context, input) };
      if (input.flag("plan")) return planOutcome(context, client, await client[plans[name]](how));
      const result = await tellingOfHooks(context, client, async () => client[name](options));
      return restoreOutcome(context, client, { result, method: options.method, reverted: name });
    },
  };
}
