import { lstatSync } from "node:fs";
import { losslessByPath, OwnersByName } from "../../archive/write/exact-nodes.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import { isFree } from "../../workspace/new-folder/new-folder.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import type { DeadPartial } from "../../workspace/place/partials.ts";
import { nodesOrNull } from "../databases/nodes.ts";
import { ownFolder } from "../open/own-folder.ts";
import { entryAt } from "../open/paths.ts";
import { OverFolder } from "./over-folder.ts";
import type { WriterParts } from "./write-snapshot.ts";

export type { OverFolder } from "./over-folder.ts";

type OverParts = Omit<WriterParts, "listed" | "paths" | "comparesPieces">;

/** Compares a folder with the chosen entries. Warns if no undo can restore the folder's present state. */
export async function planOver(parts: OverParts): Promise<{ folder: OverFolder; paths: readonly Uint8Array[] | null }> {
  const { session, content, target, options } = parts;
  const { root, only, manifest } = content;
  await session.bring([root]);
  const owners = options.ownershipByName === true ? new OwnersByName() : null;
  const folder = new OverFolder({
    target,
    root,
    nodes: async (tree) => nodesOrNull(session.reader, tree),
    lossless: losslessByPath(manifest?.lossless ?? []),
    chosen: parts.chosen ?? (only === null ? null : [only]),
    overwrite: options.overwrite ?? "never",
    ownersOf: (node) => owners?.of(node) ?? node,
    takeOwnership: options.takeOwnership === true,
    signal: options.signal,
  });
  try {
    const paths = await folder.plan();
    await requireNotOver(parts, paths);
    const { overwrite, dryRun, onWarning } = options;
    const workspace = overwrite === "never" || dryRun === true ? null : findWorkspace(target);
    if (workspace !== null)
      onWarning?.(
        `${printablePath(workspace.folder)} is a workspace, and undo cannot bring back files that this restore overwrites: run \`cairn save\` first, or restore with --in-place`,
      );
    return { folder, paths };
  } catch (error) {
    folder.close();
    throw error;
  }
}

export const GIVE_OVERWRITE = advice`name a new or an empty folder, or give ${option({ overwrite: "if-changed" })}`;

/** True if a target (its real path) is a folder with entries other than unfinished restores. */
export function hasEntries(target: Buffer, left: readonly DeadPartial[]): boolean {
  return lstatSync(target, { throwIfNoEntry: false })?.isDirectory() === true && !isFree(target, left);
}

/** Throws `refused` if a restore would write into the repository's own folder. `paths` null: everything. */
async function requireNotOver(
  { access, target, session, content }: OverParts,
  paths: readonly Uint8Array[] | null,
): Promise<void> {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(own, target)) return;
  const path = own.subarray(target.length + 1);
  if (paths !== null && new PathSelection(paths).of(path) === "no") return;
  if ((await entryAt(session.reader, content, path).catch(() => null)) === null) return;
  throw new CairnError("refused", `the repository ${printablePath(own)} lies in the folder, and would be overwritten`, {
    hint: "name only other paths, or another folder",
  });
}
