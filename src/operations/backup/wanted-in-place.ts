import type { ContentElsewhere } from "../../engines/engine.ts";
import { CairnError } from "../../errors.ts";
import type { Manifest } from "../../formats/manifest.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { RestoreInPlaceOptions } from "../contract.ts";
import { type ChosenPaths, chosenPaths } from "./chosen-paths.ts";
import { chosenSnapshot } from "./list.ts";
import type { LookAtSnapshots } from "./look.ts";
import { withOwnDigests } from "./own-digests.ts";
import type { RepositoryAccess } from "./repository-access.ts";
import { snapshotContent, type SnapshotContent } from "./snapshot-content.ts";

/** A snapshot that a workspace's store can take in, and what of it is wanted. */
export interface WantedInPlace {
  listed: ListedSnapshot;
  content: SnapshotContent & { node: TreeNode; manifest: Manifest };
  chosen: ChosenPaths;
  from: ContentElsewhere;
  keepPresent: boolean;
}

/** Finds it. `not_found`, `ambiguous`, `damaged`; `refused` for what no workspace can stand at. */
export async function wantedInPlace(
  access: RepositoryAccess,
  look: LookAtSnapshots,
  options: RestoreInPlaceOptions & { snapshot: string },
): Promise<WantedInPlace> {
  const listed = chosenSnapshot(look, options.snapshot, options.latestOf);
  const { node, manifest, ...content } = await snapshotContent(look, listed.snapshot);
  if (content.manifestDamage !== null) throw content.manifestDamage;
  if (node === null || manifest === null)
    throw new CairnError("refused", `snapshot ${listed.id.slice(0, 8)} was not made of a save point`, {
      hint: "restore it into a folder of its own with --to, and copy from there",
    });
  const chosen = await chosenPaths(look, { ...content, node }, { ...options, savedPaths: listed.snapshot.paths });
  const found = { ...content, node, manifest };
  const of = { ...look, access, listed, options };
  return {
    listed,
    content: chosen.paths === null ? await withOwnDigests(found, of) : found,
    chosen,
    from: {
      repository: access.repository,
      index: look.index,
      near: look.near,
      readTree: look.reader.readTree,
      read: async (place) => look.reader.read(place),
    },
    keepPresent: options.keepPresent === true || chosen.byPattern,
  };
}
