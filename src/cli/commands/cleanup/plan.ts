import type { CleanupPlan, CleanupResult, Client } from "../../../contract/index.ts";
import { RunCleanupOptions } from "../../../contract/looking.ts";
import { pick } from "../../../contract/schema.ts";
import type { Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { excluding, type OptionDefinition } from "../../definitions.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import type { Input } from "../../input.ts";
import { givenWords, VerbOptions } from "../../options.ts";
import { PLAN } from "../../restore-outcome.ts";
import { shortener } from "../../shorten.ts";

export const APPLY = new VerbOptions(pick(RunCleanupOptions, "plan"));
export const PLAN_OPTIONS = [...excluding(["--apply"], [PLAN]), ...APPLY.definitions];

interface Asked {
  /** The command's words, with which the line that applies the plan begins. */
  words: readonly string[];
  /** The points to remove, which the line repeats. */
  points?: readonly string[];
  /** The options that the line of the plan repeats. */
  definitions: readonly OptionDefinition[];
  /** The rules or points on the line; null without both. */
  chosen: Pick<RunCleanupOptions, "retention" | "only" | "force"> | null;
}

/** Removes points, or prints the plan: with `--plan`, and if the line chooses nothing. */
export async function cleanUp(context: Context, input: Input, asked: Asked): Promise<Outcome> {
  const { words, points = [], definitions, chosen } = asked;
  const options: RunCleanupOptions = { ...context.callOptions(), ...APPLY.read(context, input), ...chosen };
  const client = await context.open();
  const isPlan = input.flag("plan");
  const run = async (more: RunCleanupOptions): Promise<Outcome> => cleanedUp(context, await client.runCleanup(more));
  if (!isPlan && (chosen !== null || options.plan !== undefined)) return run(options);
  const plan = await client.previewCleanup(options);
  const isEmpty = plan.reclaimable_save_points.length === 0;
  // Removals that were decided before are only finished.
  if (!isPlan && isEmpty && plan.removals_pending) return run({ ...options, plan: plan.id });
  const next = context.commandLine([...words, ...givenWords(definitions, input), ...points, "--apply", plan.id]);
  return showPlan(context, client, { plan, next, ruleless: chosen === null && isEmpty });
}

function cleanedUp(context: Context, result: CleanupResult): Outcome {
  return {
    data: result,
    exitStatus: result.complete ? 0 : EXIT_PARTLY,
    async text() {
      const { renderCleanupResult } = await import("../../render/care.ts");
      return renderCleanupResult(result, context.style);
    },
  };
}

function showPlan(
  context: Context,
  client: Client,
  { plan, next, ruleless }: { plan: CleanupPlan; next: string; ruleless: boolean },
): Outcome {
  return {
    data: { plan },
    paged: true,
    async text() {
      const { renderCleanupPlan } = await import("../../render/care.ts");
      const shorten = await shortener(
        client,
        plan.reasons.map((reason) => reason.save_point_id),
      );
      const isRuleless = ruleless && (await client.policy(context.callOptions())).retention === null;
      return renderCleanupPlan({ plan, ruleless: isRuleless, shorten, next, style: context.style });
    },
  };
}
