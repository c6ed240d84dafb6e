import { createInterface } from "node:readline/promises";
import type { Client, RestoreResult, RewindOptions } from "../../../contract/index.ts";
import { RewindOptions as Options } from "../../../contract/turns.ts";
import { omit } from "../../../contract/schema.ts";
import { toCairnError } from "../../../errors.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { restoreOutcome } from "../../restore-outcome.ts";
import { PATH_B64 } from "../../shown.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { VerbOptions } from "../../options.ts";

const OPTIONS = new VerbOptions(omit(Options, "cause", "paths"));

export const command: CommandDefinition = {
  name: "rewind",
  arguments: [{ name: "[turn]", text: "a turn's id from `cairn turns`, or how many turns to go back; default: 1" }],
  options: [
    ...OPTIONS.definitions,
    { flags: "--only <path>", text: "restore only this path and everything below it; may be repeated", repeat: true },
    { ...PATH_B64, text: "like --only, for a name that is not UTF-8; may be repeated", repeat: true },
  ],
  examples: [
    { line: "cairn rewind", text: "back to before the newest turn, also what shell commands changed" },
    { line: "cairn rewind 3 --only src", text: "one folder as it was before the last three turns" },
    { line: "cairn undo", text: "bring back what the rewind changed" },
  ],
  async run(context, input) {
    const client = await context.open();
    const options: RewindOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const paths = context.workspacePaths(client, input.list("only"), input.list("pathB64"));
    if (paths.length > 0 && !paths.includes("")) options.paths = paths;
    const go = async (): Promise<RestoreResult> => asking(context, client, input.argument(0), options);
    const result = await tellingOfHooks(context, client, go);
    return restoreOutcome(context, client, { result, method: options.method });
  },
};

/** Rewinds. On a terminal it first asks if changes of other sessions would be reverted too. */
async function asking(
  context: Context,
  client: Client,
  turn: string | undefined,
  options: RewindOptions,
): Promise<RestoreResult> {
  try {
    return await client.rewind(turn, options);
  } catch (error) {
    const { code, message, details } = toCairnError(error);
    const mayAsk = process.stdin.isTTY && process.stderr.isTTY && context.globals.json !== true;
    if (code !== "refused" || details?.["others"] === undefined || !mayAsk) throw error;
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await lines.question(`${message}\nRevert them too? [y/N] `, { signal: context.signal });
    lines.close();
    if (!/^y(?:es)?$/i.test(answer.trim())) throw error;
    return client.rewind(turn, { ...options, over: true });
  }
}
