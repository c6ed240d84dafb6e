import { normalizeTyped } from "../fs/paths/safe-path.ts";
import { latin1 } from "../formats/bytes.ts";
import { requirePlan } from "../crypto/plan-id.ts";
import { rawPath } from "../formats/records/record.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type {
  RestoreOptions,
  RestorePlan,
  PlanUndoOptions,
  UndoOptions,
  WorkspaceCallOptions,
} from "../contract/index.ts";
import { publicLeftOut } from "../workspace/points/left-out.ts";
import { presentSource } from "../archive/scan/present-source.ts";
import { lookBeforeRestore, recoverIfIdle } from "../workspace/save/look.ts";
import { neverRead, type Point, rulesOf } from "../workspace/points/point-files.ts";
import { rootDifference, rootOfFolder, rootOfPoint } from "../workspace/points/root-changes.ts";
import { holdersOf } from "../workspace/open/holders.ts";
import { withSidecars } from "../workspace/restore/open-databases.ts";
import { expectedLeftOut, planChanges } from "../workspace/restore/planned.ts";
import { idOfPlan, type Shown } from "../workspace/restore/prepare.ts";
import { publicEntries } from "../workspace/rules/plan.ts";
import { Absolute, Relative } from "../workspace/rules/wanted.ts";
import { advice, CairnError, call, see } from "../errors.ts";
import { operationLog, operationToFinish, type Revertible, statesOf } from "../workspace/points/operation-log.ts";
import { requireFolder } from "../workspace/open/missing-folder.ts";

/** Plans a restore and changes nothing. */
export async function planRestore(workspace: Workspace, options: RestoreOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  const change = changeOf(options);
  const target = workspace.resolve(options.target);
  const paths = withSidecars([workspace.root], target.descriptor, change.paths);
  return planTo(workspace, options, { target, change: change.withPaths(paths), kind: "restore" });
}

/** Returns the change that a caller's options of a restore ask for. */
export function changeOf({
  paths,
  keepPresent,
  keepGit,
}: Pick<RestoreOptions, "paths" | "keepPresent" | "keepGit">): Absolute {
  return new Absolute({ paths: paths?.map(normalizeTyped), keepPresent, keepGit });
}

/** Plans an undo and changes nothing. */
export async function planUndo(workspace: Workspace, options: PlanUndoOptions): Promise<RestorePlan> {
  return planRevert(workspace, "undo", options);
}

/** Plans a redo and changes nothing. */
export async function planRedo(workspace: Workspace, options: PlanUndoOptions): Promise<RestorePlan> {
  return planRevert(workspace, "redo", options);
}

/** Throws `stale_plan` if several undos or redos would do anything else than their plan, which the caller was shown. */
export async function requirePlanOfAll(
  workspace: Workspace,
  kind: "undo" | "redo",
  { plan, ...options }: PlanUndoOptions & { plan: string },
): Promise<void> {
  const { id } = await planRevert(workspace, kind, options);
  requirePlan(plan, id, () => "the operations, or the entries that they changed, are others now");
}

async function planRevert(workspace: Workspace, kind: "undo" | "redo", options: PlanUndoOptions): Promise<RestorePlan> {
  await recoverIfIdle(workspace, options);
  return planTo(workspace, options, { kind, ...sumToRevert(workspace, kind, options) });
}

/** Returns the change that several undos or redos make one after the other. Throws `unsupported` if no one change can. */
function sumToRevert(
  workspace: Workspace,
  kind: "undo" | "redo",
  { count = 1, expected, ...options }: PlanUndoOptions,
): { target: Point; change: Relative } {
  const all = Array.from({ length: Math.max(count, 1) }, (_each, i) =>
    operationToRevert(workspace, kind, i === 0 ? { ...options, expected } : options, i + 1),
  );
  const { change, target: only } = all[0]!;
  if (all.length === 1) return { target: only, change };
  const { merged, keptGit, over } = change.options;
  const isOdd = ({ options: of }: Relative): boolean => of.keptGit !== keptGit || (of.merged?.size ?? 0) > 0;
  if (all.slice(1).some((each) => isOdd(each.change)))
    throw new CairnError(
      "unsupported",
      `one of the ${count} operations merged texts, wrote a database through SQLite, or left git's state alone`,
      {
        hint: advice`revert the operations one by one: ${call(kind)}`,
      },
    );
  const changes = all.flatMap(({ change: { paths, options: of } }) =>
    of.changes.map((each) => ({ ...each, paths, keptPresent: of.keptPresent === true })),
  );
  const { target } = all.at(-1)!;
  return { target, change: new Relative({ isOperation: true, changes, merged, keptGit, over }) };
}

