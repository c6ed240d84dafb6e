import { BackupRetention } from "../contract/looking.ts";
import type { Context } from "./context.ts";
import { type Input, usage } from "./input.ts";
import { VerbOptions } from "./options.ts";

/** The rules that keep something, in restic's words. */
const RULES = new VerbOptions(BackupRetention.entries, {
  keepTags: "--keep-tag <tag>",
});

export const KEEP_OPTIONS = RULES.definitions;

/** The rules on the line; empty where there are none. */
export function readKeepRules(context: Context, input: Input): BackupRetention {
  const rules = RULES.read(context, input);
  // restic's versions do not agree on what -1 means.
  for (const count of Object.values(rules))
    if (typeof count === "number" && count < 0)
      throw usage(`a count must not be negative: ${count}`, "`unlimited` keeps all");
  return rules;
}
