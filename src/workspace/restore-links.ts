import type { TreeSource } from "../engines/engine.ts";
import type { ScanResult } from "../engines/scan/scan.ts";
import type { TreeNode } from "../formats/tree.ts";
import type { PlannedEntry } from "./restore-plan.ts";
import { type Difference, differences, NodeFinder } from "./tree-diff.ts";

/** A member of a group that is right where it is, with its node in the target. */
export interface Anchor {
  path: Uint8Array;
  node: TreeNode;
}

/** What becomes of the hard-link groups of which a restore puts members in place. */
export interface RestoreLinks {
  /** by a group's number in the target: the member in the folder that the others are linked to */
  anchors: ReadonlyMap<bigint, Anchor>;
  /** put in place, and not linked any more to what was not asked for */
  apart: Uint8Array[];
}

/**
 * A group's members that are right already are what the others are linked to, also where they were not asked for; those
 * that only lack being linked too. `unasked`: what differs of other paths than the chosen ones.
 */
export function linksOf(restore: {
  plan: readonly PlannedEntry[];
  unasked: readonly Difference[];
  target: TreeSource;
  source: TreeSource;
  scan: ScanResult;
}): RestoreLinks {
  const put = restore.plan.filter(({ after, action }) => groupOf(after) !== 0n && PUTS.has(action));
  const wanted = new Set(put.map(({ after }) => groupOf(after)));
  if (wanted.size === 0) return { anchors: new Map(), apart: [] };
  const anchors = unchangedMembers(restore, wanted);
  // The number that the group of an anchor has in the present.
  const present = new Map<bigint, bigint>();
  const apart = new Set<bigint>();
  for (const { path, before, after, aspects } of restore.unasked) {
    const group = groupOf(after);
    if (!wanted.has(group)) continue;
    const isRight = before !== null && after !== null && aspects.every((aspect) => aspect === "links");
    if (isRight && !anchors.has(group)) {
      anchors.set(group, { path, node: after });
      present.set(group, before.inode);
    } else if (!isRight || before.inode === 0n || before.inode !== present.get(group)) apart.add(group);
  }
  return { anchors, apart: put.filter(({ after }) => apart.has(groupOf(after))).map(({ path }) => path) };
}

const PUTS: ReadonlySet<PlannedEntry["action"]> = new Set(["create", "update"]);

/** The number of the group that an entry of the target is in; 0 for none. */
export function groupOf(after: Difference["after"]): bigint {
  return after?.inode ?? 0n;
}

function unchangedMembers(
  { plan, target, source, scan }: Parameters<typeof linksOf>[0],
  wanted: ReadonlySet<bigint>,
): Map<bigint, Anchor> {
  const anchors = new Map<bigint, Anchor>();
  const changed = new Set(plan.map(({ path: where }) => Buffer.from(where).toString("latin1")));
  const nodes = { is: new NodeFinder(source), should: new NodeFinder(target) };
  for (const [, group] of scan.groups) {
    if (!wanted.has(group.inode) || changed.has(Buffer.from(group.first).toString("latin1"))) continue;
    const is = nodes.is.at(group.first);
    const should = nodes.should.at(group.first);
    if (is !== null && should !== null && differences(is, should).length === 0)
      anchors.set(group.inode, { path: group.first, node: should });
  }
  return anchors;
}
