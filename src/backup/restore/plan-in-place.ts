import { rulesOfRequest } from "../../archive/scan/directory-rules.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import type { RestoreResult } from "../../contract/points.ts";
import { decodeTree } from "../../formats/restic/tree.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { publicLeftOut } from "../../workspace/points/left-out.ts";
import { isSameRoot, rootOfFolder } from "../../workspace/points/root-changes.ts";
import { withoutMovedTimes } from "../../workspace/points/tree-diff.ts";
import { AbsoluteRule } from "../../workspace/rules/absolute.ts";
import { planRestore } from "../../workspace/rules/plan.ts";
import { lookBeforeRestore } from "../../workspace/save/look.ts";
import { surveyTree } from "../../workspace/store/survey-tree.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import { storedRoot } from "../open/content.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";
import { expectedLeftOut } from "../../workspace/restore/planned.ts";
import type { RestoreInput } from "../../workspace/restore/prepare.ts";
import { unknownIn } from "../../workspace/restore/protected.ts";

/** Plans a restore in place. Saves nothing and makes no point. */
export async function planInPlace(
  workspace: Workspace,
  wanted: WantedInPlace,
  call: WorkspaceCall & Pick<RestoreInput, "takeOwnership">,
): Promise<Omit<RestoreResult, "duration_ms">> {
  const { from, content, chosen, listed, keepPresent } = wanted;
  const { signal, takeOwnership } = call;
  const { blobs } = from;
  // Afterwards all trees are local, wherever they were stored.
  const { ignoreFiles } = await surveyTree(from, storedRoot(content), { only: null, signal });
  const rules = rulesOfRequest({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  const crossMounts = content.manifest.mounts?.entered ?? false;
  const scan = await lookBeforeRestore(workspace, call, { ...rules, crossMounts });
  const rule = new AbsoluteRule({
    present: presentSource(scan),
    target: {
      root: content.root,
      list: (directory) => decodeTree(blobs.lent(directory) ?? blobs.readId(directory, TREE_BLOB)),
      *content({ content: ids = new Uint8Array(0) }) {
        for (let at = 0; at < ids.length; at += 32) yield blobs.readId(ids.subarray(at, at + 32), DATA_BLOB);
      },
    },
    paths: chosen.paths,
    keepPresent,
  });
  const plan = await planRestore(rule, { scan, ...unknownIn(workspace, content.manifest) }, signal);
  const changes = { created: 0, updated: 0, deleted: 0, metadata: 0 };
  for (const { action, before, after } of withoutMovedTimes(plan)) {
    const isOther = action === "update" && (before?.type === "dir") !== (after?.type === "dir");
    if (action === "keep") continue;
    if (!isOther) changes[ACTIONS[action]]++;
    else {
      // A directory never replaces a file in place: one is deleted, the other added.
      changes.deleted++;
      changes.created++;
    }
  }
  if (chosen.paths === null && !isSameRoot(content.node, rootOfFolder(workspace.root))) changes.metadata++;
  const more = { scan, paths: chosen.paths, manifest: content.manifest, damaged: [], takeOwnership };
  const left = expectedLeftOut(plan, more).map(publicLeftOut);
  return { restored_to: null, undo_id: null, changes, left_out: left, unlinked: [], method: "entries" };
}

const ACTIONS = { create: "created", update: "updated", delete: "deleted", metadata: "metadata" } as const;
