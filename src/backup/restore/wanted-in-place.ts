import type { RestoreInPlaceOptions } from "../../contract/snapshots.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { isAtOrBelow, printablePath, quotedPath, rawBytes } from "../../fs/paths/safe-path.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { Absolute } from "../../workspace/rules/wanted.ts";
import type { ContentElsewhere } from "../../workspace/store/engine.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { snapshotContent, type SnapshotContent, withoutOthersDigests } from "../open/content.ts";
import { looksEmpty } from "../open/own-folder.ts";
import { type ChosenPaths, chosenPaths, contentOf } from "../open/paths.ts";
import type { Session } from "../open/session.ts";
import { chosenSnapshot, isRecovered, pointOf } from "../open/snapshots.ts";

/** A snapshot of a folder, and the part of it to restore. */
export interface WantedInPlace {
  listed: ListedSnapshot;
  content: SnapshotContent & { node: TreeNode; manifest: Manifest };
  chosen: ChosenPaths;
  from: ContentElsewhere;
  keepPresent: boolean;
  change: Absolute;
}

/**
 * Finds the snapshot's content for a restore in place. `folder`: the folder to restore over. Throws `refused` for
 * content that no workspace can be restored from.
 */
export async function wantedInPlace(
  session: Session,
  folder: Buffer,
  options: RestoreInPlaceOptions & { snapshot: string },
): Promise<WantedInPlace> {
  const listed = chosenSnapshot(session, options.snapshot, options);
  const content = await snapshotContent(session.reader, listed.snapshot);
  if (content.manifestDamage !== null) throw content.manifestDamage;
  if (content.manifest === null) throw onlyElsewhere(listed, "was made by another program, or not from a save point");
  const { node, manifest } = content;
  if (node === null) throw onlyElsewhere(listed, "does not hold exactly one folder");
  const found = { ...content, node, manifest };
  const part = await contentOf(session.reader, { listed, content: found }, options.subfolder);
  const below = await chosenPaths(session.reader, part, { ...options, savedPaths: listed.snapshot.paths });
  if (part.part !== undefined) requireOwnPlace(listed, part.part, folder);
  const chosen = part.part === undefined ? below : inPlaceOf(part.part, below);
  const asRecorded =
    chosen.paths === null ? await withoutOthersDigests(session, { listed, content: found }, options) : found;
  if (asRecorded !== found)
    throw onlyElsewhere(listed, "differs from its save point, because another program rewrote it");
  // A recovered snapshot does not say which entries the rules left out.
  const keepPresent = options.keepPresent === true || chosen.byPattern || isRecovered(listed.snapshot);
  return {
    listed,
    content: found,
    chosen,
    from: {
      repository: session.access.repository,
      index: session.index,
      near: session.near,
      blobs: session.reader,
      onDamagedPack: session.onDamagedPack,
    },
    keepPresent,
    change: new Absolute({ paths: chosen.paths, keepPresent, pathsAreThere: true }),
  };
}

function onlyElsewhere({ id }: ListedSnapshot, why: string): CairnError {
  return new CairnError("refused", `snapshot ${id.slice(0, 8)} ${why}: it cannot be restored in place`, {
    hint: advice`restore it into a new folder with ${option("to")}, and copy from there`,
  });
}

/** Throws `refused` for a folder of a snapshot of a parent of the workspace: the restore would make another workspace below itself. */
function requireOwnPlace({ id }: ListedSnapshot, { path, whole }: Part, folder: Buffer): void {
  const place = joinPath(folder, path);
  if (!isAtOrBelow(whole, folder) || place.equals(whole)) return;
  throw new CairnError(
    "refused",
    `snapshot ${id.slice(0, 8)} is of a folder above ${printablePath(folder)}: restored in place, ${quotedPath(path)} would be written to ${printablePath(place)}`,
    { hint: advice`restore it into a new folder with ${option("to")}, and copy from there` },
  );
}

type Part = NonNullable<SnapshotContent["part"]>;

/** The chosen paths below a folder, relative to the saved folder. */
function inPlaceOf({ path }: Part, { paths, ...chosen }: ChosenPaths): ChosenPaths {
  return {
    ...chosen,
    paths: paths === null ? [rawBytes(path)] : paths.map((each) => Buffer.from(joinPath(path, each))),
  };
}

/** Warns if the snapshot is of another folder, as restores of other programs allow, unless a filter or paths show the intent. */
export function warnOfOtherFolder(
  workspace: Workspace,
  { listed, chosen, keepPresent }: WantedInPlace,
  { latestOf, onWarning }: RestoreInPlaceOptions,
): void {
  const { paths } = listed.snapshot;
  const own = pointOf(listed.snapshot);
  if (latestOf !== undefined || chosen.paths !== null || keepPresent) return;
  if (paths.includes(workspace.root.toString("utf8")) || (own !== null && workspace.byId(own) !== null)) return;
  if (looksEmpty(workspace.root)) return;
  onWarning?.(
    `snapshot ${listed.id.slice(0, 8)} is of ${paths.map(printablePath).join(", ")}: ${printablePath(workspace.root)} is made equal to it, and its present content goes into the undo point`,
  );
}
