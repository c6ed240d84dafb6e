import { hostname } from "node:os";
import { directoryNode } from "../../archive/write/root-metadata.ts";
import { toCairnError, tellsOfDamage } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { compareBytes } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { currentUser } from "../../fs/users.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { dropMarks } from "../../repository/care/marks.ts";
import { TREE_BLOB } from "../../repository/index/blob-index.ts";
import { EntrySet } from "../../repository/index/entry-set.ts";
import { newTree } from "../../repository/trees/edit-tree.ts";
import { LiveSet } from "../../repository/trees/live.ts";
import { TreeMender } from "../../repository/trees/tree-mender.ts";
import type { RecoverBackupsOptions, RecoverBackupsResult } from "../../contract/index.ts";
import type { Session } from "../open/session.ts";
import { RECOVERED } from "../open/snapshots.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { nameOf, readNodes } from "../../archive/databases/nodes.ts";
import { mending } from "./known-losses.ts";

/** The path that restic's `recover` gives its snapshots. */
const GATHERED = "/recover";
const NAME_DIGITS = 8;

type Found = Pick<RecoverBackupsResult, "gathered" | "unreadable">;

/**
 * Makes one snapshot of all trees that no snapshot and no other tree names, as restic's `recover` does, without lost
 * entries.
 * - Under an exclusive lock, since the trees of a running backup have no snapshot yet: trees without the lost entries,
 * and the topmost one; their index; the snapshot's file ●. A kill leaves trees that the next call finds.
 */
export async function recoverBackups(
  access: OpenRepository,
  options: RecoverBackupsOptions,
): Promise<RecoverBackupsResult> {
  const started = Date.now();
  const isDry = options.dryRun === true;
  const found = await mending(access, { options, lock: isDry ? null : "exclusive" }, async (session) =>
    gather(session, options),
  );
  return { ...access.info, dry_run: isDry, ...found, duration_ms: Date.now() - started };
}

/** Only plans if the session has no lock. */
async function gather(session: Session, options: RecoverBackupsOptions): Promise<Found> {
  const { access, index, reader, lock } = session;
  const blobs = session.packedBlobs();
  const onTree = (id: Uint8Array, bytes: Uint8Array): void => blobs?.addNew("tree", id, bytes);
  const mender = new TreeMender({ index, readTree: reader.readTree, onTree, signal: options.signal });
  try {
    const { roots, unreadable } = await lostRoots(session, options);
    const whole = new Map<ObjectId, number>();
    let newest = 0;
    for (const [done, root] of roots.entries()) {
      options.onProgress?.({ phase: "repairing", done, total: roots.length });
      try {
        const { tree, lost } = await mender.mend(root);
        const nodes = await readNodes(reader, root);
        if (tree === null || nodes.length === 0) continue;
        whole.set(objectIdOf(tree), lost.length);
        for (const { mtimeSec } of nodes) newest = Math.max(newest, mtimeSec);
      } catch (error) {
        unreadable.push(unreadableTree(root, error));
      }
      await blobs?.settle();
    }
    if (whole.size === 0) return { gathered: null, unreadable };
    // The time of the save is not known; the snapshot must not become `latest` because it was found today.
    const time = new Date(Math.min(newest * 1000, Date.now())).toISOString();
    const names = namesOf([...whole.keys()]);
    const user = currentUser();
    const facts = {
      mode: 0o755,
      uid: user.uid,
      gid: user.gid,
      mtimeSec: Math.floor(Date.parse(time) / 1000),
      mtimeNs: 0,
    };
    const nodes = [...whole.keys()].map((id, at) =>
      directoryNode(Buffer.from(names[at]!), Buffer.from(id, "hex"), facts),
    );
    const { id: tree, bytes } = newTree(nodes);
    onTree(tree, bytes);
    await blobs?.finish();
    failpoint("recover.trees-written");
    await lock?.recheck();
    if (lock !== null) await dropMarks(access.repository, index.marks);
    const snapshot = {
      time,
      tree: objectIdOf(tree),
      paths: [GATHERED],
      hostname: options.hostname ?? hostname(),
      ...user,
      tags: [RECOVERED],
    };
    const id = lock === null ? null : await access.repository.saveSnapshot(snapshot);
    failpoint("recover.snapshot-written");
    const trees = [...whole].map(([each, lost], at) => ({ tree: each, path: `/${names[at]}`, lost }));
    return { gathered: { new_id: id, created_at: time, trees }, unreadable };
  } catch (error) {
    await blobs?.abort();
    throw error;
  }
}

/** Returns the trees, sorted by id, that no readable snapshot and no other unused tree contains. */
async function lostRoots(
  { index, reader, snapshots }: Session,
  { signal, onProgress }: RecoverBackupsOptions,
): Promise<{ roots: Uint8Array[]; unreadable: Found["unreadable"] }> {
  const live = new LiveSet(index);
  const trees = snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
  await live.mark(trees, reader.viewTree, { signal, onTree: (done) => onProgress?.({ phase: "trees", done }) });
  const left = new EntrySet(index.count);
  const ids: Uint8Array[] = [];
  for (let entry = 0; entry < index.count; entry++)
    if (index.table.typeOf(entry) === TREE_BLOB && !live.has(entry) && left.add(entry))
      ids.push(index.idOf(entry).slice());
  const below = new EntrySet(index.count);
  const unreadable = new Map<ObjectId, string>();
  await live.mark(ids, reader.viewTree, {
    signal,
    onTree: (done) => onProgress?.({ phase: "planning", done, total: ids.length }),
    onSubtree: (entry) => void below.add(entry),
    onDamagedTree: (id, detail) => void unreadable.set(id, detail),
  });
  const roots = new Map<ObjectId, Uint8Array>();
  for (const root of ids) {
    if (below.has(index.lookup(root, 0, TREE_BLOB))) continue;
    let nodes: TreeNode[];
    try {
      nodes = [...(await readNodes(reader, root))];
    } catch (error) {
      const { tree, detail } = unreadableTree(root, error);
      unreadable.set(tree as ObjectId, detail);
      continue;
    }
    // Splits a tree that restic or a killed call made of lost trees, so that no tree is listed twice.
    for (const tree of nodes.length > 0 && nodes.every(isGathered) ? nodes.map(({ subtree }) => subtree!) : [root]) {
      const entry = index.lookup(tree, 0, TREE_BLOB);
      if (entry < 0 || left.has(entry)) roots.set(objectIdOf(tree), Uint8Array.from(tree));
    }
  }
  return {
    roots: [...roots.values()].toSorted(compareBytes),
    unreadable: [...unreadable].map(([tree, detail]) => ({ tree, detail })),
  };
}

/** True for a directory named by the beginning of its tree's id. */
function isGathered(node: TreeNode): boolean {
  const { subtree, name } = node;
  return subtree !== undefined && name.length >= NAME_DIGITS && objectIdOf(subtree).startsWith(nameOf(node));
}

/** Describes an unreadable tree. Rethrows an error that is not about the tree's content. */
function unreadableTree(tree: Uint8Array, error: unknown): Found["unreadable"][number] {
  const known = toCairnError(error);
  if (!tellsOfDamage(known)) throw known;
  return { tree: objectIdOf(tree), detail: known.message };
}

/** Shortens ids to the fewest digits that keep them distinct. */
function namesOf(ids: readonly string[]): string[] {
  let digits = NAME_DIGITS;
  while (new Set(ids.map((id) => id.slice(0, digits))).size < ids.length) digits++;
  return ids.map((id) => id.slice(0, digits));
}
