import type { ScanResult } from "../../archive/scan/scan.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { type Difference, differences, NodeFinder } from "../points/tree-diff.ts";
import type { Plan, PlannedEntry } from "./plan.ts";

/** A hard-link group's member that is already right, with its node in the target. */
export interface Anchor {
  path: Uint8Array;
  node: TreeNode;
}

/** The hard-link groups of which a restore puts members in place. */
export interface RestoreLinks {
  /** by a group's number in the target: the member in the folder that the other members are linked to */
  anchors: ReadonlyMap<bigint, Anchor>;
  /** paths put in place without a link to group members that were not selected */
  apart: Uint8Array[];
}

/**
 * Finds the anchors: members that are already right, also outside the selected paths, and members that lack only the
 * link. `unasked`: differences outside the selected paths.
 */
export function linksOf(restore: {
  plan: Plan;
  unasked: readonly Difference[];
  target: TreeSource;
  source: TreeSource;
  scan: ScanResult;
}): RestoreLinks {
  const put = Iterator.from(restore.plan).filter(isPut).toArray();
  const wanted = putGroups(put);
  if (wanted.size === 0) return { anchors: new Map(), apart: [] };
  const anchors = unchangedMembers(restore, wanted);
  // The present group number of each anchor.
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

function isPut({ after, action }: PlannedEntry): boolean {
  return groupOf(after) !== 0n && PUTS.has(action);
}

/** Returns the numbers of the hard-link groups of which a plan puts members in place. */
export function putGroups(plan: Iterable<PlannedEntry>): Set<bigint> {
  return new Set(
    Iterator.from(plan)
      .filter(isPut)
      .map(({ after }) => groupOf(after)),
  );
}

/** Selects the differences in hard-link groups whose entries are not planned. */
export function otherNames(plan: Plan, all: Iterable<Difference>): Difference[] {
  const planned = new Set(Iterator.from(plan).map(({ path }) => latin1(path)));
  return Iterator.from(all)
    .filter(({ path, after }) => groupOf(after) !== 0n && !planned.has(latin1(path)))
    .toArray();
}

const PUTS: ReadonlySet<PlannedEntry["action"]> = new Set(["create", "update"]);

/** Returns the number of the target's hard-link group that an entry is in; 0 if in none. */
export function groupOf(after: Difference["after"]): bigint {
  return after?.inode ?? 0n;
}

function unchangedMembers(
  { plan, target, source, scan }: Parameters<typeof linksOf>[0],
  wanted: ReadonlySet<bigint>,
): Map<bigint, Anchor> {
  const anchors = new Map<bigint, Anchor>();
  const changed = new Set(Iterator.from(plan).map(({ path: where }) => latin1(where)));
  const nodes = { is: new NodeFinder(source), should: new NodeFinder(target) };
  for (const [, group] of scan.groups) {
    if (!wanted.has(group.inode) || changed.has(latin1(group.first))) continue;
    const is = nodes.is.at(group.first);
    const should = nodes.should.at(group.first);
    if (is !== null && should !== null && differences(is, should).length === 0)
      anchors.set(group.inode, { path: group.first, node: should });
  }
  return anchors;
}
