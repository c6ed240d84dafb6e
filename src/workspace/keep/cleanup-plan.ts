import type { PointContent } from "../store/engine.ts";
import { heldBytes, type KeptContent } from "../store/held-bytes.ts";
import { advice, CairnError, type Hint, line, throwIfAborted, toCairnError } from "../../errors.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import type { CleanupFile } from "../../formats/records/cleanup.ts";
import { type RetentionRules, storedRetention } from "../../formats/records/policy.ts";
import { plural } from "../../formats/sizes.ts";
import { listedNames } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { isReleased, listLeases, listWorkspaces } from "../place/control-directory.ts";
import type { ControlPaths } from "../place/control-layout.ts";
import { operationLog, type Revertible } from "../points/operation-log.ts";
import type { Point } from "../points/point-files.ts";
import { allPoints } from "../points/points.ts";
import {
  applyRetention,
  believedTimes,
  isKeptByTag,
  type RetentionDecision,
  type RetentionPoint,
  RULELESS,
} from "./retention.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

/** Plans which points a cleanup removes, and which ones must stay. */

/** A reason to keep a point in spite of the rules. */
export type Protection = "pinned" | "head" | "latest" | "undo" | "view" | "fork-origin";

const NEVER_REMOVED: readonly Protection[] = ["pinned", "head", "view"];

/** Returns the reason that keeps a point even if exactly that point was asked for. `forced`: a pin does not. */
export function whyNeverRemoved(reasons: readonly Protection[] = [], forced = false): Protection | undefined {
  return reasons.find((reason) => NEVER_REMOVED.includes(reason) && !(forced && reason === "pinned"));
}

/** Returns the reasons that protect points of a workspace; unprotected points are absent. */
export function protectionsOf(workspace: Workspace, points: readonly Point[]): ReadonlyMap<SavePointId, Protection[]> {
  const reasons = new Map<SavePointId, Protection[]>();
  const add = (id: SavePointId | null | undefined, reason: Protection): void => {
    if (id === null || id === undefined) return;
    const known = reasons.get(id);
    if (known === undefined) reasons.set(id, [reason]);
    else if (!known.includes(reason)) known.push(reason);
  };
  const { head, operations } = workspace.state();
  add(head, "head");
  add(workspace.points.latest()?.descriptor.save_point_id, "latest");
  const { done, undone } = operationLog(operations);
  const isReal = ({ before, after }: Revertible): boolean => before !== after;
  for (const next of [done.findLast(isReal), undone.findLast(isReal)])
    for (const id of [next?.before, next?.after, next?.changed.before, next?.changed.after]) add(id, "undo");
  for (const { pin, descriptor } of points) if (pin !== null) add(descriptor.save_point_id, "pinned");
  for (const { save_point_id } of listLeases(workspace.found.control)) add(save_point_id, "view");
  for (const { workspace: other } of listWorkspaces(workspace.found.control)) {
    if (other !== null && !isReleased(other)) add(other.origin?.save_point_id, "fork-origin");
  }
  return reasons;
}

/** Reads the content of all points of a control directory's workspaces, except `without`, from the disk. */
export function keptContent(control: ControlPaths, without: ReadonlySet<SavePointId>): KeptContent {
  const contents: PointContent[] = [];
  const unreadable: (string | null)[] = [];
  for (const each of allPoints(control)) {
    const { points, damaged } = each.points.list();
    for (const { descriptor, sealed } of points)
      if (sealed && !without.has(descriptor.save_point_id))
        contents.push(descriptor.content as unknown as PointContent);
    for (const { id } of damaged) if (id === null || !without.has(id)) unreadable.push(id);
  }
  return { contents, unreadable };
}

/** Returns the ids of all points of a control directory, also of damaged ones if known. */
export function presentIds(control: ControlPaths): ReadonlySet<string> {
  const ids = new Set<string>();
  for (const each of allPoints(control)) {
    const { points, damaged } = each.points.list();
    for (const { descriptor } of points) ids.add(descriptor.save_point_id);
    for (const { id } of damaged) if (id !== null) ids.add(id);
  }
  return ids;
}

/** A cleanup's plan, with the reasons for it. */
export interface CleanupFacts {
  /** Equal for two plans that remove and keep the same points by the same rules. */
  id: string;
  plan: CleanupFile;
  /** Size of content that only the points to remove have. */
  bytes: number;
  decisions: RetentionDecision[];
  /** Number of points that are kept as head, latest, for undo or as a fork's origin. */
  protectedByHistory: number;
}

