import fs from "node:fs";
import { type NotSet, setDirectory } from "../../archive/write/node-writer.ts";
import { modeToSet, rootMetadata, type RootMetadata } from "../../archive/write/root-metadata.ts";
import { directoryNode } from "../store/snapshot-tree.ts";
import type { ChangeCounts } from "../../archive/scan/summary.ts";
import type { DescriptorContent } from "../../formats/records/descriptor.ts";
import type { DirectoryFacts } from "../../formats/records/restore.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { inDirectory } from "../../fs/linux/syscalls.ts";
import type { Point } from "./point-files.ts";
import type { DiffAspect, Difference } from "./tree-diff.ts";

/**
 * Compares the workspace's own folder, which no tree holds: its mode and owner are part of what a whole restore gives
 * back, so they count as a change. Its times do not: they move with each entry that comes or goes.
 */

/** The path by which the folder itself goes. */
const OWN_PATH: Uint8Array = new Uint8Array(0);
const NOTHING = new Uint8Array(32);

/** As a point has it. */
export function rootOfPoint({ descriptor }: Pick<Point, "descriptor">): RootMetadata {
  return rootOfContent(descriptor.content);
}

export function rootOfContent(content: object): RootMetadata {
  const {
    mode,
    uid,
    gid,
    mtime_sec: mtimeSec,
    mtime_ns: mtimeNs,
    acl_group: aclGroup,
  } = (content as DescriptorContent).root;
  return { mode, uid, gid, mtimeSec, mtimeNs, aclGroup: aclGroup ?? undefined };
}

/** As it is now; null where it is not there. */
export function rootOfFolder(folder: Buffer): RootMetadata | null {
  return fs.existsSync(folder) ? rootMetadata(folder) : null;
}

/** Returns what a folder is to be set to, to be as a point has it; the access list that it has stays. */
export function rootToSet(folder: Buffer, point: Point): DirectoryFacts {
  const { uid, gid, mtimeSec, mtimeNs, ...own } = rootOfPoint(point);
  return { mode: modeToSet(own, rootMetadata(folder)), uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Sets a folder's own mode, owner and times; returns what could not be set. */
export function setRoot(folder: Buffer, facts: DirectoryFacts): NotSet[] {
  return inDirectory(folder, (fd) => setDirectory(fd, facts));
}

/**
 * Returns what giving back one of two states would change of the other; null where nothing, or where one is not known.
 */
export function rootDifference(wanted: RootMetadata | null, present: RootMetadata | null): Difference | null {
  if (wanted === null || present === null) return null;
  const aspects: DiffAspect[] = [];
  if (modeToSet(wanted, present) !== present.mode) aspects.push("mode");
  if (wanted.uid !== present.uid || wanted.gid !== present.gid) aspects.push("owner");
  if (aspects.length === 0) return null;
  const [before, after] = [wanted, present].map((root) => directoryNode(OWN_PATH, NOTHING, root)) as [
    TreeNode,
    TreeNode,
  ];
  return { path: OWN_PATH, before, after, aspects };
}

export function isSameRoot(wanted: RootMetadata | null, present: RootMetadata | null): boolean {
  return rootDifference(wanted, present) === null;
}

/** The counts with the folder's own change since. */
export function countRoot(
  changes: ChangeCounts,
  since: RootMetadata | null,
  present: RootMetadata | null,
): ChangeCounts {
  return isSameRoot(since, present) ? changes : { ...changes, modified: changes.modified + 1 };
}
