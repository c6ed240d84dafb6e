import fs from "node:fs";
import { rootMetadata } from "../engines/root-metadata.ts";
import { directoryNode } from "../engines/copy/snapshot-tree.ts";
import type { RootMetadata } from "../engines/engine.ts";
import type { ChangeCounts } from "../engines/scan/summary.ts";
import type { DescriptorContent } from "../formats/descriptor.ts";
import type { TreeNode } from "../formats/tree.ts";
import type { Point } from "./point-files.ts";
import { differences, type Difference } from "./tree-diff.ts";

/**
 * What the workspace's own folder is, which no tree holds: its mode and owner are part of what a whole restore gives
 * back, so they count as a change. Its times do not: they move with each entry that comes or goes.
 */

/** The path by which the folder itself goes. */
export const OWN_PATH: Uint8Array = new Uint8Array(0);
const NOTHING = new Uint8Array(32);

/** As a point has it. */
export function rootOfPoint({ descriptor }: Pick<Point, "descriptor">): RootMetadata {
  return rootOfContent(descriptor.content);
}

export function rootOfContent(content: object): RootMetadata {
  const { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs } = (content as DescriptorContent).root;
  return { mode, uid, gid, mtimeSec, mtimeNs };
}

/** As it is now; null where it is not there. */
export function rootOfFolder(folder: Buffer): RootMetadata | null {
  return fs.existsSync(folder) ? rootMetadata(folder) : null;
}

/** Null where the two are alike, or one is not known. */
export function rootDifference(before: RootMetadata | null, after: RootMetadata | null): Difference | null {
  if (before === null || after === null) return null;
  const [was, is] = [before, after].map((root) => directoryNode(OWN_PATH, NOTHING, root)) as [TreeNode, TreeNode];
  const aspects = differences(was, is).filter((aspect) => aspect === "mode" || aspect === "owner");
  return aspects.length === 0 ? null : { path: OWN_PATH, before: was, after: is, aspects };
}

export function isSameRoot(before: RootMetadata | null, after: RootMetadata | null): boolean {
  return rootDifference(before, after) === null;
}

/** The counts with the folder's own change. */
export function countRoot(
  changes: ChangeCounts,
  before: RootMetadata | null,
  after: RootMetadata | null,
): ChangeCounts {
  return isSameRoot(before, after) ? changes : { ...changes, modified: changes.modified + 1 };
}
