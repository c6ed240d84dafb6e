import { AdoptForkOptions } from "../../../contract/points.ts";
import { omit } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import { forkWord } from "../../fork-word.ts";
import { restoreOutcome } from "../../restore-outcome.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(AdoptForkOptions, "cause"));

export const command: CommandDefinition = {
  name: "adopt",
  arguments: [{ name: "<fork>", text: "the fork's workspace name or its folder", completes: "folders" }],
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn adopt ../try-it", text: "make this folder equal to the fork; `cairn undo` reverts that" },
    { line: "cairn fork --remove ../try-it", text: "remove the fork afterwards" },
  ],
  async run(context, input) {
    const options: AdoptForkOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const client = await context.open();
    const fork = forkWord(context, input.required(0));
    const result = await tellingOfHooks(context, client, async () => client.adoptFork(fork, options));
    return restoreOutcome(context, client, { result, method: options.method });
  },
};
