import { lstatSync } from "node:fs";
import { losslessByPath } from "../../archive/write/exact-nodes.ts";
import type { RestoreBackupOptions } from "../../contract/snapshots.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import { isFree } from "../../workspace/new-folder/new-folder.ts";
import { type DeadPartial } from "../../workspace/place/partials.ts";
import { OverFolder } from "../../workspace/new-folder/over-folder.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import { type SnapshotContent } from "../open/content.ts";
import { nodesOrNull } from "../databases/nodes.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { ownFolder } from "../open/own-folder.ts";
import { entryAt } from "../open/paths.ts";
import type { Session } from "../open/session.ts";

export type { OverFolder } from "../../workspace/new-folder/over-folder.ts";

interface OverParts {
  access: OpenRepository;
  session: Session;
  content: SnapshotContent;
  /** raw paths; null: everything */
  chosen: readonly Uint8Array[] | null;
  options: RestoreBackupOptions;
  target: Buffer;
}

/** Compares a non-empty target with the chosen entries, and warns if no undo can restore its present state. */
export async function planOver(parts: OverParts): Promise<{ folder: OverFolder; paths: readonly Uint8Array[] | null }> {
  const { access, session, content, target, options } = parts;
  const { root, only, manifest } = content;
  const { signal, overwrite = "never" } = options;
  await session.bring([root]);
  const folder = new OverFolder({
    target,
    root,
    nodes: async (tree) => nodesOrNull(session.reader, tree),
    lossless: losslessByPath(manifest?.lossless ?? []),
    chosen: parts.chosen ?? (only === null ? null : [only]),
    overwrite,
    signal,
  });
  try {
    const paths = await folder.plan();
    await requireNotOver(access, target, { reader: session.reader, content, paths });
    const workspace = overwrite === "never" || options.dryRun === true ? null : findWorkspace(target);
    if (workspace !== null)
      options.onWarning?.(
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

/** Throws `refused` if a restore over a folder (its real path) would write into the repository's own folder. `paths` null: everything. */
async function requireNotOver(
  access: OpenRepository,
  folder: Buffer,
  what: { reader: BlobSource; content: SnapshotContent; paths: readonly Uint8Array[] | null },
): Promise<void> {
  const own = ownFolder(access);
  if (own === null || !isAtOrBelow(own, folder)) return;
  const path = own.subarray(folder.length + 1);
  if (what.paths !== null && new PathSelection(what.paths).of(path) === "no") return;
  if ((await entryAt(what.reader, what.content, path).catch(() => null)) === null) return;
  throw new CairnError("refused", `the repository ${printablePath(own)} lies in the folder, and would be overwritten`, {
    hint: "name only other paths, or another folder",
  });
}
