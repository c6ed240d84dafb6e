import type { Point } from "../workspace/points/point-files.ts";
import type { Workspace } from "../workspace/workspace.ts";
import { findNode } from "../workspace/restore/plan.ts";
import { differences } from "../workspace/points/tree-diff.ts";
import { newPacer } from "../pacer.ts";
import { normalizeTyped } from "../fs/safe-path.ts";
import type { DamagedPoint, HistoryOptions, HistoryResult } from "../contract/index.ts";
import { publicPoint } from "./public-point.ts";

/** Points read at a time while looking for ones that fit. */
const PAGE = 200;

/** The points of a workspace, newest first; damaged ones apart, hiding nothing. */
export async function history(workspace: Workspace, limit: number, options: HistoryOptions): Promise<HistoryResult> {
  const list = async (): Promise<HistoryResult> => listHistory(workspace, limit, options);
  return options.path === undefined ? list() : workspace.engine.reading(list, options);
}

async function listHistory(workspace: Workspace, limit: number, options: HistoryOptions): Promise<HistoryResult> {
  const filtered = options.grep !== undefined || options.tag !== undefined || options.path !== undefined;
  const kept: Point[] = [];
  const damaged: DamagedPoint[] = [];
  let truncated = false;
  let before: number | undefined;
  const pace = newPacer(options.signal);
  for (;;) {
    await pace();
    const list = workspace.points.list({ limit: filtered ? PAGE : limit, ...(before === undefined ? {} : { before }) });
    for (const { id, problem } of list.damaged)
      damaged.push({ save_point_id: id, detail: problem.message, hint: problem.hint ?? "see `cairn doctor`" });
    for (const point of list.points) {
      if (filtered) await pace();
      if (filtered && !(await fits(workspace, point, options))) continue;
      kept.push(point);
    }
    truncated = list.truncated;
    if (!filtered || !list.truncated || (limit > 0 && kept.length > limit)) break;
    before = Math.min(...list.points.map(({ sequence }) => sequence), ...list.damaged.map(({ sequence }) => sequence));
  }
  if (limit > 0 && kept.length > limit) {
    kept.length = limit;
    truncated = true;
  }
  const latest = workspace.points.latest();
  return {
    save_points: kept.map(publicPoint),
    head: workspace.state().head,
    latest: latest?.descriptor.save_point_id ?? null,
    damaged,
    truncated,
  };
}

async function fits(workspace: Workspace, point: Point, options: HistoryOptions): Promise<boolean> {
  const { descriptor } = point;
  if (options.tag !== undefined && !point.tags.includes(options.tag)) return false;
  if (options.grep !== undefined) {
    const text = [descriptor.message, ...point.tags, JSON.stringify(descriptor.cause)].join("\n").toLowerCase();
    if (!text.includes(options.grep.toLowerCase())) return false;
  }
  return options.path === undefined || changesPath(workspace, point, normalizeTyped(options.path));
}

/** Tells whether a path differs from the point's parent. */
async function changesPath(workspace: Workspace, point: Point, path: Uint8Array): Promise<boolean> {
  const parent = workspace.byId(point.descriptor.parent_id);
  if (parent?.descriptor.content.tree === point.descriptor.content.tree) return false;
  const now = findNode(await workspace.source(point), path);
  const was = parent === null ? null : findNode(await workspace.source(parent), path);
  if (now === null || was === null) return now !== was;
  return Buffer.compare(now.subtree ?? NONE, was.subtree ?? NONE) !== 0 || differences(was, now).length > 0;
}

const NONE = new Uint8Array(0);
