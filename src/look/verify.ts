import { advice, adviceOf, CairnError, call, see, toCairnError } from "../errors.ts";
import { shellQuote } from "../fs/paths/safe-path.ts";
import { workspaceIn } from "../workspace/place/find-workspace.ts";
import { allPoints } from "../workspace/points/points.ts";
import { ensureSealed, sealAll, type SealProblem, unsealed, wantedAt } from "../workspace/save/seal.ts";
import { verifyAll as verifyEverything, verifyPoint, type VerifyInput } from "../workspace/care/verify.ts";
import { Workspace, type WorkspaceCall, type WorkspaceParts } from "../workspace/open/workspace.ts";
import type { VerifyOptions, VerifyResult } from "../contract/looking.ts";
import type { WorkspaceCallOptions } from "../contract/words.ts";
import { checkRowsOf } from "./check-rows.ts";
import { recoverWorkspace } from "../workspace/open/recovery.ts";
import { inItsWorkspace, placedPoint } from "./sources/operands.ts";

/** Verifies one point of this workspace, or of another one there. `unsealed`: points of this one that could not be sealed. */
export async function verify(
  workspace: Workspace,
  target: string,
  { unsealed, ...options }: VerifyOptions & WorkspaceCallOptions & { unsealed: readonly SealProblem[] },
): Promise<VerifyResult> {
  const placed = placedPoint(workspace, target);
  if (placed.path !== "")
    throw new CairnError("usage", `${target} has a path, and a whole save point is needed`, {
      hint: `leave out the path: ${shellQuote(target.slice(0, target.lastIndexOf(`:${placed.path}`)))}`,
    });
  return inItsWorkspace(workspace, placed, options, async (owner, problems = unsealed) =>
    verifyIn(owner, placed.id, { ...options, unsealed: problems }),
  );
}

async function verifyIn(
  workspace: Workspace,
  target: string,
  { unsealed, ...options }: VerifyOptions & { unsealed: readonly SealProblem[] },
): Promise<VerifyResult> {
  const { name } = workspace.found.workspace;
  const found = await verifyPoint(workspace, target, { ...options, unsealed: new Map([[name, unsealed]]) });
  const rows = found.problems.length > 0 ? [] : await checkRowsOf(workspace, workspace.resolveOwn(target), options);
  return orThrown({ ...found, rows }, options);
}

/** The hint of the thrown error. A problem's own hint names a command, which programs cannot run. */
const SEE_DOCTOR = advice`run ${call("doctor")} to see which damage can be repaired`;

/** Returns a verification's result. Throws `damaged` if `throwOnDamage` is set and damage was found. */
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

/** Verifies every point of the control directory, and the store itself. Seals points first if possible. */
export async function verifyAll(workspace: Workspace, parts: WorkspaceParts, call: VerifyInput): Promise<VerifyResult> {
  const { control } = workspace.found;
  const unsealed = new Map<string, readonly SealProblem[]>();
  const newest = new Map<string, number>();
  const workspaces = allPoints(control);
  for (const { name, points } of workspaces) newest.set(name, points.committed().at(-1) ?? 0);
  for (const { name, workspace: each } of workspaces) {
    // A workspace that cannot be opened is reported as a problem.
    if (each === null) continue;
    await using other = new Workspace(workspaceIn(control, each), parts, workspace.removals);
    unsealed.set(name, await sealIn(other, call));
  }
  return { ...(await verifyEverything(workspace, { ...call, unsealed, newest })), rows: [] };
}

/**
 * Seals the unsealed points of one workspace, under its own lock alone; the folder is not read. Returns a failure as a
 * problem, so that the other workspaces are verified.
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

/** The number of newest points that are sealed without a request. */
const IDLE_POINTS = 64;

/** Milliseconds between two checks for a process that waits for the lock. */
const LOOK_MS = 20;

/**
 * Seals the newest unsealed points, newest first, each under the lock by itself. Stops with `interrupted` if another
 * process waits for the lock.
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
 * Seals every unsealed point, so that its digests are known and the store has its content. Throws `damaged` at the end
 * if trees of some points changed; the others are sealed by then.
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
