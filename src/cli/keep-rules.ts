import type { BackupRetention } from "../operations/contract.ts";
import { checkSpan, type Input, usage } from "./input.ts";

const COUNTS = ["keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly"] as const;

/** Names of rules with the options that give them. */
const SPANS = [
  ["keepWithin", "--keep-within"],
  ["keepWithinHourly", "--keep-within-hourly"],
  ["keepWithinDaily", "--keep-within-daily"],
  ["keepWithinWeekly", "--keep-within-weekly"],
  ["keepWithinMonthly", "--keep-within-monthly"],
  ["keepWithinYearly", "--keep-within-yearly"],
] as const;

/** The rules on the line that keep something, in restic's words; empty where there are none. */
export function readKeepRules(input: Input): BackupRetention {
  const rules: BackupRetention = {};
  for (const name of COUNTS) {
    const count = input.text(name) === "unlimited" ? "unlimited" : input.count(name);
    if (count === undefined) continue;
    // restic's versions do not agree on what -1 means.
    if (typeof count === "number" && count < 0)
      throw usage(`a count must not be negative: ${count}`, "`unlimited` keeps all");
    rules[name] = count;
  }
  for (const [name, option] of SPANS) {
    const span = checkSpan(input.text(name), option);
    if (span !== undefined) rules[name] = span;
  }
  const tags = input.list("keepTag");
  if (tags.length > 0) rules.keepTags = tags;
  return rules;
}
