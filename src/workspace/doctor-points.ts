import fs from "node:fs";
import path from "node:path";
import type { StoppableCall } from "../engines/engine.ts";
import type { PointRemains, StoreFinding as Checkup } from "../engines/store-care.ts";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { WorkspaceState } from "../formats/control.ts";
import { type Descriptor, omittedOf } from "../formats/descriptor.ts";
import { rawPath } from "../formats/record.ts";
import { durableRemove, durableRename, durableWrite } from "../fs/durable.ts";
import { printablePath } from "../fs/safe-path.ts";
import type { SavePointId } from "../ids.ts";
import { isCleanupPending } from "./cleanup.ts";
import { listWorkspaces, type PlacedWorkspace, readState, writeState } from "./control-directory.ts";
import { workspacePaths } from "./control-layout.ts";
import { encodeDescriptorFile } from "./descriptor-file.ts";
import { holdsMore, leftTrees } from "./held-trees.ts";
import type { Point } from "./point-files.ts";
import { type DamagedPoint, Points } from "./points.ts";
import { rebuiltRules } from "./rebuilt-rules.ts";
import { unlessNotOwn } from "./not-the-owner.ts";
import { whyLeft } from "./removals.ts";
import { whatIsHeldOnly, whyUnsealed } from "./seal.ts";
import type { Workspace } from "./workspace.ts";

/**
 * What to say of a record that cannot be read. Its repair is left out where nothing is lost: what a newer version wrote,
 * and what this user may only not read, is as good as it was.
 */
function unreadable(
  { found }: Workspace,
  { message, problem, ...checkup }: Omit<Checkup, "detail"> & { message: string; problem: CairnError },
): Checkup {
  const { kind, severity } = checkup;
  const { hint } = toCairnError(unlessNotOwn(found.control, problem));
  const detail = hint === undefined ? message : `${message}; ${hint}`;
  if (problem.code === "permission") return { kind, severity: "warning", detail };
  if (problem.code === "newer_version") return { kind, severity, detail };
  return { ...checkup, detail: message };
}

/** Head and last restore: where the file is lost, or names a point that is not there. */
export function stateFindings(workspace: Workspace): Checkup[] {
  const { paths } = workspace.found;
  const { points } = workspace;
  const atLatest = (state: Partial<WorkspaceState>): void => {
    writeState(paths, {
      last_restore: null,
      recovered: [],
      ...state,
      head: points.latest()?.descriptor.save_point_id ?? null,
    });
  };
  let state: WorkspaceState;
  try {
    state = readState(paths);
  } catch (error) {
    const problem = toCairnError(error);
    const repair = "the workspace counts as standing at its latest point; what undo goes back to is not known any more";
    const { message } = problem;
    const mend = async (): Promise<void> => atLatest({});
    return [unreadable(workspace, { kind: "state", severity: "damage", message, problem, repair, mend })];
  }
  if (state.head === null || points.ids().has(state.head)) return [];
  if (points.list().damaged.some(({ id }) => id === null || id === state.head)) return [];
  const detail = `the workspace stands at ${state.head.slice(0, 8)}, and there is no such point`;
  return [
    {
      kind: "state",
      severity: "damage",
      detail,
      repair: "it counts as standing at its latest point",
      mend: async () => atLatest(state),
    },
  ];
}

/** The small files beside descriptors. */
export function recordFindings(workspace: Workspace): Checkup[] {
  return eachWorkspace(workspace).flatMap(({ points }) =>
    points.list().points.flatMap(({ sequence, problems, descriptor }) => {
      const paths = points.pathsOf(sequence);
      const who = `save point ${descriptor.save_point_id.slice(0, 8)}`;
      return problems.map((problem): Checkup => {
        const what = { message: `${who}: ${problem.message}`, problem };
        if (problem.message.startsWith(paths.pin)) {
          const mend = async (): Promise<void> =>
            points.writePin(sequence, { at: new Date().toISOString(), reason: "its pin file was damaged" });
          return unreadable(workspace, {
            kind: "pin",
            severity: "warning",
            ...what,
            repair: "it is pinned anew",
            mend,
          });
        }
        const tags = problem.message.startsWith(paths.tags);
        const mend = async (): Promise<void> => void durableRemove(tags ? paths.tags : paths.verification);
        const repair = tags ? "the tags that it was made with count again" : "it counts as unverified";
        const kind = tags ? "tags" : "verification";
        return unreadable(workspace, { kind, severity: tags ? "warning" : "info", ...what, repair, mend });
      });
    }),
  );
}

