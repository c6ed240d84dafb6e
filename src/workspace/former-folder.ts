import { statSync } from "node:fs";
import { rawPath } from "../formats/record.ts";
import { printablePath, shellPath } from "../fs/safe-path.ts";
import { readWorkspace } from "./control-directory.ts";
import { controlPaths } from "./control-layout.ts";
import { controlOf, listRegistered } from "./registry.ts";

/**
 * What is to be said of a folder that was just adopted and seems to be one that is kept at a path where nothing is any more:
 * it has the number of that one on its file system. Null where none does; numbers are used again, so that is all it is.
 */
export function seemsMoved(folder: Buffer): string | null {
  const facts = statSync(folder, { bigint: true });
  const madeAt = Number(facts.birthtimeNs / 1_000_000n);
  for (const { registration, missing } of listRegistered()) {
    if (registration === null || missing.join() !== "folder") continue;
    // The number of a folder that was removed is mostly the next one's.
    if (madeAt > Date.parse(registration.registered_at)) continue;
    const was = Buffer.from(rawPath(registration));
    try {
      const known = readWorkspace(controlPaths(controlOf(registration)), registration.workspace_name);
      if (known?.root_inode !== facts.ino.toString() || known.device !== facts.dev.toString()) continue;
    } catch {
      // Its own commands say what is wrong with it.
      continue;
    }
    const [from, to] = [shellPath(was), shellPath(folder)];
    return `${printablePath(was)} is kept, is not there any more, and may be this folder; to go on with its save points: cairn release ${to} && cairn relocate ${from} ${to}`;
  }
  return null;
}
