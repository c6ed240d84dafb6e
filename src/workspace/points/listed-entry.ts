import type { EntryKind } from "../../contract/words.ts";
import type { EntryChange, ListedEntry } from "../../contract/index.ts";
import type { DiffAspect } from "./tree-diff.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";

/** The largest time of a Date in ms; times beyond are shown as this one. */
const LAST_MS = 8.64e15;

const KINDS: Record<TreeNode["type"], EntryKind> = {
  file: "file",
  dir: "directory",
  symlink: "symlink",
  fifo: "fifo",
  socket: "socket",
  chardev: "chardev",
  dev: "blockdev",
  irregular: "file",
};

export function kindOf(node: TreeNode): EntryKind {
  return KINDS[node.type];
}

/** Returns the change from one entry of a path to the next; null for none. `aspects`: those in which both differ. */
export function changeOf(was: TreeNode | null, now: TreeNode | null, aspects: DiffAspect[]): EntryChange | null {
  const node = now ?? was;
  if (node === null || (was !== null && now !== null && aspects.length === 0)) return null;
  return {
    change: was === null ? "added" : now === null ? "removed" : "modified",
    kind: kindOf(node),
    aspects,
    ...(was?.type === "file" ? { size_before: was.size } : {}),
    ...(now?.type === "file" ? { size_after: now.size } : {}),
  };
}

/** Converts an entry to the form that the library returns. */
export function listedEntry(node: TreeNode, name: Uint8Array): ListedEntry {
  const target = node.linktarget === undefined ? undefined : displayPath(node.linktarget);
  return {
    ...displayPath(name),
    kind: kindOf(node),
    mode: node.mode,
    size: node.size,
    modified_at: isoTime(node),
    uid: node.uid,
    gid: node.gid,
    user: node.user,
    group: node.group,
    ...(target === undefined
      ? {}
      : { target: target.path, ...(target.path_b64 === undefined ? {} : { target_b64: target.path_b64 }) }),
  };
}

function isoTime(node: TreeNode): string {
  const ms = node.mtimeSec * 1000 + Math.floor(node.mtimeNs / 1e6);
  return new Date(Math.max(-LAST_MS, Math.min(LAST_MS, ms))).toISOString();
}
