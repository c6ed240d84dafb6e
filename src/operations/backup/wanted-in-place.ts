import type { ContentElsewhere, RootMetadata } from "../../engines/engine.ts";
import { CairnError } from "../../errors.ts";
import { joinPath } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/tree.ts";
import { isAtOrBelow, printablePath, quotedPath, rawBytes } from "../../fs/safe-path.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { RestoreInPlaceOptions } from "../contract.ts";
import { type ChosenPaths, chosenPaths } from "./chosen-paths.ts";
import { chosenSnapshot } from "./list.ts";
import type { LookAtSnapshots } from "./look.ts";
import { withOwnDigests } from "./own-digests.ts";
import { isRecovered } from "./public-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { namedFolder, snapshotContent, type SnapshotContent } from "./snapshot-content.ts";
import { contentOf } from "./subfolder.ts";

/** A snapshot of a folder, and what of it is wanted. */
export interface WantedInPlace {
  listed: ListedSnapshot;
  /** without a manifest where it was not made of a save point */
  content: SnapshotContent & { node: TreeNode };
  chosen: ChosenPaths;
  from: ContentElsewhere;
  keepPresent: boolean;
}

/** Finds it. `folder`: what it is restored over, `present`: as that is. `not_found`, `ambiguous`, `damaged`; `refused` for what no workspace can stand at. */
export async function wantedInPlace(
  access: RepositoryAccess,
  look: LookAtSnapshots,
  {
    folder,
    present,
    ...options
  }: RestoreInPlaceOptions & { snapshot: string; folder: Buffer; present: () => RootMetadata | null },
): Promise<WantedInPlace> {
  const listed = chosenSnapshot(look, options.snapshot, options);
  const as = await snapshotContent(look, listed.snapshot);
  if (as.manifestDamage !== null) throw as.manifestDamage;
  const content = as.manifest === null ? { ...as, ...(await namedFolder(look, listed.snapshot, present)) } : as;
  const { node } = content;
  if (node === null)
    throw new CairnError("refused", `snapshot ${listed.id.slice(0, 8)} is not of one folder`, {
      hint: "restore it into a folder of its own with --to, and copy from there",
    });
  const found = { ...content, node };
  const part = await contentOf(look, { listed, content: found }, options.subfolder);
  const below = await chosenPaths(look, part, { ...options, savedPaths: listed.snapshot.paths });
  if (part.part !== undefined) requireOwnPlace(listed, part.part, folder);
  const chosen = part.part === undefined ? below : inPlaceOf(part.part, below);
  const of = { ...look, access, listed, options };
  return {
    listed,
    content: chosen.paths === null ? await withOwnDigests(found, of) : found,
    chosen,
    from: {
      repository: access.repository,
      index: look.index,
      near: look.near,
      copies: look.copies,
      readTree: look.reader.readTree,
      read: async (place) => look.reader.read(place),
    },
    // What was left out of a snapshot, one of another program does not say, nor one that was made anew.
    keepPresent:
      options.keepPresent === true || chosen.byPattern || found.manifest === null || isRecovered(listed.snapshot),
  };
}

/** Of a folder around it a snapshot has what is in the workspace by longer paths, and would make another one of that below it. */
function requireOwnPlace({ id }: ListedSnapshot, { path, whole }: Part, folder: Buffer): void {
  const place = joinPath(folder, path);
  if (!isAtOrBelow(whole, folder) || place.equals(whole)) return;
  throw new CairnError(
    "refused",
    `snapshot ${id.slice(0, 8)} is of a folder around ${printablePath(folder)}: in place, ${quotedPath(path)} would come to ${printablePath(place)}`,
    { hint: "restore it into a folder of its own with --to, and copy from there" },
  );
}

type Part = NonNullable<SnapshotContent["part"]>;

/** What was chosen below a folder, by its paths from what was saved. */
function inPlaceOf({ path }: Part, { paths, ...chosen }: ChosenPaths): ChosenPaths {
  return {
    ...chosen,
    paths: paths === null ? [rawBytes(path)] : paths.map((each) => Buffer.from(joinPath(path, each))),
  };
}
