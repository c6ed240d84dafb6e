import type { RestoreResult } from "../../../contract/index.ts";
import { omit } from "../../../contract/schema.ts";
import { toCairnError } from "../../../errors.ts";
import { AdoptForkOptions } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import type { Context } from "../../context.ts";
import { forkWord } from "../../operands.ts";
import { VerbOptions } from "../../options.ts";
import { changeOptions, planOutcome, restoreOutcome } from "../../restore-outcome.ts";
import { tellingOfHooks } from "../agent/lost-hooks.ts";
import { createInterface } from "node:readline/promises";

const OPTIONS = new VerbOptions(omit(AdoptForkOptions, "cause"));

export const command: CommandDefinition = {
  name: "adopt",
  arguments: [{ name: "<fork>", text: "the fork's workspace name or its folder", completes: "folders" }],
  options: changeOptions(OPTIONS.definitions),
  examples: [
    { line: "cairn adopt ../try-it", text: "bring the fork's changes home; `cairn undo` reverts that" },
    { line: "cairn adopt ../try-it --merge", text: "although this folder changed too: keep both sides' work" },
    { line: "cairn adopt ../try-it --plan", text: "print what would change; the fork's present is saved in the fork" },
    { line: "cairn fork --remove ../try-it", text: "remove the fork afterwards" },
  ],
  async run(context, input) {
    const options: AdoptForkOptions = { ...context.callOptions(), ...OPTIONS.read(context, input) };
    const client = await context.open();
    const fork = forkWord(context, input.required(0));
    if (input.flag("plan")) return planOutcome(context, client, await client.planAdoptFork(fork, options));
    const go = async (): Promise<RestoreResult> => asking(context, options, async (how) => client.adoptFork(fork, how));
    const result = await tellingOfHooks(context, client, go);
    const conflict = result.left_out.find(({ detail }) => detail.startsWith("both sides changed it"));
    if (conflict !== undefined) {
      const theirs = `${result.restored_to}:${conflict.path}`;
      const [show, diff] = [
        ["show", theirs],
        ["diff", theirs, `head:${conflict.path}`],
      ].map((words) => context.commandLine(words));
      context.note(`${conflict.path} as the fork has it: ${show}; compared with this folder: ${diff}`);
    }
    return restoreOutcome(context, client, { result, method: options.method });
  },
};

/** Adopts. On a terminal it asks what becomes of the folder's own changes, if there are any. */
async function asking(
  context: Context,
  options: AdoptForkOptions,
  adopt: (how: AdoptForkOptions) => Promise<RestoreResult>,
): Promise<RestoreResult> {
  try {
    return await adopt(options);
  } catch (error) {
    const { code, message, details } = toCairnError(error);
    const mayAsk = process.stdin.isTTY && process.stderr.isTTY && context.globals.json !== true;
    if (code !== "refused" || details?.["base"] === undefined || !mayAsk) throw error;
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    const asked = `${message}\nKeep both sides' changes (m), take the fork as it is (o), or stop (N)? `;
    const answer = await lines.question(asked, { signal: context.signal });
    lines.close();
    const how = { m: { merge: true }, o: { over: true } }[answer.trim().toLowerCase().slice(0, 1)];
    if (how === undefined) throw error;
    return adopt({ ...options, ...how });
  }
}
