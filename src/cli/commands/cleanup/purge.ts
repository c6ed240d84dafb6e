import { pick } from "../../../contract/schema.ts";
import { RemovePathsOptions } from "../../../verbs/schemas.ts";
import type { CommandDefinition } from "../../command.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { usage } from "../../input.ts";
import { LateSaves } from "../../late-saves.ts";
import { givenWords, VerbOptions } from "../../options.ts";
import { shortener } from "../../shorten.ts";
import { APPLY, PLAN_OPTIONS } from "./plan.ts";

const PATHS = new VerbOptions(pick(RemovePathsOptions, "paths", "text"));

export const command: CommandDefinition = {
  name: "cleanup purge",
  options: [...PLAN_OPTIONS, ...PATHS.definitions],
  examples: [
    {
      line: "cairn cleanup purge --path .env --path 'config/*.key' --plan",
      text: "print which points have these files, also undo points and points of forks",
    },
    { line: "cairn cleanup purge --path .env", text: "remove the file from all points; the points stay" },
    {
      line: "cairn cleanup purge --text sk-live-4f",
      text: "remove what agents were told and ran with this text in it",
    },
  ],
  async run(context, input) {
    const taken = PATHS.read(context, input);
    if (taken.paths === undefined && taken.text === undefined)
      throw usage("cleanup purge needs --path PATTERN or --text TEXT");
    const options = { ...context.callOptions(), ...APPLY.read(context, input), ...taken };
    const client = await context.open();
    const result = await client.removePaths({ ...options, dryRun: input.flag("plan") });
    if (taken.text !== undefined && new LateSaves(client.workspacePath()).isPending())
      context.note(
        "saves for hooks of agents are still waiting and may bring the text again: run the command again later",
      );
    return {
      data: result,
      exitStatus: result.complete ? 0 : EXIT_PARTLY,
      async text() {
        const { renderRemovedPaths } = await import("../../render/care.ts");
        const words = ["cleanup", "purge", ...givenWords(PATHS.definitions, input), "--apply", result.plan_id];
        const shorten = await shortener(
          client,
          result.points.map(({ save_point_id: id }) => id),
        );
        return renderRemovedPaths({ result, shorten, next: context.commandLine(words), style: context.style });
      },
    };
  },
};
