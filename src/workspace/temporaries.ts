import fs from "node:fs";
import path from "node:path";
import { removeLeftovers } from "../fs/durable.ts";
import { removeDeadWorkDirectories } from "../fs/work-directory.ts";
import type { Workspace } from "./workspace.ts";

/** No cache takes this long to be written. */
const OLD_CACHE_MS = 600_000;

/** Removes what killed processes left under temporary names; cheap. For the holder of the workspace's lock. */
export function removeTemporaries({ found }: Workspace): void {
  const { control, paths, controlFile } = found;
  removeDeadWorkDirectories(control.temporary);
  for (const directory of [paths.root, paths.journal]) removeLeftovers(directory, undefined, { exclusive: true });
  removeLeftovers(control.root);
  // Whoever writes there at this moment does without what it was writing.
  removeLeftovers(control.cache, undefined, { exclusive: true });
  // A killed attempt to make it lies beside a self-contained control directory.
  if (controlFile.self_contained) removeLeftovers(path.dirname(control.root));
  removeOldCaches(control.cache);
}

function removeOldCaches(directory: string): void {
  try {
    for (const name of fs.readdirSync(directory)) {
      if (!/\.\d+(-\d+)?(\.tmp)?$/.test(name)) continue;
      const place = path.join(directory, name);
      if (Date.now() - fs.lstatSync(place).mtimeMs > OLD_CACHE_MS) fs.rmSync(place, { force: true });
    }
  } catch {
    // Caches cost nothing but room.
  }
}
