import type { StoreFinding } from "../store/store-care.ts";
import { removeHeldTree } from "../../clones/remove-held.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import type { WorkspaceState } from "../../formats/records/control.ts";
import { rawPath } from "../../formats/records/record.ts";
import { durableRemove } from "../../fs/durable.ts";
import { readAgentEvents } from "../points/agent-record.ts";
import { describeFailed, failedIn } from "../points/failed-hooks.ts";
import type { Point } from "../points/point-files.ts";
import { holdsMore, leftTrees, whyLeft } from "../points/held-trees.ts";
import { unlessNotOwn } from "../place/owners.ts";
import { allPoints, type DamagedPoint, type Points, type WorkspacePoints } from "../points/points.ts";
import { listWorkspaces, type PlacedWorkspace, readState, writeState } from "../place/control-directory.ts";
import type { ControlPaths, WorkspacePaths } from "../place/control-layout.ts";
import { whatIsHeldOnly, whyUnsealed } from "../save/seal.ts";
import type { Workspace } from "../open/workspace.ts";

/** Finds problems in the records and trees of points, except for descriptors, and hooks that could not save. */

/**
 * Returns the finding of a record that cannot be read. If a newer version wrote the record, or this user may not read
 * it, there is no repair.
 */
export function unreadable({ found }: Workspace, { problem, ...finding }: RecordFinding): StoreFinding {
  const { code, hint } = toCairnError(unlessNotOwn(found.control, problem));
  if (code !== "permission" && code !== "newer_version") return finding;
  const { repair: _repair, mend: _mend, ...kept } = finding;
  const { severity, detail } = kept;
  return {
    ...kept,
    severity: code === "permission" ? "warning" : severity,
    detail: hint === undefined ? detail : `${detail}; ${hint}`,
  };
}

/** A finding about a record, with the error of reading it. */
export type RecordFinding = StoreFinding & { problem: CairnError };

/** Finds workspaces of a control directory whose records cannot be read. */
export function* workspaceFindings(control: ControlPaths): Iterable<RecordFinding> {
  for (const { name, problem } of listWorkspaces(control))
    if (problem !== undefined) yield found("workspace", problem, `the workspace ${name} cannot be opened`);
}

/** Finds a state file that cannot be read; every restore needs the head in it. */
export function* unreadableState(paths: WorkspacePaths): Iterable<RecordFinding> {
  try {
    readState(paths);
  } catch (error) {
    yield found("state", toCairnError(error));
  }
}

/** Returns the finding of a damaged point. */
export function descriptorFinding({ id, problem }: Pick<DamagedPoint, "id" | "problem">): RecordFinding {
  return { ...found("descriptor", problem), ...(id === null ? {} : { point: id }) };
}

function found(kind: string, problem: CairnError, where = ""): RecordFinding {
  const detail = where === "" ? problem.message : `${where}: ${problem.message}`;
  return { kind, severity: "damage", detail, problem };
}

/** Finds a lost state file, and a head that names a missing point. */
export function* stateFindings(workspace: Workspace): Iterable<StoreFinding> {
  const { paths } = workspace.found;
  const { points } = workspace;
  const atLatest = (state: WorkspaceState): void =>
    writeState(paths, { ...state, head: points.latest()?.descriptor.save_point_id ?? null });
  const [lost] = unreadableState(paths);
  if (lost !== undefined)
    return yield unreadable(workspace, {
      ...lost,
      repair: "head becomes the latest point; `cairn undo` no longer knows which restore to undo",
      mend: () => atLatest({ head: null, operations: [], recovered: [] }),
    });
  const state = readState(paths);
  const { head } = state;
  if (head === null || points.ids().has(head)) return;
  if (points.list().damaged.some(({ id }) => id === null || id === head)) return;
  yield {
    kind: "state",
    severity: "damage",
    detail: `head is ${head.slice(0, 8)}, and there is no such point`,
    repair: "head becomes the latest point",
    mend: () => atLatest(state),
  };
}

