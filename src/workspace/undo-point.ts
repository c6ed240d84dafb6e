import type { Cause, Descriptor, IgnoreRules } from "../formats/descriptor.ts";
import { type IgnoreRecord, NO_RULES } from "../fs/ignore.ts";
import type { SavePointId } from "../ids.ts";

/** What a restore says of the point that it makes of what was there, and by what such a point is known. */

export function beforeRestore(
  kind: "restore" | "undo",
  target: SavePointId,
  cause: Cause | undefined,
): { message: string; cause: Cause } {
  const message = kind === "undo" ? "before undo" : `before restore of ${target.slice(0, 8)}`;
  return { message, cause: { ...cause, kind, restored_to: target } };
}

/**
 * Whether a point holds all of its tree, whatever ignore files lie in it: what a restore displaced is held whole. Earlier
 * versions wrote of such a point too that ignore files have a part in it.
 */
export function isOfAll({ undo, content }: Pick<Descriptor, "undo" | "content">): boolean {
  return undo && content.held !== undefined;
}

/** The rules by which what a point stands for is read again: those of the ignore files that lie there where this is null. */
export function rulesToReadBy(descriptor: Pick<Descriptor, "undo" | "content">): IgnoreRecord | null {
  return isOfAll(descriptor) ? NO_RULES : null;
}

/** The rules of a point that {@link isOfAll}. */
export function noRules(): IgnoreRules {
  return { ignore_file: false, exclude: [], files: [], ignored_count: 0, ignored_sample: [] };
}