export interface CleanupInput extends WorkspaceCall {
  /** The rules for ordinary points; without any rule only undo points may be removed. */
  rules: RetentionRules;
  /** Exactly these points, instead of the rules. */
  only?: readonly string[] | undefined;
  /** Removes pinned points of `only`, too. */
  force?: boolean | undefined;
  /** The id of the plan that the caller was shown. */
  plan?: string | undefined;
  /** Keeps every point that is under a day old, in spite of the rules. */
  keepYoung?: boolean;
}

const DAY_MS = 24 * 3_600_000;
const BY_HISTORY: readonly Protection[] = ["head", "latest", "undo", "fork-origin"];

/**
 * Plans a cleanup of a workspace and removes nothing. Throws `stale_plan` if the caller was shown another plan; without
 * one `refused` if a point in `only` is protected, and `not_found`.
 */
export async function planCleanup(workspace: Workspace, input: CleanupInput): Promise<CleanupFacts> {
  const { points } = workspace.points.list();
  const protections = protectionsOf(workspace, points);
  const isNamed = input.only !== undefined;
  const decisions = isNamed
    ? decideOnly(workspace, points, { ...input, protections })
    : decideByRules(points, input.rules, protections);
  if (!isNamed && input.rules.maxBytes !== undefined) {
    await dropForSize(workspace, points, {
      decisions,
      maxBytes: input.rules.maxBytes,
      protections,
      call: input,
    });
  }
  if (input.keepYoung === true) keepYoung(points, decisions);
  throwIfAborted(input.signal);
  const dropped = new Set(decisions.filter(({ keep }) => !keep).map(({ id }) => id));
  const drop = points.filter(({ descriptor }) => dropped.has(descriptor.save_point_id));
  const { found } = workspace;
  const kept = decisions.filter(({ keep }) => keep);
  const id = planIdOf([
    ["cleanup", found.workspace.id, isNamed ? input.force === true : storedRetention(input.rules)],
    ...drop.map(({ descriptor, checksum, pin }) => [descriptor.save_point_id, checksum, pin !== null]),
  ]);
  requirePlan(input.plan, id, () => {
    const going = named(decisions.filter(({ keep }) => !keep));
    return `it would remove ${going}${isNamed ? "" : ` and keep ${named(kept)}`} now`;
  });
  return {
    id,
    plan: {
      drop: drop.map(({ descriptor, sequence, checksum }) => ({ id: descriptor.save_point_id, sequence, checksum })),
      thorough: isNamed,
      ...(input.force === true ? { forced: true } : {}),
    },
    bytes: await bytesOf(workspace, drop, input),
    decisions,
    protectedByHistory: kept.filter((each) =>
      protections.get(each.id as SavePointId)?.some((reason) => BY_HISTORY.includes(reason)),
    ).length,
  };
}

/** For example ` (1a2b3c4d: head, latest; 9c8b7a6d: pinned)`. */
function named(points: readonly RetentionDecision[]): string {
  const names = points.map(({ id, reasons }) => `${id.slice(0, 8)}: ${reasons.join(", ")}`);
  return `${plural(points.length, "point")}${names.length === 0 ? "" : ` (${listedNames(names, "; ")})`}`;
}

/** Decides by the rules; protected points are kept. Newest first. */
function decideByRules(
  points: readonly Point[],
  rules: RetentionRules,
  protections: ReadonlyMap<SavePointId, readonly Protection[]>,
): RetentionDecision[] {
  const seen = points.map((point) => ({
    ...datedPoint(point),
    tags: point.tags,
    undo: point.descriptor.undo,
    incomplete: !point.descriptor.complete,
  }));
  return applyRetention(seen, rules, Date.now()).map((decision) => {
    const protectedBy = protections.get(decision.id as SavePointId);
    if (protectedBy === undefined) return decision;
    return { id: decision.id, keep: true, reasons: [...protectedBy, ...(decision.keep ? decision.reasons : [])] };
  });
}

function datedPoint({ descriptor, sequence }: Point): Pick<RetentionPoint, "id" | "sequence" | "time"> {
  return { id: descriptor.save_point_id, sequence, time: Date.parse(descriptor.created_at) };
}

const YOUNG = "under a day old";

function keepYoung(points: readonly Point[], decisions: readonly RetentionDecision[]): void {
  const times = believedTimes(points.map(datedPoint), Date.now());
  for (const decision of decisions) {
    if (decision.keep || times.get(decision.id)! < Date.now() - DAY_MS) continue;
    decision.keep = true;
    decision.reasons = [YOUNG];
  }
}

const WAY_OUT: Partial<Record<Protection, (id: SavePointId) => Hint>> = {
  pinned: (id) => advice`remove the pin first: ${line(`unpin ${id.slice(0, 8)}`, "unpin", id)}`,
  head: () => "save again first, so that a newer point is head",
  view: () => advice`close the view first: ${line("view", "listViews")}`,
};

