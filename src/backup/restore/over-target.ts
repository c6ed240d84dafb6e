import { lstatSync } from "node:fs";
import { losslessByPath, OwnersByName } from "../../archive/write/exact-nodes.ts";
import type { PlanEntry } from "../../contract/points.ts";
import { advice, CairnError, call, option } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { planIdOf, requirePlan } from "../../crypto/plan-id.ts";
import { plural } from "../../formats/sizes.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { displayPath, isAtOrBelow, printablePath } from "../../fs/paths/safe-path.ts";
import { isFree } from "../../workspace/new-folder/new-folder.ts";
import { kindOf } from "../../workspace/points/listed-entry.ts";
import { changedLast } from "../../workspace/restore/prepare.ts";
import { findWorkspace } from "../../workspace/place/find-workspace.ts";
import type { DeadPartial } from "../../workspace/place/partials.ts";
import { nodesOrNull } from "../../archive/databases/nodes.ts";
import { ownFolder } from "../open/own-folder.ts";
import { entryAt } from "../open/paths.ts";
import { OverFolder } from "./over-folder.ts";
import type { WriterParts } from "./write-snapshot.ts";

export type { OverFolder } from "./over-folder.ts";

type OverParts = Omit<WriterParts, "paths" | "comparesPieces">;

/** The entries that a restore over a folder would write, as a caller is shown them. */
export interface ShownOver {
  id: string;
  entries: PlanEntry[];
}

/**
 * Compares a folder with the chosen entries. Warns if no undo can restore the folder's present state. Throws `stale_plan`
 * if the caller was shown another plan.
 */
export async function planOver(
  parts: OverParts,
): Promise<{ folder: OverFolder; paths: readonly Uint8Array[] | null; shown: ShownOver | undefined }> {
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
    const isShown = options.dryRun === true || options.plan !== undefined;
    const shown = isShown ? shownOver(folder, parts) : undefined;
    if (shown !== undefined)
      requirePlan(
        options.plan,
        shown.id,
        () =>
          `it would write ${plural(shown.entries.length, "entry")} now${changedLast(folder.puts.filter(({ old }) => old !== null))}`,
      );
    const { overwrite, dryRun, onWarning } = options;
    const workspace = overwrite === "never" || dryRun === true ? null : findWorkspace(target);
    if (workspace !== null)
      onWarning?.(
        `${printablePath(workspace.folder)} is a workspace, and undo cannot bring back files that this restore overwrites: run \`cairn save\` first, or restore with --in-place`,
      );
    return { folder, paths, shown };
  } catch (error) {
    folder.close();
    throw error;
  }
}

/**
 * The plan's id covers the kind, mode, owner, size and times of a present entry. This restore reads no content, and no undo
 * brings back a replaced file, so the change time stands for content and attributes.
 */
function shownOver({ puts, leftOut }: OverFolder, { listed, target, chosen, options }: OverParts): ShownOver {
  const { overwrite, ownershipByName, takeOwnership } = options;
  const how = [overwrite, ownershipByName === true, takeOwnership === true, chosen?.map(hex).toSorted() ?? null];
  const facts = puts.map(({ path, old, was: { uid, gid } }) => [
    hex(path),
    old && [old.mode, old.size, old.mtimeSec, old.mtimeNs, old.ctimeSec, old.ctimeNs, uid, gid],
  ]);
  const stays = leftOut.map(({ path, reason }) => [hex(path), reason]);
  return {
    id: planIdOf(["restore over", listed.id, hex(target), how, stays, ...facts]),
    entries: puts.map(({ path, old, wanted }) => ({
      ...displayPath(path),
      action: old === null ? "create" : "update",
      kind: kindOf(wanted),
      ...(wanted.type === "file" ? { size: wanted.size } : {}),
    })),
  };
}

export const GIVE_OVERWRITE = advice`name a new or an empty folder, or give ${option({ overwrite: "if-changed" })} to ${call("backup restore", "restore")}`;

/** Returns the error for a plan that was shown of a folder with entries, of which there is none now. */
export function noSuchPlan(): CairnError {
  return new CairnError(
    "stale_plan",
    "the folder has no entries to replace now, so it is not as planned; nothing was changed",
    {
      hint: "without a plan the snapshot is restored into it as into a new folder",
    },
  );
}

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
