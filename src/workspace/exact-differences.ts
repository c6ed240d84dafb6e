import { comparePaths } from "../formats/bytes.ts";
import { isDeepStrictEqual } from "node:util";
import type { TreeSource } from "../engines/engine.ts";
import { linkGroupNumber } from "../engines/scan/link-groups.ts";
import { exactNode, type LosslessByPath, losslessByPath } from "../engines/write/exact-nodes.ts";
import type { LosslessField } from "../formats/manifest.ts";
import type { TreeNode } from "../formats/tree.ts";
import { type Difference, differences, diffTrees, NodeFinder } from "./tree-diff.ts";

/** What the manifests of two states say of entries whose nodes cannot. */
export interface ExactFields {
  before: readonly LosslessField[];
  after: readonly LosslessField[];
}

/** The differences of two states in raw pre-order, also where only their manifests tell them apart. */
export function exactDifferences(before: TreeSource, after: TreeSource, fields: ExactFields): Iterable<Difference> {
  if (fields.before.length === 0 && fields.after.length === 0) return diffTrees(before, after);
  const maps = { before: losslessByPath(fields.before), after: losslessByPath(fields.after) };
  const nodes = { before: new NodeFinder(before), after: new NodeFinder(after) };
  const found = new Map<string, Difference>();
  for (const difference of diffTrees(before, after)) found.set(key(difference.path), exact(difference, maps));
  for (const path of new Set([...maps.before.keys(), ...maps.after.keys()])) {
    // Of what both say the same the nodes tell all.
    if (found.has(path) || isDeepStrictEqual(maps.before.get(path), maps.after.get(path))) continue;
    const raw = Buffer.from(path, "latin1");
    const sides = { before: nodes.before.at(raw), after: nodes.after.at(raw) };
    if (sides.before !== null && sides.after !== null)
      found.set(path, exact({ path: raw, ...sides, aspects: [] }, maps));
  }
  return [...found.values()]
    .filter(({ before: old, after: now, aspects }) => old === null || now === null || aspects.length > 0)
    .toSorted((a, b) => comparePaths(a.path, b.path));
}

function exact(difference: Difference, maps: { before: LosslessByPath; after: LosslessByPath }): Difference {
  const { path } = difference;
  const before = withFields(difference.before, maps.before.get(key(path)));
  const after = withFields(difference.after, maps.after.get(key(path)));
  return { path, before, after, aspects: before === null || after === null ? [] : differences(before, after) };
}

function withFields(node: TreeNode | null, fields: readonly LosslessField[] | undefined): TreeNode | null {
  if (node === null || fields === undefined) return node;
  const made = exactNode(node, fields);
  const link = fields.find(({ field }) => field === "hard_link");
  return link === undefined ? made : { ...made, inode: linkGroupNumber(link.value), links: 2 };
}

function key(path: Uint8Array): string {
  return Buffer.from(path).toString("latin1");
}
