import fs from "node:fs";
import { type NotSet, setDirectory } from "../../archive/write/node-writer.ts";
import { directoryNode, modeToSet, rootMetadata, type RootMetadata } from "../../archive/write/root-metadata.ts";
import type { ChangeCounts } from "../../archive/scan/summary.ts";
import type { DescriptorContent } from "../../formats/records/descriptor.ts";
import type { DirectoryFacts } from "../../formats/records/restore.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { mayBeSameId, NO_ID } from "../../fs/linux/user-namespace.ts";
import { inDirectory } from "../../fs/linux/syscalls.ts";
import type { Point } from "./point-files.ts";
import type { DiffAspect, Difference } from "./tree-diff.ts";

/**
 * Compares the workspace's own folder, which no tree holds. A whole restore sets its mode and owner, so these count as
 * a change. Its times do not count: they change with each entry that is added or removed.
 */

/** The path that stands for the folder itself. */
const OWN_PATH: Uint8Array = new Uint8Array(0);
const NOTHING = new Uint8Array(32);

/** Metadata of the folder in a point. */
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

/** Present metadata of a folder; null if the folder is missing. */
export function rootOfFolder(folder: Buffer): RootMetadata | null {
  return fs.existsSync(folder) ? rootMetadata(folder) : null;
}

/** Returns the metadata to set so that a folder is like in a point. The folder keeps its access list. */
export function rootToSet(folder: Buffer, point: Point): DirectoryFacts {
  const { uid, gid, mtimeSec, mtimeNs, ...own } = rootOfPoint(point);
  const present = rootMetadata(folder);
  const owner = { uid: uid === NO_ID ? present.uid : uid, gid: gid === NO_ID ? present.gid : gid };
  return { mode: modeToSet(own, present), ...owner, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Sets a folder's own mode, owner and times. Returns the aspects that could not be set. */
export function setRoot(folder: Buffer, facts: DirectoryFacts): NotSet[] {
  return inDirectory(folder, (fd) => setDirectory(fd, facts));
}

/** Gives a folder the mode, owner, times and attributes of a directory in a tree. Returns the aspects that could not be set. */
export function setLikeNode(folder: Buffer, node: TreeNode): NotSet[] {
  const { mode, uid, gid, mtimeSec, mtimeNs, xattrs } = node;
  const facts = { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
  return inDirectory(folder, (fd) => setDirectory(fd, facts, { xattrs }));
}

/** Returns the difference that restoring `wanted` over `present` would make; null if there is none, or one of them is unknown. */
export function rootDifference(wanted: RootMetadata | null, present: RootMetadata | null): Difference | null {
  if (wanted === null || present === null) return null;
  const aspects: DiffAspect[] = [];
  if (modeToSet(wanted, present) !== present.mode) aspects.push("mode");
  if (!mayBeSameId(wanted.uid, present.uid) || !mayBeSameId(wanted.gid, present.gid)) aspects.push("owner");
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

/** Adds a change of the folder itself to the counts. */
export function countRoot(
  changes: ChangeCounts,
  since: RootMetadata | null,
  present: RootMetadata | null,
): ChangeCounts {
  return isSameRoot(since, present) ? changes : { ...changes, modified: changes.modified + 1 };
}