/** Finds unreadable pins, tags and verification records of points. */
export function* recordFindings(workspace: Workspace): Iterable<StoreFinding> {
  for (const { points } of readable(workspace))
    for (const { sequence, problems, descriptor } of points.list().points) {
      const { pin, tags, verification } = points.pathsOf(sequence);
      for (const problem of problems) {
        const detail = `save point ${descriptor.save_point_id.slice(0, 8)}: ${problem.message}`;
        const about = { detail, problem };
        if (problem.message.startsWith(pin))
          yield unreadable(workspace, {
            kind: "pin",
            severity: "warning",
            ...about,
            repair: "the point is pinned again",
            mend: () => points.writePin(sequence, { at: new Date().toISOString(), reason: "its pin file was damaged" }),
          });
        else if (problem.message.startsWith(tags))
          yield unreadable(workspace, {
            kind: "tags",
            severity: "warning",
            ...about,
            repair: "the point gets back the tags that it was saved with; later changes of its tags are lost",
            mend: () => durableRemove(tags),
          });
        else
          yield unreadable(workspace, {
            kind: "verification",
            severity: "info",
            ...about,
            repair: "the point becomes unverified",
            mend: () => durableRemove(verification),
          });
      }
    }
}

/** Finds problems of points whose content is only in a held tree, and leftover trees. A lost tree cannot be repaired. */
export function* heldFindings(workspace: Workspace): Iterable<StoreFinding> {
  const { found } = workspace;
  // A killed cleanup has removed trees of points that will be removed.
  if (workspace.unfinished("cleanup").isBegun) return;
  const kind = "held";
  for (const { workspace: record, points } of readable(workspace)) {
    const all = points.list().points;
    const open = all.filter(({ sealed }) => !sealed);
    const problems = open.flatMap((point) => heldProblem(points, point) ?? []);
    for (const detail of problems) yield { kind, severity: "damage", detail };
    const well = open.length - problems.length;
    const are = well === 1 ? "point is" : "points are";
    if (well > 0)
      yield {
        kind,
        severity: "info",
        detail: `${well} ${are} not sealed yet; the next backup, verification or \`cairn seal\` reads the content`,
      };
    const heldOnly = whatIsHeldOnly(
      all.filter((each) => holdsMore(points, each)),
      { control: found.control.root, folder: Buffer.from(rawPath(record)) },
    );
    if (heldOnly !== null) yield { kind, severity: "warning", detail: heldOnly };
    const left = leftTrees(points);
    if (left.length > 0)
      yield {
        kind: "leftovers",
        severity: "info",
        detail: `leftovers of ${left.length === 1 ? "a clone" : `${left.length} clones`} that no point needs any more: ${left.join(", ")}`,
        repair: "it is removed",
        mend: async () => {
          const stay: string[] = [];
          for (const place of left)
            await removeHeldTree(place).catch((error: unknown) => stay.push(whyLeft(place, toCairnError(error))));
          if (stay.length > 0) throw new CairnError("permission", stay.join("; "));
        },
      };
  }
}

/** Tells why a held tree does not fit its point, and the remedy; null if no problem is known. */
function heldProblem(points: Points, point: Point): string | null {
  const problem = whyUnsealed(points, point, []);
  if (problem !== null) return problem.hint === undefined ? problem.message : `${problem.message}; ${problem.hint}`;
  if (point.verification?.ok !== false) return null;
  const reason = point.verification.problems[0]?.detail ?? "no reason was recorded";
  const id = point.descriptor.save_point_id.slice(0, 8);
  return `the last verification found the unsealed save point ${id} damaged: ${reason}; \`cairn verify --all\` reads it again`;
}

export type ReadablePoints = WorkspacePoints & { workspace: PlacedWorkspace };

export function readable({ found }: Workspace): ReadablePoints[] {
  return allPoints(found.control).filter((each): each is ReadablePoints => each.workspace !== null);
}

/** Finds agents whose hooks could not save the folder. */
export function hookFindings({ found }: Workspace): StoreFinding[] {
  return failedIn(readAgentEvents(found)).map((failed) => ({
    kind: "hooks",
    severity: failed.over ? "info" : "warning",
    detail: describeFailed(failed),
  }));
}
