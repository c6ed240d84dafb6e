import type {
  CallOptions,
  RepairSnapshotsOptions,
  RepairSnapshotsResult,
  RewriteBackupsOptions,
  RewriteBackupsResult,
  SnapshotChoice,
  UnreadableSnapshot,
} from "../../contract/index.ts";
import { CairnError, reworded, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { latin1 } from "../../formats/bytes.ts";
import { PROGRAM } from "../../formats/program.ts";
import { plural } from "../../formats/sizes.ts";
import { encodeSnapshot, type Snapshot } from "../../formats/restic/snapshot.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { removeSnapshots } from "../../repository/care/remove.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { type LostEntry, type MendedTree, type TakenEntries, TreeMender } from "../../repository/trees/tree-mender.ts";
import { snapshotContent } from "../open/content.ts";
import { lockCall, type OpenRepository } from "../open/open-repository.ts";
import type { Session } from "../open/session.ts";
import { changedSnapshots, REWRITTEN } from "../open/snapshots.ts";
import { mending, requireLost } from "./known-losses.ts";
import {
  belowDepth,
  type DatabaseFolders,
  exactly,
  foldersInDamaged,
  foldersOfDatabases,
  isOfDatabase,
  lossesOfDatabases,
  type TakesOut,
  takesOutOf,
  withDatabases,
} from "./taken-out.ts";
import { type Broken, depthOf, topTrees } from "./top-trees.ts";

/** Makes new snapshots in place of those that lack content, without the lost entries, and lists these entries for each snapshot. */
export async function repairSnapshots(
  access: OpenRepository,
  options: RepairSnapshotsOptions,
): Promise<RepairSnapshotsResult> {
  const started = Date.now();
  const { plan = false, forget = false } = options;
  const rewriting = { choice: options, tag: "repaired", takesOut: null };
  const done = await rewriteSnapshots(access, options, { rewriting, isPlan: plan, forget });
  return {
    ...access.info,
    plan,
    intact: done.others,
    repaired: done.rewritten.map(({ listed, lost, newId }) => ({
      snapshot_id: listed.id,
      created_at: listed.snapshot.time,
      new_id: newId,
      forgotten: forget && !plan,
      lost: lost.map(({ path, kind, detail }) => ({ ...displayPath(path), kind, detail })),
    })),
    unreadable: done.unreadable,
    duration_ms: Date.now() - started,
  };
}

/**
 * Takes matching entries out of snapshots: makes new snapshots without them, and with `forget` removes the old ones. A
 * new snapshot lists the removed entries as omitted.
 */
export async function rewriteBackups(
  access: OpenRepository,
  options: RewriteBackupsOptions,
): Promise<RewriteBackupsResult> {
  const started = Date.now();
  const { dryRun = false, forget = false } = options;
  const rewriting = { choice: options, tag: REWRITTEN, takesOut: takesOutOf(options.exclude) };
  const done = await rewriteSnapshots(access, options, { rewriting, isPlan: dryRun, forget });
  return {
    ...access.info,
    dry_run: dryRun,
    rewritten: done.rewritten.map(({ listed, lost, newId }) => ({
      snapshot_id: listed.id,
      created_at: listed.snapshot.time,
      new_id: newId,
      forgotten: forget && !dryRun,
      taken_out: lost.map(({ path, kind }) => ({ ...displayPath(path), kind })),
    })),
    unchanged: done.others,
    unreadable: done.unreadable,
    lacking: done.lacking,
    duration_ms: Date.now() - started,
  };
}

interface Rewriting {
  choice: SnapshotChoice;
  /** Tag that a new snapshot gets beside the tags of the snapshot it replaces. */
  tag: string;
  /** Null if only lost entries are removed. */
  takesOut: TakesOut | null;
}

interface Places {
  /** The number of directories above the saved entry. Null in snapshots of other programs, in which every directory counts. */
  depth: number | null;
  databases: DatabaseFolders;
}

/** A snapshot that loses entries, with its replacement. */
interface RewrittenSnapshot {
  listed: ListedSnapshot;
  /** Paths start at the topmost tree. */
  lost: readonly LostEntry[];
  /** Null if the call writes nothing, or if no entry of the snapshot is left. */
  newId: ObjectId | null;
}

interface Rewritten {
  /** Oldest first. */
  rewritten: RewrittenSnapshot[];
  /** Number of snapshots that lose no entry. */
  others: number;
  /** Snapshots that stay as they are because they cannot be read. */
  unreadable: UnreadableSnapshot[];
  /** Snapshots that stay unchanged because some of their content is lost; only a repair removes lost entries. */
  lacking: ObjectId[];
}

/** Replaces snapshots by a {@link SnapshotRewriter}; with `forget` removes the old ones. */
async function rewriteSnapshots(
  access: OpenRepository,
  options: CallOptions,
  { rewriting, isPlan, forget }: { rewriting: Rewriting; isPlan: boolean; forget: boolean },
): Promise<Rewritten> {
  if (forget && !isPlan) await access.repository.tryRemoval();
  const done = await mending(access, { options, lock: isPlan ? null : "shared" }, async (session) =>
    new SnapshotRewriter(session, rewriting, options).run(),
  );
  if (isPlan) return done;
  if (!forget || done.rewritten.length === 0) return done;
  try {
    await forgetRewritten(access, done.rewritten, options);
  } catch (error) {
    const known = toCairnError(error);
    const made = plural(done.rewritten.filter(({ newId }) => newId !== null).length, "new snapshot");
    throw reworded(known, { message: `${made} made, but not all of the old snapshots were removed: ${known.message}` });
  }
  return done;
}

/** Removes the old snapshots, each a file ●, under an exclusive lock, once their replacements are certainly stored. */
async function forgetRewritten(
  access: OpenRepository,
  rewritten: readonly RewrittenSnapshot[],
  options: CallOptions,
): Promise<void> {
  const old = rewritten.map(({ listed }) => listed.id);
  await removeSnapshots(access.repository, old, {
    ...lockCall(options),
    confirm: async () => {
      for (const { newId } of rewritten)
        if (newId !== null) await access.asStored(async () => access.repository.loadSnapshot(newId));
    },
  });
}

/**
 * Makes new snapshots without entries that are lost or excluded. Content counts as lost only if the index does not list
 * it: `refused` until `repair index` and `repair packs` have done their work.
 * - Under a shared lock: new trees and their index; manifests, the trees above them and their index.
 * - Each snapshot's file ●. A kill leaves the old snapshots or both; the next call finds the new trees.
 */
class SnapshotRewriter {
  readonly #session: Session;
  readonly #rewriting: Rewriting;
  readonly #options: CallOptions;
  /** Null in a dry run, which writes nothing. */
  readonly #blobs: PackedBlobs | null;
  readonly #unreadable: UnreadableSnapshot[] = [];
  readonly #menders = new Map<string, TreeMender>();

  constructor(session: Session, rewriting: Rewriting, options: CallOptions) {
    this.#session = session;
    this.#rewriting = rewriting;
    this.#options = options;
    this.#blobs = session.packedBlobs();
  }

  async run(): Promise<Rewritten> {
    const chosen = changedSnapshots(this.#session, this.#rewriting.choice);
    for (const { name, error } of this.#session.damaged) this.#leave(name, error);
    try {
      const broken = await this.#findBroken(chosen);
      const isWhole = ({ mended }: Broken): boolean =>
        this.#rewriting.takesOut === null || mended.lost.every(({ isTakenOut }) => isTakenOut === true);
      const rewritten = await this.#rewrite(broken.filter(isWhole));
      const lacking = broken.flatMap((each) => (isWhole(each) ? [] : [each.listed.id]));
      return { rewritten, others: chosen.length - broken.length, unreadable: this.#unreadable, lacking };
    } catch (error) {
      await this.#blobs?.abort();
      throw error;
    }
  }

  #leave(id: string, { message }: CairnError): void {
    this.#unreadable.push({ snapshot_id: id, reason: message });
  }

  async #findBroken(snapshots: readonly ListedSnapshot[]): Promise<Broken[]> {
    const { takesOut } = this.#rewriting;
    const broken: Broken[] = [];
    const phase = takesOut === null ? "repairing" : "rewriting";
    for (const [done, listed] of snapshots.entries()) {
      this.#options.onProgress?.({ phase, done, total: snapshots.length });
      const mended = await this.#mended(listed.snapshot);
      if (mended.lost.length > 0) broken.push({ listed, mended });
      await this.#blobs?.settle();
    }
    takesOut?.requireOneWay();
    await requireLost(this.#session, new Set([...this.#menders.values()].flatMap(({ missing }) => [...missing])));
    return broken;
  }

  /** Mends a snapshot. A database that is stored page by page goes as a whole, and is listed at its own path. */
  async #mended(snapshot: Snapshot): Promise<MendedTree> {
    const top = Buffer.from(snapshot.tree, "hex");
    const { depth, databases } = await this.#placesOf(snapshot);
    const { takesOut } = this.#rewriting;
    const taken = takesOut === null ? undefined : belowDepth(takesOut, depth);
    const mended = await this.#menderFor({ ...snapshot, depth, databases }, taken).mend(top);
    const losses = lossesOfDatabases(mended.lost, databases, Buffer.from(snapshot.paths[0]?.slice(1) ?? ""));
    if (losses.size === 0) return mended;
    const lost = [...mended.lost.filter(({ path }) => !isOfDatabase(path)), ...losses.values()];
    const isTaken = mended.lost.filter(({ path }) => losses.has(latin1(path))).length === losses.size;
    if (isTaken || takesOut !== null) return { tree: mended.tree, lost };
    const again = await this.#newMender(exactly([...losses.keys()])).mend(top);
    return { tree: again.tree, lost };
  }

  /**
   * Returns one mender for all snapshots with the same path prefix and the same databases, so that each tree is read
   * once. Without `taken` the paths do not matter.
   */
  #menderFor({ paths, depth, databases }: Pick<Snapshot, "paths"> & Places, taken?: TakenEntries): TreeMender {
    const own = [...databases].map(([folder, path]) => [folder, latin1(path)]);
    const places = databases.size === 0 ? depth : [depth, paths, own];
    const key = JSON.stringify(taken === undefined ? null : places);
    const known = this.#menders.get(key);
    if (known !== undefined) return known;
    const mender = this.#newMender(taken && withDatabases(taken, this.#rewriting.takesOut!, { paths, databases }));
    this.#menders.set(key, mender);
    return mender;
  }

  #newMender(takesOut: TakenEntries | undefined): TreeMender {
    const { index, reader } = this.#session;
    return new TreeMender({
      index,
      readTree: reader.readTree,
      onTree: (id, bytes) => this.#blobs?.addNew("tree", id, bytes),
      takesOut,
      signal: this.#options.signal,
    });
  }

  async #placesOf(snapshot: Snapshot): Promise<Places> {
    try {
      const { manifest, manifestDamage, only, placed } = await snapshotContent(this.#session.reader, snapshot);
      placed?.takeBackFrom(this.#session.reader);
      const databases = foldersOfDatabases(placed);
      if (manifest === null && manifestDamage === null) return { depth: null, databases };
      return { depth: depthOf(snapshot) - (only === null ? 0 : 1), databases };
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      // A damaged snapshot stays as it is, unless it is repaired.
      return { depth: null, databases: await foldersInDamaged(this.#session.reader, snapshot.tree) };
    }
  }

  async #rewrite(broken: readonly Broken[]): Promise<RewrittenSnapshot[]> {
    const { snapshots, lock } = this.#session;
    const result = ({ listed, mended }: Broken, newId: ObjectId | null): RewrittenSnapshot => ({
      listed,
      lost: mended.lost,
      newId,
    });
    if (this.#blobs === null || broken.length === 0) return broken.map((each) => result(each, null));
    await this.#blobs.finish();
    failpoint("rewrite-snapshots.trees-written");
    const tops = await topTrees(broken, {
      session: this.#session,
      signal: this.#options.signal,
      blobs: this.#blobs,
      leave: (id, error) => this.#leave(id, error),
    });
    await this.#blobs.finish();
    failpoint("rewrite-snapshots.manifests-written");
    const made = new Map(snapshots.map(({ id, snapshot }) => [identityOf(snapshot), id]));
    const rewritten: RewrittenSnapshot[] = [];
    await lock!.recheck();
    for (const [each, tree] of tops)
      rewritten.push(result(each, tree === null ? null : await this.#save(each, tree, made)));
    return rewritten;
  }

  /** Returns the snapshot that replaces `listed`: one made by a killed call, or a new one. */
  async #save({ listed }: Broken, top: Uint8Array, made: Map<string, ObjectId>): Promise<ObjectId> {
    const { id, snapshot } = listed;
    const now = new Date().toISOString();
    const rewritten: Snapshot = {
      ...snapshot,
      tree: objectIdOf(top),
      original: snapshot.original ?? id,
      tags: [...new Set([...(snapshot.tags ?? []), this.#rewriting.tag])],
      program_version: PROGRAM,
      // The old snapshot's counts do not fit the new tree.
      summary: { backup_start: now, backup_end: now },
    };
    const identity = identityOf(rewritten);
    const before = made.get(identity);
    // An identical snapshot gets a replacement of its own.
    made.delete(identity);
    if (before !== undefined) return before;
    const newId = await this.#session.access.repository.saveSnapshot(rewritten);
    failpoint("rewrite-snapshots.snapshot-written");
    return newId;
  }
}

/** Identifies a snapshot that an earlier call made: all fields except the summary and the program. */
function identityOf(snapshot: Snapshot): string {
  const { summary: _summary, program_version: _program, ...rest } = snapshot;
  return latin1(encodeSnapshot(rest));
}