/** Plans a restore to a point; nothing is changed. */
export async function planTo(
  workspace: Workspace,
  options: WorkspaceCallOptions & Pick<RestoreOptions, "takeOwnership">,
  wanted: Shown & { target: Point },
): Promise<RestorePlan> {
  const { target, change } = wanted;
  const unread = [target, ...change.points()].find(({ sealed }) => !sealed);
  if (unread !== undefined) throw neverRead(unread);
  const scan = await lookBeforeRestore(workspace, options, rulesOf(target));
  const folder = { source: presentSource(scan), fields: scan.summarise().lossless, scan, root: workspace.root };
  const planned = await workspace.engine.reading(
    async () => planChanges(workspace, { ...wanted, signal: options.signal }, folder),
    options,
  );
  const { plan: entries } = planned;
  const root = change.isOfFolder ? rootDifference(rootOfPoint(target), rootOfFolder(workspace.root)) : null;
  const { takeOwnership } = options;
  const leftOut = expectedLeftOut(entries, { ...planned, scan, change, takeOwnership });
  return {
    id: idOfPlan(wanted, { ...planned, scan, root }),
    restored_to: target.descriptor.save_point_id,
    entries: publicEntries(entries, root !== null),
    left_out: leftOut.map(publicLeftOut),
    ...(planned.refs.length > 0 ? { refs: planned.refs } : {}),
    holders: holdersOf(workspace),
  };
}

/**
 * Returns the operation that an undo or redo reverts, with its points. `back`: how far it is from the newest, which is 1. Throws
 * `nothing_to_undo`, and `conflict` if the operation is not the expected one.
 */
export function operationToRevert(
  workspace: Workspace,
  kind: "undo" | "redo",
  { over = false, throughSqlite = false, expected }: Omit<UndoOptions, "method" | "cause">,
  back = 1,
): { operation: Revertible; isUnfinished: boolean; target: Point; change: Relative } {
  const { operations } = workspace.state();
  const { done, undone } = operationLog(operations);
  const unfinished = over && back === 1 ? operationToFinish(operations, kind) : undefined;
  const all = kind === "undo" ? done : undone;
  const operation = unfinished ?? all.at(-back);
  if (operation === undefined && all.length > 0)
    throw new CairnError("nothing_to_undo", `no more than ${all.length} can be reverted by ${kind}`, {
      hint: see("operations"),
    });
  if (operation === undefined)
    throw kind === "redo" ? nothingToRedo() : undone.length > 0 ? allUndone() : nothingToUndo(workspace);
  const { changed, keepPresent, keepGit, only } = operation;
  const [target, left, before, after] = [operation.before, operation.after, changed.before, changed.after].map((id) =>
    workspace.byId(id),
  );
  // An undone or redone operation has two undo points: its own, and the one of its last undo or redo.
  if (expected !== undefined && expected !== operation.before && expected !== changed.before)
    throw new CairnError(
      "conflict",
      `another operation came since: ${kind} would revert the ${operation.kind} of ${operation.at}`,
      {
        hint: see("operations"),
      },
    );
  const isLast = only !== undefined && !over;
  const named = isLast ? only : changed.entries;
  const stateOf = (id = operation.after): Point | null => workspace.byId(isLast ? id : operation.after);
  const entries = named && statesOf(named, stateOf);
  if (!target || !left || !before || !after || entries === null)
    throw new CairnError(
      "nothing_to_undo",
      `a cleanup removed a save point of the last ${operation.kind}, of ${operation.at}, so it cannot be reverted`,
      { hint: see("history") },
    );
  const paths = operation.paths?.map((path) => rawPath(path)) ?? null;
  const changes = [{ found: target, left, ...(entries ? { entries } : { changed: { before, after } }) }];
  const merged = new Map(operation.merged?.map((each) => [latin1(rawPath(each)), each.sha256]));
  const kept = { keptPresent: keepPresent, keptGit: keepGit };
  const change = new Relative({ paths, isOperation: true, changes, ...kept, merged, over, throughSqlite });
  return { operation, isUnfinished: unfinished !== undefined, target, change };
}

function allUndone(): CairnError {
  return new CairnError("nothing_to_undo", "every recorded operation is undone already", {
    hint: advice`${call("redo")} brings the last one back`,
  });
}

function nothingToRedo(): CairnError {
  return new CairnError("nothing_to_undo", "nothing was undone since the last change, so there is nothing to redo", {
    hint: see("operations"),
  });
}

/** Makes the error for an undo without a restore. A missing folder has its own error, with the way to restore it. */
function nothingToUndo(workspace: Workspace): CairnError {
  requireFolder(workspace);
  return new CairnError("nothing_to_undo", "nothing has been restored here, so there is nothing to undo", {
    hint: see("history"),
  });
}
