import { PolicyEdit, PolicyResult, Retention } from "../../contract/looking.ts";
import { number, object, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions, inSnakeCase } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const policy = workspaceVerb({
  about: "Returns the policy: rules for cleanups that give none and for saves that reach the quota.",
  options: CallOptions,
  output: PolicyResult,
  looks: true,
  agents: [],
  needs: "control",
  run: async (control) => (await import("../../keep/cleanup.ts")).policy(control),
});

export const setPolicy = workspaceVerb({
  about: "Changes the policy of the control directory.",
  takes: [arg("policy", PolicyEdit)],
  options: CallOptions,
  output: PolicyResult,
  command: {
    "cleanup policy": object({
      policy: object({
        retention: orNull(object(inSnakeCase(Retention.entries))),
        quota_bytes: orNull(number("null: the default")),
        kept_trees: orNull(number("null: the default")),
      }),
    }),
  },
  needs: "control",
  event: () => ({ type: "policy", data: {} }),
  run: async (...given) => (await import("../../keep/cleanup.ts")).setPolicy(...given),
});
