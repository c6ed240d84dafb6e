import { advice, adviceOf, CairnError, call, either, reworded, throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { MadeFolder } from "../../fs/remove-all.ts";
import type { SavePointId } from "../../ids.ts";
import { heldTreeOf } from "../points/held-trees.ts";
import { changedDirectories, firstChanged, savedNodesOf } from "../rules/plan.ts";
import { type AppliedSteps, leftOutAfter, notThere, StepRunner } from "./apply.ts";
import { writeState } from "../place/control-directory.ts";
import { finishRestore, takeBackRestore } from "./recover-restore.ts";
import { leftOutOfPlan, type PlannedRestore, planOf } from "./planned.ts";
import { requireAnywhere, type RestoreInput, savePresent, whyUnwanted } from "./prepare.ts";
import { flushUnlessOrdered, intentOf, makeStaging } from "./staging.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import type { Point } from "../points/point-files.ts";
import { PlacedFiles } from "./placed-files.ts";
import { besidesOpenDatabases, type WrittenThrough } from "./open-databases.ts";
import { type StagedRestore, stageRestore } from "./stage.ts";
import { RecordFinder } from "../../archive/scan/find-record.ts";
import { encodeSteps } from "../points/steps.ts";
import type { Workspace } from "../open/workspace.ts";

export interface Restored {
  /** null: nothing had to change, so no point of the present was made */
  undoId: SavePointId | null;
  changes: Pick<AppliedSteps, "created" | "updated" | "deleted" | "metadata">;
  leftOut: LeftOutEntry[];
  /** paths put in place without a link to names that were not selected and have changed */
  unlinked: Uint8Array[];
  /** refs of git that moved */
  refs: PlannedRestore["refs"];
  /** the first changed entries */
  changed: ReturnType<typeof firstChanged>;
  /** databases that were written through SQLite */
  through?: WrittenThrough[];
}

/**
 * Makes the folder equal to a point, entry by entry. The caller holds the workspace's lock.
 * - Intent: the present is saved, the journal names target, undo point and staging directory. Stage: new entries are
 * written aside. Commit: the steps are durable. Then the steps run, displaced entries are checked, head moves.
 */
export async function restoreInPlace(workspace: Workspace, input: RestoreInput): Promise<Restored> {
  const { typedPaths } = input.change;
  if (typedPaths.length > 0) await requireAnywhere(workspace, typedPaths, input);
  // The save runs outside `reading`: it needs the store alone to remove lost content from the index.
  const present = await savePresent(workspace, input);
  if (present.isSpared === true) return nothingToDo(workspace, input);
  const restored = await workspace.engine.reading(async () => restoreReading(workspace, input, present), input);
  if (restored instanceof CairnError || restored.undoId === null) {
    await remove(workspace, present.point);
  }
  if (!(restored instanceof CairnError)) return restored;
  if (input.target.sequence >= (input.madeFrom ?? Infinity)) await remove(workspace, input.target);
  throw restored;
}

async function remove({ points, engine }: Workspace, { sequence, descriptor }: Point): Promise<void> {
  points.remove(sequence);
  failpoint("restore.undo-point-gone");
  await engine.discard([descriptor.save_point_id]);
}

/**
 * Records no operation. Moves head if the folder already equals the target: a relative change without a step only tells
 * that nothing of it is left to take back.
 */
export function nothingToDo(workspace: Workspace, { target, change }: RestoreInput): Restored {
  const state = workspace.state();
  const head = workspace.standsAt(target.descriptor.save_point_id);
  workspace.requireLock();
  if (!change.isRelative && change.isOfFolder && state.head !== head)
    writeState(workspace.found.paths, { ...state, head });
  return NOTHING;
}

const NOTHING: Restored = {
  undoId: null,
  changes: { created: 0, updated: 0, deleted: 0, metadata: 0 },
  leftOut: [],
  unlinked: [],
  refs: [],
  changed: [],
};

/** Tells if every entry to change is damaged or stays with its owner, apart from times of directories. Then no undo is needed. */
function isAllLeftOut(workspace: Workspace, { plan, damaged }: PlannedRestore, staged: StagedRestore): boolean {
  return (
    !workspace.unfinished("missing-folder").isBegun &&
    damaged.length + staged.damaged.length + staged.stays.length > 0 &&
    Iterator.from(staged.steps).every(({ op }) => op === "dirmeta") &&
    Iterator.from(plan).every(
      ({ after, aspects }) => after?.type !== "dir" || aspects.every((each) => each === "times"),
    )
  );
}

/** Returns an error if the caller does not want the plan: nothing was changed, and the undo point goes again. */
async function restoreReading(
  workspace: Workspace,
  input: RestoreInput,
  present: Awaited<ReturnType<typeof savePresent>>,
): Promise<Restored | CairnError> {
  const planned = await planOf(workspace, input, present);
  const unwanted = whyUnwanted(input, planned);
  if (unwanted !== null) return unwanted;
  if (isChanging(workspace, input, planned)) return restorePlanned(workspace, input, planned);
  return { ...nothingToDo(workspace, input), leftOut: leftOutOfPlan(planned, input.change) };
}

/** True if a restore changes something, or must finish a folder that was made for it. */
function isChanging(workspace: Workspace, input: RestoreInput, planned: PlannedRestore): boolean {
  if (workspace.unfinished("missing-folder").isBegun) return true;
  const changes = Iterator.from(planned.plan).some(({ action }) => action !== "keep");
  return changes || intentOf(workspace, input, planned).changesRoot;
}

/** Changes the folder by the plan. The caller holds the workspace's lock. */
export async function restorePlanned(
  workspace: Workspace,
  input: RestoreInput,
  planned: PlannedRestore,
): Promise<Restored> {
  const { plan, written } = await besidesOpenDatabases(workspace, input, planned);
  const hashes = written.flatMap(({ path, hash }) =>
    hash === null ? [] : [{ path, sha256: Buffer.from(hash, "hex") }],
  );
  const restored = await changeFolder(workspace, input, { ...planned, plan, merged: [...planned.merged, ...hashes] });
  return {
    ...restored,
    changes: { ...restored.changes, updated: restored.changes.updated + written.length },
    through: written,
  };
}

async function changeFolder(workspace: Workspace, input: RestoreInput, planned: PlannedRestore): Promise<Restored> {
  const { plan, links, target, manifest, scan } = planned;
  const { intent, changesRoot } = intentOf(workspace, input, planned);
  const { staging, undo_id: undoId } = intent;
  const journal = workspace.unfinished("restore");
  workspace.requireLock();
  journal.begin(intent);
  failpoint("restore.intent");
  using made = new MadeFolder(staging);
  // An entry of a relative change need not have the target's content.
  const held = input.change.isRelative ? null : heldTreeOf(workspace.points, input.target);
  let staged: StagedRestore;
  let leftOut: LeftOutEntry[];
  try {
    makeStaging(workspace, intent);
    made.hold();
    failpoint("restore.staging-made");
    staged = await stageRestore({
      plan,
      target,
      held,
      scan,
      staging,
      holes: planned.holes,
      throwsDamaged: input.change.throwsDamaged,
      anchors: links.anchors,
      root: workspace.root,
      takeOwnership: input.takeOwnership === true,
      signal: input.signal,
      onProgress: (progress) => input.onProgress?.({ phase: "restoring", ...progress }),
    });
    await flushUnlessOrdered(workspace, staging, {
      hasContent: Iterator.from(staged.steps).some(({ op }) => op === "put" || op === "write"),
    });
    throwIfAborted(input.signal);
    failpoint("restore.staged");
    const { damaged, stays, notSet } = staged;
    leftOut = leftOutOfPlan(planned, input.change, { stays: [...damaged, ...stays], notSet });
    workspace.requireLock();
    if (!changesRoot && held === null && isAllLeftOut(workspace, planned, staged)) {
      takeBackRestore(workspace, { intent, made }, input);
      return { ...NOTHING, leftOut };
    }
    journal.commit(encodeSteps({ steps: staged.steps, leftOut }));
  } catch (error) {
    takeBackRestore(workspace, { intent, made }, input);
    throw error;
  }
  failpoint("restore.committed");
  const finder = new RecordFinder(scan);
  // Entries of a relative change may be of other states than the target.
  const placed = new PlacedFiles(plan, input.change.isRelative ? null : manifest, planned.made);
  const runner = new StepRunner({
    root: workspace.root,
    staging,
    resuming: false,
    hidesIgnored: (where) => finder.hidesIgnored(where),
    // Cloned content was not compared with the store.
    ...(held === null ? { onPlaced: (step, stat) => placed.add(step, stat) } : {}),
  });
  const applied = swap(runner, staged);
  failpoint("restore.swapped");
  const notSet = await finishRestore(workspace, input, {
    intent,
    steps: staged.steps,
    made,
    saved: savedNodesOf(plan),
  });
  workspace.engine.noteWritten(placed.files);
  leftOut = leftOutAfter(leftOut, applied, notSet);
  const stays = notThere(leftOut);
  return {
    undoId,
    refs: planned.refs,
    changed: firstChanged(plan, stays),
    changes: {
      ...applied,
      metadata: applied.metadata + changedDirectories(plan, applied.kept) + (changesRoot ? 1 : 0),
    },
    leftOut,
    unlinked: links.apart.filter((where) => stays.chosenAt(where) === null),
  };
}

/** Runs the steps. After a failure the folder is partly old and partly new until the next call finishes the restore. */
function swap(runner: StepRunner, { steps }: StagedRestore): AppliedSteps {
  try {
    return runner.run(steps);
  } catch (error) {
    const failure = toCairnError(error);
    const { message } = failure;
    const hint = adviceOf(failure);
    const first = hint === undefined ? "" : advice`${hint}; `;
    throw reworded(failure, {
      message: `the restore stopped half-way: ${message}`,
      hint: advice`${first}the next ${either("command", "call")} finishes the restore, and ${call("undo")} then reverts it`,
    });
  }
}
