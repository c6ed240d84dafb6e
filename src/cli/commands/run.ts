import { CairnError, ERROR_TABLE } from "../../errors.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import { RunOptions } from "../../contract/points.ts";
import { pick } from "../../contract/schema.ts";
import { VerbOptions, withTags } from "../options.ts";
import { shortener } from "../shorten.ts";

const OPTIONS = new VerbOptions(pick(RunOptions, "message", "tags"));

export const command: CommandDefinition = {
  name: "run",
  answers: true,
  arguments: [{ name: "<command...>", text: "the command and its arguments" }],
  takesCommand: true,
  options: OPTIONS.definitions,
  examples: [
    { line: "cairn run npm install", text: "save before and after the command; the exit status is npm's" },
    { line: "cairn run -m 'agent turn 12' ./agent --step", text: "with a message" },
  ],
  async run(context, input) {
    const client = await context.openOrInit();
    const options: RunOptions = {
      ...context.callOptions(),
      ...withTags(OPTIONS.read(context, input)),
      cwd: context.folder(),
      // With --json stdout has only the JSON object.
      stdout: context.globals.json ? "stderr" : "inherit",
      onCommand(event, pid) {
        context.progress.finish();
        context.setCommandRunning(event === "started" ? pid : null);
      },
    };
    const result = await client.run(input.rest(0), options);
    const outcome: Outcome = { data: result, exitStatus: result.exit_code };
    const failed = result.after_error;
    if (failed !== null) {
      outcome.error = new CairnError(
        failed.code,
        failed.message,
        failed.hint === undefined ? {} : { hint: failed.hint },
      );
      if (result.exit_code === 0) outcome.exitStatus = ERROR_TABLE[failed.code].exit;
    }
    if (!context.globals.quiet && !context.globals.json) {
      const { renderRun } = await import("../render/care.ts");
      const shorten = await shortener(client, [result.before.save_point_id, result.after?.save_point_id ?? null]);
      // Printed on stderr, because stdout belongs to the command.
      context.diagnose(renderRun(result, shorten, context.errorStyle));
      if (result.after?.unchanged === false) {
        const back = context.commandLine(["restore", shorten(result.before.save_point_id)]);
        context.diagnose(`to go back: ${context.errorStyle.cyan(back)}`);
      }
    }
    return outcome;
  },
};
