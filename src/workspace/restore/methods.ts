import { setImmediate } from "node:timers/promises";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { RestoreResult } from "../../contract/points.ts";
import { latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { writeState } from "../place/control-directory.ts";
import { publicLeftOut, warnOfDamaged } from "../points/left-out.ts";
import { isReverting, statesOf } from "../points/operation-log.ts";
import { type Point, rulesOf } from "../points/point-files.ts";
import { givingBack } from "../open/missing-folder.ts";
import { isRuleless } from "../open/ruleless.ts";
import { sealPoint, sealPoints } from "../save/seal.ts";
import type { Workspace } from "../open/workspace.ts";
import { type Asked, checked, isStillTree, withoutNeedlessRevert } from "./asked-restore.ts";
import { restoreByExchange } from "./exchange.ts";
import { nothingToDo, type Restored, restoreInPlace, restorePlanned } from "./restore.ts";
import { planHeld, whyNotPlannedHeld } from "./restore-held.ts";

/** A finished restore. `target`: the restored point, which some methods seal first. `changes`: null if not counted. */
interface Done extends Omit<Restored, "changes"> {
  target: Point;
  changes: Restored["changes"] | null;
  method: RestoreResult["method"];
}

/** A way to restore a folder. */
interface Method {
  name: string;
  /** Tells why this method cannot restore `input`; null if the method can. Changes nothing. */
  whyNot(workspace: Workspace, input: Asked): Promise<string | null>;
  /** Restores the folder, or leaves the folder unchanged and returns the reason. */
  run(workspace: Workspace, input: Asked): Promise<Done | string>;
}

/** The methods of a restore, the fastest first. The last one can restore every point. */
const METHODS: readonly Method[] = [
  {
    name: "nothing to do",
    whyNot: async (workspace, input) =>
      whyNotWhole(workspace, input) ??
      ((await isStillTree(workspace, input.target)) ? null : "the folder may differ from the point"),
    run: async (workspace, input) => byEntries(input.target, nothingToDo(workspace, input)),
  },
  { name: "exchange", whyNot: async (...by) => whyNotWhole(...by), run: exchange },
  { name: "clones", whyNot: async (...by) => whyNotPlannedHeld(...by), run: clone },
  { name: "entries", whyNot: async () => null, run: fromStore },
];

/**
 * Restores a folder, and makes it again if it is missing. The caller holds the workspace's lock and has recovered.
 * Throws `refused` if the folder's disk is not mounted. `started` is a time of `performance.now()`.
 */
export async function restoreLocked(workspace: Workspace, started: number, input: Asked): Promise<RestoreResult> {
  const { crossMounts } = rulesOf(input.target);
  return givingBack(workspace, { ...input, crossMounts }, async () => restoreFolder(workspace, started, input));
}

async function restoreFolder(workspace: Workspace, started: number, asked: Asked): Promise<RestoreResult> {
  const input = await checked(workspace, asked);
  const { operations } = workspace.state();
  const done = await restoreByMethods(workspace, input);
  if (done.method === "entries" && (await isStopped(input))) await takeBack(workspace, input, { done, operations });
  warnOfDamaged(workspace, done.target, { ...input, leftOut: done.leftOut });
  return {
    restored_to: done.target.descriptor.save_point_id,
    undo_id: done.undoId,
    changes: done.changes === null ? null : countsOf(done.changes),
    left_out: done.leftOut.map(publicLeftOut),
    unlinked: done.unlinked.map((where) => displayPath(where)),
    ...(done.refs.length > 0 ? { refs: done.refs } : {}),
    ...(done.through?.length
      ? { through_sqlite: done.through.map(({ path, hash }) => ({ ...displayPath(path), read_again: hash !== null })) }
      : {}),
    ...(done.method === "entries" ? { changed: done.changed } : {}),
    method: done.method,
    duration_ms: Math.round(performance.now() - started),
  };
}

function countsOf({ created, updated, deleted, metadata }: NonNullable<Done["changes"]>): RestoreResult["changes"] {
  return { created, updated, deleted, metadata };
}

/** Restores by the first method that can, and warns if that is not the method that the caller asked for. */
async function restoreByMethods(workspace: Workspace, input: Asked): Promise<Done> {
  for (const { name, whyNot, run } of METHODS) {
    const done = (await whyNot(workspace, input)) ?? (await run(workspace, input));
    if (typeof done !== "string") return done;
    if (name === input.method) input.onWarning?.(`restored entry by entry, not by an exchange: ${done}`);
  }
  throw new CairnError("internal", "no method can restore the folder");
}

/** Tells if the caller aborted. A signal during the exchange of entries arrives two turns of the event loop later. */
async function isStopped({ signal }: Asked): Promise<boolean> {
  for (let turn = 0; turn < 2 && signal?.aborted === false; turn++) await setImmediate();
  return signal?.aborted === true;
}

/**
 * Undoes a restore that was stopped after its commit, and throws `interrupted`. The list of operations stays unchanged,
 * so a later undo reverts the operation before.
 */
async function takeBack(
  workspace: Workspace,
  { signal, cause: _cause, ...input }: Asked,
  { done, operations }: { done: Done; operations: ReturnType<Workspace["state"]>["operations"] },
): Promise<void> {
  const undo = done.undoId === null ? null : workspace.byId(done.undoId);
  if (undo === null) return;
  const { changed, merged: texts } = workspace.state().operations.at(-1) ?? {};
  const entries = changed && statesOf(changed, (id) => (id === undefined ? done.target : workspace.byId(id)));
  const changes = [{ found: undo, left: done.target, ...(entries && { entries }) }];
  const merged = new Map(texts?.map((each) => [latin1(rawPath(each)), each.sha256]));
  const change = input.change.reverse(changes, merged);
  const back = { ...input, target: undo, kind: "undo", method: "entries", change } as const;
  const { leftOut } = await restoreByMethods(workspace, await withoutNeedlessRevert(workspace, back));
  writeState(workspace.found.paths, { ...workspace.state(), operations });
  failpoint("restore.taken-back");
  const but = leftOut.length === 0 ? "" : `, but for ${plural(leftOut.length, "entry")} that changed meanwhile`;
  throw new CairnError("interrupted", `the restore was stopped and taken back: the folder is as it was before${but}`, {
    cause: signal?.reason,
  });
}

function whyNotWhole({ engine }: Workspace, { method, change, plan }: Asked): string | null {
  if (method === "entries") return "the caller asked for a restore entry by entry";
  if (plan !== undefined) return "a plan is compared entry by entry";
  if (engine.holder?.atomic !== true)
    return `the engine ${engine.holder?.type ?? engine.type} does not make atomic snapshots`;
  return change.whyNotWhole();
}

function byEntries(target: Point, restored: Restored): Done {
  return { ...restored, target, method: "entries" };
}

async function exchange(workspace: Workspace, input: Asked): Promise<Done | string> {
  const isRestore = !isReverting(input.kind);
  const ruleless = isRestore && (await isRuleless(workspace, input.target, input));
  // The ignore rules of an unsealed point are known only after it was read.
  const target = isRestore && !ruleless ? await sealPoint(workspace, input.target, input) : input.target;
  const isSure = input.method === "exchange";
  const exchanged = await restoreByExchange(workspace, { ...input, target, isSure, isRuleless: ruleless });
  if ("refused" in exchanged) return exchanged.refused;
  return { ...exchanged, target, changes: null, leftOut: [], unlinked: [], refs: [], changed: [], method: "exchange" };
}

/** Restores by clones of the point's files. */
async function clone(workspace: Workspace, input: Asked): Promise<Done | string> {
  const planned = await planHeld(workspace, input);
  if (planned === null) return NOT_CLONED;
  if (planned === "same") return byEntries(input.target, nothingToDo(workspace, input));
  try {
    return byEntries(input.target, await restorePlanned(workspace, input, planned));
  } catch (error) {
    // A file could not be cloned.
    if (toCairnError(error).details?.["unsealed"] === input.target.descriptor.save_point_id) return NOT_CLONED;
    throw error;
  }
}

const NOT_CLONED = "the point must be sealed first";

/** Restores from the store, and seals the points that are needed for that. */
async function fromStore(workspace: Workspace, input: Asked): Promise<Done> {
  workspace.engine.prepare();
  const needed = [input.target, ...input.change.points()];
  const { problems } = await sealPoints(workspace, input, [...new Set(needed.map(({ sequence }) => sequence))]);
  if (problems[0] !== undefined) throw problems[0].problem;
  const sealed = (point: Point): Point => workspace.byId(point.descriptor.save_point_id) ?? point;
  const change = input.change.withPoints(sealed);
  const target = sealed(input.target);
  return byEntries(target, await restoreInPlace(workspace, { ...input, target, change }));
}
