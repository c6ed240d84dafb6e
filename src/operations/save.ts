import { displayPath } from "../fs/safe-path.ts";
import type { Point } from "../workspace/point-files.ts";
import { type LeftOutEntry, leftOutOfPoint, SHOWN_LEFT_OUT } from "../workspace/left-out.ts";
import { saveWorkspace } from "../workspace/save.ts";
import type { Workspace } from "../workspace/workspace.ts";
import { checkedCause } from "./cause.ts";
import type { Aspect, Incomplete, LeftOut } from "../contract/words.ts";
import type { SaveOptions, SaveResult } from "../contract/points.ts";
import { publicPoint } from "./public-point.ts";
import { checkTags } from "./marks.ts";

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

export function publicLeftOut({ path, reason, detail, aspects }: LeftOutEntry): LeftOut {
  return { ...displayPath(path), reason, detail, ...(aspects === undefined ? {} : { aspects: aspects as Aspect[] }) };
}

/** What a point lacks of the folder; null where it is whole. */
export function incompleteOf({ descriptor }: Point): Incomplete | null {
  if (descriptor.complete) return null;
  const { entries, count } = leftOutOfPoint(descriptor);
  return { count, left_out: entries.slice(0, SHOWN_LEFT_OUT).map(publicLeftOut) };
}