/** Points that only a held tree has the content of: nothing here can mend one that is lost. */
export function heldFindings(workspace: Workspace): Checkup[] {
  // What a cleanup was killed in has lost its trees and is about to go.
  if (isCleanupPending(workspace.found.paths.journal)) return [];
  return eachWorkspace(workspace).flatMap(({ workspace: record, points }) => {
    const all = points.list().points;
    const open = all.filter(({ sealed }) => !sealed);
    const problems = open.flatMap((point) => heldProblem(points, point) ?? []);
    const well = open.length - problems.length;
    const waiting: Checkup = {
      kind: "held",
      severity: "info",
      detail: `${well} point${well === 1 ? " is" : "s are"} not sealed yet; whatever needs the contents does it`,
    };
    const heldOnly = whatIsHeldOnly(
      all.filter((each) => holdsMore(points, each)),
      {
        control: workspace.found.control.root,
        folder: Buffer.from(rawPath(record)),
      },
    );
    return [
      ...problems.map((detail): Checkup => ({ kind: "held", severity: "damage", detail })),
      ...(well === 0 ? [] : [waiting]),
      ...(heldOnly === null ? [] : [{ kind: "held", severity: "warning", detail: heldOnly } as const]),
      ...leftTreeFindings(points),
    ];
  });
}

function leftTreeFindings(points: Points): Checkup[] {
  const left = leftTrees(points);
  if (left.length === 0) return [];
  const mend = async (): Promise<void> => {
    for (const place of left) {
      await removeHeldTree(place).catch((error: unknown) => {
        throw new CairnError("permission", whyLeft(place, toCairnError(error)));
      });
    }
  };
  const detail = `what is left of ${left.length === 1 ? "a tree" : `${left.length} trees`} that no point needs any more: ${left.join(", ")}`;
  return [{ kind: "leftovers", severity: "info", detail, repair: "it is removed", mend }];
}

/** What is wrong with a held tree, and what to do then; null where nothing is known to be. */
function heldProblem(points: Points, point: Point): string | null {
  const problem = whyUnsealed(points, point, []);
  if (problem !== null) return problem.hint === undefined ? problem.message : `${problem.message}; ${problem.hint}`;
  if (point.verification?.ok !== false) return null;
  const [found] = point.verification.problems;
  const id = point.descriptor.save_point_id.slice(0, 8);
  return `save point ${id}, which is not sealed, was damaged when it was last verified: ${found?.detail ?? "no reason is known"}; \`cairn verify --all\` looks again`;
}

interface Records {
  workspace: PlacedWorkspace;
  points: Points;
}

function eachWorkspace({ found }: Workspace): Records[] {
  return listWorkspaces(found.control).flatMap(({ name, workspace }) => {
    return workspace === null ? [] : [{ workspace, points: new Points(workspacePaths(found.control, name)) }];
  });
}

const LOST_WITH_IT =
  "it is written again from its snapshot, its ignore rules from the ignore files in that; message, tags, cause and parent are lost, whether a restore made it, and what was excluded when it was saved: a restore to it takes that away, into its undo point";

