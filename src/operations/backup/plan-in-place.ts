import { surveyTree } from "../../engines/copy/survey-tree.ts";
import type { ContentElsewhere, TreeSource } from "../../engines/engine.ts";
import { rulesOfTask } from "../../engines/scan/directory-rules.ts";
import { presentSource } from "../../engines/scan/present-source.ts";
import { decodeTree, type TreeNode } from "../../formats/tree.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/blob-index.ts";
import { BlobReader } from "../../repository/blob-reader.ts";
import type { OtherCopies } from "../../repository/other-copies.ts";
import { lookBeforeRestore } from "../../workspace/look.ts";
import { lackingIn } from "../../workspace/record-point.ts";
import { leftOutBefore } from "../../workspace/restore-left-out.ts";
import { type PlannedEntry, planRestore } from "../../workspace/restore-plan.ts";
import { isSameRoot, rootOfFolder } from "../../workspace/root-changes.ts";
import { unknownIn } from "../../workspace/restore.ts";
import { withoutMovedTimes } from "../../workspace/tree-changes.ts";
import type { Workspace, WorkspaceCall } from "../../workspace/workspace.ts";
import type { RestoreResult } from "../contract.ts";
import { publicLeftOut } from "../save.ts";
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
  const isOurs = content.manifest !== null;
  const rules = rulesOfTask({ excludes: (isOurs ? listed.snapshot.excludes : null) ?? [], rules: null }).record(
    isOurs ? ignoreFiles : [],
  );
  const crossMounts = content.manifest?.mounts?.entered ?? false;
  const scan = await lookBeforeRestore(workspace, call, { ...rules, crossMounts });
  const planned = async (): Promise<PlannedEntry[]> => {
    const blobs = new BlobReader({ keys: from.repository.keys, openPack: (pack) => from.near.open(pack) });
    try {
      return await planRestore({
        present: presentSource(scan),
        scan,
        target: sourceOf(from, blobs, { root: content.root, isOurs }),
        paths: chosen.paths,
        keepPresent,
        ...unknownIn(workspace, content.manifest),
        mayLackPaths: true,
        signal,
      });
    } finally {
      blobs.close();
    }
  };
  const plan = await readingCopies(from.copies, planned);
  const changes = { created: 0, updated: 0, deleted: 0, metadata: 0 };
  for (const entry of withoutMovedTimes(plan)) {
    const { action, before, after } = entry;
    const isOther = action === "update" && (before?.type === "dir") !== (after?.type === "dir");
    if (action === "keep" || (!isOurs && isAlike(entry))) continue;
    if (!isOther) changes[ACTIONS[action]]++;
    else {
      // One goes and another comes, as no directory takes the place of a file.
      changes.deleted++;
      changes.created++;
    }
  }
  if (chosen.paths === null && !isSameRoot(content.node, rootOfFolder(workspace.root))) changes.metadata++;
  const lacking = lackingIn(content.manifest, chosen.paths);
  const left = leftOutBefore(plan, scan, { paths: chosen.paths, lacking, notSet: [] }).map(publicLeftOut);
  return { restored_to: null, undo_id: null, changes, left_out: left, unlinked: [], method: "entries" };
}

/** Other programs number every entry, which tells nothing of one that has no other name. */
function withoutNumbers(node: TreeNode): TreeNode {
  const isLinked = node.type !== "dir" && node.links > 1;
  return isLinked ? node : { ...node, inode: 0n, deviceId: 0n, links: node.type === "dir" ? 0 : 1 };
}

/** In trees of other programs groups of links have other numbers, and large files are cut elsewhere: size and time tell then. */
function isAlike({ before, after, aspects }: PlannedEntry): boolean {
  if (before?.type !== "file" || after?.type !== "file") return false;
  const [was, is] = [before.content ?? NOTHING, after.content ?? NOTHING];
  return (
    aspects.every((aspect) => aspect === "content" || aspect === "links") &&
    before.size === after.size &&
    before.links > 1 === after.links > 1 &&
    (was.length > 32 || is.length > 32 || Buffer.compare(was, is) === 0)
  );
}

const NOTHING = new Uint8Array(0);

const ACTIONS = { create: "created", update: "updated", delete: "deleted", metadata: "metadata" } as const;

async function readingCopies<T>(copies: OtherCopies, work: () => Promise<T>): Promise<T> {
  for (;;)
    try {
      return await work();
    } catch (error) {
      if (!(await copies.mends(error, null))) throw error;
    }
}

function sourceOf(
  { index }: ContentElsewhere,
  blobs: BlobReader,
  { root, isOurs }: { root: Uint8Array; isOurs: boolean },
): TreeSource {
  const read = (id: Uint8Array, type: typeof DATA_BLOB | typeof TREE_BLOB): Uint8Array =>
    blobs.read({ ...index.place(index.lookup(id, 0, type)), id });
  return {
    root,
    list: (directory) => {
      const nodes = decodeTree(read(directory, TREE_BLOB));
      return isOurs ? nodes : nodes.map(withoutNumbers);
    },
    *content({ content = new Uint8Array(0) }) {
      for (let at = 0; at < content.length; at += 32) yield read(content.subarray(at, at + 32), DATA_BLOB);
    },
  };
}
