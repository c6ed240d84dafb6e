import { UndoOptions } from "../../contract/points.ts";
import { omit } from "../../contract/schema.ts";
import type { CommandDefinition } from "../command.ts";
import { PLAN, planOutcome, restoreOutcome } from "../restore-outcome.ts";
import { tellingOfHooks } from "./agent/lost-hooks.ts";
import { VerbOptions } from "../options.ts";

const OPTIONS = new VerbOptions(omit(UndoOptions, "cause"));

export const command: CommandDefinition = {
  name: "undo",
  options: [PLAN, ...OPTIONS.definitions],
  examples: [
    { line: "cairn undo", text: "back to the state before the last restore or undo" },
    { line: "cairn undo && cairn undo", text: "undo twice to redo" },
  ],
  async run(context, input) {
    const options: UndoOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const client = await context.open();
    if (input.flag("plan")) return planOutcome(context, client, await client.planUndo(context.callOptions()));
    const result = await tellingOfHooks(context, client, async () => client.undo(options));
    return restoreOutcome(context, client, { result, method: options.method });
  },
};
