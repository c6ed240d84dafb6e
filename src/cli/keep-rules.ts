import { BackupRetention, type Retention } from "../contract/looking.ts";
import type { Context } from "./context.ts";
import { omit } from "../contract/schema.ts";
import { grouped, type OptionDefinition } from "./definitions.ts";
import { checkSpan, type Input, kebab, usage } from "./input.ts";
import { VerbOptions } from "./options.ts";
import { formatBytes } from "./render/format.ts";

/** The rules that keep snapshots, in restic's words. */
const RULES = new VerbOptions(
  omit(
    BackupRetention,
    ...(["keepWithin", "keepWithinHourly", "keepWithinDaily", "keepWithinWeekly"] as const),
    ...(["keepWithinMonthly", "keepWithinYearly"] as const),
  ),
);
const WITHIN: OptionDefinition = {
  flags: "--keep-within <span>",
  text: "keep everything younger than this, e.g. 30d, 2w, 1y6m; daily:1y: the last of each day within a year (hourly, daily, weekly, monthly or yearly); may be repeated",
  repeat: true,
};
const PERIODS = {
  "": "keepWithin",
  "hourly:": "keepWithinHourly",
  "daily:": "keepWithinDaily",
  "weekly:": "keepWithinWeekly",
  "monthly:": "keepWithinMonthly",
  "yearly:": "keepWithinYearly",
} as const;

export const KEEP_OPTIONS = grouped("retention", [...RULES.definitions, WITHIN]);

/** The rules on the line; empty if there are none. */
export function readKeepRules(context: Context, input: Input): BackupRetention {
  const rules: BackupRetention = RULES.read(context, input);
  for (const text of input.list("keepWithin")) {
    const period = Object.keys(PERIODS).findLast((each) => text.startsWith(each)) as keyof typeof PERIODS;
    const name = PERIODS[period];
    if (rules[name] !== undefined) throw usage(`--keep-within was given twice: ${period}${rules[name]} and ${text}`);
    rules[name] = checkSpan(text.slice(period.length), "--keep-within");
  }
  // Versions of restic disagree on the meaning of -1.
  for (const count of Object.values(rules))
    if (typeof count === "number" && count < 0)
      throw usage(`a count must not be negative: ${count}`, "give `unlimited` to keep all");
  return rules;
}

/** Rules as options of the command line without the dashes before them: `keep-last 5, keep-undo 20, keep-undo 30d`. */
export function describeRules(retention: Retention): string {
  const { keepUndo, keepTags, maxBytes, ...plain } = retention;
  const words = Object.entries(plain).map(([key, value]) => {
    const period = Object.entries(PERIODS).find(([, name]) => name === key);
    return period === undefined ? `${kebab(key)} ${value}` : `keep-within ${period[0]}${value}`;
  });
  for (const tag of keepTags ?? []) words.push(`keep-tag ${tag || "''"}`);
  if (keepUndo?.count !== undefined) words.push(`keep-undo ${keepUndo.count}`);
  if (keepUndo?.within !== undefined) words.push(`keep-undo ${keepUndo.within}`);
  if (maxBytes !== undefined) words.push(`max-size ${formatBytes(maxBytes)}`);
  return words.join(", ");
}
