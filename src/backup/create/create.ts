import { hostname } from "node:os";
import { join } from "node:path";
import { moveByThreads } from "../../repository/transfer/move-by-threads.ts";
import type { PointContent, StoredContent } from "../../workspace/store/engine.ts";
import { advice, CairnError, call, option, throwIfAborted } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import type { ObjectId } from "../../ids.ts";
import { ForwardedPacks } from "../../repository/transfer/forwarded-packs.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { runTransfer, type TransferResult } from "../../repository/transfer/transfer.ts";
import { NOTHING_TO_MOVE, planTransfer, type TransferPlan } from "../../repository/transfer/transfer-plan.ts";
import { noteBackup } from "../../workspace/place/backup-notes.ts";
import { neverRead, type Point } from "../../workspace/points/point-files.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import type { CreateBackupOptions, CreateBackupResult, TransferredSize } from "../../contract/index.ts";
import { incompleteOf } from "../../workspace/points/left-out.ts";
import { looksEmpty } from "../open/own-folder.ts";
import {
  checkSnapshotTags,
  INCOMPLETE,
  newestOfSame,
  pointOf,
  pointTag,
  publicSnapshot,
  timeAfter,
} from "../open/snapshots.ts";
import { adding, type Session } from "../open/session.ts";
import {
  addedBy,
  keepKnownTrees,
  madeSnapshot,
  ownRecords,
  readKnownTrees,
  type SnapshotOrigin,
} from "../open/made-snapshot.ts";
import { callOf, type OpenRepository } from "../open/open-repository.ts";
import { PagedContent } from "./page-databases.ts";
import { fileUnderWay, Uploading } from "./uploading.ts";

/** The result without facts that only the save point knows. */
export type BackedUp = Omit<CreateBackupResult, "secrets" | "rows">;

/** A backup's session that receives the content that a save before it stores anew. */
export interface Forwarding {
  /** When it began, milliseconds since 1970. */
  started: number;
  /** `packs.finish()` adds the forwarded blobs to the session's index. */
  session: Session;
  /** Null if the stored blobs must be compressed anew on the way. */
  packs: ForwardedPacks | null;
}

interface Forwarded extends Forwarding {
  /** False if the folder equals its newest point, which is then backed up: the store may have lost content of that point. */
  isNewPoint: boolean;
}

/**
 * Runs a save and its backup under one shared lock of the repository, so that the folder is read, compressed and
 * written in one pass. If `work` throws, no snapshot has the forwarded blobs: the next backup finds those that are
 * indexed.
 */
export async function forwarding<T>(
  access: OpenRepository,
  options: CreateBackupOptions,
  work: (to: Forwarding) => Promise<T>,
): Promise<T> {
  const started = Date.now();
  return adding(access, callOf(options), async (session) => {
    const { repository } = access;
    const { index, lock } = session;
    const stillHeld = async (): Promise<void> => lock!.recheck();
    const directory = access.workDirectory();
    const packs = ForwardedPacks.orNull({ repository, index, directory, stillHeld });
    try {
      return await work({ started, session, packs });
    } catch (error) {
      await packs?.abort();
      throw error;
    } finally {
      packs?.clear();
    }
  });
}

/**
 * Puts a sealed save point into a repository: blobs that the repository lacks are opened, compared with their ids,
 * encrypted with the repository's keys and packed. `forwarded`: blobs that the save before it has brought.
 * - Shared locks on both; packs, with their index at the latest every 64 packs or 30 s; two looks for a lock that
 * excludes ours.
 * - The snapshot's file ●. A kill before it leaves unneeded packs: the next call finds the indexed ones, `prune`
 * removes the rest.
 */
export async function createBackup(
  workspace: Workspace,
  access: OpenRepository,
  options: CreateBackupOptions,
  forwarded?: Forwarded,
): Promise<BackedUp> {
  const started = forwarded?.started ?? Date.now();
  checkSnapshotTags(options.tags ?? []);
  const point = chosenPoint(workspace, options);
  if (!point.sealed) throw neverRead(point);
  if (options.save === true) warnOfNothing(workspace, point, options.onWarning);
  const uploading = new Uploading(options.onProgress);
  return workspace.engine.reading(async () => {
    const stored = await workspace.engine.stored(point.descriptor.content as unknown as PointContent);
    const run = async (session: Session): Promise<BackedUp> =>
      new BackupOfPoint({ session, point, stored, options, started, workspace, uploading }).run(forwarded);
    if (forwarded === undefined) return adding(access, options, run);
    const { packs, session } = forwarded;
    if (packs !== null) await uploading.finish(packs);
    return run(session);
  }, options);
}

