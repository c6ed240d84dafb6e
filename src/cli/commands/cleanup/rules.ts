import { Retention } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import type { Context } from "../../context.ts";
import type { OptionDefinition } from "../../definitions.ts";
import { checkSpan, type Input, usage } from "../../input.ts";
import { KEEP_OPTIONS, readKeepRules } from "../../keep-rules.ts";
import { VerbOptions } from "../../options.ts";

const UNDO: OptionDefinition = {
  flags: "--keep-undo <count|span>",
  text: "keep this many of the newest undo points (saved before each restore or undo; default 20), or those younger than a span (default 30d); may be repeated",
  repeat: true,
};
const LIMITS = new VerbOptions(pick(Retention, "maxBytes", "maxAge"));

/** Options with the rules for save points. */
export const RULE_OPTIONS = [...KEEP_OPTIONS, UNDO, ...LIMITS.definitions];

/** Reads the rules on the line; null if there are none. */
export function readRules(context: Context, input: Input): Retention | null {
  const retention: Retention = { ...readKeepRules(context, input), ...LIMITS.read(context, input) };
  for (const text of input.list("keepUndo")) {
    const given: Retention["keepUndo"] = /^-?\d+$/.test(text)
      ? { count: Number(text) }
      : { within: checkSpan(text, "--keep-undo") };
    const [[key, value]] = Object.entries(given) as [[keyof typeof given, unknown]];
    const before = retention.keepUndo?.[key];
    if (before !== undefined) throw usage(`--keep-undo was given twice: ${before} and ${String(value)}`);
    retention.keepUndo = { ...retention.keepUndo, ...given };
  }
  return Object.keys(retention).length === 0 ? null : retention;
}
