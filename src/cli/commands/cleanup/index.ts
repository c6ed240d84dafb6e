import type { CommandDefinition } from "../../command.ts";
import { cleanUp, PLAN_OPTIONS } from "./plan.ts";
import { readRules, RULE_OPTIONS } from "./rules.ts";

export const command: CommandDefinition = {
  name: "cleanup",
  options: [...PLAN_OPTIONS, ...RULE_OPTIONS],
  examples: [
    { line: "cairn cleanup --keep-last 50 --keep-daily 30 --plan", text: "only print what would be removed" },
    { line: "cairn cleanup --keep-last 50 --keep-daily 30", text: "remove it" },
    { line: "cairn cleanup", text: "print what the policy would remove, and the command that removes it" },
  ],
  verbs: {
    drop: { summary: "remove exactly the named save points", load: () => import("./drop.ts") },
    purge: {
      summary: "remove paths from all save points, and texts from what agents were told",
      load: () => import("./purge.ts"),
    },
    policy: {
      summary: "show or change the rules for cleanups without rules, and the quota",
      load: () => import("./policy.ts"),
    },
  },
  async run(context, input) {
    const retention = readRules(context, input);
    return cleanUp(context, input, {
      words: ["cleanup"],
      definitions: RULE_OPTIONS,
      chosen: retention === null ? null : { retention },
    });
  },
};