function chosenPoint(workspace: Workspace, { point: word, dryRun }: CreateBackupOptions): Point {
  try {
    return workspace.resolve(word ?? "head");
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_found" || word !== undefined) throw error;
    throw new CairnError(error.code, error.message, {
      hint:
        dryRun === true
          ? advice`run ${call("save")} first: a dry run saves nothing`
          : advice`leave out ${option({ save: false }, "`--no-save`")}, so that the folder is saved first`,
      cause: error,
    });
  }
}

/** The folder of an unmounted disk is empty, and retention rules count an empty backup like any other. */
function warnOfNothing(workspace: Workspace, { descriptor }: Point, onWarning: CreateBackupOptions["onWarning"]): void {
  if (Object.values(descriptor.entries).some((count) => count > 0)) return;
  const folder = printablePath(workspace.root);
  const why = looksEmpty(workspace.root) ? "is its disk mounted?" : "ignore rules leave out everything in it";
  onWarning?.(`the backup of ${folder} is empty: ${why}`);
}

interface BackupParts {
  /** Without a lock in a dry run. */
  session: Session;
  workspace: Workspace;
  point: Point;
  stored: StoredContent;
  options: CreateBackupOptions;
  /** Milliseconds since 1970. */
  started: number;
  uploading: Uploading;
}

class BackupOfPoint {
  readonly #parts: BackupParts;
  #tree: ObjectId;
  /** Null if no database is stored page by page, and nothing is checked in a restored copy. */
  #paged: PagedContent | null = null;
  #probes: CreateBackupResult["probes"] = [];

  constructor(parts: BackupParts) {
    this.#parts = parts;
    this.#tree = Buffer.from(parts.stored.snapshotTree).toString("hex") as ObjectId;
  }

  async run(forwarded?: Forwarded): Promise<BackedUp> {
    try {
      return await this.#run(forwarded);
    } catch (error) {
      await this.#paged?.abort();
      throw error;
    }
  }

