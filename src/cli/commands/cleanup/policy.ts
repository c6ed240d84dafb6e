import type { PolicyResult } from "../../../contract/index.ts";
import { PolicyEdit } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import { KEPT_TREES, storedRetention } from "../../../formats/records/policy.ts";
import type { CommandDefinition } from "../../command.ts";
import { excluding } from "../../definitions.ts";
import { describeRules } from "../../keep-rules.ts";
import { VerbOptions } from "../../options.ts";
import { formatBytes } from "../../render/format.ts";
import { readRules, RULE_OPTIONS } from "./rules.ts";

const SETTINGS = new VerbOptions(pick(PolicyEdit, "quotaBytes", "keptTrees"));

export const command: CommandDefinition = {
  name: "cleanup policy",
  answers: true,
  options: [
    ...excluding(["--none"], RULE_OPTIONS),
    ...SETTINGS.definitions,
    { flags: "--none", text: "remove the rules: every point is kept" },
  ],
  examples: [
    { line: "cairn cleanup policy", text: "show the rules and the quota" },
    {
      line: "cairn cleanup policy --keep-last 10 --keep-daily 14",
      text: "a cleanup without rules plans by these; the daemon's cleanup and a save that reaches the quota remove by them",
    },
    { line: "cairn cleanup policy --quota 20GiB", text: "set the quota; the rules stay" },
  ],
  async run(context, input) {
    const retention = readRules(context, input);
    const edit: PolicyEdit = SETTINGS.read(context, input);
    if (input.flag("none") || retention !== null) edit.retention = retention;
    const client = await context.open();
    const call = context.callOptions();
    const isChange = Object.keys(edit).length > 0;
    const policy = await (isChange ? client.setPolicy(edit, call) : client.policy(call));
    return { data: { policy: policyData(policy) }, text: () => describePolicy(policy) };
  },
};

/** JSON names are snake_case everywhere. */
function policyData(policy: PolicyResult): unknown {
  return {
    retention: policy.retention === null ? null : storedRetention(policy.retention),
    quota_bytes: policy.quota_bytes,
    kept_trees: policy.kept_trees,
  };
}

function describePolicy(policy: PolicyResult): string {
  const rules = policy.retention === null ? "none: everything is kept" : describeRules(policy.retention);
  const quota = policy.quota_bytes === null ? "none" : formatBytes(policy.quota_bytes);
  return `policy: ${rules}; quota: ${quota}; kept clones: ${policy.kept_trees ?? KEPT_TREES}`;
}
