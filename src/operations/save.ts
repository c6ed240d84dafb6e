import { publicLeftOut } from "../workspace/left-out.ts";
import { saveWorkspace } from "../workspace/save.ts";
import type { Workspace } from "../workspace/workspace.ts";
import { checkedCause } from "./cause.ts";
import type { SaveOptions, SaveResult } from "../contract/points.ts";
import { publicPoint } from "./public-point.ts";
import { checkTags } from "../formats/snapshot.ts";

/** Saves the folder as it is. Throws `usage` for a cause or a tag that is none. */
export async function save(workspace: Workspace, options: SaveOptions): Promise<SaveResult> {
  const started = performance.now();
  checkTags(options.tags ?? []);
  const cause = options.cause === undefined ? {} : { cause: checkedCause(options.cause) };
  const saved = await saveWorkspace(workspace, { ...options, ...cause });
  return {
    ...publicPoint(saved.point),
    made: saved.made,
    changes: saved.changes,
    read_bytes: saved.readBytes,
    duration_ms: Math.round(performance.now() - started),
    left_out: saved.leftOut.map(publicLeftOut),
  };
}
