import { append } from "../../append.ts";
import { CairnError } from "../../errors.ts";
import { KEPT_TREES, storedRetention } from "../../formats/records/policy.ts";
import type { CleanupPlan, CleanupResult, Client, PolicyResult } from "../../contract/index.ts";
import { CleanupOptions, PolicyEdit, RemovePathsOptions, Retention } from "../../contract/looking.ts";
import { pick } from "../../contract/schema.ts";
import type { CommandDefinition, Outcome } from "../command.ts";
import type { Context } from "../context.ts";
import { usage } from "../input.ts";
import { EXIT_PARTLY } from "../envelope.ts";
import type { Input } from "../input.ts";
import { describeRules, KEEP_OPTIONS, readKeepRules } from "../keep-rules.ts";
import { VerbOptions } from "../options.ts";
import { formatBytes } from "../render/format.ts";
import { LateSaves } from "../late-saves.ts";
import { shortener } from "../shorten.ts";

/** `--only` is a flag here: the points are arguments. */
const ONLY = new VerbOptions(pick(CleanupOptions, "only"));
const PATHS = new VerbOptions(pick(RemovePathsOptions, "paths", "text"));
const UNDO = new VerbOptions(Retention.entries.keepUndo.wrapped.entries);
const LIMITS = new VerbOptions(pick(Retention, "maxBytes", "maxAge"));
const POLICY = new VerbOptions(pick(PolicyEdit, "quotaBytes", "keptTrees"));

export const command: CommandDefinition = {
  name: "cleanup",
  arguments: [{ name: "[point...]", text: "with --only: the points to remove", completes: "points" }],
  options: [
    { flags: "--plan", text: "print what would be removed and why, and remove nothing" },
    { flags: "--run <id>", text: "run a plan; refused if the points have changed since" },
    ...ONLY.definitions,
    { flags: "--anywhere", text: "with --only: find the points in all workspaces" },
    { flags: "--force", text: "with --only: remove pinned points too" },
    ...PATHS.definitions,
    ...KEEP_OPTIONS,
    ...UNDO.definitions,
    ...LIMITS.definitions,
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
    const taken = PATHS.read(context, input);
    if (taken.paths !== undefined || taken.text !== undefined) return removePaths(context, taken, input.flag("plan"));
    if (input.flag("anywhere")) return removeAnywhere(context, points, input);
    const client = await context.open();
    const runId = input.text("run");
    if (runId !== undefined) return runPlan(context, client, runId);
    if (input.flag("setPolicy") || input.flag("clearPolicy")) return setPolicy(context, client, { input, retention });
    const options: CleanupOptions = context.callOptions();
    if (retention !== null) options.retention = retention;
    if (input.flag("only")) options.only = points;
    if (input.flag("force") && !input.flag("plan"))
      return cleanedUp(context, await removeForced(context, client, points));
    const plan = await client.previewCleanup(options);
    // Without any rule on the line the command only shows the plan.
    const dryRun = input.flag("plan") || (retention === null && !input.flag("only"));
    // Removals that were decided before are only finished.
    const isPending = plan.removals_pending && plan.reclaimable_save_points.length === 0 && !input.flag("plan");
    const ruleless = retention === null && !input.flag("only") && plan.reclaimable_save_points.length === 0;
    if (dryRun && !isPending) return showPlan(context, client, { plan, ruleless });
    try {
      return await runPlan(context, client, plan.plan_id);
    } catch (error) {
      // Nobody has seen this plan, so a plan that another command made stale is made again.
      if (!(error instanceof CairnError) || error.code !== "stale_plan") throw error;
      return runPlan(context, client, (await client.previewCleanup(options)).plan_id);
    }
  },
};

