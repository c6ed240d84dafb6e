import type { OpenRepository } from "../backup/open/open-repository.ts";
import { reading, type Session } from "../backup/open/session.ts";
import { chosenSnapshots, publicSnapshot } from "../backup/open/snapshots.ts";
import type { ChangesInBackups, WhyOptions } from "../contract/index.ts";
import { tellsOfDamage, toCairnError } from "../errors.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { displayPath, joinRaw } from "../fs/paths/safe-path.ts";
import { newPacer } from "../pacer.ts";
import type { ListedSnapshot } from "../repository/repository.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { DiffAspect } from "../workspace/points/tree-diff.ts";
import { changeOf } from "../workspace/points/listed-entry.ts";
import { workspaceRef } from "../workspace/place/find-workspace.ts";
import { storedDifferences } from "./path-changes.ts";
import { likeFolder, type SnapshotSource, snapshotSource } from "./sources/snapshot-source.ts";
import { areNumbersAlike, entryIn, type LinkNumbers } from "./sources/source.ts";
import { namesInFolder } from "./sources/workspace-source.ts";

/** Lists the snapshots of a workspace's folder that changed a path, newest first, each with its change. */
export async function whyInBackups(
  workspace: Workspace,
  access: OpenRepository,
  { path, limit = 0, ...options }: WhyOptions & { path: Uint8Array },
): Promise<ChangesInBackups> {
  const changes: ChangesInBackups["changes"][0][] = [];
  const damaged: ChangesInBackups["damaged"][0][] = [];
  const result = { ...access.info, changes, damaged };
  return reading(access, options, async (session) => {
    for (const { name, error } of session.damaged)
      damaged.push({ path: "/", snapshot_id: name, detail: error.message });
    let later: State | null = null;
    for await (const state of statesOf(workspace, { session, path, damaged, signal: options.signal })) {
      const was = state?.node ?? null;
      const now = later?.node ?? null;
      const change = changeOf(was, now, aspectsOf(state, later));
      if (later !== null && change !== null) {
        if (limit > 0 && changes.length === limit) return { ...result, truncated: true };
        changes.push({ snapshot: publicSnapshot(later.listed), ...change });
      }
      later = state;
    }
    return { ...result, truncated: false };
  });
}

interface State {
  listed: ListedSnapshot;
  /** null: the snapshot lacks the path */
  node: TreeNode | null;
  linksFrom: LinkNumbers["linksFrom"];
}

function aspectsOf(was: State | null, now: State | null): DiffAspect[] {
  if (!was?.node || !now?.node) return [];
  const aspects = storedDifferences(was.node, now.node);
  return areNumbersAlike(was, now) ? aspects : aspects.filter((each) => each !== "links");
}

/** Yields the entry at a path in each readable snapshot of the folder, newest first, then null. */
async function* statesOf(
  workspace: Workspace,
  {
    session,
    path,
    damaged,
    signal,
  }: { session: Session; path: Uint8Array; damaged: ChangesInBackups["damaged"][0][]; signal: AbortSignal | undefined },
): AsyncGenerator<State | null> {
  const names = await namesInFolder(workspace);
  const { path: folder } = workspaceRef(workspace.found);
  const chosen = chosenSnapshots(session, { paths: [folder] }).toReversed();
  await session.bring(chosen.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")));
  const pace = newPacer(signal);
  for (const listed of chosen) {
    await pace();
    let state: State;
    try {
      const source = await snapshotSource(session, listed);
      const node = await entryOf(source, { names, root: workspace.root, path });
      state = { listed, node, linksFrom: source.linksFrom };
    } catch (error) {
      const found = toCairnError(error);
      if (!tellsOfDamage(found)) throw error;
      damaged.push({ ...displayPath(path), snapshot_id: listed.id, detail: found.message });
      continue;
    }
    yield state;
  }
  yield null;
}

/** Returns the entry at a path below `root`. `names`: those in that folder, to find it in snapshots of other programs. */
async function entryOf(
  opened: SnapshotSource,
  { names, root, path }: { names: ReadonlySet<string>; root: Buffer; path: Uint8Array },
): Promise<TreeNode | null> {
  const source = await likeFolder(opened, names);
  const { node, placed } = source.saved;
  // The tree of several saved paths begins at `/`. With one saved path `likeFolder` knows better.
  const isTop = node === null && source.listed.snapshot.paths.length > 1;
  const found = await entryIn(source, isTop ? joinRaw(root, path).subarray(1) : path);
  placed?.takeBackFrom(source.session.reader);
  if (found === null && placed?.damaged[0] !== undefined) throw placed.damaged[0].error;
  return found;
}
