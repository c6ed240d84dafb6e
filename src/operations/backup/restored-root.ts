import { setDirectory } from "../../engines/root-metadata.ts";
import { openToUmask } from "../../fs/make-folder.ts";
import { inDirectory } from "../../fs/syscalls.ts";
import { notSetEntry } from "../../workspace/restore-left-out.ts";
import type { LeftOut } from "../contract.ts";
import { publicLeftOut } from "../save.ts";
import type { SnapshotContent } from "./snapshot-content.ts";

/**
 * Gives a folder that a snapshot was written into its own mode, owner and time; as new folders have them where nothing tells
 * of those (`node`). Returns what could not be set.
 */
export function setRestoredRoot(folder: Buffer, node: SnapshotContent["node"]): LeftOut[] {
  if (node === null) {
    openToUmask(folder);
    return [];
  }
  const { mode, uid, gid, mtimeSec, mtimeNs, xattrs } = node;
  const facts = { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
  return inDirectory(folder, (fd) => setDirectory(fd, facts, { xattrs }))
    .map(notSetEntry)
    .map(publicLeftOut);
}