/** Descriptors that cannot be read. `opens`: the store does, so it can be asked what it knows of those points. */
export async function descriptorFindings(
  workspace: Workspace,
  { opens, signal }: { opens: boolean } & StoppableCall,
): Promise<Checkup[]> {
  const damaged = eachWorkspace(workspace).flatMap((records) =>
    records.points.list().damaged.map((point) => ({ records, point })),
  );
  if (damaged.length === 0) return [];
  const remains = opens
    ? await remainsOf(
        workspace,
        damaged.map(({ point }) => point),
        signal,
      )
    : new Map<DamagedPoint, PointRemains>();
  return damaged.map(({ records, point }): Checkup => {
    const message = `save point ${point.id?.slice(0, 8) ?? `number ${point.sequence}`}: ${point.problem.message}`;
    const left = remains.get(point);
    const what = { kind: "descriptor", severity: "damage", message, problem: point.problem } as const;
    if (left === undefined) return unreadable(workspace, what);
    return unreadable(workspace, {
      ...what,
      repair: LOST_WITH_IT,
      mend: async () => rebuildDescriptor(workspace, { ...records, point, left, signal }),
    });
  });
}

/** By the id that the catalog remembers, or, where one point and one snapshot have nobody else, by elimination. */
async function remainsOf(
  workspace: Workspace,
  damaged: readonly DamagedPoint[],
  signal: AbortSignal | undefined,
): Promise<Map<DamagedPoint, PointRemains>> {
  const healthy = new Set<string>(
    eachWorkspace(workspace).flatMap(({ points }) => [
      ...points.list().points.map(({ descriptor }) => descriptor.save_point_id),
      ...points.unfinished().flatMap(({ id }) => id ?? []),
    ]),
  );
  const remains = await workspace.engine.remains((id) => !healthy.has(id), { signal });
  const found = new Map<DamagedPoint, PointRemains>();
  for (const point of damaged) {
    const left = remains.find(({ id }) => id === point.id);
    if (left !== undefined) found.set(point, left);
  }
  const nameless = damaged.filter(({ id }) => id === null);
  const unclaimed = remains.filter(({ id }) => !damaged.some((point) => point.id === id));
  if (nameless.length === 1 && unclaimed.length === 1) found.set(nameless[0]!, unclaimed[0]!);
  return found;
}

async function rebuildDescriptor(
  workspace: Workspace,
  of: Records & { point: DamagedPoint; left: PointRemains } & StoppableCall,
): Promise<void> {
  const { left, points, point } = of;
  const asked = { id: left.id, content: left.content, stateDigest: null, metadataDigest: null };
  const { verdicts } = await workspace.engine.verify({ points: [asked], everything: false, signal: of.signal });
  const [verdict] = verdicts;
  const { stateDigest = null, metadataDigest = null } = verdict ?? {};
  if (verdict === undefined || stateDigest === null || metadataDigest === null) {
    throw new CairnError("damaged", `the content at ${printablePath(left.path)} of its snapshot cannot be read`);
  }
  const descriptor: Descriptor = {
    save_point_id: left.id as SavePointId,
    workspace_id: of.workspace.id,
    workspace_name: of.workspace.name,
    sequence: point.sequence,
    created_at: new Date(left.createdAt).toISOString(),
    message: "",
    tags: [],
    engine: workspace.engine.type,
    effective_engine: workspace.engine.type,
    degraded: [],
    parent_id: null,
    restored_from: null,
    cause: { kind: "doctor", reason: "the descriptor was damaged and has been written again from the snapshot" },
    content: left.content as unknown as Descriptor["content"],
    state_digest: Buffer.from(stateDigest).toString("hex"),
    metadata_digest: Buffer.from(metadataDigest).toString("hex"),
    complete: left.complete,
    entries: left.entries,
    bytes: verdict.bytes,
    bytes_stored: 0,
    unchanged: false,
    labels: left.labels,
    ...omittedOf(left.omitted),
    rules: await rebuiltRules(await workspace.engine.source(left.content), {
      crossMounts: left.crossMounts,
      signal: of.signal,
    }),
    undo: false,
  };
  const bytes = encodeDescriptorFile(descriptor);
  const paths = points.pathsOf(point.sequence);
  // Kept: people can read in it what is lost otherwise. Until there is a new one it also tells that there is a point.
  if (fs.existsSync(paths.descriptor)) durableRename(paths.descriptor, path.join(paths.root, "descriptor.damaged"));
  failpoint("doctor.descriptor-kept");
  durableWrite(paths.descriptor, bytes, { exclusive: true });
  points.refresh();
}
