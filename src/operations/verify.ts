import { advice, adviceOf, CairnError, call, see, toCairnError } from "../errors.ts";
import { workspaceIn } from "../workspace/place/find-workspace.ts";
import { allPoints } from "../workspace/points/points.ts";
import { ensureSealed, sealAll, type SealProblem, unsealed, wantedAt } from "../workspace/save/seal.ts";
import { verifyAll as verifyEverything, verifyPoint, type VerifyInput } from "../workspace/care/verify.ts";
import { Workspace, type WorkspaceCall, type WorkspaceParts } from "../workspace/open/workspace.ts";
import type { VerifyOptions, VerifyResult } from "../contract/looking.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { recoverWorkspace } from "../workspace/open/recovery.ts";

/** Proves one point. `unsealed`: points of the workspace that could not be sealed. */
export async function verify(
  workspace: Workspace,
  target: string,
  { unsealed, ...options }: VerifyOptions & { unsealed: readonly SealProblem[] },
): Promise<VerifyResult> {
  const { name } = workspace.found.workspace;
  return orThrown(await verifyPoint(workspace, target, { ...options, unsealed: new Map([[name, unsealed]]) }), options);
}

/** For programs alone: the hint of each problem names a command. */
const SEE_DOCTOR = advice`run ${call("doctor")} to see which damage can be repaired`;

/** Returns what a verification found. Throws `damaged` where that is asked for and something is. */
export function orThrown<T extends { problems: readonly { detail: string; hint?: string; severity?: string }[] }>(
  result: T,
  { throwOnDamage }: { throwOnDamage?: boolean | undefined },
): T {
  const damage = result.problems.filter(({ severity }) => severity !== "note");
  const [first] = damage;
  if (throwOnDamage !== true || first === undefined) return result;
  const count = damage.length === 1 ? "1 problem" : `${damage.length} problems`;
  throw new CairnError(
    "damaged",
    `${count} found; ${damage.length === 1 ? "it is" : "the first is"}: ${first.detail}`,
    { hint: first.hint && SEE_DOCTOR, details: { problems: damage } },
  );
}

/** Every point of every workspace of the control directory, sealed for it where that can be done, and the store itself. */
export async function verifyAll(workspace: Workspace, parts: WorkspaceParts, call: VerifyInput): Promise<VerifyResult> {
  const { control } = workspace.found;
  const unsealed = new Map<string, readonly SealProblem[]>();
  const newest = new Map<string, number>();
  const workspaces = allPoints(control);
  for (const { name, points } of workspaces) newest.set(name, points.committed().at(-1) ?? 0);
  for (const { name, workspace: each } of workspaces) {
    // What cannot be opened is a problem of its own.
    if (each === null) continue;
    await using other = new Workspace(workspaceIn(control, each), parts, workspace.removals);
    unsealed.set(name, await sealIn(other, call));
  }
  return verifyEverything(workspace, { ...call, unsealed, newest });
}

/**
 * Seals what one workspace only holds, under its own lock and no other; its folder is not looked at. That something is
 * in the way keeps nobody from verifying the rest.
 */
async function sealIn(workspace: Workspace, call: WorkspaceCall): Promise<readonly SealProblem[]> {
  try {
    const { problems } = await ensureSealed(workspace, call);
    return problems;
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted" || problem.code === "internal") throw problem;
    return [{ id: null, problem }];
  }
}

/** So many of the newest points are sealed without being asked for. */
const IDLE_POINTS = 64;

/** So often it is looked whether somebody waits for the lock. */
const LOOK_MS = 20;

/**
 * Seals the newest points that are not, the newest first, each under the lock by itself, and stops with `interrupted` when somebody
 * waits for that.
 */
export async function sealNewest(workspace: Workspace, call: WorkspaceCall): Promise<void> {
  const newest = new Set(workspace.points.sequences().slice(-IDLE_POINTS));
  const stop = new AbortController();
  const before = wantedAt(workspace);
  const timer = setInterval(() => {
    if (wantedAt(workspace) !== before) stop.abort();
  }, LOOK_MS);
  const signal = call.signal === undefined ? stop.signal : AbortSignal.any([call.signal, stop.signal]);
  try {
    for (const sequence of unsealed(workspace).toReversed())
      if (newest.has(sequence)) await ensureSealed(workspace, { ...call, signal }, [sequence]);
  } finally {
    clearInterval(timer);
  }
}

/**
 * Reads every point that is only held, so that its digests are known and the store has its content. Throws `damaged`
 * at the end when there are some whose trees are not what was held; the others are sealed by then.
 */
export async function seal(workspace: Workspace, options: WorkspaceCallOptions): Promise<{ sealed: number }> {
  workspace.engine.prepare();
  using _lock = await workspace.lock("seal", options);
  await recoverWorkspace(workspace, options);
  const { sealed, problems } = await sealAll(workspace, options);
  const [first] = problems;
  if (first === undefined) return { sealed };
  const more = problems.length === 1 ? "" : ` (and ${problems.length - 1} more problems)`;
  throw new CairnError("damaged", `${sealed} sealed; ${first.problem.message}${more}`, {
    hint: adviceOf(first.problem) ?? see("doctor"),
    details: { sealed, unsealed: problems.map(({ id }) => id) },
  });
}
