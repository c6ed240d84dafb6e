import { rulesOfRequest } from "../../archive/scan/directory-rules.ts";
import { presentSource } from "../../archive/scan/present-source.ts";
import type { RestoreResult } from "../../contract/points.ts";
import type { RestoreInPlaceResult } from "../../contract/snapshots.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import { publicLeftOut } from "../../workspace/points/left-out.ts";
import { rootDifference, rootOfFolder } from "../../workspace/points/root-changes.ts";
import { withoutMovedTimes } from "../../workspace/points/tree-diff.ts";
import { MadeContents } from "../../workspace/rules/made-contents.ts";
import { type Plan, publicEntries } from "../../workspace/rules/plan.ts";
import { lookBeforeRestore } from "../../workspace/save/look.ts";
import { ignoreFilesBelow } from "../../workspace/store/survey-tree.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/open/workspace.ts";
import { listPlainFiles } from "../databases/plain-database.ts";
import { storedRoot } from "../open/content.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";
import { withSidecars } from "../../workspace/restore/open-databases.ts";
import { expectedLeftOut, planAbsolute } from "../../workspace/restore/planned.ts";
import { idOfPlan, type RestoreInput, whyStale } from "../../workspace/restore/prepare.ts";
import { unknownIn } from "../../workspace/restore/protected.ts";

/** The result that a restore in place would have, and its plan's id. */
type InPlace = Omit<RestoreResult, "duration_ms"> & Pick<RestoreInPlaceResult, "plan_id" | "planned_entries">;

/** Plans a restore in place. Saves nothing and makes no point. Throws `stale_plan` if the caller was shown another plan. */
export async function planInPlace(
  workspace: Workspace,
  wanted: WantedInPlace,
  call: WorkspaceCall & Pick<RestoreInput, "takeOwnership" | "plan">,
): Promise<InPlace> {
  const { from, content, listed } = wanted;
  const { signal, takeOwnership } = call;
  const { manifest } = content;
  const { blobs } = from;
  const ignoreFiles = await ignoreFilesBelow(blobs, storedRoot(content), signal);
  const rules = rulesOfRequest({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  const scan = await lookBeforeRestore(workspace, call, { ...rules, crossMounts: manifest.mounts?.entered ?? false });
  const target = {
    root: content.root,
    list: await listPlainFiles(from, content, { paths: wanted.chosen.paths, scan, signal }),
    *content({ content: ids = new Uint8Array(0) }: { content?: Uint8Array }) {
      for (let at = 0; at < ids.length; at += 32) yield blobs.readId(ids.subarray(at, at + 32), DATA_BLOB);
    },
  };
  const change = wanted.change.withPaths(withSidecars([workspace.root], manifest, wanted.change.paths));
  const fields = { before: scan.summarise().lossless, after: manifest.lossless };
  const states = { present: presentSource(scan), target, fields };
  const { plan } = await planAbsolute({ change, signal }, states, { scan, ...unknownIn(workspace, manifest) });
  const shown = { change, kind: "restore", origin: listed.id } as const;
  const root = change.isOfFolder ? rootDifference(content.node, rootOfFolder(workspace.root)) : null;
  const facts = { plan, scan, made: new MadeContents(), root };
  const id = idOfPlan(shown, facts);
  const stale = call.plan === undefined ? null : whyStale(call.plan, id, plan);
  if (stale !== null) throw stale;
  const left = expectedLeftOut(plan, { scan, change, manifest, damaged: [], takeOwnership }).map(publicLeftOut);
  return {
    restored_to: null,
    undo_id: null,
    changes: countsOf(plan, root !== null),
    left_out: left,
    unlinked: [],
    method: "entries",
    plan_id: id,
    planned_entries: publicEntries(plan, root !== null),
  };
}

function countsOf(plan: Plan, changesRoot: boolean): NonNullable<RestoreResult["changes"]> {
  const changes = { created: 0, updated: 0, deleted: 0, metadata: changesRoot ? 1 : 0 };
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
  return changes;
}

const ACTIONS = { create: "created", update: "updated", delete: "deleted", metadata: "metadata" } as const;
