import type { LookedAt } from "../store/engine.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import { latin1 } from "../../formats/bytes.ts";
import { collectPaced, newPacer } from "../../pacer.ts";
import { scanRequest } from "../save/scan-request.ts";
import { type DiffAspect, diffTrees } from "../points/tree-diff.ts";
import { throwIfAborted, toCairnError } from "../../errors.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { Points } from "../points/points.ts";
import { MISREAD_TREE, noteReading, treeOwner, treePlace, whyTreeDiffers } from "../points/held-trees.ts";
import type { VerifyProblem } from "../../contract/looking.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { type Point, rulesOf } from "../points/point-files.ts";
import type { WorkspacePaths } from "../place/control-layout.ts";

/** A point, and the workspace that has its records. */
export interface HeldPoint {
  point: Point;
  paths: WorkspacePaths;
}

/** Most paths of one tree that the problems name. */
const NAMED = 100;
/** Aspects that the state digest covers. */
const OF_THE_STATE: ReadonlySet<DiffAspect> = new Set(["content", "mode", "type", "target"]);
const HINT =
  "nothing is lost: the store has the saved content. Restores now read the store, and later saves remove the tree";

/**
 * Reads the trees of sealed points, because restores clone files and folders from them without reading. Returns
 * differences from the seals: a disk may have changed or lost bytes.
 */
export async function verifyTrees(
  workspace: Workspace,
  held: readonly HeldPoint[],
  call: WorkspaceCall,
): Promise<VerifyProblem[]> {
  const problems: VerifyProblem[] = [];
  const read = new Map<string, VerifyProblem[]>();
  for (const { point, paths } of held) {
    throwIfAborted(call.signal);
    const points = new Points(paths);
    // A tree with earlier problems is read again like any other.
    if (!point.sealed || whyTreeDiffers(points, point) !== null) continue;
    const { save_point_id: id, state_digest: state } = point.descriptor;
    const place = treePlace(points, point);
    // Points that share a tree have the same state, except for their rules.
    const key = `${place}\0${state}`;
    let known = read.get(key);
    if (known === undefined) {
      known = await readTree(workspace, { point, place }, call);
      read.set(key, known);
      note(points, treeOwner(points, point), { known, call });
    }
    for (const problem of known) problems.push({ ...problem, point: id });
  }
  return problems;
}

/** Records the result. A failure is a warning only: the findings stay. */
function note(
  points: Points,
  owner: number,
  { known, call }: { known: readonly VerifyProblem[]; call: WorkspaceCall },
): void {
  try {
    noteReading(
      points,
      owner,
      known.map(({ point: _point, hint: _hint, ...problem }) => problem),
    );
  } catch (error) {
    call.onWarning?.(`the result of the verification could not be recorded: ${toCairnError(error).message}`);
  }
}

async function readTree(
  workspace: Workspace,
  { point, place }: Pick<HeldPoint, "point"> & { place: string },
  call: WorkspaceCall,
): Promise<VerifyProblem[]> {
  const { save_point_id: id, state_digest: state } = point.descriptor;
  const told = { point: id, kind: MISREAD_TREE, hint: HINT };
  let looked: LookedAt;
  try {
    const request = scanRequest(workspace, { reread: true }, { rules: rulesOf(point), root: Buffer.from(place) });
    looked = await workspace.engine.look(request, { ...call, tree: null });
  } catch (error) {
    throwIfAborted(call.signal);
    return [{ ...told, detail: `${place}: ${toCairnError(error).message}` }];
  }
  if (Buffer.from(looked.scan.state).toString("hex") === state) return [];
  const unread = new Map(looked.scan.notes.omitted.map(({ path, reason }) => [latin1(path), reason]));
  const found = await workspace.engine.reading(async () => {
    const saved = await workspace.source(point);
    return collectPaced(diffTrees(saved, presentSource(looked.scan)), newPacer(call.signal));
  }, call);
  const other = found.filter(
    ({ before, after, aspects }) => before === null || after === null || aspects.some((each) => OF_THE_STATE.has(each)),
  );
  if (other.length === 0) return [{ ...told, detail: `${place} differs from the save point` }];
  return other.slice(0, NAMED).map(({ path }) => {
    const why = unread.get(latin1(path));
    return {
      ...told,
      ...displayPath(path),
      detail: `in ${place}: ${why ?? "its content differs from the saved content"}`,
    };
  });
}
