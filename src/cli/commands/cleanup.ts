import { append } from "../../append.ts";
import { KEPT_TREES, storedRetention } from "../../formats/records/policy.ts";
import type { CleanupPlan, CleanupResult, Client, PolicyResult } from "../../contract/index.ts";
import { PolicyEdit, RemovePathsOptions, Retention, RunCleanupOptions } from "../../contract/looking.ts";
import { pick } from "../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { usage } from "../input.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import type { Input } from "../input.ts";
import { describeRules, KEEP_OPTIONS, readKeepRules } from "../keep-rules.ts";
import { givenWords, VerbOptions } from "../options.ts";
import { formatBytes } from "../render/format.ts";
import { LateSaves } from "../late-saves.ts";
import { PLAN } from "../restore-outcome.ts";
import { shortener } from "../shorten.ts";

/** `--only` is a flag here: the points are arguments. */
const ONLY = new VerbOptions(pick(RunCleanupOptions, "only", "force"));
const APPLY = new VerbOptions(pick(RunCleanupOptions, "plan"));
const PATHS = new VerbOptions(pick(RemovePathsOptions, "paths", "text"));
const UNDO = new VerbOptions(Retention.entries.keepUndo.wrapped.entries);
const LIMITS = new VerbOptions(pick(Retention, "maxBytes", "maxAge"));
const POLICY = new VerbOptions(pick(PolicyEdit, "quotaBytes", "keptTrees"));

/** Options that choose points, paths and texts. */
const WANTED = [...ONLY.definitions, ...PATHS.definitions, ...KEEP_OPTIONS, ...UNDO.definitions, ...LIMITS.definitions];

export const command: CommandDefinition = {
  name: "cleanup",
  arguments: [{ name: "[point...]", text: "with --only: the points to remove", completes: "points" }],
  options: [
    PLAN,
    ...APPLY.definitions,
    ...WANTED,
    { flags: "--anywhere", text: "with --only: find the points in all workspaces" },
    {
      flags: "--set-policy",
      text: "store these rules as the policy. A cleanup without rules plans by them; the daemon's cleanup and a save that reaches the quota remove by them",
    },
    { flags: "--clear-policy", text: "remove the policy's rules: every point is kept" },
    ...POLICY.definitions.map((option) => ({ ...option, text: `with --set-policy: ${option.text}` })),
  ],
  examples: [
    { line: "cairn cleanup --keep-last 50 --keep-daily 30 --plan", text: "only print what would be removed" },
    { line: "cairn cleanup --keep-last 50 --keep-daily 30", text: "remove it" },
    { line: "cairn cleanup --only 1a2b3c4d 5f6e7d8c", text: "these points, regardless of rules" },
    {
      line: "cairn cleanup --only --anywhere --force 1a2b3c4d",
      text: "a point of any workspace, even if it is pinned",
    },
    {
      line: "cairn cleanup --path .env --path 'config/*.key' --plan",
      text: "print which points have these files, also undo points and points of forks",
    },
    { line: "cairn cleanup --path .env", text: "remove the file from all points; the points stay" },
    { line: "cairn cleanup --text sk-live-4f", text: "remove what agents were told and ran with this text in it" },
    {
      line: "cairn cleanup --keep-within 90d --set-policy",
      text: "store the rules as the policy; nothing is removed now",
    },
  ],
  async run(context, input) {
    const retention = readRetention(context, input);
    const points = input.rest(0);
    checkTogether(input, retention, points);
    const calls = { ...context.callOptions(), ...APPLY.read(context, input) };
    const taken = PATHS.read(context, input);
    if (taken.paths !== undefined || taken.text !== undefined)
      return removePaths(context, input, { ...calls, ...taken });
    const options: RunCleanupOptions = { ...calls, ...(retention === null ? {} : { retention }) };
    if (input.flag("only")) options.only = points;
    if (input.flag("force")) options.force = true;
    if (input.flag("anywhere")) return removeAnywhere(context, input, options);
    const client = await context.open();
    if (input.flag("setPolicy") || input.flag("clearPolicy")) return setPolicy(context, client, { input, retention });
    return cleanUp(context, client, { input, options });
  },
};

/** Removes points, or prints the plan: with `--plan`, and without any rule on the line. */
async function cleanUp(
  context: Context,
  client: Client,
  { input, options, folder }: { input: Input; options: RunCleanupOptions; folder?: string },
): Promise<Outcome> {
  const isNamed = options.retention !== undefined || options.only !== undefined;
  const isPlan = input.flag("plan");
  const run = async (more: RunCleanupOptions): Promise<Outcome> => cleanedUp(context, await client.runCleanup(more));
  if (!isPlan && (isNamed || options.plan !== undefined)) return run(options);
  const plan = await client.previewCleanup(options);
  const isEmpty = plan.reclaimable_save_points.length === 0;
  // Removals that were decided before are only finished.
  if (!isPlan && isEmpty && plan.removals_pending) return run({ ...options, plan: plan.id });
  const words = ["cleanup", ...givenWords(WANTED, input), ...(options.only ?? []), "--apply", plan.id];
  const next = context.commandLine(words, folder);
  return showPlan(context, client, { plan, next, ruleless: !isNamed && isEmpty });
}