function checkTogether(input: Input, retention: Retention | null, points: readonly string[]): void {
  const only = input.flag("only");
  const policy = input.flag("setPolicy") || input.flag("clearPolicy");
  const takes = input.list("path").length > 0 || input.list("text").length > 0;
  if (takes && (only || retention !== null || policy || input.text("run") !== undefined))
    throw usage("--path and --text take no other option than --plan");
  if (only !== points.length > 0) throw usage("points can only be named with --only: cairn cleanup --only POINT…");
  if (!only && (input.flag("anywhere") || input.flag("force")))
    throw usage("--anywhere and --force work with --only only");
  if (input.flag("anywhere") && input.flag("plan")) throw usage("--anywhere and --plan exclude each other");
  if (only && retention !== null) throw usage("--only and retention rules exclude each other");
  const others = only || retention !== null || input.flag("plan") || policy;
  if (input.text("run") !== undefined && others) throw usage("--run takes no other option: the plan is fixed");
  if (policy && (only || input.flag("plan")))
    throw usage("--set-policy and --clear-policy remove no points, so they exclude --plan and --only");
  if (input.flag("setPolicy") && input.flag("clearPolicy"))
    throw usage("--set-policy and --clear-policy exclude each other");
  const settings = ["quota", "keepTrees"].filter((name) => input.text(name) !== undefined);
  if (settings.length > 0 && !input.flag("setPolicy"))
    throw usage("--quota and --keep-trees work with --set-policy only");
  if (input.flag("setPolicy") && retention === null && settings.length === 0)
    throw usage("--set-policy needs rules, --quota or --keep-trees");
  if (input.flag("clearPolicy") && retention !== null) throw usage("--clear-policy takes no rules");
}

/** A pin is a person's decision: it is removed right before the removal, and restored if the removal fails. */
async function removeForced(context: Context, client: Client, points: readonly string[]): Promise<CleanupResult> {
  const calls = context.callOptions();
  const pinned: string[] = [];
  const only: string[] = [];
  for (const point of points) {
    const { save_point_id: id, pinned: isPinned } = await client.resolve(point, calls);
    only.push(id);
    if (isPinned) pinned.push(id);
  }
  try {
    for (const id of pinned) await client.unpin(id, calls);
    return await client.runCleanup((await client.previewCleanup({ ...calls, only })).plan_id, calls);
  } catch (error) {
    for (const id of pinned) await client.pin(id).catch(() => undefined);
    throw error;
  }
}

async function removePaths(
  context: Context,
  taken: Pick<RemovePathsOptions, "paths" | "text">,
  dryRun: boolean,
): Promise<Outcome> {
  const client = await context.open();
  const result = await client.removePaths({ ...context.callOptions(), ...taken, dryRun });
  if (taken.text !== undefined && new LateSaves(client.workspacePath()).isPending())
    context.note(
      "saves for hooks of agents are still waiting and may bring the text again: run the command again later",
    );
  return {
    data: result,
    exitStatus: result.complete ? 0 : EXIT_PARTLY,
    async text() {
      const { renderRemovedPaths } = await import("../render/care.ts");
      const { paths = [], text = [] } = taken;
      const next = [
        "cleanup",
        ...paths.flatMap((path) => ["--path", path]),
        ...text.flatMap((each) => ["--text", each]),
      ];
      const shorten = await shortener(
        client,
        result.points.map(({ save_point_id: id }) => id),
      );
      return renderRemovedPaths({ result, shorten, next: context.commandLine(next), style: context.style });
    },
  };
}

/** Removes points from the workspaces that have them, with one plan for each workspace. */
async function removeAnywhere(context: Context, points: readonly string[], input: Input): Promise<Outcome> {
  const { workspacesOf } = await import("../points-of-all.ts");
  const library = await context.library();
  const result: CleanupResult = { removed: [], bytes_freed: 0, complete: true, still_held: null };
  for (const [folder, only] of await workspacesOf(context, points)) {
    await using client = await library.open(folder, context.openOptions());
    const calls = context.callOptions();
    const done = input.flag("force")
      ? await removeForced(context, client, only)
      : await client.runCleanup((await client.previewCleanup({ ...calls, only })).plan_id, calls);
    const { removed, bytes_freed: freed, complete } = done;
    append(result.removed, removed);
    result.bytes_freed += freed;
    result.complete &&= complete;
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

async function runPlan(context: Context, client: Client, planId: string): Promise<Outcome> {
  return cleanedUp(context, await client.runCleanup(planId, context.callOptions()));
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

function showPlan(context: Context, client: Client, shown: { plan: CleanupPlan; ruleless: boolean }): Outcome {
  const { plan } = shown;
  return {
    data: { plan },
    paged: true,
    async text() {
      const { renderCleanupPlan } = await import("../render/care.ts");
      const shorten = await shortener(
        client,
        plan.reasons.map((reason) => reason.save_point_id),
      );
      const isRuleless = shown.ruleless && (await client.policy(context.callOptions())).retention === null;
      return renderCleanupPlan({
        plan,
        ruleless: isRuleless,
        shorten,
        next: context.commandLine(["cleanup", "--run", plan.plan_id]),
        style: context.style,
      });
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
