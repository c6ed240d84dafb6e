import { basename, dirname, join } from "node:path";
import { toCairnError } from "../errors.ts";
import { durableMkdir, durableRename, durableWrite } from "../fs/durable.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { ControlPaths } from "./control-layout.ts";
import { clearAway } from "../fs/remove-all.ts";

/**
 * Writes a record of the whole control directory durably where several processes write without a common lock. What a
 * kill leaves lies among the unfinished things of processes, so that whoever comes next can tell that it may go.
 */
export function writeRecord(control: ControlPaths, path: string, bytes: Uint8Array): void {
  const work = newWorkDirectory(control.temporary);
  try {
    makeFolder(work);
    durableMkdir(dirname(path));
    const staged = join(work, basename(path));
    durableWrite(staged, bytes, { syncDirectory: false });
    durableRename(staged, path);
  } catch (error) {
    throw toCairnError(error, `write ${path}`);
  } finally {
    clearAway(work);
  }
}
