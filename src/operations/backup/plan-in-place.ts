import { surveyTree } from "../../engines/copy/survey-tree.ts";
import type { ContentElsewhere, TreeSource } from "../../engines/engine.ts";
import { rulesOfTask } from "../../engines/scan/directory-rules.ts";
import { presentSource } from "../../engines/scan/present-source.ts";
import { decodeTree } from "../../formats/tree.ts";
import { displayPath } from "../../fs/safe-path.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import { BlobReader } from "../../repository/blob-reader.ts";
import { lookBeforeRestore } from "../../workspace/look.ts";
import { planRestore } from "../../workspace/restore-plan.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/workspace.ts";
import type { RestoreResult } from "../contract.ts";
import type { WantedInPlace } from "./wanted-in-place.ts";

/** What a restore of a snapshot over a workspace's folder would change. Nothing is saved, and no point is made. */
export async function planInPlace(
  workspace: Workspace,
  wanted: WantedInPlace,
  call: WorkspaceCall,
): Promise<Omit<RestoreResult, "duration_ms">> {
  const { from, content, chosen, listed, keepPresent } = wanted;
  const { signal } = call;
  // All trees are at hand after this, wherever they lay.
  const { ignoreFiles } = await surveyTree(from, content.root, { only: null, signal });
  const rules = rulesOfTask({ excludes: listed.snapshot.excludes ?? [], rules: null }).record(ignoreFiles);
  const scan = await lookBeforeRestore(workspace, call, rules);
  const blobs = new BlobReader({ keys: from.repository.keys, openPack: (pack) => from.near.open(pack) });
  const changes = { created: 0, updated: 0, deleted: 0, metadata: 0 };
  const left: RestoreResult["left_out"] = [];
  try {
    const plan = await planRestore({
      present: presentSource(scan),
      scan,
      target: sourceOf(from, blobs, content.root),
      paths: chosen.paths,
      keepPresent,
      omitted: content.manifest.omitted,
      mayLackPaths: true,
      signal,
    });
    for (const { path, action, before, after, reason = "not_saved", detail = "" } of plan) {
      const isOther = action === "update" && (before?.type === "dir") !== (after?.type === "dir");
      if (action === "keep") left.push({ ...displayPath(path), reason, detail });
      else if (!isOther) changes[ACTIONS[action]]++;
      else {
        // One goes and another comes, as no directory takes the place of a file.
        changes.deleted++;
        changes.created++;
      }
    }
  } finally {
    blobs.close();
  }
  return { restored_to: null, undo_id: null, changes, left_out: left, method: "entries" };
}

const ACTIONS = { create: "created", update: "updated", delete: "deleted", metadata: "metadata" } as const;

function sourceOf({ index }: ContentElsewhere, blobs: BlobReader, root: Uint8Array): TreeSource {
  const read = (id: Uint8Array, type: typeof DATA_BLOB | typeof TREE_BLOB): Uint8Array =>
    blobs.read({ ...index.place(index.lookup(id, 0, type)), id });
  return {
    root,
    list: (directory) => decodeTree(read(directory, TREE_BLOB)),
    *content({ content = new Uint8Array(0) }) {
      for (let at = 0; at < content.length; at += 32) yield read(content.subarray(at, at + 32), DATA_BLOB);
    },
  };
}
