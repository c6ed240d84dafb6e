import { BackupRetention, type Retention } from "../contract/looking.ts";
import type { Context } from "./context.ts";
import { type Input, usage } from "./input.ts";
import { VerbOptions } from "./options.ts";
import { formatBytes } from "./render/format.ts";

/** The rules that keep snapshots, in restic's words. */
const RULES = new VerbOptions(BackupRetention.entries);

export const KEEP_OPTIONS = RULES.definitions;

/** The rules on the line; empty if there are none. */
export function readKeepRules(context: Context, input: Input): BackupRetention {
  const rules = RULES.read(context, input);
  // Versions of restic disagree on the meaning of -1.
  for (const count of Object.values(rules))
    if (typeof count === "number" && count < 0)
      throw usage(`a count must not be negative: ${count}`, "give `unlimited` to keep all");
  return rules;
}

/** Rules as options of the command line without the dashes before them: `keep-last 5, keep-undo 20, keep-undo within 30d`. */
export function describeRules(retention: Retention): string {
  const { keepUndo, keepTags, maxBytes, ...plain } = retention;
  const words = Object.entries(plain).map(
    ([key, value]) => `${key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)} ${value}`,
  );
  for (const tag of keepTags ?? []) words.push(`keep-tag ${tag || "''"}`);
  if (keepUndo?.count !== undefined) words.push(`keep-undo ${keepUndo.count}`);
  if (keepUndo?.within !== undefined) words.push(`keep-undo-within ${keepUndo.within}`);
  if (maxBytes !== undefined) words.push(`max-size ${formatBytes(maxBytes)}`);
  return words.join(", ");
}
