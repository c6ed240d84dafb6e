import { mkdirSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { durableMkdir, durableRename, durableWrite } from "../fs/durable.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";
import type { ControlPaths } from "./control-layout.ts";

/**
 * Writes a record of the whole control directory durably where several processes write without a common lock. What a
 * kill leaves lies among the unfinished things of processes, so that whoever comes next can tell that it may go.
 */
export function writeRecord(control: ControlPaths, path: string, bytes: Uint8Array): void {
  const work = newWorkDirectory(control.temporary);
  mkdirSync(work, { recursive: true, mode: 0o700 });
  try {
    durableMkdir(dirname(path));
    const staged = join(work, basename(path));
    durableWrite(staged, bytes, { syncDirectory: false });
    durableRename(staged, path);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
