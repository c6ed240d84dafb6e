import type { GuardName } from "../../contract/words.ts";
import { advice, CairnError, line, option, see, word } from "../../errors.ts";
import { flushing } from "../../fs/linux/flush.ts";
import { openToUmask } from "../../fs/make-folder.ts";
import { isAtOrBelow, printablePath, quotedPath, shellQuote } from "../../fs/paths/safe-path.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { realPathOf } from "../place/find-workspace.ts";
import { checkLocation } from "../place/guards.ts";
import { notSetEntry } from "../points/left-out.ts";
import { neverRead, type Point } from "../points/point-files.ts";
import { rootToSet } from "../points/root-changes.ts";
import { findNode } from "../points/tree-diff.ts";
import { lackingPath } from "../rules/absolute.ts";
import { NewFolder, requireFree } from "./new-folder.ts";
import { recoverPartials } from "./recover-folders.ts";
import {
  checkRoomFor,
  type Part,
  requireStillThere,
  setOwn,
  writeContent,
  writeWhole,
  type WrittenFolder,
} from "./write-point.ts";

/** Throws `refused` for a target inside the workspace, which the next point would include. */
export function requireOutside(workspace: Workspace, target: Buffer): void {
  if (!isAtOrBelow(target, workspace.root)) return;
  throw new CairnError("refused", `${printablePath(target)} lies inside the workspace`, {
    hint: advice`name a place outside the workspace, or restore without ${option("to")}, into the workspace's folder itself`,
  });
}

export interface RestoreToInput extends WorkspaceCall {
  point: Point;
  to: string;
  /** Raw path of the folder of the point whose entries are written; empty: the root. */
  below?: Uint8Array;
  /** raw paths below the root, also those below `below`; null: everything */
  paths: readonly Uint8Array[] | null;
  allow?: readonly GuardName[] | undefined;
}

/**
 * Writes a point, a folder of it, or some of its paths, into an absent or empty folder elsewhere. The content is durable
 * before the folder gets its name. After a kill the next command removes the rest.
 */
export async function restoreTo(workspace: Workspace, input: RestoreToInput): Promise<WrittenFolder> {
  const { point, below = new Uint8Array(0) } = input;
  await recoverPartials(workspace, input);
  if (!point.sealed) throw neverRead(point);
  const target = realPathOf(input.to);
  requireFree(target);
  checkLocation(target, { allow: ["home", "nested", "git"] });
  requireOutside(workspace, target);
  return workspace.engine.reading(async () => {
    requireStillThere(workspace, point);
    const part = below.length === 0 ? undefined : await partOf(workspace, point, below);
    if (input.paths !== null) await requirePaths(workspace, point, input.paths);
    else if (part === undefined) await checkRoomFor(workspace, point, { target, allow: input.allow });
    const paths =
      part === undefined ? input.paths : (input.paths?.map((path) => path.subarray(below.length + 1)) ?? null);
    const partial = NewFolder.begin(workspace.found.control, "restore", target, { unrecorded: true });
    const { movesIn } = partial;
    try {
      const written = await flushing(partial.staging, async () => {
        if (paths === null && part === undefined) return writeWhole(workspace, { ...input, partial });
        partial.noteMade();
        return writeContent(workspace, { ...input, part, paths, folder: partial.staging, movesIn });
      });
      if (paths !== null) openToUmask(partial.staging);
      const isFilled = movesIn && paths === null;
      partial.commit(isFilled ? (part?.node ?? rootToSet(target, point)).mode : undefined);
      if (isFilled) for (const each of setOwn(target, { point, part })) written.leftOut.push(notSetEntry(each));
      partial.end();
      return written;
    } catch (error) {
      partial.abandon(input.onWarning);
      throw error;
    }
  }, input);
}

/** Returns a directory of a point. Throws `not_found`, and `conflict` for another entry. */
async function partOf(workspace: Workspace, point: Point, path: Uint8Array): Promise<Part> {
  await requirePaths(workspace, point, [path]);
  const node = findNode(await workspace.source(point), path)!;
  if (node.type === "dir") return { path, node };
  const id = point.descriptor.save_point_id.slice(0, 8);
  const name = printablePath(path);
  throw new CairnError("conflict", `${quotedPath(path)} is not a folder in the save point ${id}`, {
    hint: advice`restore it by its path: ${line(`restore ${id} ${shellQuote(name)} --to DIR`, "restore", { target: id, paths: [name], to: word("to") })}`,
  });
}

async function requirePaths(workspace: Workspace, point: Point, paths: readonly Uint8Array[]): Promise<void> {
  const path = lackingPath(paths, await workspace.source(point));
  if (path === null) return;
  throw new CairnError(
    "not_found",
    `${quotedPath(path)} is not in the save point ${point.descriptor.save_point_id.slice(0, 8)}`,
    { hint: see("show POINT", "show", word("point")) },
  );
}
