import type { UndoOptions } from "../../operations/contract.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { METHOD_OPTION, parseMethod } from "../input.ts";
import type { Input } from "../input.ts";
import { planOutcome, restoreOutcome } from "../restore-outcome.ts";

export const command: CommandDefinition = {
  name: "undo",
  options: [{ flags: "--plan", text: "say what would be done, do nothing" }, METHOD_OPTION],
  examples: [
    { line: "cairn undo", text: "back to the state before the last restore or undo" },
    { line: "cairn undo && cairn undo", text: "twice is redo" },
  ],
  run,
};

async function run(context: Context, input: Input): Promise<Outcome> {
  const options: UndoOptions = { ...context.callOptions(), ...parseMethod(input) };
  const client = await context.open();
  if (input.flag("plan")) return planOutcome(context, client, await client.planUndo(context.callOptions()));
  return restoreOutcome(context, client, { result: await client.undo(options), method: options.method });
}