function checkTogether(input: Input, retention: Retention | null, points: readonly string[]): void {
  const only = input.flag("only");
  const policy = input.flag("setPolicy") || input.flag("clearPolicy");
  const takes = input.list("path").length > 0 || input.list("text").length > 0;
  const isApplied = input.text("apply") !== undefined;
  if (takes && (only || retention !== null || policy))
    throw usage("--path and --text take no other option than --plan and --apply");
  if (only !== points.length > 0) throw usage("points can only be named with --only: cairn cleanup --only POINT…");
  if (!only && (input.flag("anywhere") || input.flag("force")))
    throw usage("--anywhere and --force work with --only only");
  if (isApplied && input.flag("plan")) throw usage("--plan and --apply exclude each other");
  if (only && retention !== null) throw usage("--only and retention rules exclude each other");
  if (policy && (only || isApplied || input.flag("plan")))
    throw usage("--set-policy and --clear-policy remove no points, so they exclude --plan, --apply and --only");
  if (input.flag("setPolicy") && input.flag("clearPolicy"))
    throw usage("--set-policy and --clear-policy exclude each other");
  const settings = ["quota", "keepTrees"].filter((name) => input.text(name) !== undefined);
  if (settings.length > 0 && !input.flag("setPolicy"))
    throw usage("--quota and --keep-trees work with --set-policy only");
  if (input.flag("setPolicy") && retention === null && settings.length === 0)
    throw usage("--set-policy needs rules, --quota or --keep-trees");
  if (input.flag("clearPolicy") && retention !== null) throw usage("--clear-policy takes no rules");
}

async function removePaths(context: Context, input: Input, options: RemovePathsOptions): Promise<Outcome> {
  const client = await context.open();
  const result = await client.removePaths({ ...options, dryRun: input.flag("plan") });
  if (options.text !== undefined && new LateSaves(client.workspacePath()).isPending())
    context.note(
      "saves for hooks of agents are still waiting and may bring the text again: run the command again later",
    );
  return {
    data: result,
    exitStatus: result.complete ? 0 : EXIT_PARTLY,
    async text() {
      const { renderRemovedPaths } = await import("../render/care.ts");
      const next = context.commandLine(["cleanup", ...givenWords(WANTED, input), "--apply", result.plan_id]);
      const shorten = await shortener(
        client,
        result.points.map(({ save_point_id: id }) => id),
      );
      return renderRemovedPaths({ result, shorten, next, style: context.style });
    },
  };
}

/** Removes points from the workspaces that have them. Each workspace has a plan of its own. */
async function removeAnywhere(context: Context, input: Input, options: RunCleanupOptions): Promise<Outcome> {
  const { workspacesOf } = await import("../points-of-all.ts");
  const library = await context.library();
  const places = [...(await workspacesOf(context, options.only ?? []))];
  const words = givenWords(WANTED, input);
  if (places.length > 1 && (input.flag("plan") || options.plan !== undefined))
    throw usage(
      `the points are in ${places.length} workspaces, and a plan is for one workspace`,
      places.map(([folder, only]) => context.commandLine(["cleanup", "--plan", ...words, ...only], folder)).join("; "),
    );
  const result: CleanupResult = { removed: [], bytes_freed: 0, complete: true, still_held: null };
  for (const [folder, only] of places) {
    await using client = await library.open(folder, context.openOptions());
    if (input.flag("plan")) {
      const shown = await cleanUp(context, client, { input, options: { ...options, only }, folder });
      const text = await shown.text!();
      return { ...shown, text: () => text };
    }
    const done = await client.runCleanup({ ...options, only });
    append(result.removed, done.removed);
    result.bytes_freed += done.bytes_freed;
    result.complete &&= done.complete;
    result.still_held = bothHeld(result.still_held, done);
  }
  return cleanedUp(context, result);
}

/** Joins two answers. A point that a later call removed holds nothing. */
function bothHeld(one: CleanupResult["still_held"], done: CleanupResult): CleanupResult["still_held"] {
  const other = done.still_held;
  if (one === null || other === null) return one ?? other;
  const left = one.points.filter(({ save_point_id: id }) => !done.removed.includes(id));
  return {
    points: [...left, ...other.points],
    point_count: one.point_count - one.points.length + left.length + other.point_count,
    not_looked_at: [...one.not_looked_at, ...other.not_looked_at],
    not_looked_at_count: one.not_looked_at_count + other.not_looked_at_count,
    repositories: [...one.repositories, ...other.repositories],
  };
}

/** Reads the rules on the line; null if there are none. */
function readRetention(context: Context, input: Input): Retention | null {
  const retention: Retention = { ...readKeepRules(context, input), ...LIMITS.read(context, input) };
  const keepUndo = UNDO.read(context, input);
  if (Object.keys(keepUndo).length > 0) retention.keepUndo = keepUndo;
  return Object.keys(retention).length === 0 ? null : retention;
}

function cleanedUp(context: Context, result: CleanupResult): Outcome {
  return {
    data: result,
    exitStatus: result.complete ? 0 : EXIT_PARTLY,
    async text() {
      const { renderCleanupResult } = await import("../render/care.ts");
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
      const { renderCleanupPlan } = await import("../render/care.ts");
      const shorten = await shortener(
        client,
        plan.reasons.map((reason) => reason.save_point_id),
      );
      const isRuleless = ruleless && (await client.policy(context.callOptions())).retention === null;
      return renderCleanupPlan({ plan, ruleless: isRuleless, shorten, next, style: context.style });
    },
  };
}

async function setPolicy(
  context: Context,
  client: Client,
  asked: { input: Input; retention: Retention | null },
): Promise<Outcome> {
  const edit: PolicyEdit = POLICY.read(context, asked.input);
  if (asked.input.flag("clearPolicy")) edit.retention = null;
  else if (asked.retention !== null) edit.retention = asked.retention;
  const policy = await client.setPolicy(edit, context.callOptions());
  return { data: { policy: policyData(policy) }, text: () => describePolicy(policy) };
}

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
