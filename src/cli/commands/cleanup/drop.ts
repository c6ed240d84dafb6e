import { RunCleanupOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import type { CommandDefinition } from "../../command.ts";
import { VerbOptions } from "../../options.ts";
import { cleanUp, PLAN_OPTIONS } from "./plan.ts";

const FORCE = new VerbOptions(pick(RunCleanupOptions, "force"));

export const command: CommandDefinition = {
  name: "cleanup drop",
  arguments: [
    { name: "<point...>", text: "the points to remove, for example points with a secret", completes: "points" },
  ],
  options: [...PLAN_OPTIONS, ...FORCE.definitions],
  examples: [
    { line: "cairn cleanup drop 1a2b3c4d 5f6e7d8c", text: "remove these points, regardless of rules" },
    { line: "cairn cleanup drop --force 1a2b3c4d", text: "even if it is pinned" },
    { line: "cairn cleanup drop 1a2b3c4d --plan", text: "only print what would be removed" },
  ],
  async run(context, input) {
    const points = input.rest(0);
    return cleanUp(context, input, {
      words: ["cleanup", "drop"],
      points,
      definitions: FORCE.definitions,
      chosen: { only: points, ...FORCE.read(context, input) },
    });
  },
};
