import { createHash } from "node:crypto";
import { CairnError } from "../errors.ts";

/**
 * A plan's id tells two plans apart: it is a digest over the verb, its options, and every entry, point, snapshot or pack
 * that the verb would change or keep. Nothing is stored: the verb that gets an id plans again and compares.
 */

/** Returns the id, 32 hex digits, of a plan: `facts` in the order of the plan, each a value that JSON can hold. */
export function planIdOf(facts: Iterable<unknown>): string {
  const hash = createHash("sha256");
  for (const fact of facts) hash.update(`${JSON.stringify(fact)}\n`);
  return hash.digest("hex").slice(0, 32);
}

/** Throws `stale_plan` if a caller was shown another plan. `now`: the present plan as a sentence. Nothing was done yet. */
export function requirePlan(shown: string | undefined, id: string, now: () => string): void {
  if (shown !== undefined && shown !== id) throw stalePlan(shown, id, now());
}

const PLAN_ID = /^[0-9a-f]{32}$/;

/** Returns the error for a plan that a caller was shown and that is another one now; `usage` for text that is no id. */
export function stalePlan(shown: string, id: string, now: string): CairnError {
  if (!PLAN_ID.test(shown))
    return new CairnError("usage", `${JSON.stringify(shown.slice(0, 40))} is no plan's id; nothing was changed`, {
      hint: "give the whole id of the plan: 32 digits and letters from a to f",
    });
  return new CairnError("stale_plan", `the plan ${shown.slice(0, 8)} is stale: ${now}; nothing was changed`, {
    hint: `look at the plan again, then give its id, ${id}`,
    details: { plan: id },
  });
}