  async #run(forwarded?: Forwarded): Promise<BackedUp> {
    const { session, options, stored, uploading, workspace, point } = this.#parts;
    const { access, index, snapshots, lock } = session;
    failpoint("backup.locked");
    const origin = await this.#origin();
    const parent = newestOfSame(snapshots, origin);
    const { signal, onWarning } = options;
    const { paths } = origin;
    const isAsked = lock !== null && (options.probe ?? []).length + (point.descriptor.rows ?? []).length > 0;
    const asked = isAsked ? await (await import("./probe-point.ts")).askPoint(this.#parts, parent) : null;
    this.#probes = asked?.probes ?? [];
    const checks = asked?.checks ?? null;
    const callbacks = { signal, onWarning };
    this.#paged = await PagedContent.make({ session, workspace, stored, paths, parent, checks, ...callbacks });
    this.#tree = this.#paged?.tree ?? this.#tree;
    const unchanged = parent?.snapshot.tree === this.#tree;
    const known = readKnownTrees(access.cache, index);
    // The save has just found or stored all content of its new point, so the store's index lists everything.
    const isThere = forwarded?.isNewPoint === true && stored.index.isWithin(index);
    const plan = isThere ? NOTHING_TO_MOVE : await this.#plan(known, parent);
    const size = forwarded?.packs?.size;
    const done = { parent: parent?.id ?? null, unchanged };
    const isSkipped = unchanged && options.skipIfUnchanged === true;
    if (lock === null || (isSkipped && plan.entries.length === 0 && this.#paged?.hasNew !== true))
      return this.#result({ ...done, added: this.#withPages(addedBy(plan, null, size)), snapshot: null });
    const transferred = addedBy(plan, await this.#transfer(plan, lock), size);
    if (this.#paged !== null) {
      await this.#paged.finish();
      failpoint("backup.pages-written");
    }
    const added = this.#withPages(transferred);
    await lock.recheck();
    const snapshot = await this.#snapshot(origin, parent, added);
    failpoint("backup.transferred");
    throwIfAborted(options.signal);
    const id = await access.repository.saveSnapshot(snapshot);
    failpoint("backup.snapshot-written");
    uploading.saved();
    noteBackup(this.#parts.workspace.found.paths, {
      repository_id: access.repository.id,
      location: access.location,
      snapshot_id: id,
      save_point_id: this.#parts.point.descriptor.save_point_id,
      at: new Date().toISOString(),
    });
    known.delete(this.#tree);
    // With paged databases the snapshot's tree exists only in the repository, not in the store.
    keepKnownTrees(access.cache, index, [...(this.#paged === null ? [this.#tree] : []), ...known]);
    return this.#result({ ...done, added, snapshot: { id, snapshot } });
  }

  /** Reads paths and user from the point's own snapshot in its store. */
  async #origin(): Promise<SnapshotOrigin> {
    const { stored, point, workspace, options } = this.#parts;
    const uid = process.getuid?.() ?? 0;
    const gid = process.getgid?.() ?? 0;
    let origin: SnapshotOrigin = {
      paths: [workspace.root.toString("utf8")],
      hostname: hostname(),
      username: "",
      uid,
      gid,
    };
    const id = point.descriptor.content.snapshot;
    try {
      if (id !== null) origin = await stored.repository.loadSnapshot(id);
    } catch (error) {
      // The snapshot is for information only, and `doctor` makes it again.
      if (!(error instanceof CairnError) || (error.code !== "not_found" && error.code !== "damaged")) throw error;
    }
    const { paths, username } = origin;
    return { paths, hostname: options.hostname ?? origin.hostname, username, uid: origin.uid, gid: origin.gid };
  }

  async #plan(known: ReadonlySet<string>, parent: ListedSnapshot | null): Promise<TransferPlan> {
    const { session, stored, options } = this.#parts;
    const beside = [this.#tree, parent?.snapshot.tree, ...known].find((tree) => tree !== undefined && known.has(tree));
    const trees = this.#paged?.trees;
    const plan = await planTransfer(stored.index, session.index, {
      roots: [stored.snapshotTree],
      known: beside === undefined ? undefined : Buffer.from(beside, "hex"),
      readTree: trees?.readTree(stored.blobs) ?? stored.blobs.viewTree,
      signal: options.signal,
      onTree: (done) => options.onProgress?.({ phase: "planning", done }),
    });
    return trees?.withoutReplaced(plan, stored.index) ?? plan;
  }

  #withPages(added: TransferredSize): TransferredSize {
    const pages = this.#paged?.added;
    if (pages === undefined) return added;
    return {
      data_blobs: added.data_blobs + pages.data_blobs,
      tree_blobs: added.tree_blobs + pages.tree_blobs,
      bytes: added.bytes + pages.bytes,
      stored_bytes: added.stored_bytes + pages.stored_bytes,
      packs: added.packs + pages.packs,
    };
  }

  /** The counts of the snapshot, with its own records. */
  async #totals(): Promise<{ files: number; bytes: number }> {
    const { stored, point } = this.#parts;
    const { entries, bytes } = point.descriptor;
    if (this.#paged !== null) {
      const { databases, trees } = this.#paged;
      const away = databases.reduce((sum, { pages, pageSize }) => sum + pages * pageSize, 0);
      return { files: entries.files - databases.length + trees.own.files, bytes: bytes - away + trees.own.bytes };
    }
    const own = await ownRecords(stored);
    return { files: entries.files + own.files, bytes: bytes + own.bytes };
  }

  async #transfer(plan: TransferPlan, lock: RepositoryLock): Promise<TransferResult> {
    const { session, stored, options, uploading } = this.#parts;
    const { access, index } = session;
    if (plan.entries.length === 0) return { packs: 0, indexes: 0, packBytes: 0 };
    const packs = stored.index.table.packOf;
    return runTransfer(
      { repository: stored.repository, index: stored.index },
      { repository: access.repository, index },
      plan,
      {
        directory: join(access.workDirectory(), "packs"),
        near: new NearPacks(stored.repository.storage, ""),
        move: moveByThreads,
        uploads: { stillHeld: async () => lock.recheck() },
        onDamagedPack: stored.onDamagedPack,
        signal: options.signal,
        onProgress: uploading.told((blobs) => fileUnderWay(plan, packs, blobs)),
      },
    );
  }

  async #snapshot(origin: SnapshotOrigin, parent: ListedSnapshot | null, added: TransferredSize): Promise<Snapshot> {
    const { point, options, started, workspace } = this.#parts;
    const { descriptor } = point;
    const before = parent === null ? null : workspace.byId(pointOf(parent.snapshot));
    const isNewer = before === null ? options.save === true : before.sequence < point.sequence;
    const { created_at: at } = descriptor;
    return madeSnapshot({
      time: isNewer ? timeAfter(at, parent, options.onWarning) : at,
      tree: this.#tree,
      origin,
      parent,
      // A restore over a folder does not change entries that these patterns excluded.
      excludes: descriptor.rules.exclude,
      tags: [...(options.tags ?? []), pointTag(descriptor.save_point_id), ...(descriptor.complete ? [] : [INCOMPLETE])],
      started,
      added,
      ...(await this.#totals()),
    });
  }

  #result(of: {
    added: TransferredSize;
    snapshot: ListedSnapshot | null;
    parent: string | null;
    unchanged: boolean;
  }): BackedUp {
    const { session, point, options, started } = this.#parts;
    const { added, snapshot, parent, unchanged } = of;
    return {
      ...session.access.info,
      snapshot: snapshot === null ? null : publicSnapshot(snapshot),
      save_point_id: point.descriptor.save_point_id,
      parent,
      unchanged,
      dry_run: options.dryRun === true,
      added,
      incomplete: incompleteOf(point),
      databases: this.#paged?.shown ?? [],
      probes: this.#probes,
      left_out: [],
      duration_ms: Date.now() - started,
    };
  }
}