function decideOnly(
  workspace: Workspace,
  points: readonly Point[],
  {
    only = [],
    force,
    plan,
    protections,
  }: Omit<CleanupInput, "rules"> & { protections: ReadonlyMap<SavePointId, readonly Protection[]> },
): RetentionDecision[] {
  const wanted = new Set<SavePointId>();
  try {
    for (const target of only) {
      const id = workspace.resolveOwn(target).descriptor.save_point_id;
      requireRemovable(id, whyNeverRemoved(protections.get(id), force));
      wanted.add(id);
    }
  } catch (error) {
    const { message, hint = "" } = toCairnError(error);
    if (plan === undefined) throw error;
    throw new CairnError("stale_plan", `the plan ${plan.slice(0, 8)} is stale: ${message}; nothing was changed`, {
      hint,
    });
  }
  return points.map(({ descriptor, pin }) => {
    const id = descriptor.save_point_id;
    return wanted.has(id)
      ? { id, keep: false, reasons: ["asked for", ...(pin === null ? [] : ["pinned"])] }
      : { id, keep: true, reasons: ["not asked for"] };
  });
}

function requireRemovable(id: SavePointId, hard: Protection | undefined): void {
  if (hard === undefined) return;
  const why = hard === "head" ? "it is head" : hard === "view" ? "a view of it is open" : "it is pinned";
  throw new CairnError("refused", `${id.slice(0, 8)} cannot be removed: ${why}`, { hint: WAY_OUT[hard]?.(id) ?? "" });
}

/**
 * Drops the oldest points until the rest fits, even if counts or periods would keep them. Never drops points that are
 * protected, under a day old, or kept by `keep-undo` or a tag.
 */
async function dropForSize(
  workspace: Workspace,
  points: readonly Point[],
  more: {
    decisions: RetentionDecision[];
    maxBytes: number;
    protections: ReadonlyMap<SavePointId, unknown>;
    call: WorkspaceCall;
  },
): Promise<void> {
  const young = Date.now() - DAY_MS;
  const times = believedTimes(points.map(datedPoint), Date.now());
  const decisionOf = new Map(more.decisions.map((decision) => [decision.id, decision]));
  for (const { descriptor } of points) {
    const decision = decisionOf.get(descriptor.save_point_id)!;
    if (decision.reasons[0] === RULELESS && times.get(descriptor.save_point_id)! >= young) decision.reasons = [YOUNG];
  }
  const pointOf = new Map<string, Point>(points.map((point) => [point.descriptor.save_point_id, point]));
  // Newest first, in the order of the rules.
  const candidates = more.decisions.flatMap(({ id, keep, reasons }) => {
    const point = pointOf.get(id)!;
    if (!keep || isKeptByTag(reasons)) return [];
    const isBound = more.protections.has(id as SavePointId) || point.descriptor.undo || times.get(id)! >= young;
    return isBound ? [] : [point];
  });
  const leaving = more.decisions.filter(({ keep }) => !keep).map(({ id }) => id as SavePointId);
  const asked = new Set([...leaving, ...candidates.map(({ descriptor }) => descriptor.save_point_id)]);
  // The dropped points come last, so that no candidate's size includes them.
  const dropped = points.filter(({ descriptor }) => leaving.includes(descriptor.save_point_id));
  const sizes = await heldBytes(
    await workspace.engine.store(more.call),
    [...candidates.map((point) => contentsOf([point])), contentsOf(dropped)],
    { others: keptContent(workspace.found.control, asked), signal: more.call.signal },
  );
  candidates.forEach(({ descriptor }, i) => {
    if (sizes[i + 1]! <= more.maxBytes) return;
    const decision = decisionOf.get(descriptor.save_point_id)!;
    decision.keep = false;
    decision.reasons = [`needs more than ${more.maxBytes} bytes`];
  });
}

/** Returns the store contents of points; unsealed points have none. */
function contentsOf(points: readonly Point[]): { id: string; content: PointContent }[] {
  return points
    .filter(({ sealed }) => sealed)
    .map(({ descriptor }) => ({
      id: descriptor.save_point_id,
      content: descriptor.content as unknown as PointContent,
    }));
}

/** Returns the bytes that only these points hold. Throws `damaged` if the content that other points need is unknown. */
async function bytesOf(workspace: Workspace, drop: readonly Point[], call: WorkspaceCall): Promise<number> {
  if (drop.length === 0) return 0;
  const without = new Set(drop.map(({ descriptor }) => descriptor.save_point_id));
  const [rest, all] = await heldBytes(await workspace.engine.store(call), [contentsOf(drop)], {
    others: keptContent(workspace.found.control, without),
    signal: call.signal,
  });
  return all! - rest!;
}
