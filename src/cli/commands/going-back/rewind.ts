import { omit } from "../../../contract/schema.ts";
import { type RewindOptions, RewindOptions as Options } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import { canAsk, isConfirmed, usage } from "../../input.ts";
import { VerbOptions } from "../../options.ts";
import { changeOptions, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { PATH_B64 } from "../../shown.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";

const OPTIONS = new VerbOptions(omit(Options, "cause", "paths"));

export const command: CommandDefinition = {
  name: "rewind",
  arguments: [{ name: "[turn]", text: "a turn's id from `cairn turns`, or how many turns to go back; default: 1" }],
  options: [
    ...changeOptions(OPTIONS.definitions),
    { flags: "--path <path>", text: "restore only this path and everything below it; may be repeated", repeat: true },
    { ...PATH_B64, text: "like --path, for a name that is not UTF-8; may be repeated", repeat: true },
  ],
  examples: [
    { line: "cairn rewind", text: "take back the newest turn, also what its shell commands changed" },
    { line: "cairn rewind 3 --path src", text: "take back the last three turns in one folder" },
    { line: "cairn undo", text: "bring back what the rewind changed" },
  ],
  async run(context, input) {
    const client = await context.open();
    const options: RewindOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const paths = context.workspacePaths(client, input.list("path"), input.list("pathB64"));
    if (paths.length > 0 && !paths.includes("")) options.paths = paths;
    const turn = input.argument(0);
    if (input.flag("plan")) return planOutcome(context, client, await client.planRewind(turn, options));
    const [newest] = canAsk() ? (await client.turns({ ...context.callOptions(), limit: 1 })).turns : [];
    if (
      newest?.ended_at === null &&
      !(await isConfirmed(`The turn ${newest.turn_id} has not ended. Rewind all the same?`))
    )
      throw usage(`the turn ${newest.turn_id} has not ended`, "end the agent's turn first, or wait for its end");
    const result = await tellingOfHooks(context, client, async () => client.rewind(turn, options));
    return restoreOutcome(context, client, { result, method: options.method });
  },
};
